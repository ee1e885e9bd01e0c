"""`textladder audit`: what is wrong with labelled texts, before anything is trained."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textladder.commands.command import Command, print_json, print_wrapped, read_rows, show, terminal_monitor
from textladder.errors import ConfigError, unknown_name
from textladder.flags import Parser, add_data, add_overwrite, file_options, flags_of, in_flags, split_names
from textladder.setting_flags import add_shared_settings, level_settings_of
from textladder.wording import counted

if TYPE_CHECKING:
    from textladder.audit import Audit


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add DATA, the levels whose tokens to count, and the output."""
    add_data(parser)
    parser.add_argument("--levels", type=split_names, metavar="A,B", help="levels whose tokens to count [default: all]")
    parser.add_argument(
        "--fix", metavar="NAME", help="drop-leaks: write DATA without the rows that also occur among the test rows"
    )
    parser.add_argument("--output", metavar="FILE", help="where --fix writes the rows, in DATA's format")
    add_overwrite(parser, "the output")
    add_shared_settings(parser)


def run(options: argparse.Namespace) -> None:
    """Audit, print the findings, and write the rows without leaks if asked to.

    Raises:
        ConfigError: flags that do not go together.
    """
    from textladder.audit import audit_texts
    from textladder.levels import LEVELS

    _check(options)
    monitor = terminal_monitor()
    settings, seed = level_settings_of(options, options.levels)
    data = read_rows(options, seed, monitor)
    found = audit_texts(data, levels=options.levels or tuple(LEVELS), settings=settings, seed=seed, monitor=monitor)
    numbers = found.as_dict()
    if options.output:
        numbers["rows_written"] = _write_without_leaks(options, found, data.label_column)
    if options.json:
        print_json(numbers)
        return
    for finding in found.findings():
        print_wrapped(in_flags(finding, flags_of(options)), indent="  ", first="- ")
    if options.output:
        show(f"{counted(numbers['rows_written'], 'row')} without leaks written to {options.output}.")


def _check(options: argparse.Namespace) -> None:
    from textladder.comparison.compare import FIXES

    if options.fix is not None and options.fix not in FIXES:
        raise ConfigError(unknown_name("fix", options.fix, FIXES))
    if (options.fix is None) != (options.output is None) or (options.fix and not options.test):
        raise ConfigError("--fix drop-leaks needs --output FILE and --test FILE; without a test file, use compare.")
    if options.fix and (options.rows or options.first):
        raise ConfigError(
            "--fix drop-leaks writes all of DATA, so it cannot be combined with --rows or --first; leave them out."
        )


def _write_without_leaks(options: argparse.Namespace, found: "Audit", label: str) -> int:
    """Write DATA without the rows that leak, and return how many are left."""
    from textladder.data.row_rewriting import without_rows

    return without_rows(
        options.data,
        options.output,
        {row for row, _, _ in found.leaks},
        label=label,
        **file_options(options),
        overwrite=options.overwrite,
    )


COMMAND = Command("report what is wrong with labelled texts before training", add_flags, run, usage="DATA [FLAGS]")
