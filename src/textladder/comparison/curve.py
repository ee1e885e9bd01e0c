"""Learning curves: accuracy against the number of training rows, extrapolated to twice the rows.

A classifier's error falls roughly as a power of the number of rows (Hestness et al. 2017, "Deep learning scaling is
predictable, empirically", section 3; for text Kaplan et al. 2020). A line fitted to the logarithm of the errors over
the logarithm of the rows is extended to twice the rows; the interval comes from resampling the test rows.
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
    """The accuracy of one level over the number of training rows.

    Attributes:
        rows: numbers of training rows, ascending; the last is all of them.
        accuracy: test accuracy at each, a fraction.
        low: lower ends of their 95% intervals (Wilson).
        high: upper ends.
        doubled: extrapolated accuracy at twice the rows and the ends of its 95% interval; None with fewer than three
            points or an error of 0.
    """

    rows: list[int]
    accuracy: list[float]
    low: list[float]
    high: list[float]
    doubled: tuple[float, float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as in `compare --json`."""
        names = ("accuracy", "low", "high")
        points = [
            dict(zip(("rows", *names), one, strict=True))
            for one in zip(self.rows, self.accuracy, self.low, self.high, strict=True)
        ]
        doubled = None
        if self.doubled is not None:
            doubled = {"rows": 2 * self.rows[-1], **dict(zip(names, self.doubled, strict=True))}
        return {"points": points, "doubled": doubled}


def learning_curve(rows: Sequence[int], correct: np.ndarray, *, seed: int = 0) -> Curve:
    """The learning curve of a level trained on increasing numbers of rows.

    Args:
        rows: numbers of training rows, ascending.
        correct: bool (points, test rows), the test rows predicted correctly after each training run.
        seed: of the resampling.

    Returns:
        The measured points and the extrapolation to twice the rows.
    """
    intervals = [wilson_interval(int(one.sum()), correct.shape[1]) for one in correct]
    return Curve(
        rows=list(rows),
        accuracy=[float(one.mean()) for one in correct],
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        doubled=_doubled(np.array(rows, np.float64), correct, np.random.default_rng(seed)),
    )


def _doubled(rows: np.ndarray, correct: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float] | None:
    errors = 1 - correct.mean(axis=1)
    if len(rows) < 3 or (errors == 0).any():
        return None
    expected = float(_extrapolated(rows, errors[None])[0])
    patterns, counts = np.unique(correct, axis=1, return_counts=True)
    shares = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) / counts.sum()
    resampled = np.maximum(1 - shares @ patterns.T.astype(np.float64), 0.5 / correct.shape[1])
    # the scatter around the line adds run-to-run noise, which resampling the test rows does not show
    noise = _scatter(rows, errors) * rng.standard_normal(RESAMPLES)
    low, high = np.percentile(1 - (1 - _extrapolated(rows, resampled)) * np.exp(noise), [2.5, 97.5])
    return expected, float(max(0.0, low)), float(min(1.0, high))


def _line(rows: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope, and value at the mean, of the least-squares line of log error over log rows; errors (..., points)."""
    x, y = np.log(rows) - np.log(rows).mean(), np.log(errors)
    return y @ x / (x @ x), y.mean(axis=-1)


def _extrapolated(rows: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Accuracy at twice the rows; a rising error is taken as flat, because more rows do not make a level worse."""
    slope, middle = _line(rows, errors)
    at = np.log(2 * rows[-1]) - np.log(rows).mean()
    accuracy: np.ndarray = 1 - np.exp(middle + np.minimum(slope, 0) * at)
    return accuracy


def _scatter(rows: np.ndarray, errors: np.ndarray) -> float:
    """Residual standard deviation of the log errors around the line."""
    slope, middle = _line(rows, errors)
    residuals = np.log(errors) - middle - slope * (np.log(rows) - np.log(rows).mean())
    return float(np.sqrt((residuals**2).sum() / max(1, len(rows) - 2)))
