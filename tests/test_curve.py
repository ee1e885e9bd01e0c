"""Learning curves: the extrapolation follows a power law."""

import numpy as np
import pytest

from textladder.comparison.curve import learning_curve
from textladder.metrics import wilson_interval
from textladder.target_metric import Accuracy, LogLoss

ROWS = [125, 250, 500, 1000]


def correct(errors: list[float], rows: int, seed: int = 0) -> np.ndarray:
    """Which test rows are predicted correctly, given the error at each point; a row is equally hard at every point."""
    difficulty = np.random.default_rng(seed).random(rows)
    return np.stack([difficulty >= error for error in errors])


def test_a_power_law_is_extrapolated() -> None:
    errors = [0.4 * rows**-0.2 for rows in ROWS]
    curve = learning_curve(Accuracy(), ROWS, correct(errors, 100_000))
    assert curve.doubled is not None
    expected, low, high = curve.doubled
    assert expected == pytest.approx(1 - 0.4 * 2000**-0.2, abs=0.004)
    assert low < expected < high
    assert high - low < 0.02
    values = [score.value for score in curve.scores]
    assert values == pytest.approx([1 - error for error in errors], abs=0.004)
    assert curve.scores[0][1:] == wilson_interval(round(values[0] * 100_000), 100_000)


def test_the_interval_covers_the_truth() -> None:
    truth, covered = 1 - 0.4 * 2000**-0.2, 0
    for seed in range(100):
        curve = learning_curve(Accuracy(), ROWS, correct([0.4 * rows**-0.2 for rows in ROWS], 1000, seed), seed=seed)
        assert curve.doubled is not None
        covered += curve.doubled.low <= truth <= curve.doubled.high
    assert covered >= 90


def test_a_rising_error_is_taken_as_flat_and_few_points_are_not_extrapolated() -> None:
    curve = learning_curve(Accuracy(), ROWS, correct([0.1, 0.11, 0.12, 0.13], 2000))
    assert curve.doubled is not None
    assert curve.doubled[0] == pytest.approx(0.885, abs=0.01)
    assert learning_curve(Accuracy(), ROWS[:2], correct([0.2, 0.1], 100)).doubled is None
    assert learning_curve(Accuracy(), ROWS, np.ones((4, 50), bool)).doubled is None
    assert learning_curve(Accuracy(), ROWS, np.ones((4, 50), bool)).as_dict()["doubled"] is None


def test_a_loss_falls_towards_0() -> None:
    """And where there is less of it on top, a score is better."""
    rng = np.random.default_rng(0)
    losses = [2 * rows**-0.3 for rows in ROWS]
    scores = np.stack([-loss * rng.gamma(2, 0.5, 5000) for loss in losses])
    curve = learning_curve(LogLoss(), ROWS, scores)
    assert curve.doubled is not None
    assert curve.doubled.value == pytest.approx(2 * 2000**-0.3, rel=0.03)
    assert 0 < curve.doubled.low < curve.doubled.value < curve.doubled.high < curve.scores[-1].value * 1.05
    assert [sorted(point) for point in curve.as_dict()["points"]] == [["high", "low", "rows", "score"]] * 4
