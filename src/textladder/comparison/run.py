"""The training runs of a comparison, one after another: level by level, seed by seed, then the learning curves."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from textladder.atomic_files import write_text
from textladder.comparison.budget import FitEstimate
from textladder.comparison.curve import SHARES, Curve, learning_curve
from textladder.comparison.folds import Folds, fold_folder
from textladder.comparison.level_result import LevelResult
from textladder.comparison.plan import Plan
from textladder.comparison.run_folder import PLAN
from textladder.comparison.time_left import TimeLeft
from textladder.comparison.trainings import CrossValidated, Training, TrainingStore
from textladder.comparison.worker import Job
from textladder.comparison.worker_process import WorkerError
from textladder.errors import ConfigError, TextladderError, missing_library, not_installed
from textladder.levels import find_level
from textladder.levels.base import is_neural
from textladder.wording import counted, seconds_words

QUICK_SECONDS, QUICK_SEEDS = 120, 3  # by default, a level whose fit takes less is trained with this many seeds


@dataclass
class Allocation:
    """How many training rows each level is trained on.

    Attributes:
        rows: number of training rows of each level that is trained; 0 for all.
        estimates: what the probes found, by level; empty without a time budget.
        left_out: why a level is not trained, by level.
    """

    rows: dict[str, int] = field(default_factory=dict)
    estimates: dict[str, FitEstimate] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Run:
    """Trains the levels of a plan.

    Args:
        plan: what is trained.
        store: the training runs in the comparison's folder.
        shared_rows: the folder of the rows.
        folds: the folds of the rows, each of which has its number as a folder in there; None for one split.
    """

    def __init__(self, plan: Plan, store: TrainingStore, shared_rows: str, folds: Folds | None = None) -> None:
        self.plan, self.store, self.shared_rows, self.monitor = plan, store, shared_rows, store.monitor
        self.folds = folds
        self.results: list[LevelResult] = []
        self.failed: dict[str, str] = {}
        self.levels = list(plan.levels)
        self.time_left = TimeLeft({}, {}, self.monitor)

    def check_requested(self, overwrite: bool) -> None:
        """Check that the levels that the user asked for can be trained, before spending time on the first of them.

        Without a request every level is tried, and one that cannot be trained is left out.

        Args:
            overwrite: whether finished training runs in the folder will be replaced.

        Raises:
            TextladderError: one of them cannot be trained.
        """
        for name in self.plan.levels if self.plan.requested is not None else ():
            finished = None if overwrite else self.store.find(self.plan.job("fit", name, self.shared_rows))
            if finished is not None or not is_neural(find_level(name)):
                continue
            try:
                self.store.run(self.plan.job("check", name, self.shared_rows))
            except TextladderError as error:
                raise TextladderError(f"{name} cannot be trained here. {error}") from None

    def train_all(self) -> None:
        """Train whatever the folder does not hold yet."""
        self._leave_out_unusable()
        allocation = self._allocate()
        self.failed |= allocation.left_out
        total = len(self.plan.data.train)
        rows_of_level = {name: rows or total for name, rows in allocation.rows.items()}
        self.time_left = TimeLeft(rows_of_level, allocation.estimates, self.monitor)
        for name in allocation.rows:
            self.time_left.expect(name, self._fits(self.plan.seeds or 1))
        for name, rows in allocation.rows.items():
            trainings = self._train(name, rows) if self.folds is None else self._cross_validate(name, rows, self.folds)
            if not trainings:
                self.time_left.expect(name, 0.0)
                continue
            curve = self._curve(name, trainings[0]) if self.plan.learning_curve else None
            estimate = allocation.estimates.get(name)
            seconds = None if estimate is None else estimate.seconds(trainings[0].record["train_rows"])
            self.results.append(LevelResult(name, trainings, curve, seconds, self.plan.metric))
            self.time_left.expect(name, 0.0)

    def _fits(self, trainings: int) -> float:
        """How many fits on all rows of a level some trainings of it and what belongs to them come to."""
        folds = 0 if self.folds is None else self.folds.number
        return trainings + folds + (sum(SHARES) if self.plan.learning_curve else 0.0)

    def _leave_out_unusable(self) -> None:
        """Leave out levels that were not requested and are not installed or cannot read such texts."""
        for name in list(self.levels) if self.plan.requested is None else ():
            reason = self._unusable(name)
            if reason is not None:
                self.levels.remove(name)
                self.failed[name] = reason
                self.monitor.say(f"{name} is left out. {reason}")

    def _unusable(self, name: str) -> str | None:
        """Why a level is not installed or cannot read such texts, in sentences; None if nothing is known against it."""
        level = find_level(name)
        if (library := missing_library(level.libraries)) is not None:
            return not_installed(library, "train")
        with suppress(TextladderError):  # what cannot be downloaded is reported by the training
            reason = level(self.plan.config(name), len(self.plan.data.labels)).unsuitable(self.plan.data.train)
            if reason is not None:
                return f"{reason} To train it all the same, name it among the levels."
        return None

    def _train(self, name: str, rows: int) -> list[Training]:
        """Train a level with each seed; stop at the first that fails."""
        trainings: list[Training] = []
        seeds = self.plan.seeds or 1
        while len(trainings) < seeds:
            self.monitor.begin(f"{name}, seed {len(trainings) + 1} of {seeds}" if seeds > 1 else name)
            seed = self.plan.seed + len(trainings)
            job = self.plan.job("fit", name, self.shared_rows, seed=seed, train_rows=rows)
            trained = self._attempt(f"{name} (seed {seed})" if trainings else name, job, say=not trainings)
            if trained is None:
                break
            trainings.append(trained)
            quick = trainings[0].record["fit_seconds"] < QUICK_SECONDS
            if self.plan.seeds is None and self.plan.time_budget is None and quick:
                seeds = QUICK_SEEDS
            if len(trainings) == 1:
                self.time_left.expect(name, self._fits(seeds) - 1)
        if trainings:
            scores = self._scores(trainings)
            seconds = seconds_words(trainings[0].record["fit_seconds"])
            self.monitor.say(f"{name}: test {self.plan.metric.title} {scores}; one fit took {seconds}.")
        return trainings

    def _cross_validate(self, name: str, rows: int, folds: Folds) -> list[Training]:
        """Train a level once for each fold, then on all rows; empty if one of the trainings fails."""
        parts = list[Training]()
        for fold in range(folds.number):
            self.monitor.begin(f"{name}, fold {fold + 1} of {folds.number}")
            job = self.plan.job(
                "fit", name, fold_folder(self.shared_rows, fold), seed=self.plan.seed + fold, train_rows=rows, fold=fold
            )
            trained = self._attempt(f"{name} (fold {fold + 1})" if fold else name, job, measure=False, say=not fold)
            if trained is None:
                return []
            parts.append(trained)
        self.monitor.begin(f"{name} on all rows")
        job = self.plan.job("fit", name, self.shared_rows, train_rows=rows, predict_test=False)
        finished = self._attempt(f"{name} (all rows)", job, say=False)
        if finished is None:
            return []
        tested = {key: sum(one.record[key] for one in parts) for key in ("test_rows", "test_texts_truncated")}
        found = CrossValidated(
            finished.folder,
            {**finished.record, **tested},
            folds.fold_of_row,
            finished.form,
            finished.forms,
            finished.refusal,
            folds=parts,
        )
        seconds = seconds_words(finished.record["fit_seconds"])
        self.monitor.say(
            f"{name}: test {self.plan.metric.title} {self._scores([found])} ({self._scores(parts)}); a fit on all rows "
            f"took {seconds}."
        )
        return [found]

    def _scores(self, trainings: Sequence[Training]) -> str:
        """The metric on the test rows of some training runs, in words."""
        return ", ".join(f"{self.plan.metric.value(*one.predictions('test')):.3f}" for one in trainings)

    def _curve(self, name: str, full: Training) -> Curve | None:
        """Train a level on parts of its rows, with folds of the first one's; None if one of the runs fails."""
        trainings, fold, shared_rows = [], None, self.shared_rows
        if isinstance(full, CrossValidated):
            full, fold, shared_rows = full.folds[0], 0, fold_folder(shared_rows, 0)
        for share in SHARES:
            count = round(share * full.record["train_rows"])
            self.monitor.begin(f"{name} on {counted(count, 'row')}")
            job = self.plan.job("fit", name, shared_rows, train_rows=count, fold=fold)
            trained = self._attempt(f"{name} ({counted(count, 'row')})", job, share=share, measure=False, say=False)
            if trained is None:
                return None
            trainings.append(trained)
        trainings.append(full)
        rows = [one.record["train_rows"] for one in trainings]
        metric = self.plan.metric
        return learning_curve(metric, rows, np.stack([one.contributions(metric) for one in trainings]))

    def _attempt(self, what: str, job: Job, *, share: float = 1.0, **options: Any) -> Training | None:
        """Train, or report the failure and return None; a bug's traceback is written to the folder.

        Args:
            what: what is trained, in words.
            job: the training.
            share: the share of the level's rows that it is trained on.
            options: of `TrainingStore.train`.
        """
        started = time.perf_counter()
        try:
            trained = self.store.train(job, **options)
            self.time_left.trained(job.level, share, started, trained.record["fit_seconds"])
            return trained
        except ConfigError:
            raise
        except (TextladderError, WorkerError) as error:
            reason = str(error)
            if isinstance(error, WorkerError):
                path = self.store.folder / f"failed-{job.level}.txt"
                path.write_text(reason, encoding="utf-8")
                reason = f"{reason.strip().splitlines()[-1]} (the traceback is in {path})"
            self.monitor.say(f"{what} failed. {reason}")
            self.failed[what] = reason
            return None

    def _allocate(self) -> Allocation:
        """Decide how many rows each level is trained on.

        The decision is written to the folder, so that a resumed comparison ends as the interrupted one would have.
        """
        plan = self.plan
        if plan.time_budget is None:
            return Allocation(dict.fromkeys(self.levels, 0))
        path = self.store.folder / PLAN
        key = [self.levels, plan.time_budget, plan.seeds, plan.learning_curve, plan.presets, plan.settings, plan.seed]
        key = json.loads(json.dumps(key))
        with suppress(OSError, ValueError, KeyError, TypeError):
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["key"] == key:
                estimates = {name: FitEstimate(**one) for name, one in stored["estimates"].items()}
                return Allocation(stored["rows"], estimates, stored["left_out"])
        allocation = self._budgeted(plan.time_budget)
        write_text(path, json.dumps({"key": key, **asdict(allocation)}, ensure_ascii=False))
        return allocation

    def _budgeted(self, budget: float) -> Allocation:
        """Probe every level, then give each, from the lowest, as many rows as the remaining time allows."""
        allocation = Allocation()
        for name in self.levels:
            self.monitor.begin(name)
            try:
                probe = self.store.run(self.plan.job("probe", name, self.shared_rows))
                allocation.estimates[name] = FitEstimate(**probe)
            except TextladderError as error:
                allocation.left_out[name] = str(error)
                self.monitor.say(f"{name} is left out. {error}")
        remaining = budget - sum(one.probe_seconds for one in allocation.estimates.values())
        fits = self._fits(self.plan.seeds or 1)
        for name, estimate in allocation.estimates.items():
            count = self._affordable(name, estimate, max(0.0, remaining / fits), allocation)
            if count is not None:
                allocation.rows[name] = count
                remaining -= fits * estimate.seconds(count or len(self.plan.data.train))
        return allocation

    def _affordable(self, name: str, estimate: FitEstimate, seconds: float, allocation: Allocation) -> int | None:
        """How many rows can be fitted in a given time, reported to the user: 0 for all, None for too few."""
        total = len(self.plan.data.train)
        takes = f"a fit on all {counted(total, 'row')} takes about {seconds_words(estimate.fit_seconds)}"
        rows = estimate.affordable_rows(seconds, total)
        if rows == 0:
            self.monitor.say(f"{name}: {takes}.")
            return 0
        takes = f"{takes}, and the time budget leaves {seconds_words(seconds)} for each fit"
        if rows is None:
            allocation.left_out[name] = f"{takes[0].upper()}{takes[1:]}."
            self.monitor.say(f"{name} is left out: {takes}.")
            return None
        self.monitor.say(f"{name} is trained on {counted(rows, 'row')}: {takes}.")
        return rows
