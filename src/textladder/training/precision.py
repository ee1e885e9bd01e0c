"""Where networks are trained, and in how many digits: the device, and bfloat16 where it has instructions for it."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn


def training_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trains_in_bfloat16(precision: str) -> bool:
    """Whether to compute in bfloat16: as told, or if the processor has instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def computing(network: nn.Module, precision: str = "auto") -> Any:  # autocast is not typed
    """A context in which a network's products are computed in the precision of `make_learner`."""
    device = next(network.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16) if trains_in_bfloat16(precision) else nullcontext()
