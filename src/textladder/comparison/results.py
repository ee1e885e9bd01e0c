"""What a comparison found: every level's numbers, the gains between levels, the verdict.

Made from trainings on disk, by arithmetic alone: nothing is trained or predicted here. `report.py` shows it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder import metrics
from textladder.audit import Audit
from textladder.comparison.curve import Curve
from textladder.comparison.trainings import Training
from textladder.comparison.verdict import Measured, Terms, Verdict, best_cheaper, by_cost, decide, frontier
from textladder.comparison.wording import seconds_words, short
from textladder.data.labelled_texts import TextData
from textladder.errors import import_extra
from textladder.metrics import Evaluation
from textladder.significance import Gain, compare_right

if TYPE_CHECKING:
    import pandas as pd

LEAST_VALID = 30  # validation rows that a temperature can be chosen on


@dataclass(frozen=True)
class LevelResult:
    """One level, trained with one seed or several.

    Attributes:
        level: its name.
        trainings: one for each seed.
        curve: accuracy over the number of training rows, where it was asked for.
        predicted_fit_seconds: what the probe said that a fit would take, where there was one.
    """

    level: str
    trainings: Sequence[Training]
    curve: Curve | None = None
    predicted_fit_seconds: float | None = None

    @cached_property
    def place(self) -> int:
        """Which training is put to work: the one that did best on the validation rows, the first of equals."""
        scores = [(one.measured["valid"] or {}).get("accuracy", 0.0) for one in self.trainings]
        return scores.index(max(scores))

    @property
    def kept(self) -> Training:
        """The training that is put to work, which every figure is of but those over the seeds."""
        return self.trainings[self.place]

    @cached_property
    def right(self) -> np.ndarray:
        """Which test rows each training got right, bool (seeds, rows)."""
        return np.stack([one.right for one in self.trainings])

    @cached_property
    def test(self) -> Evaluation:
        """How good it is on the test rows."""
        return metrics.evaluate(*self.kept.part("test"))

    @property
    def seed_spread(self) -> float | None:
        """Points between the best and the worst seed on the test rows; None for one seed."""
        accuracies = self.right.mean(axis=1)
        return None if len(accuracies) == 1 else 100 * float(accuracies.max() - accuracies.min())

    @property
    def fit_seconds(self) -> float:
        """Of one training, the median."""
        return float(np.median([one.measured["fit_seconds"] for one in self.trainings]))

    @cached_property
    def measured(self) -> Measured:
        """What the verdict has to know."""
        numbers = self.kept.measured
        return Measured(
            self.level, self.test.accuracy, numbers["predict_ms_p50"], self.fit_seconds, numbers["bundle_mb"]
        )

    @cached_property
    def temperature(self) -> float | None:
        """The temperature that the validation rows ask for; None where they are too few."""
        probabilities, labels = self.kept.part("valid")
        return metrics.temperature(probabilities, labels) if len(labels) >= LEAST_VALID else None

    @cached_property
    def calibrated(self) -> dict[str, float] | None:
        """Calibration error and log loss on the test rows at that temperature."""
        if self.temperature is None:
            return None
        probabilities, labels = self.kept.part("test")
        found = metrics.evaluate(metrics.at_temperature(probabilities, self.temperature), labels)
        return {"temperature": self.temperature, "ece": found.ece, "log_loss": found.log_loss}

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        numbers, job = self.kept.measured, self.kept.measured["job"]
        seeds = [
            {
                "seed": one.seed,
                "accuracy": float(right.mean()),
                "valid_accuracy": (one.measured["valid"] or {}).get("accuracy"),
                "fit_seconds": one.measured["fit_seconds"],
                "peak_memory_mb": one.measured["peak_memory_mb"],
            }
            for one, right in zip(self.trainings, self.right, strict=True)
        ]
        names = (
            "parameters", "train_rows", "valid_rows", "predict_ms_p50", "predict_ms_p95", "rows_per_second",
            "load_seconds", "bundle_mb", "predict_memory_mb", "test_texts_truncated",
        )  # fmt: skip
        return {
            "level": self.level,
            "preset": job["preset"],
            "settings": job["settings"],
            "test": self.test.as_dict(),
            "calibrated": self.calibrated,
            "fit_seconds": self.fit_seconds,
            "predicted_fit_seconds": self.predicted_fit_seconds,
            "peak_memory_mb": max(one.measured["peak_memory_mb"] for one in self.trainings),
            **{name: numbers[name] for name in names},
            "train_texts_truncated": numbers.get("texts_truncated", 0),
            "seed_spread": self.seed_spread,
            "seeds": seeds,
            "bundle": f"{self.kept.folder.name}/bundle",
            "device": numbers["device"],
            "learning_curve": None if self.curve is None else self.curve.as_dict(),
        }


@dataclass(frozen=True)
class Comparison:
    """Several levels on the same rows.

    Attributes:
        levels: what was found of each, in the order of the ladder.
        data: the rows.
        terms: the user's.
        failed: why a level has no result, by its name.
        audit: what was found in the rows beforehand.
        about: versions, hardware, seed, command and what was done to the rows, for the report.
        folder: where the trainings are.
    """

    levels: Sequence[LevelResult]
    data: TextData
    terms: Terms
    failed: Mapping[str, str]
    audit: Audit
    about: Mapping[str, Any]
    folder: Path

    def __getitem__(self, level: str) -> LevelResult:
        return next(one for one in self.levels if one.level == level)

    def gain(self, level: str, over: str) -> Gain:
        """What one level gains over another."""
        key = level, over
        if key not in self._gains:
            one, other = self[level], self[over]
            self._gains[key] = compare_right(one.right, other.right, kept=(one.place, other.place))
        return self._gains[key]

    @cached_property
    def _gains(self) -> dict[tuple[str, str], Gain]:
        return {}

    @property
    def measured(self) -> list[Measured]:
        """What the verdict has to know of each level."""
        return [one.measured for one in self.levels]

    @cached_property
    def decision(self) -> Verdict:
        """The recommended level and the sentence."""
        if not self.levels:
            return Verdict(None, "No level could be trained.")
        once = [one.level for one in self.levels if len(one.trainings) == 1]
        found = decide(self.measured, self.gain, self.terms, once=once)
        extra = []
        if fewer := [one for one in self.levels if one.kept.measured["train_rows"] < len(self.data.train)]:
            rows = ", ".join(f"{one.level} on {one.kept.measured['train_rows']:,}" for one in fewer)
            extra.append(f"to keep to the time, not all {len(self.data.train):,} rows were learnt from ({rows})")
        if self.failed:
            extra.append(f"{', '.join(self.failed)} could not be compared")
        if not extra:
            return found
        return Verdict(found.recommended, f"{found.sentence.rstrip('.')}; {'; '.join(extra)}.")

    @property
    def verdict(self) -> str:
        """Which level is worth it, in one sentence with its arithmetic."""
        return self.decision.sentence

    @property
    def recommended(self) -> str | None:
        """The level that is worth it; None if none keeps the user's terms."""
        return self.decision.recommended

    @property
    def frontier(self) -> list[str]:
        """The levels that are more accurate than every cheaper one, from the cheapest on."""
        return frontier(self.measured)

    def gains(self, level: LevelResult) -> dict[str, tuple[str, Gain] | None]:
        """What a level gains over the one below it and over the best cheaper one, each with that one's name."""
        found: dict[str, tuple[str, Gain] | None] = {"gain_over_below": None, "gain_over_best_cheaper": None}
        place = self.levels.index(level)
        cheaper = best_cheaper(level.measured, self.measured)
        if cheaper is not None:
            found["gain_over_best_cheaper"] = cheaper.level, self.gain(level.level, cheaper.level)
            if place:
                below = self.levels[place - 1].level
                found["gain_over_below"] = below, self.gain(level.level, below)
        return found

    @property
    def table(self) -> "pd.DataFrame":
        """The numbers as a DataFrame, a row for each level from the cheapest to the dearest."""
        pandas: Any = import_extra("pandas", "train")
        rows = []
        for measured in by_cost(self.measured):
            level = self[measured.level]
            gain = self.gains(level)["gain_over_best_cheaper"]
            points = (math.nan,) * 4 if gain is None else (gain[1].points, gain[1].low, gain[1].high, gain[1].p_value)
            numbers = level.as_dict()
            rows.append(
                {
                    "level": level.level,
                    **level.test.as_dict(),
                    "calibrated_ece": math.nan if level.calibrated is None else level.calibrated["ece"],
                    "seed_spread": math.nan if level.seed_spread is None else level.seed_spread,
                    **dict(zip(("gain", "gain_low", "gain_high", "p_value"), points, strict=True)),
                    **{name: numbers[name] for name in COLUMNS},
                }
            )
        frame: pd.DataFrame = pandas.DataFrame(rows)
        return frame.set_index("level") if rows else frame

    def text_table(self) -> str:
        """The numbers as a table of at most 80 columns; the recommended level is marked."""
        lines = [f"{'':2}{'level':<12}{'accuracy (95%)':<22}{'gain over cheaper':<22}{'ms':>6}{'fit':>9}{'MB':>7}"]
        for measured in by_cost(self.measured):
            level = self[measured.level]
            gain = self.gains(level)["gain_over_best_cheaper"]
            gained = f"{gain[1].points:+.1f} ({gain[1].low:.1f} to {gain[1].high:.1f})" if gain else ""
            test = level.test
            lines.append(
                f"{'>' if level.level == self.recommended else '':2}{level.level:<12}"
                f"{f'{test.accuracy:.3f} ({test.accuracy_low:.3f}-{test.accuracy_high:.3f})':<22}{gained:<22}"
                f"{short(measured.predict_ms_p50):>6}{seconds_words(level.fit_seconds):>9}{short(measured.bundle_mb):>7}"
            )
        spread = [
            f"{one.level} {one.seed_spread:.1f}" if one.seed_spread is not None else f"{one.level} -"
            for one in self.levels
        ]
        lines.append(f"Points between seeds: {', '.join(spread)}.")
        return "\n".join(lines)

    def report(self, path: str | Path) -> Path:
        """Write the report: HTML, or Markdown where the name ends in `.md`."""
        from textladder.comparison.report import write_report

        return write_report(self, path)

    def as_dict(self) -> dict[str, Any]:
        """Everything but texts, as `compare --json` and `results.json` have it."""
        data = self.data
        levels = []
        for one in self.levels:
            gains = {
                name: None if found is None else {"over": found[0], **found[1].as_dict()}
                for name, found in self.gains(one).items()
            }
            levels.append(
                {
                    **one.as_dict(),
                    **gains,
                    "on_frontier": one.level in self.frontier,
                    "terms_broken": self.terms.broken_by(one.measured),
                }
            )
        return {
            "rows": {
                "train": len(data.train),
                "valid": 0 if data.valid is None else len(data.valid),
                "test": len(data.test),
            },
            "seeds": max((len(one.trainings) for one in self.levels), default=0),
            "levels": levels,
            "recommended": self.recommended,
            "verdict": self.verdict,
            "report": self.about.get("report"),
            "failed": dict(self.failed),
            "terms": vars(self.terms),
            **{name: value for name, value in self.about.items() if name != "report"},
            "audit": {name: value for name, value in self.audit.as_dict().items() if name != "examples"},
        }


COLUMNS = (
    "predict_ms_p50", "predict_ms_p95", "rows_per_second", "fit_seconds", "bundle_mb", "peak_memory_mb", "parameters",
)  # fmt: skip
