"""Whether a gain is real: two classifiers on the same rows, by paired bootstrap and permutation test.

Works on what each row contributes to a metric, such as whether it was predicted correctly; knows nothing of texts or
levels.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from textladder.wording import points_words

RESAMPLES = 10_000
CONFIDENCE, POWER = 0.95, 0.8
DETECTABLE_P = 0.05
MANY_VALUES = 1_000  # so many different ones add up to a normal distribution, which is not worth resampling
MOST_ROWS = 100  # times as many rows as there are: what would take more is not worth planning


@dataclass(frozen=True)
class Unit:
    """What gains in a metric are measured in.

    Attributes:
        of: what the points are of, in words; empty for those of accuracy.
        scale: what a gain is multiplied by: 100 for percentage points, 1 for a metric with a unit of its own.
        worth: what a more expensive classifier must gain to be worth it, if the user does not say.
    """

    of: str = ""
    scale: float = 100.0
    worth: float = 1.0

    def number(self, value: float, sign: str = "") -> str:
        """A gain without its unit: one decimal for points, otherwise two significant digits.

        >>> Unit().number(3.14159, "+"), Unit(scale=1.0).number(0.31415), Unit(scale=1.0).number(-1234.5)
        ('+3.1', '0.31', '-1,234')
        """
        if self.scale == 100:
            return format(value, f"{sign}.1f")
        return format(value, f"{sign},.0f" if abs(value) >= 10 else f"{sign}.2g")

    def words(self, value: float, sign: str = "") -> str:
        """A gain with its unit.

        >>> Unit("of macro F1").words(3.14159), Unit("saved per text", scale=1.0).words(0.31415, "+")
        ('3.1 points of macro F1', '+0.31 saved per text')
        """
        points = "points" if self.scale == 100 else ""
        return " ".join(word for word in (self.number(value, sign), points, self.of) if word)

    def asked(self, worth: float) -> str:
        """What a user demands of a gain, with its unit.

        >>> Unit().asked(1.0), Unit("of macro F1").asked(2.5), Unit("saved per text", scale=1.0).asked(0.3)
        ('1 point', '2.5 points of macro F1', '0.3 saved per text')
        """
        points = points_words(worth) if self.scale == 100 else f"{worth:g}"
        return f"{points} {self.of}".rstrip()


POINTS = Unit()


@dataclass(frozen=True)
class Gain:
    """The gain of one classifier over another, in percentage points of accuracy or in the unit of another metric.

    Attributes:
        points: difference of the two values of the metric, positive if the classifier is better.
        low: lower end of its 95% interval, by paired bootstrap over the rows.
        high: upper end.
        p_value: two-sided, of `expected`: of the permutation test over the rows and, with several seeds, of the
            bootstrap over rows and seeds, the larger of the two.
        seeds: mean difference over several seeds and the ends of its 95% interval over rows and seeds; None if both
            classifiers were trained with one seed.
        comparisons: how many gains are looked at, so that one of them is detectable by chance in at most 5% of cases.
        rows: number of rows.
        row_error: standard error of `expected` from the choice of the rows, in points.
        seed_error: standard error from run-to-run noise, over seeds or folds, in points; 0 for one training.
        unit: what all of these are measured in.
    """

    points: float
    low: float
    high: float
    p_value: float
    seeds: tuple[float, float, float] | None = None
    comparisons: int = 1
    rows: int = 1
    row_error: float = 0.0
    seed_error: float = 0.0
    unit: Unit = POINTS

    @property
    def expected(self) -> tuple[float, float, float]:
        """The gain to expect from another training and its interval: over the seeds if there are several."""
        return (self.points, self.low, self.high) if self.seeds is None else self.seeds

    @property
    def adjusted_p_value(self) -> float:
        """The p-value times the number of comparisons (Bonferroni)."""
        return min(1.0, self.p_value * self.comparisons)

    @property
    def detectable(self) -> bool:
        """Whether the adjusted p is below 0.05 and the interval lies above 0."""
        return self.adjusted_p_value < DETECTABLE_P and self.expected[1] > 0

    @property
    def worse(self) -> bool:
        """Whether the adjusted p is below 0.05 and the interval lies below 0."""
        return self.adjusted_p_value < DETECTABLE_P and self.expected[2] < 0

    @property
    def smallest(self) -> float:
        """The smallest gain, in points, that such rows and seeds would show as detectable with a power of 80%."""
        error = math.hypot(self.row_error, self.seed_error)
        # so many rows at least must differ, all in favour of one classifier, for the permutation test
        differing = math.ceil(math.log2(self.comparisons / DETECTABLE_P))
        of_one_row = 100 * self.unit.worth / self.rows  # a point of accuracy is a hundredth of the rows
        return max((_detecting(self.comparisons) + _z(POWER)) * error, differing * of_one_row)

    def rows_to_settle(self, worth: float) -> int | None:
        """How many more rows would show, with a power of 80%, whether the gain is worthwhile.

        Args:
            worth: the gain, in points, that is worthwhile.

        Returns:
            The number of rows, if the gain is as large as it looks; None if a hundred times as many would not do, or
            if it is the seeds that are too few.
        """
        points = self.expected[0]
        distance = points if points >= worth else worth - points
        needed = distance / ((_detecting(self.comparisons) if points >= worth else _detecting(1)) + _z(POWER))
        allowed = needed**2 - self.seed_error**2
        if allowed * MOST_ROWS <= self.row_error**2:
            return None
        return max(1, math.ceil(self.rows * (self.row_error**2 / allowed - 1)))

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as in `compare --json`."""
        seeds = None if self.seeds is None else dict(zip(("points", "low", "high"), self.seeds, strict=True))
        return {
            "points": self.points,
            "low": self.low,
            "high": self.high,
            "p_value": self.p_value,
            "adjusted_p_value": self.adjusted_p_value,
            "seeds": seeds,
            "detectable": self.detectable,
            "smallest_gain": self.smallest,
        }


def paired_gain(
    scores: np.ndarray,
    baseline: np.ndarray,
    *,
    selected: tuple[int, int] = (0, 0),
    comparisons: int = 1,
    folds: np.ndarray | None = None,
    unit: Unit = POINTS,
    seed: int = 0,
) -> Gain:
    """The gain of one classifier over another on the same rows.

    Args:
        scores: float or bool (seeds, rows), what each row contributes to the metric of each training of the classifier,
            higher for better: for accuracy, whether it was predicted correctly.
        baseline: (seeds, rows), the same for the other classifier; its number of seeds may differ.
        selected: index of the training of each that is used; points and interval describe these two.
        comparisons: how many such gains are looked at.
        folds: int (rows,), the fold of each row, if it was predicted by a classifier that was trained on the other
            folds; None if all rows were predicted by the same classifier.
        unit: of the gain.
        seed: of the bootstrap and the permutations.

    Returns:
        The gain of the selected trainings and, with several seeds, the mean gain over them.
    """
    scores, baseline = scores.astype(np.float64), baseline.astype(np.float64)
    kept = scores[selected[0]] - baseline[selected[1]]
    # The finished classifier is trained once more, on rows of which each fold's had a share. Of 0, 1/4, 1/2 and 1 over
    # the number of folds, 1/2 came nearest to 95% coverage, with 300 and 1,000 rows (benchmarks/verdict.py).
    stretch = 0.0 if folds is None else math.sqrt(1 / (2 * len(np.unique(folds))))
    low, high = _interval(_resampled(kept, 0.0 if folds is None else _fold_error(kept, folds), seed, stretch))
    differences = scores.mean(axis=0) - baseline.mean(axis=0)
    seed_error = math.hypot(_seed_error(scores), _seed_error(baseline))
    if folds is not None:
        seed_error = math.hypot(seed_error, _fold_error(differences, folds))
    resampled = _resampled(differences, seed_error, seed, stretch)
    p_value, seeds = permutation_test(differences, seed=seed), None
    if seed_error or stretch:
        p_value = max(p_value, _share_beyond_zero(resampled))
    if max(len(scores), len(baseline)) > 1:
        ends = _interval(resampled)
        seeds = unit.scale * float(differences.mean()), unit.scale * ends[0], unit.scale * ends[1]
    return Gain(
        unit.scale * float(kept.mean()),
        unit.scale * low,
        unit.scale * high,
        p_value,
        seeds,
        comparisons,
        rows=len(differences),
        row_error=unit.scale * math.hypot(1, stretch) * _row_error(differences),
        seed_error=unit.scale * seed_error,
        unit=unit,
    )


def interval_of_mean(scores: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """The 95% interval of the mean of what each row contributes, float (rows,), by bootstrap over the rows."""
    return _interval(_resampled(scores, 0.0, seed))


def permutation_test(differences: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test (Fisher 1935; Dror et al. 2018, section 3.2.2).

    If two classifiers are equally good, either could have had each row's result, so that the sign of each row's
    difference is a coin toss. Ties count half (mid-p; Fagerland, Lydersen & Laake 2013). With one training of each
    classifier, where a row is right or wrong, it is McNemar's test, computed exactly.

    Args:
        differences: float (rows,), how much better one classifier did on each row.
        seed: of the permutations.
    """
    sizes = np.abs(differences[differences != 0])
    if not len(sizes):
        return 1.0
    values, counts = np.unique(sizes.round(12), return_counts=True)
    if len(values) == 1:
        return _mcnemar(int((differences > 0).sum()), len(sizes))
    if len(values) > MANY_VALUES:
        return 2 * NormalDist().cdf(-abs(float(differences.sum())) / float(np.linalg.norm(sizes)))
    observed = abs(float(differences.sum()))
    heads = np.random.default_rng(seed).binomial(counts, 0.5, size=(RESAMPLES, len(counts)))
    sums = np.abs((2 * heads - counts) @ values)
    tie = 1e-9 * float(sizes.sum())
    beyond = float((sums > observed + tie).sum() + 0.5 * (np.abs(sums - observed) <= tie).sum())
    return min(1.0, (beyond + 0.5) / (RESAMPLES + 0.5))


def _mcnemar(only: int, differing: int) -> float:
    """Two-sided mid-p of McNemar's test: `only` of `differing` rows are predicted correctly by one classifier alone."""
    from scipy.stats import binom

    fewer = min(only, differing - only)
    return min(1.0, float(2 * binom.cdf(fewer, differing, 0.5) - binom.pmf(fewer, differing, 0.5)))


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(resampled, (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)))
    return float(low), float(high)


def _row_error(differences: np.ndarray) -> float:
    """Standard error of the mean of (rows,) from the choice of the rows."""
    return float(differences.std()) / math.sqrt(len(differences))


def _resampled(differences: np.ndarray, seed_error: float, seed: int, stretch: float = 0.0) -> np.ndarray:
    """Mean gains, (resamples,), as they might have been with other rows and other seeds.

    The bootstrap is paired: a resampled row counts for both classifiers (Efron & Tibshirani 1993, section 13.3; Koehn
    2004).

    Args:
        differences: float (rows,), how much better one classifier did on each row, mean over its seeds.
        seed_error: standard error from the choice of the seeds.
        seed: of the resampling.
        stretch: further standard error, as a share of that from the choice of the rows.
    """
    seed_error = math.hypot(seed_error, stretch * _row_error(differences))
    rng = np.random.default_rng(seed)
    # Rows with the same difference are interchangeable, so drawing how often each difference occurs from a multinomial
    # is exactly the bootstrap over rows.
    values, counts = np.unique(differences.round(12), return_counts=True)
    if len(values) > MANY_VALUES:
        error = math.hypot(_row_error(differences), seed_error)
        return float(differences.mean()) + error * rng.standard_normal(RESAMPLES)
    shares = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) / counts.sum()  # (resamples, values)
    gains: np.ndarray = shares @ values + seed_error * rng.standard_normal(RESAMPLES)
    return gains


def _share_beyond_zero(resampled: np.ndarray) -> float:
    """Two-sided p-value of a bootstrap: twice the share of the resamples on the other side of 0."""
    beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(resampled) + 1))


def _seed_error(scores: np.ndarray) -> float:
    """Standard error of the mean of (seeds, rows) from the choice of the seeds; 0 for one seed.

    Means of trainings that are equally good differ too, because they fail on other rows. That is part of the
    choice of the rows, so it is subtracted: what remains is how much better some trainings are than others.
    """
    seeds, rows = scores.shape
    if seeds == 1:
        return 0.0
    between = float(scores.mean(axis=1).var(ddof=1))
    by_chance = float(scores.var(axis=0, ddof=1).mean()) / rows
    return math.sqrt(max(0.0, between - by_chance) / seeds)


def _fold_error(differences: np.ndarray, folds: np.ndarray) -> float:
    """Standard error of the mean gain from the choice of the training rows, a fraction.

    The folds' gains differ more than the choice of their test rows explains, because each was trained on other rows.
    They differ less than those of independent trainings, because any two of them share most of their training rows:
    hence 1/k + 1/(k - 1) where independent ones would have 1/k (Nadeau & Bengio 2003, section 3).

    Args:
        differences: float (rows,), how much better one classifier did on each row.
        folds: int (rows,), the fold of each row.
    """
    parts = [differences[folds == fold] for fold in np.unique(folds)]
    between = float(np.var([part.mean() for part in parts], ddof=1))
    by_chance = float(np.mean([part.var(ddof=1) / len(part) for part in parts]))
    return math.sqrt(max(0.0, between - by_chance) * (1 / len(parts) + 1 / (len(parts) - 1)))


def _z(share: float) -> float:
    return NormalDist().inv_cdf(share)


def _detecting(comparisons: int) -> float:
    """How many standard errors a gain must be from 0 to be detectable."""
    return _z(1 - DETECTABLE_P / (2 * comparisons))
