"""Processes of this machine, each with its share of the cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from textladder.cores import available_cores, threads_environment
from textladder.errors import ConfigError, TextladderError


class LocalEngine:
    """As many processes as there are cores, or as asked for.

    Processes are spawned, so a script that uses this begins with `if __name__ == "__main__":`, as with every pool of
    processes in Python.

    Args:
        workers: how many processes; None for one for each core.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Start nothing yet.

        Raises:
            ConfigError: `workers` is not positive.
        """
        cores = available_cores()
        if workers is not None and workers < 1:
            raise ConfigError(f"`workers=` must be at least 1; received {workers}.")
        self.workers = workers or cores
        self._pool = ProcessPoolExecutor(
            self.workers,
            multiprocessing.get_context("spawn"),
            _start,
            (threads_environment(max(1, cores // self.workers)),),
        )

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "_Result":
        """Compute `function(*arguments)` in one of the processes."""
        return _Result(self._pool.submit(function, *arguments))

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # nobody waits for what they compute
            for process in list(self._pool._processes.values()):
                process.kill()
        self._pool.shutdown(cancel_futures=True)


class _Result:
    def __init__(self, future: "Future[Any]") -> None:
        self._future = future

    def result(self) -> Any:
        try:
            return self._future.result()
        except BrokenProcessPool:
            raise TextladderError(
                "One of the processes was killed, as happens where memory is too small for so many; fewer --workers "
                "need less."
            ) from None


def _start(environment: dict[str, str]) -> None:
    """Prepare a process: its threads, Ctrl-C is for the parent, and without the parent it ends."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
