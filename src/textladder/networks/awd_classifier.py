"""The AWD-LSTM as a classifier: pooled states and a head, whole or its upper part alone."""

import torch
from torch import Tensor, nn

from textladder.networks.awd_lstm import AWDLSTM
from textladder.networks.pooling import attention_mean, concat_pool, maximum, mean

HEAD_SIZE = 50  # units of the hidden layer that stands on concat pooling (Howard & Ruder 2018, section 4.1)


class AWDClassifier(nn.Module):
    """An AWD-LSTM's states, pooled, to classes.

    Args:
        encoder: words to states; that of a language model.
        classes: how many classes there are.
        pooling: `layers` is the maximum, the mean and an attention mean (Yang et al. 2016, section 2.2) over all words
            of every layer's states and of the word vectors, and one linear layer; `concat` is the last layer's last
            state, maximum and mean, and two linear ones with batch norm (Howard & Ruder 2018, section 3.3).
        pooled_dropout: share left out of the pooled states.
        head_dropout: share left out of the hidden layer, where there is one.
    """

    def __init__(
        self,
        encoder: AWDLSTM,
        classes: int,
        *,
        pooling: str = "layers",
        pooled_dropout: float = 0.0,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head: nn.Module
        if pooling == "concat":
            pooled = 3 * encoder.embedding.embedding_dim
            self.head = nn.Sequential(
                _BatchNorm(pooled),
                nn.Dropout(pooled_dropout),
                nn.Linear(pooled, HEAD_SIZE, bias=False),
                nn.ReLU(),
                _BatchNorm(HEAD_SIZE),
                nn.Dropout(head_dropout),
                nn.Linear(HEAD_SIZE, classes, bias=False),
            )
        else:
            self.head = AttentionHead(sum(encoder.layer_widths), classes, pooled_dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, classes) of texts, int64 (batch, time), each followed by padding."""
        return self.above(self.below(ids, 0), ids != self.encoder.pad_id, 0)

    def below(self, ids: Tensor, first: int) -> Tensor:
        """The levels below the LSTMs `first` side by side, (batch, time, width): what the rest has to know."""
        encoder = self.encoder
        words = encoder.embed(ids)
        if not first:
            return words
        return encoder.all_layers(words, ids != encoder.pad_id, last=first)

    def above(self, known: Tensor, mask: Tensor, first: int) -> Tensor:
        """Logits (batch, classes) from what is `below`, and where there is text."""
        encoder = self.encoder
        logits: Tensor
        if isinstance(self.head, AttentionHead):
            logits = self.head(encoder.all_layers(known, mask, first), mask)
        else:
            known = known[:, :, known.shape[2] - encoder.lstms.widths[first] :]
            states, _ = encoder.lstms(known, first=first)
            logits = self.head(concat_pool([known, *states][-1], mask))
        return logits

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Word vectors, the LSTMs of each height, and the head, from the bottom up."""
        encoder = self.encoder
        groups = [list(lstm.parameters()) for lstm in encoder.lstms]
        for group, lstm in zip(groups, encoder.backward_lstms, strict=False):
            group.extend(lstm.parameters())
        return [list(encoder.embedding.parameters()), *groups, list(self.head.parameters())]


class AttentionHead(nn.Module):
    """Maximum, mean and attention mean of states, and one linear layer.

    Args:
        width: numbers of a state.
        classes: how many classes there are.
        dropout: share left out of the pooled states.
    """

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(3 * width, classes)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes).

        Args:
            states: (batch, time, width).
            mask: bool (batch, time), True where there is text.
        """
        states = states.float()
        scores = self.attention(states).float()
        # the order in which they are computed is that in which their gradients are added up
        average, greatest = mean(states, mask), maximum(states, mask)
        pooled = [greatest, average, attention_mean(states, scores, mask)]
        logits: Tensor = self.linear(self.dropout(torch.cat(pooled, dim=1)))
        return logits


class _BatchNorm(nn.BatchNorm1d):
    """A batch of one text has no spread to be normed by: it takes what was learnt so far, as in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class AWDTop(nn.Module):
    """The upper part of an `AWDClassifier`, where what lies below is frozen and known.

    It shares its parameters and has no others, so that training it leaves the rest as it is.

    Args:
        network: the whole.
        first: the lowest LSTM that learns; the number of LSTMs for the head alone.
    """

    def __init__(self, network: AWDClassifier, first: int) -> None:
        super().__init__()
        self.first, self._groups = first, network.parameter_groups()[first + 1 :]
        encoder = network.encoder
        self.learnt = nn.ModuleList([*list(encoder.lstms)[first:], *list(encoder.backward_lstms)[first:], network.head])
        self._network = [network]  # in a list, so that the rest does not become a part of this module

    def train(self, mode: bool = True) -> "AWDTop":
        """Dropout of the whole follows."""
        self._network[0].train(mode)
        return super().train(mode)

    def forward(self, known: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes) from what the frozen part makes of texts, and where there is text, (batch, time)."""
        return self._network[0].above(known, mask, self.first)

    def below(self, ids: Tensor) -> Tensor:
        """What the frozen part makes of texts: `forward`'s first argument."""
        return self._network[0].below(ids, self.first)

    @property
    def width(self) -> int:
        """Numbers of what `below` gives at each word."""
        return sum(self._network[0].encoder.layer_widths[: self.first + 1])

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The LSTMs of each height that learn, and the head."""
        return self._groups
