"""Gains against independent computations; error rate of the p-values and coverage of the intervals by simulation."""

import numpy as np
import pytest
from scipy import stats

from textladder.significance import Gain, bootstrap_interval, mcnemar, paired_gain


def pairs(rng: np.random.Generator, rows: int, accuracy: float, gain: float, agree: float) -> tuple[np.ndarray, ...]:
    """Which rows two classifiers predict correctly; like real classifiers, they partly fail on the same rows."""
    difficulty = rng.random(rows)
    own = [np.where(rng.random(rows) < agree, difficulty, rng.random(rows)) for _ in range(2)]
    return own[0] < accuracy + gain, own[1] < accuracy


def test_mcnemar_is_scipys_binomial_test_on_the_discordant_rows() -> None:
    rng = np.random.default_rng(0)
    for rows in (10, 200, 2000):
        right, base = pairs(rng, rows, 0.85, 0.03, 0.6)
        table = np.array(
            [[(right & base).sum(), (right & ~base).sum()], [(~right & base).sum(), (~right & ~base).sum()]]
        )
        b, c = table[0, 1], table[1, 0]
        expected = min(1.0, 2 * stats.binom.cdf(min(b, c), b + c, 0.5)) if b + c else 1.0
        assert mcnemar(right, base) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(right, right) == 1.0


def test_the_interval_is_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    right, base = pairs(rng, 1500, 0.85, 0.03, 0.6)
    found = stats.bootstrap(
        (right.astype(float), base.astype(float)), lambda a, b, axis: 100 * (a.mean(axis) - b.mean(axis)),
        paired=True, vectorized=True, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2), batch=500,
    ).confidence_interval  # fmt: skip
    gain = paired_gain(right[None], base[None])
    assert gain.points == pytest.approx(100 * (right.mean() - base.mean()))
    assert (gain.low, gain.high) == pytest.approx((found.low, found.high), abs=0.12)
    assert gain.seeds is None


def test_equal_classifiers_rarely_differ_significantly() -> None:
    rng = np.random.default_rng(3)
    found = [mcnemar(*pairs(rng, 2000, 0.88, 0.0, 0.7)) < 0.05 for _ in range(200)]
    assert 0.02 <= np.mean(found) <= 0.08


@pytest.mark.parametrize(("rows", "agree"), [(2000, 0.7), (500, 0.5)])
def test_the_interval_covers_the_truth(rows: int, agree: float) -> None:
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(400):
        right, base = pairs(rng, rows, 0.86, 0.02, agree)
        low, high = bootstrap_interval(right[None], base[None])
        covered.append(low <= 2.0 <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_spread_over_seeds_widens_the_interval() -> None:
    rng = np.random.default_rng(5)
    base = rng.random((1, 2000)) < 0.85
    steady = np.repeat(rng.random((1, 2000)) < 0.90, 3, axis=0)
    spread = np.stack([rng.random(2000) < accuracy for accuracy in (0.86, 0.90, 0.94)])
    narrow, wide = paired_gain(steady, base), paired_gain(spread, base)
    assert narrow.seeds is not None
    assert wide.seeds is not None
    assert narrow.seeds == pytest.approx((narrow.points, narrow.low, narrow.high), abs=0.15)
    assert wide.seeds[2] - wide.seeds[1] > 1.5 * (narrow.seeds[2] - narrow.seeds[1])
    assert wide.expected[0] == pytest.approx(100 * (spread.mean() - base.mean()))


def test_detectable() -> None:
    assert Gain(2.0, 0.5, 3.5, 0.01).detectable
    assert not Gain(2.0, 0.5, 3.5, 0.06).detectable
    assert not Gain(2.0, -0.1, 3.5, 0.04).detectable
    assert not Gain(2.0, 0.5, 3.5, 0.01, (1.0, -0.5, 2.5)).detectable
    assert Gain(2.0, 0.5, 3.5, 0.01, (1.0, 0.1, 2.5)).detectable
    assert Gain(-2.0, -3.5, -0.5, 0.01).worse
    assert not Gain(-2.0, -3.5, -0.5, 0.01, (0.1, -1.0, 1.0)).worse
