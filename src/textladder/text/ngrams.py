"""Hashes of the n-grams of a text: words and marks, alone and in a row, and runs of characters inside words.

    text -> lower case, one space between words -> code points -> running sums -> the hash of every n-gram

A polynomial hash (Karp & Rabin 1987) gives the hash of any run of characters as a difference of two running sums, so
the thousands of n-grams of a text cost a few array operations. With 64 bits, hardly ever do two n-grams share one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import regex

# A word with its accents and vowel signs, or what people see as one character: a mark, or an emoji with its skin tone
# (extended grapheme clusters, Unicode Standard Annex 29). Where words are not separated, a run of letters is one word,
# and the characters inside it tell texts apart.
TOKEN = regex.compile(r"[\w\p{M}]+|(?!\s)\X")
LONGEST_PIECE = 1 << 16  # characters that are hashed at once
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
SPACE = ord(" ")

_salts = np.random.default_rng(0).integers(1 << 63, size=32, dtype=np.uint64)


def _powers(base: int) -> np.ndarray:
    factors = np.full(LONGEST_PIECE + 2, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


_POWERS, _INVERSE_POWERS = _powers(BASE), _powers(pow(BASE, -1, 1 << 64))


@dataclass(frozen=True)
class Ngrams:
    """N-grams of one kind.

    Attributes:
        hashes: uint64 (n,).
        starts: where each begins in the spaced text, int64 (n,).
        stops: where each ends, int64 (n,).
    """

    hashes: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


def spaced(text: str) -> str:
    """A text in lower case with one space before, between and after its words.

    >>> spaced("Not  bad.")
    ' not bad. '
    """
    return " " + "".join(f"{word} " for word in text.lower().split())


def tokens(text: str) -> list[str]:
    """Words, marks and emoji, in lower case.

    >>> tokens("It's GOOD :-)")
    ['it', "'", 's', 'good', ':', '-', ')']
    """
    found: list[str] = TOKEN.findall(text.lower())
    return found


def word_ngrams(text: str, longest: int) -> Ngrams:
    """Words, marks and emoji, and up to `longest` of them in a row.

    Args:
        text: the result of `spaced`.
        longest: tokens of the longest n-gram.
    """
    parts = []
    for offset, piece in _pieces(text):
        spans = np.array([found.span() for found in TOKEN.finditer(piece)], np.int64).reshape(-1, 2)
        starts, stops = spans[:, 0], spans[:, 1]
        sums = _running_sums(_code_points(piece))
        words = _mixed((sums[stops] - sums[starts]) * _INVERSE_POWERS[starts])
        hashes = words
        for size in range(1, min(longest, len(words)) + 1):
            if size > 1:
                hashes = _mixed(hashes[:-1] * np.uint64(3) + words[size - 1 :])
            last = len(words) - size + 1
            parts.append(Ngrams(hashes ^ _salts[size], offset + starts[:last], offset + stops[size - 1 :]))
    return _joined(parts)


def character_ngrams(text: str, longest: int) -> Ngrams:
    """Runs of up to `longest` characters that have a space at their ends at most.

    Args:
        text: the result of `spaced`.
        longest: characters of the longest n-gram.
    """
    parts = []
    for offset, piece in _pieces(text):
        points = _code_points(piece)
        sums, is_space = _running_sums(points), points == SPACE
        spaces = np.concatenate([[0], np.cumsum(is_space)])  # before each place
        for size in range(1, min(longest, len(points)) + 1):
            last = len(points) - size + 1
            inside = is_space if size == 1 else spaces[size - 1 : -1] - spaces[1 : last + 1]
            starts = np.flatnonzero(inside == 0)
            hashes = (sums[starts + size] - sums[starts]) * _INVERSE_POWERS[starts]
            parts.append(Ngrams(hashes ^ _salts[16 + size], offset + starts, offset + starts + size))
    return _joined(parts)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """A text in pieces that are not too long to be hashed at once, with their places; cut at spaces if it has any."""
    start = 0
    while start < len(text):
        stop = start + LONGEST_PIECE
        if stop < len(text) and (space := text.rfind(" ", start + 1, stop)) > 0:
            stop = space + 1
        yield start, text[start:stop]
        start = stop


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)


def _running_sums(points: np.ndarray) -> np.ndarray:
    """The sums of the characters before each place, each times a power of the base, uint64 (characters + 1,)."""
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(points * _POWERS[: len(points)], out=sums[1:])
    return sums


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Hashes whose bits all depend on each other (the finalizer of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = hashes ^ (hashes >> np.uint64(31))
    return mixed


def _joined(parts: list[Ngrams]) -> Ngrams:
    if not parts:
        return Ngrams(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Ngrams(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("hashes", "starts", "stops")))
