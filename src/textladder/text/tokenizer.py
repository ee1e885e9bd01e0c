"""`basic_english`: the rule-based tokenizer of torchtext, for one text in Python and for many at once in polars.

First step of `lstm`. One table of rules serves both ways; a test holds both to an independent statement of the
rules. The many-at-once way never makes a Python string of a token: a token is a number as soon as it is split off.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from textladder.cores import available_cores

# torchtext 0.18, data/utils.py, `basic_english`: applied to the lower-cased text in this order, then `str.split`.
RULES: tuple[tuple[str, str], ...] = (
    ("'", " ' "),
    ('"', ""),
    (".", " . "),
    ("<br />", " "),
    (",", " , "),
    ("(", " ( "),
    (")", " ) "),
    ("!", " ! "),
    ("?", " ? "),
    (";", " "),
    (":", " "),
)
WHITE_SPACE = tuple(mark for mark in map(chr, range(0x3001)) if mark.isspace() and mark != " ")
TEXTS_AT_ONCE = 2048  # few enough that the strings of a batch stay small and that every core gets some
Split = tuple[list[str], np.ndarray, np.ndarray]  # distinct tokens, the number of every token, tokens of every text
FEW_TEXTS = 64  # below this, plain Python answers before polars is imported


def basic_english(text: str) -> list[str]:
    """Split a text into lower-case words and marks.

    >>> basic_english("It's good.<br />Buy it!")
    ['it', "'", 's', 'good', '.', 'buy', 'it', '!']
    """
    text = text.lower()
    for pattern, replacement in RULES:
        text = text.replace(pattern, replacement)
    return text.split()


# What `lstm` can split texts by.
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "basic_english": basic_english,
    "whitespace": str.split,
    "characters": list,
}


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as numbers of distinct tokens.

    Attributes:
        ids: int32 (tokens in all,), each the place of a token in `tokens`.
        offsets: int64 (texts + 1,), text i is `ids[offsets[i]:offsets[i + 1]]`.
        tokens: the distinct tokens in the order in which they were first seen.
    """

    ids: np.ndarray
    offsets: np.ndarray
    tokens: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def joined(self, others: "TokenizedTexts") -> "TokenizedTexts":
        """These texts and then others."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        place = np.array([numbers.setdefault(token, len(numbers)) for token in others.tokens], np.int32)
        offsets = np.concatenate([self.offsets, self.offsets[-1] + others.offsets[1:]])
        return TokenizedTexts(np.concatenate([self.ids, place[others.ids]]), offsets, list(numbers))

    def take(self, places: np.ndarray) -> "TokenizedTexts":
        """The texts at some places."""
        parts = [self.ids[self.offsets[place] : self.offsets[place + 1]] for place in places]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return TokenizedTexts(np.concatenate([np.zeros(0, np.int32), *parts]), offsets, self.tokens)


def tokenize(texts: Iterable[str], split: Callable[[str], list[str]] = basic_english) -> TokenizedTexts:
    """Tokens of many texts, with the distinct tokens numbered in order of first occurrence.

    Args:
        texts: raw texts.
        split: tokenizes one text; `basic_english` has a faster way for many.
    """
    batches = in_batches(texts, TEXTS_AT_ONCE)
    if split is not basic_english:
        return put_together(_split_few(batch, split) for batch in batches)
    return put_together(in_parallel(_split, batches))


def put_together(splits: Iterable[Split]) -> TokenizedTexts:
    """Batches of split texts as one."""
    numbers: dict[str, int] = {}
    ids, lengths = [], []
    for words, batch_ids, batch_lengths in splits:
        # only the distinct tokens of a batch pass through Python
        place = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int32, len(words))
        ids.append(place[batch_ids])
        lengths.append(batch_lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([[], *lengths]), dtype=np.int64)])
    return TokenizedTexts(np.concatenate([np.zeros(0, np.int32), *ids]), offsets, list(numbers))


def in_parallel(work: Callable[[list[str]], Split], batches: Iterable[list[str]]) -> Iterator[Split]:
    """The results in order, a few batches ahead of their use; the work must let other threads run."""
    threads = available_cores()
    waiting: deque[Future[Split]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _split(texts: list[str]) -> Split:
    return _split_few(texts) if len(texts) < FEW_TEXTS else _split_many(texts)


def _split_few(texts: Sequence[str], split: Callable[[str], list[str]] = basic_english) -> Split:
    numbers: dict[str, int] = {}
    lists = [split(text) for text in texts]
    ids = [numbers.setdefault(token, len(numbers)) for tokens in lists for token in tokens]
    return list(numbers), np.array(ids, np.int64), np.array([len(tokens) for tokens in lists], np.int64)


def _split_many(texts: Sequence[str]) -> Split:
    """Distinct tokens as first seen, the number of every token, and how many tokens each text has.

    Three things keep this equal to `basic_english`. Python lower-cases, because Rust knows another version
    of Unicode. Quotes go first, because that can make a `<br />`; no other rule can make or break
    another's pattern, so the rest is one pass. And every white space that `str.split` knows, not Rust's choice of
    them, becomes a blank; the empty strings that lie between two blanks are taken out as numbers.
    """
    import polars as pl
    import pyarrow as pa

    rules = [rule for rule in RULES if rule[0] != '"'] + [(mark, " ") for mark in WHITE_SPACE]
    series = pl.Series([text.lower() for text in texts], dtype=pl.String)
    series = series.str.replace_all('"', "", literal=True)
    series = series.str.replace_many([rule[0] for rule in rules], [rule[1] for rule in rules])
    pieces = series.str.split(" ")
    ends = np.cumsum(pieces.list.len().to_numpy().astype(np.int64))
    flat = pieces.explode().to_arrow()
    encoded = (flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat).dictionary_encode()
    words, ids = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    if "" in words:
        empty = words.index("")
        kept = ids != empty
        ends = np.concatenate([[0], np.cumsum(kept)])[ends]
        ids = ids[kept]
        ids = ids - (ids > empty)
        words.pop(empty)
    return words, ids, np.diff(ends, prepend=0)


def in_batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of so many texts, the last one perhaps shorter."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
