"""What every engine offers."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from textladder.errors import TextladderError


class EngineError(TextladderError):
    """A worker process was killed, or could not be started; the sentence has no full stop, so that it can go on."""


class Result(Protocol):
    """The result of a function, once there is one."""

    def result(self) -> Any:
        """Wait for it.

        Raises:
            EngineError: the process that computed it was killed.
            Exception: whatever the function raised.
        """


class Engine(Protocol):
    """Runs functions in other processes, which start when they are needed. At the end of its block they are gone.

    Attributes:
        workers: how many functions are computed at a time.
    """

    workers: int

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Result:
        """Compute `function(*arguments)`: a function of a module, and arguments that can be pickled."""

    def __enter__(self) -> "Engine":
        """Nothing happens yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes, at once if there was an error."""
