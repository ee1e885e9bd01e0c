"""Progress of long-running work: silent by default, a live progress bar in a terminal.

Imports nothing of textladder but `wording`, so that every step can report progress. `Monitor` does nothing; the
command line passes a `TerminalMonitor` when standard error is a terminal.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from textladder.wording import capitalized, counted, listed, printable, seconds_words

if TYPE_CHECKING:
    from rich.console import RenderableType


class Monitor:
    """Receives progress events and ignores them; subclasses override the ones they show."""

    def say(self, sentence: str) -> None:
        """Report something the user should know, such as an automatic choice or truncated texts."""

    def begin(self, heading: str) -> None:
        """Name what the following tasks belong to, such as one of several levels."""

    def left(self, seconds: float, then: Sequence[str]) -> None:
        """Report how long the rest of the work takes, from now on, but for some parts whose duration is not known."""

    def start(self, name: str, steps: int | None) -> None:
        """Start a task of `steps` steps; None if the number is unknown."""

    def advance(self, done: int, note: str = "") -> None:
        """Report that `done` steps of the current task are complete."""

    def validated(self, accuracy: float) -> None:
        """Report a validation run and its accuracy, a fraction."""

    def stop(self) -> None:
        """End the current task."""


class SpeakingMonitor(Monitor):
    """Prints sentences to standard error and shows no progress bar: for logs and pipes."""

    def say(self, sentence: str) -> None:
        """Print the sentence."""
        print(printable(sentence, lines=True), file=sys.stderr)


class TerminalMonitor(Monitor):
    """Shows a live progress bar with the remaining time on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._progress: Any = None
        self._task: Any = None
        self._heading = ""
        self._end, self._then = 0.0, list[str]()  # when the work of known duration ends, and what comes after

    def begin(self, heading: str) -> None:
        """Prefix the names of the following tasks with `heading`."""
        self._heading = f"{heading}: "

    def say(self, sentence: str) -> None:
        """Print the sentence above the progress bar."""
        self._console.print(printable(sentence, lines=True), markup=False, highlight=False)

    def left(self, seconds: float, then: Sequence[str]) -> None:
        """Show it below the progress bar."""
        self._end, self._then = time.monotonic() + seconds, list(then)

    def _left(self) -> str:
        return time_left_words(self._end - time.monotonic(), self._then)

    def start(self, name: str, steps: int | None) -> None:
        """Show a new progress bar."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.text import Text

        left = self._left

        class _Progress(Progress):
            """Progress bars with the time left for everything below."""

            def get_renderables(self) -> Iterable["RenderableType"]:
                yield self.make_tasks_table(self.tasks)
                if words := left():
                    yield Text(words, style="dim")

        self.stop()
        note = TextColumn("{task.fields[note]}", markup=False)
        name_column = TextColumn("{task.description}", markup=False)
        columns = (name_column, BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn(), note)
        self._progress = _Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(printable(f"{self._heading}{name}"), total=steps, note="")
        self._progress.start()

    def advance(self, done: int, note: str = "") -> None:
        """Update the progress bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)

    def stop(self) -> None:
        """Remove the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def say_truncated(
    truncated: int, texts: int, monitor: Monitor, *, noun: str = "text", limit: str = "the level's token limit"
) -> None:
    """Report how many of some texts a level truncated, if it truncated any; arguments as in `truncation_sentence`."""
    if truncated:
        monitor.say(truncation_sentence(truncated, texts, noun=noun, limit=limit))


def truncation_sentence(truncated: int, texts: int, *, noun: str, limit: str) -> str:
    """How many of some texts were truncated.

    Args:
        truncated: how many.
        texts: of how many.
        noun: what a text is called.
        limit: what they were truncated to.

    >>> truncation_sentence(1, 2000, noun="training text", limit="256 tokens")
    'Truncated 1 of 2,000 training texts to 256 tokens.'
    """
    return f"Truncated {truncated:,} of {counted(texts, noun)} to {limit}."


def time_left_words(seconds: float, then: Sequence[str]) -> str:
    """How long the rest of the work takes.

    Args:
        seconds: that the parts of known duration still take; not positive if nothing of them is left.
        then: the other parts.

    >>> time_left_words(840.0, ["ulmfit", "transformer"])
    'About 14 min left, then ulmfit and transformer'
    >>> time_left_words(3.2, []), time_left_words(-1.0, [])
    ('About 3.2 s left', '')
    """
    parts = [f"about {seconds_words(seconds)} left"] if seconds > 0 else []
    parts += [f"then {listed(then)}"] if then else []
    return capitalized(", ".join(parts))


def monitor_for_terminal() -> Monitor:
    """Return a progress bar if standard error is a terminal, else plain sentences."""
    return TerminalMonitor() if sys.stderr.isatty() else SpeakingMonitor()
