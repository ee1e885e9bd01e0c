"""`compare`: several levels trained on the same rows, each in processes of its own, and what came of it.

    rows -> audit -> spool -> (probes) -> trainings, level by level and seed by seed -> (learning curves) -> results

Every finished training is kept in the folder at once, so that an interrupted comparison goes on where it was.
"""

import fcntl
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from textladder.atomic_files import write_text
from textladder.audit import audit_texts, drop_leaks
from textladder.bundle import check_output
from textladder.comparison.curve import SHARES, Curve, learning_curve
from textladder.comparison.hardware import hardware
from textladder.comparison.label_errors import find_label_errors
from textladder.comparison.report import write_report
from textladder.comparison.results import Comparison, LevelResult
from textladder.comparison.shared_rows import write_shared_rows
from textladder.comparison.trainings import MEASURED, SHARED_ROWS, Training, TrainingStore, WarmWorker, WorkerError
from textladder.comparison.verdict import Terms
from textladder.comparison.wording import seconds_words
from textladder.comparison.worker import Job
from textladder.data.labelled_texts import TextData
from textladder.errors import ConfigError, TextladderError, unknown_name
from textladder.levels import LEVELS, find_level
from textladder.levels.base import make_config
from textladder.progress import Monitor
from textladder.versions import versions

ABOUT, PLAN, RESULTS, LOCK = "comparison.json", "plan.json", "results.json", ".lock"
KIND = "textladder comparison"
QUICK_SECONDS, QUICK_SEEDS = 120, 3  # a level that is trained in less is trained with so many seeds
LEAST_SHARE, LEAST_ROWS = 0.1, 50  # fewer rows than this are not trained on to keep to a time
FIXES = ("drop-leaks",)
REPORTS = ("report.html", "report.md")


def compare(
    data: TextData,
    levels: Sequence[str] | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    terms: Terms | None = None,
    seeds: int | None = None,
    seed: int = 0,
    learning_curve: bool = False,
    time_budget: float | None = None,
    fix: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
    monitor: Monitor | None = None,
) -> Comparison:
    """Train levels on the same rows and say which is worth it.

    Args:
        data: the rows; the test rows are looked at once for each training.
        levels: names of levels, from the lowest; by default all for which everything is at hand.
        settings: of a level, by its name; `preset` among them.
        terms: what the recommended level must keep to.
        seeds: how often each level is trained; by default three times where a fit takes under two minutes, else once.
        seed: the first of them.
        learning_curve: also train on an eighth, a quarter and a half of the rows.
        time_budget: seconds that the trainings may take in all; what would take longer is trained on fewer rows or left
            out.
        fix: `drop-leaks` takes training rows out that are test rows too.
        out: folder for bundles, predictions, `results.json`, `report.html` and `report.md`; an interrupted comparison
            goes on there. By default a temporary one, which goes with the result.
        overwrite: begin anew where an earlier comparison is.
        command: how a person would do it again, for the report.
        monitor: is told how far it is.

    Raises:
        ConfigError: an unknown level or setting, or `out` holds something else.
        TextladderError: a level that was asked for cannot be trained here.
    """
    plan = _Plan(data, levels, settings or {}, seeds, seed, learning_curve, time_budget)
    if fix is not None and fix not in FIXES:
        raise ConfigError(unknown_name("fix", fix, FIXES))
    monitor, terms = monitor or Monitor(), terms or Terms()
    if out is not None:
        _check_folder(Path(out))
        found = _compared(
            plan, Path(out), terms, fix, overwrite, {"command": command, "report": f"{out}/report.html"}, monitor
        )
        write_text(found.folder / RESULTS, json.dumps(found.as_dict(), ensure_ascii=False, indent=1))
        for name in REPORTS:
            write_report(found, found.folder / name)
        return found
    folder = Path(tempfile.mkdtemp(prefix="textladder-"))
    try:
        found = _compared(plan, folder, terms, fix, False, {"command": command, "report": None}, monitor)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def _compared(
    plan: "_Plan",
    folder: Path,
    terms: Terms,
    fix: str | None,
    overwrite: bool,
    about: Mapping[str, Any],
    monitor: Monitor,
) -> Comparison:
    """Audit, train, and look for wrong labels, in a folder that may hold what an earlier run has done."""
    with WarmWorker(plan.first_to_train(folder, anew=overwrite)) as ahead:
        audit = audit_texts(plan.data, levels=plan.levels, settings=plan.settings, seed=plan.seed, monitor=monitor)
        for finding in audit.findings():
            monitor.say(finding)
        done_to_rows: list[str] = []
        if fix == "drop-leaks" and audit.leaks:
            plan.data, count = drop_leaks(plan.data, audit), len(audit.leaks)
            audit = replace(audit, leaks=[], leaking_test_rows=0)
            done_to_rows.append(f"{count:,} training rows that leak into the test rows were left out.")
            monitor.say(done_to_rows[0])
        data = plan.data
        parts = {name: part for name in ("train", "valid", "test") if (part := getattr(data, name)) is not None}
        digests = {name: part.fingerprint() for name, part in parts.items()}
        machine = hardware()
        same = {"rows": digests, "versions": versions(), "processor": machine["processor"]}
        try:
            with _claimed(folder, digests, overwrite) as spool:
                write_shared_rows(data, spool)
                label_errors = _label_errors(data, plan.seed, monitor)  # while the process ahead imports
                run = _Run(plan, TrainingStore(folder, same, monitor, ahead), str(spool), monitor)
                run.check_named(anew=overwrite)
                if overwrite:  # now that something can come in its place
                    _clear(folder)
                run.go()
        except OSError as error:
            raise TextladderError(
                f"{folder}: the comparison cannot go on ({error.strerror or error}); what was finished is kept."
            ) from None
    about = {
        **about,
        "data": data.description,
        "labels": list(data.labels),
        "label_names": list(data.label_names),
        "digests": digests,
        "done_to_rows": done_to_rows,
        "seed": plan.seed,
        "time_budget_seconds": plan.time_budget,
        "hardware": machine,
        "versions": versions(),
        **label_errors,
    }
    return Comparison(run.results, data, terms, run.failed | run.left_out, audit, about, folder)


@dataclass
class _Plan:
    """Which levels, with which settings and seeds; checked before anything is done."""

    data: TextData
    wanted: Sequence[str] | None
    given: Mapping[str, Mapping[str, Any]]
    seeds: int | None
    seed: int
    curves: bool
    time_budget: float | None
    levels: list[str] = field(init=False)
    settings: dict[str, dict[str, Any]] = field(init=False)
    presets: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        named = list(LEVELS) if self.wanted is None else list(self.wanted)
        for name in (*named, *self.given):
            find_level(name)
        if not named:
            raise ConfigError("Name at least one level to compare.")
        self.levels = [name for name in LEVELS if name in named]
        if strange := [name for name in self.given if name not in self.levels]:
            raise ConfigError(f"There are settings for {strange[0]!r}, which is not among the levels.")
        if self.seeds is not None and self.seeds < 1:
            raise ConfigError(f"The number of seeds must be at least 1; received {self.seeds}.")
        self.presets, self.settings = {}, {}
        for name in self.levels:
            given = self.given.get(name, {})
            settings = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
            self.presets[name] = settings.pop("preset", "default")
            self.settings[name] = settings
            level = find_level(name)
            level(make_config(level, self.presets[name], settings), len(self.data.labels))  # both refuse what cannot be

    def first_to_train(self, folder: Path, anew: bool) -> str | None:
        """The first level that fastai's Learner trains, unless there is something of it already."""
        neural = [name for name in self.levels if hasattr(find_level(name), "prepare")]
        there = not anew and any(next(folder.glob(f"{name}-*"), None) for name in neural[:1])
        return neural[0] if neural and not there else None

    def job(self, kind: str, level: str, spool: str, *, seed: int | None = None, rows: int = 0) -> Job:
        """A job on a level."""
        seed = self.seed if seed is None else seed
        return Job(kind, spool, "", level, self.presets[level], self.settings[level], seed, rows)


class _Run:
    """The trainings of a comparison, one after another."""

    def __init__(self, plan: _Plan, store: TrainingStore, spool: str, monitor: Monitor) -> None:
        self.plan, self.store, self.spool, self.monitor = plan, store, spool, monitor
        self.results: list[LevelResult] = []
        self.failed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def go(self) -> None:
        """Train what is not there yet."""
        rows, predicted = dict.fromkeys(self.plan.levels, 0), dict[str, dict[str, float]]()
        if self.plan.time_budget is not None:
            rows, predicted = self._budgeted(self.plan.time_budget)
        for name in rows:
            trainings = self._train(name, rows[name])
            if not trainings:
                continue
            curve = self._curve(name, trainings[0]) if self.plan.curves else None
            seconds = None
            if name in predicted:
                seconds = _seconds(predicted[name], trainings[0].measured["train_rows"])
            self.results.append(LevelResult(name, trainings, curve, seconds))

    def check_named(self, anew: bool) -> None:
        """See that the levels that the user named can be trained, before the first of them takes its time.

        Of those that nobody named, one that cannot be trained fails in its turn, and the others stay.

        Args:
            anew: what is there already is no sign.
        """
        for name in self.plan.levels if self.plan.wanted is not None else ():
            kept = None if anew else self.store.kept(self.plan.job("fit", name, self.spool))
            if kept is not None or not hasattr(find_level(name), "prepare"):
                continue
            try:
                self.store.work(self.plan.job("check", name, self.spool))
            except TextladderError as error:
                raise TextladderError(f"{name} cannot be trained here. {error}") from None

    def _attempt(self, what: str, job: Job, **options: Any) -> Training | None:
        """A training, or None where it failed, which is said; a bug leaves its traceback in the folder."""
        try:
            return self.store.train(job, **options)
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

    def _budgeted(self, budget: float) -> tuple[dict[str, int], dict[str, dict[str, float]]]:
        """How many rows each level is trained on to keep to a time (0 for all), and what was predicted.

        What was once decided stays, so that an interrupted comparison ends as it would have.
        """
        path = self.store.folder / PLAN
        plan = self.plan
        key = json.loads(
            json.dumps([plan.levels, budget, plan.seeds, plan.curves, plan.presets, plan.settings, plan.seed])
        )
        with suppress(OSError, ValueError, KeyError):
            decided = json.loads(path.read_text(encoding="utf-8"))
            if decided["key"] == key:
                self.left_out |= decided["left_out"]
                return decided["rows"], decided["predicted"]
        predicted = {}
        for name in plan.levels:
            self.monitor.begin(name)
            try:
                predicted[name] = self.store.work(plan.job("probe", name, self.spool))
            except TextladderError as error:
                self.left_out[name] = str(error)
                self.monitor.say(f"{name} is left out. {error}")
        left = budget - sum(one["probe_seconds"] for one in predicted.values())
        rows = {}
        for name, needed in predicted.items():
            fits = (self.plan.seeds or 1) + (sum(SHARES) if self.plan.curves else 0)
            count = self._affordable(name, needed, max(0.0, left / fits))
            if count is not None:
                rows[name] = count
                left -= fits * _seconds(needed, count or len(self.plan.data.train))
        decided = {"key": key, "rows": rows, "predicted": predicted, "left_out": self.left_out}
        write_text(path, json.dumps(decided, ensure_ascii=False))
        return rows, predicted

    def _affordable(self, name: str, needed: Mapping[str, float], left: float) -> int | None:
        """How many rows can be fitted in the time left: 0 for all, None for too few; said."""
        everything = len(self.plan.data.train)
        about = f"a fit on all {everything:,} rows takes about {seconds_words(needed['fit_seconds'])}"
        if needed["fit_seconds"] <= left:
            self.monitor.say(f"{name}: {about}.")
            return 0
        rows = int((left - needed["beginning_seconds"]) / needed["row_seconds"]) if needed["row_seconds"] else 0
        about = f"{about}, and {seconds_words(left)} are left for one"
        if rows < max(LEAST_ROWS, LEAST_SHARE * everything):
            self.left_out[name] = f"{about[0].upper()}{about[1:]}."
            self.monitor.say(f"{name} is left out: {about}.")
            return None
        self.monitor.say(f"{name} is trained on {rows:,} rows: {about}.")
        return rows

    def _train(self, name: str, rows: int) -> list[Training]:
        """The trainings of a level with each seed."""
        trainings: list[Training] = []
        wanted = self.plan.seeds or 1
        while len(trainings) < wanted:
            self.monitor.begin(f"{name}, seed {len(trainings) + 1} of {wanted}" if wanted > 1 else name)
            job = self.plan.job("fit", name, self.spool, seed=self.plan.seed + len(trainings), rows=rows)
            trained = self._attempt(name if not trainings else f"{name}, seed {job.seed}", job, say=not trainings)
            if trained is None:
                break
            trainings.append(trained)
            quick = trainings[0].measured["fit_seconds"] < QUICK_SECONDS
            if self.plan.seeds is None and self.plan.time_budget is None and quick:
                wanted = QUICK_SEEDS
        if not trainings:
            return []
        accuracies = ", ".join(f"{one.right.mean():.3f}" for one in trainings)
        seconds = seconds_words(trainings[0].measured["fit_seconds"])
        self.monitor.say(f"{name}: test accuracy {accuracies}, fitted in {seconds}.")
        return trainings

    def _curve(self, name: str, whole: Training) -> Curve | None:
        """Trainings on a part of the rows, and that on all of them, as a curve; None where one failed."""
        trainings = []
        for count in (round(share * whole.measured["train_rows"]) for share in SHARES):
            self.monitor.begin(f"{name} on {count:,} rows")
            job = self.plan.job("fit", name, self.spool, rows=count)
            trained = self._attempt(f"{name} on {count:,} rows", job, measure=False, say=False)
            if trained is None:
                return None
            trainings.append(trained)
        trainings.append(whole)
        rows = [one.measured["train_rows"] for one in trainings]
        return learning_curve(rows, np.stack([one.right for one in trainings]))


def _seconds(predicted: Mapping[str, float], rows: int) -> float:
    return predicted["beginning_seconds"] + predicted["row_seconds"] * rows


def _label_errors(data: TextData, seed: int, monitor: Monitor) -> dict[str, Any]:
    """The rows whose label looks wrong, or why that is not known."""
    monitor.begin("labels")
    try:
        return {"label_errors": [vars(one) for one in find_label_errors(data, seed=seed, monitor=monitor)]}
    except TextladderError as error:
        return {"label_errors": [], "label_errors_unavailable": str(error)}


def _rows_of(folder: Path) -> dict[str, str] | None:
    """The digests of the rows that a folder is a comparison of; None if it is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["kind"] == KIND:
            rows: dict[str, str] = about["rows"]
            return rows
    return None


def _check_folder(folder: Path) -> None:
    """Refuse a place that is no comparison's, before any work is done."""
    try:
        if not folder.exists() and not folder.is_symlink():
            check_output(folder)
        elif not folder.is_dir() or (any(folder.iterdir()) and _rows_of(folder) is None):
            raise ConfigError(f"{folder} exists and is no comparison; give another place with --out.")
    except OSError as error:
        raise ConfigError(f"{folder}: nothing can be written there ({error.strerror}).") from None


@contextmanager
def _claimed(folder: Path, digests: Mapping[str, str], overwrite: bool) -> Iterator[Path]:
    """Make the folder this comparison's, or see that it is, and keep others out of it; gives the place for the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder}: another comparison is at work there; give another --out.") from None
        there = _rows_of(folder)
        if there is not None and there != digests and not overwrite:
            raise ConfigError(
                f"{folder} holds a comparison on other rows; give another --out, or say --overwrite to begin anew."
            )
        write_text(folder / ABOUT, json.dumps({"kind": KIND, "rows": digests}))
        spool = folder / SHARED_ROWS
        shutil.rmtree(spool, ignore_errors=True)
        try:
            yield spool
        finally:
            shutil.rmtree(spool, ignore_errors=True)
            (folder / LOCK).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Take away what an earlier comparison made, and nothing else."""
    for path in folder.iterdir():
        if (path / MEASURED).is_file():
            shutil.rmtree(path)
        elif path.name in (PLAN, RESULTS, *REPORTS):
            path.unlink()
