"""What a command of `textladder` is, and how commands read rows and print results."""

import argparse
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.flags import Parser, file_options, flags_of, in_flags, label_options
from textladder.wording import CONTROLS, printable

if TYPE_CHECKING:
    from textladder.data.labelled_texts import TextData
    from textladder.data.labels import Label
    from textladder.progress import Monitor

WIDTH = 80  # columns


def nothing_written(options: argparse.Namespace) -> str:
    """What an interruption leaves behind if a command writes its output at the end, all at once."""
    out = getattr(options, "out", None) or getattr(options, "output", None)
    return f"nothing was written to {out}" if out else "nothing was written"


def add_fresh(parser: Parser) -> None:
    """Add the flag that ignores checkpoints."""
    parser.add_argument("--fresh", action="store_true", help="start over instead of resuming an interrupted training")


def checkpoint_of(options: argparse.Namespace) -> Path:
    """Where a training is kept until its output is written."""
    return Path(f"{str(options.out).rstrip('/')}.partial")


def kept_checkpoint(options: argparse.Namespace) -> str:
    """What an interrupted training leaves behind."""
    checkpoint = checkpoint_of(options)
    if checkpoint.exists():
        return f"the training so far is kept in {checkpoint}; run the same command to resume"
    return nothing_written(options)


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: what it does, as a phrase that begins with a verb.
        add_flags: adds its flags to a parser; it also receives the command line, which may name a level.
        run: runs it with the parsed flags.
        kept: what an interrupted run leaves behind, as the end of a sentence.
        usage: the usage after its name, if there are too many flags to list them.
    """

    summary: str
    add_flags: Callable[[Parser, Sequence[str]], None]
    run: Callable[[argparse.Namespace], None]
    kept: Callable[[argparse.Namespace], str] = nothing_written
    usage: str | None = None


def terminal_monitor() -> "Monitor":
    """A progress bar in a terminal, sentences on standard error elsewhere."""
    from textladder.progress import monitor_for_terminal

    return monitor_for_terminal()


def read_rows(
    options: argparse.Namespace, seed: int, monitor: "Monitor", preset_reading: dict[str, Any] | None = None
) -> "TextData":
    """Read the rows that the flags ask for, and report what was read.

    Args:
        options: the parsed flags.
        seed: seed of the split.
        monitor: receives what was read.
        preset_reading: arguments of `read_texts` that belong to a preset; flags override them.

    Raises:
        DataError: the rows cannot be used.
    """
    from textladder.data.labelled_texts import read_texts

    reading = dict(preset_reading or {})
    if options.text:
        reading["text"] = options.text
    data = read_texts(
        options.data,
        test=options.test,
        label=options.label,
        **label_options(options),
        **file_options(options),
        rows=options.rows,
        first=options.first,
        test_first=options.test_first,
        drop_missing=options.drop_missing,
        seed=seed,
        **reading,
    )
    monitor.say(in_flags(data.description, flags_of(options)))
    return data


def label_and_name(label: "Label", name: str) -> str:
    """A label, followed by its display name if that differs."""
    from textladder.data.labels import same_label

    return name if same_label(str(label)) == same_label(name) else f"{label} {name}"


def show(lines: str) -> None:
    """Print lines, which may hold words of the user's files, so that a terminal obeys nothing in them."""
    print(printable(lines, lines=True))


def print_json(result: dict[str, Any]) -> None:
    """One JSON object on one line."""
    line = json.dumps(result, ensure_ascii=False)
    print(CONTROLS.sub(lambda one: f"\\u{ord(one[0]):04x}", line))  # JSON escapes only some of them itself


def print_wrapped(sentence: str, indent: str = "", first: str | None = None) -> None:
    """Print a sentence wrapped to the width of a terminal.

    Args:
        sentence: what to print.
        indent: what each line begins with.
        first: what the first line begins with, if that differs.
    """
    first = indent if first is None else first
    show(textwrap.fill(sentence, WIDTH, initial_indent=first, subsequent_indent=indent))
