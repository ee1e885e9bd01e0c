"""How long work is watched: nothing by default, a live bar in a terminal.

Beside `errors` at the bottom of the house, so that every step can report. `Monitor` is silent; the command
line hands out a `TerminalMonitor` when standard error is a terminal.
"""

import sys
from typing import Any


class Monitor:
    """Is told what happens; this one keeps quiet."""

    def say(self, sentence: str) -> None:
        """Something worth knowing: a choice that was made, texts that were cut."""

    def begin(self, heading: str) -> None:
        """What the next pieces of work belong to: a level, of several."""

    def start(self, name: str, steps: int | None) -> None:
        """A piece of work of so many steps begins."""

    def advance(self, done: int, note: str = "") -> None:
        """So many steps of the present piece of work are done."""

    def look(self, accuracy: float) -> None:
        """The validation rows were looked at, with this accuracy."""

    def stop(self) -> None:
        """The present piece of work is over."""


class SpeakingMonitor(Monitor):
    """Says its sentences on standard error and shows no bar: for logs and pipes."""

    def say(self, sentence: str) -> None:
        """Print the sentence."""
        print(sentence, file=sys.stderr)


class TerminalMonitor(Monitor):
    """A live bar with the time left, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._progress: Any = None
        self._task: Any = None
        self._heading = ""

    def begin(self, heading: str) -> None:
        """Show it before what follows."""
        self._heading = f"{heading}: "

    def say(self, sentence: str) -> None:
        """Print the sentence above the bar."""
        self._console.print(sentence, markup=False, highlight=False)

    def start(self, name: str, steps: int | None) -> None:
        """Show a new bar."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.stop()
        note = TextColumn("{task.fields[note]}", markup=False)
        name_column = TextColumn("{task.description}", markup=False)
        columns = (name_column, BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn(), note)
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(f"{self._heading}{name}", total=steps, note="")
        self._progress.start()

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def monitor_for_terminal() -> Monitor:
    """A bar where a person watches, plain sentences where none does."""
    return TerminalMonitor() if sys.stderr.isatty() else SpeakingMonitor()
