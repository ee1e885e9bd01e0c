"""Stages of training under the one-cycle policy, keeping the best weights; and the learning rate finder."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.learner import Learner

from textladder.progress import Monitor
from textladder.training.callbacks import History
from textladder.training.checkpoints import FitCheckpoint, KeepCheckpoint, weight_bytes


@dataclass(frozen=True)
class Stage:
    """One run of the one-cycle policy (Smith 2018, "A disciplined approach", section 5).

    Attributes:
        name: for reports.
        epochs: passes over the training rows.
        learning_rate: peak learning rate of the topmost group of layers.
        warm_up: share of the steps in which the rate rises; it then falls along a cosine.
        shortest_first: go from short texts to long ones in the first epoch.
        trainable: which groups of layers are trained: `all`, the `head` alone, or how many from the top.
        decay: the peak of a group is this times that of the group above it (Howard & Ruder 2018, section 3.2,
            "discriminative fine-tuning").
        head_factor: the peak of the topmost group is multiplied by this.
        div: the rate starts at the peak divided by this.
    """

    name: str
    epochs: int
    learning_rate: float
    warm_up: float = 0.25
    shortest_first: bool = False
    trainable: str | int = "all"
    decay: float = 1.0
    head_factor: float = 1.0
    div: float = 25.0


@dataclass(frozen=True)
class LearningRateCurve:
    """What the learning rate finder measured (Smith 2015, "Cyclical learning rates", section 3.3).

    Attributes:
        rates: the learning rates that were tried, rising.
        losses: the smoothed loss at each.
        suggested: the finder's own suggestion, from the longest valley of the curve.
        lowest: lower end of the level's usual range.
        highest: upper end.
    """

    rates: list[float]
    losses: list[float]
    suggested: float
    lowest: float
    highest: float

    @property
    def learning_rate(self) -> float:
        """The suggestion, clipped to the level's range."""
        return min(max(self.suggested, self.lowest), self.highest)

    def sentence(self) -> str:
        """The suggestion in a sentence, and whether it was clipped."""
        clipped = "" if self.learning_rate == self.suggested else f", clipped to {self.learning_rate:.2g}"
        return (
            f"The finder suggests a learning rate of {self.suggested:.2g}{clipped} "
            f"(usual range of this level: {self.lowest:.0e} to {self.highest:.0e})."
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw everything inside from one seed, and leave the caller's random states as they were."""
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


def run_stages(
    learner: Learner,
    stages: Sequence[Stage],
    *,
    keep_best: bool = True,
    patience: int = 0,
    validations_per_epoch: int = 1,
    earlier: Sequence[Mapping[str, Any]] = (),
    monitor: Monitor | None = None,
    checkpoint: FitCheckpoint | None = None,
) -> list[dict[str, Any]]:
    """Train through the stages.

    Args:
        learner: the result of `make_learner`.
        stages: the stages, in order.
        keep_best: end with the weights of the best validation, by the learner's metric or else by the mean of accuracy
            and macro F1, if it was better than the last one by more than a standard error.
        patience: stop a stage after this many epochs without a better metric or else a lower validation loss; 0 for
            never.
        validations_per_epoch: validation runs per epoch, the one at its end included.
        earlier: entries of earlier stages; the current weights count as the best of these.
        monitor: receives progress.
        checkpoint: of the fit that these stages are a part of; they go on where an earlier process stopped.

    Returns:
        An entry for each validation: stage, epoch, trainable, rows, train_loss, valid_loss, valid_accuracy,
        valid_macro_f1 (None without validation rows), valid_score (if the learner has a metric), train_seconds
        (training alone) and seconds (everything) since the
        entry before.

    Raises:
        ConfigError: the loss is no longer finite, or there is no room for checkpoints.
        BundleError: the checkpoint is damaged.
    """
    target = getattr(learner, "target_score", None)
    history = History(keep_best, patience, validations_per_epoch, monitor or Monitor(), target=target)
    if checkpoint is not None:
        checkpoint.check_room(weight_bytes(learner.model))
    part = None if checkpoint is None else checkpoint.next_part()
    kept = None if part is None else part.state
    if part is not None and kept is not None and kept["finished"]:
        part.restore_weights(learner, history)
        part.restore_place(learner)
        return history.entries
    history.begin_from(earlier, learner.model)
    first = 0 if kept is None else kept["stage"]
    try:
        with learner.no_logging(), learner.no_bar(), _unlogged(learner):
            for number, stage in enumerate(stages[first:], start=first):
                history.begin_stage(stage.name, stage.trainable)
                if stage.shortest_first:
                    learner.dls.train.shortest_first()
                rates = _prepare_groups(learner, stage)
                callbacks: list[Any] = [history]
                first_epoch = 0
                if part is not None:
                    keep = KeepCheckpoint(part, history, number, last=number == len(stages) - 1)
                    callbacks.append(keep)
                    first_epoch = keep.first_epoch
                    if kept is not None and number == first:
                        part.restore_weights(learner, history)
                        history.monitor.say(f"Resuming {stage.name} in epoch {first_epoch + 1} of {stage.epochs}.")
                learner.fit_one_cycle(
                    stage.epochs,
                    lr_max=rates,
                    pct_start=stage.warm_up,
                    div=stage.div,
                    start_epoch=first_epoch,
                    cbs=callbacks,
                )
                if history.error is not None:
                    raise history.error
    finally:
        history.monitor.stop()
        for callback in [one for one in learner.cbs if isinstance(one, (History, KeepCheckpoint))]:
            learner.remove_cb(callback)
        for callback in learner.cbs:
            if hasattr(callback, "close"):  # an interrupted fit calls no after_fit
                callback.close()
    chosen = history.chosen_weights()
    if chosen is not None:
        learner.model.load_state_dict(chosen)
    if part is not None:
        part.finish(learner, history)
    return history.entries


@contextmanager
def _unlogged(learner: Learner) -> Iterator[None]:
    """Pause the learner's log of the user's own fits, because stages keep their own record."""
    log = getattr(learner, "epoch_log", None)
    if log is not None:
        log.paused = True
    try:
        yield
    finally:
        if log is not None:
            log.paused = False


def _prepare_groups(learner: Learner, stage: Stage) -> list[float]:
    """Freeze what the stage does not train, and return the peak rate of every group of layers."""
    if learner.opt is None:
        learner.create_opt()
    groups = len(learner.opt.param_lists)
    trained = {"all": groups, "head": 1}.get(str(stage.trainable), stage.trainable)
    learner.freeze_to(groups - int(trained))
    learner.opt.zero_grad()  # gradients that an earlier stage accumulated and did not use
    rates = [stage.learning_rate * stage.decay ** (groups - 1 - number) for number in range(groups)]
    return [*rates[:-1], rates[-1] * stage.head_factor]


def suggested_rate(learner: Learner, bounds: tuple[float, float], monitor: Monitor) -> float:
    """The finder's suggestion, clipped to the level's range and reported.

    Args:
        learner: the result of `make_learner`.
        bounds: the level's usual range.
        monitor: receives the suggestion.
    """
    curve = find_learning_rate(learner, *bounds)
    monitor.say(curve.sentence())
    return curve.learning_rate


def find_learning_rate(learner: Learner, lowest: float, highest: float) -> LearningRateCurve:
    """Train with rising rates for a hundred steps, derive a suggestion from the losses, and restore the weights.

    Args:
        learner: the result of `make_learner`.
        lowest: lower end of the level's usual range.
        highest: upper end.
    """
    learner.unfreeze()
    with learner.no_logging(), learner.no_bar():
        suggested = float(learner.lr_find(show_plot=False).valley)
    rates = [float(rate) for rate in learner.recorder.lrs]
    losses = [float(loss) for loss in learner.recorder.losses]
    learner.opt = None  # its moments come from the finder's rates
    return LearningRateCurve(rates, losses, suggested, lowest, highest)
