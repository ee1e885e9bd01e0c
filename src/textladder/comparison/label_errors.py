"""Training rows whose label looks wrong: confident learning on predictions that did not see the row.

Northcutt, Jiang & Chuang 2021, "Confident learning" (JAIR 70), sections 3 and 4, through cleanlab. The predictions are
`tfidf`'s, out of fold, because it learns in seconds and seldom learns a wrong label by heart.
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

FOLDS, LEAST_ROWS = 5, 40
MOST_ROWS = 50_000  # of more, a random choice is looked at
MOST_ERRORS = 100


@dataclass(frozen=True)
class LabelError:
    """A row whose label looks wrong.

    Attributes:
        row: counted from 0 in the training data.
        label: the class that it has.
        likely: the class that the other rows say it has.
        probability: of that one, 0 to 1.
    """

    row: int
    label: int
    likely: int
    probability: float


def find_label_errors(data: TextData, *, seed: int = 0, monitor: Monitor | None = None) -> list[LabelError]:
    """The training and validation rows whose label looks most likely wrong, the most doubtful first.

    Raises:
        MissingExtraError: cleanlab is not installed.
        DataError: there are too few rows to tell.
    """
    filters: Any = import_extra("cleanlab.filter", "train")
    rows = data.train if data.valid is None else data.train + data.valid
    if len(rows) > MOST_ROWS:
        chosen = stratified(np.arange(len(rows)), rows.label_ids, MOST_ROWS, np.random.default_rng(seed))
        rows = replace(rows, rows=rows.rows[np.sort(chosen)])
    if len(rows) < LEAST_ROWS or np.bincount(rows.label_ids, minlength=len(data.labels)).min() < FOLDS:
        raise DataError(
            f"There are too few rows to tell which labels look wrong ({len(rows):,}, or a class too small)."
        )
    probabilities = _out_of_fold(rows, seed, monitor or Monitor())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = filters.find_label_issues(
            rows.label_ids, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1
        )
    likely = probabilities.argmax(axis=1)
    return [
        LabelError(int(rows.rows[at]), int(rows.label_ids[at]), int(likely[at]), float(probabilities[at, likely[at]]))
        for at in ranked.tolist()[:MOST_ERRORS]
    ]


def _out_of_fold(rows: LabelledTexts, seed: int, monitor: Monitor) -> np.ndarray:
    """Probabilities of each row from the level that was trained without its fold, float32 (rows, classes)."""
    from sklearn.model_selection import StratifiedKFold

    level, classes = find_level("tfidf"), len(rows.labels)
    found = np.zeros((len(rows), classes), np.float32)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(found, rows.label_ids)
    monitor.start("looking for wrong labels", FOLDS)
    try:
        for number, (train, held_out) in enumerate(folds):
            fitted = level(make_config(level, "default", {}), classes)
            fitted.fit(replace(rows, rows=rows.rows[train]), None, seed=seed, monitor=Monitor())
            found[held_out] = fitted.predict_proba(list(replace(rows, rows=rows.rows[held_out])))
            monitor.advance(number + 1)
    finally:
        monitor.stop()
    return found
