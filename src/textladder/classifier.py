"""`TextClassifier`: one level, from labelled texts to a bundle and back.

`fit`, `predict`, `predict_proba`, `evaluate`, `save`, `load`. The levels do the work; this class keeps the labels, the
seed and the record of the fit.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder import metrics
from textladder.bundle import Bundle, read_bundle, read_consistently, write_bundle
from textladder.data.labelled_texts import LabelledTexts, TextData, read_texts
from textladder.data.labels import TEXT, Label, label_values
from textladder.errors import (
    BundleError,
    ConfigError,
    DataError,
    TextladderError,
    import_extra,
    missing_library,
    unknown_name,
)
from textladder.levels import find_level
from textladder.levels.base import FitReport, Scored, is_neural, make_config, neural
from textladder.metrics import Evaluation
from textladder.onnx_scorer import INT8, ExportedNetwork
from textladder.progress import Monitor
from textladder.settings import checked_seed
from textladder.versions import versions

if TYPE_CHECKING:
    from onnx import ModelProto

TEXTS_AT_ONCE = 4096
ORIGINAL = "original"


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text.

    Attributes:
        label: the most probable label, as it is in the data: a string, a number or a boolean.
        name: its display name.
        probability: of that label, 0 to 1.
        probabilities: of every label as text, in the order of the labels.
    """

    label: Label
    name: str
    probability: float
    probabilities: dict[str, float]


class TextClassifier:
    """A text classifier of one level.

    Attributes:
        level: the level's name.
        preset: the preset that its settings started from.
        labels: the labels in the order of the classes, as text; empty before `fit`.
        label_names: their display names.
        label_type: what they are in the data: `text`, `integer`, `number` or `boolean`.
        label_values: the labels as values of that type.
        data: the rows that it was prepared or fitted on; None if that was in another process.
        form: which form of the network predicts: `original`, or an exported one.
        digest: of the bundle that it was read from; None if it was fitted in this process.
        folder: that of the bundle; None if it was fitted in this process.
    """

    def __init__(self, level: str = "lstm", *, preset: str = "default", seed: int = 0, **settings: Any) -> None:
        """Choose a level and its settings.

        Args:
            level: the level's name.
            preset: a named set of settings.
            seed: random seed.
            settings: the settings of the level's config, by name.

        Raises:
            ConfigError: an unknown level, preset or setting, or an invalid value.
        """
        self._level_type = find_level(level)
        self.level, self.preset, self.seed = level, preset, checked_seed(seed)
        self._config = make_config(self._level_type, preset, settings)
        self.labels: tuple[str, ...] = ()
        self.label_names: tuple[str, ...] = ()
        self.label_type = TEXT
        self.label_values: tuple[Label, ...] = ()
        self.text_columns: tuple[str, ...] = ()
        self.label_column = ""
        self.data: TextData | None = None
        self.form = ORIGINAL
        self.digest: str | None = None
        self.folder: Path | None = None
        self._record: dict[str, Any] = {}
        self._recorded_weights: str | None = None  # digest of the weights that the record describes
        self._data_record: dict[str, Any] = {}
        self._fitted: Any = None

    @property
    def config(self) -> Any:
        """The level's settings; after a fit, with what it chose for its texts."""
        return self._config if self._fitted is None else self._fitted.config

    @property
    def learner(self) -> Any:
        """The fastai Learner of a neural level, after `fit` or `prepare`.

        Training it further changes what this classifier predicts with and saves; `record` is updated accordingly.

        Raises:
            TextladderError: the level has none, or nothing was prepared in this process.
        """
        if not is_neural(self._level_type):
            raise TextladderError(f"Level {self.level!r} is not trained by fastai, so it has no learner.")
        if self._fitted is None or self._fitted.learner is None:
            raise TextladderError("There is no learner yet: call fit or prepare with data first.")
        return self._fitted.learner

    @property
    def record(self) -> dict[str, Any]:
        """The record of the fit: rows, seconds, parameters, epochs and validation metrics of the current weights."""
        self._refresh_record()
        return self._record

    @property
    def history(self) -> list[dict[str, Any]]:
        """An entry for each validation (`train --json` calls them epochs)."""
        entries: list[dict[str, Any]] = self.record.get("epochs", [])
        return entries

    def prepare(self, data: Any, *, monitor: Monitor | None = None) -> "TextClassifier":
        """Do what `fit` does before training, so that `learner` is ready for `lr_find()` and `fit_one_cycle()`.

        Args:
            data: as for `fit`.
            monitor: receives progress.

        Raises:
            TextladderError: the level has no learner.
        """
        neural(self._level_type)
        return self._train(data, monitor, only_prepare=True)

    def fit(
        self,
        data: Any,
        *,
        monitor: Monitor | None = None,
        checkpoint: str | Path | None = None,
        fresh: bool = False,
    ) -> "TextClassifier":
        """Train on `data.train` and validate on `data.valid`; `data.test` is not used.

        Args:
            data: the result of `read_texts`; or what `read_texts` takes (a file, a DataFrame, the name of a data set),
                which is then read as the preset requires, with a fifth of the rows held out as `classifier.data.test`.
            monitor: receives progress.
            checkpoint: a folder where a neural level keeps the state of its training at the end of epochs and every
                five minutes. The same fit goes on from there if it was killed, and ends with the same weights. Delete
                it when you have saved the classifier.
            fresh: start over, whatever training that folder holds.

        Raises:
            TextladderError: the data, the settings or the checkpoint cannot be used.
        """
        return self._train(data, monitor, only_prepare=False, folder=checkpoint, fresh=fresh)

    def _train(
        self,
        data: Any,
        monitor: Monitor | None,
        *,
        only_prepare: bool,
        folder: str | Path | None = None,
        fresh: bool = False,
    ) -> "TextClassifier":
        for library in self._level_type.libraries:  # imported before the clock starts
            import_extra(library, "train")
        if not isinstance(data, TextData):
            reading = self._level_type.presets[self.preset].read
            data = read_texts(data, seed=self.seed, **reading)
        self.labels, self.label_names, self.label_type = data.labels, data.label_names, data.label_type
        self.label_values = label_values(self.labels, self.label_type)
        self.text_columns, self.label_column = data.text_columns, data.label_column
        self.data = data
        level: Any = self._level_type(self._config, len(self.labels))
        monitor = monitor or Monitor()
        more: dict[str, Any] = {}
        if folder is not None and is_neural(self._level_type):
            from textladder.training.checkpoints import FitCheckpoint

            more["checkpoint"] = FitCheckpoint(Path(folder), self._identity(data), fresh=fresh)
        work: Callable[..., FitReport] = level.prepare if only_prepare else level.fit
        started = time.perf_counter()
        try:
            report = work(data.train, data.valid, seed=self.seed, monitor=monitor, **more)
        finally:
            monitor.stop()
        seconds = time.perf_counter() - started
        if more:
            seconds += more["checkpoint"].seconds
        self._fitted = level
        self.form, self.digest, self.folder = ORIGINAL, None, None
        self._record = {
            "train_rows": len(data.train),
            "valid_rows": len(data.valid) if data.valid is not None else 0,
            "parameters": report.parameters,
            "fit_seconds": seconds,
            "epochs": report.epochs,
            "valid": self._validation_metrics(),
            "warnings": report.warnings,
            **report.facts,
        }
        self._recorded_weights = self._weights_digest()
        self._data_record = {"sha256": data.train.fingerprint(), "description": data.description}
        return self

    def _identity(self, data: TextData) -> dict[str, Any]:
        """What the outcome of a fit depends on, but for the machine."""
        rows = {name: part.fingerprint() for name, part in (("train", data.train), ("valid", data.valid)) if part}
        config = {
            name: [getattr(one, "__qualname__", one) for one in value] if isinstance(value, (list, tuple)) else value
            for name, value in dataclasses.asdict(self._config).items()
        }
        files = {}
        for name, value in config.items():
            with suppress(OSError, ValueError):  # it names none
                if isinstance(value, str):
                    found = Path(value).stat()
                    files[name] = [found.st_size, found.st_mtime_ns]
        known = {"level": self.level, "seed": self.seed, "config": config, "files": files}
        return {**known, "rows": rows, "labels": self.labels, "versions": versions()}

    def _refresh_record(self) -> None:
        """Update the record if the weights were trained further through the learner."""
        learner = getattr(self._fitted, "learner", None)
        if learner is None or self._weights_digest() == self._recorded_weights:
            return
        log = learner.epoch_log
        self._record["epochs"] = [*self._record["epochs"], *log.entries]
        self._record["fit_seconds"] += sum(entry["seconds"] for entry in log.entries)
        log.entries = []
        self._record["valid"] = self._validation_metrics()
        for stale in ("test", "test_rows"):  # of other weights
            self._record.pop(stale, None)
        self._recorded_weights = self._weights_digest()

    def _validation_metrics(self) -> dict[str, float] | None:
        if self.data is None or self.data.valid is None:
            return None
        found = self.evaluate(self.data.valid)
        return {"accuracy": found.accuracy, "macro_f1": found.macro_f1}

    def _weights_digest(self) -> str | None:
        """SHA-256 of the learner's weights; None for a level without a learner."""
        learner = getattr(self._fitted, "learner", None)
        if learner is None:
            return None
        digest = hashlib.sha256()
        for value in learner.model.state_dict().values():
            digest.update(memoryview(value.detach().cpu().contiguous().numpy()).cast("B"))
        return digest.hexdigest()

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """Class probabilities of texts in their order, float32 (texts, classes); classes as in `labels`."""
        return self.score(texts).probabilities

    def score(self, texts: Iterable[str]) -> Scored:
        """The class probabilities of texts, and how many of the texts were truncated.

        Raises:
            DataError: the texts are not strings.
            TextladderError: the classifier is not fitted.
        """
        level = self._ready()
        if isinstance(texts, str):
            raise DataError("Texts must be a list of strings; received one string.")
        batches = texts.batches(TEXTS_AT_ONCE) if isinstance(texts, LabelledTexts) else _batches(texts)
        parts: list[Scored] = [level.score(batch) for batch in batches]
        if not parts:
            return Scored(np.zeros((0, len(self.labels)), np.float32), truncated=0)
        return Scored(np.concatenate([part.probabilities for part in parts]), sum(part.truncated for part in parts))

    def predict(self, texts: Iterable[str]) -> list[Label]:
        """The most probable label of each text, of the type that it has in the data."""
        return [self.label_values[index] for index in self.predict_proba(texts).argmax(axis=1)]

    def predictions(self, texts: Iterable[str]) -> list[Prediction]:
        """The label and the probabilities of each text."""
        return [self.prediction(row) for row in self.predict_proba(texts)]

    def prediction(self, probabilities: np.ndarray) -> Prediction:
        """A row of `predict_proba` as a prediction."""
        index = int(probabilities.argmax())
        numbers = dict(zip(self.labels, map(float, probabilities), strict=True))
        return Prediction(self.label_values[index], self.label_names[index], float(probabilities[index]), numbers)

    def most_probable(self, probabilities: np.ndarray, number: int) -> list[tuple[Label, str, float]]:
        """The most probable labels of a row of `predict_proba`, each with its display name and its probability."""
        order = np.argsort(-probabilities, kind="stable")[:number].tolist()
        return [(self.label_values[place], self.label_names[place], float(probabilities[place])) for place in order]

    def evaluate(self, rows: LabelledTexts) -> Evaluation:
        """Compare predictions with the labels of some rows; labels after those of the classifier count as wrong.

        Raises:
            DataError: the rows have other labels than the training rows.
        """
        if rows.labels[: len(self.labels)] != self.labels:
            known = ", ".join(self.labels)
            raise DataError(f"The rows have the labels {', '.join(rows.labels)}; the classifier has {known}.")
        return metrics.evaluate(self.predict_proba(rows), rows.label_ids)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, as the level sees them."""
        pieces: list[str] = self._ready().tokenize(text)
        return pieces

    @property
    def linear(self) -> bool:
        """Whether the level is linear in its words, so that `contributions` is exact."""
        return hasattr(self._ready(), "contributions")

    def contributions(self, text: str, label: int) -> list[tuple[int, int, float]] | None:
        """What each word adds to the score of a label, as (start, stop, weight); None if the level is not linear.

        Args:
            text: the text.
            label: the label's index in `labels`.
        """
        return self._ready().contributions(text, label) if self.linear else None

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a bundle, completely or not at all.

        Args:
            path: the folder to write.
            overwrite: replace an existing bundle.

        Raises:
            BundleError: the path exists or cannot be written.
            TextladderError: an exported form was loaded, which is not a whole classifier.
        """
        level = self._ready()
        if self.form != ORIGINAL:
            raise TextladderError(f"This is the exported form {self.form}; load it with form={ORIGINAL!r} to save it.")
        manifest = {
            "level": self.level,
            "preset": self.preset,
            "labels": list(self.labels),
            "label_names": list(self.label_names),
            "label_type": self.label_type,
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
        """The network as ONNX, unchecked; `export_bundle` checks it and adds it to a bundle.

        Raises:
            MissingExtraError: the library `onnx` is not installed.
            TextladderError: an exported form was loaded, or the classifier is not fitted.
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
            form: `original`, or the name of an exported form; by default the fastest one that can run here, by the
                latencies measured at export.

        Raises:
            BundleError: it is missing, damaged or inconsistent.
            ConfigError: it has no such form.
        """

        def read() -> "TextClassifier":
            bundle = read_bundle(path)
            chosen = _chosen_form(bundle, form)
            file = None if chosen == ORIGINAL else bundle.manifest["exports"][chosen]["file"]
            return cls.from_bundle(bundle, None if file is None else bundle.read(file), chosen)

        return read_consistently(path, read)

    @classmethod
    def from_bundle(cls, bundle: Bundle, network: bytes | None = None, form: str = ORIGINAL) -> "TextClassifier":
        """Make a classifier from a bundle that has been read.

        Args:
            bundle: the result of `read_bundle`.
            network: an ONNX file that predicts in place of the bundle's own network.
            form: the name of that form.
        """
        manifest = bundle.manifest
        try:
            classifier = cls(manifest["level"], preset=manifest["preset"], seed=manifest["seed"], **manifest["config"])
        except (ConfigError, TypeError) as error:
            raise _does_not_fit(bundle, error) from None
        classifier.labels, classifier.label_names = tuple(manifest["labels"]), tuple(manifest["label_names"])
        classifier.label_type = manifest.get("label_type", TEXT)
        try:
            classifier.label_values = label_values(classifier.labels, classifier.label_type)
        except (KeyError, ValueError):
            raise _does_not_fit(bundle, f"its labels are not of the type {classifier.label_type[:40]!r}") from None
        classifier.text_columns, classifier.label_column = (
            tuple(manifest["text_columns"]),
            manifest["label_column"],
        )
        classifier._record = dict(manifest["metrics"])
        classifier._data_record = dict(manifest["data"])
        level, classes = classifier._level_type, len(classifier.labels)
        exported = (
            None
            if network is None
            else ExportedNetwork(
                network, level.network_inputs, classes, cores=level.batch_cores, one_by_one=form == INT8
            )
        )
        classifier.form, classifier.digest, classifier.folder = form, manifest["sha256"], bundle.folder
        classifier._fitted = level.load(bundle, classifier.config, classes, exported)
        return classifier

    def _ready(self) -> Any:
        if self._fitted is None or not self.labels:
            raise TextladderError("The classifier is not fitted yet: call fit, or load a bundle.")
        return self._fitted


def _chosen_form(bundle: Bundle, wanted: str | None) -> str:
    """The form to load: the wanted one, or the fastest that can run here."""
    exports = bundle.manifest.get("exports", {})
    try:
        speeds = {str(name): float(record["milliseconds"]) for name, record in exports.items()}
        known = all(isinstance(record["file"], str) for record in exports.values())
        originals = [float(record["original_milliseconds"]) for record in exports.values()]
    except (TypeError, KeyError, ValueError):
        known = False
    if not known:
        raise BundleError(f"{bundle.folder}: the manifest's exports are not valid.")
    try:
        level = find_level(bundle.manifest["level"])
    except ConfigError as error:
        raise _does_not_fit(bundle, error) from None
    whole = set(level.network_files) <= set(bundle.manifest["files"])
    if wanted is not None:
        if wanted not in speeds and not (wanted == ORIGINAL and whole):
            available = [ORIGINAL, *speeds] if whole else list(speeds)
            raise ConfigError(unknown_name("form", wanted, available))
        return wanted
    if not speeds or (whole and _is_installed(level) and min(originals) <= min(speeds.values())):
        return ORIGINAL
    return min(speeds, key=speeds.__getitem__)


def _does_not_fit(bundle: Bundle, error: object) -> BundleError:
    return BundleError(f"{bundle.folder}: the manifest does not fit this textladder ({error})")


def _is_installed(level: Any) -> bool:
    """Whether the libraries of a level's own network are installed; those of `tfidf` are only for training."""
    return not level.network_files or missing_library(level.libraries) is None


def _batches(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    batch: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"Texts must be strings; received a {type(text).__name__}: {str(text)[:60]!r}.")
        # half of a surrogate pair cannot be encoded as UTF-8
        batch.append(text if text.isascii() else text.encode("utf-8", "replace").decode())
        if len(batch) == TEXTS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
