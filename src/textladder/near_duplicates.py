"""Finds texts that repeat one another, exactly or nearly.

    texts -> words and emoji, without case and punctuation -> the same text
          -> MinHash of word triples -> nearly the same text

`audit.py` asks it for duplicates, for leaks between the training and the test rows, and for contradictory labels.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import regex

from textladder.data.labelled_texts import LabelledTexts
from textladder.data.mapped_tables import release_pages
from textladder.progress import Monitor
from textladder.text.ngrams import LONGEST_CACHED, tokens

MIN_SIMILARITY = 0.8  # Jaccard similarity of the word triples from which texts count as nearly the same
# At this similarity two texts share one of the bands with a probability of 99%; at 0.9 it is almost certain.
BANDS, BAND_ROWS = 12, 5
TEXTS_AT_ONCE = 1000  # split into words
SHINGLED_TEXTS = 1 << 14  # kept for comparison with others
MIN_WORDS = 5  # shorter texts ("Great book!") are the same by chance

NearPair = tuple[int, int, float]  # the indices of two texts, the earlier one first, and their similarity


# Emoji and other symbols say something; so does an emoticon that stands alone, such as ":-)" or "<3".
SPEAKING = regex.compile(r"[\w\p{M}\p{So}]|\p{Regional_Indicator}")
EMOTICON = regex.compile(r"[:;=8][-'o^]?[()\[\]{}dp/\\|*$@<>]+|[()\[\]{}]+[-'o^]?[:;=8]|<3+")


def words_of(text: str) -> list[str]:
    """Split a text into words and emoji, without case and punctuation.

    >>> words_of("It's GOOD -- really! 👍 :-)")
    ['it', 's', 'good', 'really', '👍', ':-)']
    """
    return [word for chunk in text.casefold().split() for word in _words_in(chunk)]


def _words_in(chunk: str) -> Sequence[str]:
    return _words_in_common(chunk) if len(chunk) <= LONGEST_CACHED else _split_chunk(chunk)


@lru_cache(maxsize=1 << 15)
def _words_in_common(chunk: str) -> tuple[str, ...]:
    return tuple(_split_chunk(chunk))


def _split_chunk(chunk: str) -> list[str]:
    if EMOTICON.fullmatch(chunk):
        return [chunk]
    return [token for token in tokens(chunk) if SPEAKING.search(token)]


class TextIndex:
    """The texts of several parts under one index, and which of them repeat an earlier one.

    The test rows come first, so that a training row that repeats a test row points to it.

    Args:
        parts: the parts by name; `test` among them.
        monitor: receives progress.

    Attributes:
        wordless: the texts without any word, as (part, row).
    """

    def __init__(self, parts: Mapping[str, LabelledTexts], monitor: Monitor) -> None:
        self.parts = parts
        self.names = [name for name in ("test", "train", "valid") if name in parts]
        self.offsets = np.cumsum([0, *[len(parts[name]) for name in self.names]])
        self.wordless: list[tuple[str, int]] = []
        # Of each text only numbers are kept, 64 bytes in all, so that millions of texts fit into memory.
        size = int(self.offsets[-1])
        text_hashes, word_hashes = np.empty(size, np.uint64), np.empty(size, np.uint64)
        self._band_keys = np.zeros((BANDS, size), np.uint32)
        long_enough = np.zeros(size, bool)
        start = 0
        for texts in (batch for name in self.names for batch in parts[name].batches(TEXTS_AT_ONCE)):
            split = [words_of(text) for text in texts]
            self.wordless += [self.row(start + place) for place, words in enumerate(split) if not words]
            stop = start + len(texts)
            text_hashes[start:stop] = [_hash(text) for text in texts]
            word_hashes[start:stop] = [
                _hash(" ".join(words) or text.strip()) for text, words in zip(texts, split, strict=True)
            ]
            is_long = np.array([len(words) >= MIN_WORDS for words in split])
            long_enough[start:stop] = is_long
            self._band_keys[:, start:stop][:, is_long] = _band_keys([one for one in split if len(one) >= MIN_WORDS])
            start = stop
            monitor.advance(stop)
        # of every text, the index of the first text with the same characters, and of the first with the same words
        self._same_text, self._same_words = _first_equal(text_hashes), _first_equal(word_hashes)
        # the first of each group with the same words, if it is long enough
        self._distinct = np.flatnonzero(long_enough & (self._same_words == np.arange(size)))

    def row(self, index: int) -> tuple[str, int]:
        """The part and the row of a text."""
        number = int(np.searchsorted(self.offsets, index, side="right")) - 1
        name = self.names[number]
        return name, int(self.parts[name].rows[index - self.offsets[number]])

    def near_pairs(self) -> list[NearPair]:
        """Find pairs of texts that are nearly the same, among the first of each group with the same words."""

        @lru_cache(SHINGLED_TEXTS)
        def shingles(index: int) -> np.ndarray:
            hashes = map(zlib.crc32, _shingles(words_of(self._text(index))))
            return np.unique(np.fromiter(hashes, np.uint32))

        pairs = []
        for number, (one, other) in enumerate(self._candidates()):
            a, b = shingles(one), shingles(other)
            shared = len(np.intersect1d(a, b, assume_unique=True))
            similarity = shared / (len(a) + len(b) - shared)
            if similarity >= MIN_SIMILARITY:
                pairs.append((one, other, similarity))
            if number % 1000 == 999:
                for part in self.parts.values():
                    release_pages(part.table)
        return pairs

    def _candidates(self) -> Iterator[tuple[int, int]]:
        """Pairs of texts that share a band of their signatures, in order.

        Locality-sensitive hashing (Leskovec, Rajaraman & Ullman, "Mining of massive datasets", section 3.4). Within a
        group that shares a band, each text is paired with the first one and with the one before it only, so that a
        template of a thousand texts does not make half a million pairs.
        """
        distinct, size = self._distinct, len(self._same_words)
        pairs = np.zeros(0, np.int64)  # the first text's index times `size`, plus the second's
        for band in self._band_keys:
            keys = band[distinct]
            order = np.argsort(keys, kind="stable")
            same_key = keys[order][1:] == keys[order][:-1]  # as the one before
            group_starts = np.where(np.concatenate([[True], ~same_key]), np.arange(len(order)), 0)
            firsts = order[np.maximum.accumulate(group_starts)]
            for earlier in (order[:-1], firsts[1:]):
                ones, others = distinct[earlier[same_key]], distinct[order[1:][same_key]]
                pairs = np.union1d(pairs, ones * size + others)
        for pair in pairs:
            yield divmod(int(pair), size)

    def count_duplicates(self, names: Sequence[str], near: Sequence[NearPair]) -> dict[str, int]:
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
        pairs = np.array([(one, other) for one, other, _ in near], np.int64).reshape(-1, 2)
        nearly = np.unique(pairs[np.isin(pairs, words).all(axis=1), 1])
        return {"exact": len(indices) - len(texts), "same_words": len(texts) - len(words), "near": len(nearly)}

    def leaks(self, near: Sequence[NearPair]) -> tuple[list[tuple[int, int, float]], int]:
        """Find the training and validation rows that repeat a test row.

        Args:
            near: from `near_pairs`.

        Returns:
            The row, the test row and their similarity for each of them, and how many test rows are repeated.
        """
        test_rows = int(self.offsets[1])
        nearest: dict[int, tuple[int, float]] = {}
        for one, other, similarity in near:
            if one < test_rows <= other and similarity > nearest.get(other, (0, 0.0))[1]:
                nearest[other] = one, similarity
        found, repeated = [], set[int]()
        firsts = self._same_words[test_rows:]
        leaking = (firsts < test_rows) | np.isin(firsts, list(nearest))
        for index in (np.flatnonzero(leaking) + test_rows).tolist():
            first = int(self._same_words[index])
            test, similarity = (first, 1.0) if first < test_rows else nearest[first]
            found.append((self.row(index)[1], self.row(test)[1], similarity))
            repeated.add(test)
        return sorted(found), int(np.isin(self._same_words[:test_rows], list(repeated)).sum())

    def groups(self) -> np.ndarray:
        """The group of each text, int64 (texts,): texts that repeat one another, exactly or nearly, share one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        size = len(self._same_words)
        near = np.array([(one, other) for one, other, _ in self.near_pairs()], np.int64).reshape(-1, 2)
        ones, others = np.concatenate([np.arange(size), near[:, 0]]), np.concatenate([self._same_words, near[:, 1]])
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

    def _text(self, index: int) -> str:
        name, row = self.row(index)
        text: str = self.parts[name].table["text"][row].as_py()
        return text


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _first_equal(values: np.ndarray) -> np.ndarray:
    """For each value, the index of the first one that is equal, int64 (values,)."""
    _, firsts, groups = np.unique(values, return_index=True, return_inverse=True)
    equal: np.ndarray = firsts[groups]
    return equal


def _band_keys(split: Sequence[Sequence[str]]) -> np.ndarray:
    """A number for each band of the MinHash signatures of texts, uint32 (bands, texts).

    Args:
        split: the words of each text, at least three.
    """
    from datasketch import MinHash

    blank = MinHash(BANDS * BAND_ROWS, hashfunc=zlib.crc32)
    signatures = np.empty((len(split), BANDS * BAND_ROWS), np.uint64)
    for place, words in enumerate(split):
        sketch = blank.copy()
        sketch.update_batch(_shingles(words))
        signatures[place] = sketch.hashvalues
    weights = np.random.default_rng(0).integers(2**63, size=BAND_ROWS, dtype=np.uint64) | np.uint64(1)
    keys: np.ndarray = (signatures.reshape(-1, BANDS, BAND_ROWS) * weights).sum(axis=2, dtype=np.uint64).T
    return (keys >> np.uint64(32)).astype(np.uint32)


def _shingles(words: Sequence[str]) -> list[bytes]:
    """Runs of three words, as bytes."""
    return [" ".join(run).encode() for run in zip(words, words[1:], words[2:], strict=False)]
