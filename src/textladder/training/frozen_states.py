"""What frozen layers make of texts, computed in the first pass and kept for the later ones.

Stands between the batches and the training: `CachedStateBatches` is any iterable of batches to the Learner, as
`TextBatches` is. Frozen layers run without dropout here, so that what is kept is worth keeping.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from textladder.batching import TextBatches

IN_MEMORY = 256 << 20  # bytes; what is larger goes to a file in the folder for temporary files
ON_DISK = 16 << 30  # bytes, and at most half of what is free; what is larger is not kept


class CachedStateBatches:
    """The batches of `TextBatches`, with states in the place of token numbers.

    Each pass gives states, float32 (sequences, time, hidden), where they are no padding, bool (sequences, time), the
    text_index where texts may be several sequences, and labels.

    Args:
        batches: the texts.
        compute: token numbers, int64 (sequences, time), to states (sequences, time, hidden).
        hidden: numbers of a state.
        first_only: keep the first state of each sequence alone.
        half: keep them in half precision, for states that are never large.
        keep: False for a single pass.

    Attributes:
        kept: False where the states are too many to keep; they are then computed in every pass.
    """

    def __init__(
        self,
        batches: TextBatches,
        compute: Callable[[Tensor], Tensor],
        hidden: int,
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
        self._shape = int(self._offsets[-1]), hidden
        self._dtype = np.float16 if half else np.float32
        self._size = np.dtype(self._dtype).itemsize * self._shape[0] * hidden
        room = max(IN_MEMORY, min(ON_DISK, shutil.disk_usage(tempfile.gettempdir()).free // 2))
        self.kept = keep and self._size <= room
        self._states = self._room() if self.kept else None
        self._given = hidden

    def narrowed(self, given: int) -> "CachedStateBatches":
        """The same, of which a pass gives the first `given` numbers of each state alone."""
        narrowed = copy.copy(self)  # what the one computes, the other knows
        narrowed._given = given
        return narrowed

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def rows(self) -> int:
        """How many texts a pass has."""
        return self.batches.rows

    def begin_with_the_shortest(self) -> None:
        """As of the texts' own batches."""
        self.batches.begin_with_the_shortest()

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for places in self.batches.next_pass():
            sequences = self.batches.sequences(places)
            lengths = self._lengths[sequences]
            ids, *others = self.batches.batch(places)
            if self._known[places].all():
                states = self._read(sequences, lengths)
            else:
                states = self.compute(ids).float().cpu()[:, : lengths.max()]
                if self.kept:
                    self._write(sequences, lengths, states.numpy())
                    self._known[places] = True
            states = states[:, :, : self._given]
            yield states, torch.from_numpy(np.arange(states.shape[1]) < lengths[:, None]), *others

    def _read(self, sequences: np.ndarray, lengths: np.ndarray) -> Tensor:
        assert self._states is not None
        states = np.zeros((len(sequences), int(lengths.max()), self._given), np.float32)
        for row, (start, length) in enumerate(zip(self._offsets[sequences], lengths, strict=True)):
            states[row, :length] = self._states[start : start + length, : self._given]
        return torch.from_numpy(states)

    def _write(self, sequences: np.ndarray, lengths: np.ndarray, states: np.ndarray) -> None:
        assert self._states is not None
        for row, (start, length) in enumerate(zip(self._offsets[sequences], lengths, strict=True)):
            self._states[start : start + length] = states[row, :length]

    def _room(self) -> np.ndarray:
        """Space for every state: in memory if they are few, else in a file that is gone when it is closed."""
        if self._size <= IN_MEMORY:
            return np.empty(self._shape, self._dtype)
        with tempfile.TemporaryFile(prefix="textladder-") as file:
            return np.memmap(file, self._dtype, "w+", shape=self._shape)
