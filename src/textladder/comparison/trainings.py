"""Trainings one after another, each in a process of its own, each kept as soon as it is done.

A training is a folder: the bundle, the predictions of the validation and test rows, and, written last, what was
measured. What is there from an earlier run with the same rows and settings is not trained again.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import numpy as np

from textladder.comparison.worker import PREDICTIONS, Job
from textladder.errors import ConfigError, TextladderError
from textladder.levels import find_level
from textladder.progress import Monitor

MEASURED = "measured.json"
SHARED_ROWS = ".rows"


class WorkerError(RuntimeError):
    """A worker ended with a traceback, which is the message."""


@dataclass(frozen=True)
class Training:
    """A level that was trained with one seed and measured.

    Attributes:
        folder: where it is.
        measured: what `train --json` says of it, its times, its memory and its size, and the job.
    """

    folder: Path
    measured: dict[str, Any]

    @property
    def bundle(self) -> Path:
        """The saved classifier."""
        return self.folder / "bundle"

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        seed: int = self.measured["job"]["seed"]
        return seed

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities, float32 (rows, classes), and the right classes, int64 (rows,), of `valid` or `test`."""
        labels, probabilities, parts = self._predictions
        chosen = parts == name
        return probabilities[chosen], labels[chosen]

    @property
    def right(self) -> np.ndarray:
        """Which test rows it got right, bool (rows,)."""
        probabilities, labels = self.part("test")
        right: np.ndarray = probabilities.argmax(axis=1) == labels
        return right

    @cached_property
    def _predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import pyarrow.parquet as pq

        table = pq.read_table(self.folder / PREDICTIONS)
        names = [name for name in table.column_names if name.startswith("probability of ")]
        place = {name.removeprefix("probability of "): number for number, name in enumerate(names)}
        labels = np.array([place[label] for label in table["label"].to_pylist()], np.int64)
        probabilities = np.stack([table[name].to_numpy() for name in names], axis=1)
        return labels, probabilities, np.array(table["part"].to_pylist())


class WarmWorker:
    """A process that imports a level's libraries while something else is done, for the first job on that level.

    Args:
        level: the level's name; None for no process.
    """

    def __init__(self, level: str | None) -> None:
        self.level = level
        self._worker = None if level is None else _Worker(find_level(level).libraries)

    def take(self, job: Job) -> "_Worker | None":
        """The process, if it is for this job and was not taken; else wait until it is quiet."""
        if self._worker is None:
            return None
        if job.level != self.level or job.kind == "measure":
            self._worker.wait()
            return None
        worker, self._worker = self._worker, None
        return worker

    def __enter__(self) -> "WarmWorker":
        return self

    def __exit__(self, *error: object) -> None:
        if self._worker is not None:
            self._worker.end()


class _Worker:
    """A process that waits for a job; what it complains of goes to a file."""

    def __init__(self, libraries: Sequence[str] = ()) -> None:
        # -P: nothing from the working folder
        command = [sys.executable, "-P", "-m", "textladder.comparison.worker", *libraries]
        self.complaints = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=self.complaints)  # noqa: S603
        self._imports = bool(libraries)

    def wait(self) -> None:
        """Until it has imported its libraries."""
        if self._imports:
            assert self.process.stdout is not None
            self.process.stdout.readline()
            self._imports = False

    def do(self, job: Job) -> Iterator[dict[str, Any]]:
        """Give it the job; what it says until it ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            self.process.stdin.flush()
        yield from map(json.loads, self.process.stdout)
        self.process.wait()

    def end(self) -> None:
        """Whatever it is at."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        self.complaints.close()


class TrainingStore:
    """The folder of a comparison, and who works in it.

    Args:
        folder: where trainings are kept.
        about: what must be the same for a kept training to count, besides the job: rows, versions, machine.
        monitor: is told how far each job is.
        ahead: a process that has begun already.
    """

    def __init__(self, folder: Path, about: dict[str, Any], monitor: Monitor, ahead: WarmWorker | None = None) -> None:
        self.folder, self.about, self.monitor, self.ahead = folder, about, monitor, ahead or WarmWorker(None)
        for left in folder.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)

    def train(self, job: Job, *, measure: bool = True, say: bool = True) -> Training:
        """A training, from an earlier run or new.

        Args:
            job: of the kind `fit`; its folder is given here.
            measure: also how quick the bundle is; else no bundle is kept.
            say: pass on what it says on the way; another seed says the same again.

        Raises:
            ConfigError: an earlier run trained it with other settings.
            TextladderError: it could not be trained.
        """
        if (found := self.kept(job)) is not None:
            return found
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.folder))
        try:
            job = replace(job, folder=str(part))
            measured = self.work(job, say=say)
            if measure:
                measured |= self.work(replace(job, kind="measure"))
                measured["bundle_mb"] = sum(file.stat().st_size for file in (part / "bundle").rglob("*")) / 1e6
            else:
                shutil.rmtree(part / "bundle")
            measured["job"] = self._described(job)
            (part / MEASURED).write_text(json.dumps(measured, ensure_ascii=False), encoding="utf-8")
            part.chmod(0o755)
            part.rename(self.folder / folder_name(job))
        finally:
            shutil.rmtree(part, ignore_errors=True)
        found = self.kept(job)
        assert found is not None
        return found

    def kept(self, job: Job) -> Training | None:
        """What an earlier run made of the same job.

        Raises:
            ConfigError: it is there, but with other rows or settings.
        """
        folder = self.folder / folder_name(job)
        if not folder.exists():
            return None
        try:
            measured = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
            same = measured["job"] == json.loads(json.dumps(self._described(job)))
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{folder}: this is no training of a comparison; say --overwrite to begin anew."
            ) from None
        if not same:
            raise ConfigError(
                f"{folder} was trained on other rows, with other settings or versions, or on another machine; give "
                "another --out, or say --overwrite to begin anew."
            )
        return Training(folder, measured)

    def _described(self, job: Job) -> dict[str, Any]:
        parts = ("level", "preset", "settings", "seed", "train_rows")
        named = {name: _digest(value) for name, value in job.settings.items() if isinstance(value, str)}
        files = {name: digest for name, digest in named.items() if digest is not None}
        return {**{name: getattr(job, name) for name in parts}, "files": files, **self.about}

    def work(self, job: Job, *, say: bool = True) -> dict[str, Any]:
        """Have a job done by a new process.

        Args:
            job: what is to be done.
            say: pass on its sentences.

        Raises:
            TextladderError: what the process says is wrong, or that it was killed.
            WorkerError: a bug.
        """
        self.monitor.start("starting a process", None)
        worker = self.ahead.take(job) or _Worker()
        answer: dict[str, Any] = {}
        try:
            for answer in worker.do(job):
                for call in (self._calls if say else self._calls - {"say"}).intersection(answer):
                    getattr(self.monitor, call)(*answer[call])
            if "mistake" in answer:
                raise TextladderError(answer["mistake"])
            if "result" not in answer:
                raise _failure(job, worker.process.returncode, worker.complaints)
            result: dict[str, Any] = answer["result"]
            return result
        finally:
            self.monitor.stop()
            worker.end()

    _calls = frozenset({"say", "start", "advance", "look", "stop"})


def folder_name(job: Job) -> str:
    """What the folder of a training is called.

    >>> folder_name(Job("fit", "", "", "lstm", "default", {}, seed=1))
    'lstm-1'
    """
    return f"{job.level}-{job.seed}" + (f"-rows-{job.train_rows}" if job.train_rows else "")


def _digest(setting: str) -> str | None:
    """What a file or a folder that a setting names holds; None if it names none.

    >>> _digest("no/such/file") is None
    True
    """
    path = Path(setting)
    if os.path.isfile(path):
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if os.path.isdir(path):
        files = sorted(one for one in path.iterdir() if one.is_file())
        return hashlib.sha256(
            repr([(one.name, one.stat().st_size, _digest(str(one))) for one in files]).encode()
        ).hexdigest()
    return None


def _failure(job: Job, status: int, complaints: IO[bytes]) -> Exception:
    """A process that ended without an answer: killed from outside, or a bug, which keeps its traceback."""
    if status < 0:
        name = signal.Signals(-status).name
        return TextladderError(f"The process was ended by {name}; for SIGKILL the machine may lack the memory.")
    complaints.seek(0)
    return WorkerError(f"{job.kind} of {job.level} failed:\n{complaints.read().decode(errors='replace')}")
