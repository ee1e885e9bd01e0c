"""The parser of the command `textladder`, and the flags that several commands have in common.

Each command adds its own flags (`commands/`); those of settings come from the configs (`setting_flags.py`). Nothing
heavy is imported, so that `--help` is quick.
"""

import argparse
import csv
import math
import re
import textwrap
from collections.abc import Collection
from typing import Any, NoReturn

from textladder.errors import ConfigError, unknown_name

DATA_HELP = (
    "a file (CSV or TSV, JSON, Parquet, Arrow, Excel, fastText; also compressed), a folder, - for standard input, "
    "sample, amazon-polarity, or a data set on the Hub"
)
# an argument in Python, such as `overwrite=True`, `vectors=FILE` or `label=`, and the flag that may follow it
PYTHON_ARGUMENT = re.compile(
    r"`?\b(?P<name>[a-z][a-z_]*)=(?:(?P<true>True)\b|\"(?P<quoted>[^\"`]*)\"|(?P<plain>[A-Z]+)\b|(?=`))`?"
    r"(?: \((?:or )?--[a-z-]+(?: on the command line)?\))?"
)
FORM_HELP = "form of the network to use: original, onnx-float32 or onnx-int8 [default: the fastest in the bundle]"


class HelpFormatter(argparse.HelpFormatter):
    """Breaks lines at spaces only, so that names with hyphens stay whole."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one sentence, and suggests the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake that argparse found.

        Raises:
            ConfigError: always.
        """
        known = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            words = message.removeprefix("unrecognized arguments: ").split()
            flag = next((word for word in words if word.startswith("-")), words[0])
            message = unknown_name("flag" if flag.startswith("-") else "argument", flag.split("=")[0], sorted(known))
        raise ConfigError(f"{message.rstrip('.')}." if not message.endswith("?") else message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown flag is reported by the command that received it."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            command = getattr(parsed, "parser", self)
            command.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed


def add_bundle(parser: Parser) -> None:
    """Add BUNDLE, and the flag for the form of its network."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder written by train, compare or export")
    parser.add_argument("--form", metavar="NAME", help=FORM_HELP)


def add_data(parser: Parser) -> None:
    """Add DATA, and the flags for its rows and columns."""
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    group = parser.add_argument_group("rows")
    group.add_argument("--test", metavar="FILE", help="held-out rows [default: a stratified 20%% of DATA]")
    group.add_argument("--rows", type=int, metavar="N", help="use a stratified random sample of N rows [default: all]")
    group.add_argument("--first", type=int, metavar="N", help="use the first N rows of DATA [default: all]")
    group.add_argument(
        "--test-first", type=int, metavar="N", help="use the first N rows of the test file [default: all]"
    )
    group.add_argument("--seed", type=int, metavar="N", help="random seed [default: 0]")
    add_column_flags(parser)
    group = parser.add_argument_group("labels")
    group.add_argument("--merge-labels", action="store_true", help="take labels that differ only in case for one")
    group.add_argument(
        "--missing-label", type=split_names, metavar="A,B", help="labels that mean that there is none; left out"
    )
    group.add_argument(
        "--rare-classes",
        choices=("error", "drop", "merge"),
        help="classes with few rows: error, drop their rows, or merge them into 'other'",
    )
    group.add_argument(
        "--min-class-rows", type=int, metavar="N", help="rows that a class needs not to be rare [default: 2]"
    )
    group.add_argument(
        "--label-names", type=named_labels, metavar="A=NAME,B=NAME", help="what people call labels, such as 1=World"
    )


def add_column_flags(parser: Parser, text: str = "all text columns", label: str = "detected") -> None:
    """Add the flags for columns and for reading files; `text` and `label` are the defaults that help shows."""
    group = parser.add_argument_group("input columns (detected and reported)")
    add_text_flag(group, text)
    group.add_argument("--label", metavar="NAME", help=f"label column [default: {label}]")
    group.add_argument("--drop-missing", action="store_true", help="leave out rows without a label")
    group.add_argument(
        "--unknown-labels",
        choices=("error", "drop", "wrong"),
        help="rows whose label was not seen in training: error, drop them, or count every prediction as wrong",
    )
    add_file_flags(parser)


def add_text_flag(group: Any, default: str) -> None:
    """Add the flag for the text columns."""
    help = f"text columns, separated by commas; their texts are joined with a space [default: {default}]"
    group.add_argument("--text", metavar="A,B", help=help)


def add_file_flags(parser: Parser) -> None:
    """Add the flags for reading a file."""
    group = parser.add_argument_group("reading files (detected and reported)")
    group.add_argument(
        "--columns", type=split_names, metavar="A,B,C", help="names for all columns, in place of those of a header"
    )
    group.add_argument("--file-encoding", metavar="NAME", help="text encoding, such as utf-8 or cp1252")
    group.add_argument("--delimiter", metavar="C", help="character between fields; tab for a tab")
    quoting = group.add_mutually_exclusive_group()
    quoting.add_argument("--quote", metavar="C", help="character around fields")
    quoting.add_argument("--no-quotes", dest="quote", action="store_const", const="", help="quotes are plain text")
    group.add_argument("--escape", metavar="C", help="character before a quote inside a quoted field")
    header = group.add_mutually_exclusive_group()
    header.add_argument(
        "--header", action="store_true", default=None, help="the first row holds the column names [default: detected]"
    )
    header.add_argument(
        "--no-header",
        dest="header",
        action="store_false",
        default=None,
        help="the first row is data [default: detected]",
    )
    group.add_argument("--skip-lines", type=int, metavar="N", help="lines to skip before the header")
    group.add_argument("--sheet", metavar="NAME", help="sheet of a spreadsheet [default: the first with rows]")
    group.add_argument(
        "--bad-rows",
        choices=("error", "skip"),
        metavar="NAME",
        help="rows that cannot be read: error (default) or skip",
    )


def file_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `read_texts` that belong to the flags of `add_file_flags`; those not given are left out."""
    names = ("columns", "file_encoding", "delimiter", "quote", "escape", "header", "skip_lines", "sheet", "bad_rows")
    given = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in given.items() if value is not None and value != []}


def label_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `read_texts` that belong to the flags for labels; those not given are left out."""
    names = ("merge_labels", "missing_label", "rare_classes", "min_class_rows", "unknown_labels", "label_names")
    given = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in given.items() if value}


def add_overwrite(parser: Parser, what: str) -> None:
    """Add the flag for replacing an output."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what} if it exists")


def in_flags(message: str, flags: Collection[str]) -> str:
    """An error's message with the flags of a command instead of the arguments in Python.

    >>> in_flags("runs exists; pass overwrite=True to replace it.", ["--overwrite"])
    'runs exists; pass --overwrite to replace it.'
    >>> in_flags("Pass `vectors=FILE` or name the column with `label=`.", ["--vectors", "--label"])
    'Pass --vectors FILE or name the column with --label.'
    """

    def flag(found: re.Match[str]) -> str:
        name = "--" + found["name"].replace("_", "-")
        value = found["quoted"] or found["plain"]
        return found[0] if name not in flags else f"{name} {value}" if value else name

    return PYTHON_ARGUMENT.sub(flag, message)


def flags_of(options: argparse.Namespace) -> list[str]:
    """The flags of the command that was parsed."""
    actions = options.parser._actions if hasattr(options, "parser") else []
    return [flag for action in actions for flag in action.option_strings]


def duration(words: str) -> float:
    """Seconds from `90s`, `30m` or `2h`.

    Raises:
        argparse.ArgumentTypeError: it is not a duration, or not above zero.

    >>> duration("30m")
    1800.0
    """
    number, unit = words[:-1], words[-1:]
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"expected a duration such as 90s, 30m or 2h; received {words!r}") from None
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"a duration must be above 0; received {words!r}")
    return seconds


def named_labels(words: str) -> dict[str, str]:
    """Labels with their names, separated by commas.

    Raises:
        argparse.ArgumentTypeError: there is no `=` between a label and its name.

    >>> named_labels("1=World, 2=Sports")
    {'1': 'World', '2': 'Sports'}
    """
    pairs = [word.partition("=") for word in split_names(words)]
    if not pairs or not all(label.strip() and name.strip() for label, _, name in pairs):
        raise argparse.ArgumentTypeError(f"expected labels with names, such as 1=World,2=Sports; received {words!r}")
    named = {label.strip(): name.strip() for label, _, name in pairs}
    if len(named) < len(pairs):
        raise argparse.ArgumentTypeError(f"a label has two names in {words!r}")
    return named


def split_names(words: str) -> list[str]:
    """Names separated by commas; a name that contains a comma is put in double quotes.

    >>> split_names('title, "text, full",')
    ['title', 'text, full']
    """
    return [word.strip() for word in next(csv.reader([words], skipinitialspace=True), []) if word.strip()]
