"""Learners: a network, batches and a recipe's optimizer put together for fastai.

The only place that makes a fastai Learner. It takes a network and batches and knows nothing of texts. `stages.py`
trains the Learner, and so can you: `fit_one_cycle`, `get_preds`, `show_results` and the rest are fastai's own.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import fastai.callback.hook
import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401, these three give the Learner summary, no_bar, lr_find and fit_one_cycle
import numpy as np
import torch
from fastai.callback.rnn import ModelResetter
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import AccumMetric, accuracy
from torch import Tensor, nn

from textladder.batching import Batches, TextBatches
from textladder.errors import TextladderError
from textladder.metrics import macro_f1
from textladder.networks.awd_lstm import LanguageModel
from textladder.networks.next_word_loss import NextWordLoss
from textladder.target_metric import TargetMetric
from textladder.training.callbacks import ActivationRegularization, AdversarialTraining, Autocast, EpochLog, TargetScore
from textladder.training.data_loaders import TextCodec, text_data_loaders
from textladder.training.optimizers import optimizer_function
from textladder.training.precision import training_device, trains_in_bfloat16


@dataclass(frozen=True)
class Adversarial:
    """Settings of adversarial training; see `AdversarialTraining`.

    Attributes:
        embedding: the network's embedding layer.
        norm: of the perturbation of a text.
        first_epoch: the epoch, counted from 0, in which it begins.
    """

    embedding: nn.Module
    norm: float
    first_epoch: int = 0


@dataclass(frozen=True)
class Regularization:
    """Settings of activation regularization; see `ActivationRegularization`.

    Attributes:
        lstms: the module whose states are regularized.
        alpha: weight of their size.
        beta: weight of their change in time.
    """

    lstms: nn.Module
    alpha: float
    beta: float


class ClassifierLearner(Learner):  # type: ignore[misc]
    """fastai's Learner of a classifier; what cannot work as in fastai raises an error that says what to do instead.

    Attributes:
        target_score: the metric by which validations are compared; None for the mean of accuracy and macro F1.
    """

    target_score: TargetScore | None = None

    def export(self, fname: Any = None, **options: Any) -> NoReturn:
        """Refused: it would pickle code.

        Raises:
            TextladderError: always, with what to do instead.
        """
        raise TextladderError(
            "A Learner cannot be exported, because load_learner would have to unpickle code: save the classifier with "
            "TextClassifier.save(path) and read it with TextClassifier.load(path)."
        )

    def lr_find(self, *args: Any, **options: Any) -> Any:
        """fastai's learning rate finder; its copy of the weights goes to a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="textladder-") as folder, _replaced(self, path=Path(folder)):
            return super().lr_find(*args, **options)

    def get_preds(self, ds_idx: int = 1, dl: Any = None, **options: Any) -> Any:
        """fastai's, in the order of the rows.

        Raises:
            TextladderError: there are no rows to predict.
        """
        if not len(self.dls[ds_idx] if dl is None else dl):
            raise TextladderError(
                "There are no rows to predict: this learner has no validation rows, or the loader is empty; "
                "pass dl=learner.dls.test_dl(texts)."
            )
        return super().get_preds(ds_idx, dl, **options)


class ClassificationLoss(nn.CrossEntropyLoss):
    """Cross-entropy with what fastai expects of a loss: `activation` and `decodes`.

    With class weights, it is the sum of the weighted losses divided by the number of rows. torch divides by the sum of
    the batch's weights instead, which cancels them if a batch has few rows or one class.

    Args:
        weight: float (classes,), the weight of a row of each class; None for equal weights.
        label_smoothing: share of the target that is spread over all classes.
    """

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(weight, label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits, float (rows, classes), under classes, int64 (rows,)."""
        if self.weight is None or self.reduction != "mean":
            return super().forward(input, target)
        return nn.functional.cross_entropy(
            input, target, self.weight, reduction="sum", label_smoothing=self.label_smoothing
        ) / len(target)

    def activation(self, logits: Tensor) -> Tensor:
        """Probabilities, (rows, classes)."""
        return logits.softmax(dim=-1)

    def decodes(self, probabilities: Tensor) -> Tensor:
        """The most probable class, int64 (rows,)."""
        return probabilities.argmax(dim=-1)


def make_learner(
    network: nn.Module,
    train: Batches,
    valid: Batches | None,
    *,
    codec: TextCodec | None = None,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    momentum: tuple[float, float, float] = (0.95, 0.85, 0.95),
    precision: str = "auto",
    adversarial: Adversarial | None = None,
    regularization: Regularization | None = None,
    accumulate: int = 0,
    gradient_clip: float = 0.0,
    metric: TargetMetric | None = None,
) -> ClassifierLearner:
    """A fastai Learner on batches of texts.

    Args:
        network: returns logits. If it has `parameter_groups()`, from the bottom up, stages can freeze them and give
            each its own learning rate.
        train: the batches to train on.
        valid: the batches to validate on.
        codec: turns texts into ids and back; with it the Learner has DataLoaders like fastai's own, which show their
            texts and take new ones. Both `train` and `valid` must then be `TextBatches`.
        class_weights: float (classes,), the weight of a row of each class; by default equal.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016, section 7).
        optimizer: `adamw`, torch's, or `adam`, fastai's; see `optimizers.py`.
        weight_decay: decoupled; biases and norms do not decay.
        momentum: momentum at the start, at the peak of the learning rate, and at the end.
        precision: `auto` trains in bfloat16 where the hardware computes in it.
        adversarial: train on perturbed word vectors too.
        regularization: add activation regularization to the loss.
        accumulate: take a step once the gradients of this many texts have been summed, all texts with the same weight;
            0 for a step after each batch, with the mean over its texts.
        gradient_clip: scale a step's gradient down to this norm (L2, over all parameters); 0 for never.
        metric: by which validations are compared; by default the mean of accuracy and macro F1.
    """
    bfloat16 = trains_in_bfloat16(precision)
    callbacks: list[Any] = [EpochLog(), *([Autocast()] if bfloat16 else [])]
    if adversarial is not None:
        parts = adversarial.embedding, adversarial.norm, adversarial.first_epoch
        callbacks.append(AdversarialTraining(*parts, bfloat16))
    if regularization is not None:
        callbacks.append(ActivationRegularization(regularization.lstms, regularization.alpha, regularization.beta))
    if accumulate:
        callbacks.append(GradientAccumulation(accumulate))
    if gradient_clip:
        callbacks.append(GradientClip(gradient_clip))
    weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    with _python_random_state():  # fastai draws from Python's generator for each loader
        if codec is None:
            loaders = DataLoaders(train, valid if valid is not None else [])
        else:
            assert isinstance(train, TextBatches)
            assert valid is None or isinstance(valid, TextBatches)
            loaders = text_data_loaders(train, valid, codec, training_device())
    target = None if metric is None else TargetScore(metric)
    learner = ClassifierLearner(
        loaders,
        network.to(training_device()),
        loss_func=ClassificationLoss(weight, label_smoothing).to(training_device()),
        opt_func=optimizer_function(optimizer),
        splitter=_parameter_groups,
        metrics=[
            accuracy,
            AccumMetric(macro_f1, dim_argmax=-1, to_np=True, name="macro_f1"),
            *([] if target is None else [target]),
        ],
        cbs=callbacks,
        wd=weight_decay,
        moms=momentum,
        train_bn=optimizer == "adam",  # in our own recipes, frozen norms stay frozen
    )
    learner.target_score = target
    return learner


def make_language_learner(
    model: LanguageModel,
    train: Batches,
    valid: Batches | None,
    *,
    counts: np.ndarray | None = None,
    weight_decay: float = 0.0,
    precision: str = "auto",
    gradient_clip: float = 0.0,
) -> Learner:
    """A fastai Learner of a language model on a stream of words.

    Args:
        model: predicts the next word.
        train: the words to train on.
        valid: the words to validate on.
        counts: how often each word occurs; the softmax is then sampled in training, see `NextWordLoss`.
        weight_decay: as for `make_learner`.
        precision: as for `make_learner`.
        gradient_clip: as for `make_learner`.
    """
    bfloat16 = trains_in_bfloat16(precision)
    callbacks: list[Any] = [ModelResetter(), *([Autocast()] if bfloat16 else [])]
    if gradient_clip:
        callbacks.append(GradientClip(gradient_clip))
    frequencies = None if counts is None else torch.from_numpy(counts).float()
    model.to(training_device())
    return Learner(
        DataLoaders(train, valid if valid is not None else []),
        model,
        loss_func=NextWordLoss(model, frequencies, bfloat16=bfloat16).to(training_device()),
        opt_func=optimizer_function("adamw"),
        splitter=_parameter_groups,
        cbs=callbacks,
        wd=weight_decay,
        train_bn=False,
    )


def _parameter_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """A network's groups of layers, from the bottom up; a single group if it names none."""
    grouped: Callable[[], list[list[nn.Parameter]]] | None = getattr(network, "parameter_groups", None)
    return [list(network.parameters())] if grouped is None else grouped()


def class_weights(kind: str, label_ids: np.ndarray, classes: int) -> np.ndarray | None:
    """The weight of a row of each class, float64 (classes,); None for equal weights.

    `balanced` makes the classes count the same in total; the mean over the rows is 1.

    Args:
        kind: `none` or `balanced`.
        label_ids: int64 (rows,), of the training rows.
        classes: number of classes.
    """
    if kind == "none":
        return None
    counts = np.bincount(label_ids, minlength=classes)
    return len(label_ids) / (classes * np.maximum(counts, 1))


@contextmanager
def _python_random_state() -> Iterator[None]:
    """Leave Python's random state as it was."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _replaced(learner: Learner, **attributes: Any) -> Iterator[None]:
    """Set some attributes to other values within a block."""
    before = {name: getattr(learner, name) for name in attributes}
    for name, value in attributes.items():
        setattr(learner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(learner, name, value)
