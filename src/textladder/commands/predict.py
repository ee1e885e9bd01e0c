"""`textladder predict`: labels for texts, or for every row of a file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from textladder.commands.command import (
    Command,
    label_and_name,
    nothing_written,
    print_json,
    terminal_monitor,
)
from textladder.errors import ConfigError
from textladder.flags import Parser, add_bundle, add_file_flags, add_overwrite, add_text_flag, file_options
from textladder.progress import say_truncated
from textladder.wording import counted

SHOWN = 56  # characters of a text on its line


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add BUNDLE, and the texts or files."""
    add_bundle(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="one or more texts to label; for a file, use --input")
    parser.add_argument("--input", metavar="FILE", help="predict every row of this file")
    parser.add_argument("--output", metavar="FILE", help="where to write the rows with their predictions")
    add_overwrite(parser, "the output")
    add_text_flag(parser, "those used in training")
    add_file_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Predict, and print the labels or write the file.

    Raises:
        ConfigError: neither texts nor files, or both.
    """
    from textladder.classifier import TextClassifier

    if bool(options.texts) == bool(options.input) or bool(options.input) != bool(options.output):
        raise ConfigError("Give either texts, or --input FILE with --output FILE.")
    classifier = TextClassifier.load(options.bundle, form=options.form)
    if options.input:
        from textladder.predict_file import predict_file

        rows = predict_file(
            classifier,
            options.input,
            options.output,
            text=options.text or None,
            **file_options(options),
            overwrite=options.overwrite,
            monitor=terminal_monitor(),
        )
        if options.json:
            print_json({"rows": rows, "output": options.output})
        else:
            print(f"{counted(rows, 'row')} predicted, written to {options.output}.")
        return
    scored = classifier.score(options.texts)
    say_truncated(scored.truncated, len(options.texts), terminal_monitor())
    found = [classifier.prediction(row) for row in scored.probabilities]
    if options.json:
        print_json({"predictions": [vars(one) for one in found]})
        return
    for text, one in zip(options.texts, found, strict=True):
        line = " ".join(text.split())
        shown = line[:SHOWN] + "..." if len(line) > SHOWN else line
        print(f"{label_and_name(one):<14} {one.probability:6.1%}  {shown}")


def kept(options: argparse.Namespace) -> str:
    """The predictions of a file so far are kept beside the output."""
    journal = f"{options.output}.partial"
    if options.output and Path(journal).exists():
        return f"the predictions so far are kept in {journal}; run the same command to resume"
    return nothing_written(options)


COMMAND = Command("label texts, or every row of a file", add_flags, run, kept)
