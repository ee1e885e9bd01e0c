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


class AWDLSTM(nn.Module):
    """Words to states.

    Args:
        vocabulary_size: how many words there are.
        dimension: numbers of a word vector, and of the last LSTM's state.
        hidden_size: state of the LSTMs below the last.
        layers: how many LSTMs.
        word_dropout: share of the words that are left out of a batch wherever they occur (section 4.3).
        input_dropout: share of the word vectors' numbers left out, the same ones for a whole text (section 4.2).
        hidden_dropout: the same between LSTMs.
        weight_dropout: share of the recurrent weights left out (section 2).
        pad_id: the word that fills up.
    """

    def __init__(
        self,
        vocabulary_size: int,
        dimension: int,
        hidden_size: int,
        layers: int,
        *,
        word_dropout: float = 0.0,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        pad_id: int = 1,
    ) -> None:
        super().__init__()
        self.word_dropout, self.input_dropout = word_dropout, input_dropout
        self.hidden_dropout, self.weight_dropout = hidden_dropout, weight_dropout
        self.pad_id = pad_id
        self.embedding = nn.Embedding(vocabulary_size, dimension)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        widths = [dimension, *[hidden_size] * (layers - 1), dimension]
        self.lstms = nn.ModuleList()
        for below, above in pairwise(widths):
            lstm = nn.LSTM(below, above, batch_first=True)
            *_, bias = lstm.parameters()
            # begin by remembering (Jozefowicz et al. 2015, section 4); the gates are input, forget, cell, output
            nn.init.ones_(bias.detach()[above : 2 * above])
            self.lstms.append(lstm)

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The last LSTM's states, (batch, time, dimension), and what the next stretch of the texts begins from.

        Args:
            ids: int64 (batch, time).
            state: what an earlier stretch ended with; by default zeros.
        """
        return self.read_from(0, self._embed(ids), state)

    def read_below(self, first: int, ids: Tensor) -> Tensor:
        """The inputs of the LSTM `first`, (batch, time, width)."""
        states = self._embed(ids)
        for lstm in list(self.lstms)[:first]:
            states, _ = lstm(states)
        return states

    def read_from(self, first: int, states: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The same from the inputs of an LSTM, (batch, time, width), where what lies below it is known."""
        ends: State = []
        for number, lstm in enumerate(self.lstms):
            if number < first:
                continue
            if number:
                states = drop(states, self.hidden_dropout, self.training)
            begin = None if state is None else state[number - first]
            states, end = self._read(lstm, states, begin)  # type: ignore[arg-type]
            ends.append(end)
        return states, ends

    def _embed(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.embedding(ids)
        if self.training and self.word_dropout:
            kept = torch.rand(self.embedding.num_embeddings, device=ids.device) >= self.word_dropout
            vectors = vectors * (kept / (1 - self.word_dropout))[ids][:, :, None]
        return drop(vectors, self.input_dropout, self.training)

    def _read(
        self, lstm: nn.LSTM, states: Tensor, begin: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self.training or not self.weight_dropout:
            states, end = lstm(states, begin)
            return states, end
        if begin is None:
            zeros = states.new_zeros(1, len(states), lstm.hidden_size)
            begin = zeros, zeros
        inner, recurrent, *biases = lstm.parameters()
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


class LanguageModel(nn.Module):
    """An AWD-LSTM that foretells the next word; the word vectors are also the weights of the softmax (section 4.5).

    Reads on: each batch begins where the one before ended, until `reset`.

    Args:
        encoder: words to states.
        output_dropout: share of the last states' numbers left out, the same ones for a whole text.
    """

    def __init__(self, encoder: AWDLSTM, *, output_dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.output_dropout = encoder, output_dropout
        self.bias = nn.Parameter(torch.zeros(encoder.embedding.num_embeddings))
        self._state: State | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """What `NextWordLoss` compares with the next words: the last states, (batch, time, dimension)."""
        states, end = self.encoder(ids, self._state)
        self._state = [(hidden.detach(), cell.detach()) for hidden, cell in end]
        return drop(states, self.output_dropout, self.training)

    def reset(self) -> None:
        """Begin anew."""
        self._state = None

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Word vectors with the softmax's bias, and each LSTM, the lowest first; they end in the vectors again."""
        words = [*self.encoder.embedding.parameters(), self.bias]
        return [words, *(list(lstm.parameters()) for lstm in self.encoder.lstms)]


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
        rows, learns = len(targets), any(ctx.needs_input_grad)
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
                to_weight += scores.T @ part
        ctx.save_for_backward(to_states.float() / rows, to_weight / rows, to_bias / rows)
        return loss / rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of states, weight and bias."""
        to_states, to_weight, to_bias = ctx.saved_tensors
        return gradient * to_states, gradient * to_weight, gradient * to_bias, None, None


class AWDClassifier(nn.Module):
    """An AWD-LSTM's states, pooled, to classes (Howard & Ruder 2018, section 3.3).

    Args:
        encoder: words to states; that of a language model.
        classes: how many classes there are.
        head_size: units of the head's hidden layer.
        pooled_dropout: share left out of the pooled states.
        head_dropout: share left out of the hidden layer.
    """

    def __init__(
        self,
        encoder: AWDLSTM,
        classes: int,
        *,
        head_size: int = 50,
        pooled_dropout: float = 0.0,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        pooled = 3 * encoder.embedding.embedding_dim
        self.head = nn.Sequential(
            _BatchNorm(pooled),
            nn.Dropout(pooled_dropout),
            nn.Linear(pooled, head_size, bias=False),
            nn.ReLU(),
            _BatchNorm(head_size),
            nn.Dropout(head_dropout),
            nn.Linear(head_size, classes, bias=False),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, classes) of texts, int64 (batch, time), each followed by padding."""
        states, _ = self.encoder(ids)
        return self.classify(states, ids != self.encoder.pad_id)

    def classify(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes) from the last states, (batch, time, dimension), and where there is text."""
        logits: Tensor = self.head(concat_pool(states, mask))
        return logits

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Word vectors, each LSTM, and the head, from the bottom up."""
        modules = [self.encoder.embedding, *self.encoder.lstms, self.head]
        return [list(module.parameters()) for module in modules]


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
        self.first = first
        self.learnt = nn.ModuleList([*list(network.encoder.lstms)[first:], network.head])
        self._network = [network]  # in a list, so that the rest does not become a part of this module

    def train(self, mode: bool = True) -> "AWDTop":
        """Dropout of the whole follows."""
        self._network[0].train(mode)
        return super().train(mode)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, classes) from what the frozen part makes of the texts and where there is text.

        Args:
            states: the inputs of the LSTM `first`, (batch, time, width); for the head alone the pooled states,
                (batch, 1, pooled).
            mask: bool (batch, time).
        """
        network = self._network[0]
        if self.first == len(network.encoder.lstms):
            logits: Tensor = network.head(states[:, 0])
            return logits
        states, _ = network.encoder.read_from(self.first, states)
        return network.classify(states, mask)

    def below(self, ids: Tensor) -> Tensor:
        """What the frozen part makes of texts: `forward`'s first argument."""
        network = self._network[0]
        encoder = network.encoder
        if self.first == len(encoder.lstms):
            states, _ = encoder(ids)
            return concat_pool(states, ids != encoder.pad_id)[:, None]
        return encoder.read_below(self.first, ids)

    @property
    def width(self) -> int:
        """Numbers of a state that it is given."""
        encoder = self._network[0].encoder
        if self.first == len(encoder.lstms):
            return 3 * encoder.embedding.embedding_dim
        width: int = list(encoder.lstms)[self.first].input_size  # type: ignore[assignment]
        return width

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Each LSTM that learns, and the head."""
        return [list(module.parameters()) for module in self.learnt]


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
