"""Gains against independent computations; error rates, coverage and power by simulation."""

import numpy as np
import pytest
from scipy import stats

from textladder.significance import MANY_VALUES, Gain, interval_of_mean, paired_gain, permutation_test


def trainings(rng: np.random.Generator, rows: int, seeds: int, accuracy: float, luck: float = 0.0) -> np.ndarray:
    """Which rows the trainings of two classifiers predict correctly, bool (2, seeds, rows).

    Like those of real classifiers, their mistakes are partly on the same rows, even more so those of one classifier's
    trainings; `luck` is the standard deviation of a training's true accuracy.
    """
    difficulty = rng.random(rows)
    own = np.where(rng.random((2, rows)) < 0.7, difficulty, rng.random((2, rows)))
    hard = np.where(rng.random((2, seeds, rows)) < 0.8, own[:, None], rng.random((2, seeds, rows)))
    correct: np.ndarray = hard < accuracy + luck * rng.standard_normal((2, seeds, 1))
    return correct


def pairs(rng: np.random.Generator, rows: int, accuracy: float, gain: float, agree: float) -> tuple[np.ndarray, ...]:
    """Which rows two classifiers predict correctly, float (rows,)."""
    difficulty = rng.random(rows)
    own = [np.where(rng.random(rows) < agree, difficulty, rng.random(rows)) for _ in range(2)]
    return (own[0] < accuracy + gain).astype(float), (own[1] < accuracy).astype(float)


def test_with_one_training_it_is_mcnemars_test_with_the_tie_counted_half() -> None:
    rng = np.random.default_rng(0)
    for rows in (10, 200, 2000):
        right, base = pairs(rng, rows, 0.85, 0.03, 0.6)
        b, c = int(((right == 1) & (base == 0)).sum()), int(((right == 0) & (base == 1)).sum())
        exact = stats.binomtest(b, b + c).pvalue if b + c else 1.0
        expected = min(1.0, exact - stats.binom.pmf(b, b + c, 0.5)) if b + c else 1.0
        assert permutation_test(right - base) == pytest.approx(expected, rel=1e-9)
    assert permutation_test(right - right) == 1.0


def test_with_several_trainings_it_is_scipys_permutation_test() -> None:
    rng = np.random.default_rng(1)
    differences = rng.integers(-3, 4, 60) / 3 + rng.choice([0.0, 0.25], 60)
    theirs = stats.permutation_test(
        (differences, np.zeros(60)), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples",
        vectorized=True, n_resamples=20_000, rng=np.random.default_rng(2),
    ).pvalue  # fmt: skip
    assert permutation_test(differences) == pytest.approx(theirs, abs=0.02)
    assert permutation_test(np.array([1 / 3, 2 / 3] * 40)) < 0.001
    assert permutation_test(differences) == permutation_test(differences)


def test_the_interval_is_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    right, base = pairs(rng, 1500, 0.85, 0.03, 0.6)
    found = stats.bootstrap(
        (right, base), lambda a, b, axis: 100 * (a.mean(axis) - b.mean(axis)),
        paired=True, vectorized=True, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2), batch=500,
    ).confidence_interval  # fmt: skip
    gain = paired_gain(right[None] == 1, base[None] == 1)
    assert gain.points == pytest.approx(100 * (right.mean() - base.mean()))
    assert (gain.low, gain.high) == pytest.approx((found.low, found.high), abs=0.12)
    assert gain.seeds is None
    assert gain.expected == (gain.points, gain.low, gain.high)


def test_equal_classifiers_rarely_differ_significantly() -> None:
    rng = np.random.default_rng(3)
    found = [permutation_test(np.subtract(*pairs(rng, 2000, 0.88, 0.0, 0.7))) < 0.05 for _ in range(300)]
    assert 0.02 <= np.mean(found) <= 0.08


@pytest.mark.parametrize(("rows", "seeds", "luck"), [(60, 1, 0.0), (500, 1, 0.0), (200, 3, 0.01), (2000, 3, 0.01)])
def test_the_interval_covers_the_truth_with_the_luck_of_the_trainings(rows: int, seeds: int, luck: float) -> None:
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(250):
        _, low, high = paired_gain(*trainings(rng, rows, seeds, 0.86, luck)).expected
        covered.append(low <= 0 <= high)
    assert 0.92 <= np.mean(covered) <= 0.99


def test_the_stated_power_is_kept() -> None:
    """A true gain as large as the smallest one that the rows show is detectable in four of five cases."""
    rng = np.random.default_rng(5)
    stated = np.mean([paired_gain(*(one[None] == 1 for one in pairs(rng, 400, 0.8, 0.05, 0.7))).smallest
                      for _ in range(50)])  # fmt: skip
    found = [
        paired_gain(*(one[None] == 1 for one in pairs(rng, 400, 0.8, stated / 100, 0.7))).detectable for _ in range(300)
    ]
    assert 0.75 <= np.mean(found) <= 0.88


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
    assert (narrow.seed_error, narrow.smallest < wide.smallest) == (0.0, True)


def test_detectable() -> None:
    assert Gain(2.0, 0.5, 3.5, 0.01).detectable
    assert not Gain(2.0, 0.5, 3.5, 0.06).detectable
    assert not Gain(2.0, -0.1, 3.5, 0.04).detectable
    assert not Gain(2.0, 0.5, 3.5, 0.01, (1.0, -0.5, 2.5)).detectable
    assert Gain(2.0, 0.5, 3.5, 0.01, (1.0, 0.1, 2.5)).detectable
    assert Gain(-2.0, -3.5, -0.5, 0.01).worse
    assert not Gain(-2.0, -3.5, -0.5, 0.01, (0.1, -1.0, 1.0)).worse
    # of five gains, one is easily this large by chance
    assert not Gain(2.0, 0.5, 3.5, 0.01, comparisons=5).detectable
    assert not Gain(-2.0, -3.5, -0.5, 0.01, comparisons=5).worse
    assert Gain(2.0, 0.5, 3.5, 0.01, comparisons=5).adjusted_p_value == pytest.approx(0.05)
    assert Gain(2.0, 0.5, 3.5, 0.4, comparisons=5).adjusted_p_value == 1.0


def test_the_smallest_gain_and_the_rows_that_would_settle_it() -> None:
    gain = Gain(1.5, -2.4, 5.4, 0.4, rows=200, row_error=2.0)
    assert gain.smallest == pytest.approx((1.96 + 0.8416) * 2.0, abs=0.01)
    # four times the rows halve the standard error; 5.6 points must become 1.5
    assert gain.rows_to_settle(1.0) == pytest.approx(200 * ((5.603 / 1.5) ** 2 - 1), rel=0.01)
    # a gain of 0.2 lies 0.8 below what is worthwhile
    less = Gain(0.2, -3.7, 4.1, 0.9, rows=200, row_error=2.0)
    assert less.rows_to_settle(1.0) == pytest.approx(200 * ((5.603 / 0.8) ** 2 - 1), rel=0.01)
    assert Gain(0.9, -3.0, 4.9, 0.6, rows=200, row_error=2.0).rows_to_settle(1.0) is None
    # the seeds alone leave more uncertainty than the question allows
    assert Gain(1.5, -2.4, 5.4, 0.4, rows=200, row_error=2.0, seed_error=0.6).rows_to_settle(1.0) is None
    more = Gain(1.5, -2.4, 5.4, 0.4, comparisons=4, rows=200, row_error=2.0)
    assert more.smallest > gain.smallest
    # classifiers that never differ: five rows must, all in favour of one, before p falls below 0.05
    same = paired_gain(np.ones((1, 50), bool), np.ones((1, 50), bool))
    assert (same.points, same.p_value, same.smallest) == (0.0, 1.0, 10.0)
    assert permutation_test(np.array([1.0] * 5)) < 0.05 <= permutation_test(np.array([1.0] * 4))


def test_folds_allow_for_the_training_of_the_finished_classifier() -> None:
    """Folds whose gains are the same by construction leave the choice of the rows, times 1 + 1/k."""
    scores = np.tile(np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]), 60)[None]
    others = np.tile(np.array([0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), 60)[None]
    plain = paired_gain(scores, others)
    folds = paired_gain(scores, others, folds=np.repeat(np.arange(5), 96))
    assert folds.points == plain.points
    assert folds.row_error == pytest.approx(plain.row_error * (1 + 1 / 10) ** 0.5)
    assert folds.high - folds.low == pytest.approx((plain.high - plain.low) * (1 + 1 / 10) ** 0.5, rel=0.05)
    assert folds.p_value >= plain.p_value


def test_many_different_values_are_taken_as_normal() -> None:
    """The p-value is then that of the permutations, and the interval that of the bootstrap."""
    rng = np.random.default_rng(3)
    differences = rng.standard_normal(2 * MANY_VALUES)
    signs = rng.choice([-1, 1], (4_000, len(differences)))
    p_value = np.mean(np.abs(signs @ np.abs(differences)) >= abs(differences.sum()))
    assert p_value > 0.1
    assert permutation_test(differences) == pytest.approx(p_value, abs=0.03)
    rows = rng.integers(0, len(differences), (4_000, len(differences)))
    ends = np.percentile(differences[rows].mean(axis=1), [2.5, 97.5])
    assert interval_of_mean(differences) == pytest.approx(ends, abs=0.004)
