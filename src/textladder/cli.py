"""The command `textladder`: parses the command line, runs a command of `commands/`, and reports mistakes.

A user's mistake is one sentence on standard error and exit status 2; anything else that is raised keeps its traceback.
Nothing heavy is imported before a command needs it.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn

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
        options = parse(words)
        options.words = words
        COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except TextladderError as error:
        return fail(error, flags_of(options))
    except KeyboardInterrupt:
        command = getattr(options, "command", None)
        kept = COMMANDS[command].kept(options) if command else "nothing was written"
        print(f"\ntextladder: interrupted; {printable(kept)}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if own_process:
            _discard_output()
        return BROKEN_PIPE
    except OSError:
        try:
            sys.stdout.flush()  # fails again if it was standard output that could not be written
        except OSError as error:
            if own_process:
                _discard_output()
            return fail(TextladderError(f"Standard output could not be written ({error.strerror})."))
        raise
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


def _discard_output() -> None:
    """Or Python reports the failure again as it flushes the stream at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _set_up_process() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, and escape characters that standard output cannot encode.

    A signal that is ignored, as SIGHUP is under `nohup`, stays ignored. A stream that is closed is one nobody reads.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and is not ignored
        signal.signal(signal.SIGINT, _interrupt)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
