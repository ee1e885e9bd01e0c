"""Folds: every row is a test row once, predicted by a classifier that was trained on the other folds.

With few rows, a fifth of them says little about a gain; all of them say as much as can be said (cross-validation; Stone
1974). Texts that repeat one another are in the same fold.
"""

import warnings
from dataclasses import replace

import numpy as np

from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.data.splits import stratified
from textladder.errors import ConfigError
from textladder.near_duplicates import TextIndex
from textladder.progress import Monitor
from textladder.wording import counted


def fold_folder(shared_rows: str, fold: int) -> str:
    """The folder of a fold's rows in the folder of the shared rows."""
    return f"{shared_rows}/{fold}"


class Folds:
    """The folds of all rows of a data set.

    Args:
        data: the rows; the test rows must have been held out from the others.
        number: of folds, at least 2.
        seed: of the folds.
        monitor: receives progress.

    Attributes:
        fold_of_row: int64 (rows,), in the order of the table.

    Raises:
        ConfigError: there are separate test rows, or too few different texts.
    """

    def __init__(self, data: TextData, number: int, seed: int, monitor: Monitor) -> None:
        if data.test.table is not data.train.table:
            raise ConfigError("The rows cannot be divided into folds, because there are separate test rows.")
        self.data, self.number, self.seed = data, number, seed
        rows = data.train + data.test
        self.rows = rows if data.valid is None else rows + data.valid
        self._share = 0.0 if data.valid is None else len(data.valid) / (len(data.train) + len(data.valid))
        self.fold_of_row = self._divide(monitor)

    def part(self, fold: int) -> TextData:
        """The rows of one fold as test rows, the others as training and validation rows."""
        return self._data(np.flatnonzero(self.fold_of_row != fold), np.flatnonzero(self.fold_of_row == fold))

    def finished(self) -> TextData:
        """All rows as training and validation rows, and all of them as test rows, each of which is one in some fold."""
        everything = np.arange(len(self.rows))
        described = self.data.description.rpartition("; ")[0]
        rows = f"{counted(len(self.rows), 'row')}, each of them a test row in one of {self.number} folds."
        return replace(self._data(everything, everything), description=f"{described}; {rows}")

    def _data(self, others: np.ndarray, test: np.ndarray) -> TextData:
        rng = np.random.default_rng(self.seed)
        size = round(self._share * len(others))
        valid = stratified(others, self.rows.label_ids, size, rng) if size else np.array([], np.int64)
        train = np.setdiff1d(others, valid, assume_unique=True)
        return replace(
            self.data,
            train=self._rows(train),
            valid=self._rows(np.sort(valid)) if size else None,
            test=self._rows(test),
        )

    def _rows(self, places: np.ndarray) -> LabelledTexts:
        return replace(self.rows, rows=self.rows.rows[places])

    def _divide(self, monitor: Monitor) -> np.ndarray:
        from sklearn.model_selection import StratifiedGroupKFold

        label_ids = self.rows.label_ids
        of_class = np.bincount(label_ids)
        if self.number > of_class.max():
            raise ConfigError(
                f"{self.number} folds are too many: the largest class has {counted(int(of_class.max()), 'row')}."
            )
        monitor.start("looking for texts that repeat one another", len(label_ids))
        index = TextIndex({"train": self.rows}, monitor)
        groups = index.groups()
        monitor.stop()
        if self.number > (different := len(np.unique(groups))):
            raise ConfigError(f"{self.number} folds are too many for {counted(different, 'different text')}.")
        folds = np.zeros(len(label_ids), np.int64)
        splitter = StratifiedGroupKFold(self.number, shuffle=True, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class with fewer rows than folds is not in every test part
            for fold, (_, test) in enumerate(splitter.split(groups, label_ids, groups)):
                folds[test] = fold
        for label in np.unique(label_ids):
            places = np.flatnonzero(label_ids == label)
            if len(np.unique(folds[places])) == 1:  # it could not be trained for that fold
                folds[places] = np.arange(len(places)) % self.number
        if of_class.min() < self.number:
            monitor.say(
                f"The smallest class has {counted(int(of_class.min()), 'row')}, fewer than the {self.number} folds, so "
                "some folds test none of it."
            )
        return folds
