"""The AWD-LSTM: stacked LSTMs with dropout everywhere, and what is put on top of it.

Merity, Keskar & Socher 2017, "Regularizing and optimizing LSTM language models" (arXiv 1708.02182). The same function
as fastai's `AWD_LSTM`, to which a test holds it; here dropout of words costs what the words of a batch cost and not
what the vocabulary does, and padding stands behind a text, where it reaches nothing.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

State = list[tuple[Tensor, Tensor]]  # of each LSTM, twice (1, batch, width)
POOLINGS = ("layers", "concat")
HEAD_SIZE = 50  # units of the hidden layer that stands on concat pooling (Howard & Ruder 2018, section 4.1)


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
    def levels(self) -> list[int]:
        """Widths of the levels: the word vectors, then the states of each LSTM with those of its like."""
        stacks = [stack.widths[1:] for stack in (self.lstms, self.backward_lstms) if len(stack)]
        return [self.embedding.embedding_dim, *map(sum, zip(*stacks, strict=True))]

    def all_levels(self, known: Tensor, mask: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Every level side by side at each word, (batch, time, sum of `levels`).

        Args:
            known: the levels that are there already, from the word vectors up to the inputs of the LSTMs `first`.
            mask: bool (batch, time), True where there is text, which begins each row.
            first: the lowest LSTM to read with.
            last: the one to stop before; by default none.
        """
        last = len(self.lstms) if last is None else last
        if first == last:
            return known
        inputs = known[:, :, known.shape[2] - self.levels[first] :]
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


class NextWordLoss(nn.Module):
    """Cross-entropy of the next word, the mean over words.

    In training, of a part of the vocabulary: the most frequent words, the rarer ones that come next somewhere in the
    batch, and some more by chance. A rare word stands for those that were not drawn: its score is raised by minus the
    logarithm of how probable it was to be there (Jean et al. 2015, "On using very large target vocabulary", section 3).
    Otherwise of all words.

    Args:
        model: has the word vectors and the bias; words are numbered by falling frequency.
        counts: how often each word occurs, (words,); None to always compute all of the vocabulary.
        always: so many words are always there.
        chance: so many more are drawn.
        bfloat16: compute the scores in it in training.
    """

    def __init__(
        self,
        model: LanguageModel,
        counts: Tensor | None = None,
        *,
        always: int = 4000,
        chance: int = 2000,
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        self._model = [model]  # in a list, so that it does not become a part of this module
        words = model.encoder.embedding.num_embeddings
        self.always, self.chance = always, chance
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        partly = counts is not None and words > always + 2 * chance
        self.shares: Tensor | None
        self.register_buffer("shares", counts / counts.sum() if counts is not None and partly else None)

    def forward(self, states: Tensor, targets: Tensor) -> Tensor:
        """From states (batch, time, dimension) and next words, int64 (batch, time)."""
        model = self._model[0]
        weight: Tensor = model.encoder.embedding.weight
        bias: Tensor = model.bias
        states, targets, dtype = states.flatten(0, 1), targets.flatten(), torch.float32
        if torch.is_grad_enabled():
            dtype = self.dtype
            if self.shares is not None:
                words, logarithms, targets = self._draw(self.shares, targets)
                weight, bias = weight[words], bias[words] - logarithms
        loss: Tensor = _LinearCrossEntropy.apply(states, weight, bias, targets, dtype)
        return loss

    def _draw(self, shares: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Words, the logarithm of how probable each was to be among them, and the targets' places in them."""
        words = len(shares)
        there = torch.zeros(words, dtype=torch.bool, device=targets.device)
        there[: self.always] = True
        there[torch.randint(self.always, words, (self.chance,), device=targets.device)] = True
        there[targets] = True
        drawn = there.nonzero().squeeze(1)
        # the logarithm of how probable it was to be neither drawn nor among so many targets
        absent = -self.chance / (words - self.always) - len(targets) * shares[drawn]
        logarithms = torch.log(-torch.expm1(absent))
        logarithms[: self.always] = 0
        places = torch.cumsum(there, 0) - 1
        return drawn, logarithms, places[targets]


class _LinearCrossEntropy(torch.autograd.Function):
    """`cross_entropy(linear(states, weight, bias), targets)`, some rows at a time.

    The gradients are made in the forward pass, while a part's scores are at hand; there are never more than that.
    """

    ROWS = 512

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """The mean over rows, float32; products are computed in `dtype`."""
        rows, learns, weight_learns = len(targets), any(ctx.needs_input_grad), ctx.needs_input_grad[1]
        states, weight, bias = states.to(dtype), weight.to(dtype), bias.float()
        loss = torch.zeros((), device=states.device)
        to_states, to_weight = torch.empty_like(states), torch.zeros(weight.shape, device=states.device)
        to_bias = torch.zeros_like(bias)
        parts = (torch.split(one, _LinearCrossEntropy.ROWS) for one in (states, targets, to_states))
        for part, next_, gradient in zip(*parts, strict=True):
            scores = (part @ weight.T).float().add_(bias).log_softmax(dim=1)
            loss -= scores.gather(1, next_[:, None]).sum()
            if learns:
                scores.exp_().scatter_add_(1, next_[:, None], torch.full_like(scores[:, :1], -1.0))
                to_bias += scores.sum(dim=0)
                scores = scores.to(dtype)
                torch.mm(scores, weight, out=gradient)
                if weight_learns:  # not where the words are frozen
                    to_weight += scores.T @ part
        ctx.save_for_backward(to_states.float() / rows, to_weight / rows, to_bias / rows)
        return loss / rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of states, weight and bias."""
        to_states, to_weight, to_bias = ctx.saved_tensors
        return gradient * to_states, gradient * to_weight, gradient * to_bias, None, None


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
            self.head = AttentionHead(sum(encoder.levels), classes, pooled_dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, classes) of texts, int64 (batch, time), each followed by padding."""
        return self.above(self.below(ids, 0), ids != self.encoder.pad_id, 0)

    def below(self, ids: Tensor, first: int) -> Tensor:
        """The levels below the LSTMs `first` side by side, (batch, time, width): what the rest has to know."""
        encoder = self.encoder
        words = encoder.embed(ids)
        if not first:
            return words
        return encoder.all_levels(words, ids != encoder.pad_id, last=first)

    def above(self, known: Tensor, mask: Tensor, first: int) -> Tensor:
        """Logits (batch, classes) from what is `below`, and where there is text."""
        encoder = self.encoder
        logits: Tensor
        if isinstance(self.head, AttentionHead):
            logits = self.head(encoder.all_levels(known, mask, first), mask)
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
        states, hidden = states.float(), ~mask[:, :, None]
        weights = self.attention(states).float().masked_fill(hidden, -torch.inf).softmax(dim=1)
        mean = states.masked_fill(hidden, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        pooled = [states.masked_fill(hidden, -torch.inf).amax(dim=1), mean, (weights * states).sum(dim=1)]
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
        return sum(self._network[0].encoder.levels[: self.first + 1])

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The LSTMs of each height that learn, and the head."""
        return self._groups


def concat_pool(states: Tensor, mask: Tensor) -> Tensor:
    """The last state, the maximum and the mean of each text's states, float32 (batch, 3 * dimension).

    Args:
        states: (batch, time, dimension).
        mask: bool (batch, time), True where there is text, which begins each row.
    """
    states, lengths, hidden = states.float(), mask.sum(dim=1), ~mask[:, :, None]
    last = states[torch.arange(len(states), device=states.device), (lengths - 1).clamp(min=0)]
    mean = states.masked_fill(hidden, 0).sum(dim=1) / lengths.clamp(min=1)[:, None]
    return torch.cat([last, states.masked_fill(hidden, -torch.inf).amax(dim=1), mean], dim=1)
