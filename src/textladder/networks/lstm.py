"""`LSTMClassifier`: word vectors, an LSTM or GRU in one or both directions, pooling, and a small head.

The network of the `lstm` level in both of its forms. A text's logits do not depend on how much padding follows it,
except with the pooling `last`, which reads the padding as the 2021 tutorial does: the caller then has to pad
every text to the same length.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from textladder.errors import ConfigError, unknown_name
from textladder.networks.pooling import attention_mean, maximum, mean

CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
POOLINGS = ("mean", "max", "attention", "last")
Pooling = Callable[[Tensor, Tensor], Tensor]


class LSTMClassifier(nn.Module):
    """Classify texts given as rows of token ids.

    Args:
        vocabulary_size: number of tokens.
        dimension: size of a word vector.
        classes: number of classes.
        cell: the recurrent cell, `lstm` (Hochreiter & Schmidhuber 1997) or `gru` (Cho et al. 2014).
        hidden_size: size of the state of each layer in each direction.
        layers: recurrent layers stacked in each direction.
        bidirectional: also read every text from its end, with a stack of its own.
        pooling: how the states become one vector: their masked `mean` and `max` (Howard & Ruder 2018, section 3.3,
            concat pooling), an `attention` mean (Yang et al. 2016, section 2.2, with one learned score per state), or
            the `last` state of every layer. Also accepts functions and modules that take the states (batch, time,
            width) and a mask (batch, time), True where there is text, and return (batch, width). Several are
            concatenated.
        pool_embeddings: also pool the word vectors, by mean and maximum.
        head_size: units of the head's hidden layer; 0 for none.
        embedding_dropout: variational dropout of the word vectors: each text has one mask for all its tokens (Gal &
            Ghahramani 2016).
        dropout: dropout before the head and between recurrent layers.
        pad_id: id of the padding token.

    Raises:
        ConfigError: an unknown cell or pooling.
    """

    def __init__(
        self,
        vocabulary_size: int,
        dimension: int,
        classes: int,
        *,
        cell: str = "lstm",
        hidden_size: int = 64,
        layers: int = 1,
        bidirectional: bool = True,
        pooling: Sequence[str | Pooling] = ("mean", "max"),
        pool_embeddings: bool = False,
        head_size: int = 0,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
        pad_id: int = 1,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ConfigError(unknown_name("cell", cell, CELLS))
        for name in pooling:
            if isinstance(name, str) and name not in POOLINGS:
                raise ConfigError(unknown_name("pooling", name, POOLINGS))
        self.pooling, self.pool_embeddings, self.pad_id = tuple(pooling), pool_embeddings, pad_id
        self.embedding_dropout = embedding_dropout
        self.embedding = nn.Embedding(vocabulary_size, dimension)
        options: dict[str, Any] = {"batch_first": True, "dropout": dropout if layers > 1 else 0.0}
        # saved weights have these names, whichever the cell
        self.forward_lstm = CELLS[cell](dimension, hidden_size, layers, **options)
        self.backward_lstm = CELLS[cell](dimension, hidden_size, layers, **options) if bidirectional else None
        width = hidden_size * (2 if bidirectional else 1)
        self.attention = nn.Linear(width, 1) if "attention" in self.pooling else None
        self.own_poolings = nn.ModuleList(one for one in self.pooling if isinstance(one, nn.Module))
        pooled = sum(layers * width if name == "last" else width for name in self.pooling)
        pooled += 2 * dimension if pool_embeddings else 0
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module = nn.Linear(head_size or pooled, classes)
        if head_size:
            self.head = nn.Sequential(nn.Linear(pooled, head_size), nn.ReLU(), self.head)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, classes) of texts, int64 (batch, time), each followed by padding."""
        mask = ids != self.pad_id  # (batch, time)
        lengths = mask.sum(dim=1)  # (batch,)
        vectors = self._drop_embeddings(self.embedding(ids))  # (batch, time, dimension)
        states, last = _read(self.forward_lstm, vectors)
        if self.backward_lstm is not None:
            # Reversed within its own length, so that the padding stays behind the text and changes no state of it.
            backward, backward_last = _read(self.backward_lstm, _reversed(vectors, lengths))
            states = torch.cat([states, _reversed(backward, lengths)], dim=2)
            last = torch.cat([last, backward_last])
        pooled = [self._pool(kind, states.float(), last, mask) for kind in self.pooling]
        if self.pool_embeddings:
            pooled += [mean(vectors.float(), mask), maximum(vectors.float(), mask)]
        logits: Tensor = self.head(self.dropout(torch.cat(pooled, dim=1)))
        return logits

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The embedding, the recurrent layers, and the head with the poolings' own parameters, from the bottom up."""
        recurrent = [one for one in (self.forward_lstm, self.backward_lstm) if one is not None]
        head = [one for one in (self.attention, self.own_poolings, self.head) if one is not None]
        parts: list[list[nn.Module]] = [[self.embedding], [*recurrent], [*head]]
        return [[parameter for module in part for parameter in module.parameters()] for part in parts]

    def _drop_embeddings(self, vectors: Tensor) -> Tensor:
        if not self.training or not self.embedding_dropout:
            return vectors
        kept = torch.rand(len(vectors), 1, vectors.shape[2], device=vectors.device) >= self.embedding_dropout
        return vectors * kept / (1 - self.embedding_dropout)

    def _pool(self, kind: str | Pooling, states: Tensor, last: Tensor, mask: Tensor) -> Tensor:
        """One vector for each text, (batch, width)."""
        if not isinstance(kind, str):
            return kind(states, mask)
        if kind == "last":  # of every layer and direction, at the end of the padding
            return last.float().transpose(0, 1).flatten(start_dim=1)
        if kind == "mean":
            return mean(states, mask)
        if kind == "max":
            return maximum(states, mask)
        assert self.attention is not None
        return attention_mean(states, self.attention(states), mask)


def _read(recurrent: nn.Module, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """All states of the top layer, (batch, time, hidden), and the last state of each, (layers, batch, hidden)."""
    states, last = recurrent(vectors)
    return states, last[0] if isinstance(last, tuple) else last  # an LSTM also returns its cells


def _reversed(states: Tensor, lengths: Tensor) -> Tensor:
    """Each text's states in reverse order, (batch, time, width); the padding stays where it is."""
    time = torch.arange(states.shape[1], device=states.device)[None]
    order = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return states.gather(1, order[:, :, None].expand_as(states))
