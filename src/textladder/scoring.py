"""Batches of token ids to class probabilities, by a torch network or an exported one.

Sits between the levels and what computes their logits. Predicting with an exported network needs no torch.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from textladder.batching import Padding, TextBatches, pad_batch
from textladder.cores import BATCH_TOKENS, in_background, map_over_cores
from textladder.errors import BundleError, first_line
from textladder.text.vocabulary import EncodedTexts

if TYPE_CHECKING:
    from torch import nn


class Scorer(Protocol):
    """Computes logits for batches of token ids.

    Attributes:
        one_by_one: each sequence needs a batch of its own, because the others in a batch would affect its logits.
        batch_tokens: tokens per batch, padding included, at which prediction is fastest.
    """

    one_by_one: bool
    batch_tokens: int

    def score(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Logits, float32 (sequences, classes), of each batch of token ids, int64 (sequences, time)."""


class NetworkScorer:
    """A torch network in prediction: without dropout, in float32, whatever precision it was trained in.

    Args:
        network: the network.
        batch_cores: cores for one batch; None for all.
    """

    one_by_one = False

    def __init__(self, network: "nn.Module", batch_cores: int | None = None) -> None:
        self.network, self.device = network, next(network.parameters()).device
        self.batch_cores = batch_cores
        self.batch_tokens = BATCH_TOKENS if self.device.type == "cpu" else 32 * BATCH_TOKENS

    def score(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The logits of each batch; on a CPU, several batches are computed in parallel, one per core."""
        import torch

        training, cores = self.network.training, torch.get_num_threads()
        self.network.eval()
        try:
            several = list(batches)
            if self.device.type != "cpu" or cores == 1:
                return [self._logits(ids) for ids in several]
            try:
                if len(several) == 1 and not in_background():
                    torch.set_num_threads(self.batch_cores or cores)
                    return [self._logits(several[0])]
                return map_over_cores(self._logits, several, cores, initializer=lambda: torch.set_num_threads(1))
            finally:
                torch.set_num_threads(cores)  # for threads that start later
        finally:
            self.network.train(training)

    def _logits(self, ids: np.ndarray) -> np.ndarray:
        """The logits of one batch.

        Raises:
            BundleError: it contains a token, or is longer, than the network has vectors for.
        """
        import torch

        try:
            with torch.inference_mode():
                logits: np.ndarray = self.network(torch.from_numpy(ids).to(self.device)).float().cpu().numpy()
        except IndexError as error:
            raise BundleError(
                f"The network failed on a batch ({first_line(error)}), so it does not belong to its tokenizer."
            ) from None
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

    Texts of similar length share a batch, up to the scorer's `batch_tokens`.

    Args:
        scorer: computes the logits.
        texts: the encoded texts, or the sequences that they were split into.
        padding: how a batch is brought to one length.
        sequence_offsets: as in `TextBatches`; the logits of a text are then the mean over its sequences.
        batch_padding: as in `TextBatches`.
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
    parts = np.concatenate(scorer.score(pad_batch(texts, indices, padding) for indices in order))
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
