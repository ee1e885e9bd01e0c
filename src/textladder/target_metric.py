"""The metric that a person judges by: training, gains and the verdict go by it.

Its values are scikit-learn's. What statistics need besides is what each row contributes, so that a metric of all rows,
such as macro F1, can be treated as the mean that accuracy is.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textladder.data.delimited_file import DelimitedFile
from textladder.data.file_options import FileOptions
from textladder.data.row_files import open_rows
from textladder.errors import ConfigError, DataError, unknown_name
from textladder.metrics import SMALLEST_PROBABILITY, probability_of_truth, wilson_interval
from textladder.significance import POINTS, Unit, interval_of_mean
from textladder.wording import printable

ACCURACY, MACRO_F1 = "accuracy", "macro-f1"
NAMES = (
    ACCURACY, MACRO_F1, "weighted-f1", "balanced-accuracy", "mcc", "log-loss", "f1:LABEL", "average-precision:LABEL",
    "recall-at-precision:LABEL=0.9",
)  # fmt: skip
NEIGHBOURS = 20  # rows at least among which the precision around a threshold is estimated
MOST_LOCAL_PRECISION = 0.9  # of the demanded precision, above which the threshold would hardly be determined
COSTS = "costs:"  # before the name of a file
EVERY_LABEL = "*"


class TargetMetric(ABC):
    """A metric of predicted probabilities on labelled rows.

    Attributes:
        name: as the user gives it.
        title: as people call it.
        sign: 1 if higher is better, -1 if lower is better.
        label_id: the class, if it is a metric of one class.
    """

    name: str
    title: str
    sign: int = 1
    label_id: int | None

    @property
    def unit(self) -> Unit:
        """Of gains in it: points of the metric."""
        return Unit(f"of {self.title}")

    def value(self, probabilities: np.ndarray, label_ids: np.ndarray) -> float:
        """Its value.

        Args:
            probabilities: float (rows, classes).
            label_ids: int (rows,), the true class of each row; `classes` and more for labels that are none of them.
        """
        return self.sign * float(self.contributions(probabilities, label_ids).mean())

    @abstractmethod
    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """What each row contributes, float64 (rows,): the mean is the value, negated if lower is better.

        Where the metric is not a mean over the rows, it is the value plus the influence of the row: how the value
        changes without it, times the number of rows (jackknife; Efron & Tibshirani 1993, chapter 11).
        """


class Score(NamedTuple):
    """The value of a metric, and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_rows(cls, metric: TargetMetric, contributions: np.ndarray) -> "Score":
        """The metric of some rows, from what each contributes, float (rows,)."""
        if metric.name == ACCURACY:
            interval = wilson_interval(int(contributions.sum()), len(contributions))
            return cls(float(contributions.mean()), *interval)
        ends = sorted(metric.sign * end for end in interval_of_mean(contributions))
        if metric.sign == 1:  # no such metric is above 1, and none that falls is below 0
            return cls(float(contributions.mean()), ends[0], min(1.0, ends[1]))
        return cls(-float(contributions.mean()), max(0.0, ends[0]), ends[1])


@dataclass(frozen=True)
class Accuracy(TargetMetric):
    """The share of rows whose most probable class is the true one."""

    name: str = ACCURACY
    title: str = "accuracy"
    label_id: int | None = None

    @property
    def unit(self) -> Unit:
        """Points, which need no other word."""
        return POINTS

    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """See `TargetMetric`."""
        correct: np.ndarray = (probabilities.argmax(axis=1) == label_ids).astype(np.float64)
        return correct


@dataclass(frozen=True)
class LogLoss(TargetMetric):
    """The mean negative log probability of the true class, in nats; a point is a hundredth of one."""

    name: str = "log-loss"
    title: str = "log loss"
    label_id: int | None = None
    sign: int = -1

    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """See `TargetMetric`."""
        of_truth = probability_of_truth(probabilities, label_ids).astype(np.float64)
        logarithms: np.ndarray = np.log(np.clip(of_truth, SMALLEST_PROBABILITY, 1))
        return logarithms


@dataclass(frozen=True)
class Costs(TargetMetric):
    """The mean cost of a text: of taking its class for the most probable one.

    Attributes:
        costs: float64 (classes, classes), what it costs if a row of one class is predicted as another. A row of none of
            them costs as much as the most expensive mistake.
    """

    name: str
    costs: np.ndarray
    title: str = "cost per text"
    label_id: int | None = None
    sign: int = -1

    @property
    def unit(self) -> Unit:
        """The person's own; a hundredth of the mean cost of a mistake is worth having."""
        worth = 0.01 * float(self.costs[_mistakes(len(self.costs))].mean())
        return Unit("saved per text", scale=1.0, worth=worth)

    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """See `TargetMetric`."""
        with_none = np.vstack([self.costs, np.full(len(self.costs), self.costs.max())])
        paid: np.ndarray = -with_none[np.minimum(label_ids, len(self.costs)), probabilities.argmax(axis=1)]
        return paid


@dataclass(frozen=True)
class Counted(TargetMetric):
    """A metric of how often each class is predicted as each.

    Attributes:
        function: scikit-learn's, of the true classes, the predicted ones and `sample_weight`.
    """

    name: str
    title: str
    function: Callable[..., float]
    label_id: int | None = None

    def value(self, probabilities: np.ndarray, label_ids: np.ndarray) -> float:
        """See `TargetMetric`."""
        return self._of(label_ids, probabilities.argmax(axis=1))

    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """See `TargetMetric`."""
        outcomes = np.stack([label_ids, probabilities.argmax(axis=1)])
        kinds, of_row, counts = np.unique(outcomes, axis=1, return_inverse=True, return_counts=True)
        rows, without = len(label_ids), np.zeros(len(counts))
        for kind in range(len(counts)):
            fewer = counts.copy()
            fewer[kind] -= 1
            left = fewer > 0
            if left.any():
                without[kind] = self._of(kinds[0, left], kinds[1, left], fewer[left])
        influence = (rows - 1) * (without @ counts / rows - without)
        contributions: np.ndarray = (self._of(kinds[0], kinds[1], counts) + influence)[of_row.ravel()]
        return contributions

    def _of(self, label_ids: np.ndarray, predicted: np.ndarray, counts: np.ndarray | None = None) -> float:
        from sklearn import config_context

        with warnings.catch_warnings(), config_context(skip_parameter_validation=True, assume_finite=True):
            warnings.simplefilter("ignore")  # that a class is not predicted, or is in no row
            return float(self.function(label_ids, predicted, sample_weight=counts))


@dataclass(frozen=True)
class AveragePrecision(TargetMetric):
    """The average precision of one class: the area under its precision-recall curve, in steps.

    Attributes:
        label_id: the class.
    """

    name: str
    title: str
    label_id: int

    def value(self, probabilities: np.ndarray, label_ids: np.ndarray) -> float:
        """See `TargetMetric`."""
        from sklearn.metrics import average_precision_score

        if self.label_id not in label_ids:
            return 0.0
        return float(average_precision_score(label_ids == self.label_id, probabilities[:, self.label_id]))

    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """See `TargetMetric`; the influence is the derivative by the weight of the row."""
        if self.label_id not in label_ids:
            return np.zeros(len(label_ids))
        positive = (label_ids == self.label_id).astype(np.float64)
        # rows from the highest score down; those with the same score pass the threshold together
        _, group = np.unique(-probabilities[:, self.label_id], return_inverse=True)
        hits = np.bincount(group, positive)
        found, passed = np.cumsum(hits), np.cumsum(np.bincount(group))
        precision = found / passed
        value = float(hits @ precision) / found[-1]

        def from_here(values: np.ndarray) -> np.ndarray:
            return np.cumsum(values[::-1])[::-1]

        # a row adds to the precision at its own threshold and at all lower ones
        as_hit, as_miss = from_here(hits * (1 - precision) / passed), from_here(-hits * precision / passed)
        slope = np.where(positive == 1, precision[group] + as_hit[group] - value, as_miss[group]) / found[-1]
        contributions: np.ndarray = value + len(label_ids) * slope
        return contributions


@dataclass(frozen=True)
class RecallAtPrecision(TargetMetric):
    """The highest recall of one class at a threshold where its precision is high enough; 0 where it never is.

    Attributes:
        label_id: the class.
        precision: what is high enough.
    """

    name: str
    title: str
    label_id: int
    precision: float

    def value(self, probabilities: np.ndarray, label_ids: np.ndarray) -> float:
        """See `TargetMetric`."""
        return self._best(probabilities, label_ids)[0]

    def contributions(self, probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        """See `TargetMetric`; the influence is that on the threshold and on the recall there.

        A false positive above the threshold moves it up until the precision is as high as before. How much recall that
        costs depends on the precision among the rows around the threshold.
        """
        recall, threshold = self._best(probabilities, label_ids)
        if threshold == math.inf:
            return np.zeros(len(label_ids))
        scores, positive = probabilities[:, self.label_id], (label_ids == self.label_id).astype(np.float64)
        above = (scores >= threshold).astype(np.float64)
        around = np.argsort(np.abs(scores - threshold), kind="stable")[: max(NEIGHBOURS, round(len(scores) ** 0.5))]
        local = min(float(positive[around].mean()), MOST_LOCAL_PRECISION * self.precision)
        moved = local / (self.precision - local) * (positive - self.precision) * above
        influence = (above * positive - recall * positive + moved) / positive.mean()
        contributions: np.ndarray = recall + influence - influence.mean()
        return contributions

    def _best(self, probabilities: np.ndarray, label_ids: np.ndarray) -> tuple[float, float]:
        """The highest recall and its threshold; infinity if no threshold gives the precision."""
        from sklearn.metrics import precision_recall_curve

        if self.label_id not in label_ids:
            return 0.0, math.inf
        scores = probabilities[:, self.label_id]
        precisions, recalls, thresholds = precision_recall_curve(label_ids == self.label_id, scores)
        enough = np.flatnonzero(precisions[:-1] >= self.precision)  # the last point is that of no row at all
        if not len(enough):
            return 0.0, math.inf
        best = enough[recalls[enough].argmax()]
        return float(recalls[best]), float(thresholds[best])


def _counted(name: str, title: str, function: str, label_id: int | None = None, **options: Any) -> Counted:
    from sklearn import metrics

    whole = getattr(metrics, function)
    return Counted(name, title, lambda *arguments, **weights: whole(*arguments, **options, **weights), label_id)


def find_metric(name: str, labels: Sequence[str], label_names: Sequence[str] | None = None) -> TargetMetric:
    """The metric of a name.

    Args:
        name: `accuracy`, `macro-f1`, `weighted-f1`, `balanced-accuracy`, `mcc` (Matthews correlation coefficient),
            `log-loss`, `f1:LABEL`, `average-precision:LABEL`, `recall-at-precision:LABEL=0.9`, or `costs:FILE`, see
            `read_costs`.
        labels: in the order of the classes.
        label_names: their display names, by which a label can be named too.

    Raises:
        ConfigError: there is no such metric or label, or the costs cannot be read.
    """
    if name.startswith(COSTS):
        return Costs(name, read_costs(name.removeprefix(COSTS), labels))
    kind, colon, argument = name.partition(":")
    if not colon:
        match name:
            case "accuracy":
                return Accuracy()
            case "macro-f1":
                # a class that is in no row, neither as truth nor as prediction, has no F1
                return _counted(name, "macro F1", "f1_score", average="macro", zero_division=np.nan)
            case "weighted-f1":
                return _counted(name, "weighted F1", "f1_score", average="weighted", zero_division=np.nan)
            case "balanced-accuracy":
                return _counted(name, "balanced accuracy", "balanced_accuracy_score")
            case "mcc":
                return _counted(name, "Matthews correlation", "matthews_corrcoef")
            case "log-loss":
                return LogLoss()
    elif kind == "f1":
        place, label = _label(argument, labels, label_names)
        return _counted(name, f"F1 of {label}", "f1_score", place, labels=[place], average="macro", zero_division=0)
    elif kind == "average-precision":
        place, label = _label(argument, labels, label_names)
        return AveragePrecision(name, f"average precision of {label}", place)
    elif kind == "recall-at-precision":
        label, equals, number = argument.rpartition("=")
        precision = _number(number) if equals else None
        if precision is None or not 0 < precision < 1:
            raise ConfigError(
                f"Metric {name!r} needs a label and a precision between 0 and 1, as in recall-at-precision:LABEL=0.9."
            )
        place, label = _label(label, labels, label_names)
        title = f"recall of {label} at a precision of {precision:g}"
        return RecallAtPrecision(name, title, place, precision)
    if kind in ("f1", "average-precision", "recall-at-precision"):
        raise ConfigError(f"Metric {kind} is of one label: name it, as in {kind}:{labels[0]}.")
    raise ConfigError(unknown_name("metric", name, NAMES))


def _label(label: str, labels: Sequence[str], label_names: Sequence[str] | None) -> tuple[int, str]:
    """The class that is meant, and its display name."""
    for names in (labels, label_names or ()):
        if label in names:
            place = list(names).index(label)
            return place, printable((label_names or labels)[place])
    raise ConfigError(unknown_name("label", label, labels))


def _mistakes(labels: int) -> np.ndarray:
    """Which pairs of a label and a prediction are mistakes, bool (labels, labels)."""
    mistakes: np.ndarray = np.arange(labels)[:, None] != np.arange(labels)
    return mistakes


def _number(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def read_costs(path: str | Path, labels: Sequence[str]) -> np.ndarray:
    """Read what each mistake costs, float64 (labels, labels): of a row of one label that is predicted as another.

    Args:
        path: a CSV file or the like. Either with the columns `label`, `predicted` and `cost`, where `*` stands for all
            labels that no other row names; or a table with the true labels in the first column and the predicted ones
            in the header. A right prediction costs nothing if the file does not say otherwise.
        labels: the labels.

    Raises:
        ConfigError: the file cannot be read, has an unknown label, lacks a mistake, or has a cost that is no number or
            is negative.
    """
    try:
        file = open_rows(path)
        if isinstance(file, DelimitedFile):  # where the labels are numbers, the header does not look like one
            file = open_rows(path, FileOptions(header=True))
        batches = list(file.batches())
    except DataError as error:
        raise ConfigError(str(error)) from None
    columns = {name: [cell or "" for batch in batches for cell in file.column(batch, name)] for name in file.names}
    first, *others = columns
    if sorted(columns) == ["cost", "label", "predicted"]:
        entries = list(zip(columns["label"], columns["predicted"], columns["cost"], strict=True))
    else:
        entries = [
            (label, name, cost) for name in others for label, cost in zip(columns[first], columns[name], strict=True)
        ]
    return _costs(path, entries, labels)


def _costs(path: str | Path, entries: Sequence[tuple[str, ...]], labels: Sequence[str]) -> np.ndarray:
    """The costs of (label, predicted, cost), those with the most names last."""
    costs = np.full((len(labels), len(labels)), np.nan)
    np.fill_diagonal(costs, 0)
    mistakes = _mistakes(len(labels))
    for label, predicted, written in sorted(entries, key=lambda one: -one[:2].count(EVERY_LABEL)):
        for name in (label, predicted):
            if name != EVERY_LABEL and name not in labels:
                raise ConfigError(f"{path}: {unknown_name('label', name, labels)}")
        cost = _number(written)
        if cost is None or not 0 <= cost < math.inf:
            raise ConfigError(
                f"{path}: the cost of {label!r} predicted as {predicted!r} must be a number of at least 0; "
                f"received {written!r}."
            )
        rows = slice(None) if label == EVERY_LABEL else [list(labels).index(label)]
        columns = slice(None) if predicted == EVERY_LABEL else [list(labels).index(predicted)]
        chosen = np.zeros_like(mistakes)
        chosen[rows, columns] = True
        named = EVERY_LABEL not in (label, predicted)
        costs[chosen if named else chosen & mistakes] = cost
    if np.isnan(costs).any():
        label, predicted = (labels[place] for place in np.argwhere(np.isnan(costs))[0])
        raise ConfigError(
            f"{path}: it does not say what it costs if {label!r} is predicted as {predicted!r}. A row with * as label "
            "and as prediction stands for all mistakes that no other row names."
        )
    if not costs[mistakes].any():
        raise ConfigError(f"{path}: no mistake costs anything, so every classifier is as good as any other.")
    return costs
