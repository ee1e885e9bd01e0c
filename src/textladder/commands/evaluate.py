"""`textladder evaluate`: a bundle on other labelled texts."""

import argparse
import time
from collections.abc import Sequence

from textladder.commands.command import Command, print_json, terminal_monitor
from textladder.flags import DATA_HELP, Parser, add_bundle, add_column_flags, file_options, label_options
from textladder.progress import say_truncated
from textladder.wording import counted


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add BUNDLE, and the rows to evaluate it on."""
    add_bundle(parser)
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    add_column_flags(parser, text="those used in training", label="the one used in training")


def run(options: argparse.Namespace) -> None:
    """Predict the rows, and print the metrics."""
    from textladder.classifier import TextClassifier
    from textladder.data.labelled_texts import read_labelled
    from textladder.metrics import accuracy_sentence, evaluate

    classifier = TextClassifier.load(options.bundle, form=options.form)
    rows = read_labelled(
        options.data,
        classifier.labels,
        text=options.text or list(classifier.text_columns),
        label=options.label or classifier.label_column,
        **label_options(options),
        **file_options(options),
        drop_missing=options.drop_missing,
    )
    monitor = terminal_monitor()
    if left_out := len(rows.table) - len(rows):
        monitor.say(f"{counted(left_out, 'row')} with labels not seen in training left out.")
    if wrong := int((rows.label_ids >= len(classifier.labels)).sum()):
        monitor.say(f"{counted(wrong, 'row')} with labels not seen in training count as wrong.")
    begun = time.perf_counter()
    scored = classifier.score(rows)
    found = evaluate(scored.probabilities, rows.label_ids)
    speed = len(rows) / (time.perf_counter() - begun)
    say_truncated(scored.truncated, len(rows), monitor)
    numbers = found.as_dict()
    if options.json:
        print_json({**numbers, "rows": found.rows, "rows_per_second": speed})
        return
    form = "" if classifier.form == "original" else f" ({classifier.form})"
    print(f"{classifier.level}{form} on {counted(found.rows, 'row')} ({speed:,.0f} rows per second):")
    print(f"accuracy {accuracy_sentence(numbers)},")
    print(f"macro F1 {found.macro_f1:.3f}, log loss {found.log_loss:.3f}, calibration error {found.ece:.3f}.")


COMMAND = Command("evaluate a bundle on labelled texts", add_flags, run)
