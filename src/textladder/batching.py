"""Batches of encoded texts: encoded once, of like length, padded only to the longest of the batch.

Stands between the text side and the networks. A batch is cut out of one array of numbers; nothing is tokenized
here, and nothing here knows of fastai: `TextBatches` is any iterable of batches to it. To predict needs no torch: a
network is whatever gives logits for token numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from textladder.text.vocabulary import UNKNOWN_ID, EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor

LENGTH_NOISE = 8  # tokens by which lengths are blurred, so that a text does not always meet the same others


class Batches(Protocol):
    """What a Learner is fed with: `TextBatches`, or the states of frozen layers in their place."""

    def __len__(self) -> int:
        """How many batches the next pass has."""

    def __iter__(self) -> "Iterator[tuple[Tensor, ...]]":
        """One pass: what the network takes, then the labels."""


@dataclass(frozen=True)
class Padding:
    """How texts of one batch are brought to one length.

    Attributes:
        max_tokens: longer texts are cut to this.
        fixed: pad every text to `max_tokens` and do not sort by length, as the tutorial does.
        multiple: pad to a multiple of this, so that fewer shapes occur.
    """

    max_tokens: int
    fixed: bool = False
    multiple: int = 1

    def length(self, longest: int) -> int:
        """The length of a batch whose longest text has so many tokens."""
        if self.fixed:
            return self.max_tokens
        return min(-(-max(1, longest) // self.multiple) * self.multiple, max(self.max_tokens, 1))


class TextBatches:
    """Batches for one pass after another over labelled texts.

    Each pass gives pairs of token numbers, int64 (batch, time), and labels, int64 (batch,). Where texts may be
    several sequences, it gives triples: token numbers, int64 (sequences, time), the place in the batch of the text that
    each sequence belongs to, int64 (sequences,), and labels.

    Args:
        texts: the encoded texts, or the sequences that they were cut into.
        label_ids: int64 (texts,).
        padding: how a batch is brought to one length.
        batch_size: texts of a batch at most; the last one of a pass may have fewer.
        batch_tokens: tokens of a batch at most, padding counted; a longer text is a batch by itself.
        batch_padding: tokens of padding in a batch at most, beyond what its texts have alone; None for any number.
        sequence_offsets: int64 (texts + 1,), text i is the sequences from offset i up to offset i + 1.
        shuffle: another order at every pass.
        seed: of the orders.
    """

    def __init__(
        self,
        texts: EncodedTexts,
        label_ids: np.ndarray,
        padding: Padding,
        *,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        batch_padding: int | None = None,
        sequence_offsets: np.ndarray | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.texts, self.label_ids, self.padding, self.sequence_offsets = texts, label_ids, padding, sequence_offsets
        self.batch_size, self.batch_tokens = batch_size or len(label_ids), batch_tokens
        self.batch_padding = math.inf if batch_padding is None else batch_padding
        self.shuffle = shuffle
        self._shortest_first = False
        self._random = np.random.default_rng(seed)
        self._order: list[np.ndarray] | None = None
        lengths = np.minimum(texts.lengths, padding.max_tokens)
        self._sequences = np.ones(len(label_ids), np.int64) if sequence_offsets is None else np.diff(sequence_offsets)
        # a text's windows are as long as each other, so the first one speaks for all
        self._lengths = lengths if sequence_offsets is None else lengths[sequence_offsets[:-1]]

    def __len__(self) -> int:
        """How many batches the next pass has; filled by tokens, passes differ a little."""
        return len(self._next_order())

    @property
    def rows(self) -> int:
        """How many texts a pass has."""
        return len(self.label_ids)

    def begin_with_the_shortest(self) -> None:
        """Take the next pass from short texts to long ones, so that its first half costs a third of its time."""
        self._shortest_first = True

    def __iter__(self) -> "Iterator[tuple[Tensor, ...]]":
        for places in self.next_pass():
            yield self.batch(places)

    def next_pass(self) -> list[np.ndarray]:
        """The places of every batch's texts in one pass; the next call gives the next pass."""
        order = self._next_order()
        if self.shuffle and not self.padding.fixed and not self._shortest_first:
            order = [order[place] for place in self._random.permutation(len(order))]
        self._shortest_first, self._order = False, None
        return order

    def batch(self, places: np.ndarray) -> "tuple[Tensor, ...]":
        """The batch of the texts at some places."""
        import torch

        labels = torch.from_numpy(self.label_ids[places])
        ids = torch.from_numpy(pad_batch(self.texts, self.sequences(places), self.padding))
        if self.sequence_offsets is None:
            return ids, labels
        return ids, torch.from_numpy(np.repeat(np.arange(len(places)), self._sequences[places])), labels

    def sequences(self, places: np.ndarray) -> np.ndarray:
        """The places of the sequences of some texts."""
        if self.sequence_offsets is None:
            return places
        return np.concatenate(
            [np.arange(self.sequence_offsets[place], self.sequence_offsets[place + 1]) for place in places]
        )

    def _next_order(self) -> list[np.ndarray]:
        """The batches of the next pass, from short texts to long ones."""
        if self._order is not None:
            return self._order
        places = np.arange(self.rows)
        if self.shuffle:
            places = self._random.permutation(places)
        if not self.padding.fixed:
            lengths = self._lengths[places].astype(np.float64)
            if self.shuffle:
                lengths += self._random.uniform(-LENGTH_NOISE, LENGTH_NOISE, len(lengths))
            places = places[np.argsort(lengths, kind="stable")]
        self._order = list(self._cut(places))
        return self._order

    def _cut(self, places: np.ndarray) -> Iterator[np.ndarray]:
        """Batches of neighbours, each as full as it may be."""
        if self.batch_tokens is None:
            for start in range(0, len(places), self.batch_size):
                yield places[start : start + self.batch_size]
            return
        start = sequences = longest = tokens = 0
        for stop, place in enumerate(places):
            # what a text is padded to alone is no cost of its batch
            more, length = self._sequences[place], self.padding.length(int(self._lengths[place]))
            sequences, longest, tokens = sequences + more, max(longest, length), tokens + more * length
            padded = sequences * self.padding.length(longest)
            full = stop - start == self.batch_size or padded > self.batch_tokens
            if (full or padded - tokens > self.batch_padding) and stop > start:
                yield places[start:stop]
                start, sequences, longest, tokens = stop, more, length, more * length
        yield places[start:]


def pad_batch(texts: EncodedTexts, places: np.ndarray, padding: Padding) -> np.ndarray:
    """Some texts as one array, int64 (batch, time); an empty text becomes one unknown word."""
    rows = [texts[place][: padding.max_tokens] for place in places]
    time = padding.length(max((len(row) for row in rows), default=1))
    ids = np.full((len(rows), time), texts.pad_id, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        if not len(row):
            ids[number, 0] = UNKNOWN_ID
    return ids
