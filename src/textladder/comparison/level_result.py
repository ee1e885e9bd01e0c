"""The results of one level, computed from the predictions of its training runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from textladder import metrics
from textladder.class_metrics import ClassMetrics, class_metrics
from textladder.comparison.curve import Curve
from textladder.comparison.trainings import CrossValidated, Training
from textladder.comparison.verdict import Candidate
from textladder.metrics import Evaluation
from textladder.target_metric import Accuracy, Score, TargetMetric

# On tweets, 2 epochs of lstm end with a loss 5% lower than after the first, its default 6 epochs with an equal one.
FALLING_SHARE = 0.03
LEAST_VALID = 30  # validation rows needed to fit a temperature
MEASURED = (
    "parameters", "train_rows", "valid_rows", "predict_ms_p50", "predict_ms_p95", "rows_per_second", "load_seconds",
    "bundle_mb", "predict_memory_mb", "test_texts_truncated", "device",
)  # fmt: skip


def still_falling(epochs: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The losses of the last two validations if the training had not settled.

    That is if the last one was the best of its stage, by the loss and by the mean of accuracy and macro F1, and the
    loss was at least 3% lower than before.

    Args:
        epochs: the entries of a training run, from `run_stages`.
    """
    last = [one for one in epochs if one["stage"] == epochs[-1]["stage"] and one["valid_loss"] is not None]
    if len(last) < 2 or last[-1]["valid_accuracy"] is None:
        return None
    *earlier, end = last
    scores = [one["valid_accuracy"] + one["valid_macro_f1"] for one in last]
    falls = end["valid_loss"] <= (1 - FALLING_SHARE) * min(one["valid_loss"] for one in earlier)
    return (earlier[-1]["valid_loss"], end["valid_loss"]) if falls and scores[-1] > max(scores[:-1]) else None


@dataclass(frozen=True)
class LevelResult:
    """One level, trained with one seed or several.

    Attributes:
        level: its name.
        trainings: one per seed.
        curve: its learning curve, if one was requested.
        predicted_fit_seconds: the fit time that the probe predicted, if there was a time budget.
        metric: that gains and the choice among the seeds go by.
    """

    level: str
    trainings: Sequence[Training]
    curve: Curve | None = None
    predicted_fit_seconds: float | None = None
    metric: TargetMetric = field(default_factory=Accuracy)

    @cached_property
    def kept_index(self) -> int:
        """Index of the training run that is best on the validation rows; the first of equal ones."""
        found = [one.valid_score(self.metric) for one in self.trainings]
        scores = [0.0 if one is None else self.metric.sign * one for one in found]
        return scores.index(max(scores))

    @property
    def kept(self) -> Training:
        """The training run that is best on the validation rows, whose bundle and figures are reported."""
        return self.trainings[self.kept_index]

    @property
    def runs(self) -> Sequence[Training]:
        """The training runs that predicted test rows: one per seed or, with folds, one per fold."""
        return self.kept.folds if isinstance(self.kept, CrossValidated) else self.trainings

    @cached_property
    def correct(self) -> np.ndarray:
        """Which test rows each training run predicted correctly, bool (seeds, rows)."""
        return np.stack([one.correct for one in self.trainings])

    @cached_property
    def contributions(self) -> np.ndarray:
        """What each test row contributes to the metric of each training run, float64 (seeds, rows); more is better."""
        return np.stack([one.contributions(self.metric) for one in self.trainings])

    @cached_property
    def score(self) -> Score:
        """The metric on the test rows."""
        return Score.of_rows(self.metric, self.contributions[self.kept_index])

    @cached_property
    def test(self) -> Evaluation:
        """Metrics on the test rows."""
        return metrics.evaluate(*self.kept.predictions("test"))

    @cached_property
    def by_class(self) -> list[ClassMetrics]:
        """How well each class is predicted on the test rows, in the order of the labels."""
        probabilities, labels = self.kept.predictions("test")
        return class_metrics(probabilities.argmax(axis=1), labels, probabilities.shape[1])

    @cached_property
    def forms(self) -> dict[str, dict[str, Any]]:
        """What each form that was measured costs, by its name, and its accuracy and metric on the test rows."""
        found = {}
        for form, figures in self.kept.forms.items():
            of_form = self.kept.in_form(form)
            accuracy = None if of_form is None else float(of_form.correct.mean())
            score = None if of_form is None else self.metric.value(*of_form.predictions("test"))
            found[form] = {**figures, "accuracy": accuracy, "score": score}
        return found

    @property
    def trained_once(self) -> bool:
        """Whether it was trained with one seed and on one split, so that its run-to-run noise is not known."""
        return len(self.trainings) == 1 and self.kept.fold_of_row is None

    @property
    def seed_spread(self) -> float | None:
        """From the lowest to the highest metric of its seeds on the test rows, in its unit; None for a single seed."""
        scores = self.contributions.mean(axis=1)
        return None if len(scores) == 1 else self.metric.unit.scale * float(scores.max() - scores.min())

    @property
    def fit_seconds(self) -> float:
        """Median duration of a training run."""
        return float(np.median([one.record["fit_seconds"] for one in self.trainings]))

    @property
    def peak_memory_mb(self) -> float | None:
        """Peak memory over all training runs; None if the system does not report it."""
        return max((one.record["peak_memory_mb"] or 0.0 for one in self.trainings), default=0.0) or None

    @property
    def warnings(self) -> list[str]:
        """Why the level may be worse on these rows than its kind of model can be, in sentences."""
        found = list(self.kept.record.get("warnings", ()))  # bundles of earlier versions have none
        losses = still_falling(self.kept.record["epochs"])
        if losses is not None:
            found.append(
                f"The validation loss was still falling when its training ended, lately from {losses[0]:.2f} to "
                f"{losses[1]:.2f}: give it more epochs (in a settings file, --config) before you judge it."
            )
        return found

    @cached_property
    def candidate(self) -> Candidate:
        """How good and how expensive it is in the form it would be deployed in, for the verdict."""
        record = self.kept.record
        return Candidate(
            self.level,
            self.metric.sign * self.score.value,
            record["predict_ms_p50"],
            self.fit_seconds,
            record["bundle_mb"],
        )

    @cached_property
    def temperature(self) -> float | None:
        """The temperature fitted on the validation rows; None if there are too few."""
        probabilities, labels = self.kept.predictions("valid")
        return metrics.temperature(probabilities, labels) if len(labels) >= LEAST_VALID else None

    @cached_property
    def calibrated(self) -> dict[str, float] | None:
        """The temperature, and calibration error and log loss on the test rows after calibration with it."""
        if self.temperature is None:
            return None
        probabilities, labels = self.kept.predictions("test")
        found = metrics.evaluate(metrics.at_temperature(probabilities, self.temperature), labels)
        return {"temperature": self.temperature, "ece": found.ece, "log_loss": found.log_loss}

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name, as in `compare --json`."""
        record, job = self.kept.record, self.kept.record["job"]
        return {
            "level": self.level,
            "preset": job["preset"],
            "settings": job["settings"],
            "score": self.score._asdict(),
            "test": self.test.as_dict(),
            "calibrated": self.calibrated,
            "fit_seconds": self.fit_seconds,
            "predicted_fit_seconds": self.predicted_fit_seconds,
            "peak_memory_mb": self.peak_memory_mb,
            **{name: record[name] for name in MEASURED},
            "form": self.kept.form,
            "forms": self.forms,
            "form_refused": self.kept.refusal,
            "train_texts_truncated": record.get("texts_truncated", 0),
            "warnings": self.warnings,
            "seed_spread": self.seed_spread,
            "seeds": self._seeds(),
            "bundle": f"{self.kept.folder.name}/bundle",
            "learning_curve": None if self.curve is None else self.curve.as_dict(),
        }

    def _seeds(self) -> list[dict[str, Any]]:
        return [
            {
                "seed": one.seed,
                "accuracy": float(one.correct.mean()),
                "score": self.metric.value(*one.predictions("test")),
                "valid_accuracy": one.valid_accuracy,
                "fit_seconds": one.record["fit_seconds"],
                "peak_memory_mb": one.record["peak_memory_mb"],
            }
            for one in self.runs
        ]
