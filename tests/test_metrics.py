"""The metrics against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from textladder.class_metrics import MixUp, class_metrics, confusion_matrix, most_mixed_up
from textladder.commands.evaluate import _print_classes
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


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 60))
def test_classes_against_scikit_learn(seed: int, classes: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(0, classes, rows), rng.integers(0, classes + 1, rows)  # the last is no class
    every = np.arange(classes)
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    found = class_metrics(predicted, labels, classes)
    assert [(one.precision, one.recall, one.f1, one.support) for one in found] == list(zip(*expected, strict=True))
    for one in found:
        assert 0 <= one.precision_low <= one.precision <= one.precision_high <= 1
        assert 0 <= one.recall_low <= one.recall <= one.recall_high <= 1
        assert one.f1_low - 1e-12 <= one.f1 <= one.f1_high + 1e-12
    confusion = confusion_matrix(predicted, labels, classes + 1, classes)
    assert confusion.shape == (classes + 1, classes)
    assert confusion.sum() == rows
    assert confusion[labels[0], predicted[0]] >= 1
    assert confusion.sum(axis=1)[:classes].tolist() == [one.support for one in found]


def test_the_interval_of_f1_covers() -> None:
    """Few intervals of a class's F1 lie below the F1 of the whole population, and as few above."""
    rng = np.random.default_rng(0)
    table = np.array([[0.10, 0.05], [0.04, 0.81]])  # F1 of the first class: 2 * 0.10 / (0.15 + 0.14)
    below, above, draws = 0, 0, 2_000
    for _ in range(draws):
        cells = rng.choice(4, 200, p=table.ravel())
        found = class_metrics(cells % 2, cells // 2, 2)[0]
        below += found.f1_high < 0.2 / 0.29
        above += found.f1_low > 0.2 / 0.29
    assert 0.01 <= below / draws <= 0.04
    assert 0.01 <= above / draws <= 0.04


def test_the_most_common_mix_ups() -> None:
    confusion = np.array([[9, 2, 0], [0, 5, 3], [0, 0, 4], [1, 0, 0]])
    assert most_mixed_up(confusion, 2) == [MixUp(1, 2, 3), MixUp(0, 1, 2)]
    assert most_mixed_up(confusion, 9) == [MixUp(1, 2, 3), MixUp(0, 1, 2), MixUp(3, 0, 1)]
    assert most_mixed_up(np.diag([3, 4]), 5) == []


def test_many_classes_are_shown_by_their_f1(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"a class with a long name, number {number}" for number in range(30)]
    truth = np.repeat(np.arange(30), 4)
    predicted = np.where(truth % 3 == 0, (truth + 1) % 30, truth)
    _print_classes(class_metrics(predicted, truth, 30), names)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "The 20 of 30 classes with the lowest F1 (--json has all):"
    assert len(shown) == 23
    assert "0.000 (0.000 to" in shown[3]
    assert max(map(len, shown)) <= 80


def test_a_name_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    _print_classes(class_metrics(np.array([0, 1]), np.array([0, 1]), 2), ["a\nb", "\x1b[31mred"])
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "a\\nb"
    assert second.split()[0] == "\\x1b[31mred"
