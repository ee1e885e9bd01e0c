"""`LSTMClassifier`: word vectors, an LSTM read both ways, pooling, a small head.

The network of the `lstm` level in both of its forms. What it must keep is that a text's logits do not depend on
how far it was padded; with `pooling=("last",)` alone the padding is read, as in the well-known tutorial, and
the caller has to pad every text to the same length.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

POOLINGS = ("mean", "max", "attention", "last")
Pooling = Callable[[Tensor, Tensor], Tensor]


class LSTMClassifier(nn.Module):
    """Classify texts that are rows of token numbers.

    Args:
        vocabulary_size: how many tokens there are.
        dimension: numbers of a word vector.
        classes: how many classes there are.
        hidden_size: state of each LSTM in each direction (Hochreiter & Schmidhuber 1997).
        layers: LSTMs stacked in each direction.
        bidirectional: also read every text from its end; each direction has a stack of its own.
        pooling: how the states become one vector: their masked `mean` and `max` (Howard & Ruder 2018, section 3.3,
            call it concat pooling), an `attention` mean (Yang et al. 2016, section 2.2, with one learnt score a
            state), or the `last` state of every layer. Or a function or module of your own, from the states (batch,
            time, width) and a mask (batch, time), true where there is text, to (batch, width). Several are put side by
            side.
        pool_embeddings: put the mean and the maximum of the word vectors themselves beside these.
        head_size: units of the head's hidden layer; 0 for none.
        embedding_dropout: share of the word vectors' numbers left out, the same ones for a whole text (Gal &
            Ghahramani 2016).
        dropout: share left out before the head and between layers.
        pad_id: the token that fills up.
    """

    def __init__(
        self,
        vocabulary_size: int,
        dimension: int,
        classes: int,
        *,
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
        self.pooling, self.pool_embeddings, self.pad_id = tuple(pooling), pool_embeddings, pad_id
        self.embedding_dropout = embedding_dropout
        self.embedding = nn.Embedding(vocabulary_size, dimension)
        between = dropout if layers > 1 else 0.0
        self.forward_lstm = nn.LSTM(dimension, hidden_size, layers, batch_first=True, dropout=between)
        self.backward_lstm = (
            nn.LSTM(dimension, hidden_size, layers, batch_first=True, dropout=between) if bidirectional else None
        )
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
        """Logits of a batch.

        Args:
            ids: int64 (batch, time), every text followed by `pad_id`.

        Returns:
            Logits (batch, classes).
        """
        mask = ids != self.pad_id  # (batch, time)
        lengths = mask.sum(dim=1)  # (batch,)
        vectors = self._drop_words(self.embedding(ids))  # (batch, time, dimension)
        states, (last, _) = self.forward_lstm(vectors)  # (batch, time, hidden), (layers, batch, hidden)
        if self.backward_lstm is not None:
            # Read from each text's own end: the padding stays behind the text, where it reaches no state that counts.
            backward, (backward_last, _) = self.backward_lstm(_reversed(vectors, lengths))
            states = torch.cat([states, _reversed(backward, lengths)], dim=2)
            last = torch.cat([last, backward_last])
        pooled = [self._pool(name, states.float(), last, mask, lengths) for name in self.pooling]
        if self.pool_embeddings:
            pooled += [self._pool(name, vectors.float(), last, mask, lengths) for name in ("mean", "max")]
        logits: Tensor = self.head(self.dropout(torch.cat(pooled, dim=1)))
        return logits

    def _drop_words(self, vectors: Tensor) -> Tensor:
        if not self.training or not self.embedding_dropout:
            return vectors
        kept = torch.rand(len(vectors), 1, vectors.shape[2], device=vectors.device) >= self.embedding_dropout
        return vectors * kept / (1 - self.embedding_dropout)

    def _pool(self, name: str | Pooling, states: Tensor, last: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """One vector for each text, (batch, width)."""
        if not isinstance(name, str):
            return name(states, mask)
        if name == "last":
            return last.float().transpose(0, 1).flatten(start_dim=1)
        hidden = ~mask[:, :, None]
        if name == "mean":
            return states.masked_fill(hidden, 0).sum(dim=1) / lengths.clamp(min=1)[:, None]
        if name == "max":
            return states.masked_fill(hidden, -torch.inf).amax(dim=1)
        assert self.attention is not None
        weights = self.attention(states).masked_fill(hidden, -torch.inf).softmax(dim=1)
        attended: Tensor = (weights * states).sum(dim=1)
        return attended


def _reversed(states: Tensor, lengths: Tensor) -> Tensor:
    """Each text's states in the opposite order, (batch, time, width); the padding stays where it is."""
    time = torch.arange(states.shape[1], device=states.device)[None]
    order = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return states.gather(1, order[:, :, None].expand_as(states))
