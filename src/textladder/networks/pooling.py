"""Poolings: the states of a text to one vector, for every network here. Padding never counts.

Each takes states (batch, time, width) and a mask, bool (batch, time), True where there is text, and returns
(batch, width). A text without tokens has a mean of 0 and a maximum of minus infinity.
"""

import torch
from torch import Tensor


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of each text's states."""
    return states.masked_fill(~mask[:, :, None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def maximum(states: Tensor, mask: Tensor) -> Tensor:
    """The elementwise maximum of each text's states."""
    return states.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)


def attention_mean(states: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """The mean of each text's states, weighted by the softmax of their scores (Yang et al. 2016, section 2.2).

    Args:
        states: (batch, time, width).
        scores: one for each state, (batch, time, 1).
        mask: bool (batch, time), True where there is text.
    """
    weights = scores.masked_fill(~mask[:, :, None], -torch.inf).softmax(dim=1)
    return (weights * states).sum(dim=1)


def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """Each text's last state; the text must come before its padding."""
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), last]


def concat_pool(states: Tensor, mask: Tensor) -> Tensor:
    """The last state, the maximum and the mean, float32 (batch, 3 * width) (Howard & Ruder 2018, section 3.3)."""
    states = states.float()
    # the order in which they are computed is that in which their gradients are added up
    last, average = last_state(states, mask), mean(states, mask)
    return torch.cat([last, maximum(states, mask), average], dim=1)
