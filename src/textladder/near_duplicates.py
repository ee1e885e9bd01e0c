"""Finds texts that repeat one another, exactly or nearly.

    texts -> words, without case and punctuation -> the same text -> MinHash of word triples -> nearly the same text

`audit.py` asks it for duplicates, for leaks between the training and the test rows, and for contradictory labels.
"""

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from textladder.data.labelled_texts import LabelledTexts
from textladder.progress import Monitor

MIN_SIMILARITY = 0.8  # Jaccard similarity of the word triples from which texts count as nearly the same
# At this similarity two texts share one of the bands with a probability of 99%; at 0.9 it is almost certain.
BANDS, BAND_ROWS = 12, 5
MIN_WORDS = 5  # shorter texts ("Great book!") are the same by chance

NearPair = tuple[int, int, float]  # the indices of two texts, the earlier one first, and their similarity


def words_of(text: str) -> list[str]:
    """Split a text into words, without case and punctuation.

    >>> words_of("It's GOOD -- really!")
    ['it', 's', 'good', 'really']
    """
    return re.findall(r"\w+", text.casefold())


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
        from datasketch import MinHash

        self.parts = parts
        self.names = [name for name in ("test", "train", "valid") if name in parts]
        self.offsets = np.cumsum([0, *[len(parts[name]) for name in self.names]])
        self.wordless: list[tuple[str, int]] = []
        size = self.offsets[-1]
        # of every text, the index of the first text with the same characters, and of the first with the same words
        self._same_text, self._same_words = np.empty(size, np.int64), np.empty(size, np.int64)
        self._distinct: list[int] = []  # the first of each group with the same words, if it is long enough
        seen_texts: dict[bytes, int] = {}
        seen_words: dict[bytes, int] = {}
        signatures: list[np.ndarray] = []
        blank = MinHash(BANDS * BAND_ROWS, hashfunc=zlib.crc32)
        for index, text in enumerate(text for name in self.names for text in parts[name]):
            words = words_of(text)
            if not words:
                self.wordless.append(self.row(index))
            self._same_text[index] = seen_texts.setdefault(_digest(text), index)
            self._same_words[index] = seen_words.setdefault(_digest(" ".join(words) or text.strip()), index)
            if len(words) >= MIN_WORDS and self._same_words[index] == index:
                sketch = blank.copy()
                sketch.update_batch(_shingles(words))
                signatures.append(sketch.hashvalues)
                self._distinct.append(index)
            if index % 1000 == 999:
                monitor.advance(index + 1)
        self._signatures = np.array(signatures, np.uint32).reshape(len(signatures), BANDS * BAND_ROWS)

    def row(self, index: int) -> tuple[str, int]:
        """The part and the row of a text."""
        number = int(np.searchsorted(self.offsets, index, side="right")) - 1
        name = self.names[number]
        return name, int(self.parts[name].rows[index - self.offsets[number]])

    def near_pairs(self) -> list[NearPair]:
        """Find pairs of texts that are nearly the same, among the first of each group with the same words."""
        shingles: dict[int, np.ndarray] = {}
        pairs = []
        for one, other in sorted(self._candidates()):
            for index in {one, other} - shingles.keys():
                hashes = map(zlib.crc32, _shingles(words_of(self._text(index))))
                shingles[index] = np.unique(np.fromiter(hashes, np.uint32))
            a, b = shingles[one], shingles[other]
            shared = len(np.intersect1d(a, b, assume_unique=True))
            similarity = shared / (len(a) + len(b) - shared)
            if similarity >= MIN_SIMILARITY:
                pairs.append((one, other, similarity))
        return pairs

    def _candidates(self) -> set[tuple[int, int]]:
        """Pairs of texts that share a band of their signatures.

        Locality-sensitive hashing (Leskovec, Rajaraman & Ullman, "Mining of massive datasets", section 3.4). Within a
        group that shares a band, each text is paired with the first one and with the one before it only, so that a
        template of a thousand texts does not make half a million pairs.
        """
        distinct = np.array(self._distinct, np.int64)
        pairs: set[tuple[int, int]] = set()
        weights = np.random.default_rng(0).integers(2**63, size=BAND_ROWS, dtype=np.uint64) | np.uint64(1)
        for band in np.split(self._signatures, BANDS, axis=1):
            keys = (band * weights).sum(axis=1, dtype=np.uint64)
            order = np.argsort(keys, kind="stable")
            same_key = keys[order][1:] == keys[order][:-1]  # as the one before
            group_starts = np.where(np.concatenate([[True], ~same_key]), np.arange(len(order)), 0)
            firsts = order[np.maximum.accumulate(group_starts)]
            for earlier in (order[:-1], firsts[1:]):
                ones, others = distinct[earlier[same_key]], distinct[order[1:][same_key]]
                pairs.update(zip(ones.tolist(), others.tolist(), strict=True))
        return pairs

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
        present = set(words.tolist())
        nearly = {other for one, other, _ in near if one in present and other in present}
        return {"exact": len(indices) - len(texts), "same_words": len(texts) - len(words), "near": len(nearly)}

    def leaks(self, near: Sequence[NearPair]) -> tuple[list[tuple[int, int, float]], int]:
        """Find the training and validation rows that repeat a test row.

        Args:
            near: from `near_pairs`.

        Returns:
            The row, the test row and their similarity for each of them, and how many test rows are repeated.
        """
        test_rows = self.offsets[1]
        nearest: dict[int, tuple[int, float]] = {}
        for one, other, similarity in near:
            if one < test_rows <= other and similarity > nearest.get(other, (0, 0.0))[1]:
                nearest[other] = one, similarity
        found, repeated = [], set[int]()
        for index in range(test_rows, self.offsets[-1]):
            first = int(self._same_words[index])
            test, similarity = (first, 1.0) if first < test_rows else nearest.get(first, (-1, 0.0))
            if test >= 0:
                found.append((self.row(index)[1], self.row(test)[1], similarity))
                repeated.add(test)
        return sorted(found), int(np.isin(self._same_words[:test_rows], list(repeated)).sum())

    def contradictions(self) -> list[list[tuple[str, int]]]:
        """Find groups of rows with the same words but different labels, each row as (part, row)."""
        labels = np.concatenate([self.parts[name].label_ids for name in self.names])
        order = np.argsort(self._same_words, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self._same_words[order])) + 1)
        wordless = set(self.wordless)
        found = []
        for group in groups:
            if len(group) > 1 and len(set(labels[group].tolist())) > 1:
                rows = [self.row(index) for index in group.tolist()]
                if rows[0] not in wordless:
                    found.append(rows)
        return found

    def _text(self, index: int) -> str:
        name, row = self.row(index)
        text: str = self.parts[name].table["text"][row].as_py()
        return text


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def _shingles(words: Sequence[str]) -> list[bytes]:
    """Runs of three words, as bytes."""
    return [" ".join(run).encode() for run in zip(words, words[1:], words[2:], strict=False)]
