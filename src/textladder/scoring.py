"""Batches of token ids to class probabilities, by a torch network or an exported one.

Stands between the levels and what computes their logits. Predicting with an exported network needs no torch.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from textladder.batching import Padding, TextBatches, pad_batch
from textladder.cores import BATCH_TOKENS, map_over_cores
from textladder.text.vocabulary import EncodedTexts

if TYPE_CHECKING:
    from torch import nn


class Scorer(Protocol):
    """What predicts.

    Attributes:
        one_by_one: sequences are to come one by one, because the others of a batch would have a part in the answer.
        batch_tokens: numbers of a batch, padding counted, that are predicted quickest.
    """

    one_by_one: bool
    batch_tokens: int

    def score(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Logits, float32 (sequences, classes), of each batch of token numbers, int64 (sequences, time)."""


class NetworkScorer:
    """A torch network as it predicts: without dropout, in float32, whatever it was trained in."""

    one_by_one = False

    def __init__(self, network: "nn.Module") -> None:
        self.network, self.device = network, next(network.parameters()).device
        self.batch_tokens = BATCH_TOKENS if self.device.type == "cpu" else 32 * BATCH_TOKENS

    def score(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The logits of batch after batch; on a processor of several side by side, each on a core."""
        import torch

        training, cores = self.network.training, torch.get_num_threads()
        self.network.eval()
        try:
            several = list(batches)
            if self.device.type != "cpu" or cores == 1 or len(several) == 1:
                return [self._logits(ids) for ids in several]
            try:
                return map_over_cores(self._logits, several, cores, initializer=lambda: torch.set_num_threads(1))
            finally:
                torch.set_num_threads(cores)  # of threads that are yet to come
        finally:
            self.network.train(training)

    def _logits(self, ids: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            logits: np.ndarray = self.network(torch.from_numpy(ids).to(self.device)).float().cpu().numpy()
        return logits


def predict_probabilities(
    scorer: Scorer,
    texts: EncodedTexts,
    padding: Padding,
    *,
    sequence_offsets: np.ndarray | None = None,
    batch_padding: int | None = None,
) -> np.ndarray:
    """Class probabilities of texts in their order, float32 (texts, classes).

    Texts of like length go together, as many as make the scorer's `batch_tokens` and are not padded by more than
    `batch_padding`. The logits of a text that is several sequences (`sequence_offsets`, as in `TextBatches`)
    are their mean.
    """
    batches = TextBatches(
        texts,
        np.zeros(len(texts), np.int64),
        padding,
        batch_size=1 if scorer.one_by_one else None,
        batch_tokens=scorer.batch_tokens,
        batch_padding=batch_padding,
    )
    order = batches.next_pass()
    parts = np.concatenate(scorer.score(pad_batch(texts, places, padding) for places in order))
    logits = np.empty_like(parts)
    logits[np.concatenate(order)] = parts
    if sequence_offsets is not None:
        logits = np.add.reduceat(logits, sequence_offsets[:-1]) / np.diff(sequence_offsets)[:, None].astype(np.float32)
    return softmax(logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (texts, classes)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return probabilities
