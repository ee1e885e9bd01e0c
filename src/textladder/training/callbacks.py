"""What fastai's Learner does besides at every batch: bfloat16 in training, an adversary, the record of the run.

Stands below `training.py`, which alone puts these to a Learner.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException
from torch import Tensor, nn

from textladder.batching import Batches
from textladder.errors import ConfigError
from textladder.progress import Monitor
from textladder.training.precision import computing


class Autocast(Callback):  # type: ignore[misc]
    """Compute the forward pass of training in bfloat16; weights, loss and looks at validation rows stay float32."""

    order = 10

    def before_batch(self) -> None:
        """Enter bfloat16."""
        if self.training:
            self._context: Any = computing(self.model, "bfloat16")
            self._context.__enter__()

    def after_pred(self) -> None:
        """Leave it before the loss."""
        self.learn.pred = self.pred.float()
        self.leave()

    def leave(self) -> None:
        """Leave bfloat16, wherever the training ended."""
        context, self._context = getattr(self, "_context", None), None
        if context is not None:
            context.__exit__(None, None, None)


class AdversarialTraining(Callback):  # type: ignore[misc]
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
        """Listen to the word vectors."""
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
        """The second pass, along the first one's gradient."""
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
        """As `leave`."""
        self.leave()

    def leave(self) -> None:
        """Take the hook away; the network is a plain one again."""
        self.move = self.vectors = None
        if hasattr(self, "hook"):
            self.hook.remove()


class History(Callback):  # type: ignore[misc]
    """Keeps times, losses and looks, the best weights, and tells the monitor.

    A look is better if its accuracy is higher or, for the same one and where there is none, its loss lower.
    """

    order = 55  # after the Recorder, which has the losses by then

    def __init__(self, keep_best: bool, patience: int, looks: int, monitor: Monitor) -> None:
        self.keep_best, self.patience, self.looks, self.monitor = keep_best, patience, looks, monitor
        self.stage: str = ""
        self.trainable: str | int = "all"
        self.error: ConfigError | None = None
        self.entries: list[dict[str, Any]] = []
        self.best: tuple[float, float] = (-1.0, -math.inf)
        self.best_weights: dict[str, Tensor] | None = None
        self.epochs_since_best = self.skipped = 0

    def begin_from(self, looks: Sequence[Mapping[str, Any]], network: nn.Module) -> None:
        """Hold the best of earlier looks against the ones to come."""
        scores = [
            (look["valid_accuracy"] or 0.0, -look["valid_loss"]) for look in looks if look["valid_loss"] is not None
        ]
        if scores:
            self.best = max(scores)
            self._keep(network)

    def _keep(self, network: nn.Module) -> None:
        if self.keep_best:
            self.best_weights = {name: value.clone() for name, value in network.state_dict().items()}

    def before_fit(self) -> None:
        """Plan the looks."""
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
        """Start the clock."""
        self.steps = len(self.dls.train)  # filled by tokens, passes differ a little
        self._begin()

    def after_batch(self) -> None:
        """Add up, tell the monitor, and look where one is due."""
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
        """Stop the clock."""
        self.train_seconds = time.perf_counter() - self.train_begun

    def after_epoch(self) -> None:
        """Note the look at the epoch's end; stop if patience is over."""
        if self.epoch < self.skipped:
            return
        looked = len(self.dls.valid) > 0
        valid_loss, valid_accuracy, *_ = [*self.recorder.final_record[1:], None] if looked else (None, None)
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
        if valid_loss is None:
            return True
        if valid_accuracy is not None:
            self.monitor.validated(valid_accuracy)
        score = (valid_accuracy or 0.0, -valid_loss)
        better = score > self.best
        if better:
            self.best = score
            self._keep(self.model)
        return better


class Resumable(Callback):  # type: ignore[misc]
    """Makes an epoch depend on its number alone, so that a run can go on after any of them, and calls when one is done.

    Args:
        seed: of dropout; each epoch has its own.
        done: is called with the number of epochs that are done.
        begin: the epoch to go on with.
    """

    order = 80  # after the record of the epoch

    def __init__(self, seed: int, done: Callable[[int], None], begin: int = 0) -> None:
        self.seed, self.done, self.begin = seed, done, begin

    def before_train(self) -> None:
        """Draw from the epoch's own seed, and read its own part of the texts."""
        torch.manual_seed(self.seed * 1_000_003 + self.epoch)
        self.dls.train.next_part = self.epoch

    def after_epoch(self) -> None:
        """Call."""
        if self.epoch >= self.begin:
            self.done(self.epoch + 1)


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
