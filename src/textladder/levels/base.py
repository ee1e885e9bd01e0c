"""What a level is: a frozen config, named presets, and a class that satisfies the protocol `Level`.

Levels share functions and never subclass each other. A config field carries its own help, for the command line and the
docs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard

import numpy as np

from textladder.bundle import Bundle
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import ConfigError, unknown_name
from textladder.onnx_scorer import ExportedNetwork
from textladder.progress import Monitor
from textladder.settings import checked, setting
from textladder.target_metric import find_metric

if TYPE_CHECKING:
    from onnx import ModelProto

    from textladder.training.checkpoints import FitCheckpoint


MIN_STEPS_PER_EPOCH = 24


@dataclass(frozen=True)
class Preset:
    """A named set of settings.

    Attributes:
        help: what it is for.
        settings: values of config fields.
        read: arguments of `read_texts` that belong to it.
    """

    help: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    read: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class FitReport:
    """The record of a fit.

    Attributes:
        parameters: number of parameters.
        epochs: an entry for each validation, as from `training.stages.run_stages`.
        facts: what only this level records, by its keys in `train --json`.
        warnings: why the level may be worse on these rows than its kind of model can be, in sentences.
    """

    parameters: int
    epochs: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scored:
    """Class probabilities of some texts.

    Attributes:
        probabilities: float32 (texts, classes), in the order of the texts.
        truncated: how many of the texts were longer than the level reads, and were truncated.
    """

    probabilities: np.ndarray
    truncated: int


class Level(Protocol):
    """One way to classify texts."""

    name: ClassVar[str]
    summary: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]  # imported by training, all in the extra `train`
    config_type: ClassVar[type]
    presets: ClassVar[Mapping[str, Preset]]
    network_files: ClassVar[tuple[str, ...]]  # files of a bundle that an exported network replaces
    network_inputs: ClassVar[tuple[str, ...]]  # inputs of an exported network
    batch_cores: ClassVar[int | None]  # cores that one batch of its network can make use of; None for any number

    def __init__(self, config: Any, classes: int) -> None:
        """A level that is not fitted yet."""

    @property
    def longest_text(self) -> int | None:
        """Tokens beyond which a text is truncated; None if none ever is."""

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Number of tokens of each text before truncation, int64 (texts,); needs no fit.

        Raises:
            TextladderError: the tokenizer is not available offline; nothing is downloaded for it.
        """

    def unsuitable(self, train: LabelledTexts) -> str | None:
        """Why the level cannot read the texts, in a sentence; None if it can. Needs no fit.

        Raises:
            TextladderError: what the level reads texts with is not available offline; nothing is downloaded for it.
        """

    def resolved(self, rows: int) -> Any:
        """The config with every setting resolved that depends on the number of training rows."""

    def fit(
        self,
        train: LabelledTexts,
        valid: LabelledTexts | None,
        *,
        seed: int,
        monitor: Monitor,
        checkpoint: "FitCheckpoint | None" = None,
    ) -> FitReport:
        """Train on `train`, validate on `valid`.

        Args:
            train: the training rows.
            valid: the validation rows; None if there are none.
            seed: of everything random: initial weights, the order of the rows, dropout.
            monitor: receives progress.
            checkpoint: where the fit keeps its state, and goes on from if it was killed; a level that is trained in
                seconds may ignore it.

        Raises:
            TextladderError: the rows or the settings cannot be used.
        """

    def score(self, texts: Sequence[str]) -> Scored:
        """The class probabilities of one or more texts."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""

    def save(self, folder: Path) -> None:
        """Write the level's files of a bundle."""

    @classmethod
    def load(cls, bundle: Bundle, config: Any, classes: int, exported: ExportedNetwork | None = None) -> "Level":
        """Read the level's files of a checked bundle; with an exported network only the text side's.

        Args:
            bundle: the bundle.
            config: the level's config, from the bundle's manifest.
            classes: number of classes.
            exported: the exported network that predicts; None for the level's own.

        Raises:
            BundleError: the files do not fit each other, the config or the number of classes.
        """

    def graph(self) -> "ModelProto":
        """Everything after the text side as an ONNX graph, from `network_inputs` to `logits`."""


class NeuralLevel(Level, Protocol):
    """A level that is trained through fastai's Learner."""

    learning_rates: ClassVar[tuple[float, float]]
    learner: Any

    def prepare(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Do what `fit` does before training; the learner is ready afterwards.

        Args:
            train: the training rows.
            valid: the validation rows; None if there are none.
            seed: as in `fit`.
            monitor: receives progress.
        """


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of every level that is trained through fastai's Learner."""

    find_rate: bool = setting(False, "let the learning rate finder choose the rate")
    class_weights: str = setting(
        "none", "weight rows so that all classes count the same", choices=("none", "balanced"), shared=True
    )
    keep_best: bool = setting(
        True,
        "go back to the weights that did best on the validation rows, if the last ones did worse by a standard error",
    )
    patience: int = setting(
        0, "stop after this many epochs without a lower validation loss or a better metric; 0 for never", low=0
    )
    metric: str | None = setting(
        None, "what validations are compared by, as in `compare` (default: the mean of accuracy and macro F1)"
    )
    validations_per_epoch: int = setting(1, "validation runs per epoch", low=1)
    # with AVX512-BF16 a fit of `lstm` took 25 s instead of 34 s, to the same accuracy; that of a DistilBERT a quarter
    precision: str = setting(
        "auto", "training precision; auto: bfloat16 if supported", choices=("auto", "float32", "bfloat16")
    )
    optimizer: str = setting("adamw", "torch's AdamW or fastai's Adam", choices=("adamw", "adam"))
    weight_decay: float = setting(0.0, "decoupled weight decay; biases and norms do not decay", low=0)
    gradient_clip: float = setting(0.0, "scale gradients down to this norm; 0 for never", low=0)

    def validation_options(self) -> dict[str, Any]:
        """The settings that `training.stages.run_stages` takes."""
        return {
            "keep_best": self.keep_best,
            "patience": self.patience,
            "validations_per_epoch": self.validations_per_epoch,
        }

    def learner_options(self, train: LabelledTexts) -> dict[str, Any]:
        """The settings that `training.learner.make_learner` takes.

        Args:
            train: the training rows, whose labels the metric may name.

        Raises:
            ConfigError: there is no such metric, or it names an unknown label.
        """
        return {
            "metric": None if self.metric is None else find_metric(self.metric, train.labels, train.label_names),
            "optimizer": self.optimizer,
            "weight_decay": self.weight_decay,
            "gradient_clip": self.gradient_clip,
            "precision": self.precision,
        }


def batch_size_for(rows: int, sizes: Sequence[int]) -> int:
    """The largest of some batch sizes, in rising order, of which an epoch has enough steps; else the smallest."""
    return max((size for size in sizes if size * MIN_STEPS_PER_EPOCH <= rows), default=sizes[0])


def make_config(level: type[Level], preset: str, settings: Mapping[str, Any]) -> Any:
    """A level's config: its defaults, then the preset, then the given settings.

    Args:
        level: the level's class.
        preset: the name of one of its presets.
        settings: values of config fields, by name.

    Raises:
        ConfigError: an unknown preset or setting, or a value of the wrong kind or out of its range.
    """
    if preset not in list(level.presets):  # from a settings file it may be anything, even a list, which has no hash
        raise ConfigError(unknown_name(f"{level.name} preset", str(preset), level.presets))
    return checked(level.config_type, {**level.presets[preset].settings, **settings}, f"{level.name} setting")


def is_neural(level: type[Level]) -> TypeGuard[type[NeuralLevel]]:
    """Whether a level is trained by fastai's Learner, that is, whether it satisfies `NeuralLevel`."""
    return hasattr(level, "prepare")


def neural(level: type[Level]) -> type[NeuralLevel]:
    """The level, if it is trained by fastai's Learner.

    Raises:
        ConfigError: it is not.
    """
    if is_neural(level):
        return level
    raise ConfigError(f"Level {level.name!r} is not trained by fastai, so it has no learning rate to find.")
