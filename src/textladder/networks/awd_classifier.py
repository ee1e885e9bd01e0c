"""The AWD-LSTM as a classifier: its states, pooled, and a head; as a whole or only the layers being trained."""

import torch
from torch import Tensor, nn

from textladder.networks.awd_lstm import AWDLSTM
from textladder.networks.pooling import attention_mean, concat_pool, maximum, mean

HEAD_SIZE = 50  # units of the head's hidden layer on concat pooling (Howard & Ruder 2018, section 4.1)


class AWDClassifier(nn.Module):
    """An AWD-LSTM with a pooling and a head.

    Args:
        encoder: word ids to states, as in a language model.
        classes: number of classes.
        pooling: `layers` takes the maximum, the mean and an attention mean (Yang et al. 2016, section 2.2) of every
            layer's states and of the word vectors, followed by one linear layer; `concat` takes the last layer's last
            state, maximum and mean, followed by two linear layers with batch norm (Howard & Ruder 2018, section 3.3).
        pooled_dropout: dropout of the pooled states.
        head_dropout: dropout of the head's hidden layer, which only `concat` has.
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
        """The outputs of the layers below the LSTMs `first`, concatenated: what `above` needs, (batch, time, width)."""
        encoder = self.encoder
        words = encoder.embed(ids)
        if not first:
            return words
        return encoder.all_layers(words, ids != encoder.pad_id, last=first)

    def above(self, known: Tensor, mask: Tensor, first: int) -> Tensor:
        """Logits (batch, classes) from the output of `below`.

        Args:
            known: the output of `below`, (batch, time, width).
            mask: bool (batch, time), True where there is text.
            first: index of the lowest LSTM to run.
        """
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
        """The word vectors, the LSTMs of each layer in both directions, and the head, from the bottom up."""
        encoder = self.encoder
        groups = [list(lstm.parameters()) for lstm in encoder.lstms]
        for group, lstm in zip(groups, encoder.backward_lstms, strict=False):
            group.extend(lstm.parameters())
        return [list(encoder.embedding.parameters()), *groups, list(self.head.parameters())]


class AttentionHead(nn.Module):
    """Maximum, mean and attention mean of the states, followed by a linear layer.

    Args:
        width: size of a state.
        classes: number of classes.
        dropout: dropout of the pooled states.
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
    """Batch norm that takes a batch of one text, which has no variance; it uses the running statistics then."""

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class AWDTop(nn.Module):
    """The upper layers of an `AWDClassifier`, for training while the output of the frozen lower ones is known.

    It shares the network's parameters and has no others, so training it leaves the lower layers unchanged.

    Args:
        network: the whole classifier.
        first: index of the lowest LSTM to train; the number of LSTMs to train only the head.
    """

    def __init__(self, network: AWDClassifier, first: int) -> None:
        super().__init__()
        self.first, self._groups = first, network.parameter_groups()[first + 1 :]
        encoder = network.encoder
        self.trained = nn.ModuleList(
            [*list(encoder.lstms)[first:], *list(encoder.backward_lstms)[first:], network.head]
        )
        self._network = [network]  # in a list, so that the network is not registered as a part of this module

    def train(self, mode: bool = True) -> "AWDTop":
        """Also switch the network, whose dropout this is."""
        self._network[0].train(mode)
        return super().train(mode)

    def forward(self, known: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes) from the output of `below` and a mask (batch, time), True where there is text."""
        return self._network[0].above(known, mask, self.first)

    def below(self, ids: Tensor) -> Tensor:
        """The output of the frozen layers for texts, int64 (batch, time): the first argument of `forward`."""
        return self._network[0].below(ids, self.first)

    @property
    def width(self) -> int:
        """Width of the output of `below`."""
        return sum(self._network[0].encoder.layer_widths[: self.first + 1])

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The LSTMs of each layer that is trained, and the head."""
        return self._groups
