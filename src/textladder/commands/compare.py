"""`textladder compare`: several levels on the same rows, and which is worth it."""

import argparse
import shlex
from collections.abc import Sequence

from textladder.commands.command import Command, print_json, print_wrapped, read_rows, show, terminal_monitor
from textladder.errors import ConfigError, TextladderError
from textladder.flags import Parser, add_data, duration, split_names
from textladder.setting_flags import add_shared_settings, level_settings_of


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add DATA, what to compare, and the terms."""
    add_data(parser)
    parser.add_argument(
        "--levels", type=split_names, metavar="A,B", help="levels to compare [default: all that can be trained here]"
    )
    parser.add_argument("--out", default="runs/compare", metavar="RUN", help="output folder [default: runs/compare]")
    parser.add_argument("--no-texts", action="store_true", help="show none of the texts in the report")
    parser.add_argument("--overwrite", action="store_true", help="start over instead of resuming RUN")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="train each level N times [default: 3 if a fit takes under 2 minutes, else 1; 1 with folds or "
        "--time-budget]",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="test every row once, in K trainings of each level on the others; 1 for one split [default: 5 with fewer "
        "than 3,000 rows and without --test, --seeds, --time-budget and --fix, else 1]",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what training, gains and the verdict go by: accuracy, macro-f1, weighted-f1, balanced-accuracy, mcc, "
        "log-loss, f1:LABEL, average-precision:LABEL or recall-at-precision:LABEL=0.9 [default: accuracy]",
    )
    parser.add_argument(
        "--costs", metavar="FILE", help="go by what each mistake costs: a table with the columns label, predicted, cost"
    )
    parser.add_argument("--learning-curve", action="store_true", help="also train on 1/8, 1/4 and 1/2 of the rows")
    parser.add_argument(
        "--time-budget", type=duration, metavar="30m", help="total time for training, such as 90s, 30m or 2h"
    )
    parser.add_argument(
        "--forms",
        default="deployable",
        choices=("deployable", "original"),
        help="judge each level by its fastest exported form that predicts as the original does, or by the original "
        "[default: deployable]",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads for the predictions that are measured [default: all cores]"
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="X",
        help="what an hour of this machine costs, for the price of a million texts and of a training run",
    )
    parser.add_argument(
        "--fix", metavar="NAME", help="drop-leaks: leave out training and validation rows that are also test rows"
    )
    terms = parser.add_argument_group("terms that the recommended level must meet")
    terms.add_argument(
        "--worth",
        type=float,
        metavar="X",
        help="points of the metric that a more expensive level must gain, or how much it must save per text "
        "[default: 1, or a hundredth of the mean cost of a mistake]",
    )
    terms.add_argument("--max-latency-ms", type=float, metavar="X", help="maximum median latency per text, in ms")
    terms.add_argument("--max-size-mb", type=float, metavar="X", help="maximum size of the bundle, in MB")
    terms.add_argument("--max-fit-minutes", type=float, metavar="X", help="maximum training time, in minutes")
    add_shared_settings(parser)


def run(options: argparse.Namespace) -> None:
    """Compare, and print the table and the verdict.

    Raises:
        TextladderError: no level could be trained.
    """
    from textladder.comparison.compare import compare
    from textladder.comparison.verdict import Terms

    monitor = terminal_monitor()
    settings, seed = level_settings_of(options, options.levels)
    terms = Terms(options.worth, options.max_latency_ms, options.max_size_mb, options.max_fit_minutes)
    found = compare(
        read_rows(options, seed, monitor),
        options.levels,
        settings=settings,
        terms=terms,
        seeds=options.seeds,
        folds=options.folds,
        seed=seed,
        learning_curve=options.learning_curve,
        time_budget=options.time_budget,
        metric=_metric(options),
        forms=options.forms,
        threads=options.threads,
        price_per_hour=options.price_per_hour,
        fix=options.fix,
        out=options.out,
        texts=not options.no_texts,
        overwrite=options.overwrite,
        command=shlex.join(["textladder", *options.words]),
        monitor=monitor,
    )
    if options.json:
        print_json(found.as_dict())
        return
    if not found.levels:
        reasons = " ".join(f"{name}: {why}" for name, why in found.failed.items())
        raise TextladderError(f"No level could be trained. {reasons}")
    show(found.text_table())
    print_wrapped(found.verdict)
    show(f"Report: {options.out}/report.html")
    if found.recommended:
        show(f'Try: textladder predict {found[found.recommended].kept.bundle} "a text"')


def _metric(options: argparse.Namespace) -> str | None:
    """The metric by name; None for the default."""
    from textladder.target_metric import COSTS

    metric: str | None = options.metric
    if options.costs is None:
        return metric
    if metric is not None:
        raise ConfigError("Costs are a metric of their own: give --metric or --costs, not both.")
    return f"{COSTS}{options.costs}"


def kept(options: argparse.Namespace) -> str:
    """Finished training runs stay in RUN."""
    again = " without --overwrite" if options.overwrite else ""
    return f"every finished training run is kept in {options.out}; run the same command{again} to resume"


COMMAND = Command(
    "train several levels on the same rows and say which is worth it", add_flags, run, kept, usage="DATA [FLAGS]"
)
