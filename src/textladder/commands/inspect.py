"""`textladder inspect`: what is in a file, how it is written, and which columns would be used."""

import argparse
from collections.abc import Sequence

from textladder.commands.command import Command, print_json, print_wrapped, show
from textladder.flags import DATA_HELP, Parser, add_file_flags, add_overwrite, add_text_flag, file_options, in_flags
from textladder.wording import counted

SHOWN_LABELS = 12
# of `train` and `compare`, which the notes are for
KNOWN_FLAGS = ("--label", "--text", "--missing-label", "--merge-labels", "--rare-classes")


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add DATA, and the flags for its columns and for reading files."""
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--csv", metavar="FILE", help="also write all rows to this file, as plain UTF-8 CSV")
    add_overwrite(parser, "the CSV file")
    add_text_flag(parser, "all text columns")
    parser.add_argument("--label", metavar="NAME", help="label column [default: detected]")
    add_file_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Look at the data, and print what was found."""
    from textladder.data.inspection import inspect_rows

    found = inspect_rows(
        options.data,
        text=options.text,
        label=options.label,
        csv_file=options.csv,
        overwrite=options.overwrite,
        **file_options(options),
    )
    if options.json:
        print_json(found.as_dict())
        return
    print_wrapped(f"{found.source} ({found.form}): {counted(found.rows, 'row')}.")
    width = max((len(one.name) for one in found.columns), default=0)
    for one in found.columns:
        print_wrapped(
            f"{one.kind:<8} {one.role}{f'; {one.example!r}' if one.example else ''}",
            indent=" " * (width + 4),
            first=f"  {one.name:<{width}}  ",
        )
    if found.labels:
        shown = ", ".join(f"{name} {count:,}" for name, count in list(found.labels.items())[:SHOWN_LABELS])
        more = f", ... {len(found.labels)} labels" if len(found.labels) > SHOWN_LABELS else ""
        print_wrapped(f"Rows of each label: {shown}{more}.")
    for warning in found.warnings:
        print_wrapped(f"Note: {in_flags(warning, KNOWN_FLAGS)}")
    if options.csv:
        show(f"Written to {options.csv}.")


COMMAND = Command("show what is in a file and how it would be read", add_flags, run)
