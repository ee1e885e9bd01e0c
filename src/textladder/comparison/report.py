"""A comparison as one page for people, HTML or Markdown, that needs nothing but itself.

Computes where marks stand and which texts are shown; what it looks like is in report.html and report.md beside this
file. Jinja escapes whatever comes from the user's texts.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from textladder.atomic_files import write_text
from textladder.comparison.results import Comparison, LevelResult
from textladder.comparison.verdict import by_cost
from textladder.comparison.wording import seconds_words, short
from textladder.data.labelled_texts import LabelledTexts
from textladder.metrics import CALIBRATION_BINS

SHOWN_TEXTS, TEXT_LENGTH = 20, 400
MOST_CELLS = 12  # classes of a confusion matrix that is drawn whole
MOST_PAIRS = 20


def write_report(comparison: Comparison, path: str | Path) -> Path:
    """Write a report: Markdown where the name ends in `.md`, else HTML.

    Raises:
        ConfigError: the place cannot be written.
    """
    path = Path(path)
    template = _environment(html=path.suffix != ".md").get_template(
        "report.md" if path.suffix == ".md" else "report.html"
    )
    return write_text(path, template.render(_content(comparison)))


def _environment(html: bool) -> Any:
    from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

    class Beside(BaseLoader):
        """Templates beside this file."""

        def get_source(self, environment: Any, template: str) -> tuple[str, str, Any]:
            source = resources.files("textladder.comparison").joinpath(template)
            if not source.is_file():
                raise TemplateNotFound(template)
            return source.read_text(encoding="utf-8"), template, lambda: True

    environment = Environment(loader=Beside(), autoescape=html, undefined=StrictUndefined, trim_blocks=not html)  # noqa: S701, Markdown escapes by `cell`
    environment.filters |= {
        "points": lambda number: f"{number:+.1f}",
        "share": lambda number: f"{number:.3f}",
        "short": short,
        "seconds": seconds_words,
        "cell": lambda text: str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " "),
    }
    return environment


def _content(comparison: Comparison) -> dict[str, Any]:
    """Everything that the templates show."""
    found = comparison.as_dict()
    by_name = {one["level"]: one for one in found["levels"]}
    order = [one.level for one in by_cost(comparison.measured)]
    levels = [comparison[name] for name in order]
    recommended = comparison.recommended
    bundle = comparison.folder / by_name[recommended]["bundle"] if recommended else None
    return {
        **found,
        "source": found["data"].partition(" (")[0],
        "bundle": bundle,
        "levels": [by_name[name] for name in order],
        "everything": list(_everything([by_name[name] for name in order])),
        "frontier": _frontier(comparison) if levels else None,
        "curves": [_curve(one) for one in levels if one.curve is not None],
        "confusions": [_confusion(one, comparison.data.label_names) for one in levels],
        "reliabilities": [_reliability(one) for one in levels],
        "texts": list(_texts(comparison, levels)) if levels else [],
        "findings": comparison.audit.findings(),
        "setup": list(_setup(comparison, found)),
    }


def _everything(levels: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Rows of the large table."""

    def row(name: str, show: Any) -> tuple[str, list[str]]:
        return name, [show(one) for one in levels]

    def gain(one: Mapping[str, Any], kind: str) -> str:
        found = one[kind]
        if found is None:
            return "-"
        points = f"{found['points']:+.1f} ({found['low']:.1f} to {found['high']:.1f})"
        return f"{points}, p {_p(found['p_value'])}, over {found['over']}"

    def calibrated(one: Mapping[str, Any], name: str) -> str:
        return "-" if one["calibrated"] is None else f"{one['calibrated'][name]:.3f}"

    yield row("gain over the level below", lambda one: gain(one, "gain_over_below"))
    yield row("gain over the best cheaper", lambda one: gain(one, "gain_over_best_cheaper"))
    yield row("on the frontier", lambda one: "yes" if one["on_frontier"] else "no")
    yield row("accuracy of each seed", lambda one: ", ".join(f"{seed['accuracy']:.3f}" for seed in one["seeds"]))
    yield row("macro F1", lambda one: f"{one['test']['macro_f1']:.3f}")
    yield row("log loss", lambda one: f"{one['test']['log_loss']:.3f}")
    yield row("calibration error", lambda one: f"{one['test']['ece']:.3f}")
    yield row("at the temperature", lambda one: calibrated(one, "temperature"))
    yield row("... log loss", lambda one: calibrated(one, "log_loss"))
    yield row("... calibration error", lambda one: calibrated(one, "ece"))
    yield row("one text, median", lambda one: f"{short(one['predict_ms_p50'])} ms")
    yield row("one text, 95 of 100", lambda one: f"{short(one['predict_ms_p95'])} ms")
    yield row("rows a second, many at once", lambda one: short(one["rows_per_second"]))
    yield row("loading the bundle", lambda one: f"{short(one['load_seconds'])} s")
    yield row("bundle", lambda one: f"{short(one['bundle_mb'])} MB")
    yield row("memory when predicting, peak", lambda one: f"{one['predict_memory_mb']:,.0f} MB")
    yield row("memory when training, peak", lambda one: f"{one['peak_memory_mb']:,.0f} MB")
    yield row("fit", lambda one: seconds_words(one["fit_seconds"]))
    if any(one["predicted_fit_seconds"] is not None for one in levels):
        yield row("... as predicted", lambda one: _or_dash(one["predicted_fit_seconds"], seconds_words))
    yield row("parameters", lambda one: f"{one['parameters']:,}")
    yield row("trained on", lambda one: str(one["device"]))
    yield row("training rows", lambda one: f"{one['train_rows']:,}")
    yield row("training texts that lost tokens", lambda one: f"{one['train_texts_truncated']:,}")
    yield row("test texts that lost tokens", lambda one: f"{one['test_texts_truncated']:,}")


def _or_dash(value: Any, show: Any) -> str:
    return "-" if value is None else str(show(value))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


class _Scale:
    """Values to places on paper."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high, self.start, self.stop = low, high if high > low else low + 1, start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)


def _accuracy_scale(values: Iterable[float], bottom: float, top: float) -> tuple[_Scale, list[dict[str, Any]]]:
    """A scale that holds some accuracies, and its ticks."""
    values = list(values)
    low, high = min(values), max(values)
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 6 or step == 0.2)
    low, high = math.floor(low / step) * step, min(1.0, math.ceil(high / step) * step)
    scale = _Scale(low, high, bottom, top)
    ticks = np.arange(low, high + step / 2, step)
    return scale, [{"at": scale(float(tick)), "text": f"{tick:.3f}".rstrip("0").ljust(4, "0")} for tick in ticks]


def _frontier(comparison: Comparison) -> dict[str, Any]:
    """Accuracy over the logarithm of the time of one text."""
    tests = {one.level: one.test for one in comparison.levels}
    y, ys = _accuracy_scale(
        [value for test in tests.values() for value in (test.accuracy_low, test.accuracy_high)], 236, 22
    )
    times = {one.level: math.log10(one.predict_ms_p50) for one in comparison.measured}
    low, high = math.floor(min(times.values()) - 0.05), math.ceil(max(times.values()) + 0.05)
    x = _Scale(low, high, 66, 460)
    dots = [
        {
            "level": name,
            "x": x(times[name]),
            "y": y(test.accuracy),
            "low": y(test.accuracy_low),
            "high": y(test.accuracy_high),
            "above": name in comparison.frontier,  # where its name stands: the others lie below the line
        }
        for name, test in tests.items()
    ]
    line = " ".join(f"{x(times[name])},{y(tests[name].accuracy)}" for name in comparison.frontier)
    xs = [{"at": x(power), "text": f"{10**power:g}"} for power in range(low, high + 1)]
    return {"xs": xs, "ys": ys, "dots": dots, "line": line}


def _curve(level: LevelResult) -> dict[str, Any]:
    """Accuracy over the logarithm of the training rows, and where it is likely to go."""
    curve = level.curve
    assert curve is not None
    doubled = curve.doubled
    ends = [*curve.low, *curve.high, *(doubled or ())]
    y, ys = _accuracy_scale(ends, 160, 10)
    last = 2 * curve.rows[-1] if doubled else curve.rows[-1]
    x = _Scale(math.log(curve.rows[0]), math.log(last), 56, 276)
    points = list(zip(curve.rows, curve.accuracy, curve.low, curve.high, strict=True))
    words = f"{curve.accuracy[-1]:.3f} with {curve.rows[-1]:,} rows"
    guess = ""
    if doubled:
        guess = f"{x(math.log(curve.rows[-1]))},{y(curve.accuracy[-1])} {x(math.log(last))},{y(doubled[0])}"
        points.append((last, *doubled))
        words += (
            f"; twice as many would likely give {doubled[0]:.3f} (95% interval {doubled[1]:.3f} to {doubled[2]:.3f})"
        )
    return {
        "level": level.level,
        "xs": [{"at": x(math.log(rows)), "text": f"{rows:,}"} for rows, *_ in points],
        "ys": ys,
        "dots": [
            {"x": x(math.log(rows)), "y": y(middle), "low": y(low), "high": y(high)}
            for rows, middle, low, high in points
        ],
        "line": " ".join(
            f"{x(math.log(rows))},{y(accuracy)}" for rows, accuracy in zip(curve.rows, curve.accuracy, strict=True)
        ),
        "guess": guess,
        "words": f"{words}.",
    }


def _confusion(level: LevelResult, names: Sequence[str]) -> dict[str, Any]:
    """How often each class is taken for each; of many classes the pairs that are mixed up most."""
    probabilities, labels = level.kept.part("test")
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    if len(names) <= MOST_CELLS:
        most = counts.sum(axis=1, keepdims=True).clip(min=1)
        cells = [
            [{"rows": int(number), "shade": round(0.6 * float(share), 2)} for number, share in zip(*row, strict=True)]
            for row in zip(counts, counts / most, strict=True)
        ]
        return {"level": level.level, "names": names, "cells": cells}
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [
        (names[a], names[b], int(counts[a, b])) for a, b in zip(*np.unravel_index(order, counts.shape), strict=True)
    ]
    return {"level": level.level, "cells": None, "pairs": [pair for pair in pairs if pair[2]]}


def _reliability(level: LevelResult) -> dict[str, Any]:
    """The share that was right in each bin of confidence."""
    probabilities, labels = level.kept.part("test")
    confidence, right = probabilities.max(axis=1), level.right[level.place]
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    x, y = _Scale(0, 1, 40, 290), _Scale(0, 1, 180, 10)
    bars = []
    for place in np.unique(bins).tolist():
        chosen = bins == place
        share, rows = float(right[chosen].mean()), int(chosen.sum())
        left = x(place / CALIBRATION_BINS)
        bars.append(
            {
                "x": left + 0.5,
                "width": round(x((place + 1) / CALIBRATION_BINS) - left - 1, 1),
                "y": y(share),
                "height": round(180 - y(share), 1),
                "shade": round(0.25 + 0.75 * math.sqrt(rows / len(labels)), 2),
                "title": f"{rows:,} rows, confidence {confidence[chosen].mean():.3f}, right {share:.3f}",
            }
        )
    calibrated = level.calibrated
    words = f"Calibration error {level.test.ece:.3f}"
    if calibrated is not None:
        words += (
            f"; {calibrated['ece']:.3f} with a temperature of {calibrated['temperature']:.2f} from the validation rows"
        )
    ticks = [{"x": x(tick), "y": y(tick), "text": f"{tick:g}"} for tick in (0, 0.5, 1)]
    return {"level": level.level, "bars": bars, "ticks": ticks, "words": f"{words}."}


def _texts(comparison: Comparison, levels: Sequence[LevelResult]) -> Iterator[dict[str, Any]]:
    """The texts worth reading: where levels disagree, what costs most, and whose label looks wrong."""
    names, test = comparison.data.label_names, comparison.data.test
    shown = comparison[comparison.recommended or levels[0].level]
    probabilities = {one.level: one.kept.part("test")[0] for one in levels}
    labels = shown.kept.part("test")[1]

    def said(level: str, row: int) -> dict[str, Any]:
        place = int(probabilities[level][row].argmax())
        return {"text": f"{names[place]} {probabilities[level][row, place]:.0%}", "right": place == labels[row]}

    def plain(text: str) -> dict[str, Any]:
        return {"text": text, "right": None}

    if len(levels) > 1:
        right = np.stack([one.right[one.place] for one in levels])
        # the surest of the disagreements: where those who are right and those who are wrong both are certain
        least = np.min([probabilities[one.level].max(axis=1) for one in levels], axis=0)
        split = np.flatnonzero(right.any(axis=0) & ~right.all(axis=0))
        order = split[np.argsort(-least[split], kind="stable")][:SHOWN_TEXTS]
        yield {
            "title": "Where the levels disagree",
            "words": f"On {len(split):,} of {len(labels):,} test rows some levels are right and others wrong. "
            "Those on which all are surest come first.",
            "columns": ["right is", *[one.level for one in levels]],
            "rows": [
                {
                    "cells": [plain(names[labels[row]]), *[said(one.level, row) for one in levels]],
                    "text": _text(test, row),
                }
                for row in order.tolist()
            ],
        }
    losses = 1 - probabilities[shown.level][np.arange(len(labels)), labels]
    order = np.argsort(-losses, kind="stable")[:SHOWN_TEXTS]
    yield {
        "title": f"What {shown.level} is most wrong about",
        "words": "The test rows of the highest loss. Some of their labels may be wrong.",
        "columns": ["right is", shown.level],
        "rows": [
            {"cells": [plain(names[labels[row]]), said(shown.level, row)], "text": _text(test, row)}
            for row in order.tolist()
        ],
    }
    label_errors = comparison.about.get("label_errors", [])
    table = comparison.data.train.table["text"]
    yield {
        "title": "Labels that look wrong",
        "words": comparison.about.get("label_errors_unavailable")
        or "Training rows that look like another class to a tfidf that has not seen them (confident learning), the "
        "most doubtful first. Rows are counted from 0.",
        "columns": ["row", "label", "looks like"],
        "rows": [
            {
                "cells": [
                    plain(f"{one['row']:,}"),
                    plain(names[one["label"]]),
                    plain(f"{names[one['likely']]} {one['probability']:.0%}"),
                ],
                "text": _shortened(table[one["row"]].as_py()),
            }
            for one in label_errors
        ],
    }


def _text(part: LabelledTexts, row: int) -> str:
    return _shortened(part.table["text"][int(part.rows[row])].as_py())


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]} [...]"


def _setup(comparison: Comparison, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What it was made with, line by line."""
    machine = found["hardware"]
    rows = found["rows"]
    yield "rows", f"{rows['train']:,} to learn from, {rows['valid']:,} to choose on, {rows['test']:,} to test on"
    for name, digest in found["digests"].items():
        yield f"SHA-256 of the {name} rows", digest
    yield "seed", f"{found['seed']}, and the numbers after it where a level was trained more than once"
    for one in found["levels"]:
        settings = ", ".join(f"{name} {value}" for name, value in one["settings"].items())
        yield one["level"], f"preset {one['preset']}" + (f"; {settings}" if settings else "")
    vectors = ", ".join(machine.get("vectors", []))
    yield (
        "machine",
        f"{machine['processor']}{f' ({vectors})' if vectors else ''}, {machine['cores']} cores, "
        f"{machine.get('memory_gb', '?')} GB, {machine['system']}",
    )
    yield "versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    terms = comparison.terms
    limits = (("ms", terms.max_latency_ms), ("MB", terms.max_size_mb), ("minutes", terms.max_fit_minutes))
    wanted = ", ".join(f"at most {limit:g} {unit}" for unit, limit in limits if limit is not None)
    yield "terms", f"a dearer level must gain {terms.worth:g} points" + (f"; {wanted}" if wanted else "")
    if found["time_budget_seconds"] is not None:
        yield "time for fits", seconds_words(found["time_budget_seconds"])
