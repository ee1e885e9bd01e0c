"""One training run or measurement in its own process, so that its time and memory are its own.

    python -m textladder.comparison.worker [LIBRARY...]     (started by worker_process.py)

Reads a job as one line of JSON from standard input and answers in lines of JSON on standard output: monitor events, and
last the result or the user's error. Exits when standard input closes, because its parent is then gone. Before the job
is known it imports nothing but the named libraries.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.comparison.hardware import peak_memory_mb
from textladder.errors import TextladderError, import_extra
from textladder.progress import Monitor

if TYPE_CHECKING:
    from textladder.classifier import TextClassifier
    from textladder.data.labelled_texts import LabelledTexts, TextData

WARM_UP_TEXTS, SINGLE_TEXTS = 16, 256
BATCH_ROWS, BATCH_SECONDS = 2_000, 20.0
BATCH_WARM_UP, BATCH_ROUNDS, ROUNDS_SECONDS = 64, 3, 3.0
LENGTH_GROUPS, LEAST_IN_GROUP = 4, 10  # groups of texts by length, and texts in each
# The rows that an exported form is compared with the original on. int8 may lose half a point of accuracy, which is one
# row of 200: with fewer validation rows, a single one would refuse it, so training rows are added.
LEAST_GATE_ROWS, MOST_GATE_ROWS = 200, 2_000
PROBE_ROWS, PROBE_SECONDS = 128, 8.0
CHECKED_ROWS = 64
EVENT_SECONDS = 0.1  # progress is reported no more often than the eye can follow
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "bad allocation")  # in the RuntimeErrors of torch


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        kind: `check`, `fit`, `export`, `measure` or `probe`.
        shared_rows: the folder written by `write_shared_rows`.
        folder: where the bundle and the predictions are written or, for `export` and `measure`, the bundle is.
        level: the level's name.
        preset: the level's preset.
        settings: the level's settings that differ from the preset.
        seed: of the training.
        train_rows: number of training rows to use; 0 for all.
        fold: the fold whose rows are the test rows; None without folds, and for the classifier that is trained on all.
        predict_test: whether the test rows are predicted; not if the classifier is trained on them.
        form: the form of the bundle to measure.
        checkpoint: where the training keeps its state; empty for nowhere.
    """

    kind: str
    shared_rows: str
    folder: str
    level: str
    preset: str
    settings: dict[str, Any]
    seed: int
    train_rows: int = 0
    fold: int | None = None
    predict_test: bool = True
    form: str = "original"
    checkpoint: str = ""


class _SendingMonitor(Monitor):
    """Sends its events to the parent process."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self.send, self._last = send, 0.0

    def say(self, sentence: str) -> None:
        self.send({"say": [sentence]})

    def start(self, name: str, steps: int | None) -> None:
        self.send({"start": [name, steps]})

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last > EVENT_SECONDS:
            self._last = now
            self.send({"advance": [done, note]})

    def validated(self, accuracy: float) -> None:
        self.send({"validated": [accuracy]})

    def stop(self) -> None:
        self.send({"stop": []})


def main() -> None:
    """Read a job, run it, send the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends this process
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps what libraries print out of the answers

    def send(message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    for library in sys.argv[1:]:
        with contextlib.suppress(TextladderError):  # the job will report a missing library
            import_extra(library, "train")
    if sys.argv[1:]:
        send({"imported": sys.argv[1:]})
    line = sys.stdin.readline()
    if not line:
        return
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _run(Job(**json.loads(line)), send)


def _run(job: Job, send: Callable[[dict[str, Any]], None]) -> None:
    """Run the job and send its result or the user's error; a bug keeps its traceback."""
    try:
        run = {"check": _check, "fit": _fit, "export": _export, "measure": _measure, "probe": _probe}[job.kind]
        send({"result": run(job, _SendingMonitor(send))})
    except TextladderError as error:
        send({"error": str(error)})
    except OSError as error:
        send({"error": f"A file could not be read or written ({error})."})
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in OUT_OF_MEMORY):
            raise
        send({"error": "The process ran out of memory."})


def _exit_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _data(job: Job) -> "TextData":
    from textladder.comparison.shared_rows import fewer_rows, read_shared_rows

    data = read_shared_rows(Path(job.shared_rows))
    return fewer_rows(data, job.train_rows, job.seed) if 0 < job.train_rows < len(data.train) else data


def _check(job: Job, monitor: Monitor) -> dict[str, Any]:
    """Prepare a neural level on a few rows, which shows whether everything it needs is available."""
    from textladder.classifier import TextClassifier
    from textladder.comparison.shared_rows import fewer_rows

    data = _data(job)
    monitor.start(f"checking that {job.level} can be trained", None)
    if len(data.train) > CHECKED_ROWS:
        data = fewer_rows(data, CHECKED_ROWS, job.seed)
    TextClassifier(job.level, preset=job.preset, seed=job.seed, **job.settings).prepare(data)
    return {}


def _fit(job: Job, monitor: Monitor) -> dict[str, Any]:
    """Train; write the bundle and the predictions of validation and test rows; the result extends `train --json`."""
    from textladder.classifier import TextClassifier

    data = _data(job)
    classifier = TextClassifier(job.level, preset=job.preset, seed=job.seed, **job.settings)
    classifier.fit(data, monitor=monitor, checkpoint=job.checkpoint or None)
    memory = peak_memory_mb()
    classifier.save(Path(job.folder) / "bundle")
    truncated = _write_predictions(job, data, classifier, monitor)
    monitor.stop()
    return {
        **classifier.record,
        "peak_memory_mb": memory,
        "test_texts_truncated": truncated,
        "test_rows": len(data.test),
        "device": _device(),
    }


def _write_predictions(job: Job, data: "TextData", classifier: "TextClassifier", monitor: Monitor) -> int:
    """Predict the test rows, if the job says so, and the validation rows; the number of truncated test texts."""
    from textladder.comparison.predictions import PartPredictions, predictions_file, write_predictions
    from textladder.comparison.shared_rows import source_rows

    predictions, truncated = {}, 0
    if job.predict_test:
        monitor.start("predicting the test rows", None)
        scored = classifier.score(data.test)
        predictions["test"] = PartPredictions(data.test, source_rows(data.test), scored.probabilities)
        truncated = scored.truncated
    if data.valid is not None:
        valid = PartPredictions(data.valid, source_rows(data.valid), classifier.predict_proba(data.valid))
        predictions["valid"] = valid
    if predictions:
        write_predictions(Path(job.folder) / predictions_file(classifier.form), predictions)
    return truncated


def _device() -> str:
    """What neural networks are trained on in this process: the name of the GPU, or CPU."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else "CPU"


def _export(job: Job, monitor: Monitor) -> dict[str, Any]:
    """Measure the original form, then add an exported one to the saved bundle, if one passes.

    Both in one process, because importing torch takes longer than many an export.

    Returns:
        The figures of the original form, the name of the form that predicts fastest, and why another one is not used.
    """
    from textladder.classifier import ORIGINAL, TextClassifier
    from textladder.export import export_smallest

    figures = _measure(job, monitor)
    bundle = Path(job.folder) / "bundle"
    exported, refusal = export_smallest(bundle, _gate_rows(_data(job)), monitor=monitor)
    form = TextClassifier.load(bundle).form  # what `predict` and `serve` choose, too
    if exported is not None and form == ORIGINAL:
        slow = f"{exported.milliseconds:.3g} ms per text instead of {exported.original_milliseconds:.3g} ms"
        refusal = f"{exported.form} is no faster than the original ({slow})."
    return {"figures": figures, "fastest": form, "refusal": refusal or None}


def _gate_rows(data: "TextData") -> "LabelledTexts":
    """The rows that exported forms are compared with the original on, which are never test rows."""
    import numpy as np

    rows = np.zeros(0, np.int64) if data.valid is None else data.valid.rows[:MOST_GATE_ROWS]
    added = data.train.rows[: max(0, LEAST_GATE_ROWS - len(rows))]
    return replace(data.train, rows=np.concatenate([rows, added]))  # both parts are of the same table


def _measure(job: Job, monitor: Monitor) -> dict[str, Any]:
    """Measure how fast a form of the saved bundle predicts: texts one by one, then many at once.

    An exported form also predicts the test and validation rows; the original did when it was trained.
    """
    import numpy as np

    from textladder.bundle import read_bundle
    from textladder.classifier import ORIGINAL, TextClassifier
    from textladder.export import bundle_megabytes

    data = _data(job)
    bundle = Path(job.folder) / "bundle"
    started = time.perf_counter()
    classifier = TextClassifier.load(bundle, form=job.form)
    load_seconds = time.perf_counter() - started
    texts = next(data.test.batches(BATCH_ROWS))
    monitor.start("measuring the latency of one text", SINGLE_TEXTS)
    for place in range(WARM_UP_TEXTS):
        classifier.predict_proba([texts[place % len(texts)]])
    seconds = []
    for place, text in enumerate(texts[:SINGLE_TEXTS]):
        started = time.perf_counter()
        classifier.predict_proba([text])
        seconds.append(time.perf_counter() - started)
        monitor.advance(place)
    p50 = float(np.median(seconds))
    many = texts[: min(len(texts), max(SINGLE_TEXTS, int(BATCH_SECONDS / p50)))]
    monitor.start("measuring the throughput", None)
    classifier.predict_proba(many[:BATCH_WARM_UP])  # what starts with the first batches, such as threads
    rounds: list[float] = []
    while not rounds or (len(rounds) < BATCH_ROUNDS and sum(rounds) < ROUNDS_SECONDS):
        started = time.perf_counter()
        classifier.predict_proba(many)
        rounds.append(time.perf_counter() - started)
    found = {
        "load_seconds": load_seconds,
        **_latencies(seconds),
        "rows_per_second": len(many) / float(np.median(rounds)),
        "predict_memory_mb": peak_memory_mb(),
        "bundle_mb": bundle_megabytes(read_bundle(bundle), job.form),
        "by_length": _by_length([len(text) for text in texts[:SINGLE_TEXTS]], seconds),
    }
    if job.form != ORIGINAL:
        _write_predictions(job, data, classifier, monitor)
    monitor.stop()
    return found


def _latencies(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile, in milliseconds."""
    import numpy as np

    p50, p95 = (1000 * np.percentile(seconds, [50, 95])).tolist()
    return {"predict_ms_p50": p50, "predict_ms_p95": p95}


def _by_length(characters: Sequence[int], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Latencies of texts of about the same length, from the shortest; groups of the same size where lengths differ.

    Args:
        characters: the length of each text.
        seconds: its latency.
    """
    import numpy as np

    number = max(1, min(LENGTH_GROUPS, len(seconds) // LEAST_IN_GROUP))
    limits = np.quantile(characters, np.arange(1, number) / number)
    groups = np.searchsorted(limits, characters)
    found = []
    for group in np.unique(groups):
        lengths, times = np.array(characters)[groups == group], np.array(seconds)[groups == group]
        ends = [int(lengths.min()), int(lengths.max())]
        found.append({"characters": ends, "rows": len(times), **_latencies(times.tolist())})
    return found


def _probe(job: Job, monitor: Monitor) -> dict[str, Any]:
    """Estimate how long a fit on all rows takes, from fits on a few rows, twice as many, and so on.

    The samples are trained with the schedule of the whole, so that the duration is a fixed part plus a part per row.
    """
    from textladder.classifier import TextClassifier
    from textladder.comparison.budget import fit_estimate
    from textladder.comparison.shared_rows import fewer_rows
    from textladder.levels import find_level
    from textladder.levels.base import make_config

    data = _data(job)
    level, total = find_level(job.level), len(data.train)

    def fit_seconds(rows: int) -> float:
        sample = fewer_rows(data, rows, job.seed) if rows < total else data
        config = make_config(level, job.preset, job.settings)
        resolved = level(config, len(data.labels)).resolved(total)
        classifier = TextClassifier(job.level, preset=job.preset, seed=job.seed, **asdict(resolved))
        seconds: float = classifier.fit(sample).record["fit_seconds"]
        return seconds

    started = time.perf_counter()
    rows = min(PROBE_ROWS, total)
    monitor.start("estimating how long a fit takes", None)
    first_fit = fit_seconds(rows)
    seconds = {rows: fit_seconds(rows)}
    while rows < total and (len(seconds) < 2 or seconds[rows] < PROBE_SECONDS):
        rows = min(2 * rows, total)
        seconds[rows] = fit_seconds(rows)
    monitor.stop()
    return asdict(fit_estimate(seconds, first_fit, total, time.perf_counter() - started))


if __name__ == "__main__":
    main()
