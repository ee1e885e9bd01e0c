"""`textladder lr-find`: the learning rate finder of fastai, on one level."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from textladder.commands.command import Command, print_json, show, terminal_monitor
from textladder.commands.train import classifier_of, read_for
from textladder.flags import Parser, add_data
from textladder.setting_flags import add_level_flags


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add DATA, the level with its settings, and the plot to write."""
    add_data(parser)
    add_level_flags(parser, words)
    parser.add_argument("--plot", metavar="FILE", help="save a plot of the loss as .png, .svg or .pdf")


def run(options: argparse.Namespace) -> None:
    """Try rising learning rates, and print the losses and the suggestion.

    Raises:
        ConfigError: the level has no learning rate.
    """
    from textladder.levels import find_level
    from textladder.levels.base import neural

    monitor = terminal_monitor()
    classifier = classifier_of(options)
    lowest, highest = neural(find_level(classifier.level)).learning_rates  # before any row is read
    data = read_for(classifier, options, monitor)
    classifier.prepare(data, monitor=monitor)
    from textladder.training.lr_plot import plot_learning_rates
    from textladder.training.stages import find_learning_rate, seeded

    with seeded(classifier.seed):
        curve = find_learning_rate(classifier.learner, lowest, highest)
    if options.plot:
        plot_learning_rates(curve, Path(options.plot))
    if options.json:
        found = {"suggested": curve.suggested, "learning_rate": curve.learning_rate, "range": [lowest, highest]}
        print_json({"level": classifier.level, **found, "rates": curve.rates, "losses": curve.losses})
        return
    for rate, loss in list(zip(curve.rates, curve.losses, strict=True))[::6]:
        show(f"{rate:8.1e}  {loss:8.3f}  {'#' * min(50, round(40 * loss / max(curve.losses[0], 1e-9)))}")
    show(curve.sentence())


COMMAND = Command("try rising learning rates and suggest one", add_flags, run, usage="DATA --level LEVEL [FLAGS]")
