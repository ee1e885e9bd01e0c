"""States of a text pooled into one vector; padding never counts."""

import torch
from torch import Tensor


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
