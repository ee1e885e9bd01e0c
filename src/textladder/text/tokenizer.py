"""`basic_english`: torchtext's rule-based tokenizer, for one text in Python and for many at once in polars.

First step of `lstm`, unless the words of `ngrams.py` suit the texts better. Both ways use one table of rules, and a
test checks both against an independent version of the rules. The fast way never makes a Python string for each token:
a token is a number as soon as it is split off.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from textladder.cores import available_cores
from textladder.scratch_file import concatenated
from textladder.text.ngrams import tokens as words

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
TEXTS_AT_ONCE = 2048  # few enough that the strings of a batch stay small and every core gets work
FEW_TEXTS = 64  # below this, plain Python is done before polars is imported

# The distinct tokens of a batch of texts, the index of each token among them, and how many tokens each text has.
Split = tuple[list[str], np.ndarray, np.ndarray]


def basic_english(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks.

    >>> basic_english("It's good.<br />Buy it!")
    ['it', "'", 's', 'good', '.', 'buy', 'it', '!']
    """
    text = text.lower()
    for pattern, replacement in RULES:
        text = text.replace(pattern, replacement)
    return text.split()


# The tokenizers that `lstm` can use.
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "basic_english": basic_english,
    "words": words,
    "whitespace": str.split,
    "characters": list,
}


@dataclass(frozen=True)
class TokenizedTexts:
    """Tokenized texts, each token as an index into the distinct tokens.

    Attributes:
        ids: int32 (tokens in all,), indices into `tokens`.
        offsets: int64 (texts + 1,), text i is `ids[offsets[i]:offsets[i + 1]]`.
        tokens: the distinct tokens in the order of their first appearance.
    """

    ids: np.ndarray
    offsets: np.ndarray
    tokens: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def joined(self, others: "TokenizedTexts") -> "TokenizedTexts":
        """These texts followed by others."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        new_ids = np.array([numbers.setdefault(token, len(numbers)) for token in others.tokens], np.int32)
        offsets = np.concatenate([self.offsets, self.offsets[-1] + others.offsets[1:]])
        return TokenizedTexts(np.concatenate([self.ids, new_ids[others.ids]]), offsets, list(numbers))

    def take(self, indices: np.ndarray) -> "TokenizedTexts":
        """Some of the texts, by their indices."""
        parts = [self.ids[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return TokenizedTexts(np.concatenate([np.zeros(0, np.int32), *parts]), offsets, self.tokens)


def tokenize(texts: Iterable[str], split: Callable[[str], list[str]] = basic_english) -> TokenizedTexts:
    """Tokenize many texts; with `basic_english` on every core if there are enough of them.

    Args:
        texts: raw texts.
        split: tokenizes one text.
    """
    batches = in_batches(texts, TEXTS_AT_ONCE)
    if split is not basic_english:
        return combine(_split_few(batch, split) for batch in batches)
    return combine(in_parallel(_split, batches))


def combine(splits: Iterable[Split]) -> TokenizedTexts:
    """Put the batches of tokenized texts together, numbering the distinct tokens by first appearance."""
    numbers: dict[str, int] = {}
    lengths = [np.zeros(1, np.int64)]

    def ids() -> Iterator[np.ndarray]:
        for tokens, batch_ids, batch_lengths in splits:
            lengths.append(batch_lengths)
            # only the distinct tokens of a batch pass through Python
            new_ids = (numbers.setdefault(token, len(numbers)) for token in tokens)
            yield np.fromiter(new_ids, np.int32, len(tokens))[batch_ids]

    every_id = concatenated(ids(), np.int32)
    return TokenizedTexts(every_id, np.cumsum(np.concatenate(lengths), dtype=np.int64), list(numbers))


def in_parallel(work: Callable[[list[str]], Split], batches: Iterable[list[str]]) -> Iterator[Split]:
    """Apply a function to batches in threads, and yield the results in order, computed a few batches ahead.

    Args:
        work: the function; it must release the interpreter lock for threads to help.
        batches: the batches.
    """
    threads = available_cores()
    pending: deque[Future[Split]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            pending.append(pool.submit(work, batch))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def in_batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Group texts into lists of `size`; the last one may be shorter."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _split(texts: list[str]) -> Split:
    return _split_few(texts) if len(texts) < FEW_TEXTS else _split_many(texts)


def _split_few(texts: Sequence[str], split: Callable[[str], list[str]] = basic_english) -> Split:
    numbers: dict[str, int] = {}
    lists = [split(text) for text in texts]
    ids = [numbers.setdefault(token, len(numbers)) for tokens in lists for token in tokens]
    return list(numbers), np.array(ids, np.int64), np.array([len(tokens) for tokens in lists], np.int64)


def _split_many(texts: Sequence[str]) -> Split:
    """Tokenize a batch of texts in polars.

    Three things keep this equal to `basic_english`. Python lower-cases, because Rust follows another version of
    Unicode. Quotes are removed first, because that can create a `<br />`; no other rule can create or break another
    rule's pattern, so the rest is one pass. And every white-space character that `str.split` knows becomes a space,
    because Rust's choice differs; the empty strings between two spaces are then removed.
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
    tokens, ids = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    if "" in tokens:
        empty = tokens.index("")
        kept = ids != empty
        ends = np.concatenate([[0], np.cumsum(kept)])[ends]
        ids = ids[kept]
        ids = ids - (ids > empty)
        tokens.pop(empty)
    return tokens, ids, np.diff(ends, prepend=0)
