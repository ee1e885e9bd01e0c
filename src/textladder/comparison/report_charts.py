"""Coordinates of the report's charts: where marks, ticks and labels go in the SVG drawings of report.html."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from textladder.class_metrics import confusion_matrix
from textladder.comparison.level_result import LevelResult
from textladder.metrics import CALIBRATION_BINS
from textladder.target_metric import Score, TargetMetric
from textladder.wording import capitalized, counted

SMALL_MATRIX = 6  # classes up to which the confusion matrix of every level is shown
NUMBERED_MATRIX = 24  # classes up to which there is room for numbers in the cells of one that fills the page
CELL, LETTERS, SMALL_LETTERS, LONGEST_NAME = 30, 20, 12, 24  # of that: sizes of a cell and its letters, most letters
LABEL_HEIGHT, CHART_BOTTOM = 15, 254  # of the frontier chart: a line of text, and where its axis is


class _Scale:
    """A linear scale from values to coordinates."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high, self.start, self.stop = low, high if high > low else low + 1, start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)


def _metric_scale(
    metric: TargetMetric, scores: Iterable[Score], bottom: float, top: float
) -> tuple[_Scale, list[dict[str, Any]]]:
    """A scale that covers some scores with their intervals, with the better ones on top, and its ticks."""
    values = [value for score in scores for value in score]
    low, high = min(values), max(values)
    steps = (digit * 10.0**power for power in range(-3, 9) for digit in (1, 2, 5))
    step = next(step for step in steps if step >= 0.005 and (high - low) / step <= 6)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    scale = _Scale(low, min(1.0, high), bottom, top) if metric.sign == 1 else _Scale(low, high, top, bottom)
    ticks = np.arange(low, scale.high + step / 2, step)
    return scale, [{"at": scale(float(tick)), "text": f"{tick:.3f}".rstrip("0").ljust(4, "0")} for tick in ticks]


def frontier_chart(metric: TargetMetric, levels: Sequence[LevelResult], frontier: Sequence[str]) -> dict[str, Any]:
    """The metric over the latency of one text, on a logarithmic axis.

    Args:
        metric: the metric.
        levels: at least one.
        frontier: names of the levels joined by the line, from the cheapest.

    Returns:
        Ticks of both axes, a dot per level and the line, as report.html draws them.
    """
    scores = {one.level: one.score for one in levels}
    y, ys = _metric_scale(metric, scores.values(), 236, 22)
    powers = {one.level: math.log10(one.candidate.predict_ms_p50) for one in levels}
    low, high = math.floor(min(powers.values()) - 0.05), math.ceil(max(powers.values()) + 0.05)
    x = _Scale(low, high, 66, 460)
    dots = [
        {
            "level": name,
            "x": x(powers[name]),
            "y": y(score.value),
            "low": max(y(score.low), y(score.high)),
            "high": min(y(score.low), y(score.high)),
        }
        for name, score in scores.items()
    ]
    _place_labels(dots, frontier)
    line = " ".join(f"{x(powers[name])},{y(scores[name].value)}" for name in frontier)
    xs = [{"at": x(power), "text": f"{10**power:g}"} for power in range(low, high + 1)]
    return {"xs": xs, "ys": ys, "dots": dots, "line": line}


class _Box(NamedTuple):
    """A rectangle; y grows downwards."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _place_labels(dots: Sequence[dict[str, Any]], frontier: Sequence[str]) -> None:
    """Put each level's name where it is clear of the other names, of all intervals and of the line, near its dot.

    Above the interval, below it, or beside the dot; further away where there is no room for that.
    """
    bars = [_Box(dot["x"] - 6, dot["x"] + 6, dot["high"] - 1, dot["low"] + 1) for dot in dots]
    joined = [dot for name in frontier for dot in dots if dot["level"] == name]
    line = []
    for one, other in pairwise(joined):
        for share in np.linspace(0, 1, 60).tolist():
            x, y = (one[axis] + share * (other[axis] - one[axis]) for axis in "xy")
            line.append(_Box(x, x, y, y))
    names: list[_Box] = []
    for dot in sorted(dots, key=lambda one: one["x"]):
        half = 3.7 * len(dot["level"])
        found: list[tuple[int, float, float]] = []  # what it would cover, and where
        for away in range(6):
            above = (dot["x"], dot["high"] - 6 - away * LABEL_HEIGHT)
            below = (dot["x"], dot["low"] + 14 + away * LABEL_HEIGHT)
            beside = [(dot["x"] + side * (half + 10), dot["y"] + 4 + away * LABEL_HEIGHT) for side in (-1, 1)]
            ends = (above, below) if dot["level"] in frontier else (below, above)
            for x, baseline in (*ends, *beside):
                middle = min(max(x, 56 + half), 470 - half)
                box = _Box(middle - half, middle + half, baseline - 11, baseline + 3)
                if box.top < 0 or box.bottom > CHART_BOTTOM:
                    continue
                covered = 10 * sum(map(box.meets, [*names, *bars])) + any(map(box.meets, line))
                found.append((covered, round(middle, 1), round(baseline, 1)))
        _, middle, baseline = min(found, key=lambda one: one[0])
        names.append(_Box(middle - half, middle + half, baseline - 11, baseline + 3))
        dot["label_x"], dot["label_y"] = middle, baseline


def learning_chart(level: LevelResult) -> dict[str, Any]:
    """The metric over the number of training rows, on a logarithmic axis, and its extrapolation to twice the rows."""
    curve = level.curve
    assert curve is not None
    doubled = curve.doubled
    y, ys = _metric_scale(curve.metric, [*curve.scores, *([doubled] if doubled else [])], 160, 10)
    last = 2 * curve.rows[-1] if doubled else curve.rows[-1]
    x = _Scale(math.log(curve.rows[0]), math.log(last), 56, 276)
    points = list(zip(curve.rows, curve.scores, strict=True))
    words = f"{capitalized(curve.metric.title)} {curve.scores[-1].value:.3f} with {counted(curve.rows[-1], 'row')}"
    line = [f"{x(math.log(rows))},{y(score.value)}" for rows, score in points]
    guess = ""
    if doubled:
        guess = f"{line[-1]} {x(math.log(last))},{y(doubled[0])}"
        points.append((last, doubled))
        words += (
            f"; twice as many would likely give {doubled[0]:.3f} (95% interval {doubled[1]:.3f} to {doubled[2]:.3f})"
        )
    return {
        "level": level.level,
        "xs": [{"at": x(math.log(rows)), "text": f"{rows:,}"} for rows, _ in points],
        "ys": ys,
        "dots": [
            {"x": x(math.log(rows)), "y": y(score.value), "low": y(score.low), "high": y(score.high)}
            for rows, score in points
        ],
        "line": " ".join(line),
        "guess": guess,
        "words": f"{words}.",
    }


def small_matrix(level: LevelResult, names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix on the test rows as a table.

    Args:
        level: its predictions.
        names: of the classes, and after them of labels in the test rows that are none of them.
    """
    counts, shares, predicted = _confusion(level, names)
    cells = [
        [{"rows": int(number), "shade": round(0.6 * float(share), 2)} for number, share in zip(*row, strict=True)]
        for row in zip(counts, shares, strict=True)
    ]
    return {"level": level.level, "names": names, "predicted": predicted, "cells": cells}


def large_matrix(level: LevelResult, names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix on the test rows as a drawing that shrinks to any width.

    Args:
        level: its predictions.
        names: of the classes, and after them of labels in the test rows that are none of them.

    Returns:
        Its size, the names with their places, and a square for each pair that occurs, as report.html draws them.
    """
    counts, shares, predicted = _confusion(level, names)
    short = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    numbered = len(names) <= NUMBERED_MATRIX
    letters = SMALL_LETTERS if numbered else LETTERS  # a drawing of many classes is shrunk the most
    margin = math.ceil(0.63 * letters * max(len(name) for name in short)) + 12
    squares = [
        {
            "x": margin + CELL * column,
            "y": margin + CELL * row,
            "rows": int(counts[row, column]),
            "shade": round(0.1 + 0.6 * float(shares[row, column]), 2),
            "title": f"{names[row]} predicted as {predicted[column]}: {counted(int(counts[row, column]), 'row')}",
        }
        for row, column in np.argwhere(counts).tolist()
    ]
    return {
        "level": level.level,
        "cell": CELL,
        "letters": letters,
        "margin": margin,
        "width": margin + CELL * len(predicted) + 4,
        "height": margin + CELL * len(names) + 4,
        "rows": [{"at": margin + CELL * (place + 0.5), "text": name} for place, name in enumerate(short)],
        "columns": [
            {"at": margin + CELL * (place + 0.5), "text": name} for place, name in enumerate(short[: len(predicted)])
        ],
        "squares": squares,
        "numbered": numbered,
    }


def _confusion(level: LevelResult, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """The confusion matrix, int64 (labels, classes), the shares of each label's rows, and the names of the classes."""
    probabilities, labels = level.kept.predictions("test")
    predicted = names[: probabilities.shape[1]]
    counts = confusion_matrix(probabilities.argmax(axis=1), labels, len(names), len(predicted))
    return counts, counts / counts.sum(axis=1, keepdims=True).clip(min=1), predicted


def reliability_chart(level: LevelResult) -> dict[str, Any]:
    """Reliability diagram: accuracy in each bin of confidence (Guo et al. 2017, section 2)."""
    probabilities, _ = level.kept.predictions("test")
    confidence, correct = probabilities.max(axis=1), level.correct[level.kept_index]
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    x, y = _Scale(0, 1, 40, 290), _Scale(0, 1, 180, 10)
    bars = []
    for place in np.unique(bins).tolist():
        chosen = bins == place
        accuracy, rows = float(correct[chosen].mean()), int(chosen.sum())
        left = x(place / CALIBRATION_BINS)
        bars.append(
            {
                "x": left + 0.5,
                "width": round(x((place + 1) / CALIBRATION_BINS) - left - 1, 1),
                "y": y(accuracy),
                "height": round(180 - y(accuracy), 1),
                "shade": round(0.25 + 0.75 * math.sqrt(rows / len(correct)), 2),
                "title": f"{counted(rows, 'row')}, confidence {confidence[chosen].mean():.3f}, accuracy {accuracy:.3f}",
            }
        )
    ticks = [{"x": x(tick), "y": y(tick), "text": f"{tick:g}"} for tick in (0, 0.5, 1)]
    words = _calibration_words(level.test.ece, level.calibrated)
    return {"level": level.level, "bars": bars, "ticks": ticks, "words": words}


def _calibration_words(ece: float, calibrated: Mapping[str, float] | None) -> str:
    words = f"Calibration error {ece:.3f}"
    if calibrated is not None:
        words += f"; {calibrated['ece']:.3f} after calibration (temperature {calibrated['temperature']:.2f})"
    return f"{words}."
