"""The results of a comparison: every level's numbers, the gains between levels, the verdict.

Computed from the predictions of training runs on disk; nothing is trained or predicted here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from textladder.audit import Audit
from textladder.classifier import ORIGINAL
from textladder.comparison.label_errors import LabelError
from textladder.comparison.level_result import LevelResult
from textladder.comparison.report import write_report
from textladder.comparison.verdict import NONE, Candidate, Terms, Verdict, best_cheaper, by_cost, decide, frontier
from textladder.data.labelled_texts import TextData
from textladder.errors import ConfigError, import_extra, unknown_name
from textladder.significance import Gain, paired_gain
from textladder.target_metric import ACCURACY, MACRO_F1, TargetMetric, find_metric
from textladder.wording import listed, printable, seconds_words, short

if TYPE_CHECKING:
    import pandas as pd

TABLE_COLUMNS = (
    "predict_ms_p50", "predict_ms_p95", "rows_per_second", "fit_seconds", "bundle_mb", "peak_memory_mb", "parameters",
)  # fmt: skip
MOST_TITLE = 12  # characters of a metric that fit above its column
MOST_CLASSES, MOST_NAME = 5, 30  # classes of the text table, and characters of their names


@dataclass(frozen=True)
class RunInfo:
    """How a comparison was run.

    Attributes:
        date: the day on which it ended, as in 2026-11-27.
        command: the command that repeats it.
        report: path of its report.
        digests: SHA-256 of the rows of each part.
        row_changes: what was changed about the rows, in sentences.
        seed: the first seed.
        folds: number of folds; 1 for one split.
        time_budget_seconds: time for all fits; None for no limit.
        forms: `deployable` if levels are judged by the fastest form that passed the gate, or `original`.
        threads: number of threads for predictions.
        price_per_hour: of the machine; None if it is not known.
        hardware: the machine, from `hardware()`.
        versions: of the libraries.
        label_errors_unavailable: why label errors were not searched for; None if they were.
    """

    date: str
    command: str | None
    report: str | None
    digests: Mapping[str, str]
    row_changes: Sequence[str]
    seed: int
    folds: int
    time_budget_seconds: float | None
    forms: str
    threads: int
    price_per_hour: float | None
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    label_errors_unavailable: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Several levels on the same rows.

    Attributes:
        levels: the results of each level, from the lowest.
        data: the rows.
        metric: what gains and the verdict go by.
        terms: what the user demands of the recommended level.
        failed: why a level or training has no result, by its name.
        audit: what the audit found in the rows.
        label_errors: rows whose label is probably wrong.
        run: how it was run.
        folder: where the training runs are.
    """

    levels: Sequence[LevelResult]
    data: TextData
    metric: TargetMetric
    terms: Terms
    failed: Mapping[str, str]
    audit: Audit
    label_errors: Sequence[LabelError]
    run: RunInfo
    folder: Path

    def __getitem__(self, level: str) -> LevelResult:
        """The results of a level.

        Raises:
            ConfigError: the comparison has no results of that level.
        """
        by_name = {one.level: one for one in self.levels}
        if level not in by_name:
            raise ConfigError(unknown_name("level", level, by_name))
        return by_name[level]

    def gain(self, level: str, over: str) -> Gain:
        """The gain in the metric of one level over another, by their names.

        Raises:
            ConfigError: the comparison has no results of one of them.
        """
        key = level, over
        if key not in self._gains:
            one, other = self[level], self[over]
            selected = one.kept_index, other.kept_index
            # at each level, as many more expensive ones may seem better by chance
            comparisons = max(1, len(self.levels) - 1)
            self._gains[key] = paired_gain(
                one.contributions,
                other.contributions,
                selected=selected,
                comparisons=comparisons,
                folds=one.kept.fold_of_row,
                unit=self.metric.unit,
            )
        return self._gains[key]

    @cached_property
    def _gains(self) -> dict[tuple[str, str], Gain]:
        return {}

    @property
    def worth(self) -> float:
        """What a more expensive level must gain, in the unit of the metric."""
        return self.metric.unit.worth if self.terms.worth is None else self.terms.worth

    @property
    def candidates(self) -> list[Candidate]:
        """How good and how expensive each level is, for the verdict."""
        return [one.candidate for one in self.levels]

    @property
    def levels_by_cost(self) -> list[LevelResult]:
        """The levels from the cheapest to the most expensive."""
        return [self[one.level] for one in by_cost(self.candidates)]

    @cached_property
    def decision(self) -> Verdict:
        """The recommended level and the reason."""
        if not self.levels:
            return Verdict(None, "No level could be trained.", NONE)
        found, caveats = self._decision, list[str]()
        total = len(self.data.train)
        if fewer := [one for one in self.levels if one.kept.record["train_rows"] < total]:
            rows = ", ".join(f"{one.level}: {one.kept.record['train_rows']:,}" for one in fewer)
            caveats.append(f"to stay within the time budget, not all {total:,} training rows were used ({rows})")
        if found.recommended is not None and (advice := self._more_rows_or_next_level(found.recommended)):
            caveats.append(advice)
        if (other := self.by_other_metric) is not None and other._decision.recommended != found.recommended:
            level = other._decision.recommended or "no level"
            caveats.append(f"the classes are unbalanced, and by {other.metric.title} it would be {level}")
        if warned := [one.level for one in self.levels if self.warnings(one)]:
            caveats.append(f"there is a warning about {listed(warned)}")
        if self.failed:
            caveats.append(f"there is no result for {listed(list(self.failed))}")
        if not caveats:
            return found
        return replace(found, sentence=f"{found.sentence.rstrip('.')}; {'; '.join(caveats)}.")

    @cached_property
    def _decision(self) -> Verdict:
        trained_once = [one.level for one in self.levels if one.trained_once]
        return decide(self.candidates, self.gain, self.terms, unit=self.metric.unit, trained_once=trained_once)

    @cached_property
    def by_other_metric(self) -> "Comparison | None":
        """The comparison by macro F1 if it is by accuracy, and by accuracy otherwise; None if classes are balanced."""
        if not self.audit.imbalanced:
            return None
        name = MACRO_F1 if self.metric.name == ACCURACY else ACCURACY
        metric, terms = find_metric(name, self.data.labels), self.terms
        if self.metric.unit.scale != metric.unit.scale:
            terms = replace(terms, worth=None)
        return replace(self, metric=metric, terms=terms, levels=[replace(one, metric=metric) for one in self.levels])

    def _more_rows_or_next_level(self, recommended: str) -> str | None:
        """Whether twice as many training rows would bring more than the best of the more expensive levels.

        Args:
            recommended: name of a level.

        Returns:
            The answer in words; None if its learning curve is not known.
        """
        level = self[recommended]
        if level.curve is None or level.curve.doubled is None:
            return None
        unit, last = self.metric.unit, level.curve.scores[-1].value
        middle, *ends = (self.metric.sign * unit.scale * (value - last) for value in level.curve.doubled)
        interval = f"95% interval {unit.number(min(ends))} to {unit.number(max(ends))}"
        more = f"twice as many training rows would likely bring {recommended} {unit.words(middle, '+')} ({interval})"
        above = self.levels_by_cost[self.levels_by_cost.index(level) + 1 :]
        gains = {one.level: self.gain(one.level, recommended).expected[0] for one in above}
        best = max(gains, key=gains.__getitem__, default=None)
        if best is None or gains[best] <= 0:
            return more
        return (
            f"{more}, {'more' if middle > gains[best] else 'less'} than {best} does ({unit.number(gains[best], '+')})"
        )

    @property
    def verdict(self) -> str:
        """Which level is worth using and why, in one sentence."""
        return self.decision.sentence

    @property
    def recommended(self) -> str | None:
        """The level worth using; None if no level meets the user's terms."""
        return self.decision.recommended

    @property
    def frontier(self) -> list[str]:
        """The levels that are better than every cheaper one, from the cheapest."""
        return frontier(self.candidates)

    def gains(self, level: LevelResult) -> dict[str, tuple[str, Gain] | None]:
        """The gains of a level over the one below it and over the best cheaper one, each with that level's name."""
        found: dict[str, tuple[str, Gain] | None] = {"gain_over_below": None, "gain_over_best_cheaper": None}
        place = self.levels.index(level)
        cheaper = best_cheaper(level.candidate, self.candidates)
        if cheaper is not None:
            found["gain_over_best_cheaper"] = cheaper.level, self.gain(level.level, cheaper.level)
            if place:
                below = self.levels[place - 1].level
                found["gain_over_below"] = below, self.gain(level.level, below)
        return found

    def warnings(self, level: LevelResult) -> list[str]:
        """Why a level may be worse on these rows than its kind of model can be, or have been lucky, in sentences."""
        found, gain = level.warnings, self.gains(level)["gain_over_best_cheaper"]
        if gain is not None and level.seed_spread is not None and 0 < gain[1].expected[0] < level.seed_spread:
            runs, unit = len(level.trainings), self.metric.unit
            found.append(
                f"Its {runs} training runs differ by {unit.words(level.seed_spread)}, more than the "
                f"{unit.words(gain[1].expected[0])} that it gains: more of them would tell more (--seeds {2 * runs})."
            )
        return found

    @property
    def table(self) -> "pd.DataFrame":
        """The numbers as a DataFrame, one row per level, from the cheapest to the most expensive.

        The gain and its interval are over the seeds if there are several, as in the verdict.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        pandas: Any = import_extra("pandas", "train")
        rows = []
        for level in self.levels_by_cost:
            gain = self.gains(level)["gain_over_best_cheaper"]
            points = (math.nan,) * 4 if gain is None else (*gain[1].expected, gain[1].p_value)
            numbers = level.as_dict()
            rows.append(
                {
                    "level": level.level,
                    "form": numbers["form"],
                    **level.test.as_dict(),
                    **dict(zip(("score", "score_low", "score_high"), level.score, strict=True)),
                    "calibrated_ece": math.nan if level.calibrated is None else level.calibrated["ece"],
                    "seed_spread": math.nan if level.seed_spread is None else level.seed_spread,
                    **dict(zip(("gain", "gain_low", "gain_high", "p_value"), points, strict=True)),
                    **{name: numbers[name] for name in TABLE_COLUMNS},
                    **self._prices(numbers),
                }
            )
        frame: pd.DataFrame = pandas.DataFrame(rows)
        return frame.set_index("level") if rows else frame

    def text_table(self) -> str:
        """The numbers as a table of at most 80 columns; `>` marks the recommended level.

        A level is shown in the form that it is judged by, and its original form below it if that is another.
        """
        title = self.metric.title if len(self.metric.title) <= MOST_TITLE else "metric"
        heading = f"{f'{title} (95%)':<20}{'gain over cheaper':<22}"
        lines = [f"{'':2}{'level':<12}{heading}{'ms/text':>8}{'fit':>8}{'MB':>8}"]
        for level in self.levels_by_cost:
            gain = self.gains(level)["gain_over_best_cheaper"]
            gained = ""
            if gain is not None:
                points, low, high = (
                    self.metric.unit.number(end, sign)
                    for end, sign in zip(gain[1].expected, ("+", "", ""), strict=True)
                )
                gained = f"{points} ({low} to {high})"
            score, cost = level.score, level.candidate
            lines.append(
                f"{'>' if level.level == self.recommended else '':2}{level.level:<12}"
                f"{f'{score.value:.3f} ({score.low:.3f}-{score.high:.3f})':<20}{gained:<22}"
                f"{short(cost.predict_ms_p50):>8}{seconds_words(cost.fit_seconds):>8}{short(cost.bundle_mb):>8}"
            )
            if level.kept.form != ORIGINAL:
                original = level.forms[ORIGINAL]
                lines.append(
                    f"{'':4}{ORIGINAL:<10}{original['score']:<42.3f}{short(original['predict_ms_p50']):>8}{'':8}"
                    f"{short(original['bundle_mb']):>8}"
                )
        exported = [f"{one.level} {one.kept.form}" for one in self.levels_by_cost if one.kept.form != ORIGINAL]
        if exported:
            lines.append(fill(f"Form for deployment: {', '.join(exported)}.", 80))
        if self.run.price_per_hour is not None:
            prices = {one.level: self._prices(one.as_dict()) for one in self.levels_by_cost}
            texts = ", ".join(f"{name} {short(one['price_per_million'])}" for name, one in prices.items())
            fits = ", ".join(f"{name} {short(one['fit_price'])}" for name, one in prices.items())
            lines.append(fill(f"Price of a million texts: {texts}; of a training run: {fits}.", 80))
        if title != self.metric.title:
            lines.append(f"The metric is {self.metric.title}.")
        if (other := self.by_other_metric) is not None:
            scores = ", ".join(f"{one.level} {one.score.value:.3f}" for one in other.levels_by_cost)
            lines.append(fill(f"By {other.metric.title}, because the classes are unbalanced: {scores}.", 80))
        unit = self.metric.unit
        spreads = [f"{one.level} {unit.number(one.seed_spread)}" for one in self.levels if one.seed_spread is not None]
        if spreads:
            lines.append(f"Spread between runs: {', '.join(spreads)}{' points' if unit.scale == 100 else ''}.")
        if self.recommended is not None:
            lines.append(fill(self._classes(self[self.recommended]), 80))
        lines += [fill(f"{one.level}: {sentence}", 80) for one in self.levels for sentence in self.warnings(one)]
        return "\n".join(lines)

    def _classes(self, level: LevelResult) -> str:
        """Which classes a level predicts worst, in a sentence; all of them if there are few."""
        names = [one if len(one) <= MOST_NAME else f"{one[: MOST_NAME - 1]}…" for one in self.data.label_names]
        order = sorted(range(len(names)), key=lambda place: level.by_class[place].f1)[:MOST_CLASSES]
        worst = ", ".join(f"'{printable(names[place])}' {level.by_class[place].f1:.3f}" for place in order)
        return f"{'Lowest ' if len(names) > MOST_CLASSES else ''}F1 of the classes, {level.level}: {worst}."

    def _prices(self, numbers: Mapping[str, Any]) -> dict[str, float]:
        """What a million texts cost on a machine that is busy all the time, and what a training run cost.

        Args:
            numbers: of a level.

        Returns:
            The prices by name, none if that of the machine is not known.
        """
        if self.run.price_per_hour is None:
            return {}
        per_second = self.run.price_per_hour / 3600
        return {
            "price_per_million": 1e6 / numbers["rows_per_second"] * per_second,
            "fit_price": numbers["fit_seconds"] * per_second,
        }

    def report(self, path: str | Path, *, texts: bool = True) -> Path:
        """Write the report.

        Args:
            path: the file; Markdown if its name ends in `.md`, otherwise HTML.
            texts: whether it shows some of the texts.

        Returns:
            The path.

        Raises:
            ConfigError: the file cannot be written.
        """
        numbers, by_cost = self.as_dict(), self.levels_by_cost
        return write_report(path, numbers, self.metric, by_cost, self.data, self.label_errors, texts=texts)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the texts, as in `compare --json` and `results.json`."""
        data = self.data
        return {
            "rows": {
                "train": len(data.train),
                "valid": 0 if data.valid is None else len(data.valid),
                "test": len(data.test),
            },
            "seeds": max((len(one.trainings) for one in self.levels), default=0),
            "metric": self.metric.name,
            "levels": [self._level_as_dict(one) for one in self.levels],
            "decision": self.decision.decision,
            "recommended": self.recommended,
            "verdict": self.verdict,
            "smallest_gain": self.decision.smallest_gain,
            "rows_to_settle": self.decision.rows_to_settle,
            "failed": dict(self.failed),
            "terms": {**asdict(self.terms), "worth": self.worth},
            **asdict(self.run),
            "data": data.description,
            "labels": list(data.labels),
            "label_names": list(data.label_names),
            "label_errors": [asdict(one) for one in self.label_errors],
            "audit": {name: value for name, value in self.audit.as_dict().items() if name != "examples"},
        }

    def _level_as_dict(self, level: LevelResult) -> dict[str, Any]:
        gains = {
            name: None if found is None else {"over": found[0], **found[1].as_dict()}
            for name, found in self.gains(level).items()
        }
        per_class = zip(self.data.labels, level.by_class, strict=True)
        numbers = level.as_dict()
        return {
            **numbers,
            **(self._prices(numbers) or {"price_per_million": None, "fit_price": None}),
            **gains,
            "warnings": self.warnings(level),
            "per_class": {label: one.as_dict() for label, one in per_class},
            "on_frontier": level.level in self.frontier,
            "terms_broken": self.terms.broken_by(level.candidate),
        }
