"""Training through fastai's Learner: stages under the one-cycle policy, the rate finder, the best look kept.

The only wrapper of the Learner, shared by all neural levels. It takes a network and batches and knows nothing of
texts. What a level does differently is data: its list of `Stage`s.
"""

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from textladder.callbacks import Adversary, Autocast, History
from textladder.networks.awd_lstm import LanguageModel, NextWordLoss
from textladder.precision import training_device, trains_in_bfloat16
from textladder.pretrained import cache_folder
from textladder.progress import Monitor

# torch makes a folder for compiled code as soon as there is an optimizer; not among the temporary files, where it stays
with suppress(OSError):
    (cache_folder() / "torch").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torch"))


@dataclass(frozen=True)
class Stage:
    """One run of the one-cycle policy (Smith 2018, "A disciplined approach", section 5).

    Attributes:
        name: for reports.
        epochs: passes over the training rows.
        learning_rate: the peak, of the topmost group of layers.
        warm_up: share of the steps in which the rate rises; it then falls along a cosine.
        shortest_first: take the first epoch from short texts to long ones.
        trainable: which groups of layers learn: `all`, the `head` alone, or how many from the top.
        decay: the peak of a group is this times that of the group above it (Howard & Ruder 2018, section 3.2,
            "discriminative fine-tuning").
    """

    name: str
    epochs: int
    learning_rate: float
    warm_up: float = 0.25
    shortest_first: bool = False
    trainable: str | int = "all"
    decay: float = 1.0


@dataclass(frozen=True)
class LearningRateCurve:
    """What the finder saw (Smith 2015, "Cyclical learning rates", section 3.3).

    Attributes:
        rates: the learning rates that were tried, rising.
        losses: the smoothed loss at each.
        suggested: the finder's own suggestion, from the longest valley of the curve.
        lowest: lower end of the range that is sane for the level.
        highest: upper end.
    """

    rates: list[float]
    losses: list[float]
    suggested: float
    lowest: float
    highest: float

    @property
    def learning_rate(self) -> float:
        """The suggestion, held to the level's range."""
        return min(max(self.suggested, self.lowest), self.highest)

    def sentence(self) -> str:
        """The suggestion in words, with what was done to it."""
        held = "" if self.learning_rate == self.suggested else f", held to {self.learning_rate:.2g}"
        return (
            f"The finder suggests a learning rate of {self.suggested:.2g}{held} "
            f"(sane for this level: {self.lowest:.0e} to {self.highest:.0e})."
        )


def make_learner(
    network: nn.Module,
    train: Batches,
    valid: Batches | None,
    *,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.0,
    precision: str = "auto",
    adversary: tuple[nn.Module, float, int] | None = None,
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
        adversary: the network's embedding, how far an adversary moves a text's vectors (L2 norm), and the epoch from
            which it does; see `Adversary`.
        accumulate: make a step when the gradients of so many texts have added up, each text counting the same; 0 for
            a step after each batch, its texts' mean.
        clip: scale a step's gradient down to this norm (L2, over all parameters); 0 for not.
    """
    network.to(training_device())
    bfloat16 = trains_in_bfloat16(precision)
    callbacks: list[Any] = [Autocast()] if bfloat16 else []
    if adversary is not None:
        callbacks.append(Adversary(*adversary, bfloat16))
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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw everything within from one seed, and leave the caller's own random states as they were."""
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def class_weights(kind: str, label_ids: np.ndarray, classes: int) -> np.ndarray | None:
    """How much a row of each class counts, float64 (classes,); None for the same.

    `balanced` makes every class count the same in all; the mean over the rows is 1.
    """
    if kind == "none":
        return None
    counts = np.bincount(label_ids, minlength=classes)
    return len(label_ids) / (classes * np.maximum(counts, 1))


def run_stages(
    learner: Learner,
    stages: Sequence[Stage],
    *,
    keep_best: bool = True,
    patience: int = 0,
    looks_per_epoch: int = 1,
    looks: Sequence[Mapping[str, Any]] = (),
    monitor: Monitor | None = None,
) -> list[dict[str, Any]]:
    """Train through the stages.

    Args:
        learner: of `make_learner`.
        stages: one after another.
        keep_best: end with the weights of the look at the validation rows that had the highest accuracy.
        patience: stop a stage after so many epochs without a better look; 0 for never.
        looks_per_epoch: looks at the validation rows in an epoch, the one at its end included.
        looks: entries of an earlier run over a part of the network; the weights as they are now count as its best.
        monitor: is told how far it is.

    Returns:
        An entry for each look: stage, epoch, trainable, rows, train_loss, valid_loss, valid_accuracy (None without
        validation rows), train_seconds (training alone) and seconds (everything) since the look before.
    """
    history = History(keep_best, patience, looks_per_epoch, monitor or Monitor())
    history.begin_from(looks, learner.model)
    try:
        with learner.no_logging(), learner.no_bar():
            for stage in stages:
                history.stage, history.trainable = stage.name, stage.trainable
                if stage.shortest_first:
                    learner.dls.train.begin_with_the_shortest()
                rates = _prepare_groups(learner, stage)
                learner.fit_one_cycle(stage.epochs, lr_max=rates, pct_start=stage.warm_up, cbs=history)
                if history.error is not None:
                    raise history.error
    finally:
        history.monitor.stop()
        learner.remove_cb(history)
        for callback in learner.cbs:
            if isinstance(callback, Autocast | Adversary):
                callback.leave()
    if history.best_weights is not None:
        learner.model.load_state_dict(history.best_weights)
    return history.entries


def _prepare_groups(learner: Learner, stage: Stage) -> list[float]:
    """Freeze what the stage does not train, and give the peak rate of every half of a group."""
    if learner.opt is None:
        learner.create_opt()
    groups = len(learner.opt.param_lists) // 2
    trained = {"all": groups, "head": 1}.get(str(stage.trainable), stage.trainable)
    learner.freeze_to(groups - int(trained))
    learner.opt.zero_grad()  # what an earlier stage added up and did not use
    return [stage.learning_rate * stage.decay ** (groups - 1 - number // 2) for number in range(2 * groups)]


def suggested_rate(learner: Learner, bounds: tuple[float, float], monitor: Monitor) -> float:
    """The finder's suggestion, held to the level's range, and said."""
    curve = find_learning_rate(learner, *bounds)
    monitor.say(curve.sentence())
    return curve.learning_rate


def find_learning_rate(learner: Learner, lowest: float, highest: float) -> LearningRateCurve:
    """Try rising rates on a copy of the weights and read a suggestion off the curve.

    Args:
        learner: of `make_learner`; its weights are as before afterwards.
        lowest: lower end of the range that is sane for the level.
        highest: upper end.
    """
    learner.unfreeze()
    with learner.no_logging(), learner.no_bar():
        suggested = float(learner.lr_find(show_plot=False).valley)
    rates = [float(rate) for rate in learner.recorder.lrs]
    losses = [float(loss) for loss in learner.recorder.losses]
    learner.opt = None  # its moments have seen rates that no training uses
    return LearningRateCurve(rates, losses, suggested, lowest, highest)
