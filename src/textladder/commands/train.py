"""`textladder train`: one level, saved as a bundle; and what it shares with `lr-find`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.commands.command import (
    Command,
    add_fresh,
    checkpoint_of,
    kept_checkpoint,
    print_json,
    read_rows,
    show,
    terminal_monitor,
)
from textladder.errors import BundleError
from textladder.flags import Parser, add_data, add_overwrite
from textladder.progress import say_truncated
from textladder.setting_flags import add_level_flags, settings_of

if TYPE_CHECKING:
    from textladder.classifier import TextClassifier
    from textladder.data.labelled_texts import TextData
    from textladder.progress import Monitor


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add DATA, the level with its settings, and the bundle to write."""
    add_data(parser)
    add_level_flags(parser, words)
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder to write the bundle to")
    add_overwrite(parser, "the bundle")
    add_fresh(parser)


def run(options: argparse.Namespace) -> None:
    """Train, measure on the test rows, and save."""
    from textladder.atomic_files import discard, locked, sweep
    from textladder.bundle import check_output
    from textladder.levels import find_level
    from textladder.levels.base import is_neural
    from textladder.metrics import evaluate
    from textladder.wording import short

    monitor = terminal_monitor()
    checkpoint = checkpoint_of(options)
    sweep(checkpoint)
    if checkpoint.exists() and not options.overwrite:
        from textladder.training.checkpoints import tidy_checkpoints

        tidy_checkpoints(checkpoint, Path(options.out))
    out = check_output(options.out, options.overwrite)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    classifier = classifier_of(options)
    with locked(out, "bundle"):
        data = read_for(classifier, options, monitor)
        classifier.fit(data, monitor=monitor, checkpoint=checkpoint, fresh=options.fresh)
        record = classifier.record
        record["test_rows"] = len(data.test)
        scored = classifier.score(data.test)
        record["test"] = evaluate(scored.probabilities, data.test.label_ids).as_dict()
        say_truncated(scored.truncated, len(data.test), monitor)
        try:
            classifier.save(out, overwrite=options.overwrite)
        except BundleError as error:
            if not checkpoint.exists():
                raise
            raise BundleError(
                f"{str(error).removesuffix('; nothing was kept.')}; the training is kept in {checkpoint}, and the same "
                "command saves it."
            ) from None
        if is_neural(find_level(classifier.level)):  # then it was checked that nothing else is there
            discard(checkpoint)
    if options.json:
        print_json({"level": classifier.level, "preset": classifier.preset, "bundle": str(out), **record})
        return
    _print_epochs(record["epochs"])
    _print_test(classifier, record)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    show(f'Saved to {out} ({short(size)} MB). Try: textladder predict {out} "a text"')


def classifier_of(options: argparse.Namespace) -> "TextClassifier":
    """The classifier that the flags, the settings file and the preset describe."""
    from textladder.classifier import TextClassifier

    settings, seed = settings_of(options)
    preset = settings.pop("preset", "default")
    return TextClassifier(options.level, preset=options.preset or preset, seed=seed, **settings)


def read_for(classifier: "TextClassifier", options: argparse.Namespace, monitor: "Monitor") -> "TextData":
    """Read the rows in the way that the classifier's preset requires.

    Args:
        classifier: its level, preset and seed count.
        options: the parsed flags; they override the preset.
        monitor: receives what was read.

    Raises:
        DataError: the rows cannot be used.
    """
    from textladder.levels import find_level

    preset = find_level(classifier.level).presets[classifier.preset]
    return read_rows(options, classifier.seed, monitor, dict(preset.read))


def _print_epochs(epochs: Sequence[dict[str, Any]]) -> None:
    """Print a line for each validation, with the stage if there are several."""
    several = len({row["stage"] for row in epochs}) > 1
    width = max((len(row["stage"]) for row in epochs), default=0) + 2 if several else 0
    if epochs:
        show(f"{'stage' if several else '':<{width}}epoch   train loss   valid loss   valid accuracy   seconds")
    for row in epochs:
        loss, accuracy = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("valid_loss", "valid_accuracy"))
        show(
            f"{row['stage'] if several else '':<{width}}{row['epoch']:5g}   {row['train_loss']:10.3f}   {loss:>10}   "
            f"{accuracy:>14}   {row['seconds']:7.1f}"
        )


def _print_test(classifier: "TextClassifier", record: dict[str, Any]) -> None:
    """Print what was fitted, and its metrics on the test rows."""
    from textladder.metrics import accuracy_sentence
    from textladder.wording import counted, seconds_words

    test = record["test"]
    show(
        f"{classifier.level} ({classifier.preset}): {record['parameters']:,} parameters fitted to "
        f"{counted(record['train_rows'], 'row')} in {seconds_words(record['fit_seconds'])}."
    )
    show(f"Test accuracy {accuracy_sentence(test)} on {counted(record['test_rows'], 'row')};")
    show(f"macro F1 {test['macro_f1']:.3f}, log loss {test['log_loss']:.3f}, calibration error {test['ece']:.3f}.")


COMMAND = Command(
    "train one level and save it as a bundle",
    add_flags,
    run,
    kept_checkpoint,
    usage="DATA --level LEVEL --out BUNDLE [FLAGS]",
)
