"""Run one command over and over, each time killed before another of its changes to the file system, and then again.

    python kill_each.py FOLDER COMMAND...

FOLDER holds what the command needs, under the names that COMMAND uses. For every change a copy of it is made,
the command is killed with SIGKILL before that change, run again and killed before another one, then run to its end. One
line of JSON is printed for each copy: its place, copies of what the killed runs left, the exit status of the last run
and what it printed.

Every attempt is a fork of this process, which has imported everything, so that it takes a fraction of a second; so are
the processes that a comparison starts, whose changes count too, and which are killed with it. A hook of Python's audit
events counts the changes. A training writes a checkpoint after every epoch, whatever it costs.
"""

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import textladder.atomic_files as atomic_files
import textladder.classifier
import textladder.export  # noqa: F401
from textladder.cli import main
from textladder.comparison import worker, worker_process

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Changes:
    """Counts the changes below a folder that this process and its forks make, and kills them before one of them."""

    def __init__(self, folder: Path, kill_at: int | None, seen: Any) -> None:
        self.folder, self.kill_at, self.seen = str(folder), kill_at, seen
        sys.addaudithook(self)
        # two changes of which Python tells nobody
        for module, name in ((os, "fsync"), (atomic_files, "_exchanged")):
            setattr(module, name, self._counted(getattr(module, name)))

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and arguments[2] is not None and arguments[2] & WRITING)
        if changes and self._is_inside(arguments):
            self._count()

    def _is_inside(self, arguments: tuple[Any, ...]) -> bool:
        place = arguments[0]
        if isinstance(place, int):
            return False
        if any(isinstance(one, int) and one > 2 for one in arguments[1:] if one is not arguments[-1]):
            return True  # relative to an open folder
        return os.path.abspath(os.fsdecode(place)).startswith(self.folder)

    def _count(self) -> None:
        with self.seen.get_lock():
            self.seen.value += 1
            if self.seen.value == self.kill_at:
                os.killpg(0, signal.SIGKILL)

    def _counted(self, function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            self._count()
            return function(*arguments)

        return counted


class ForkedWorker:
    """In place of the subprocess.Popen of a worker: a fork that need not import anything."""

    returncode: int | None = None

    def __init__(self, command: Sequence[str], *, stderr: IO[bytes], **options: Any) -> None:
        (its_input, jobs), (answers, its_output) = os.pipe(), os.pipe()
        self._process = os.fork()
        if self._process == 0:
            status = 1
            try:
                for descriptor, standard in ((its_input, 0), (its_output, 1), (stderr.fileno(), 2)):
                    os.dup2(descriptor, standard)
                for descriptor in (its_input, its_output, jobs, answers):
                    os.close(descriptor)
                sys.argv = list(command[command.index("-m") + 1 :])
                sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
                worker.main()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(its_input)
        os.close(its_output)
        self.stdin, self.stdout = os.fdopen(jobs, "wb"), os.fdopen(answers, "rb")

    def wait(self) -> None:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self._process, signal.SIGKILL)


def attempt(
    folder: Path, command: list[str], kill_at: int | None = None, kill_after: float | None = None
) -> dict[str, Any]:
    """Run the command in a fork, in a folder; its exit status, its changes, and the end of what it printed.

    It is killed before the change `kill_at`, or after `kill_after` seconds.
    """
    log, seen = folder.with_suffix(".log"), multiprocessing.Value("i", 0)
    process = os.fork()
    if process == 0:
        status = 70
        try:
            os.setpgrp()
            os.chdir(folder)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            Changes(folder, kill_at, seen)
            status = main(command)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    killer = threading.Timer(kill_after or 0, os.kill, (process, signal.SIGKILL))
    if kill_after is not None:
        killer.start()
    _, status = os.waitpid(process, 0)
    killer.cancel()
    # the lock of `seen` may have been held as they were killed
    printed = log.read_text(errors="replace")[-600:] if log.exists() else ""
    return {"status": os.waitstatus_to_exitcode(status), "changes": seen.get_obj().value, "printed": printed}


def import_for(command: list[str]) -> None:
    """Import what the command would import, in workers too."""
    worker_process.subprocess = SimpleNamespace(Popen=ForkedWorker)  # type: ignore[assignment]
    importlib.import_module(f"textladder.commands.{command[0].replace('-', '_')}")
    if command[0] == "compare":
        for module in ("cleanlab.filter", "scipy.stats", "textladder.comparison.report"):
            importlib.import_module(module)
    level = command[command.index("--level") + 1] if "--level" in command else "tfidf"
    importlib.import_module(f"textladder.levels.{level}")
    if level != "tfidf" or command[0] == "pretrain":
        for module in ("levels.lstm", "levels.ulmfit", "training.pretraining", "training.learner"):
            importlib.import_module(f"textladder.{module}")
        importlib.import_module("textladder.training.checkpoints").COST = 0.0


def kill_each(folder: Path, command: list[str]) -> None:
    """Kill before each change, kill again before another one, and run to the end."""
    import_for(command)
    whole = folder.with_name("undisturbed")
    shutil.copytree(folder, whole)
    found = attempt(whole, command)
    changes = found["changes"]
    print(json.dumps({"place": str(whole), **found}), flush=True)
    for number in range(1, changes + 1):
        place, seen = folder.with_name(f"killed-{number}"), []
        shutil.copytree(folder, place)
        for kill_at in (number, 1 + 7 * number % changes, None):
            last = attempt(place, command, kill_at)
            if last["status"] != -signal.SIGKILL:
                break
            seen.append(str(folder.with_name(f"seen-{number}-{len(seen)}")))
            shutil.copytree(place, seen[-1], symlinks=True)
        print(json.dumps({"place": str(place), "seen": seen, **last}), flush=True)


if __name__ == "__main__":
    kill_each(Path(sys.argv[1]).resolve(), sys.argv[2:])
