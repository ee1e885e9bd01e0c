"""The loss of a language model: cross-entropy of the next word, over a part of a large vocabulary in training."""

from typing import Any

import torch
from torch import Tensor, nn

from textladder.networks.awd_lstm import LanguageModel


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
