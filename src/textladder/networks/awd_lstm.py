"""The AWD-LSTM: stacked LSTMs with dropout everywhere, and what is put on top of it.

Merity, Keskar & Socher 2017, "Regularizing and optimizing LSTM language models" (arXiv 1708.02182). The same function
as fastai's `AWD_LSTM`, to which a test holds it; here dropout of words costs what the words of a batch cost and not
what the vocabulary does, and padding stands behind a text, where it reaches nothing.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

State = list[tuple[Tensor, Tensor]]  # of each LSTM, twice (1, batch, width)


class AWDLSTM(nn.Module):
    """Words to states.

    Args:
        vocabulary_size: how many words there are.
        dimension: numbers of a word vector, and of the last LSTM's state.
        hidden_size: state of the LSTMs below the last.
        layers: how many LSTMs.
        backward_size: the same of a second stack, which reads the same word vectors from right to left; 0 for none.
        pad_id: the word that fills up.

    Attributes:
        word_dropout: share of the words that are left out of a batch wherever they occur (section 4.3).
        input_dropout: share of the word vectors' numbers left out, the same ones for a whole text (section 4.2).
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
        self.pad_id, self.word_dropout, self.input_dropout = pad_id, 0.0, 0.0
        self.embedding = nn.Embedding(vocabulary_size, dimension)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.lstms = LSTMStack([dimension, *[hidden_size] * (layers - 1), dimension])
        widths = [dimension, *[backward_size] * (layers - 1), dimension]
        self.backward_lstms = LSTMStack(widths if backward_size else [])

    def set_dropout(self, *, word: float, input: float, hidden: float, weight: float) -> None:
        """Shares left out in training; `hidden` and `weight` as of `LSTMStack`."""
        self.word_dropout, self.input_dropout = word, input
        for stack in (self.lstms, self.backward_lstms):
            stack.hidden_dropout, stack.weight_dropout = hidden, weight

    def forward(self, ids: Tensor, state: State | None = None, *, backward: bool = False) -> tuple[Tensor, State]:
        """The last LSTM's states, (batch, time, dimension), and what the next stretch of the texts begins from.

        Args:
            ids: int64 (batch, time), in the order of reading.
            state: what an earlier stretch ended with; by default zeros.
            backward: the second stack reads.
        """
        states, ends = (self.backward_lstms if backward else self.lstms)(self.embed(ids), state)
        return states[-1], ends

    def embed(self, ids: Tensor) -> Tensor:
        """Word vectors, (batch, time, dimension)."""
        vectors: Tensor = self.embedding(ids)
        if self.training and self.word_dropout:
            kept = torch.rand(self.embedding.num_embeddings, device=ids.device) >= self.word_dropout
            vectors = vectors * (kept / (1 - self.word_dropout))[ids][:, :, None]
        return drop(vectors, self.input_dropout, self.training)

    @property
    def layer_widths(self) -> list[int]:
        """Widths of the levels: the word vectors, then the states of each LSTM with those of its like."""
        stacks = [stack.widths[1:] for stack in (self.lstms, self.backward_lstms) if len(stack)]
        return [self.embedding.embedding_dim, *map(sum, zip(*stacks, strict=True))]

    def all_layers(self, known: Tensor, mask: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Every level side by side at each word, (batch, time, sum of `layer_widths`).

        Args:
            known: the levels that are there already, from the word vectors up to the inputs of the LSTMs `first`.
            mask: bool (batch, time), True where there is text, which begins each row.
            first: the lowest LSTM to read with.
            last: the one to stop before; by default none.
        """
        last = len(self.lstms) if last is None else last
        if first == last:
            return known
        inputs = known[:, :, known.shape[2] - self.layer_widths[first] :]
        ahead = self.lstms.widths[first]
        parts, (upwards, _) = [known], self.lstms(inputs[:, :, :ahead], first=first, last=last)
        if not len(self.backward_lstms):
            return torch.cat([*parts, *upwards], dim=2)
        order, inputs = _turned(mask), inputs[:, :, ahead:] if first else inputs
        behind, _ = self.backward_lstms(_gather(inputs, order), first=first, last=last)
        for one, other in zip(upwards, behind, strict=True):
            parts += [one, _gather(other, order)]
        return torch.cat([part.to(known.dtype) for part in parts], dim=2)


class LSTMStack(nn.ModuleList):
    """LSTMs one upon another.

    Args:
        widths: numbers of the lowest one's inputs, then of each one's state; none for an empty stack.

    Attributes:
        hidden_dropout: share of the states' numbers left out between LSTMs, the same ones for a whole text.
        weight_dropout: share of the recurrent weights left out (section 2).
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths, self.hidden_dropout, self.weight_dropout = widths, 0.0, 0.0
        for below, above in pairwise(widths):
            lstm = nn.LSTM(below, above, batch_first=True)
            *_, bias = lstm.parameters()
            # begin by remembering (Jozefowicz et al. 2015, section 4); the gates are input, forget, cell, output
            nn.init.ones_(bias.detach()[above : 2 * above])
            self.append(lstm)

    def forward(
        self, states: Tensor, begin: State | None = None, first: int = 0, last: int | None = None
    ) -> tuple[list[Tensor], State]:
        """The states of each LSTM, (batch, time, its width), and what the next stretch of the texts begins from.

        Args:
            states: inputs of the LSTM `first`, (batch, time, width).
            begin: what an earlier stretch ended with; by default zeros.
            first: the lowest LSTM to read with.
            last: the one to stop before; by default none.
        """
        levels, ends = [], []
        for number in range(first, len(self) if last is None else last):
            if number:
                states = drop(states, self.hidden_dropout, self.training)
            states, end = self._read(self[number], states, None if begin is None else begin[number - first])
            levels.append(states)
            ends.append(end)
        return levels, ends

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
        # what nn.LSTM itself calls
        states, hidden, cell = torch._VF.lstm(states, begin, weights, True, 1, 0.0, True, False, True)
        return states, (hidden, cell)


def drop(states: Tensor, share: float, training: bool) -> Tensor:
    """Leave out the same numbers at each time (Gal & Ghahramani 2016); (batch, time, width)."""
    if not training or not share:
        return states
    kept = torch.rand(len(states), 1, states.shape[2], device=states.device) >= share
    return states * (kept / (1 - share)).to(states.dtype)


def _turned(mask: Tensor) -> Tensor:
    """Where each text's words stand when it is read from right to left, int64 (batch, time).

    The first word stays: it says that a text begins. Padding stays behind. Turned twice it is as it was.
    """
    time, lengths = torch.arange(mask.shape[1], device=mask.device)[None], mask.sum(dim=1, keepdim=True)
    return torch.where((time > 0) & (time < lengths), lengths - time, time)


def _gather(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(1, order[:, :, None].expand_as(states))


class LanguageModel(nn.Module):
    """An AWD-LSTM that foretells the next word; the word vectors are also the weights of the softmax (section 4.5).

    Reads on: each batch begins where the one before ended, until `reset`.

    Args:
        encoder: words to states.
        output_dropout: share of the last states' numbers left out, the same ones for a whole text.
        backward: it reads from right to left, with the encoder's second stack, and foretells the word before.
    """

    def __init__(self, encoder: AWDLSTM, *, output_dropout: float = 0.0, backward: bool = False) -> None:
        super().__init__()
        self.encoder, self.output_dropout, self.backward = encoder, output_dropout, backward
        self.bias = nn.Parameter(torch.zeros(encoder.embedding.num_embeddings))
        self._state: State | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """What `NextWordLoss` compares with the next words: the last states, (batch, time, dimension)."""
        states, end = self.encoder(ids, self._state, backward=self.backward)
        self._state = [(hidden.detach(), cell.detach()) for hidden, cell in end]
        return drop(states, self.output_dropout, self.training)

    def reset(self) -> None:
        """Begin anew."""
        self._state = None

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Word vectors with the softmax's bias, and each LSTM, the lowest first; they end in the vectors again."""
        words = [*self.encoder.embedding.parameters(), self.bias]
        lstms = self.encoder.backward_lstms if self.backward else self.encoder.lstms
        return [words, *(list(lstm.parameters()) for lstm in lstms)]
