"""Training runs in worker processes, each kept in the comparison's folder as soon as it is finished.

A training run is a folder with the bundle, the predictions of the validation and test rows and its record; it gets its
name when they are complete. One that an earlier comparison finished with the same rows, settings, versions and machine
is reused. The measurements of its forms are added afterwards, each when it is made, and are reused too.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from textladder.atomic_files import atomic_folder, discard, sweep
from textladder.bundle import read_bundle
from textladder.classifier import ORIGINAL
from textladder.comparison.forms import DEPLOYABLE, MeasuredForms, Measuring
from textladder.comparison.predictions import predictions_digest, predictions_file, read_predictions
from textladder.comparison.worker import Job
from textladder.comparison.worker_process import WarmWorker, WorkerError, WorkerProcess
from textladder.errors import BundleError, ConfigError, TextladderError
from textladder.levels import find_level
from textladder.progress import Monitor
from textladder.target_metric import COSTS, TargetMetric

RECORD, CHECKPOINTS = "record.json", ".partial"
MONITOR_EVENTS = frozenset({"say", "start", "advance", "validated", "stop"})


@dataclass(frozen=True)
class Training:
    """A level trained with one seed, and its measurements.

    Attributes:
        folder: its folder.
        record: the fields of `train --json`, latency, throughput, memory and size of the form, and the job.
        fold_of_row: the fold of each test row, int64 (rows,); None if all were predicted by the same classifier.
        form: the form whose predictions and figures these are.
        forms: the figures of each form that was measured, by its name.
        refusal: why an exported form is not used; None if none was refused.
    """

    folder: Path
    record: dict[str, Any]
    fold_of_row: np.ndarray | None = None
    form: str = ORIGINAL
    forms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refusal: str | None = None

    @property
    def bundle(self) -> Path:
        """The saved classifier."""
        return self.folder / "bundle"

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        seed: int = self.record["job"]["seed"]
        return seed

    @property
    def valid_accuracy(self) -> float | None:
        """Accuracy on the validation rows; None if there are none."""
        accuracy: float | None = (self.record["valid"] or {}).get("accuracy")
        return accuracy

    def valid_score(self, metric: TargetMetric) -> float | None:
        """A metric of the original form on the validation rows; None if there are none."""
        original = self.in_form(ORIGINAL) or self
        return metric.value(*original.predictions("valid")) if self.record["valid_rows"] else None

    def predictions(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The form's probabilities, float32 (rows, classes), and the true classes, int64 (rows,), of a part.

        Args:
            part: `valid` or `test`.
        """
        labels, probabilities, parts = self._predictions
        chosen = parts == part
        return probabilities[chosen], labels[chosen]

    def in_form(self, form: str) -> "Training | None":
        """The same training with the predictions of one of its forms; None if that predicted no test rows."""
        return replace(self, form=form)

    @property
    def correct(self) -> np.ndarray:
        """Which test rows were predicted correctly, bool (rows,)."""
        probabilities, labels = self.predictions("test")
        correct: np.ndarray = probabilities.argmax(axis=1) == labels
        return correct

    def contributions(self, metric: TargetMetric) -> np.ndarray:
        """What each test row contributes to a metric, float64 (rows,), higher for better."""
        return metric.contributions(*self.predictions("test"))

    @cached_property
    def _predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return read_predictions(self.folder / predictions_file(self.form))


@dataclass(frozen=True)
class CrossValidated(Training):
    """A level trained once for each fold, and then on all rows.

    Attributes:
        folder: of the classifier that was trained on all rows.
        record: its measurements.
        fold_of_row: the fold of each test row, int64 (rows,).
        folds: for each fold, the training on the others, which predicted its rows.
    """

    folds: Sequence[Training] = ()

    def predictions(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """As for a training run; those of the test rows are the folds' together, in their original form."""
        if part != "test" and self.record["valid_rows"]:
            return super().predictions(part)
        assert self.fold_of_row is not None
        found = [one.predictions("test") for one in self.folds]
        probabilities = np.zeros((len(self.fold_of_row), found[0][0].shape[1]), np.float32)
        label_ids = np.zeros(len(self.fold_of_row), np.int64)
        for fold, (of_fold, labels) in enumerate(found):
            rows = self.fold_of_row == fold
            probabilities[rows], label_ids[rows] = of_fold, labels
        return (probabilities, label_ids) if part == "test" else (probabilities[:0], label_ids[:0])

    def in_form(self, form: str) -> Training | None:
        """As for a training run; the folds are not exported."""
        return self if form == ORIGINAL else None


class TrainingStore:
    """The training runs in a comparison's folder; trains what is missing.

    Args:
        folder: the folder.
        conditions: what must match, besides the job, for an earlier run to be reused: rows, versions, machine.
        monitor: receives the progress of each job.
        warm_worker: a process that is already importing its libraries.
        measuring: how the trained levels are measured.
    """

    def __init__(
        self,
        folder: Path,
        conditions: Mapping[str, Any],
        monitor: Monitor,
        warm_worker: WarmWorker | None = None,
        measuring: Measuring | None = None,
    ) -> None:
        self.folder, self.conditions, self.monitor = folder, conditions, monitor
        self.measuring = measuring or Measuring()
        self._warm_worker = warm_worker or WarmWorker(None)
        for unfinished in folder.glob(".*.part*"):  # no other process writes here
            shutil.rmtree(unfinished, ignore_errors=True)
        for training in folder.glob("*/bundle"):  # killed as an exported bundle took its place
            sweep(training)

    def train(self, job: Job, *, measure: bool = True, say: bool = True) -> Training:
        """Reuse an earlier training run, or train.

        Args:
            job: of the kind `fit`; its folder is filled in here.
            measure: export it, and measure how fast its forms predict; otherwise the bundle is not kept.
            say: pass on the worker's sentences; another seed would repeat them.

        Returns:
            The finished training run.

        Raises:
            ConfigError: the folder holds a training run with the same name and other settings.
            TextladderError: it could not be trained.
            WorkerError: a bug.
        """
        if (finished := self.find(job)) is None:
            finished = self._train(job, keep_bundle=measure, say=say)
        else:
            discard(self._checkpoint(job))  # of a process that was killed when it had finished
        return self._measured(finished, job, say) if measure else finished

    def _train(self, job: Job, keep_bundle: bool, say: bool) -> Training:
        checkpoint = self._checkpoint(job)
        with atomic_folder(self.folder / folder_name(job)) as part:
            job = replace(job, folder=str(part), checkpoint=str(checkpoint))
            record = self.run(job, say=say)
            if not keep_bundle:
                shutil.rmtree(part / "bundle")
            record["job"] = self._identity(job)
            record["bundle_kept"] = keep_bundle
            record["predictions"] = predictions_digest(part, ORIGINAL)
            (part / RECORD).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        discard(checkpoint)
        finished = self.find(job)
        assert finished is not None
        return finished

    def _checkpoint(self, job: Job) -> Path:
        """Where a training keeps its state as it runs; what is left of another one of the same name is deleted."""
        digest = hashlib.sha256(json.dumps(self._identity(job)).encode()).hexdigest()[:12]
        name = folder_name(job)
        checkpoint = self.folder / f"{name}.{digest}{CHECKPOINTS}"
        for other in self.folder.glob(f"{name}.*{CHECKPOINTS}"):
            if other != checkpoint:
                discard(other)
        return checkpoint

    def _measured(self, training: Training, job: Job, say: bool) -> Training:
        """Measure the forms of a training that were not measured yet, and choose the one to judge it by.

        Each seed is exported, so that gains over several seeds compare what would be deployed of each.
        """
        job = replace(job, folder=str(training.folder))
        found = MeasuredForms.read(training.folder, self.measuring.threads_used)
        form, refusal = ORIGINAL, None
        # tfidf, which has no files of a network, gains nothing: its ONNX form took 1.0 to 1.3 times as long per text
        if self.measuring.forms == DEPLOYABLE and find_level(job.level).network_files:
            form, refusal = self._exported(job, found)
            if refusal is not None and refusal != self.measuring.unavailable and say:
                self.monitor.say(f"{job.level} is judged by its form {form}. {refusal}")
        self._measure(job, found, ORIGINAL)
        forms = {name: found.figures[name] for name in dict.fromkeys((ORIGINAL, form))}
        return replace(training, record={**training.record, **forms[form]}, form=form, forms=forms, refusal=refusal)

    def _exported(self, job: Job, found: MeasuredForms) -> tuple[str, str | None]:
        """Export a training and measure the form that predicts fastest; that form, and why not another one."""
        if self.measuring.unavailable is not None:
            return ORIGINAL, self.measuring.unavailable
        try:
            if found.fastest is None:
                exported = self.run(replace(job, kind="export"))
                found.figures.setdefault(ORIGINAL, exported["figures"])
                found.fastest, found.refusal = exported["fastest"], exported["refusal"]
                found.write(Path(job.folder))
            self._measure(job, found, found.fastest)
        except (TextladderError, WorkerError) as error:  # the training is as good without; tried again on resuming
            return ORIGINAL, f"It could not be exported: {str(error).strip().splitlines()[-1]}"
        return found.fastest, found.refusal

    def _measure(self, job: Job, found: MeasuredForms, form: str) -> None:
        """Measure a form, unless it was measured before."""
        folder = Path(job.folder)
        exported = form != ORIGINAL
        if form in found.figures and not (exported and found.predictions.get(form) != predictions_digest(folder, form)):
            return
        found.figures[form] = self.run(replace(job, kind="measure", form=form))
        if exported:
            found.predictions[form] = predictions_digest(folder, form)
        found.write(folder)

    def find(self, job: Job) -> Training | None:
        """The finished training run of a job; None if there is none.

        Raises:
            ConfigError: there is one, but with other rows or settings, or it was changed.
        """
        folder = self.folder / folder_name(job)
        if not folder.exists():
            return None
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            same = record["job"] == json.loads(json.dumps(self._identity(job)))
            whole = record["predictions"] == predictions_digest(folder, ORIGINAL)
            if record["bundle_kept"]:
                read_bundle(folder / "bundle")
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{folder} is not a finished training run of a comparison; pass overwrite=True to start over."
            ) from None
        except BundleError as error:
            raise ConfigError(f"{error} Delete {folder} to train it again.") from None
        if not whole:
            raise ConfigError(f"{folder}: its predictions were changed or damaged; delete {folder} to train it again.")
        if not same:
            raise ConfigError(
                f"{folder} was trained on other rows, with other settings or versions, or on another machine; choose "
                "another folder, or pass overwrite=True to start over."
            )
        return Training(folder, record)

    def _identity(self, job: Job) -> dict[str, Any]:
        """What decides whether a training run can be reused, with the contents of files that settings name."""
        names = ("level", "preset", "settings", "seed", "train_rows")
        digests = {
            name: _digest(value.removeprefix(COSTS)) for name, value in job.settings.items() if isinstance(value, str)
        }
        files = {name: digest for name, digest in digests.items() if digest is not None}
        fold = {} if job.fold is None else {"fold": job.fold}
        return {**{name: getattr(job, name) for name in names}, **fold, "files": files, **self.conditions}

    def run(self, job: Job, *, say: bool = True) -> dict[str, Any]:
        """Run a job in a new process.

        Args:
            job: any job.
            say: pass on the worker's sentences.

        Returns:
            The worker's result.

        Raises:
            TextladderError: the worker reported a user's error or was killed.
            WorkerError: a bug.
        """
        self.monitor.start("starting a process", None)
        threads = self.measuring.threads if job.kind in ("export", "measure") else None
        worker = self._warm_worker.take(job) or WorkerProcess(threads=threads)
        events = MONITOR_EVENTS if say else MONITOR_EVENTS - {"say"}
        answer: dict[str, Any] = {}
        try:
            for answer in worker.run(job):
                for event in events.intersection(answer):
                    getattr(self.monitor, event)(*answer[event])
            if "error" in answer:
                raise TextladderError(answer["error"])
            if "result" not in answer:
                raise worker.failure(job)
            result: dict[str, Any] = answer["result"]
            return result
        finally:
            self.monitor.stop()
            worker.close()


def folder_name(job: Job) -> str:
    """The name of a training run's folder.

    >>> folder_name(Job("fit", "", "", "lstm", "default", {}, seed=1))
    'lstm-1'
    """
    fold = "" if job.fold is None else f"-fold-{job.fold}"
    return f"{job.level}-{job.seed}{fold}" + (f"-rows-{job.train_rows}" if job.train_rows else "")


def _digest(setting: str) -> str | None:
    """Digest of the file or folder that a setting names; None if it names neither.

    >>> _digest("no/such/file") is None
    True
    """
    path = Path(setting)
    if os.path.isfile(path):
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if os.path.isdir(path):
        files = sorted(one for one in path.iterdir() if one.is_file())
        contents = repr([(one.name, one.stat().st_size, _digest(str(one))) for one in files])
        return hashlib.sha256(contents.encode()).hexdigest()
    return None
