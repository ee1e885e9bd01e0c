"""Training rows whose label is probably wrong: confident learning on out-of-fold predictions.

Northcutt, Jiang & Chuang 2021, "Confident learning" (JAIR 70), sections 3 and 4, through cleanlab. The predictions are
`tfidf`'s, because it trains in seconds and seldom memorises a wrong label.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.data.splits import stratified
from textladder.errors import DataError, import_extra
from textladder.levels import find_level
from textladder.levels.base import make_config
from textladder.progress import Monitor
from textladder.wording import counted

FOLDS, LEAST_ROWS = 5, 40
MOST_ROWS = 50_000  # of larger data sets, a random sample is checked
MOST_ERRORS = 100


@dataclass(frozen=True)
class LabelError:
    """A row whose label is probably wrong.

    Attributes:
        row: row of the training data, counted from 0.
        label: the given class, an index into the labels.
        predicted: the class predicted out of fold.
        probability: predicted probability of that class, 0 to 1.
    """

    row: int
    label: int
    predicted: int
    probability: float


def find_label_errors(data: TextData, *, seed: int = 0, monitor: Monitor | None = None) -> list[LabelError]:
    """Find the training and validation rows whose label is most likely wrong.

    Args:
        data: the rows; the test rows are not checked.
        seed: of the folds and, above 50,000 rows, of the sample.
        monitor: receives progress.

    Returns:
        At most 100 rows, the most suspicious first.

    Raises:
        MissingExtraError: cleanlab is not installed.
        DataError: there are too few rows.
    """
    filters: Any = import_extra("cleanlab.filter", "train")
    rows = data.train if data.valid is None else data.train + data.valid
    if len(rows) > MOST_ROWS:
        chosen = stratified(np.arange(len(rows)), rows.label_ids, MOST_ROWS, np.random.default_rng(seed))
        rows = replace(rows, rows=rows.rows[np.sort(chosen)])
    smallest = int(np.bincount(rows.label_ids, minlength=len(data.labels)).min())
    if len(rows) < LEAST_ROWS or smallest < FOLDS:
        raise DataError(
            f"There are too few rows to find label errors: {LEAST_ROWS}, and {FOLDS} of each class, are needed; "
            f"received {counted(len(rows), 'row')}, and {smallest} of the smallest class."
        )
    probabilities = _out_of_fold(rows, seed, monitor or Monitor())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = filters.find_label_issues(
            rows.label_ids, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1
        )
    predicted = probabilities.argmax(axis=1)
    return [
        LabelError(
            int(rows.rows[at]), int(rows.label_ids[at]), int(predicted[at]), float(probabilities[at, predicted[at]])
        )
        for at in ranked.tolist()[:MOST_ERRORS]
    ]


def _out_of_fold(rows: LabelledTexts, seed: int, monitor: Monitor) -> np.ndarray:
    """Probabilities of each row from a `tfidf` trained without the row's fold, float32 (rows, classes)."""
    from sklearn.model_selection import StratifiedKFold

    level, classes = find_level("tfidf"), len(rows.labels)
    found = np.zeros((len(rows), classes), np.float32)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(found, rows.label_ids)
    monitor.start("finding label errors", FOLDS)
    try:
        for number, (train, held_out) in enumerate(folds):
            fitted = level(make_config(level, "default", {}), classes)
            fitted.fit(replace(rows, rows=rows.rows[train]), None, seed=seed, monitor=Monitor())
            found[held_out] = fitted.score(list(replace(rows, rows=rows.rows[held_out]))).probabilities
            monitor.advance(number + 1)
    finally:
        monitor.stop()
    return found
