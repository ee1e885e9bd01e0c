"""`textladder export`: a network as ONNX, kept only if it predicts as the original does."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from textladder.commands.command import Command, print_json, print_wrapped, show, terminal_monitor
from textladder.errors import ConfigError
from textladder.flags import Parser, add_column_flags, add_overwrite, file_options, label_options


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add BUNDLE, the texts to check on, and the form to write."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder written by train or compare")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="texts on which both forms must predict the same (labels are used if present)",
    )
    parser.add_argument(
        "--first", type=int, default=10_000, metavar="N", help="use the first N of them [default: 10000]"
    )
    parser.add_argument("--format", default="onnx", choices=("onnx",), help="the format to export to [default: onnx]")
    parser.add_argument(
        "--quantize", metavar="NAME", help="int8: smaller and faster, nearly as accurate [default: float32]"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="write a new bundle with only the exported form [default: add it to BUNDLE]"
    )
    add_overwrite(parser, "the output")
    add_column_flags(parser, text="those used in training", label="the one used in training")


def run(options: argparse.Namespace) -> None:
    """Export, and print what was compared and how fast the exported form is.

    Raises:
        ConfigError: no texts to compare on.
    """
    from textladder.atomic_files import locked
    from textladder.bundle import read_bundle
    from textladder.data.labelled_texts import read_perhaps_labelled
    from textladder.export import export_bundle
    from textladder.wording import short

    if options.first < 1:
        raise ConfigError(f"--first must be 1 or more; received {options.first}.")
    about = read_bundle(options.bundle).manifest
    with locked(Path(options.out or options.bundle), "bundle"):
        texts = read_perhaps_labelled(
            options.data,
            about["labels"],
            text=options.text or about["text_columns"],
            label=options.label or about["label_column"],
            **label_options(options),
            **file_options(options),
            drop_missing=options.drop_missing,
            first=options.first,
        )
        found = export_bundle(
            options.bundle,
            texts,
            quantize=options.quantize,
            out=options.out,
            overwrite=options.overwrite,
            monitor=terminal_monitor(),
        )
    if options.json:
        print_json(found.as_dict())
        return
    print_wrapped(f"{found.form} passed: {found.gate.sentence()}")
    show(
        f"Latency per text: {short(found.milliseconds)} ms ({short(found.original_milliseconds)} ms for the original)."
    )
    show(f'Saved in {found.bundle} ({short(found.megabytes)} MB). Try: textladder predict {found.bundle} "a text"')


COMMAND = Command("export to ONNX after checking that predictions match", add_flags, run)
