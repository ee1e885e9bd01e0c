"""Hashes of the n-grams of texts: words and marks, alone and in a row, and runs of characters inside words.

    texts -> lower case, one space between words -> code points -> running sums -> the hash of every n-gram

A polynomial hash (Karp & Rabin 1987) gives the hash of any run of characters as a difference of two running sums, so
the n-grams of many texts cost a few array operations. With 64 bits, hardly ever do two n-grams share one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import regex

# Characters of scripts that do not separate their words.
UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
# As in Unicode Standard Annex 29: a word with its accents and vowel signs, or what people see as one character, be it a
# mark, an emoji with its skin tone, or a character of a script that does not separate its words. A sign that is written
# before others stands alone, since a cluster would join it with a space.
TOKEN = regex.compile(
    rf"(?V1)[[\w\p{{M}}]--{UNSPACED.pattern}]+"
    r"|\p{Grapheme_Cluster_Break=Prepend}|(?! )\X"
)
IN_WORD = regex.compile(rf"(?V1)[[\w\p{{M}}]--{UNSPACED.pattern}]")
# What is or may be one token with the character before or after it, but for the syllables of Hangul, which are letters.
JOINED = regex.compile(r"(?V1)[\P{Grapheme_Cluster_Break=Other}--[\p{Hangul}--\p{M}]]")
LONGEST_PIECE = 1 << 15  # characters that are hashed at once: their arrays stay in a cache of the processor
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
SPACE = ord(" ")
LONGEST_CACHED = 32  # characters; most words come again, and finding their tokens is half the work on a text
_LAST = np.uint64(2**64 - 1)

# The kinds of characters: an accent joins the mark before it or belongs to a word; what else joins is left to TOKEN.
_SPACE, _LETTER, _ACCENT, _MARK, _JOINING = range(1, 6)
_KINDS = np.zeros(0x110000, np.uint8)  # of each code point; 0 until it occurs

_salts = np.random.default_rng(0).integers(1 << 63, size=32, dtype=np.uint64)


def _powers(base: int) -> np.ndarray:
    factors = np.full(LONGEST_PIECE + 2, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


_POWERS = _powers(BASE)
_INVERSE_POWERS = _powers(pow(BASE, -1, 1 << 64))


@dataclass(frozen=True)
class Ngrams:
    """N-grams of one kind.

    Attributes:
        hashes: uint64 (n,).
        starts: where each begins in the spaced text, int64 (n,).
        stops: where each ends, int64 (n,).
        texts: which text of the batch each is in, int64 (n,).
    """

    hashes: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    texts: np.ndarray


class Terms:
    """Hashes that are known, each with its place in their ascending order.

    They are found by their first bits, which say where they begin to be looked for, and a few steps of binary search.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        """Terms of hashes in ascending order, uint64 (terms,)."""
        self.hashes = hashes
        bits = max(1, len(hashes).bit_length())
        self._shift = np.uint64(64 - bits)
        sizes = np.bincount((hashes >> self._shift).astype(np.int64), minlength=1 << bits)
        self._first = (np.cumsum(sizes) - sizes).astype(np.int32)  # small, to stay in a cache
        self._steps = [1 << power for power in reversed(range(int(sizes.max()).bit_length()))]
        self._padded = np.concatenate([hashes, np.full(2 * self._steps[0] if self._steps else 1, _LAST)])

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look hashes up.

        Args:
            hashes: uint64 (n,).

        Returns:
            The places of those that are known, int64 (known,), and which ones they are, bool (n,).
        """
        places = self._first[(hashes >> self._shift).view(np.int64)].astype(np.int64)
        for step in self._steps:
            places += step * (self._padded[places + (step - 1)] < hashes)
        known = (self._padded[places] == hashes) & (places < len(self.hashes))
        return places[known], known


def spaced(text: str) -> str:
    """A text in lower case with one space before, between and after its words.

    >>> spaced("Not  bad.")
    ' not bad. '
    """
    words = text.lower().split()
    return f" {' '.join(words)} " if words else " "


def batches(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Texts spaced and joined, as many as are hashed at once; an endless text makes a batch of its own.

    Yields:
        How many texts, and the batch.
    """
    waiting: list[str] = []
    characters = 0
    for text in map(spaced, texts):
        if waiting and characters + len(text) > LONGEST_PIECE:
            yield len(waiting), "".join(waiting)
            waiting, characters = [], 0
        waiting.append(text)
        characters += len(text)
    if waiting:
        yield len(waiting), "".join(waiting)


def tokens(text: str) -> list[str]:
    """Words, marks and emoji, in lower case.

    >>> tokens("It's GOOD :-)")
    ['it', "'", 's', 'good', ':', '-', ')']
    """
    return [token for word in text.lower().split() for token in _tokens_of(word)]


def _tokens_of(word: str) -> Sequence[str]:
    found: Sequence[str] = _tokens_of_common(word) if len(word) <= LONGEST_CACHED else TOKEN.findall(word)
    return found


@lru_cache(maxsize=1 << 15)
def _tokens_of_common(word: str) -> tuple[str, ...]:
    return tuple(TOKEN.findall(word))


@dataclass(frozen=True)
class Piece:
    """A part of a batch that is hashed at once.

    Attributes:
        text: its characters.
        points: their code points, uint32 (characters,).
        offset: where it begins in the batch.
        is_space: bool (characters,).
        texts: which text of the batch each character belongs to, int64 (characters,).
        sums: of the characters before each place, each times a power of the base, uint64 (characters + 1,). The first
            power is 1, not 0, so that the first bits of a hash differ even between single characters.
    """

    text: str
    points: np.ndarray
    offset: int
    is_space: np.ndarray
    texts: np.ndarray
    sums: np.ndarray

    def hashes(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """The hashes of runs of characters, wherever in the piece they are, uint64 (n,)."""
        found: np.ndarray = (self.sums[stops] - self.sums[starts]) * _INVERSE_POWERS[starts]
        return found


def pieces(batch: str) -> Iterator[Piece]:
    """A batch in pieces that are not too long to be hashed at once; only an endless text has several.

    Args:
        batch: one or more results of `spaced`, joined.
    """
    start = 0
    while start < len(batch):
        stop = start + LONGEST_PIECE
        if stop < len(batch) and (space := batch.rfind(" ", start + 1, stop)) > 0:
            stop = space + 1
        text = batch[start:stop]
        points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        is_space = points == SPACE
        texts = np.zeros(len(points), np.int64)
        np.cumsum(is_space[1:] & is_space[:-1], out=texts[1:])  # two spaces: one text ends and another begins
        sums = np.zeros(len(points) + 1, np.uint64)
        np.cumsum(points * _POWERS[1 : len(points) + 1], out=sums[1:])
        yield Piece(text, points, start, is_space, texts, sums)
        start = stop


def word_ngrams(pieces: Sequence[Piece], longest: int) -> Ngrams:
    """Words, marks and emoji, and up to `longest` of them in a row.

    Args:
        pieces: those of a batch.
        longest: tokens of the longest n-gram.
    """
    parts = []
    for piece in pieces:
        starts, stops = token_places(piece)
        words = mixed(piece.hashes(starts, stops))
        texts = piece.texts[starts]
        hashes = words
        for size in range(1, min(longest, len(words)) + 1):
            first, last = slice(len(words) - size + 1), slice(size - 1, None)
            if size > 1:
                hashes = mixed(hashes[:-1] * np.uint64(3) + words[last])
            same = np.flatnonzero(texts[first] == texts[last])
            parts.append(
                Ngrams(
                    hashes[same] ^ _salts[size],
                    piece.offset + starts[first][same],
                    piece.offset + stops[last][same],
                    texts[first][same],
                )
            )
    return _joined(parts)


def token_places(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens of a piece begin and end, int64 (tokens,) each: what TOKEN finds, with arrays where they can."""
    kinds = _kinds(piece.points)
    in_word = (kinds == _LETTER) | (kinds == _ACCENT)
    begins = kinds == _MARK
    begins |= in_word
    begins[1:] &= ~(in_word[1:] & in_word[:-1])
    joins = kinds == _JOINING
    joins[1:] |= (kinds[1:] == _ACCENT) & (kinds[:-1] == _MARK)
    for start, stop in _words_around(np.flatnonzero(joins), piece):
        lengths = [len(token) for token in _tokens_of(piece.text[start:stop])]
        begins[start:stop] = False
        begins[start + np.cumsum([0, *lengths[:-1]])] = True
    edges = np.append(np.flatnonzero(begins | piece.is_space), len(kinds))
    starts = np.flatnonzero(begins[edges[:-1]])
    return edges[starts], edges[starts + 1]


def _words_around(places: np.ndarray, piece: Piece) -> Iterator[tuple[int, int]]:
    """Where the words begin and end that have these places in them."""
    spaces = np.append(np.flatnonzero(piece.is_space), len(piece.text))
    after = np.unique(np.searchsorted(spaces, places))
    before = np.where(after == 0, 0, spaces[after - 1] + 1)
    yield from zip(before.tolist(), spaces[after].tolist(), strict=True)


def _kinds(points: np.ndarray) -> np.ndarray:
    """The kind of each character, uint8 (characters,), of its code point, uint32 (characters,)."""
    kinds: np.ndarray = _KINDS[points]
    if kinds.all():
        return kinds
    for point in np.unique(points[kinds == 0]).tolist():
        _KINDS[point] = _kind(chr(point))
    return _kinds(points)


def _kind(character: str) -> int:
    if character == " ":
        return _SPACE
    if IN_WORD.match(character):
        return _ACCENT if JOINED.match(character) else _LETTER
    return _JOINING if JOINED.match(character) else _MARK


def character_ngrams(pieces: Sequence[Piece], longest: int) -> Ngrams:
    """Runs of up to `longest` characters that have a space at their ends at most.

    Args:
        pieces: those of a batch.
        longest: characters of the longest n-gram.
    """
    parts = []
    for piece in pieces:
        length, is_space = len(piece.text), piece.is_space
        spaces = np.append(np.flatnonzero(is_space), length)
        # the runs that begin at a place end with the first space after it, at the latest
        until = np.minimum(spaces[np.cumsum(is_space)] + 1, length)
        until[:-1] -= is_space[:-1] & is_space[1:]  # the end of a text begins none
        places = np.arange(length)
        shortest = places + 1 + is_space  # where the first of them ends: a space alone is none
        runs = np.maximum(np.minimum(places + longest, until) - shortest + 1, 0)
        starts = np.repeat(places, runs)
        stops = np.arange(len(starts)) + np.repeat(shortest - (np.cumsum(runs) - runs), runs)
        hashes = piece.hashes(starts, stops) ^ _salts[16:][stops - starts]
        parts.append(Ngrams(hashes, piece.offset + starts, piece.offset + stops, piece.texts[starts]))
    return _joined(parts)


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Hashes whose bits all depend on each other (the finalizer of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = hashes ^ (hashes >> np.uint64(31))
    return mixed


def _joined(parts: list[Ngrams]) -> Ngrams:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Ngrams(np.zeros(0, np.uint64), *(np.zeros(0, np.int64) for _ in range(3)))
    return Ngrams(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Ngrams)))
