"""Metrics of predicted probabilities: accuracy with its interval, F1, log loss, calibration.

Plain NumPy, so that a bundle can be evaluated without scikit-learn; independent of where probabilities come from.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

CALIBRATION_BINS = 15
SMALLEST_PROBABILITY = 1e-12  # caps the log loss of a row at 27.6 nats instead of infinity


@dataclass(frozen=True)
class Evaluation:
    """Metrics of predicted probabilities on labelled rows; accuracies are fractions.

    Attributes:
        accuracy: share of rows whose most probable class is the true one.
        accuracy_low: lower end of the 95% interval of the accuracy (Wilson 1927).
        accuracy_high: upper end.
        macro_f1: unweighted mean of the F1 scores of the classes that are true or predicted in some row.
        log_loss: mean negative log probability of the true class, in nats.
        ece: expected calibration error over 15 bins of equal width (Guo et al. 2017, section 2).
        rows: number of rows.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    log_loss: float
    ece: float
    rows: int

    def as_dict(self) -> dict[str, float | int]:
        """The metrics by name, without `rows`."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}


def evaluate(probabilities: np.ndarray, label_ids: np.ndarray) -> Evaluation:
    """Compute all metrics of predicted probabilities.

    Args:
        probabilities: float (rows, classes).
        label_ids: int (rows,), the true class of each row; `classes` and more for labels that are none of them.

    Returns:
        The metrics.
    """
    predicted = probabilities.argmax(axis=1)
    correct = predicted == label_ids
    low, high = wilson_interval(int(correct.sum()), len(correct))
    of_truth = np.clip(probability_of_truth(probabilities, label_ids), SMALLEST_PROBABILITY, 1)
    return Evaluation(
        accuracy=float(correct.mean()),
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=macro_f1(predicted, label_ids),
        log_loss=float(-np.log(of_truth).mean()),
        ece=calibration_error(probabilities.max(axis=1), correct),
        rows=len(label_ids),
    )


def probability_of_truth(probabilities: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    """The probability of each row's true class, (rows,); 0 for labels that are none of the classes."""
    with_none = np.pad(probabilities, ((0, 0), (0, 1)))
    of_truth: np.ndarray = with_none[np.arange(len(label_ids)), np.minimum(label_ids, probabilities.shape[1])]
    return of_truth


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai, DasGupta 2001, section 3.1.1).

    Args:
        successes: number of successes.
        trials: number of trials, at least 1.
        confidence: coverage of the interval.

    Returns:
        Lower and upper end, fractions.

    >>> low, high = wilson_interval(90, 100)
    >>> f"{low:.3f} to {high:.3f}"
    '0.826 to 0.945'
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = z / (1 + z**2 / trials) * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    # rounding must not exclude the observed share itself
    return max(0.0, min(share, centre - spread)), min(1.0, max(share, centre + spread))


def macro_f1(predicted: np.ndarray, label_ids: np.ndarray) -> float:
    """Unweighted mean of the F1 scores of all classes that are true or predicted in some row."""
    classes = int(max(predicted.max(), label_ids.max())) + 1
    hits, guesses, truths = (
        np.bincount(ids, minlength=classes) for ids in (predicted[predicted == label_ids], predicted, label_ids)
    )
    present = guesses + truths > 0
    return float(np.mean(2 * hits[present] / (guesses + truths)[present]))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: the gap between confidence and accuracy per bin, weighted by the rows in the bin."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, confidence - correct, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def temperature(probabilities: np.ndarray, label_ids: np.ndarray) -> float:
    """Fit the temperature that minimises the log loss (Guo et al. 2017, section 4.2).

    Args:
        probabilities: float (rows, classes).
        label_ids: the true classes, int64 (rows,).

    Returns:
        The temperature; above 1 it makes predictions less confident.
    """
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        scaled = at_temperature(probabilities, float(np.exp(logarithm)))
        of_truth = np.clip(scaled[np.arange(len(label_ids)), label_ids], SMALLEST_PROBABILITY, 1)
        return float(-np.log(of_truth).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities by a temperature; float64 (rows, classes).

    >>> at_temperature(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    logits = np.log(np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, 1)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scaled


def accuracy_sentence(numbers: Mapping[str, float]) -> str:
    """An accuracy with its interval.

    >>> accuracy_sentence({"accuracy": 0.9, "accuracy_low": 0.8256, "accuracy_high": 0.9448})
    '0.900 (95% interval 0.826 to 0.945)'
    """
    return f"{numbers['accuracy']:.3f} (95% interval {numbers['accuracy_low']:.3f} to {numbers['accuracy_high']:.3f})"
