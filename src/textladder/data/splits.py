"""Stratified splits: every class in proportion in every part."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from textladder.errors import DataError

SHOWN = 10  # classes that an error names


def check_classes(
    label_ids: np.ndarray, labels: Sequence[str], source_name: str, least: int = 2, merged: bool = False
) -> None:
    """Check that there are at least two classes, each with enough rows.

    Args:
        label_ids: the class of every row, an index into `labels`.
        labels: the classes.
        source_name: what error messages call the data.
        least: the rows that every class needs.
        merged: whether the classes with fewer have been merged.

    Raises:
        DataError: there is only one class, or a class has fewer rows.
    """
    counts = Counter(label_ids.tolist())
    if not counts:
        raise DataError(f"{source_name}: every class has fewer than {least} rows, so none is left.")
    if len(counts) < 2:
        raise DataError(
            f"{source_name}: every row has the label {labels[next(iter(counts))]!r}; at least two classes are needed."
        )
    rare = [label for index, label in enumerate(labels) if counts[index] < least]
    if rare:
        shown = ", ".join(map(repr, rare[:SHOWN])) + (f", ... ({len(rare):,} in all)" if len(rare) > SHOWN else "")
        many = f"there are fewer than {least} rows of {'class' if len(rare) == 1 else 'each of the classes'} {shown}"
        other = "`min_class_rows=` to merge more" if merged else '`rare_classes="merge"` to take such classes for one'
        raise DataError(f'{source_name}: {many}; pass `rare_classes="drop"` to leave such rows out, or {other}.')


def stratified(
    rows: np.ndarray, label_ids: np.ndarray, size: int, rng: np.random.Generator, *, keep_back: bool = True
) -> np.ndarray:
    """Draw a random sample of rows with every class in proportion.

    Shares are rounded by largest remainder, and every class contributes at least one row. From the same state of `rng`,
    a smaller sample is a subset of a larger one.

    Args:
        rows: the rows to draw from, int64 indices into `label_ids`.
        label_ids: the classes of all rows.
        size: how many rows to draw; rounding each class up to one row, or `keep_back`, may change it a little.
        rng: the source of randomness.
        keep_back: leave at least one row of every class undrawn, even if the class then contributes none.

    Returns:
        The drawn rows, int64, grouped by class.
    """
    classes, counts = np.unique(label_ids[rows], return_counts=True)
    exact = counts * (size / len(rows))
    share = np.floor(exact).astype(np.int64)
    for index in np.argsort(share - exact, kind="stable")[: size - share.sum()]:
        share[index] += 1
    most = counts - keep_back
    share = np.clip(share, np.minimum(1, most), most)
    drawn = [
        rng.permutation(rows[label_ids[rows] == value])[:count] for value, count in zip(classes, share, strict=True)
    ]
    return np.concatenate(drawn)
