"""How many texts have each n-gram: exactly, however many n-grams there are, in bounded memory.

    n-grams of a batch -> the distinct ones of each text -> summed in memory -> in a file, sorted by hash -> merged

Millions of reviews have some hundred million distinct n-grams, most of them in a single text.
"""

from collections.abc import Iterator

import numpy as np

from textladder.scratch_file import ScratchFile
from textladder.text.ngrams import Ngrams

MOST_IN_MEMORY = 1 << 22  # n-grams that are held before those that are the same are summed
PARTS = 1 << 8  # of the range of hashes, which are merged one after the other
RECORD = np.dtype([("hash", "<u8"), ("texts", "<u4")])

Counted = tuple[np.ndarray, np.ndarray]  # distinct hashes in ascending order, and how many texts have each


class DocumentCounts:
    """How many texts have each of the n-grams of one kind."""

    def __init__(self) -> None:
        self._summed: Counted = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
        self._waiting: list[Counted] = []
        self._size = 0  # of what waits
        self._file: ScratchFile | None = None
        self._runs: list[np.ndarray] = []  # where each part of each sorted run begins in the file, in bytes

    def add(self, ngrams: Ngrams) -> None:
        """Count the n-grams of some texts, which are not those of an earlier call."""
        self._waiting.append(_count_texts(ngrams.hashes, ngrams.texts))
        self._size += len(self._waiting[-1][0])
        if self._size > max(MOST_IN_MEMORY, len(self._summed[0])):
            self._sum()
            if len(self._summed[0]) > MOST_IN_MEMORY:
                self._move_to_file()

    def most_frequent(self, least: int, most: int) -> np.ndarray:
        """The hashes of the `most` n-grams that the most texts have, of those that at least `least` texts have.

        Returns:
            uint64 (at most `most`,), in ascending order. Of n-grams that are as frequent, those with the lower hashes.
        """
        hashes, texts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for some, some_texts in self._parts():
            often = some_texts >= least
            hashes, texts = np.concatenate([hashes, some[often]]), np.concatenate([texts, some_texts[often]])
            if len(hashes) > most:
                kept = np.sort(np.argsort(-texts, kind="stable")[:most])
                hashes, texts = hashes[kept], texts[kept]
        return hashes

    def _parts(self) -> Iterator[Counted]:
        """Everything that was counted, one range of hashes after the other."""
        self._sum()
        if self._file is None:
            yield self._summed
            return
        self._move_to_file()
        for part in range(PARTS):
            runs = [
                self._file.read(int(bounds[part]), int(bounds[part + 1] - bounds[part]) // RECORD.itemsize, RECORD)
                for bounds in self._runs
            ]
            yield _summed([(run["hash"], run["texts"].astype(np.int64)) for run in runs])

    def _sum(self) -> None:
        self._summed = _summed([self._summed, *self._waiting])
        self._waiting, self._size = [], 0

    def _move_to_file(self) -> None:
        hashes, texts = self._summed
        self._file = self._file or ScratchFile()
        run = np.empty(len(hashes), RECORD)
        run["hash"], run["texts"] = hashes, texts
        firsts = np.arange(PARTS, dtype=np.uint64) * np.uint64((1 << 64) // PARTS)
        bounds = np.append(np.searchsorted(hashes, firsts), len(hashes))
        self._runs.append(self._file.append(run) + bounds * RECORD.itemsize)
        self._summed = hashes[:0], texts[:0]


def _count_texts(hashes: np.ndarray, texts: np.ndarray) -> Counted:
    """The distinct hashes and how many texts have each.

    Args:
        hashes: uint64 (n,).
        texts: the number of the text that each is in, int64 (n,), below 2**32.
    """
    distinct, places = np.unique(hashes, return_inverse=True)
    pairs = np.sort((places << 32) + texts)
    first = np.ones(len(pairs), bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return distinct, np.bincount(pairs[first] >> 32, minlength=len(distinct))


def _summed(parts: list[Counted]) -> Counted:
    hashes, places = np.unique(np.concatenate([hashes for hashes, _ in parts]), return_inverse=True)
    texts = np.bincount(places, np.concatenate([texts for _, texts in parts]), minlength=len(hashes))
    return hashes, texts.astype(np.int64)
