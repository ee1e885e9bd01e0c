"""Whether a gain is real: two classifiers on the same rows, by paired bootstrap and McNemar's exact test.

Works on which rows each classifier predicted correctly; knows nothing of texts or levels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
DETECTABLE_P = 0.05


@dataclass(frozen=True)
class Gain:
    """The gain in accuracy of one classifier over another, in percentage points.

    Attributes:
        points: difference of the two accuracies.
        low: lower end of its 95% interval, by paired bootstrap over the rows.
        high: upper end.
        p_value: of McNemar's exact test, two-sided.
        seeds: mean difference over several seeds and the ends of its 95% interval over rows and seeds; None if both
            classifiers were trained with one seed.
    """

    points: float
    low: float
    high: float
    p_value: float
    seeds: tuple[float, float, float] | None = None

    @property
    def detectable(self) -> bool:
        """Whether p is below 0.05 and the interval lies above 0, also over several seeds if there are several."""
        return self.p_value < DETECTABLE_P and self.low > 0 and (self.seeds is None or self.seeds[1] > 0)

    @property
    def worse(self) -> bool:
        """Whether p is below 0.05 and the interval lies below 0, also over several seeds if there are several."""
        return self.p_value < DETECTABLE_P and self.high < 0 and (self.seeds is None or self.seeds[2] < 0)

    @property
    def expected(self) -> tuple[float, float, float]:
        """The gain to expect from another training and its interval: over the seeds if there are several."""
        return (self.points, self.low, self.high) if self.seeds is None else self.seeds

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as in `compare --json`."""
        seeds = None if self.seeds is None else dict(zip(("points", "low", "high"), self.seeds, strict=True))
        numbers = {"points": self.points, "low": self.low, "high": self.high, "p_value": self.p_value}
        return {**numbers, "seeds": seeds, "detectable": self.detectable}


def paired_gain(
    correct: np.ndarray, baseline: np.ndarray, *, selected: tuple[int, int] = (0, 0), seed: int = 0
) -> Gain:
    """The gain of one classifier over another on the same rows.

    Args:
        correct: bool (seeds, rows), the rows that each training of the classifier predicted correctly.
        baseline: bool (seeds, rows), the same for the other classifier; its number of seeds may differ.
        selected: index of the training of each that is used; points, interval and p-value describe these two.
        seed: of the bootstrap.

    Returns:
        The gain of the selected trainings and, with several seeds, the mean gain over them.
    """
    one, other = correct[selected[0]], baseline[selected[1]]
    low, high = bootstrap_interval(one[None], other[None], seed=seed)
    seeds = None
    if max(len(correct), len(baseline)) > 1:
        seeds = (100 * float(correct.mean() - baseline.mean()), *bootstrap_interval(correct, baseline, seed=seed))
    return Gain(100 * float(one.mean() - other.mean()), low, high, mcnemar(one, other), seeds)


def mcnemar(correct: np.ndarray, baseline: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947; Dietterich 1998, section 3.1).

    If both classifiers are equally accurate, a row that only one of them predicts correctly is equally likely to be
    either's.

    Args:
        correct: bool (rows,), the rows that one classifier predicted correctly.
        baseline: bool (rows,), the same for the other.
    """
    from scipy.stats import binomtest

    only, only_baseline = int((correct & ~baseline).sum()), int((baseline & ~correct).sum())
    return float(binomtest(only, only + only_baseline).pvalue) if only + only_baseline else 1.0


def bootstrap_interval(correct: np.ndarray, baseline: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the difference in mean accuracy, rows and seeds resampled with replacement.

    The bootstrap is paired: a resampled row counts for both classifiers (Efron & Tibshirani 1993, section 13.3; Koehn
    2004). If a classifier has several seeds, they are resampled too.

    Args:
        correct: bool (seeds, rows).
        baseline: bool (seeds, rows).
        seed: of the resampling.

    Returns:
        Lower and upper end in percentage points.
    """
    rng = np.random.default_rng(seed)
    # Rows with the same pattern are interchangeable, so drawing how often each pattern occurs from a multinomial is
    # exactly the bootstrap over rows.
    patterns, counts = np.unique(np.concatenate([correct, baseline]), axis=1, return_counts=True)
    # (resamples, patterns)
    shares = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) / counts.sum()
    means = [
        _mean_over_seeds(shares @ part.T.astype(np.float64), rng) for part in np.split(patterns, [len(correct)])
    ]  # of each classifier, (resamples,)
    tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    low, high = np.percentile(100 * (means[0] - means[1]), tails)
    return float(low), float(high)


def _mean_over_seeds(accuracies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean over seeds resampled with replacement, (resamples,), of accuracies (resamples, seeds)."""
    resamples, seeds = accuracies.shape
    if seeds == 1:
        return accuracies[:, 0]
    chosen = rng.integers(seeds, size=(resamples, seeds))
    mean: np.ndarray = np.take_along_axis(accuracies, chosen, axis=1).mean(axis=1)
    return mean
