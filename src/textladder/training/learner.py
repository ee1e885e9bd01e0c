"""Training through fastai's Learner: stages under the one-cycle policy, the rate finder, the best look kept.

The only wrapper of the Learner, shared by all neural levels. It takes a network and batches and knows nothing of
texts. What a level does differently is data: its list of `Stage`s.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401, gives the Learner lr_find and fit_one_cycle
import numpy as np
import torch
from fastai.callback.rnn import ModelResetter
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from textladder.batching import Batches
from textladder.networks.awd_lstm import LanguageModel
from textladder.networks.next_word_loss import NextWordLoss
from textladder.pretrained import cache_folder
from textladder.training.callbacks import AdversarialTraining, Autocast
from textladder.training.precision import training_device, trains_in_bfloat16

# torch makes a folder for compiled code as soon as there is an optimizer; not among the temporary files, where it stays
with suppress(OSError):
    (cache_folder() / "torch").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torch"))


def make_learner(
    network: nn.Module,
    train: Batches,
    valid: Batches | None,
    *,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.0,
    precision: str = "auto",
    adversarial: tuple[nn.Module, float, int] | None = None,
    accumulate: int = 0,
    clip: float = 0.0,
) -> Learner:
    """A fastai Learner on batches of texts.

    Args:
        network: gives logits. If it has `parameter_groups()`, from the bottom up, stages can freeze them and give each
            its own rate.
        train: the batches to learn from.
        valid: the batches to look at between epochs.
        class_weights: float (classes,), how much a row of each class counts; by default all the same.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016, section 7).
        weight_decay: of AdamW (Loshchilov & Hutter 2019); biases and norms are left alone.
        precision: `auto` trains in bfloat16 where the processor computes in it.
        adversarial: the network's embedding, how far an adversary moves a text's vectors (L2 norm), and the epoch from
            which it does; see `AdversarialTraining`.
        accumulate: make a step when the gradients of so many texts have added up, each text counting the same; 0 for
            a step after each batch, its texts' mean.
        clip: scale a step's gradient down to this norm (L2, over all parameters); 0 for not.
    """
    network.to(training_device())
    bfloat16 = trains_in_bfloat16(precision)
    callbacks: list[Any] = [Autocast()] if bfloat16 else []
    if adversarial is not None:
        callbacks.append(AdversarialTraining(*adversarial, bfloat16))
    if accumulate:
        callbacks.append(GradientAccumulation(accumulate))
    if clip:
        callbacks.append(GradientClip(clip))
    weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    loss = _loss_function(weight, label_smoothing)
    return _learner(network, train, valid, loss, weight_decay, callbacks, [accuracy])


def make_language_learner(
    model: LanguageModel,
    train: Batches,
    valid: Batches | None,
    *,
    counts: np.ndarray | None = None,
    weight_decay: float = 0.0,
    precision: str = "auto",
    clip: float = 0.0,
) -> Learner:
    """A fastai Learner of a language model on a stream of words.

    Args:
        model: foretells the next word.
        train: the words to learn from.
        valid: the words to look at between epochs.
        counts: how often each word occurs; the softmax is then computed in part, see `NextWordLoss`.
        weight_decay: as of `make_learner`, like the rest.
        precision: as there.
        clip: as there.
    """
    model.to(training_device())
    bfloat16 = trains_in_bfloat16(precision)
    callbacks: list[Any] = [ModelResetter(), *([Autocast()] if bfloat16 else [])]
    if clip:
        callbacks.append(GradientClip(clip))
    frequencies = None if counts is None else torch.from_numpy(counts).float()
    return _learner(
        model, train, valid, NextWordLoss(model, frequencies, bfloat16=bfloat16), weight_decay, callbacks, []
    )


def _plain(method: Callable[..., Any]) -> Any:
    """A method of torch's optimizers without its wrapper."""
    return getattr(method, "__wrapped__", method)


class _AdamW(torch.optim.AdamW):
    """torch's, whose wrappers import torch's compiler to tell it to stay away: a thousand modules, for nothing."""

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)
    state_dict = _plain(torch.optim.Optimizer.state_dict)
    load_state_dict = _plain(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))


class _Learner(Learner):  # type: ignore[misc]
    """Counts groups of layers, as its caller does, where fastai would count their halves; see `_halves`."""

    def freeze_to(self, n: int) -> None:
        """Train the groups from number `n` on; below 0, counted from the top."""
        super().freeze_to(2 * n)


def _learner(
    network: nn.Module,
    train: Batches,
    valid: Batches | None,
    loss: nn.Module,
    weight_decay: float,
    callbacks: list[Any],
    metrics: list[Any],
) -> Learner:
    groups = _halves(network)
    return _Learner(
        DataLoaders(train, valid if valid is not None else []),
        network,
        loss_func=loss.to(training_device()),
        opt_func=partial(OptimWrapper, opt=partial(_AdamW, fused=True)),
        splitter=_halves,
        metrics=metrics,
        cbs=callbacks,
        wd=[weight_decay, 0.0] * (len(groups) // 2),
        train_bn=False,  # a frozen norm is frozen
        # the finder keeps its weights in a folder that it takes away again; not in the user's working folder
        path=Path(tempfile.gettempdir()),
        model_dir=".",
    )


def _loss_function(weight: Tensor | None, label_smoothing: float) -> nn.Module:
    """Cross-entropy, the mean over the rows of a batch."""
    if weight is None:
        return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    return _WeightedLoss(weight, label_smoothing)


class _WeightedLoss(nn.CrossEntropyLoss):
    """torch divides by a batch's weights, which takes them back where its rows are few or of one class."""

    def __init__(self, weight: Tensor, label_smoothing: float) -> None:
        super().__init__(weight, reduction="sum", label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target) / len(target)


def _halves(network: nn.Module) -> list[list[nn.Parameter]]:
    """For each group of layers, from the bottom up, the parameters that decay and those that do not."""
    grouped = getattr(network, "parameter_groups", None)
    groups = grouped() if grouped else [list(network.parameters())]
    return [[one for one in group if (one.ndim > 1) == decays] for group in groups for decays in (True, False)]


def class_weights(kind: str, label_ids: np.ndarray, classes: int) -> np.ndarray | None:
    """How much a row of each class counts, float64 (classes,); None for the same.

    `balanced` makes every class count the same in all; the mean over the rows is 1.
    """
    if kind == "none":
        return None
    counts = np.bincount(label_ids, minlength=classes)
    return len(label_ids) / (classes * np.maximum(counts, 1))
