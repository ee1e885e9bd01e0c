"""A comparison as one self-contained page for people, HTML or Markdown.

Collects what the templates report.html and report.md beside this file show. Jinja escapes whatever comes from the
user's texts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from textladder.atomic_files import write_text
from textladder.comparison.label_errors import LabelError
from textladder.comparison.level_result import LevelResult
from textladder.comparison.report_charts import (
    SMALL_MATRIX,
    frontier_chart,
    large_matrix,
    learning_chart,
    reliability_chart,
    small_matrix,
)
from textladder.comparison.report_texts import mix_ups, text_sections
from textladder.comparison.verdict import CANNOT_TELL, NONE, STAY, TAKE
from textladder.data.labelled_texts import TextData
from textladder.significance import Unit
from textladder.target_metric import TargetMetric
from textladder.wording import capitalized, counted, listed, p_value_words, printable, seconds_words, short

Numbers = Mapping[str, Any]

MOST_TO_LABEL = 5  # classes


def write_report(
    path: str | Path,
    numbers: Numbers,
    metric: TargetMetric,
    levels: Sequence[LevelResult],
    data: TextData,
    label_errors: Sequence[LabelError] = (),
    *,
    texts: bool = True,
) -> Path:
    """Write a report.

    Args:
        path: the file; Markdown if its name ends in `.md`, otherwise HTML.
        numbers: the comparison's numbers, from `Comparison.as_dict()`.
        metric: what gains are in.
        levels: the results of each level, from the cheapest to the most expensive.
        data: the rows.
        label_errors: rows whose label is probably wrong.
        texts: whether texts are shown.

    Returns:
        The path.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = Path(path)
    markdown = path.suffix == ".md"
    template = _environment(metric.unit, html=not markdown).get_template("report.md" if markdown else "report.html")
    page = template.render(_content(numbers, metric, levels, data, label_errors, texts))
    return write_text(path, printable(page, lines=True) if markdown else page)  # Markdown is read in terminals too


def _environment(unit: Unit, html: bool) -> Any:
    from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

    class PackageFiles(BaseLoader):
        """Loads the templates beside this file."""

        def get_source(self, environment: Any, template: str) -> tuple[str, str, Any]:
            source = resources.files("textladder.comparison").joinpath(template)
            if not source.is_file():
                raise TemplateNotFound(template)
            return source.read_text(encoding="utf-8"), template, lambda: True

    loader = PackageFiles()
    # Markdown escapes by the filter `cell`
    environment = Environment(loader=loader, autoescape=html, undefined=StrictUndefined, trim_blocks=not html)  # noqa: S701
    environment.filters |= {
        "gained": lambda value: unit.number(value, "+"),
        "number": unit.number,
        "in_unit": unit.words,
        "asked": unit.asked,
        "capitalized": capitalized,
        "expected": _expected,
        "share": lambda number: f"{number:.3f}",
        "short": short,
        "counted": counted,
        "listed": listed,
        "p_value": lambda value: p_value_words(value).removeprefix("p ").removeprefix("= "),
        "seconds": seconds_words,
        "megabytes": _megabytes,
        "cell": lambda text: str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " "),
    }
    return environment


def _content(
    numbers: Numbers,
    metric: TargetMetric,
    levels: Sequence[LevelResult],
    data: TextData,
    label_errors: Sequence[LabelError],
    texts: bool,
) -> dict[str, Any]:
    """Everything that the templates show."""
    by_name = {one["level"]: one for one in numbers["levels"]}
    recommended = numbers["recommended"]
    frontier = [one.level for one in levels if by_name[one.level]["on_frontier"]]
    unavailable = numbers["label_errors_unavailable"]
    shown = next((one for one in levels if one.level == recommended), levels[0] if levels else None)
    names = data.test.label_names
    small = len(names) <= SMALL_MATRIX
    in_order = [by_name[one.level] for one in levels]
    return {
        **numbers,
        "headline": _headline(numbers["decision"], recommended),
        "title": metric.title,
        "summary": _summary(numbers, metric, [by_name[one.level] for one in levels]),
        "shown": None if shown is None else shown.level,
        "classes": [] if shown is None else _classes(shown, levels, names),
        "label_next": [] if shown is None else list(_label_next(shown, data)),
        "mix_ups": [] if shown is None else mix_ups(shown, data, texts=texts),
        "matrices": [small_matrix(one, names) for one in levels] if small else [],
        "large_matrix": None if small or shown is None else large_matrix(shown, names),
        "in_points": metric.unit.scale == 100,
        "source": numbers["data"].partition(" (")[0],
        "bundle": next((one.kept.bundle for one in levels if one.level == recommended), None),
        "levels": in_order,
        "trained_once": [one.level for one in levels if one.trained_once],
        "measurements": list(_measurements(in_order, metric)),
        "frontier": frontier_chart(metric, levels, frontier) if levels else None,
        "curves": [learning_chart(one) for one in levels if one.curve is not None],
        "reliabilities": [reliability_chart(one) for one in levels],
        "texts": list(text_sections(levels, recommended, data, label_errors, unavailable)) if levels and texts else [],
        "findings": numbers["audit"]["findings"],
        "setup": list(_setup(numbers, metric.unit)),
    }


def _summary(numbers: Numbers, metric: TargetMetric, levels: Sequence[Numbers]) -> str:
    """What was compared and what came out, in plain words.

    Args:
        numbers: the comparison's.
        metric: what it goes by.
        levels: the numbers of each level, from the cheapest to the most expensive.
    """
    if not levels:
        return "No level could be trained."
    rows, folds = numbers["rows"], numbers["folds"]
    names = listed([one["level"] for one in levels])
    learned = rows["train"] + rows["valid"]
    if folds > 1:
        how = f"learned from {counted(learned, 'text')}, each of which also tested them once, in one of {folds} folds"
    else:
        how = f"learned from {counted(learned, 'text')} and were tested on {counted(rows['test'], 'other')}"
    scores = listed([f"{one['level']} {one['score']['value']:.3f}" for one in levels])
    better = "" if metric.sign == 1 else " (less is better)"
    return (
        f"{names} {how}, in {len(numbers['labels']):,} classes. {capitalized(metric.title)}{better}: "
        f"{scores}. One text takes {listed([short(one['predict_ms_p50']) for one in levels])} milliseconds."
    )


def _classes(shown: LevelResult, levels: Sequence[LevelResult], names: Sequence[str]) -> list[dict[str, Any]]:
    """How well a level predicts each class, the worst first, and the other levels' F1."""
    others = [one for one in levels if one is not shown]
    found = [
        {
            "name": names[place],
            **one.as_dict(),
            "others": [{"level": other.level, "f1": other.by_class[place].f1} for other in others],
        }
        for place, one in enumerate(shown.by_class)
    ]
    return sorted(found, key=lambda one: one["f1"])


def _label_next(shown: LevelResult, data: TextData) -> Iterator[str]:
    """The classes of which more labelled texts would likely help most: those that are often overlooked, with few."""
    training: list[int] = np.bincount(data.train.label_ids, minlength=len(data.labels)).tolist()
    overlooked = [(1 - one.recall) * one.support for one in shown.by_class]
    order = sorted(range(len(overlooked)), key=lambda place: -overlooked[place] / max(1, training[place]))
    if len(order) == 2:  # more of one of two classes would not help, but unbalance them
        return
    for place in order[: min(MOST_TO_LABEL, len(order) // 2)]:
        if overlooked[place] < 1:
            return
        missed = f"{round(overlooked[place]):,} of {counted(shown.by_class[place].support, 'test row')} overlooked"
        yield f"{data.label_names[place]}: {missed}, with {counted(training[place], 'training row')}"


def _headline(decision: str, recommended: str | None) -> str:
    """The decision in a few words.

    >>> _headline("cannot tell", "tfidf")
    'Cannot tell yet: tfidf for now'
    """
    if decision == NONE:
        return "No level"
    words = {TAKE: "Take {}", STAY: "Stay with {}", CANNOT_TELL: "Cannot tell yet: {} for now"}
    return words[decision].format(recommended)


def _measurements(levels: Sequence[Numbers], metric: TargetMetric) -> Iterator[tuple[str, list[str]]]:
    """The rows of the table of all measurements: a name and a value for each level."""
    columns: list[tuple[str, Callable[[Numbers], str]]] = [
        ("gain over the level below", lambda one: _gain(one["gain_over_below"], metric.unit)),
        ("gain over the best cheaper level", lambda one: _gain(one["gain_over_best_cheaper"], metric.unit)),
        ("on the frontier", lambda one: "yes" if one["on_frontier"] else "no"),
        (
            f"{metric.title} of each training run, test rows",
            lambda one: ", ".join(f"{seed['score']:.3f}" for seed in one["seeds"]),
        ),
        ("accuracy", lambda one: f"{one['test']['accuracy']:.3f}"),
        ("macro F1", lambda one: f"{one['test']['macro_f1']:.3f}"),
        ("log loss", lambda one: f"{one['test']['log_loss']:.3f}"),
        ("log loss after calibration", lambda one: _calibrated(one, "log_loss")),
        ("calibration error", lambda one: f"{one['test']['ece']:.3f}"),
        ("calibration error after calibration", lambda one: _calibrated(one, "ece")),
        ("temperature", lambda one: _calibrated(one, "temperature")),
        ("form", lambda one: one["form"]),
        ("latency of one text, median", lambda one: f"{short(one['predict_ms_p50'])} ms"),
        ("latency of one text, 95th percentile", lambda one: f"{short(one['predict_ms_p95'])} ms"),
        ("rows per second, in batches", lambda one: short(one["rows_per_second"])),
        *_by_length(levels),
        ("time to load the bundle", lambda one: seconds_words(one["load_seconds"])),
        ("size of the bundle", lambda one: f"{short(one['bundle_mb'])} MB"),
        ("peak memory, predicting", lambda one: _megabytes(one["predict_memory_mb"])),
        ("peak memory, training", lambda one: _megabytes(one["peak_memory_mb"])),
        ("fit time", lambda one: seconds_words(one["fit_seconds"])),
        ("fit time, predicted", lambda one: _predicted_fit(one["predicted_fit_seconds"])),
        ("parameters", lambda one: f"{one['parameters']:,}"),
        ("device", lambda one: str(one["device"])),
        ("training rows", lambda one: f"{one['train_rows']:,}"),
        ("truncated training texts", lambda one: f"{one['train_texts_truncated']:,}"),
        ("truncated test texts", lambda one: f"{one['test_texts_truncated']:,}"),
    ]
    if levels and levels[0]["price_per_million"] is not None:
        columns += [
            ("price of a million texts", lambda one: short(one["price_per_million"])),
            ("price of a training run", lambda one: short(one["fit_price"])),
        ]
    budgeted = any(one["predicted_fit_seconds"] is not None for one in levels)
    for name, show in columns:
        if budgeted or name != "fit time, predicted":
            yield name, [show(one) for one in levels]


def _by_length(levels: Sequence[Numbers]) -> Iterator[tuple[str, Callable[[Numbers], str]]]:
    """The rows with latencies by length; the groups of texts are the same for all levels."""

    def shown(place: int, one: Numbers) -> str:
        of_group = one["forms"][one["form"]]["by_length"][place]
        return f"{short(of_group['predict_ms_p50'])} ms ({short(of_group['predict_ms_p95'])} ms)"

    groups = levels[0]["forms"][levels[0]["form"]]["by_length"] if levels else []
    for place, group in enumerate(groups):
        low, high = group["characters"]
        yield f"latency of {low:,} to {high:,} characters, median (95th percentile)", partial(shown, place)


def _gain(found: Numbers | None, unit: Unit) -> str:
    if found is None:
        return "-"
    expected = _expected(found)
    low, high = unit.number(expected["low"]), unit.number(expected["high"])
    points = f"{unit.number(expected['points'], '+')} ({low} to {high})"
    return f"{points}, {p_value_words(found['adjusted_p_value'])}, over {found['over']}"


def _expected(gain: Numbers) -> Numbers:
    """Points and interval of a gain as the verdict states them: over the seeds if there are several."""
    expected: Numbers = gain["seeds"] or gain
    return expected


def _calibrated(one: Numbers, name: str) -> str:
    return "-" if one["calibrated"] is None else f"{one['calibrated'][name]:.3f}"


def _megabytes(value: float | None) -> str:
    return "unknown" if value is None else f"{short(value)} MB"


def _predicted_fit(seconds: float | None) -> str:
    return "-" if seconds is None else seconds_words(seconds)


def _setup(numbers: Numbers, unit: Unit) -> Iterator[tuple[str, str]]:
    """How to repeat the comparison, line by line."""
    rows, machine, terms = numbers["rows"], numbers["hardware"], numbers["terms"]
    yield "rows", f"{rows['train']:,} training, {rows['valid']:,} validation, {rows['test']:,} test"
    names = {"train": "training", "valid": "validation", "test": "test"}
    for part, digest in numbers["digests"].items():
        yield f"SHA-256, {names[part]} rows", digest
    yield "seed", f"{numbers['seed']}; further training runs of a level use the following numbers"
    for one in numbers["levels"]:
        settings = ", ".join(f"{name} {value}" for name, value in one["settings"].items())
        yield one["level"], f"preset {one['preset']}" + (f"; {settings}" if settings else "")
    features = ", ".join(machine.get("cpu_features", []))
    memory = f", {machine['memory_gb']} GB" if "memory_gb" in machine else ""
    yield (
        "machine",
        f"{machine['processor']}{f' ({features})' if features else ''}, {counted(machine['cores'], 'core')}{memory}, "
        f"{machine['system']}",
    )
    yield "predictions", f"in {numbers['forms']} forms, {counted(numbers['threads'], 'thread')}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in numbers["versions"].items())
    limits = (
        ("latency", terms["max_latency_ms"], "ms per text"),
        ("size", terms["max_size_mb"], "MB"),
        ("fit time", terms["max_fit_minutes"], "min"),
    )
    demanded = "".join(f"; {name} at most {limit:g} {unit}" for name, limit, unit in limits if limit is not None)
    yield "metric", numbers["metric"]
    yield "terms", f"a more expensive level must gain at least {unit.asked(terms['worth'])}{demanded}"
    if numbers["price_per_hour"] is not None:
        yield "price per hour", f"{numbers['price_per_hour']:g}"
    if numbers["time_budget_seconds"] is not None:
        yield "time budget", seconds_words(numbers["time_budget_seconds"])
