"""The states that frozen layers compute, cached in the first pass for the later ones.

Sits between the batches and the Learner, which iterates over `CachedStateBatches` as it does over `TextBatches`.
Frozen layers run without dropout here, because a cached state would repeat one dropout mask.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textladder.batching import TextBatches, pad_batch

IN_MEMORY = 256 << 20  # bytes; a larger cache goes to a temporary file
ON_DISK = 16 << 30  # bytes, and at most half of the free space; more is not cached


class CachedStateBatches:
    """The batches of `TextBatches` with the states of frozen layers in place of token ids.

    A batch is the states, float32 (sequences, time, width), a mask that is true where there is text, bool (sequences,
    time), where a text may be several sequences the position of each one's text in the batch, and the labels.

    Args:
        batches: the texts.
        compute: token ids, int64 (sequences, time), to states (sequences, time, width).
        width: size of a state.
        first_only: cache only the first state of each sequence.
        half: cache in half precision, for states whose values are never large.
        keep: False for a single pass.

    Attributes:
        cached: False where there are too many states; they are then computed in every pass.
    """

    def __init__(
        self,
        batches: TextBatches,
        compute: Callable[[Tensor], Tensor],
        width: int,
        *,
        first_only: bool,
        half: bool = False,
        keep: bool = True,
    ) -> None:
        self.batches, self.compute = batches, compute
        texts = batches.texts
        lengths = np.minimum(texts.lengths, batches.padding.max_tokens)
        self._lengths = np.ones_like(lengths) if first_only else lengths
        self._offsets = np.concatenate([[0], np.cumsum(self._lengths)])
        self._known = np.zeros(batches.rows, bool)
        self._shape = int(self._offsets[-1]), width
        self._dtype = np.float16 if half else np.float32
        self._size = np.dtype(self._dtype).itemsize * self._shape[0] * width
        free = max(IN_MEMORY, min(ON_DISK, shutil.disk_usage(tempfile.gettempdir()).free // 2))
        self.cached = keep and self._size <= free
        self._states = self._allocate() if self.cached else None
        self._width = width
        self._computed_from: dict[
            str, Any
        ] = {}  # place of the pass that computed the cached states; `narrowed` share it

    def narrowed(self, width: int) -> "CachedStateBatches":
        """The same batches with only the first `width` values of each state; both share one cache."""
        narrowed = copy.copy(self)
        narrowed._width = width
        return narrowed

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def rows(self) -> int:
        """Number of texts in a pass."""
        return self.batches.rows

    def shortest_first(self) -> None:
        """As in `TextBatches`."""
        self.batches.shortest_first()

    def place(self, done: int) -> dict[str, Any]:
        """As in `TextBatches`, with the place at which the states were first computed."""
        return {**self.batches.place(done), "computed_from": dict(self._computed_from)}

    def restore(self, place: Mapping[str, Any]) -> None:
        """As in `TextBatches`; cached states are computed again in the batches of the first pass, as they were then."""
        if self.cached and place["computed_from"] and not self._computed_from:
            self._computed_from |= place["computed_from"]
            self.batches.restore(self._computed_from)
            for indices in self.batches.next_pass():
                self._compute(indices)
        self.batches.restore(place)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if not self._computed_from:
            self._computed_from |= self.batches.place(0)
        for indices in self.batches.next_pass():
            sequences = self.batches.sequences(indices)
            lengths = self._lengths[sequences]
            states = self._read(sequences, lengths) if self._known[indices].all() else self._compute(indices)
            states = states[:, :, : self._width]
            mask = torch.from_numpy(np.arange(states.shape[1]) < lengths[:, None])
            text_index = self.batches.text_index(indices)
            owners = () if text_index is None else (torch.from_numpy(text_index),)
            yield states, mask, *owners, torch.from_numpy(self.batches.label_ids[indices])

    def _compute(self, indices: np.ndarray) -> Tensor:
        """The states of some texts; if there is a cache, as it holds them, so that all passes see the same."""
        sequences = self.batches.sequences(indices)
        lengths = self._lengths[sequences]
        ids = torch.from_numpy(pad_batch(self.batches.texts, sequences, self.batches.padding))
        states = self.compute(ids).float().cpu()[:, : lengths.max()]
        if not self.cached:
            return states
        self._write(sequences, lengths, states.numpy())
        self._known[indices] = True
        return self._read(sequences, lengths)

    def _read(self, sequences: np.ndarray, lengths: np.ndarray) -> Tensor:
        assert self._states is not None
        states = np.zeros((len(sequences), int(lengths.max()), self._width), np.float32)
        for row, (start, length) in enumerate(zip(self._offsets[sequences], lengths, strict=True)):
            states[row, :length] = self._states[start : start + length, : self._width]
        return torch.from_numpy(states)

    def _write(self, sequences: np.ndarray, lengths: np.ndarray, states: np.ndarray) -> None:
        assert self._states is not None
        for row, (start, length) in enumerate(zip(self._offsets[sequences], lengths, strict=True)):
            self._states[start : start + length] = states[row, :length]

    def _allocate(self) -> np.ndarray:
        """Space for every state: in memory if it is small, else in a file that is deleted when it is closed."""
        if self._size <= IN_MEMORY:
            return np.empty(self._shape, self._dtype)
        with tempfile.TemporaryFile(prefix="textladder-") as file:
            return np.memmap(file, self._dtype, "w+", shape=self._shape)
