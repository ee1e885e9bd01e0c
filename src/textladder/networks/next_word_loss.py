"""The loss of a language model: cross-entropy of the next word, with a sampled softmax in training."""

from typing import Any

import torch
from torch import Tensor, nn

from textladder.networks.awd_lstm import LanguageModel


class NextWordLoss(nn.Module):
    """Mean cross-entropy of the next word.

    In training, the softmax is over a part of a large vocabulary: the most frequent words, the targets of the batch,
    and a random sample of the rest. A word that is not among the most frequent also represents those that were not
    sampled, so the logarithm of its probability of being included is subtracted from its score (Jean et al. 2015, "On
    using very large target vocabulary", section 3). In evaluation, the softmax is over all words.

    Args:
        model: the language model; word ids are in the order of falling frequency.
        counts: number of occurrences of each word, (words,); None for a full softmax in training too.
        always: number of most frequent words that are always included.
        chance: number of other words to sample.
        bfloat16: compute the scores in bfloat16 in training.
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
        self._model = [model]  # in a list, so that it is not registered as a part of this module
        words = model.encoder.embedding.num_embeddings
        self.always, self.chance = always, chance
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        partly = counts is not None and words > always + 2 * chance
        self.shares: Tensor | None
        self.register_buffer("shares", counts / counts.sum() if counts is not None and partly else None)

    def forward(self, states: Tensor, targets: Tensor) -> Tensor:
        """The loss of states (batch, time, dimension) whose next words are `targets`, int64 (batch, time)."""
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
        """Sampled word ids, the log-probability of each to be included, and the targets' positions in the sample."""
        words = len(shares)
        included = torch.zeros(words, dtype=torch.bool, device=targets.device)
        included[: self.always] = True
        included[torch.randint(self.always, words, (self.chance,), device=targets.device)] = True
        included[targets] = True
        drawn = included.nonzero().squeeze(1)
        # the log-probability of being neither sampled nor one of the targets
        absent = -self.chance / (words - self.always) - len(targets) * shares[drawn]
        logarithms = torch.log(-torch.expm1(absent))
        logarithms[: self.always] = 0
        places = torch.cumsum(included, 0) - 1
        return drawn, logarithms, places[targets]


class _LinearCrossEntropy(torch.autograd.Function):
    """`cross_entropy(linear(states, weight, bias), targets)`, computed in chunks of rows.

    The gradients are computed in the forward pass, chunk by chunk, so the scores of only one chunk are ever in memory.
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
                if weight_learns:  # False if the word vectors are frozen
                    to_weight += scores.T @ part
        ctx.save_for_backward(to_states.float() / rows, to_weight / rows, to_bias / rows)
        return loss / rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of states, weight and bias."""
        to_states, to_weight, to_bias = ctx.saved_tensors
        return gradient * to_states, gradient * to_weight, gradient * to_bias, None, None
