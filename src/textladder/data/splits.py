"""Stratified splits: every class in proportion, in every part."""

from collections import Counter

import numpy as np

from textladder.errors import DataError


def check_classes(ids: np.ndarray, labels: tuple[str, ...], where: str) -> None:
    """Refuse labels that cannot be split.

    Raises:
        DataError: there is only one class, or a class with fewer than two rows.
    """
    counts = Counter(ids.tolist())
    if len(counts) < 2:
        raise DataError(
            f"{where}: every row has the label {labels[next(iter(counts))]!r}; at least two classes are needed."
        )
    for place, value in enumerate(labels):
        if counts[place] < 2:
            many = "no row" if not counts[place] else "only one row"
            raise DataError(f"{where}: there is {many} of class {value!r}; every class needs at least two.")


def stratified(
    rows: np.ndarray, ids: np.ndarray, wanted: int, rng: np.random.Generator, *, keep_back: bool = True
) -> np.ndarray:
    """A random choice of `wanted` of some rows with every class in proportion; `ids` are the classes of all rows.

    Shares are rounded by largest remainder; a class gives at least one row and, with `keep_back`, keeps at least one,
    which comes first. With the same state of `rng` a smaller choice is a part of a larger one.
    """
    classes, counts = np.unique(ids[rows], return_counts=True)
    exact = counts * (wanted / len(rows))
    share = np.floor(exact).astype(np.int64)
    for place in np.argsort(share - exact, kind="stable")[: wanted - share.sum()]:
        share[place] += 1
    most = counts - keep_back
    share = np.clip(share, np.minimum(1, most), most)
    picked = [rng.permutation(rows[ids[rows] == value])[:many] for value, many in zip(classes, share, strict=True)]
    return np.concatenate(picked)
