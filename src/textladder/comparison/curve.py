"""Would more rows help: accuracy against the number of training rows, and where it is likely to go.

The error of a classifier falls about as a power of the number of rows (Hestness et al. 2017, "Deep learning scaling is
predictable, empirically", section 3; for text Kaplan et al. 2020). The line through the measured errors, both as
logarithms, is drawn on to twice the rows; what the test rows leave open is told by resampling them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textladder.metrics import wilson_interval

SHARES = (1 / 8, 1 / 4, 1 / 2)
RESAMPLES = 2_000


@dataclass(frozen=True)
class Curve:
    """One level's accuracy over the number of training rows.

    Attributes:
        rows: training rows, rising; the last is all of them.
        accuracy: on the test rows, for each, a fraction.
        low: lower ends of their 95% intervals (Wilson).
        high: upper ends.
        doubled: accuracy that twice the rows would likely give, with the ends of its 95% interval; None where too
            little is left to say (fewer than three points, or an error of 0).
    """

    rows: list[int]
    accuracy: list[float]
    low: list[float]
    high: list[float]
    doubled: tuple[float, float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as `compare --json` has them."""
        names = ("accuracy", "low", "high")
        points = [
            dict(zip(("rows", *names), one, strict=True))
            for one in zip(self.rows, self.accuracy, self.low, self.high, strict=True)
        ]
        doubled = None
        if self.doubled is not None:
            doubled = {"rows": 2 * self.rows[-1], **dict(zip(names, self.doubled, strict=True))}
        return {"points": points, "doubled": doubled}


def learning_curve(rows: Sequence[int], right: np.ndarray, *, seed: int = 0) -> Curve:
    """The curve of a level that was trained on more and more rows.

    Args:
        rows: how many, rising.
        right: bool (points, test rows), which test rows it then got right.
        seed: of the resampling.
    """
    intervals = [wilson_interval(int(one.sum()), right.shape[1]) for one in right]
    return Curve(
        rows=list(rows),
        accuracy=[float(one.mean()) for one in right],
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        doubled=_doubled(np.array(rows, np.float64), right, np.random.default_rng(seed)),
    )


def _doubled(rows: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float] | None:
    errors = 1 - right.mean(axis=1)
    if len(rows) < 3 or (errors == 0).any():
        return None
    likely = float(_drawn_on(rows, errors[None])[0])
    patterns, counts = np.unique(right, axis=1, return_counts=True)
    drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) / counts.sum()
    resampled = np.maximum(1 - drawn @ patterns.T.astype(np.float64), 0.5 / right.shape[1])
    # of the points' scatter around the line too, which the luck of a training adds
    noise = _scatter(rows, errors) * rng.standard_normal(RESAMPLES)
    low, high = np.percentile(1 - (1 - _drawn_on(rows, resampled)) * np.exp(noise), [2.5, 97.5])
    return likely, float(max(0.0, low)), float(min(1.0, high))


def _line(rows: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and height, at the mean, of the straight line through log error over log rows; errors (..., points)."""
    x, y = np.log(rows) - np.log(rows).mean(), np.log(errors)
    return y @ x / (x @ x), y.mean(axis=-1)


def _drawn_on(rows: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Accuracy at twice the rows; never below what the line says of all rows, because rows do not unlearn."""
    slope, height = _line(rows, errors)
    at = np.log(2 * rows[-1]) - np.log(rows).mean()
    accuracy: np.ndarray = 1 - np.exp(height + np.minimum(slope, 0) * at)
    return accuracy


def _scatter(rows: np.ndarray, errors: np.ndarray) -> float:
    """Standard deviation of log errors around the line."""
    slope, height = _line(rows, errors)
    left = np.log(errors) - height - slope * (np.log(rows) - np.log(rows).mean())
    return float(np.sqrt((left**2).sum() / max(1, len(rows) - 2)))
