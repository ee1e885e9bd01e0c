"""`Vocabulary`: which tokens a network knows, and the number of each.

Second step of `lstm`: counts decide what is kept, `<unk>` stands for the rest, `<pad>` fills up. Numbering
a whole data set is one look-up of its distinct tokens.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from textladder.errors import BundleError
from textladder.text.tokenizer import TokenizedTexts, basic_english, tokenize

UNKNOWN, PAD = "<unk>", "<pad>"
UNKNOWN_ID, PAD_ID = 0, 1


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as numbers of a vocabulary, one after another.

    Attributes:
        ids: int32 (tokens in all,).
        offsets: int64 (texts + 1,), text i is `ids[offsets[i]:offsets[i + 1]]`.
        pad_id: the number that fills up shorter texts of a batch.
    """

    ids: np.ndarray
    offsets: np.ndarray
    pad_id: int = PAD_ID

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> np.ndarray:
        return self.ids[self.offsets[place] : self.offsets[place + 1]]

    def joined(self, others: "EncodedTexts") -> "EncodedTexts":
        """These texts and then others, of the same vocabulary."""
        offsets = np.concatenate([self.offsets, self.offsets[-1] + others.offsets[1:]])
        return EncodedTexts(np.concatenate([self.ids, others.ids]), offsets, self.pad_id)

    def backwards(self) -> "EncodedTexts":
        """Each text from right to left, but for the first token, which says that a text begins."""
        places, lengths = np.arange(len(self.ids)), self.lengths
        starts = np.repeat(self.offsets[:-1], lengths)
        turned = 2 * starts + np.repeat(lengths, lengths) - places
        return EncodedTexts(self.ids[np.where(places == starts, places, turned)], self.offsets, self.pad_id)

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each text has, int64 (texts,)."""
        return np.diff(self.offsets)


class Vocabulary:
    """Tokens and their numbers: `<unk>` is 0, `<pad>` is 1, then by count, then by first sight.

    The constructor and `from_tokenized` also take the `special_tokens` that come first (unknown, padding and perhaps
    more) and `split`, which tokenizes a text; levels other than `lstm` pass their own.

    Attributes:
        tokens: the kept tokens; a token's place is its number.
        counts: how often every token was seen, the ones that were not kept included; `counts.most_common(25)` gives
            the most common ones, `least_common(25)` the least. Empty for a vocabulary that was loaded.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        counts: Counter[str] | None = None,
        *,
        special_tokens: Sequence[str] = (UNKNOWN, PAD),
        split: Callable[[str], list[str]] = basic_english,
    ) -> None:
        """Number the given tokens.

        Raises:
            BundleError: the list does not begin with the special tokens, or a token stands in it twice.
        """
        self.tokens, self._split = list(tokens), split
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        if self.tokens[: len(special_tokens)] != list(special_tokens) or len(self._numbers) != len(self.tokens):
            raise BundleError(
                f"A vocabulary must begin with {' and '.join(special_tokens[:2])} and hold every token once."
            )
        # A text that says "<pad>" must not be read as padding.
        del self._numbers[special_tokens[UNKNOWN_ID]], self._numbers[special_tokens[PAD_ID]]

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
        most: int | None = None,
        special_tokens: Sequence[str] = (UNKNOWN, PAD),
        split: Callable[[str], list[str]] = basic_english,
    ) -> "Vocabulary":
        """The same from texts that are already split; `most` tokens at most."""
        counts = np.bincount(texts.ids, minlength=len(texts.tokens))
        order = np.argsort(-counts, kind="stable")  # stable: first seen, first kept
        counter = Counter({texts.tokens[place]: int(counts[place]) for place in order})
        kept = [texts.tokens[place] for place in order[: int((counts >= min_freq).sum())]]
        tokens = [*special_tokens, *(token for token in kept if token not in special_tokens)]
        return cls(tokens[:most], counter, special_tokens=special_tokens, split=split)

    def __len__(self) -> int:
        return len(self.tokens)

    def least_common(self, number: int) -> list[tuple[str, int]]:
        """The least common tokens with their counts, the rarest last."""
        return self.counts.most_common()[-number:]

    def encode(self, text: str, length: int | None = None) -> list[int]:
        """The numbers of a text's tokens, padded or cut to `length` where one is given.

        >>> Vocabulary(["<unk>", "<pad>", "good"]).encode("Good grief", length=4)
        [2, 0, 1, 1]
        """
        ids = [self._numbers.get(token, UNKNOWN_ID) for token in self._split(text)]
        return ids if length is None else (ids + [PAD_ID] * (length - len(ids)))[:length]

    def decode(self, ids: Iterable[int]) -> str:
        """The tokens of some numbers, joined with a space."""
        return " ".join(self.tokens[number] for number in ids)

    def encode_tokenized(self, texts: TokenizedTexts) -> EncodedTexts:
        """The numbers of texts that are already split."""
        place = np.fromiter(
            (self._numbers.get(token, UNKNOWN_ID) for token in texts.tokens), np.int32, len(texts.tokens)
        )
        return EncodedTexts(place[texts.ids], texts.offsets)

    def encode_texts(self, texts: Iterable[str]) -> EncodedTexts:
        """The numbers of many raw texts, uncut."""
        return self.encode_tokenized(tokenize(texts, self._split))
