"""Learning curves: what is drawn on is what a power law would give."""

import numpy as np
import pytest

from textladder.comparison.curve import learning_curve
from textladder.metrics import wilson_interval

ROWS = [125, 250, 500, 1000]


def right(errors: list[float], rows: int, seed: int = 0) -> np.ndarray:
    """Test rows that get harder; the same difficulty for every point, as it is for one test set."""
    difficulty = np.random.default_rng(seed).random(rows)
    return np.stack([difficulty >= error for error in errors])


def test_a_power_law_is_drawn_on() -> None:
    errors = [0.4 * rows**-0.2 for rows in ROWS]
    curve = learning_curve(ROWS, right(errors, 100_000))
    assert curve.doubled is not None
    likely, low, high = curve.doubled
    assert likely == pytest.approx(1 - 0.4 * 2000**-0.2, abs=0.004)
    assert low < likely < high
    assert high - low < 0.02
    assert curve.accuracy == pytest.approx([1 - error for error in errors], abs=0.004)
    assert (curve.low[0], curve.high[0]) == wilson_interval(round(curve.accuracy[0] * 100_000), 100_000)


def test_the_interval_holds_the_truth_mostly() -> None:
    truth, held = 1 - 0.4 * 2000**-0.2, 0
    for seed in range(100):
        curve = learning_curve(ROWS, right([0.4 * rows**-0.2 for rows in ROWS], 1000, seed), seed=seed)
        assert curve.doubled is not None
        held += curve.doubled[1] <= truth <= curve.doubled[2]
    assert held >= 90


def test_more_rows_unlearn_nothing_and_few_points_say_nothing() -> None:
    curve = learning_curve(ROWS, right([0.1, 0.11, 0.12, 0.13], 2000))
    assert curve.doubled is not None
    assert curve.doubled[0] == pytest.approx(0.885, abs=0.01)
    assert learning_curve(ROWS[:2], right([0.2, 0.1], 100)).doubled is None
    assert learning_curve(ROWS, np.ones((4, 50), bool)).doubled is None
    assert learning_curve(ROWS, np.ones((4, 50), bool)).as_dict()["doubled"] is None
