"""The command `textladder`: parses the command line, runs a command of `commands/`, and reports mistakes.

A user's mistake is one sentence on standard error and exit status 2; anything else that is raised keeps its traceback.
Nothing heavy is imported before a command needs it.
"""

import argparse
import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from textladder import __version__
from textladder.commands import COMMANDS
from textladder.errors import ConfigError, TextladderError, unknown_name
from textladder.flags import HelpFormatter, Parser, flags_of, in_flags
from textladder.wording import printable

MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # exit statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words after `textladder`; by default those of this process, which is then set up for the command:
            its signal handlers, and how standard output prints characters that it cannot encode.

    Returns:
        The exit status: 0, 2 for a user's mistake, 130 when interrupted, 141 when nobody reads the output.
    """
    own_process = arguments is None
    if own_process:
        _set_up_process()
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace()
    try:
        try:
            options = parse(words)
        finally:
            sys.stdout.flush()  # help is printed
        options.words = words
        COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except TextladderError as error:
        return fail(error, flags_of(options))
    except KeyboardInterrupt:
        if own_process:
            _set_handlers(signal.SIG_IGN)  # another signal would end the sentence that follows
        command = getattr(options, "command", None)
        kept = COMMANDS[command].kept(options) if command else "nothing was written"
        print(f"\ntextladder: interrupted; {printable(kept)}.", file=sys.stderr)
        if own_process:
            _leave_threads()
        return INTERRUPTED
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        return fail(TextladderError(f"There is not enough memory{reason}."))
    except BrokenPipeError:
        return BROKEN_PIPE
    finally:
        with contextlib.suppress(OSError, TextladderError):  # or Python would report it at exit
            sys.stdout.flush()
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Args:
        words: what follows `textladder`. `help COMMAND` is `COMMAND --help`, and no words are `--help`.

    Returns:
        The flags; `command` is the command's name.

    Raises:
        ConfigError: an unknown command or flag, or a flag without its value.
        SystemExit: help was printed.
    """
    if "help" in words[:1]:
        words = [*words[1:], "--help"]
    # argparse would only say "invalid choice"; this error suggests the nearest command
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise ConfigError(unknown_name("command", words[0], list(COMMANDS)))
    parsed: argparse.Namespace = make_parser(words).parse_args(words or ["--help"])
    return parsed


def make_parser(words: Sequence[str]) -> Parser:
    """The parser of all commands, with the flags of the one that the words name."""
    parser = Parser(
        prog="textladder",
        description="Train text classifiers of increasing complexity on your texts, and find out which is worth it.",
        epilog="Flags of a command: textladder help COMMAND, or textladder COMMAND --help",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"textladder {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=Parser
    )
    for name, command in COMMANDS.items():
        own: Parser = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            usage=command.usage and f"textladder {name} {command.usage}",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        own.set_defaults(parser=own)
        if name in words[:1]:  # the flags of settings are read from the levels, which takes time
            command.add_flags(own, words)
        own.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def fail(error: TextladderError, flags: Collection[str] = ()) -> int:
    """Print what is wrong.

    Args:
        error: what was raised.
        flags: of the command; where the error names a Python argument, its flag is printed.

    Returns:
        The exit status of a user's mistake.
    """
    print(f"textladder: {printable(in_flags(str(error), flags), lines=True)}", file=sys.stderr)
    return MISTAKE


class _Interrupted(KeyboardInterrupt):
    """Raised instead of a plain KeyboardInterrupt, after which Python may still end by SIGINT although it was caught.

    That happens under `python -m` if code compiled from a string was interrupted, such as a dataclass being defined.
    """


def _interrupt(number: int, frame: object) -> NoReturn:
    raise _Interrupted


def _set_handlers(handler: Callable[[int, object], NoReturn] | signal.Handlers) -> None:
    """Handle the signals that end a process, but for those that it was told to ignore."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


class _StandardOutput:
    """Standard output of this process; once it cannot be written, the rest is discarded.

    Or Python would report the failure again as it flushes the stream at exit.

    Args:
        stream: what it is otherwise.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        with self._failures():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._failures():
            self._stream.flush()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise TextladderError(f"Standard output could not be written ({error.strerror}).") from None


def _leave_threads() -> None:
    """End this process if a thread still works, such as one that loads a bundle, for which Python would wait."""
    if any(not one.daemon for one in threading.enumerate() if one is not threading.main_thread()):
        try:
            with contextlib.suppress(OSError, TextladderError):
                sys.stdout.flush()
            atexit._run_exitfuncs()
        finally:
            os._exit(INTERRUPTED)


def _set_up_process() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, escape what standard output cannot encode, and handle its failures.

    A signal that is ignored, as SIGHUP is under `nohup`, stays ignored. A stream that is closed is one nobody reads.
    """
    _set_handlers(_interrupt)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    elif not isinstance(sys.stdout, _StandardOutput):
        with contextlib.suppress(AttributeError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stdout = _StandardOutput(sys.stdout)
