"""Texts as one stream of words for a language model: the words of a batch, and the words that follow them.

Sits between the text side and the training of language models, as `batching.py` does for classifiers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textladder.text.vocabulary import EncodedTexts


class WordStream:
    """Batches of a language model, each of which continues where the one before ended.

    The texts are concatenated, with `shuffle` in a new order in every epoch, and split into as many long rows as a
    batch has sequences. Each batch is a pair: tokens, and the tokens that follow them, both int64 (batch, time).

    Args:
        texts: the encoded texts.
        batch_size: sequences per batch; fewer where there are too few tokens to fill them.
        time: tokens per sequence (the length of backpropagation through time); in the last batch there may be fewer.
        parts: number of parts that an epoch is divided into; an iteration is one of them.
        shuffle: a new order of the texts in every epoch.
        seed: of the orders; the same part of the same epoch is always the same.
    """

    def __init__(
        self,
        texts: EncodedTexts,
        *,
        batch_size: int,
        time: int,
        parts: int = 1,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.texts, self.time, self.shuffle, self.seed = texts, time, shuffle, seed
        words = len(texts.ids)
        self.batch_size = max(1, min(batch_size, words // (2 * time)))
        self._row = (words - 1) // self.batch_size
        self._steps = -(-self._row // time)
        self.parts = max(1, min(parts, self._steps))
        self.next_part = 0
        self._done = 0  # batches of the next part that are left out

    @property
    def rows(self) -> int:
        """Number of texts in an epoch."""
        return len(self.texts)

    def __len__(self) -> int:
        """Number of batches in the next part."""
        first, last = self._part(self.next_part % self.parts)
        return last - first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        number, part = divmod(self.next_part, self.parts)
        self.next_part += 1
        stream = torch.from_numpy(self._stream(number))
        words, following = (
            stream[shift : shift + self.batch_size * self._row].view(self.batch_size, self._row) for shift in (0, 1)
        )
        first, last = self._part(part)
        done, self._done = self._done, 0
        for step in range(first + done, last):
            window = slice(step * self.time, (step + 1) * self.time)
            yield words[:, window].long(), following[:, window].long()

    def place(self, done: int) -> dict[str, Any]:
        """As in `TextBatches`."""
        return {"next_part": self.next_part - bool(done), "done": done}

    def restore(self, place: Mapping[str, Any]) -> None:
        """As in `TextBatches`."""
        self.next_part, self._done = place["next_part"], place["done"]

    def _part(self, part: int) -> tuple[int, int]:
        return self._steps * part // self.parts, self._steps * (part + 1) // self.parts

    def _stream(self, number: int) -> np.ndarray:
        """All tokens of an epoch, int32."""
        if not self.shuffle:
            return self.texts.ids
        order = np.random.default_rng((self.seed, number)).permutation(len(self.texts))
        return np.concatenate([self.texts[index] for index in order])
