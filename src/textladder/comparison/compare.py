"""`compare`: train several levels on the same rows, each in its own process, and recommend one.

    rows -> audit -> shared rows -> (probes) -> training runs, level by level, seed by seed -> (learning curves)
    -> results

Every finished training run is kept in the folder, so that an interrupted comparison resumes where it stopped.
"""

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from textladder.atomic_files import write_text
from textladder.audit import Audit, audit_texts, drop_leaks
from textladder.comparison.folds import Folds, fold_folder
from textladder.comparison.forms import DEPLOYABLE, Measuring
from textladder.comparison.hardware import hardware
from textladder.comparison.label_errors import LabelError, find_label_errors
from textladder.comparison.plan import Plan
from textladder.comparison.results import Comparison, RunInfo
from textladder.comparison.run import Run
from textladder.comparison.run_folder import REPORTS, RESULTS, check_folder, delete_results, locked_folder
from textladder.comparison.shared_rows import write_shared_rows
from textladder.comparison.trainings import TrainingStore
from textladder.comparison.verdict import Terms
from textladder.comparison.worker_process import WarmWorker
from textladder.data.labelled_texts import TextData
from textladder.errors import ConfigError, TextladderError, unknown_name
from textladder.progress import Monitor
from textladder.versions import versions
from textladder.wording import counted

FIXES = ("drop-leaks",)


def compare(
    data: TextData,
    levels: Sequence[str] | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    terms: Terms | None = None,
    seeds: int | None = None,
    folds: int | None = None,
    seed: int = 0,
    learning_curve: bool = False,
    time_budget: float | None = None,
    metric: str | None = None,
    forms: str = DEPLOYABLE,
    threads: int | None = None,
    price_per_hour: float | None = None,
    fix: str | None = None,
    out: str | Path | None = None,
    texts: bool = True,
    overwrite: bool = False,
    command: str | None = None,
    monitor: Monitor | None = None,
) -> Comparison:
    """Train levels on the same rows and recommend one.

    Args:
        data: the rows; the test rows are predicted once per training run, after it.
        levels: names of levels; by default every level that can be trained here.
        settings: settings of a level, by its name; `preset` among them.
        terms: what the recommended level must meet.
        seeds: number of training runs per level; by default three if a fit takes under two minutes, otherwise one; with
            folds one for each.
        folds: number of folds: every row is a test row once, predicted by a classifier that was trained on the other
            folds, and the finished classifier is trained on all rows. 1 for one split, as the rows were read. By
            default 5 if there are fewer than 3,000 rows and neither test rows of their own nor `seeds`, `time_budget`
            or `fix`; else 1.
        seed: the first seed.
        learning_curve: also train on an eighth, a quarter and a half of the rows.
        time_budget: seconds for all fits; a level that would exceed it is trained on fewer rows or left out.
        metric: what training, gains and the verdict go by: `accuracy`, `macro-f1`, `weighted-f1`, `balanced-accuracy`,
            `mcc`, `log-loss`, `f1:LABEL`, `average-precision:LABEL`, `recall-at-precision:LABEL=0.9`, or `costs:FILE`
            for what each mistake costs, see `target_metric.read_costs`. By default accuracy, and training goes by the
            mean of accuracy and macro F1.
        forms: `deployable` exports each trained level and judges it by the fastest form that passed the gate;
            `original` judges it as it was trained.
        threads: number of threads for the predictions that are measured; by default as many as there are cores.
        price_per_hour: what an hour of this machine costs, in any currency, for the price of a million texts and of a
            training run.
        fix: `drop-leaks` removes training and validation rows that are also test rows.
        out: folder for bundles, predictions, `results.json`, `report.html` and `report.md`; an interrupted comparison
            resumes there. By default a temporary folder, which is deleted together with the result.
        texts: whether the report shows some of the texts.
        overwrite: start over if the folder holds an earlier comparison.
        command: the command that repeats the comparison, for the report.
        monitor: receives progress.

    Returns:
        The results, the verdict and the report.

    Raises:
        ConfigError: an unknown level, setting or metric, `out` holds something else, or the rows cannot be divided
            into folds.
        TextladderError: a requested level cannot be trained here, or the folder cannot be written to.
    """
    if fix is not None and fix not in FIXES:
        raise ConfigError(unknown_name("fix", fix, FIXES))
    if fix is not None:
        if folds is not None and folds > 1:
            raise ConfigError(
                "With folds there are no leaks to drop: texts that repeat one another are in the same fold."
            )
        folds = 1
    measuring = Measuring(forms, threads, price_per_hour)
    plan = Plan(data, levels, settings or {}, seeds, folds, seed, learning_curve, time_budget, metric)
    request = _Request(plan, measuring, terms or Terms(), fix, command, monitor or Monitor())
    if out is None:
        folder = Path(tempfile.mkdtemp(prefix="textladder-"))
        try:
            found = _compare(request, folder, report=None, overwrite=False)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
        return found
    check_folder(Path(out))
    found = _compare(request, Path(out), report=f"{out}/{REPORTS[0]}", overwrite=overwrite)
    write_text(found.folder / RESULTS, json.dumps(found.as_dict(), ensure_ascii=False, indent=1))
    for name in REPORTS:
        found.report(found.folder / name, texts=texts)
    return found


@dataclass(frozen=True)
class _Request:
    """What the caller of `compare` asked for."""

    plan: Plan
    measuring: Measuring
    terms: Terms
    fix: str | None
    command: str | None
    monitor: Monitor


def _compare(request: _Request, folder: Path, report: str | None, overwrite: bool) -> Comparison:
    """Audit the rows, train the levels and find label errors, in a folder that may hold an interrupted comparison."""
    plan, measuring, monitor = request.plan, request.measuring, request.monitor
    if measuring.forms == DEPLOYABLE and measuring.unavailable is not None:
        monitor.say(f"Levels are not exported, but judged by their original forms. {measuring.unavailable}")
    with WarmWorker(plan.first_neural(folder, overwrite)) as warm_worker:
        folds = _folds(plan, monitor)
        if folds is not None:
            plan.data = folds.part(0)
        audit, row_changes = _audit(request)
        if folds is not None:
            plan.data = folds.finished()
        parts = {name: part for name in ("train", "valid", "test") if (part := getattr(plan.data, name)) is not None}
        digests = {name: part.fingerprint() for name, part in parts.items()}
        machine = hardware()
        conditions = {"rows": digests, "versions": versions(), "processor": machine["processor"]}
        if folds is not None:
            conditions["folds"] = folds.number
        try:
            with locked_folder(folder, digests, overwrite) as shared_rows:
                write_shared_rows(plan.data, shared_rows)
                if folds is not None:
                    for fold in range(folds.number):
                        write_shared_rows(folds.part(fold), Path(fold_folder(str(shared_rows), fold)))
                # found here because the warm worker is still importing its libraries
                label_errors, unavailable = _label_errors(plan.data, plan.seed, monitor)
                store = TrainingStore(folder, conditions, monitor, warm_worker, measuring)
                run = Run(plan, store, str(shared_rows), folds)
                run.check_requested(overwrite)
                if overwrite:  # only after the check, so that a mistake in the request deletes nothing
                    delete_results(folder)
                run.train_all()
        except OSError as error:
            raise TextladderError(
                f"{folder}: the comparison stopped ({error.strerror or error}); finished training runs are kept, "
                "and the same call resumes it."
            ) from None
    info = RunInfo(
        date=date.today().isoformat(),
        command=request.command,
        report=report,
        digests=digests,
        row_changes=row_changes,
        seed=plan.seed,
        folds=1 if folds is None else folds.number,
        time_budget_seconds=plan.time_budget,
        forms=measuring.forms,
        threads=measuring.threads_used,
        price_per_hour=measuring.price_per_hour,
        hardware=machine,
        versions=versions(),
        label_errors_unavailable=unavailable,
    )
    return Comparison(run.results, plan.data, plan.metric, request.terms, run.failed, audit, label_errors, info, folder)


def _folds(plan: Plan, monitor: Monitor) -> Folds | None:
    """The folds of the rows; None for one split."""
    if plan.folds == 1:
        return None
    try:
        folds = Folds(plan.data, plan.folds, plan.seed, monitor)
    except ConfigError as error:
        if plan.requested_folds is not None:
            raise
        monitor.say(f"The rows are split once. {error}")
        return None
    said = f"{folds.number} folds: each level is trained {folds.number} times, and every row tested once"
    if plan.requested_folds is None:
        said += ", because there are few rows (--folds 1 for one split)"
    monitor.say(f"{said}.")
    return folds


def _audit(request: _Request) -> tuple[Audit, list[str]]:
    """Audit the rows of the plan and remove leaking rows from it if asked to; what was found and what was changed."""
    plan, monitor = request.plan, request.monitor
    audit = audit_texts(plan.data, levels=plan.levels, settings=plan.settings, seed=plan.seed, monitor=monitor)
    for finding in audit.findings():
        monitor.say(finding)
    if request.fix != "drop-leaks" or not audit.leaks:
        return audit, []
    kind = "training row" if plan.data.valid is None else "training or validation row"
    plan.data, count = drop_leaks(plan.data, audit), len(audit.leaks)
    change = f"Removed {counted(count, kind)} that leaked into the test rows."
    monitor.say(change)
    return replace(audit, leaks=[], leaking_test_rows=0), [change]


def _label_errors(data: TextData, seed: int, monitor: Monitor) -> tuple[list[LabelError], str | None]:
    """The rows whose label is probably wrong, or why they cannot be found."""
    monitor.begin("labels")
    try:
        return find_label_errors(data, seed=seed, monitor=monitor), None
    except TextladderError as error:
        return [], str(error)
