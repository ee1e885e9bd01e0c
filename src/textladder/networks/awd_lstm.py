"""The AWD-LSTM, stacked LSTMs with four kinds of dropout, and the language model on top of it.

Merity, Keskar & Socher 2017, "Regularizing and optimizing LSTM language models" (arXiv 1708.02182). A test checks that
it computes what fastai's `AWD_LSTM` does. Unlike there, the cost of embedding dropout depends on the size of a batch
and not on that of the vocabulary, and padding comes after a text, where it affects no state of it.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

State = list[tuple[Tensor, Tensor]]  # hidden and cell of each LSTM, (1, batch, width)


class AWDLSTM(nn.Module):
    """Word ids to states.

    Args:
        vocabulary_size: number of words.
        dimension: size of a word vector, and of the last LSTM's state.
        hidden_size: size of the state of the LSTMs below the last.
        layers: number of LSTMs.
        backward_size: `hidden_size` of a second stack, which reads the same word vectors from right to left; 0 for no
            second stack.
        pad_id: id of the padding.

    Attributes:
        embedding_dropout: probability of dropping a word wherever it occurs in a batch (section 4.3).
        input_dropout: variational dropout of the word vectors (section 4.2).
    """

    def __init__(
        self,
        vocabulary_size: int,
        dimension: int,
        hidden_size: int,
        layers: int,
        backward_size: int = 0,
        *,
        pad_id: int = 1,
    ) -> None:
        super().__init__()
        self.pad_id, self.embedding_dropout, self.input_dropout = pad_id, 0.0, 0.0
        self.embedding = nn.Embedding(vocabulary_size, dimension)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.lstms = LSTMStack([dimension, *[hidden_size] * (layers - 1), dimension])
        widths = [dimension, *[backward_size] * (layers - 1), dimension]
        self.backward_lstms = LSTMStack(widths if backward_size else [])

    def set_dropout(self, *, embedding: float, input: float, hidden: float, weight: float) -> None:
        """Set the dropout probabilities for training.

        Args:
            embedding: see `embedding_dropout`.
            input: see `input_dropout`.
            hidden: see `LSTMStack.hidden_dropout`.
            weight: see `LSTMStack.weight_dropout`.
        """
        self.embedding_dropout, self.input_dropout = embedding, input
        for stack in (self.lstms, self.backward_lstms):
            stack.hidden_dropout, stack.weight_dropout = hidden, weight

    def forward(self, ids: Tensor, state: State | None = None, *, backward: bool = False) -> tuple[Tensor, State]:
        """The last LSTM's states, (batch, time, dimension), and the final state of every LSTM.

        Args:
            ids: int64 (batch, time), in the order of reading.
            state: the initial state, such as the final one of the preceding words; by default zeros.
            backward: read with the second stack.
        """
        states, ends = (self.backward_lstms if backward else self.lstms)(self.embed(ids), state)
        return states[-1], ends

    def embed(self, ids: Tensor) -> Tensor:
        """Word vectors, (batch, time, dimension), after embedding dropout and input dropout."""
        vectors: Tensor = self.embedding(ids)
        if self.training and self.embedding_dropout:
            kept = torch.rand(self.embedding.num_embeddings, device=ids.device) >= self.embedding_dropout
            vectors = vectors * (kept / (1 - self.embedding_dropout))[ids][:, :, None]
        return variational_dropout(vectors, self.input_dropout, self.training)

    @property
    def layer_widths(self) -> list[int]:
        """Widths of the layers: the word vectors, then each layer's states in both directions."""
        stacks = [stack.widths[1:] for stack in (self.lstms, self.backward_lstms) if len(stack)]
        return [self.embedding.embedding_dim, *map(sum, zip(*stacks, strict=True))]

    def all_layers(self, known: Tensor, mask: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """All layers concatenated at each word, (batch, time, sum of `layer_widths`).

        Args:
            known: the layers that are known already, from the word vectors up to the inputs of the LSTMs `first`.
            mask: bool (batch, time), True where there is text, which comes before the padding.
            first: index of the lowest LSTM to run.
            last: index of the LSTM to stop before; by default run all.
        """
        last = len(self.lstms) if last is None else last
        if first == last:
            return known
        inputs = known[:, :, known.shape[2] - self.layer_widths[first] :]
        ahead = self.lstms.widths[first]
        parts, (upwards, _) = [known], self.lstms(inputs[:, :, :ahead], first=first, last=last)
        if not len(self.backward_lstms):
            return torch.cat([*parts, *upwards], dim=2)
        order, inputs = _reading_order(mask), inputs[:, :, ahead:] if first else inputs
        behind, _ = self.backward_lstms(_gather(inputs, order), first=first, last=last)
        for one, other in zip(upwards, behind, strict=True):
            parts += [one, _gather(other, order)]
        return torch.cat([part.to(known.dtype) for part in parts], dim=2)


class LSTMStack(nn.ModuleList):
    """Stacked LSTMs.

    Args:
        widths: size of the lowest LSTM's inputs, then of each LSTM's state; an empty list for an empty stack.

    Attributes:
        hidden_dropout: variational dropout of the states between LSTMs (section 4.2).
        weight_dropout: probability of dropping a recurrent weight, DropConnect (section 2).
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths, self.hidden_dropout, self.weight_dropout = widths, 0.0, 0.0
        for below, above in pairwise(widths):
            lstm = nn.LSTM(below, above, batch_first=True)
            *_, bias = lstm.parameters()
            # a forget gate that starts open (Jozefowicz et al. 2015, section 4); its weights are the second of four
            nn.init.ones_(bias.detach()[above : 2 * above])
            self.append(lstm)

    def forward(
        self, states: Tensor, begin: State | None = None, first: int = 0, last: int | None = None
    ) -> tuple[list[Tensor], State]:
        """The states of each LSTM, (batch, time, its width), and the final state of each.

        Args:
            states: inputs of the LSTM `first`, (batch, time, width).
            begin: the initial state of each LSTM; by default zeros.
            first: index of the lowest LSTM to run.
            last: index of the LSTM to stop before; by default run all.
        """
        layers, ends = [], []
        for number in range(first, len(self) if last is None else last):
            if number:
                states = variational_dropout(states, self.hidden_dropout, self.training)
            states, end = self._read(self[number], states, None if begin is None else begin[number - first])
            layers.append(states)
            ends.append(end)
        return layers, ends

    def _read(
        self, lstm: nn.Module, states: Tensor, begin: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self.training or not self.weight_dropout:
            states, end = lstm(states, begin)
            return states, end
        inner, recurrent, *biases = lstm.parameters()
        if begin is None:
            zeros = states.new_zeros(1, len(states), recurrent.shape[1])
            begin = zeros, zeros
        weights = [inner, nn.functional.dropout(recurrent, self.weight_dropout), *biases]
        # nn.LSTM calls this too, with its own weights
        states, hidden, cell = torch._VF.lstm(states, begin, weights, True, 1, 0.0, True, False, True)
        return states, (hidden, cell)


def variational_dropout(states: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout with one mask for all time steps of a text (Gal & Ghahramani 2016).

    Args:
        states: (batch, time, width).
        probability: of dropping a number.
        training: False to return the states as they are.
    """
    if not training or not probability:
        return states
    kept = torch.rand(len(states), 1, states.shape[2], device=states.device) >= probability
    return states * (kept / (1 - probability)).to(states.dtype)


def _reading_order(mask: Tensor) -> Tensor:
    """The positions of each text's words when it is read from right to left, int64 (batch, time).

    The first word stays in place, because it marks the beginning of a text, and so does the padding. Applied twice, the
    order restores the text.
    """
    time, lengths = torch.arange(mask.shape[1], device=mask.device)[None], mask.sum(dim=1, keepdim=True)
    return torch.where((time > 0) & (time < lengths), lengths - time, time)


def _gather(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(1, order[:, :, None].expand_as(states))


class LanguageModel(nn.Module):
    """An AWD-LSTM that predicts the next word; the softmax shares the word vectors' weights (section 4.5).

    It is stateful: each batch continues where the previous one ended, until `reset`.

    Args:
        encoder: word ids to states.
        output_dropout: variational dropout of the last LSTM's states.
        backward: read from right to left with the encoder's second stack, predicting the preceding word.
    """

    def __init__(self, encoder: AWDLSTM, *, output_dropout: float = 0.0, backward: bool = False) -> None:
        super().__init__()
        self.encoder, self.output_dropout, self.backward = encoder, output_dropout, backward
        self.bias = nn.Parameter(torch.zeros(encoder.embedding.num_embeddings))
        self.carried: State | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """The last LSTM's states, (batch, time, dimension), from which `NextWordLoss` computes the scores of words."""
        states, end = self.encoder(ids, self.carried, backward=self.backward)
        self.carried = [(hidden.detach(), cell.detach()) for hidden, cell in end]
        return variational_dropout(states, self.output_dropout, self.training)

    def start_from(self, counts: Tensor) -> None:
        """Let the scores start from the words' frequencies, which would take hundreds of steps to learn.

        Args:
            counts: how often each word occurs, (words,).
        """
        with torch.no_grad():
            self.bias.copy_(((counts + 1) / (counts + 1).sum()).log())

    def reset(self) -> None:
        """Forget the state, so that the next batch starts from zeros."""
        self.carried = None

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The word vectors with the softmax's bias, then each LSTM, from the bottom up."""
        words = [*self.encoder.embedding.parameters(), self.bias]
        lstms = self.encoder.backward_lstms if self.backward else self.encoder.lstms
        return [words, *(list(lstm.parameters()) for lstm in lstms)]
