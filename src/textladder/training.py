"""Training through fastai's Learner: stages under the one-cycle policy, the rate finder, the best look kept.

The only wrapper of the Learner, shared by all neural levels. It takes a network and batches and knows nothing of
texts. What a level does differently is data: its list of `Stage`s.
"""

import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401, gives the Learner lr_find and fit_one_cycle
import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from textladder.errors import ConfigError
from textladder.pretrained import cache_folder
from textladder.progress import Monitor

# torch makes a folder for compiled code as soon as there is an optimizer; not among the temporary files, where it stays
with suppress(OSError):
    (cache_folder() / "torch").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torch"))

PRECISIONS = ("auto", "float32", "bfloat16")


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


class Batches(Protocol):
    """What a Learner is fed with: `TextBatches`, or the states of frozen layers in their place."""

    @property
    def rows(self) -> int:
        """How many texts a pass has."""

    def __len__(self) -> int:
        """How many batches the next pass has."""

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """One pass: what the network takes, then the labels."""

    def begin_with_the_shortest(self) -> None:
        """Take the next pass from short texts to long ones."""


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
            which it does; see `_Adversary`.
        accumulate: make a step when the gradients of so many texts have added up, each text counting the same; 0 for
            a step after each batch, its texts' mean.
        clip: scale a step's gradient down to this norm (L2, over all parameters); 0 for not.
    """
    network.to(training_device())
    bfloat16 = trains_in_bfloat16(precision)
    callbacks: list[Callback] = [_Autocast()] if bfloat16 else []
    if adversary is not None:
        callbacks.append(_Adversary(*adversary, bfloat16))
    if accumulate:
        callbacks.append(GradientAccumulation(accumulate))
    if clip:
        callbacks.append(GradientClip(clip))
    groups = _halves(network)
    weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    optimizer = partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True))
    return Learner(
        DataLoaders(train, valid if valid is not None else []),
        network,
        loss_func=_loss_function(weight, label_smoothing).to(training_device()),
        opt_func=optimizer,
        splitter=_halves,
        metrics=[accuracy],
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


def balanced_weights(label_ids: np.ndarray, classes: int) -> np.ndarray:
    """Weights that make every class count the same in all, float64 (classes,); their mean over the rows is 1."""
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
    history = _History(keep_best, patience, looks_per_epoch, monitor or Monitor())
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
            if isinstance(callback, _Autocast | _Adversary):
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
    learner.freeze_to(2 * (groups - int(trained)))
    learner.opt.zero_grad()  # what an earlier stage added up and did not use
    return [stage.learning_rate * stage.decay ** (groups - 1 - number // 2) for number in range(2 * groups)]


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


class _Autocast(Callback):  # type: ignore[misc]
    """Compute the forward pass of training in bfloat16; weights, loss and looks at validation rows stay float32."""

    order = 10

    def before_batch(self) -> None:
        if self.training:
            self._context: Any = computing(self.model, "bfloat16")
            self._context.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = self.pred.float()
        self.leave()

    def leave(self) -> None:
        context, self._context = getattr(self, "_context", None), None
        if context is not None:
            context.__exit__(None, None, None)


def computing(network: nn.Module, precision: str = "auto") -> Any:  # autocast is not typed
    """A context in which a network's products are computed in the precision of `make_learner`."""
    device = next(network.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16) if trains_in_bfloat16(precision) else nullcontext()


class _Adversary(Callback):  # type: ignore[misc]
    """Learn every batch a second time with its word vectors moved to where the loss rises fastest.

    Miyato, Dai & Goodfellow 2017, "Adversarial training methods for semi-supervised text classification", section 3:
    a text's vectors are moved along their gradient by `size` in all (L2 norm over the text). The gradients of both
    passes add up in the step.
    """

    order = 20

    def __init__(self, words: nn.Module, size: float, first_epoch: int, bfloat16: bool) -> None:
        self.words, self.size, self.first_epoch, self.bfloat16 = words, size, first_epoch, bfloat16
        self.move: Tensor | None = None
        self.vectors: Tensor | None = None

    def before_fit(self) -> None:
        self.hook = self.words.register_forward_hook(self._forward)

    def _forward(self, words: nn.Module, ids: object, vectors: Tensor) -> Tensor:
        if not words.training or self.epoch < self.first_epoch:
            return vectors
        if self.move is not None:
            return vectors + self.move
        vectors.retain_grad()
        self.vectors = vectors
        return vectors

    def after_backward(self) -> None:
        if self.vectors is None:
            return
        gradient = self.vectors.grad
        assert gradient is not None
        norm = gradient.flatten(start_dim=1).norm(dim=1).clamp(min=1e-12)
        self.move, self.vectors = self.size * gradient / norm[:, None, None], None
        with computing(self.model, "bfloat16" if self.bfloat16 else "float32"):
            logits = self.model(*self.xb)
        self.loss_func(logits.float(), *self.yb).backward()
        self.move = None

    def after_fit(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Take the hook away; the network is a plain one again."""
        self.move = self.vectors = None
        if hasattr(self, "hook"):
            self.hook.remove()


class _History(Callback):  # type: ignore[misc]
    """Keeps times, losses and looks, the best weights, and tells the monitor."""

    order = 55  # after the Recorder, which has the losses by then

    def __init__(self, keep_best: bool, patience: int, looks: int, monitor: Monitor) -> None:
        self.keep_best, self.patience, self.looks, self.monitor = keep_best, patience, looks, monitor
        self.stage: str = ""
        self.trainable: str | int = "all"
        self.error: ConfigError | None = None
        self.entries: list[dict[str, Any]] = []
        self.best: tuple[float, float] = (-1.0, -math.inf)
        self.best_weights: dict[str, Tensor] | None = None
        self.epochs_since_best = 0

    def begin_from(self, looks: Sequence[Mapping[str, Any]], network: nn.Module) -> None:
        """Hold the best of earlier looks against the ones to come."""
        scores = [(look["valid_accuracy"], -look["valid_loss"]) for look in looks if look["valid_loss"] is not None]
        if scores:
            self.best = max(scores)
            self._keep(network)

    def _keep(self, network: nn.Module) -> None:
        if self.keep_best:
            self.best_weights = {name: value.clone() for name, value in network.state_dict().items()}

    def before_fit(self) -> None:
        self.steps = len(self.dls.train)
        self.look_steps = (
            {round(self.steps * look / self.looks) for look in range(1, self.looks)} if len(self.dls.valid) else set()
        )
        self.monitor.start(self.stage, self.steps * self.n_epoch)
        self.epochs_since_best = 0
        self._begin()

    def _begin(self) -> None:
        self.loss_sum, self.rows = 0.0, 0
        self.begun = self.train_begun = time.perf_counter()

    def before_train(self) -> None:
        self.steps = len(self.dls.train)  # filled by tokens, passes differ a little
        self._begin()

    def after_batch(self) -> None:
        if not self.training:
            return
        rows = len(self.yb[0])
        loss = float(self.loss.detach())
        if not math.isfinite(loss):
            # fastai would rewrite the words of an error that is raised in here
            self.error = ConfigError(f"The training loss became {loss} in stage {self.stage!r}: lower --learning-rate.")
            raise CancelFitException
        self.loss_sum += loss * rows
        self.rows += rows
        done = self.epoch * self.steps + self.iter + 1
        if self.iter % 5 == 4:
            self.monitor.advance(done, f"epoch {self.epoch + 1}/{self.n_epoch}  loss {self.loss_sum / self.rows:.3f}")
        if self.iter + 1 in self.look_steps:
            seconds = time.perf_counter() - self.train_begun
            self._look(*measure(self.model, self.dls.valid, self.loss_func), seconds)
            self.model.train()
            self._begin()

    def after_train(self) -> None:
        self.train_seconds = time.perf_counter() - self.train_begun

    def after_epoch(self) -> None:
        looked = len(self.dls.valid) > 0
        valid_loss, valid_accuracy = self.recorder.final_record[-2:] if looked else (None, None)
        better = self._look(valid_loss, valid_accuracy, self.train_seconds)
        self.epochs_since_best = 0 if better else self.epochs_since_best + 1
        if looked and self.patience and self.epochs_since_best >= self.patience:
            raise CancelFitException

    def _look(self, valid_loss: float | None, valid_accuracy: float | None, train_seconds: float) -> bool:
        """Note an entry; True if it is the best so far."""
        self.entries.append(
            {
                "stage": self.stage,
                "epoch": round(self.epoch + (self.iter + 1) / self.steps if self.training else self.epoch + 1, 3),
                "trainable": self.trainable,
                "rows": self.rows,
                "train_loss": self.loss_sum / max(1, self.rows),
                "valid_loss": valid_loss,
                "valid_accuracy": valid_accuracy,
                "train_seconds": train_seconds,
                "seconds": time.perf_counter() - self.begun,
            }
        )
        if valid_loss is None or valid_accuracy is None:
            return True
        self.monitor.look(valid_accuracy)
        better = (valid_accuracy, -valid_loss) > self.best
        if better:
            self.best = (valid_accuracy, -valid_loss)
            self._keep(self.model)
        return better


def measure(network: nn.Module, batches: Batches, loss_function: Callable[..., Tensor]) -> tuple[float, float]:
    """Mean loss and accuracy over batches, in float32; the network is left in evaluation mode."""
    device = next(network.parameters()).device
    network.eval()
    loss_sum, right, rows = 0.0, 0, 0
    with torch.inference_mode():
        for *inputs, labels in batches:
            logits, labels = network(*(one.to(device) for one in inputs)).float(), labels.to(device)
            loss_sum += float(loss_function(logits, labels)) * len(labels)
            right += int((logits.argmax(dim=1) == labels).sum())
            rows += len(labels)
    return loss_sum / rows, right / rows
