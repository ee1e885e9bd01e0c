"""Batches of token ids: encoded once, grouped by length, padded only to the longest text of the batch.

Sits between the text side and the networks. It tokenizes nothing and does not know fastai, which receives these batches
through `training/data_loaders.py`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from textladder.text.vocabulary import UNKNOWN_ID, EncodedTexts

if TYPE_CHECKING:
    from torch import Tensor

LENGTH_NOISE = 8  # tokens of noise on the lengths by which texts are sorted, so that batches differ between passes


class Batches(Protocol):
    """What a Learner iterates over: `TextBatches`, or the states of frozen layers in their place."""

    def __len__(self) -> int:
        """Number of batches in the next pass."""

    def __iter__(self) -> "Iterator[tuple[Tensor, ...]]":
        """One pass: the network's inputs, then the labels."""

    def place(self, done: int) -> dict[str, Any]:
        """Where the passes are, as JSON, after some batches of the current pass; 0 between two passes."""

    def restore(self, place: Mapping[str, Any]) -> None:
        """Go on from a place."""


@dataclass(frozen=True)
class Padding:
    """How the texts of a batch are brought to one length.

    Attributes:
        max_tokens: longer texts are truncated to this.
        fixed: pad every text to `max_tokens` and do not sort by length, as the 2021 tutorial does.
        multiple: pad to a multiple of this, so that fewer shapes occur.
    """

    max_tokens: int
    fixed: bool = False
    multiple: int = 1

    def length(self, longest: int) -> int:
        """The length of a batch whose longest text has `longest` tokens."""
        if self.fixed:
            return self.max_tokens
        return min(-(-max(1, longest) // self.multiple) * self.multiple, max(self.max_tokens, 1))


class TextBatches:
    """Batches of labelled texts, one pass after another.

    A batch is a pair: token ids, int64 (batch, time), and labels, int64 (batch,). Where a text may be several
    sequences, the ids are int64 (batch, sequences, time), and missing sequences are padding throughout.

    Args:
        texts: the encoded texts, or the sequences that they were split into.
        label_ids: int64 (texts,).
        padding: how a batch is brought to one length.
        batch_size: maximum texts per batch; the last one of a pass may have fewer.
        batch_tokens: maximum tokens per batch, padding included; a longer text is a batch of its own.
        batch_padding: maximum tokens of padding per batch, beyond what its texts would have alone; None for no limit.
        sequence_offsets: int64 (texts + 1,), text i is the sequences from offset i up to offset i + 1.
        shuffle: a new order in every pass.
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
        self.batch_size, self.batch_tokens = batch_size, batch_tokens
        self._batch_padding = batch_padding
        self.shuffle = shuffle
        self._shortest_first = False
        self._random = np.random.default_rng(seed)
        self._order: list[np.ndarray] | None = None
        self._begun = self._pass = self._place_now()
        self._done = 0  # batches of the next pass that are left out
        lengths = np.minimum(texts.lengths, padding.max_tokens)
        self._sequences = np.ones(len(label_ids), np.int64) if sequence_offsets is None else np.diff(sequence_offsets)
        # the sequences of a text all have the same length, so the first one stands for all
        self._lengths = lengths if sequence_offsets is None else lengths[sequence_offsets[:-1]]

    def like(
        self,
        texts: EncodedTexts,
        label_ids: np.ndarray,
        sequence_offsets: np.ndarray | None = None,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
    ) -> "TextBatches":
        """Batches of other texts with the same limits.

        Args:
            texts: the encoded texts.
            label_ids: int64 (texts,).
            sequence_offsets: as for the constructor.
            batch_size: maximum texts per batch, if it is to differ.
            shuffle: a new order in every pass.
        """
        return TextBatches(
            texts,
            label_ids,
            self.padding,
            batch_size=batch_size or self.batch_size,
            batch_tokens=self.batch_tokens,
            batch_padding=self._batch_padding,
            sequence_offsets=sequence_offsets,
            shuffle=shuffle,
        )

    def __len__(self) -> int:
        """Number of batches in the next pass; with `batch_tokens` it varies a little."""
        return len(self._next_order())

    @property
    def rows(self) -> int:
        """Number of texts in a pass."""
        return len(self.label_ids)

    def shortest_first(self) -> None:
        """Go from short texts to long ones in the next pass, so that its first half takes a third of its time."""
        self._shortest_first = True

    def __iter__(self) -> "Iterator[tuple[Tensor, ...]]":
        for indices in self.next_pass():
            yield self.batch(indices)

    def next_pass(self) -> list[np.ndarray]:
        """The text indices of every batch of a pass; each call starts a new pass."""
        order = self._next_order()
        self._pass = {**self._begun, "shortest_first": self._shortest_first}
        if self.shuffle and not self.padding.fixed and not self._shortest_first:
            order = [order[index] for index in self._random.permutation(len(order))]
        self._shortest_first, self._order = False, None
        done, self._done = self._done, 0
        return order[done:]

    def place(self, done: int) -> dict[str, Any]:
        """Where the passes are, as JSON, for `restore`.

        Args:
            done: batches of the current pass that were iterated over; 0 between two passes.
        """
        if done:
            return {**self._pass, "done": done}
        return self._place_now() if self._order is None else {**self._begun, "shortest_first": self._shortest_first}

    def restore(self, place: Mapping[str, Any]) -> None:
        """Go on from a place: the next pass is the one that it was in, without its first batches."""
        self._random.bit_generator.state = place["random"]
        self._shortest_first, self._done, self._order = place["shortest_first"], place["done"], None

    def _place_now(self) -> dict[str, Any]:
        return {"random": self._random.bit_generator.state, "shortest_first": self._shortest_first, "done": 0}

    def batch(self, indices: np.ndarray) -> "tuple[Tensor, Tensor]":
        """The batch of some texts."""
        import torch

        ids = pad_batch(self.texts, self.sequences(indices), self.padding)
        if self.sequence_offsets is not None:
            counts = self._sequences[indices]
            grouped = np.full((len(indices), counts.max(initial=1), ids.shape[1]), self.texts.pad_id, np.int64)
            grouped[np.arange(grouped.shape[1]) < counts[:, None]] = ids
            ids = grouped
        return torch.from_numpy(ids), torch.from_numpy(self.label_ids[indices])

    def sequences(self, indices: np.ndarray) -> np.ndarray:
        """The indices of the sequences of some texts."""
        offsets = self.sequence_offsets
        if offsets is None:
            return indices
        return np.concatenate([np.arange(offsets[index], offsets[index + 1]) for index in indices])

    def text_index(self, indices: np.ndarray) -> np.ndarray | None:
        """For each sequence of a batch the position of its text in the batch; None where a text is one sequence."""
        if self.sequence_offsets is None:
            return None
        return np.repeat(np.arange(len(indices)), self._sequences[indices])

    def _next_order(self) -> list[np.ndarray]:
        """The batches of the next pass, from short texts to long ones."""
        if self._order is not None:
            return self._order
        self._begun = self._place_now()
        indices = np.arange(self.rows)
        if self.shuffle:
            indices = self._random.permutation(indices)
        if not self.padding.fixed:
            lengths = self._lengths[indices].astype(np.float64)
            if self.shuffle:
                lengths += self._random.uniform(-LENGTH_NOISE, LENGTH_NOISE, len(lengths))
            indices = indices[np.argsort(lengths, kind="stable")]
        self._order = list(self.split(indices))
        return self._order

    def split(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Split texts in the given order into batches, each as large as allowed."""
        if not len(indices):
            return
        size = self.batch_size or len(indices)
        if self.batch_tokens is None:
            for start in range(0, len(indices), size):
                yield indices[start : start + size]
            return
        most = math.inf if self._batch_padding is None else self._batch_padding
        start = sequences = longest = tokens = 0
        for stop, index in enumerate(indices):
            # the padding that a text would get on its own does not count as padding of its batch
            more, length = self._sequences[index], self.padding.length(int(self._lengths[index]))
            sequences, longest, tokens = sequences + more, max(longest, length), tokens + more * length
            padded = sequences * self.padding.length(longest)
            full = stop - start == size or padded > self.batch_tokens
            if (full or padded - tokens > most) and stop > start:
                yield indices[start:stop]
                start, sequences, longest, tokens = stop, more, length, more * length
        yield indices[start:]


def pad_batch(texts: EncodedTexts, indices: np.ndarray, padding: Padding) -> np.ndarray:
    """Some texts as one array, int64 (batch, time); an empty text becomes one unknown token.

    Args:
        texts: the encoded texts.
        indices: which of them.
        padding: how they are brought to one length.
    """
    rows = [texts[index][: padding.max_tokens] for index in indices]
    time = padding.length(max((len(row) for row in rows), default=1))
    ids = np.full((len(rows), time), texts.pad_id, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        if not len(row):
            ids[number, 0] = UNKNOWN_ID
    return ids
