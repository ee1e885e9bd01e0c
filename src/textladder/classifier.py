"""`TextClassifier`: one level from labelled texts to a bundle and back.

The whole job for one level: `fit`, `predict`, `predict_proba`, `evaluate`, `save`, `load`. The levels do the work; this
class keeps the labels, the seed and the record of the fit beside them.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder import metrics
from textladder.bundle import Bundle, read_bundle, write_bundle
from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.errors import BundleError, ConfigError, DataError, TextladderError, import_extra, unknown_name
from textladder.levels import find_level
from textladder.levels.base import FitReport, make_config
from textladder.metrics import Evaluation
from textladder.onnx_scorer import INT8, ExportedNetwork
from textladder.progress import Monitor
from textladder.versions import versions

if TYPE_CHECKING:
    from onnx import ModelProto

TEXTS_AT_ONCE = 4096
ORIGINAL = "original"


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one text.

    Attributes:
        label: the most probable label, as it stands in the data.
        name: what that label is called where people read it.
        probability: of that label, 0 to 1.
        probabilities: of every label, in the order of the labels.
    """

    label: str
    name: str
    probability: float
    probabilities: dict[str, float]


class TextClassifier:
    """A text classifier of one level.

    Attributes:
        level: the level's name.
        preset: the preset its settings began from.
        config: the resolved settings.
        labels: the labels in the order of the classes; empty before `fit`.
        label_names: what they are called where people read them.
        history: the looks at the validation rows (`train --json` calls them epochs).
        record: what `fit` found: rows, seconds, parameters, validation metrics.
        form: which form of the network predicts: `original`, or an exported one.
        digest: of the bundle that it was read from; None where it was fitted in this process.
    """

    def __init__(self, level: str = "lstm", *, preset: str = "default", seed: int = 0, **settings: Any) -> None:
        """Choose a level and its settings.

        Raises:
            ConfigError: an unknown level, preset or setting, or a value that does not fit.
        """
        self._level_type = find_level(level)
        self.level, self.preset, self.seed = level, preset, int(seed)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"The seed must be from 0 to 4294967295; received {seed}.")
        self.config = make_config(self._level_type, preset, settings)
        self.labels: tuple[str, ...] = ()
        self.label_names: tuple[str, ...] = ()
        self.text_columns: tuple[str, ...] = ()
        self.label_column = ""
        self.history: list[dict[str, Any]] = []
        self.record: dict[str, Any] = {}
        self._data_record: dict[str, Any] = {}
        self._fitted: Any = None
        self.form = ORIGINAL
        self.digest: str | None = None

    @property
    def learner(self) -> Any:
        """The fastai Learner of a neural level, after `fit` or `prepare`.

        Raises:
            TextladderError: the level has none, or nothing was prepared in this process.
        """
        if not hasattr(self._level_type, "prepare"):
            raise TextladderError(f"Level {self.level!r} is not trained by fastai, so it has no learner.")
        if self._fitted is None or self._fitted.learner is None:
            raise TextladderError("There is no learner yet: call fit or prepare with data first.")
        return self._fitted.learner

    def prepare(self, data: TextData, *, monitor: Monitor | None = None) -> "TextClassifier":
        """Everything of `fit` up to the training, so that `learner` is ready for `lr_find()` and `fit_one_cycle()`.

        Raises:
            TextladderError: the level has no learner.
        """
        if not hasattr(self._level_type, "prepare"):
            raise TextladderError(f"Level {self.level!r} is not trained by fastai, so it has no learning rate to find.")
        self._begin(data)
        self._fitted = self._level_type(self.config, len(self.labels))
        monitor = monitor or Monitor()
        try:
            self._fitted.prepare(data.train, data.valid, seed=self.seed, monitor=monitor)
        finally:
            monitor.stop()
        return self

    def fit(self, data: TextData, *, monitor: Monitor | None = None) -> "TextClassifier":
        """Learn from `data.train` and choose on `data.valid`; `data.test` is not looked at."""
        self._begin(data)
        fitted: Any = self._level_type(self.config, len(self.labels))
        begun = time.perf_counter()
        monitor = monitor or Monitor()
        try:
            report: FitReport = fitted.fit(data.train, data.valid, seed=self.seed, monitor=monitor)
        finally:
            monitor.stop()
        seconds = time.perf_counter() - begun
        self._fitted, self.history = fitted, report.epochs
        valid = self.evaluate(data.valid) if data.valid is not None else None
        self.record = {
            "train_rows": len(data.train),
            "valid_rows": len(data.valid) if data.valid is not None else 0,
            "parameters": report.parameters,
            "fit_seconds": seconds,
            "epochs": report.epochs,
            "valid": {"accuracy": valid.accuracy, "macro_f1": valid.macro_f1} if valid else None,
            **report.facts,
        }
        self._data_record = {"sha256": data.train.fingerprint(), "description": data.description}
        return self

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """Class probabilities of texts in their order, float32 (texts, classes); classes as in `labels`."""
        parts = list(self._probabilities(texts))
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)

    def predict(self, texts: Iterable[str]) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[place] for place in self.predict_proba(texts).argmax(axis=1)]

    def predictions(self, texts: Iterable[str]) -> list[Prediction]:
        """Label and probabilities of each text."""
        return [self.prediction(row) for row in self.predict_proba(texts)]

    def prediction(self, probabilities: np.ndarray) -> Prediction:
        """What a row of `predict_proba` says."""
        place = int(probabilities.argmax())
        numbers = dict(zip(self.labels, map(float, probabilities), strict=True))
        return Prediction(self.labels[place], self.label_names[place], float(probabilities[place]), numbers)

    def evaluate(self, rows: LabelledTexts) -> Evaluation:
        """Compare predictions with the labels of some rows.

        Raises:
            DataError: the rows have other labels than the ones that were learnt.
        """
        if rows.labels != self.labels:
            raise DataError(f"The rows have the labels {', '.join(rows.labels)}; learnt were {', '.join(self.labels)}.")
        return metrics.evaluate(self.predict_proba(rows), rows.label_ids)

    @property
    def texts_truncated(self) -> int:
        """How many of the texts that were predicted in this process lost tokens, because they are too long."""
        return int(getattr(self._ready(), "texts_truncated", 0))

    def tokenize(self, text: str) -> list[str]:
        """The pieces that the level sees of a text."""
        pieces: list[str] = self._ready().tokenize(text)
        return pieces

    @property
    def linear(self) -> bool:
        """Whether the level is linear in its words, so that `contributions` tells what each adds."""
        return hasattr(self._ready(), "contributions")

    def contributions(self, text: str, label: int) -> list[tuple[int, int, float]] | None:
        """What each word adds to the score of a label, where the level is linear; None where it is not.

        Args:
            text: the text.
            label: the label's place in `labels`.
        """
        return self._ready().contributions(text, label) if self.linear else None

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a bundle, whole or not at all.

        Raises:
            BundleError: the place is taken or cannot be written.
            TextladderError: an exported form was loaded, which is not all of a classifier.
        """
        level = self._ready()
        if self.form != ORIGINAL:
            raise TextladderError(f"This is the exported form {self.form}; load form={ORIGINAL!r} to save it anew.")
        manifest = {
            "level": self.level,
            "preset": self.preset,
            "labels": list(self.labels),
            "label_names": list(self.label_names),
            "text_columns": list(self.text_columns),
            "label_column": self.label_column,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "metrics": self.record,
            "versions": versions(),
            "data": self._data_record,
        }
        return write_bundle(path, manifest, level.save, overwrite=overwrite)

    def graph(self) -> "ModelProto":
        """The network as ONNX, before any gate; `export_bundle` is the way to have it in a bundle.

        Raises:
            MissingExtraError: the library `onnx` is not installed.
            TextladderError: an exported form was loaded, or nothing was learnt.
        """
        level = self._ready()
        if self.form != ORIGINAL:
            raise TextladderError(f"This is an exported form already, {self.form}.")
        graph: ModelProto = level.graph()
        return graph

    @classmethod
    def load(cls, path: str | Path, *, form: str | None = None) -> "TextClassifier":
        """Read a bundle.

        Args:
            path: the bundle.
            form: `original`, or the name of an exported form; by default the fastest that can be run here, as measured
                when it was exported.

        Raises:
            BundleError: it is missing, damaged, or does not fit together.
            ConfigError: it has no such form.
        """
        bundle = read_bundle(path)
        form = _chosen_form(bundle, form)
        file = None if form == ORIGINAL else bundle.manifest["exports"][form]["file"]
        return cls.from_bundle(bundle, None if file is None else bundle.read(file), form)

    @classmethod
    def from_bundle(cls, bundle: Bundle, network: bytes | None = None, form: str = ORIGINAL) -> "TextClassifier":
        """A classifier from a bundle that was read.

        Args:
            bundle: of `read_bundle`.
            network: the ONNX file that is to predict, instead of the bundle's own network.
            form: what that is called.
        """
        manifest = bundle.manifest
        try:
            classifier = cls(manifest["level"], preset=manifest["preset"], seed=manifest["seed"], **manifest["config"])
        except (ConfigError, TypeError) as error:
            raise _does_not_fit(bundle, error) from None
        classifier.labels, classifier.label_names = tuple(manifest["labels"]), tuple(manifest["label_names"])
        classifier.text_columns, classifier.label_column = (
            tuple(manifest["text_columns"]),
            manifest["label_column"],
        )
        classifier.record, classifier.history = (
            dict(manifest["metrics"]),
            manifest["metrics"].get("epochs", []),
        )
        classifier._data_record = dict(manifest["data"])
        level, classes = classifier._level_type, len(classifier.labels)
        exported = (
            None
            if network is None
            else ExportedNetwork(network, level.network_inputs, classes, one_by_one=form == INT8)
        )
        classifier.form, classifier.digest = form, manifest["sha256"]
        classifier._fitted = level.load(bundle, classifier.config, classes, exported)
        return classifier

    def _begin(self, data: TextData) -> None:
        for library in self._level_type.libraries:  # importing is not fitting: it is over before the clock starts
            import_extra(library, "train")
        self.labels, self.label_names = data.labels, data.label_names
        self.text_columns, self.label_column = data.text_columns, data.label_column

    def _ready(self) -> Any:
        if self._fitted is None or not self.labels:
            raise TextladderError("The classifier has learnt nothing yet: call fit, or load a bundle.")
        return self._fitted

    def _probabilities(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        level = self._ready()
        if isinstance(texts, str):
            raise DataError("Texts must be a list of strings; received one string.")
        batches = texts.batches(TEXTS_AT_ONCE) if isinstance(texts, LabelledTexts) else _batches(texts)
        for batch in batches:
            yield level.predict_proba(batch)


def _chosen_form(bundle: Bundle, wanted: str | None) -> str:
    """The form to load: the wanted one, or the fastest of those that can be run here."""
    exports = bundle.manifest.get("exports", {})
    try:
        speeds = {str(name): float(record["milliseconds"]) for name, record in exports.items()}
        known = all(isinstance(record["file"], str) for record in exports.values())
        originals = [float(record["original_milliseconds"]) for record in exports.values()]
    except (TypeError, KeyError, ValueError):
        known = False
    if not known:
        raise BundleError(f"{bundle.folder}: the manifest's exports are not what an export writes.")
    try:
        level = find_level(bundle.manifest["level"])
    except ConfigError as error:
        raise _does_not_fit(bundle, error) from None
    whole = set(level.network_files) <= set(bundle.manifest["files"])
    if wanted is not None:
        if wanted not in speeds and not (wanted == ORIGINAL and whole):
            there = [ORIGINAL, *speeds] if whole else list(speeds)
            raise ConfigError(unknown_name("form", wanted, there))
        return wanted
    if not speeds or (whole and _at_hand(level) and min(originals) <= min(speeds.values())):
        return ORIGINAL
    return min(speeds, key=speeds.__getitem__)


def _does_not_fit(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(f"{bundle.folder}: the manifest does not fit this textladder ({error})")


def _at_hand(level: Any) -> bool:
    """Whether the libraries of a level's own network are installed; those of `tfidf` are only for training."""
    return not level.network_files or all(find_spec(name.split(".")[0]) for name in level.libraries)


def _batches(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    batch: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"Texts must be strings; received a {type(text).__name__}: {str(text)[:60]!r}.")
        # half of a surrogate pair is no character and cannot be written as UTF-8
        batch.append(text if text.isascii() else text.encode("utf-8", "replace").decode())
        if len(batch) == TEXTS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
