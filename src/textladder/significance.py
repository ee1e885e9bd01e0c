"""Is a gain real: two classifiers on the same rows, by paired bootstrap and McNemar's exact test.

Takes which rows each of them got right, and knows nothing of texts or levels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
DETECTABLE_P = 0.05


@dataclass(frozen=True)
class Gain:
    """What one classifier gains over another; points are hundredths of accuracy.

    Attributes:
        points: the difference of the two accuracies.
        low: lower end of its 95% interval, by paired bootstrap over the rows.
        high: upper end.
        p_value: of McNemar's exact test.
        seeds: the mean difference over several seeds, with an interval over rows and seeds; None for one seed of each.
    """

    points: float
    low: float
    high: float
    p_value: float
    seeds: tuple[float, float, float] | None = None

    @property
    def detectable(self) -> bool:
        """McNemar's test says so, the interval is above 0, and so it is over the seeds where there are several."""
        return self.p_value < DETECTABLE_P and self.low > 0 and (self.seeds is None or self.seeds[1] > 0)

    @property
    def worse(self) -> bool:
        """The same the other way round."""
        return self.p_value < DETECTABLE_P and self.high < 0 and (self.seeds is None or self.seeds[2] < 0)

    @property
    def expected(self) -> tuple[float, float, float]:
        """The points that another training would gain, and their interval: over the seeds where there are several."""
        return (self.points, self.low, self.high) if self.seeds is None else self.seeds

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as `compare --json` has them."""
        seeds = None if self.seeds is None else dict(zip(("points", "low", "high"), self.seeds, strict=True))
        numbers = {"points": self.points, "low": self.low, "high": self.high, "p_value": self.p_value}
        return {**numbers, "seeds": seeds, "detectable": self.detectable}


def compare_right(right: np.ndarray, base: np.ndarray, *, kept: tuple[int, int] = (0, 0), seed: int = 0) -> Gain:
    """What one level gains over another on the same rows.

    Args:
        right: bool (seeds, rows), which rows each training of the one level got right.
        base: the same of the other level; the number of its seeds may differ.
        kept: the seed of each that is put to work, which points, interval and p-value are about.
        seed: of the bootstrap.
    """
    one, other = right[kept[0]], base[kept[1]]
    low, high = bootstrap_interval(one[None], other[None], seed=seed)
    seeds = None
    if max(len(right), len(base)) > 1:
        seeds = (100 * float(right.mean() - base.mean()), *bootstrap_interval(right, base, seed=seed))
    return Gain(100 * float(one.mean() - other.mean()), low, high, mcnemar(one, other), seeds)


def mcnemar(right: np.ndarray, base: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947; Dietterich 1998, section 3.1).

    Rows that one got right and the other wrong fall on either side like a fair coin if both are as good.

    Args:
        right: bool (rows,).
        base: bool (rows,).
    """
    from scipy.stats import binomtest

    only, only_base = int((right & ~base).sum()), int((base & ~right).sum())
    return float(binomtest(only, only + only_base).pvalue) if only + only_base else 1.0


def bootstrap_interval(right: np.ndarray, base: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean difference of accuracies, in points, rows (and seeds) drawn with replacement.

    Paired: a drawn row counts for both (Efron & Tibshirani 1993, section 13.3; Koehn 2004). Where there are several
    seeds of a level, they are drawn too.

    Args:
        right: bool (seeds, rows).
        base: bool (seeds, rows).
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    # Rows of the same pattern are alike, so how often each pattern is drawn tells all: a multinomial, exactly.
    patterns, counts = np.unique(np.concatenate([right, base]), axis=1, return_counts=True)
    drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) / counts.sum()  # (resamples, patterns)
    means = [
        _drawn_mean(drawn @ part.T.astype(np.float64), rng) for part in np.split(patterns, [len(right)])
    ]  # of each level, (resamples,)
    tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    low, high = np.percentile(100 * (means[0] - means[1]), tails)
    return float(low), float(high)


def _drawn_mean(accuracies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean over seeds drawn with replacement, (resamples,), of accuracies (resamples, seeds)."""
    resamples, seeds = accuracies.shape
    if seeds == 1:
        return accuracies[:, 0]
    places = rng.integers(seeds, size=(resamples, seeds))
    mean: np.ndarray = np.take_along_axis(accuracies, places, axis=1).mean(axis=1)
    return mean
