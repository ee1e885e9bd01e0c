"""Learning curves: a metric against the number of training rows, extrapolated to twice the rows.

A classifier's error falls roughly as a power of the number of rows (Hestness et al. 2017, "Deep learning scaling is
predictable, empirically", section 3; for text Kaplan et al. 2020). A line fitted to the logarithm of the errors over
the logarithm of the rows is extended to twice the rows; the interval comes from resampling the test rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textladder.target_metric import ACCURACY, Score, TargetMetric

SHARES = (1 / 8, 1 / 4, 1 / 2)
RESAMPLES = 2_000


@dataclass(frozen=True)
class Curve:
    """A metric of one level over the number of training rows.

    Attributes:
        metric: the metric.
        rows: numbers of training rows, ascending; the last is all of them.
        scores: the metric on the test rows and the ends of its 95% interval, for each.
        doubled: the extrapolated score at twice the rows and the ends of its 95% interval; None with fewer than three
            points or an error of 0.
    """

    metric: TargetMetric
    rows: list[int]
    scores: list[Score]
    doubled: Score | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as in `compare --json`."""
        names = ("accuracy" if self.metric.name == ACCURACY else "score", "low", "high")
        points = [
            {"rows": rows, **dict(zip(names, score, strict=True))}
            for rows, score in zip(self.rows, self.scores, strict=True)
        ]
        doubled = None
        if self.doubled is not None:
            doubled = {"rows": 2 * self.rows[-1], **dict(zip(names, self.doubled, strict=True))}
        return {"points": points, "doubled": doubled}


def learning_curve(metric: TargetMetric, rows: Sequence[int], scores: np.ndarray, *, seed: int = 0) -> Curve:
    """The learning curve of a level trained on increasing numbers of rows.

    Args:
        metric: the metric.
        rows: numbers of training rows, ascending.
        scores: float (points, test rows), what each test row contributes to the metric after each training run.
        seed: of the resampling.

    Returns:
        The measured points and the extrapolation to twice the rows.
    """
    return Curve(
        metric,
        rows=list(rows),
        scores=[Score.of_rows(metric, one) for one in scores],
        doubled=_doubled(metric, np.array(rows, np.float64), scores, np.random.default_rng(seed)),
    )


def _doubled(metric: TargetMetric, rows: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> Score | None:
    best = 1.0 if metric.sign == 1 else 0.0  # of what can be reached
    errors = best - scores.mean(axis=1)
    if len(rows) < 3 or (errors <= 0).any():
        return None
    expected = float(_extrapolated(rows, errors[None])[0])
    covariance, of_one_row = (
        np.cov(scores) / scores.shape[1],
        100 * metric.unit.worth / metric.unit.scale / scores.shape[1],
    )
    resampled = np.maximum(rng.multivariate_normal(errors, covariance, RESAMPLES), 0.5 * of_one_row)
    # the scatter around the line adds run-to-run noise, which resampling the test rows does not show
    noise = _scatter(rows, errors) * rng.standard_normal(RESAMPLES)
    low, high = np.percentile(_extrapolated(rows, resampled) * np.exp(noise), [2.5, 97.5])
    ends = metric.sign * (best - expected), metric.sign * (best - low), metric.sign * (best - high)
    return Score(ends[0], max(0.0, float(min(ends[1:]))), float(max(ends[1:])))


def _line(rows: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope, and value at the mean, of the least-squares line of log error over log rows; errors (..., points)."""
    x, y = np.log(rows) - np.log(rows).mean(), np.log(errors)
    return y @ x / (x @ x), y.mean(axis=-1)


def _extrapolated(rows: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The error at twice the rows; a rising one is taken as flat, because more rows do not make a level worse."""
    slope, middle = _line(rows, errors)
    at = np.log(2 * rows[-1]) - np.log(rows).mean()
    error: np.ndarray = np.exp(middle + np.minimum(slope, 0) * at)
    return error


def _scatter(rows: np.ndarray, errors: np.ndarray) -> float:
    """Residual standard deviation of the log errors around the line."""
    slope, middle = _line(rows, errors)
    residuals = np.log(errors) - middle - slope * (np.log(rows) - np.log(rows).mean())
    return float(np.sqrt((residuals**2).sum() / max(1, len(rows) - 2)))
