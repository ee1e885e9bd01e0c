"""The words and emoji of texts without case and punctuation, as hashes: what makes two texts the same.

    texts -> case-folded, one space between words -> tokens -> those that say something -> a hash of each

`near_duplicates.py` compares them.
"""

from collections.abc import Sequence

import numpy as np
import regex

from textladder.text.ngrams import Piece, batches, mixed, pieces, token_places

# Emoji and other symbols say something; so does an emoticon that stands alone, such as ":-)" or "<3".
SPEAKING = regex.compile(r"[\w\p{M}\p{So}]|\p{Regional_Indicator}")
EMOTICON = regex.compile(r"(?:[:;=8][-'o^]?[()\[\]{}dp/\\|*$@<>]+|[()\[\]{}]+[-'o^]?[:;=8]|<3+)(?= )")
_EMOTICON_BEGINS = np.isin(np.arange(128), list(b":;=8()[]{}<"))
_UNKNOWN, _SILENT, _SPEAKS = range(3)
_SPEAKS_OR_NOT = np.zeros(0x110000, np.uint8)  # of each code point


def word_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of texts.

    Returns:
        Their hashes, uint64 (words,), and where each text begins and ends, int64 (texts + 1,).
    """
    hashes, owners, first = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for size, batch in batches(map(str.casefold, texts)):
        for piece in pieces(batch):
            starts, stops = _word_places(piece)
            hashes.append(mixed(piece.hashes(starts, stops)))
            owners.append(first + piece.texts[starts])
        first += size
    return np.concatenate(hashes), np.searchsorted(np.concatenate(owners), np.arange(len(texts) + 1))


def words_of(text: str) -> list[str]:
    """The words of one text.

    >>> words_of("It's GOOD -- really! 👍 :-)")
    ['it', 's', 'good', 'really', '👍', ':-)']
    """
    return [
        piece.text[start:stop]
        for _, batch in batches([text.casefold()])
        for piece in pieces(batch)
        for start, stop in zip(*map(np.ndarray.tolist, _word_places(piece)), strict=True)
    ]


def _word_places(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Where the words of a piece begin and end, int64 (words,) each."""
    starts, stops = token_places(piece)
    speaking = np.concatenate([[0], np.cumsum(_speaks(piece.points))])
    is_word = speaking[stops] > speaking[starts]
    emoticons = np.array(list(_emoticons(piece)), np.int64).reshape(-1, 2)
    if len(emoticons):
        place = np.searchsorted(emoticons[:, 0], starts, side="right") - 1
        is_word &= (place < 0) | (starts >= emoticons[place, 1])
        starts, stops = (np.concatenate([of[is_word], emoticons[:, side]]) for side, of in enumerate((starts, stops)))
        order = np.argsort(starts)
        return starts[order], stops[order]
    return starts[is_word], stops[is_word]


def _emoticons(piece: Piece) -> list[tuple[int, int]]:
    """Where the emoticons that stand alone begin and end."""
    begins = _EMOTICON_BEGINS[np.minimum(piece.points, 127)]
    begins[1:] &= piece.is_space[:-1]
    found = (EMOTICON.match(piece.text, place) for place in np.flatnonzero(begins).tolist())
    return [one.span() for one in found if one]


def _speaks(points: np.ndarray) -> np.ndarray:
    """Whether each character says something, bool (characters,), of its code point, uint32 (characters,)."""
    kinds = _SPEAKS_OR_NOT[points]
    for point in np.unique(points[kinds == _UNKNOWN]).tolist():
        _SPEAKS_OR_NOT[point] = _SPEAKS if SPEAKING.match(chr(point)) else _SILENT
    found: np.ndarray = _SPEAKS_OR_NOT[points] == _SPEAKS
    return found
