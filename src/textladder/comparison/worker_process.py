"""The parent's side of worker.py: starts worker processes, sends them jobs, reads their answers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from subprocess import PIPE
from typing import Any

from textladder.comparison.worker import Job
from textladder.cores import threads_environment
from textladder.errors import TextladderError
from textladder.levels import find_level


class WorkerError(RuntimeError):
    """A worker failed with a traceback, which is the message."""


class WorkerProcess:
    """A process that waits for one job.

    Args:
        libraries: modules that it imports before the job arrives.
        threads: number of threads for predictions; None for as many as this process would use.
    """

    def __init__(self, libraries: Sequence[str] = (), threads: int | None = None) -> None:
        # -P: modules in the working folder must not shadow libraries
        command = [sys.executable, "-P", "-m", "textladder.comparison.worker", *libraries]
        environment = os.environ if threads is None else {**os.environ, **threads_environment(threads)}
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=PIPE, stdout=PIPE, stderr=self._stderr, env=environment
        )
        self._importing = bool(libraries)

    def wait_for_imports(self) -> None:
        """Wait until it has imported its libraries."""
        if self._importing:
            assert self._process.stdout is not None
            self._process.stdout.readline()
            self._importing = False

    def run(self, job: Job) -> Iterator[dict[str, Any]]:
        """Send it the job and yield its answers until it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.wait_for_imports()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            self._process.stdin.flush()
        yield from map(json.loads, self._process.stdout)
        self._process.wait()

    def failure(self, job: Job) -> Exception:
        """The reason why it ended without a result: it was killed, or a bug, whose traceback is the message."""
        status = self._process.returncode
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; SIGKILL usually means out of memory" if name == "SIGKILL" else ""
            return TextladderError(f"The process was killed by {name}{hint}.")
        self._stderr.seek(0)
        return WorkerError(f"{job.kind} of {job.level} failed:\n{self._stderr.read().decode(errors='replace')}")

    def close(self) -> None:
        """Kill it if it is still running."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        self._stderr.close()


class WarmWorker:
    """A worker process that imports a level's libraries in the background, ready for the first job on that level.

    Args:
        level: the level's name; None for no process.
    """

    def __init__(self, level: str | None) -> None:
        self.level = level
        self._process = None if level is None else WorkerProcess(find_level(level).libraries)

    def take(self, job: Job) -> WorkerProcess | None:
        """Hand over the process if it suits the job and was not taken before.

        Otherwise wait until its imports are done, so that they do not disturb the measurements of the other process.
        """
        if self._process is None:
            return None
        if job.level != self.level or job.kind in ("export", "measure"):
            self._process.wait_for_imports()
            return None
        process, self._process = self._process, None
        return process

    def __enter__(self) -> "WarmWorker":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.close()
