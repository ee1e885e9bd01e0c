"""`textladder evaluate`: a bundle on other labelled texts."""

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textladder.commands.command import WIDTH, Command, print_json, print_wrapped, show, terminal_monitor
from textladder.flags import DATA_HELP, Parser, add_bundle, add_column_flags, file_options, label_options
from textladder.progress import say_truncated
from textladder.wording import counted, printable

if TYPE_CHECKING:
    from textladder.class_metrics import ClassMetrics

MOST_CLASSES, MOST_MIX_UPS = 20, 3  # of more classes, those with the lowest F1 are shown
NAME_WIDTH = 24  # columns of a class's name, which leaves room for its figures


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add BUNDLE, and the rows to evaluate it on."""
    add_bundle(parser)
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    add_column_flags(parser, text="those used in training", label="the one used in training")


def run(options: argparse.Namespace) -> None:
    """Predict the rows, and print the metrics."""
    from textladder.class_metrics import class_metrics, confusion_matrix, most_mixed_up
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
    predicted, classes = scored.probabilities.argmax(axis=1), len(classifier.labels)
    by_class = class_metrics(predicted, rows.label_ids, classes)
    confusion = confusion_matrix(predicted, rows.label_ids, len(rows.labels), classes)
    numbers = found.as_dict()
    if options.json:
        per_class = {label: one.as_dict() for label, one in zip(classifier.labels, by_class, strict=True)}
        labelled = {"labels": list(rows.labels), "confusion": confusion.tolist()}
        print_json({**numbers, "rows": found.rows, "rows_per_second": speed, "per_class": per_class, **labelled})
        return
    form = "" if classifier.form == "original" else f" ({classifier.form})"
    show(f"{classifier.level}{form} on {counted(found.rows, 'row')} ({speed:,.0f} rows per second):")
    show(f"accuracy {accuracy_sentence(numbers)},")
    show(f"macro F1 {found.macro_f1:.3f}, log loss {found.log_loss:.3f}, calibration error {found.ece:.3f}.")
    _print_classes(by_class, classifier.label_names)
    if mixed_up := most_mixed_up(confusion, MOST_MIX_UPS):
        names = [printable(name) for name in rows.label_names]
        pairs = (f"{names[one.label]} taken for {names[one.predicted]} ({one.rows:,})" for one in mixed_up)
        print_wrapped(f"Most common mix-ups: {', '.join(pairs)}.")


def _print_classes(by_class: "Sequence[ClassMetrics]", names: Sequence[str]) -> None:
    """Print a table of the classes; of many, those with the lowest F1."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    order = list(range(len(names)))
    if len(names) > MOST_CLASSES:
        order = sorted(order, key=lambda place: by_class[place].f1)[:MOST_CLASSES]
        show(f"The {MOST_CLASSES} of {len(names):,} classes with the lowest F1 (--json has all):")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("class", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    for name in ("precision", "recall", "F1 (95% interval)", "rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for place in order:
        one = by_class[place]
        f1 = f"{one.f1:.3f} ({one.f1_low:.3f} to {one.f1_high:.3f})"
        table.add_row(
            Text(printable(names[place])), f"{one.precision:.3f}", f"{one.recall:.3f}", f1, f"{one.support:,}"
        )
    Console(width=WIDTH, highlight=False).print(table)


COMMAND = Command("evaluate a bundle on labelled texts", add_flags, run)
