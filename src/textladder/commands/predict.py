"""`textladder predict`: labels for texts, or for every row of a file."""

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.commands.command import (
    Command,
    label_and_name,
    nothing_written,
    print_json,
    show,
    terminal_monitor,
)
from textladder.engines import ENGINES, open_engine
from textladder.errors import ConfigError
from textladder.flags import Parser, add_bundle, add_file_flags, add_overwrite, add_text_flag, file_options
from textladder.progress import say_truncated
from textladder.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from textladder.classifier import TextClassifier

SHOWN = 56  # characters of a text on its line


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add BUNDLE, and the texts or files."""
    add_bundle(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="one or more texts to label; for a file, use --input")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="predict every row of this file, of the files in this folder, or of those that a pattern such as "
        "'in/*.csv' stands for; - for standard input",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="where to write the rows with their predictions; a folder for several files"
    )
    add_overwrite(parser, "the output")
    parser.add_argument("--top-k", type=int, metavar="K", default=1, help="give the K best labels [default: 1]")
    parser.add_argument("--probabilities", action="store_true", help="give the probability of every label")
    parser.add_argument(
        "--engine", choices=ENGINES, help="predict the rows of a file in worker processes [default: in this process]"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of worker processes of an engine [default: one for each core]"
    )
    parser.add_argument(
        "--part",
        type=_part,
        metavar="K/N",
        help="predict only the K-th of N parts of the rows, or of the files [default: 1/1]",
    )
    add_text_flag(parser, "those used in training")
    add_file_flags(parser)


def run(options: argparse.Namespace) -> None:
    """Predict, and print the labels or write the file.

    Raises:
        ConfigError: neither texts nor files, or both.
    """
    from textladder.classifier import TextClassifier
    from textladder.predict_file import check_top_k, predict_file
    from textladder.predict_folder import predict_folder, several_files

    if bool(options.texts) == bool(options.input) or bool(options.input) != bool(options.output):
        raise ConfigError("Give either texts, or --input FILE with --output FILE.")
    for name in ("engine", "part"):
        if getattr(options, name) and not options.input:
            raise ConfigError(f"--{name} is for the rows of --input FILE.")
    if options.workers is not None and not options.engine:
        raise ConfigError(f"--workers needs an engine: add --engine {ENGINES[0]}.")
    classifier = TextClassifier.load(options.bundle, form=options.form)
    if options.input:
        files = several_files(options.input)
        source: Any = options.input if files is None else files
        predict = predict_file if files is None else predict_folder
        with nullcontext() if options.engine is None else open_engine(options.engine, options.workers) as engine:
            rows = predict(
                classifier,
                source,
                options.output,
                text=options.text or None,
                top_k=options.top_k,
                probabilities=options.probabilities,
                **file_options(options),
                overwrite=options.overwrite,
                monitor=terminal_monitor(),
                engine=engine,
                part=options.part or (1, 1),
            )
        if options.json:
            print_json({"rows": rows, "output": options.output})
        else:
            show(f"{counted(rows, 'row')} predicted, written to {options.output}.")
        return
    scored = classifier.score(options.texts)
    say_truncated(scored.truncated, len(options.texts), terminal_monitor())
    check_top_k(options.top_k, classifier.labels)
    if options.json:
        print_json({"predictions": [_as_dict(classifier, row, options.top_k) for row in scored.probabilities]})
        return
    number = len(classifier.labels) if options.probabilities else options.top_k
    for text, row in zip(options.texts, scored.probabilities, strict=True):
        line = " ".join(text.split())
        shown = line[:SHOWN] + "..." if len(line) > SHOWN else line
        for place, (label, name, probability) in enumerate(classifier.most_probable(row, number)):
            show(f"{label_and_name(label, name):<14} {probability:6.1%}  {'' if place else shown}".rstrip())


def _part(text: str) -> tuple[int, int]:
    """The type of --part.

    >>> _part("3/16")
    (3, 16)
    """
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"must be K/N, such as 3/16, with K from 1 to N; received {text!r}")
    return int(number), int(parts)


def _as_dict(classifier: "TextClassifier", probabilities: "np.ndarray", top_k: int) -> dict[str, Any]:
    """A prediction by name; with `top`, the most probable labels, if more than one is asked for."""
    found = vars(classifier.prediction(probabilities))
    if top_k == 1:
        return found
    names = ("label", "name", "probability")
    best = classifier.most_probable(probabilities, top_k)
    return {**found, "top": [dict(zip(names, one, strict=True)) for one in best]}


def kept(options: argparse.Namespace) -> str:
    """The predictions of a file so far are kept beside the output."""
    journal = f"{options.output}.partial"
    if options.output and os.path.isdir(options.output):
        then = "the same command starts over" if options.overwrite else "run the same command to resume"
        return f"what is finished is in {options.output}; {then}"
    if options.overwrite and options.output:
        return "the output is as it was before, and the same command starts over"
    if options.output and Path(journal).exists():
        return f"the predictions so far are kept in {journal}; run the same command to resume"
    return nothing_written(options)


COMMAND = Command("label texts, or every row of a file", add_flags, run, kept)
