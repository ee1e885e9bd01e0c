"""How well each class is predicted: precision, recall and F1 with their intervals, and which classes are mixed up."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from textladder.metrics import wilson_interval


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is predicted; all but the support are fractions.

    Attributes:
        precision: share of the rows predicted as the class that are of it; 0 if there are none.
        precision_low: lower end of its 95% interval (Wilson 1927).
        precision_high: upper end.
        recall: share of the rows of the class that are predicted as it; 0 if there are none.
        recall_low: lower end of its 95% interval (Wilson 1927).
        recall_high: upper end.
        f1: harmonic mean of precision and recall.
        f1_low: lower end of its 95% interval.
        f1_high: upper end.
        support: number of rows of the class.
    """

    precision: float
    precision_low: float
    precision_high: float
    recall: float
    recall_low: float
    recall_high: float
    f1: float
    f1_low: float
    f1_high: float
    support: int

    def as_dict(self) -> dict[str, float | int]:
        """The metrics by name."""
        return asdict(self)


class MixUp(NamedTuple):
    """Rows of one class that are predicted as another: the two classes, as indices, and how many rows."""

    label: int
    predicted: int
    rows: int


def class_metrics(predicted: np.ndarray, label_ids: np.ndarray, classes: int) -> list[ClassMetrics]:
    """The metrics of each class.

    The interval of F1 is Wilson's for the share q of the rows that are both of the class and predicted as it, among
    those that are either, because F1 is 2q / (1 + q).

    Args:
        predicted: the predicted classes, int (rows,).
        label_ids: the true classes, int (rows,); `classes` and more for labels that are none of them.
        classes: number of classes.
    """
    from sklearn.metrics import precision_recall_fscore_support

    every = np.arange(classes)
    scores = precision_recall_fscore_support(label_ids, predicted, labels=every, zero_division=0)
    hits = np.bincount(predicted[predicted == label_ids], minlength=classes).tolist()
    guesses = np.bincount(predicted, minlength=classes).tolist()
    found = []
    for place, (precision, recall, f1, support) in enumerate(zip(*(one.tolist() for one in scores), strict=True)):
        low, high = _interval(hits[place], guesses[place] + support - hits[place])
        found.append(
            ClassMetrics(
                *(precision, *_interval(hits[place], guesses[place])),
                *(recall, *_interval(hits[place], support)),
                *(f1, 2 * low / (1 + low), 2 * high / (1 + high)),
                support=support,
            )
        )
    return found


def _interval(hits: int, rows: int) -> tuple[float, float]:
    """Wilson's interval; anything is possible if there are no rows."""
    return wilson_interval(hits, rows) if rows else (0.0, 1.0)


def confusion_matrix(predicted: np.ndarray, label_ids: np.ndarray, labels: int, classes: int) -> np.ndarray:
    """How many rows of each label are predicted as each class, int64 (labels, classes).

    Args:
        predicted: the predicted classes, int (rows,).
        label_ids: the true labels, int (rows,).
        labels: number of labels; those after the classes are none of them.
        classes: number of classes.
    """
    from sklearn import metrics

    counts: np.ndarray = metrics.confusion_matrix(label_ids, predicted, labels=np.arange(labels))
    return counts[:, :classes].astype(np.int64)


def most_mixed_up(confusion: np.ndarray, most: int) -> list[MixUp]:
    """The pairs of classes that are mixed up in most rows, the most frequent first.

    Args:
        confusion: from `confusion_matrix`, int (labels, classes).
        most: how many pairs at most.
    """
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(place, wrong.shape[1]) for place in order.tolist()]
    return [MixUp(label, guess, int(wrong[label, guess])) for label, guess in pairs if wrong[label, guess]]
