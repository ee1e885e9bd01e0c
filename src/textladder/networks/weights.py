"""Weights from a file into a network that is made for them."""

import warnings
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def with_weights(make: Callable[[], Network], weights: Mapping[str, np.ndarray]) -> Network:
    """A network in prediction mode with weights from a file.

    It is first made without memory, so that sizes that somebody wrote into a config allocate nothing unless the weights
    have them.

    Args:
        make: makes the network.
        weights: arrays by the names of its `state_dict`.

    Raises:
        ValueError: the network has other weights, or other shapes, or one of them is empty.
    """
    if empty := [name for name, value in weights.items() if not value.size]:
        raise ValueError(f"{empty[0][:80]}: no numbers")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of layers without a weight, which then do not fit
        wanted = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*wanted, *given]:
        if wanted.get(name) != given.get(name):
            raise ValueError(f"{name[:80]}: expected {wanted.get(name, 'none')}, found {given.get(name, 'none')}")
    network = make()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    network.eval()
    return network
