"""Callbacks of the recipes: bfloat16, adversarial training, activation regularization, the record of a fit.

`learner.py` and `stages.py` add them to a Learner.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.metrics import AccumMetric
from torch import Tensor, nn

from textladder.batching import Batches
from textladder.errors import ConfigError
from textladder.metrics import macro_f1
from textladder.progress import Monitor
from textladder.scoring import softmax
from textladder.target_metric import TargetMetric
from textladder.training.precision import autocast


class Autocast(Callback):  # type: ignore[misc]
    """Compute the forward pass of training in bfloat16; weights, loss and validation stay in float32."""

    order = 10

    def before_batch(self) -> None:
        """Enter bfloat16."""
        if self.training:
            self._context: Any = autocast(self.model, "bfloat16")
            self._context.__enter__()

    def after_pred(self) -> None:
        """Leave it before the loss."""
        self.learn.pred = self.pred.float()
        self.close()

    def close(self) -> None:
        """Leave bfloat16, wherever training stopped."""
        context, self._context = getattr(self, "_context", None), None
        if context is not None:
            context.__exit__(None, None, None)


class AdversarialTraining(Callback):  # type: ignore[misc]
    """Train on every batch a second time, with its word vectors moved in the direction of the steepest rise in loss.

    Miyato, Dai & Goodfellow 2017, "Adversarial training methods for semi-supervised text classification", section 3:
    a text's vectors are moved along their gradient, by `norm` in all (L2 norm over the text). The gradients of both
    passes add up in the step.

    Args:
        embedding: the network's embedding layer.
        norm: of the perturbation of a text.
        first_epoch: the epoch, counted from 0, in which it begins.
        bfloat16: compute the second pass in bfloat16 too.
    """

    order = 20

    def __init__(self, embedding: nn.Module, norm: float, first_epoch: int, bfloat16: bool) -> None:
        self.embedding, self.norm, self.first_epoch, self.bfloat16 = embedding, norm, first_epoch, bfloat16
        self.perturbation: Tensor | None = None
        self.vectors: Tensor | None = None

    def before_fit(self) -> None:
        """Hook the embedding."""
        self.hook = self.embedding.register_forward_hook(self._forward)

    def _forward(self, embedding: nn.Module, ids: object, vectors: Tensor) -> Tensor:
        if not embedding.training or not vectors.requires_grad or self.epoch < self.first_epoch:
            return vectors
        if self.perturbation is not None:
            return vectors + self.perturbation
        vectors.retain_grad()
        self.vectors = vectors
        return vectors

    def after_backward(self) -> None:
        """The second pass, along the first one's gradient."""
        if self.vectors is None:
            return
        gradient = self.vectors.grad
        assert gradient is not None
        norm = gradient.flatten(start_dim=1).norm(dim=1).clamp(min=1e-12)
        self.perturbation, self.vectors = self.norm * gradient / norm[:, None, None], None
        with autocast(self.model, "bfloat16" if self.bfloat16 else "float32"):
            logits = self.model(*self.xb)
        self.loss_func(logits.float(), *self.yb).backward()
        self.perturbation = None

    def after_fit(self) -> None:
        """Remove the hook."""
        self.close()

    def close(self) -> None:
        """Remove the hook, wherever training stopped; the network is a plain one again."""
        self.perturbation = self.vectors = None
        if hasattr(self, "hook"):
            self.hook.remove()


class ActivationRegularization(Callback):  # type: ignore[misc]
    """Add to the loss how large the last LSTM's states are (AR) and how much they change from token to token (TAR).

    Merity et al. 2017, "Revisiting activation regularization for language RNNs"; the same terms as fastai's
    `RNNRegularizer`.

    Args:
        lstms: the module whose forward pass gives the states of every layer, each (batch, time, width), first.
        alpha: weight of the mean square of the states.
        beta: weight of the mean square of their differences in time.
    """

    order, run_valid = 2, False

    def __init__(self, lstms: nn.Module, alpha: float, beta: float) -> None:
        self.lstms, self.alpha, self.beta = lstms, alpha, beta
        self.states: Tensor | None = None

    def before_fit(self) -> None:
        """Hook the LSTMs."""
        self.hook = self.lstms.register_forward_hook(self._keep_states)

    def _keep_states(self, lstms: nn.Module, inputs: object, outputs: Any) -> None:
        self.states = outputs[0][-1] if lstms.training else None

    def after_loss(self) -> None:
        """Add both terms to the loss whose gradient is taken, and not to the loss that is reported."""
        if not self.training or self.states is None:
            return
        states, self.states = self.states.float(), None
        self.learn.loss_grad += self.alpha * states.pow(2).mean()
        if states.shape[1] > 1:
            self.learn.loss_grad += self.beta * (states[:, 1:] - states[:, :-1]).pow(2).mean()

    def after_fit(self) -> None:
        """Remove the hook."""
        self.close()

    def close(self) -> None:
        """Remove the hook, wherever training stopped."""
        self.states = None
        if hasattr(self, "hook"):
            self.hook.remove()


class EpochLog(Callback):  # type: ignore[misc]
    """Keeps an entry, as in `train --json`, for every epoch that the user trains through the Learner's own methods."""

    order = 56  # after the Recorder, which has the losses by then

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.paused = False  # while stages are run, which keep their own record

    def before_fit(self) -> None:
        """Start the clock; the learning rate finder does not count as training."""
        self.run = not self.paused and not hasattr(self.learn, "lr_finder") and not hasattr(self.learn, "gather_preds")
        self._restart()

    def after_fit(self) -> None:
        """Log the next fit again."""
        self.run = True

    def before_train(self) -> None:
        """Restart the clock."""
        self._restart()

    def after_batch(self) -> None:
        """Add up."""
        if self.training and len(self.yb):
            rows = len(self.yb[0])
            self.loss_sum += float(self.loss.detach()) * rows
            self.rows += rows

    def after_train(self) -> None:
        """Stop the clock."""
        self.train_seconds = time.perf_counter() - self.started

    def after_epoch(self) -> None:
        """Add an entry."""
        if not hasattr(self, "train_seconds"):
            return
        values = validation_record(self)
        groups = len(self.opt.param_lists)
        self.entries.append(
            {
                "stage": "learner",
                "epoch": self.epoch + 1,
                "trainable": groups - self.opt.frozen_idx if self.opt.frozen_idx else "all",
                "rows": self.rows,
                "train_loss": self.loss_sum / max(1, self.rows),
                "valid_loss": values[0],
                "valid_accuracy": values[1],
                "valid_macro_f1": values[2],
                "train_seconds": self.train_seconds,
                "seconds": time.perf_counter() - self.started,
            }
        )

    def _restart(self) -> None:
        self.loss_sum, self.rows, self.started = 0.0, 0, time.perf_counter()


class TargetScore(AccumMetric):  # type: ignore[misc]
    """The metric that a person judges by, over the validation rows, as fastai takes metrics.

    Args:
        metric: the metric.
    """

    def __init__(self, metric: TargetMetric) -> None:
        super().__init__(self._of_logits, flatten=False, to_np=True, name=metric.name)
        self.metric = metric

    def _of_logits(self, logits: np.ndarray, label_ids: np.ndarray) -> float:
        return self.metric.value(softmax(logits), label_ids)

    @property
    def standard_error(self) -> float:
        """Of the metric on the rows of the last validation."""
        logits, label_ids = torch.cat(self.preds).numpy(), torch.cat(self.targs).numpy()
        return float(self.metric.contributions(softmax(logits), label_ids).std()) / math.sqrt(len(label_ids))


class History(Callback):  # type: ignore[misc]
    """The record of the stages of a fit: losses, times, validations and the best weights; reports to the monitor.

    A validation is better by the learner's `target_score`. Without one, it is if the mean of its accuracy and its macro
    F1 is higher, so that rare classes count too, or, if that is equal or missing, if its loss is lower.

    Args:
        keep_best: keep the weights of the best validation, for `chosen_weights`.
        patience: stop a stage after this many epochs without a better `target_score` or, without one, a lower
            validation loss; 0 for never.
        validations: validation runs per epoch, the one at its end included.
        monitor: receives progress.
        parts_per_epoch: how many of fastai's epochs make an epoch, where each goes over a part of the texts.
        target: the learner's `target_score`.
    """

    order = 55  # after the Recorder, which has the losses by then

    def __init__(
        self,
        keep_best: bool,
        patience: int,
        validations: int,
        monitor: Monitor,
        parts_per_epoch: int = 1,
        target: TargetScore | None = None,
    ) -> None:
        self.keep_best, self.patience, self.validations, self.monitor = keep_best, patience, validations, monitor
        self.parts_per_epoch, self.target = parts_per_epoch, target
        self.metric = None if target is None else target.metric
        self.stage: str = ""
        self.trainable: str | int = "all"
        self.error: ConfigError | None = None
        self.entries: list[dict[str, Any]] = []
        self.best: tuple[float, float] = (-math.inf, -math.inf)  # score, higher for better, and negative loss
        self.best_weights: dict[str, Tensor] | None = None
        self.valid_rows = 0
        self._first_epoch = 0
        self._batches_before = 0  # of the epoch, in an earlier process

    def begin_stage(self, name: str, trainable: str | int = "all") -> None:
        """Start a stage, to which the next entries belong."""
        self.stage, self.trainable, self._first_epoch = name, trainable, 0

    def begin_from(self, entries: Sequence[Mapping[str, Any]], network: nn.Module) -> None:
        """Let the current weights count as the best of earlier validations, which later ones have to beat."""
        scores = [
            validation_score(entry, self.metric)
            for entry in entries
            if entry["valid_loss"] is not None and (self.metric is None or "valid_score" in entry)
        ]
        if scores:
            self.best = max(scores)
            self._keep(network)

    def chosen_weights(self) -> dict[str, Tensor] | None:
        """The weights of the best validation, if it was better than the last one by more than chance.

        One of many validations on few rows is often the best by luck, and a cycle that has come to its end is better
        than one cut short. So what counts as equal is what is within one standard error of the best (Breiman et al.
        1984, "Classification and regression trees", section 3.4.3), and of those the last is taken.

        Returns:
            None if the network's own weights are the ones to keep.
        """
        if not self.entries or self.entries[-1]["valid_accuracy"] is None:
            return self.best_weights
        score, _ = validation_score(self.entries[-1], self.metric)
        best, target = self.best[0], self.target
        error = standard_error(best, self.valid_rows) if target is None else target.standard_error
        return None if score >= best - error else self.best_weights

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the best weights, as JSON."""
        return {"entries": self.entries, "best": list(self.best), "valid_rows": self.valid_rows}

    def restore(self, state: Mapping[str, Any], best_weights: dict[str, Tensor] | None) -> None:
        """Continue from a checkpoint.

        Args:
            state: what `state` returned.
            best_weights: the weights of the best validation; None if there was none.
        """
        score, loss = state["best"]
        self.entries, self.best, self.best_weights = list(state["entries"]), (score, loss), best_weights
        self.valid_rows = state["valid_rows"]

    def of_stage(self) -> dict[str, Any]:
        """What is counted from epoch to epoch of a stage."""
        return {"epochs_since_best": self.epochs_since_best, "best_of_stage": self.best_of_stage}

    def restore_stage(self, counted: Mapping[str, Any], finished_epochs: int) -> None:
        """Continue within a stage; its finished epochs add no entries."""
        self.epochs_since_best, self.best_of_stage = counted["epochs_since_best"], counted["best_of_stage"]
        self._first_epoch = finished_epochs

    def of_epoch(self) -> dict[str, Any]:
        """What is counted within an epoch."""
        now = time.perf_counter()
        seconds = {"seconds": now - self.started, "train_seconds": now - self.train_started}
        return {"loss_sum": self.loss_sum, "rows": self.rows, **seconds}

    def restore_epoch(self, counted: Mapping[str, Any], batches: int) -> None:
        """Continue within an epoch, after some of its batches."""
        now = time.perf_counter()
        self.loss_sum, self.rows, self._batches_before = counted["loss_sum"], counted["rows"], batches
        self.started, self.train_started = now - counted["seconds"], now - counted["train_seconds"]

    def _keep(self, network: nn.Module) -> None:
        if self.keep_best:
            self.best_weights = {name: value.clone() for name, value in network.state_dict().items()}

    def before_fit(self) -> None:
        """Plan the validations."""
        self.steps = len(self.dls.train)
        self.validation_steps = (
            {round(self.steps * number / self.validations) for number in range(1, self.validations)}
            if len(self.dls.valid)
            else set()
        )
        self.monitor.start(self.stage, self.steps * self.n_epoch)
        self.epochs_since_best, self.best_of_stage = 0, -math.inf
        self._restart()

    def _restart(self) -> None:
        self.loss_sum, self.rows = 0.0, 0
        self.started = self.train_started = time.perf_counter()

    def before_train(self) -> None:
        """Start the clock."""
        self.steps = len(self.dls.train)  # with batches filled by tokens, passes differ a little
        self._batches_before = 0
        self._restart()

    @property
    def _batches(self) -> int:
        """Number of batches of the epoch that are done."""
        return int(self._batches_before + self.iter + 1)

    def after_batch(self) -> None:
        """Add up, tell the monitor, and validate where it is due."""
        if not self.training:
            return
        rows = len(self.yb[0])
        loss = float(self.loss.detach())
        if not math.isfinite(loss):
            # fastai would change the message of an error that is raised here
            self.error = ConfigError(f"The training loss became {loss} in stage {self.stage!r}: lower learning_rate.")
            raise CancelFitException
        self.loss_sum += loss * rows
        self.rows += rows
        done = self.epoch * self.steps + self._batches
        if self.iter % 5 == 4:
            epoch, epochs = self.epoch // self.parts_per_epoch + 1, self.n_epoch // self.parts_per_epoch
            self.monitor.advance(done, f"epoch {epoch}/{epochs}  loss {self.loss_sum / self.rows:.3f}")
        if self._batches in self.validation_steps:
            seconds = time.perf_counter() - self.train_started
            found = measure(self.model, self.dls.valid, self.loss_func, self.target)
            self._add_entry(*found, train_seconds=seconds)
            self.model.train()
            self._restart()

    def after_train(self) -> None:
        """Stop the clock."""
        self.train_seconds = time.perf_counter() - self.train_started

    def after_epoch(self) -> None:
        """Add the entry of the epoch's end; stop when patience is exhausted."""
        if self.epoch < self._first_epoch:
            return
        self._add_entry(*validation_record(self), train_seconds=self.train_seconds)
        entry = self.entries[-1]
        if entry["valid_loss"] is None:
            return
        score = -entry["valid_loss"] if self.metric is None else validation_score(entry, self.metric)[0]
        self.epochs_since_best = 0 if score > self.best_of_stage else self.epochs_since_best + 1
        self.best_of_stage = max(score, self.best_of_stage)
        if self.patience and self.epochs_since_best >= self.patience:
            raise CancelFitException

    def _add_entry(
        self,
        valid_loss: float | None,
        accuracy: float | None,
        macro_f1: float | None,
        value: float | None,
        *,
        train_seconds: float,
    ) -> None:
        """Add an entry, and keep the weights if it is the best so far."""
        done = self.epoch + self._batches / self.steps if self.training else self.epoch + 1
        self.entries.append(
            {
                "stage": self.stage,
                "epoch": round(done / self.parts_per_epoch, 3),
                "trainable": self.trainable,
                "rows": self.rows,
                "train_loss": self.loss_sum / max(1, self.rows),
                "valid_loss": valid_loss,
                "valid_accuracy": accuracy,
                "valid_macro_f1": macro_f1,
                **({} if value is None else {"valid_score": value}),
                "train_seconds": train_seconds,
                "seconds": time.perf_counter() - self.started,
            }
        )
        if valid_loss is None:
            return
        if accuracy is not None:
            self.valid_rows = self.dls.valid.rows
            self.monitor.validated(accuracy)
        score = validation_score(self.entries[-1], self.metric)
        if score > self.best:
            self.best = score
            self._keep(self.model)


def validation_record(callback: Callback) -> tuple[float | None, float | None, float | None, float | None]:
    """Loss, accuracy, macro F1 and the target's value of the validation that just ended; None if not measured."""
    recorder: Any = callback.recorder
    if not len(callback.dls.valid):
        return None, None, None, None
    values = dict(zip(recorder.metric_names[1:], recorder.final_record, strict=False))  # after the epoch's number
    target: TargetScore | None = getattr(callback.learn, "target_score", None)
    value = None if target is None else float(target.value)
    return values.get("valid_loss"), values.get("accuracy"), values.get("macro_f1"), value


def validation_score(entry: Mapping[str, Any], metric: TargetMetric | None) -> tuple[float, float]:
    """What the validations of a fit are compared by, the higher the better.

    Args:
        entry: of the validation, as `History` keeps it.
        metric: that the person judges by; None for the mean of accuracy and macro F1.
    """
    if metric is not None:
        return metric.sign * entry["valid_score"], -entry["valid_loss"]
    present = [value for name in ("valid_accuracy", "valid_macro_f1") if (value := entry.get(name)) is not None]
    return sum(present) / max(1, len(present)), -entry["valid_loss"]


def standard_error(score: float, rows: int) -> float:
    """The standard error of a proportion of some rows.

    Two right and two wrong rows are added (Agresti & Coull 1998, "Approximate is better than exact"), since ten of ten
    do not make a certainty.
    """
    proportion = (score * rows + 2) / (rows + 4)
    return math.sqrt(proportion * (1 - proportion) / rows)


def measure(
    network: nn.Module, batches: Batches, loss_function: Callable[..., Tensor], target: TargetScore | None = None
) -> tuple[float, float, float, float | None]:
    """Mean loss, accuracy, macro F1 and a target's value over batches, in float32; the network then evaluates.

    Args:
        network: gives logits, (batch, classes).
        batches: inputs of the network, then labels.
        loss_function: the mean over a batch.
        target: the metric that the person judges by, if any.
    """
    if target is not None:
        target.reset()
    device = next(network.parameters()).device
    network.eval()
    loss_sum, predicted, true = 0.0, [], []
    with torch.inference_mode():
        for *inputs, labels in batches:
            logits, labels = network(*(one.to(device) for one in inputs)).float(), labels.to(device)
            loss_sum += float(loss_function(logits, labels)) * len(labels)
            if target is not None:
                target.accum_values(logits, labels)
            predicted.append(logits.argmax(dim=1).cpu().numpy())
            true.append(labels.cpu().numpy())
    predicted_ids, label_ids = np.concatenate(predicted), np.concatenate(true)
    accuracy = float((predicted_ids == label_ids).mean())
    value = None if target is None else float(target.value)
    return loss_sum / len(label_ids), accuracy, macro_f1(predicted_ids, label_ids), value
