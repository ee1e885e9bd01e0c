"""Processes of this machine, each with its share of the cores.

Each has a connection of its own, so that its end is noticed whatever it was doing: the processes of
`concurrent.futures` share queues, and one that is killed as it sends a result is waited for without end (Python 3.11).
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from textladder.cores import available_cores, threads_environment
from textladder.engines.base import EngineError
from textladder.errors import ConfigError

MOST_WORKERS = 1024
DIED = "A worker process ended unexpectedly, perhaps because memory ran out: try fewer --workers"
Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class LocalEngine:
    """As many processes as there are cores, or as asked for; they start when they are needed.

    Processes are spawned, so a script that uses this begins with `if __name__ == "__main__":`, as with every pool of
    processes in Python.

    Args:
        workers: how many processes; None for one for each core.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Start nothing yet.

        Raises:
            ConfigError: the number of workers is out of range.
        """
        if workers is not None and not 1 <= workers <= MOST_WORKERS:
            raise ConfigError(f"`workers=` must be from 1 to {MOST_WORKERS}; received {workers}.")
        cores = available_cores()
        self.workers = workers or cores
        self._environment = threads_environment(max(1, cores // self.workers))
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._processes: list[Any] = []
        self._threads: list[threading.Thread] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Compute `function(*arguments)` in one of the processes.

        Raises:
            EngineError: a process cannot be started.
        """
        if len(self._processes) < self.workers:
            self._start_process()
        future: Future[Any] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:  # nobody waits for what they compute
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for one in (*self._threads, *self._processes):
            one.join()

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, its = context.Pipe()
        process = context.Process(target=_serve, args=(its,), daemon=True)
        try:
            with _without_interrupts(), _in_environment(self._environment):
                process.start()
        except OSError as error:
            raise EngineError(
                f"A worker process could not be started ({error.strerror or error}): try fewer --workers"
            ) from None
        its.close()  # so that the end of the process is the end of the connection
        self._processes.append(process)
        thread = threading.Thread(target=_pass_on, args=(self._tasks, ours), daemon=True)
        self._threads.append(thread)
        thread.start()


def _pass_on(tasks: "queue.SimpleQueue[Task | None]", connection: Connection) -> None:
    """Give a process one task after the other, and their results to those who wait for them."""
    alive = True
    with connection:
        while (task := tasks.get()) is not None:
            future, *work = task
            try:
                if alive:
                    connection.send(work)
                    value, error = connection.recv()
                else:
                    value, error = None, EngineError(DIED)
            except (EOFError, OSError):
                alive, value, error = False, None, EngineError(DIED)
            except Exception as unsendable:
                value, error = None, unsendable
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Have a process that is started here, of which this one takes care, ignore Ctrl-C from its beginning."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Start processes with these variables, which NumPy's and torch's libraries read as they are loaded."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection) -> None:
    """Compute what comes, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            function, arguments = connection.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(*arguments), None
            except Exception as error:
                answer = None, error
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
