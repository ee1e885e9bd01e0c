"""The optimizers of the recipes, as fastai's Learner takes them.

`adamw` is torch's fused AdamW (Loshchilov & Hutter 2019), which decays neither biases nor norms. `adam` is fastai's own
Adam, whose defaults (weight decay 0.01, `sqr_mom` 0.99, `eps` 1e-5) the 2021 tutorial trains with.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from fastai.optimizer import Adam, OptimWrapper
from torch import nn


def _plain(method: Callable[..., Any]) -> Any:
    """A method of torch's optimizers without its wrapper."""
    return getattr(method, "__wrapped__", method)


class _AdamW(torch.optim.AdamW):
    """torch's AdamW without the wrappers that import torch's compiler (a thousand modules) only to disable it."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)
    state_dict = _plain(torch.optim.Optimizer.state_dict)
    load_state_dict = _plain(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))


class GroupedAdamW(OptimWrapper):  # type: ignore[misc]
    """AdamW over groups of layers, whose biases and norms (parameters of one dimension) do not decay.

    torch has one weight decay per parameter group, so each group of layers becomes two of torch's: the parameters that
    decay and those that do not. fastai sees only the groups of layers, to which slices of learning rates, `freeze_to`
    and discriminative rates refer.

    Args:
        groups: the parameters of each group of layers, from the bottom up.
        options: of torch's AdamW, by its names.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], **options: Any) -> None:
        halves = [[one for one in group if (one.ndim > 1) == decays] for group in groups for decays in (True, False)]
        super().__init__(halves, opt=partial(_AdamW, fused=True), **options)

    @property
    def hypers(self) -> list[dict[str, Any]]:
        """The hyperparameters of each group of layers, by fastai's names."""
        hypers: list[dict[str, Any]] = super().hypers[::2]
        return hypers

    @property
    def param_lists(self) -> list[list[nn.Parameter]]:
        """The parameters of each group of layers."""
        halves = [half["params"] for half in self.opt.param_groups]
        return [decaying + others for decaying, others in zip(halves[::2], halves[1::2], strict=True)]

    def _set_hyper(self, k: str, v: Sequence[Any]) -> None:
        twice = [one for value in v for one in (value, 0.0 if k == "wd" else value)]
        super()._set_hyper(k, twice)


def optimizer_function(name: str) -> Callable[..., Any]:
    """The function with which a Learner makes its optimizer, from groups of parameters and a learning rate."""
    optimizers: dict[str, Callable[..., Any]] = {"adamw": GroupedAdamW, "adam": Adam}
    return optimizers[name]
