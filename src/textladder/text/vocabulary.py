"""`Vocabulary`: the tokens that a network knows, and the id of each.

Second step of `lstm`: frequent tokens are kept, `<unk>` stands for all others, `<pad>` fills up the shorter texts of a
batch. Encoding a whole data set looks up each distinct token once.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from textladder.bundle import Bundle
from textladder.errors import BundleError, ConfigError
from textladder.scratch_file import concatenated
from textladder.text.tokenizer import TokenizedTexts, basic_english, tokenize

UNKNOWN, PAD = "<unk>", "<pad>"
UNKNOWN_ID, PAD_ID = 0, 1
TOKENS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as token ids, one after another.

    Attributes:
        ids: int32 (tokens in all,), mapped from a temporary file if they are many.
        offsets: int64 (texts + 1,), text i is `ids[offsets[i]:offsets[i + 1]]`.
        pad_id: the id that fills up the shorter texts of a batch.
    """

    ids: np.ndarray
    offsets: np.ndarray
    pad_id: int = PAD_ID

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def joined(self, others: "EncodedTexts") -> "EncodedTexts":
        """These texts followed by others, encoded with the same vocabulary."""
        offsets = np.concatenate([self.offsets, self.offsets[-1] + others.offsets[1:]])
        return EncodedTexts(np.concatenate([self.ids, others.ids]), offsets, self.pad_id)

    def backwards(self) -> "EncodedTexts":
        """Each text from right to left, except for its first token, which marks the beginning of a text."""
        positions, lengths = np.arange(len(self.ids)), self.lengths
        starts = np.repeat(self.offsets[:-1], lengths)
        mirrored = 2 * starts + np.repeat(lengths, lengths) - positions
        ids = self.ids[np.where(positions == starts, positions, mirrored)]
        return EncodedTexts(ids, self.offsets, self.pad_id)

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each text, int64 (texts,)."""
        return np.diff(self.offsets)


class Vocabulary:
    """Tokens and their ids: `<unk>` is 0, `<pad>` is 1, then the tokens by count, then by first appearance.

    >>> vocabulary = Vocabulary.from_texts(["good, good", "not good"], min_freq=2)
    >>> vocabulary["good"], vocabulary["grief"]
    (2, 0)
    >>> "good" in vocabulary, "grief" in vocabulary
    (True, False)
    >>> list(vocabulary)
    ['<unk>', '<pad>', 'good']

    Args:
        tokens: the tokens in the order of their ids, special tokens first.
        counts: how often each token was seen.
        special_tokens: the tokens that come first: unknown, padding, and perhaps more.
        split: tokenizes a text.

    Attributes:
        tokens: the tokens in the order of their ids.
        counts: how often each token was seen, including those that were not kept; `counts.most_common(25)` gives the
            most common ones. Empty in a vocabulary that was loaded.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        counts: Counter[str] | None = None,
        *,
        special_tokens: Sequence[str] = (UNKNOWN, PAD),
        split: Callable[[str], list[str]] = basic_english,
    ) -> None:
        """Number the tokens.

        Raises:
            ConfigError: the tokens do not begin with the special tokens, or one of them is repeated.
        """
        self.tokens, self._split = list(tokens), split
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        if self.tokens[: len(special_tokens)] != list(special_tokens) or len(self._ids) != len(self.tokens):
            raise ConfigError(
                f"A vocabulary must begin with {' and '.join(special_tokens[:2])} and contain every token once; "
                f"received {len(self.tokens):,} tokens, {len(self._ids):,} of them distinct, "
                f"beginning with {self.tokens[:2]}."
            )
        # a text that contains the word "<pad>" must not be encoded as padding
        del self._ids[special_tokens[UNKNOWN_ID]], self._ids[special_tokens[PAD_ID]]

    @classmethod
    def from_texts(cls, texts: Iterable[str], *, min_freq: int = 1) -> "Vocabulary":
        """Count the tokens of raw texts and keep those that occur at least `min_freq` times.

        >>> vocabulary = Vocabulary.from_texts(["good, good", "not good"], min_freq=2)
        >>> vocabulary.tokens
        ['<unk>', '<pad>', 'good']
        >>> vocabulary.counts["not"]
        1
        """
        return cls.from_tokenized(tokenize(texts), min_freq=min_freq)

    @classmethod
    def from_tokenized(
        cls,
        texts: TokenizedTexts,
        *,
        min_freq: int = 1,
        max_size: int | None = None,
        special_tokens: Sequence[str] = (UNKNOWN, PAD),
        split: Callable[[str], list[str]] = basic_english,
    ) -> "Vocabulary":
        """Count the tokens of tokenized texts and keep the frequent ones.

        Args:
            texts: the tokenized texts.
            min_freq: keep tokens that occur at least this often.
            max_size: keep at most this many tokens, the special ones included.
            special_tokens: the tokens that come first: unknown, padding, and perhaps more.
            split: tokenizes a text in the way that `texts` were tokenized.
        """
        counts = np.zeros(len(texts.tokens), np.int64)
        for start in range(0, len(texts.ids), TOKENS_AT_ONCE):
            counts += np.bincount(texts.ids[start : start + TOKENS_AT_ONCE], minlength=len(counts))
        order = np.argsort(-counts, kind="stable")  # stable: equal counts by first appearance
        counter = Counter({texts.tokens[i]: int(counts[i]) for i in order})
        frequent = [texts.tokens[i] for i in order[: int((counts >= min_freq).sum())]]
        tokens = [*special_tokens, *(token for token in frequent if token not in special_tokens)]
        return cls(tokens[:max_size], counter, special_tokens=special_tokens, split=split)

    def filled(self, words: Iterable[str], size: int) -> "Vocabulary":
        """This vocabulary followed by further words until it has `size` tokens.

        >>> Vocabulary(["<unk>", "<pad>", "good"]).filled(["good", "bad", "fair"], size=4).tokens
        ['<unk>', '<pad>', 'good', 'bad']
        """
        more = islice((word for word in dict.fromkeys(words) if word not in self), max(0, size - len(self)))
        special = self.tokens[: PAD_ID + 1]
        return Vocabulary([*self.tokens, *more], self.counts, special_tokens=special, split=self._split)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, token: str) -> int:
        """The id of a token; 0 if it is unknown."""
        return PAD_ID if token == self.tokens[PAD_ID] else self._ids.get(token, UNKNOWN_ID)

    def __contains__(self, token: object) -> bool:
        return token in self._ids or token in self.tokens[: PAD_ID + 1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)

    def least_common(self, number: int) -> list[tuple[str, int]]:
        """The least common tokens with their counts, the rarest last."""
        return self.counts.most_common()[-number:]

    def encode(self, text: str, length: int | None = None) -> list[int]:
        """The token ids of a text, padded or truncated to `length` if one is given.

        >>> Vocabulary(["<unk>", "<pad>", "good"]).encode("Good grief", length=4)
        [2, 0, 1, 1]
        """
        ids = [self._ids.get(token, UNKNOWN_ID) for token in self._split(text)]
        return ids if length is None else (ids + [PAD_ID] * (length - len(ids)))[:length]

    def decode(self, ids: Iterable[int]) -> str:
        """The tokens of some ids, joined with a space."""
        return " ".join(self.tokens[number] for number in ids)

    def encode_tokenized(self, texts: TokenizedTexts) -> EncodedTexts:
        """The token ids of tokenized texts."""
        ids = np.fromiter((self._ids.get(token, UNKNOWN_ID) for token in texts.tokens), np.int32, len(texts.tokens))
        starts = range(0, len(texts.ids), TOKENS_AT_ONCE)
        every_id = concatenated((ids[texts.ids[start : start + TOKENS_AT_ONCE]] for start in starts), np.int32)
        return EncodedTexts(every_id, texts.offsets)

    def encode_texts(self, texts: Iterable[str]) -> EncodedTexts:
        """The token ids of many raw texts, neither padded nor truncated."""
        return self.encode_tokenized(tokenize(texts, self._split))


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write the tokens in the order of their ids, as JSON."""
    path.write_text(json.dumps(vocabulary.tokens, ensure_ascii=False), encoding="utf-8")


def read_vocabulary(
    bundle: Bundle,
    name: str,
    *,
    special_tokens: Sequence[str] = (UNKNOWN, PAD),
    split: Callable[[str], list[str]] = basic_english,
) -> Vocabulary:
    """Read a vocabulary that `write_vocabulary` wrote into a bundle.

    Args:
        bundle: the bundle.
        name: the file's name.
        special_tokens: the tokens that come first, as in `Vocabulary`.
        split: tokenizes a text.

    Raises:
        BundleError: the file does not hold a vocabulary.
    """
    tokens = bundle.read_json(name)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise BundleError(f"{bundle.folder / name}: this is not a list of tokens.")
    try:
        return Vocabulary(tokens, special_tokens=special_tokens, split=split)
    except ConfigError as error:
        raise BundleError(f"{bundle.folder / name}: {error}") from None
