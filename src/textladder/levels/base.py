"""What a level is: a frozen config, named presets, and a class that satisfies `Level`.

Levels share functions and never subclass each other. A config field carries its own help, which feeds the command
line and the docs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from textladder.bundle import Bundle
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import ConfigError, unknown_name
from textladder.onnx_scorer import ExportedNetwork
from textladder.progress import Monitor
from textladder.settings import checked, setting

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Preset:
    """Settings that belong together.

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
    """What a fit has to tell.

    Attributes:
        parameters: numbers that were learnt.
        epochs: the looks at the validation rows, as of `training.run_stages`.
        facts: what only this level has to tell, by the names it has in `train --json`.
    """

    parameters: int
    epochs: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class Level(Protocol):
    """One way to classify texts."""

    name: ClassVar[str]
    summary: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]  # what training imports, all of it in the extra `train`
    config_type: ClassVar[type]
    presets: ClassVar[Mapping[str, Preset]]
    network_files: ClassVar[tuple[str, ...]]  # of a bundle: what an exported network takes the place of
    network_inputs: ClassVar[tuple[str, ...]]  # of an exported network

    def __init__(self, config: Any, classes: int) -> None:
        """A level that has learnt nothing yet."""

    @property
    def longest_text(self) -> int | None:
        """Tokens beyond which a text is cut; None if none ever is."""

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens texts have for this level, uncut, int64 (texts,); before it has learnt anything.

        Raises:
            TextladderError: what it splits texts with is not at hand. Nothing is fetched for it.
        """

    def resolved(self, rows: int, share: float = 1.0) -> Any:
        """The config with what depends on the number of training rows written out.

        Args:
            rows: training rows of the whole.
            share: of them that are trained on, as a sample of how long the whole takes.
        """

    def fit(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Learn from `train`, choose on `valid`."""

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities of texts in their order, float32 (texts, classes)."""

    def tokenize(self, text: str) -> list[str]:
        """The pieces that the level sees of a text."""

    def save(self, folder: Path) -> None:
        """Write the level's files of a bundle."""

    @classmethod
    def load(cls, bundle: Bundle, config: Any, classes: int, exported: ExportedNetwork | None = None) -> "Level":
        """Read the level's files of a checked bundle; with an exported network only those of its text side."""

    def graph(self) -> "ModelProto":
        """What comes behind the text side as an ONNX graph, from `network_inputs` to `logits`."""


class NeuralLevel(Level, Protocol):
    """A level that is trained through fastai's Learner."""

    learning_rates: ClassVar[tuple[float, float]]
    learner: Any

    def prepare(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Everything of `fit` up to the training: the learner is ready afterwards."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings that every level has which fastai's Learner trains."""

    find_rate: bool = setting(False, "let the finder choose the learning rate")
    class_weights: str = setting("none", "weigh rows so that every class counts the same", choices=("none", "balanced"))
    keep_best: bool = setting(True, "end with the weights that did best on the validation rows")
    patience: int = setting(0, "stop after so many epochs without a better one; 0 for never", low=0)
    validations_per_epoch: int = setting(1, "looks at the validation rows in an epoch", low=1)
    # with AVX512-BF16 a fit of `lstm` took 25 s instead of 34 s, to the same accuracy; of a DistilBERT a quarter
    precision: str = setting(
        "auto", "compute in bfloat16 where the machine has it", choices=("auto", "float32", "bfloat16")
    )

    def validation_options(self) -> dict[str, Any]:
        """What `training.run_stages` is to know of them."""
        return {
            "keep_best": self.keep_best,
            "patience": self.patience,
            "validations_per_epoch": self.validations_per_epoch,
        }


def make_config(level: type[Level], preset: str, settings: Mapping[str, Any]) -> Any:
    """A level's config: its defaults, then the preset, then the given settings.

    Raises:
        ConfigError: an unknown preset or setting, or a value of the wrong kind or out of its range.
    """
    if preset not in level.presets:
        raise ConfigError(unknown_name(f"{level.name} preset", preset, level.presets))
    return checked(level.config_type, {**level.presets[preset].settings, **settings}, f"{level.name} setting")


def is_neural(level: type[Level]) -> bool:
    """Whether a level is trained by fastai's Learner, that is, whether it satisfies `NeuralLevel`."""
    return hasattr(level, "prepare")
