"""Finds texts that repeat one another, exactly or nearly.

    texts -> words and emoji, without case and punctuation -> the same text
          -> MinHash of word triples -> nearly the same text

`audit.py` asks it for duplicates, for leaks between the training and the test rows, and for contradictory labels.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textladder.data.labelled_texts import LabelledTexts
from textladder.progress import Monitor
from textladder.scratch_file import ScratchFile
from textladder.text.ngrams import mixed
from textladder.text.plain_words import word_hashes

MIN_SIMILARITY = 0.8  # Jaccard similarity of the word triples from which texts count as nearly the same
# At this similarity two texts share one of the bands with a probability of 99%; at 0.9 it is almost certain.
BANDS, BAND_ROWS = 12, 5
TEXTS_AT_ONCE = 1000
COMPARED_AT_ONCE = 1 << 20  # word triples
MIN_WORDS = 5  # shorter texts ("Great book!") are the same by chance


@dataclass(frozen=True)
class NearPairs:
    """Texts that are nearly the same.

    Attributes:
        ones: the index of the earlier text of each pair, int64 (pairs,), ascending.
        others: that of the other one, int64 (pairs,).
        similarities: of their word triples (Jaccard), float64 (pairs,).
    """

    ones: np.ndarray
    others: np.ndarray
    similarities: np.ndarray


class TextIndex:
    """The texts of several parts under one index, and which of them repeat an earlier one.

    The test rows come first, so that a training row that repeats a test row points to it.

    Args:
        parts: the parts by name: `train`, perhaps `valid` and `test`.
        monitor: receives progress.

    Attributes:
        wordless: the texts without any word, as (part, row).
    """

    def __init__(self, parts: Mapping[str, LabelledTexts], monitor: Monitor) -> None:
        self.parts, self._monitor = parts, monitor
        self.names = [name for name in ("test", "train", "valid") if name in parts]
        self.offsets = np.cumsum([0, *[len(parts[name]) for name in self.names]])
        self._rows = np.concatenate([parts[name].rows for name in self.names])
        self._tests = len(parts["test"]) if "test" in parts else 0
        self.wordless: list[tuple[str, int]] = []
        # Of each text only numbers are kept, some 100 bytes in all, so that millions of texts fit into memory.
        size = int(self.offsets[-1])
        text_hashes, words_hashes = np.empty(size, np.uint64), np.empty(size, np.uint64)
        self._band_keys = np.zeros((BANDS, size), np.uint32)
        self._triples = ScratchFile()  # of each text that is long enough, uint32, ascending
        self._places, self._sizes = np.zeros(size, np.int64), np.zeros(size, np.int32)
        start = 0
        for texts in (batch for name in self.names for batch in parts[name].batches(TEXTS_AT_ONCE)):
            stop = start + len(texts)
            words, ends = word_hashes(texts)
            text_hashes[start:stop] = [_hash(text) for text in texts]
            words_hashes[start:stop] = _sequence_hashes(words, ends)
            for place in np.flatnonzero(ends[1:] == ends[:-1]).tolist():
                self.wordless.append(self.row(start + place))
                words_hashes[start + place] = _hash(texts[place].strip())
            triples, sizes = _triples(words, ends)
            self._sizes[start:stop] = sizes
            self._places[start:stop] = self._triples.append(triples) + triples.itemsize * (np.cumsum(sizes) - sizes)
            self._band_keys[:, start:stop][:, sizes > 0] = _band_keys(triples, sizes[sizes > 0])
            start = stop
            monitor.advance(stop)
        # of every text, the index of the first text with the same characters, and of the first with the same words
        self._same_text, self._same_words = _first_equal(text_hashes), _first_equal(words_hashes)
        # the first of each group with the same words, if it is long enough
        self._distinct = np.flatnonzero((self._sizes > 0) & (self._same_words == np.arange(size)))

    def row(self, index: int) -> tuple[str, int]:
        """The part and the row of a text."""
        number = int(np.searchsorted(self.offsets, index, side="right")) - 1
        name = self.names[number]
        return name, int(self._rows[index])

    def near_pairs(self) -> NearPairs:
        """Find pairs of texts that are nearly the same, among the first of each group with the same words.

        Locality-sensitive hashing (Leskovec, Rajaraman & Ullman, "Mining of massive datasets", section 3.4): texts that
        share a band of their signatures are compared. Not each with each, so that a template of a thousand texts does
        not make half a million pairs: with the first text and the first training text that share the band, and if that
        is another text by chance, with the one before.
        """
        size = len(self._same_words)
        pairs = np.zeros(0, np.int64)  # the second text's index times `size`, plus the first's
        for others, *firsts, _ in self._sharing_a_band():
            pairs = _distinct(pairs, *((others * size + one)[one < others] for one in firsts))
        similarities = self._similarities(pairs)
        near, further = pairs[similarities >= MIN_SIMILARITY], np.zeros(0, np.int64)
        for others, first, first_trained, before in self._sharing_a_band():
            alike = others * size + np.where(before < self._tests, first, first_trained)
            further = _distinct(further, (others * size + before)[(before < others) & ~_is_among(alike, near)])
        further = further[~_is_among(further, pairs)]
        similarities = np.concatenate([similarities, self._similarities(further)])
        pairs = np.concatenate([pairs, further])
        found = similarities >= MIN_SIMILARITY
        others, ones = np.divmod(pairs[found], size)
        order = np.lexsort([others, ones])
        return NearPairs(ones[order], others[order], similarities[found][order])

    def _sharing_a_band(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """For each band, the texts that share it with an earlier one.

        Yields:
            Their indices; those of the first text that shares the band, of the first one that is a test row if they are
            and none if they are not, perhaps the text itself, and of the text before; int64 (texts,).
        """
        distinct, tests = self._distinct, self._tests
        for band in self._band_keys:
            keys = band[distinct]
            order = np.argsort(keys, kind="stable")
            texts, keys = distinct[order], keys[order]
            new_key = np.ones(len(order), bool)
            new_key[1:] = keys[1:] != keys[:-1]
            is_test = texts < tests
            new_side = new_key.copy()
            new_side[1:] |= is_test[1:] != is_test[:-1]
            places = np.arange(len(order))
            firsts, of_side = (texts[np.maximum.accumulate(np.where(new, places, 0))] for new in (new_key, new_side))
            later = np.flatnonzero(~new_key)
            yield texts[later], firsts[later], of_side[later], texts[later - 1]

    def _similarities(self, pairs: np.ndarray) -> np.ndarray:
        """The Jaccard similarity of the word triples of pairs, which are in ascending order, float64 (pairs,)."""
        others, ones = np.divmod(pairs, len(self._same_words))
        triples = np.cumsum(self._sizes[others].astype(np.int64) + self._sizes[ones])
        similarities = np.empty(len(pairs))
        self._monitor.start("comparing texts", len(pairs))
        start = 0
        while start < len(pairs):
            most = COMPARED_AT_ONCE + (triples[start - 1] if start else 0)
            stop = max(start + 1, int(np.searchsorted(triples, most)))
            similarities[start:stop] = self._compared(ones[start:stop], others[start:stop])
            start = stop
            self._monitor.advance(stop)
        return similarities

    def _compared(self, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        texts, places = np.unique(np.concatenate([ones, others]), return_inverse=True)
        read = [
            self._triples.read(place, size, np.uint32)
            for place, size in zip(self._places[texts].tolist(), self._sizes[texts].tolist(), strict=True)
        ]
        of_both = np.concatenate([read[place] for place in places.tolist()])
        sizes = self._sizes[texts][places].reshape(2, -1)
        # the number of the pair in the upper half of the bits: a triple that both texts have is there twice
        pair = np.repeat(np.tile(np.arange(len(ones)), 2), sizes.ravel())
        sorted_ = np.sort((pair << 32) + of_both)
        shared = np.bincount(sorted_[1:][sorted_[1:] == sorted_[:-1]] >> 32, minlength=len(ones))
        similarities: np.ndarray = shared / (sizes.sum(axis=0) - shared)
        return similarities

    def count_duplicates(self, names: Sequence[str], near: NearPairs) -> dict[str, int]:
        """Count the rows of some parts that repeat another row of these parts.

        Args:
            names: the parts.
            near: from `near_pairs`.

        Returns:
            How many are `exact` repetitions, how many repeat the `same_words`, and how many are `near` duplicates.
        """
        ranges = [np.arange(*self.offsets[n : n + 2]) for n, name in enumerate(self.names) if name in names]
        indices = np.concatenate([np.zeros(0, np.int64), *ranges])
        texts, words = np.unique(self._same_text[indices]), np.unique(self._same_words[indices])
        nearly = np.unique(near.others[np.isin(near.ones, words) & np.isin(near.others, words)])
        return {"exact": len(indices) - len(texts), "same_words": len(texts) - len(words), "near": len(nearly)}

    def leaks(self, near: NearPairs) -> tuple[list[tuple[int, int, float]], int]:
        """Find the training and validation rows that repeat a test row.

        Args:
            near: from `near_pairs`.

        Returns:
            The row, the test row and their similarity for each of them, and how many test rows are repeated.
        """
        test_rows = self._tests
        across = np.flatnonzero((near.ones < test_rows) & (near.others >= test_rows))
        # the nearest test row of each text; of several, the first
        order = across[np.lexsort([near.ones[across], -near.similarities[across], near.others[across]])]
        leaking, places = np.unique(near.others[order], return_index=True)
        test_of, similarity_of = np.full(len(self._same_words), -1), np.ones(len(self._same_words))
        test_of[:test_rows] = np.arange(test_rows)
        test_of[leaking], similarity_of[leaking] = near.ones[order[places]], near.similarities[order[places]]
        firsts = self._same_words[test_rows:]
        found = np.flatnonzero(test_of[firsts] >= 0)
        tests, similarities = test_of[firsts[found]], similarity_of[firsts[found]]
        rows = self._rows[test_rows + found]
        by_row = np.lexsort([tests, rows])
        leaks = zip(*(of[by_row].tolist() for of in (rows, self._rows[tests], similarities)), strict=True)
        return list(leaks), int(np.isin(self._same_words[:test_rows], tests).sum())

    def groups(self) -> np.ndarray:
        """The group of each text, int64 (texts,): texts that repeat one another, exactly or nearly, share one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        size = len(self._same_words)
        near = self.near_pairs()
        ones, others = np.concatenate([np.arange(size), near.ones]), np.concatenate([self._same_words, near.others])
        linked = coo_array((np.ones(len(ones), bool), (ones, others)), shape=(size, size))
        groups: np.ndarray = connected_components(linked, directed=False)[1].astype(np.int64)
        return groups

    def contradictions(self) -> list[list[tuple[str, int]]]:
        """Find groups of rows with the same words but different labels, each row as (part, row)."""
        labels = np.concatenate([self.parts[name].label_ids for name in self.names])
        order = np.argsort(self._same_words, kind="stable")
        starts = np.flatnonzero(np.diff(self._same_words[order], prepend=-1))
        ends = np.append(starts, len(order))[1:]
        differ = np.minimum.reduceat(labels[order], starts) != np.maximum.reduceat(labels[order], starts)
        wordless = set(self.wordless)
        found = []
        for start, end in zip(starts[differ].tolist(), ends[differ].tolist(), strict=True):
            rows = [self.row(index) for index in order[start:end].tolist()]
            if rows[0] not in wordless:
                found.append(rows)
        return found


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _distinct(*parts: np.ndarray) -> np.ndarray:
    """The distinct values of some arrays in ascending order, not negative: `np.unique` is slower for many."""
    values = np.sort(np.concatenate(parts))
    found: np.ndarray = values[np.diff(values, prepend=-1) != 0]
    return found


def _is_among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether each value is one of those in ascending order, bool (values,)."""
    places = np.searchsorted(known, values)
    found: np.ndarray = np.append(known, -1)[places] == values
    return found


def _first_equal(values: np.ndarray) -> np.ndarray:
    """For each value, the index of the first one that is equal, int64 (values,)."""
    _, firsts, groups = np.unique(values, return_index=True, return_inverse=True)
    equal: np.ndarray = firsts[groups]
    return equal


def _sequence_hashes(words: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash of the words of each text in their order, uint64 (texts,)."""
    within = np.arange(len(words)) - np.repeat(ends[:-1], np.diff(ends))
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(mixed(words + mixed(within.astype(np.uint64))), out=sums[1:])
    return mixed(sums[ends[1:]] - sums[ends[:-1]])


def _triples(words: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct runs of three words of each text as numbers in ascending order, uint32; none of a short text.

    Returns:
        Those of all texts, and how many each text has, int64 (texts,).
    """
    sizes = np.diff(ends)
    text = np.repeat(np.arange(len(sizes)), sizes)
    first = np.flatnonzero(text[2:] == text[:-2])
    first = first[sizes[text[first]] >= MIN_WORDS]
    runs = mixed(mixed(words[first] * np.uint64(3) + words[first + 1]) * np.uint64(3) + words[first + 2])
    distinct = _distinct((text[first] << 32) + (runs >> np.uint64(32)).astype(np.int64))
    return distinct.astype(np.uint32), np.bincount(distinct >> 32, minlength=len(sizes))


def _band_keys(triples: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A number for each band of the MinHash signatures of texts, uint32 (bands, texts).

    The rows of a signature are minima of multiply-add-shift hashes (Dietzfelbinger 1996).

    Args:
        triples: the word triples of the texts one after the other, uint32.
        sizes: how many triples each text has, at least one, int64 (texts,).
    """
    factors, addends, weights = np.random.default_rng(0).integers(
        2**63, size=(3, BANDS * BAND_ROWS, 1), dtype=np.uint64
    )
    factors, weights = factors | np.uint64(1), weights | np.uint64(1)
    starts = np.cumsum(sizes) - sizes
    if not len(starts):
        return np.zeros((BANDS, 0), np.uint32)
    wide = triples.astype(np.uint64)
    minima = [
        np.minimum.reduceat((wide * factor + addend) >> np.uint64(32), starts)
        for factor, addend in zip(factors, addends, strict=True)
    ]
    keys = (np.stack(minima) * weights).reshape(BANDS, BAND_ROWS, -1).sum(axis=1, dtype=np.uint64)
    found: np.ndarray = (keys >> np.uint64(32)).astype(np.uint32)
    return found
