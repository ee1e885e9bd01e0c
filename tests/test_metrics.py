"""The metrics against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from textladder.metrics import SMALLEST_PROBABILITY, evaluate, wilson_interval


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 200))
def test_against_scikit_learn(seed: int, classes: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), rows).astype(np.float32)
    labels = rng.integers(0, classes, rows)
    found = evaluate(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    doubles = probabilities.astype(np.float64)
    expected = reference.log_loss(labels, doubles / doubles.sum(axis=1, keepdims=True), labels=range(classes))
    assert found.log_loss == pytest.approx(expected, rel=1e-4)
    assert found.accuracy_low <= found.accuracy <= found.accuracy_high
    assert found.rows == rows


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (1, 3), (900, 1000)])
def test_interval_against_scipy(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson_interval(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_calibration_by_hand() -> None:
    # two bins: four rows at 0.9, two of them correct, and two rows at 0.6, both correct
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    labels = np.array([0, 0, 1, 1, 0, 0])
    assert evaluate(probabilities, labels).ece == pytest.approx((4 * 0.4 + 2 * 0.4) / 6)


def test_a_confident_error_has_a_finite_log_loss() -> None:
    found = evaluate(np.array([[1.0, 0.0]]), np.array([1]))
    assert found.log_loss == pytest.approx(-np.log(SMALLEST_PROBABILITY))
