"""The device and the precision that networks are trained in: a GPU where there is one, bfloat16 where it is fast."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn


def training_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trains_in_bfloat16(precision: str) -> bool:
    """Whether to compute in bfloat16: as set or, with `auto`, if the hardware has instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(network: nn.Module, precision: str = "auto") -> Any:  # autocast is not typed
    """A context in which a network computes in the precision that it is trained in."""
    device = next(network.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16) if trains_in_bfloat16(precision) else nullcontext()
