"""Batches of encoded texts: encoded once, of like length, padded only to the longest of the batch.

Stands between the text side and the training. A batch is cut out of one array of numbers; nothing is tokenized
here, and nothing here knows of fastai: `TextBatches` is any iterable of batches to it.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from textladder.text.vocabulary import PAD_ID, UNKNOWN_ID, EncodedTexts

LENGTH_NOISE = 8  # tokens by which lengths are blurred, so that a text does not always meet the same others


class TextBatches:
    """Batches for one pass after another over labelled texts.

    Each pass gives pairs of token numbers, int64 (batch, time), and labels, int64 (batch,).

    Args:
        texts: the encoded texts.
        label_ids: int64 (texts,).
        batch_size: texts of a batch; the last one of a pass may have fewer.
        max_tokens: texts are cut to this.
        fixed_length: pad every text to `max_tokens` and do not sort by length, as the tutorial does.
        shuffle: another order at every pass.
        seed: of the orders.
    """

    def __init__(
        self,
        texts: EncodedTexts,
        label_ids: np.ndarray,
        *,
        batch_size: int,
        max_tokens: int,
        fixed_length: bool = False,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.texts, self.label_ids = texts, label_ids
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.fixed_length, self.shuffle = fixed_length, shuffle
        self._shortest_first = False
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.texts) // self.batch_size)

    @property
    def rows(self) -> int:
        """How many texts a pass has."""
        return len(self.texts)

    def begin_with_the_shortest(self) -> None:
        """Take the next pass from short texts to long ones, so that its first half costs a third of its time."""
        self._shortest_first = True

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order()
        self._shortest_first = False
        for places in order:
            ids = pad_batch(self.texts, places, self.max_tokens, self.fixed_length)
            yield ids, torch.from_numpy(self.label_ids[places])

    def _order(self) -> list[np.ndarray]:
        """The places of every batch's texts."""
        places = np.arange(len(self.texts))
        if self.shuffle:
            places = self._random.permutation(places)
        if not self.fixed_length:
            lengths = np.minimum(self.texts.lengths, self.max_tokens)[places].astype(np.float64)
            if self.shuffle:
                lengths += self._random.uniform(-LENGTH_NOISE, LENGTH_NOISE, len(lengths))
            places = places[np.argsort(lengths, kind="stable")]
        batches = [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]
        if self.shuffle and not self.fixed_length and not self._shortest_first:
            batches = [batches[place] for place in self._random.permutation(len(batches))]
        return batches


def pad_batch(texts: EncodedTexts, places: np.ndarray, max_tokens: int, fixed_length: bool = False) -> Tensor:
    """Some texts as one tensor, int64 (batch, time); an empty text becomes one unknown word."""
    rows = [texts[place][:max_tokens] for place in places]
    time = max_tokens if fixed_length else max(1, max((len(row) for row in rows), default=1))
    ids = np.full((len(rows), time), PAD_ID, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        if not len(row):
            ids[number, 0] = UNKNOWN_ID
    return torch.from_numpy(ids)


def predict_probabilities(
    network: nn.Module,
    texts: EncodedTexts,
    *,
    max_tokens: int,
    fixed_length: bool = False,
    batch_tokens: int = 32_768,
) -> np.ndarray:
    """Class probabilities of texts in their order, float32 (texts, classes).

    Texts of like length go together, as many as make `batch_tokens` numbers; float32, whatever it was trained in.
    """
    lengths = np.full(len(texts), max_tokens) if fixed_length else np.clip(texts.lengths, 1, max_tokens)
    order = np.argsort(lengths, kind="stable")
    device = next(network.parameters()).device
    parts = []
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        start = 0
        while start < len(order):
            # lengths rise, so the last text of a batch is its longest
            stop = start + 1
            while stop < len(order) and lengths[order[stop]] * (stop + 1 - start) <= batch_tokens:
                stop += 1
            ids = pad_batch(texts, order[start:stop], max_tokens, fixed_length)
            parts.append(network(ids.to(device)).float().softmax(dim=1).cpu().numpy())
            start = stop
    network.train(was_training)
    probabilities = np.concatenate(parts)
    result = np.empty_like(probabilities)
    result[order] = probabilities
    return result
