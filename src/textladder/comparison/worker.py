"""One training or one measurement in a process of its own, so that its time and its memory are its own.

    python -m textladder.comparison.worker [LIBRARY...]     (started by trainings.py)

Takes a job as one line of JSON on standard input, and answers in lines of JSON on standard output: what a `Monitor` is
told, and last the result or the user's mistake. When standard input ends, the starter is gone, and so is this process.
Nothing is imported before the job is known but the libraries that are named.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.errors import TextladderError, import_extra
from textladder.progress import Monitor

if TYPE_CHECKING:
    import numpy as np

    from textladder.data.labelled_texts import LabelledTexts, TextData

WARM_UP_TEXTS, SINGLE_TEXTS = 16, 256
BATCH_ROWS, BATCH_SECONDS = 2_000, 20.0
PROBE_ROWS, PROBE_SECONDS = 128, 8.0
CHECKED_ROWS = 64
NO_MEMORY = ("out of memory", "can't allocate memory", "bad allocation")  # what it is to torch, in a RuntimeError
PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    Attributes:
        kind: `check`, `fit`, `measure` or `probe`.
        rows: the folder of `write_shared_rows`.
        folder: where bundle and predictions are, or are to be.
        level: the level's name.
        preset: of the level.
        settings: of the level, where they are not the preset's.
        seed: of the training.
        train_rows: how many of the training rows are taken; 0 for all.
    """

    kind: str
    rows: str
    folder: str
    level: str
    preset: str
    settings: dict[str, Any]
    seed: int
    train_rows: int = 0


class _Telling(Monitor):
    """Tells the starter, not more often than a person can see."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self.send, self._last = send, 0.0

    def say(self, sentence: str) -> None:
        self.send({"say": [sentence]})

    def start(self, name: str, steps: int | None) -> None:
        self.send({"start": [name, steps]})

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last > 0.1:
            self._last = now
            self.send({"advance": [done, note]})

    def look(self, accuracy: float) -> None:
        self.send({"look": [accuracy]})

    def stop(self) -> None:
        self.send({"stop": []})


def main() -> None:
    """Take a job, do it, tell the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter is interrupted too, and ends this process
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def send(message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            lines.write(json.dumps(message) + "\n")
            lines.flush()

    for library in sys.argv[1:]:
        with contextlib.suppress(TextladderError):  # what is missing, the job will say
            import_extra(library, "train")
    if sys.argv[1:]:
        send({"imported": sys.argv[1:]})
    line = sys.stdin.readline()
    if not line:
        return
    job = Job(**json.loads(line))
    threading.Thread(target=_leave_with_the_starter, daemon=True).start()
    try:
        work = {"check": _check, "fit": _fit, "measure": _measure, "probe": _probe}[job.kind]
        send({"result": work(job, _Telling(send))})
    except TextladderError as error:
        send({"mistake": str(error)})
    except OSError as error:
        send({"mistake": f"It could not be written or read ({error})."})
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in NO_MEMORY):
            raise
        send({"mistake": "There is not enough memory for it."})


def _leave_with_the_starter() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _data(job: Job) -> "TextData":
    from textladder.comparison.shared_rows import fewer_rows, read_shared_rows

    data = read_shared_rows(Path(job.rows))
    return fewer_rows(data, job.train_rows, job.seed) if 0 < job.train_rows < len(data.train) else data


def _check(job: Job, monitor: Monitor) -> dict[str, Any]:
    """See that all is at hand that a neural level begins from: a fit up to the training, on a few rows."""
    from textladder.classifier import TextClassifier
    from textladder.comparison.shared_rows import fewer_rows

    data = _data(job)
    monitor.start(f"looking whether {job.level} has all it needs", None)
    if len(data.train) > CHECKED_ROWS:
        data = fewer_rows(data, CHECKED_ROWS, job.seed)
    TextClassifier(job.level, preset=job.preset, seed=job.seed, **job.settings).prepare(data)
    return {}


def _fit(job: Job, monitor: Monitor) -> dict[str, Any]:
    """Train, write the bundle and the predictions of validation and test rows; what `train --json` says of it."""
    from textladder.classifier import TextClassifier

    data = _data(job)
    classifier = TextClassifier(job.level, preset=job.preset, seed=job.seed, **job.settings)
    classifier.fit(data, monitor=monitor)
    memory = peak_memory_mb()
    monitor.start("predicting the test rows", None)
    cut = classifier.texts_truncated
    found = {"test": classifier.predict_proba(data.test)}
    cut = classifier.texts_truncated - cut
    if data.valid is not None:
        found["valid"] = classifier.predict_proba(data.valid)
    folder = Path(job.folder)
    classifier.save(folder / "bundle")
    parts = {name: getattr(data, name) for name in found}
    write_predictions(folder / PREDICTIONS, parts, found)
    monitor.stop()
    return {
        **classifier.record,
        "peak_memory_mb": memory,
        "test_texts_truncated": cut,
        "test_rows": len(data.test),
        "device": _device(),
    }


def _device() -> str:
    """What a network is trained on, if one was."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else "processor"


def write_predictions(path: Path, parts: dict[str, "LabelledTexts"], found: dict[str, "np.ndarray"]) -> None:
    """Every row's label and its classes' probabilities: part, row, label, predicted, one column for each label."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = next(iter(parts.values())).labels
    columns: dict[str, list[Any]] = {"part": [], "row": [], "label": [], "predicted": []}
    for name, part in parts.items():
        columns["part"] += [name] * len(part)
        columns["row"] += part.table["row"].take(pa.array(part.rows)).to_pylist()
        columns["label"] += [labels[place] for place in part.label_ids]
        columns["predicted"] += [labels[place] for place in found[name].argmax(axis=1)]
    probabilities = np.concatenate(list(found.values()))
    numbers = {f"probability of {label}": probabilities[:, place] for place, label in enumerate(labels)}
    pq.write_table(pa.table({**columns, **numbers}), path)


def _measure(job: Job, monitor: Monitor) -> dict[str, Any]:
    """How quick the saved bundle is: texts one by one, then many at once."""
    import numpy as np

    from textladder.classifier import TextClassifier

    data = _data(job)
    begun = time.perf_counter()
    classifier = TextClassifier.load(Path(job.folder) / "bundle")
    loading = time.perf_counter() - begun
    texts = next(data.test.batches(BATCH_ROWS))
    monitor.start("measuring one text at a time", SINGLE_TEXTS)
    for place in range(WARM_UP_TEXTS):
        classifier.predict_proba([texts[place % len(texts)]])
    seconds = []
    for place, text in enumerate(texts[:SINGLE_TEXTS]):
        begun = time.perf_counter()
        classifier.predict_proba([text])
        seconds.append(time.perf_counter() - begun)
        monitor.advance(place)
    middle, late = np.percentile(seconds, [50, 95])
    many = texts[: min(len(texts), max(SINGLE_TEXTS, int(BATCH_SECONDS / middle)))]
    monitor.start("measuring many at once", None)
    begun = time.perf_counter()
    classifier.predict_proba(many)
    rate = len(many) / (time.perf_counter() - begun)
    monitor.stop()
    return {
        "load_seconds": loading,
        "predict_ms_p50": 1000 * float(middle),
        "predict_ms_p95": 1000 * float(late),
        "rows_per_second": rate,
        "predict_memory_mb": peak_memory_mb(),
    }


def _probe(job: Job, monitor: Monitor) -> dict[str, Any]:
    """How long a fit on all rows will take, from fits on a few, twice as many, and so on.

    The few are trained with the whole's schedule, so that time is what it costs to begin and a part for each row. The
    first fit of all pays for what libraries do once.
    """
    from textladder.classifier import TextClassifier
    from textladder.comparison.shared_rows import fewer_rows
    from textladder.levels import find_level
    from textladder.levels.base import make_config

    data = _data(job)
    level, everything = find_level(job.level), len(data.train)

    def seconds(rows: int) -> float:
        sample = fewer_rows(data, rows, job.seed) if rows < everything else data
        config = make_config(level, job.preset, job.settings)
        resolved = level(config, len(data.labels)).resolved(everything, rows / everything)
        classifier = TextClassifier(job.level, preset=job.preset, seed=job.seed, **asdict(resolved))
        found: float = classifier.fit(sample).record["fit_seconds"]
        return found

    begun = time.perf_counter()
    rows = min(PROBE_ROWS, everything)
    monitor.start("probing how long a fit takes", None)
    first = seconds(rows)
    times = {rows: seconds(rows)}
    while rows < everything and (len(times) < 2 or times[rows] < PROBE_SECONDS):
        rows = min(2 * rows, everything)
        times[rows] = seconds(rows)
    monitor.stop()
    once = max(0.0, first - times[min(times)])
    (few, quick), (many, slow) = (list(times.items()) * 2)[-2:]
    a_row = max(0.0, slow - quick) / (many - few) if many > few else 0.0
    beginning = max(0.0, once + slow - a_row * many)
    return {
        "beginning_seconds": beginning,
        "row_seconds": a_row,
        "fit_seconds": beginning + a_row * everything,
        "probe_seconds": time.perf_counter() - begun,
    }


def peak_memory_mb() -> float:
    """The most memory that this process ever held, in megabytes."""
    with contextlib.suppress(OSError):  # Linux; the figure of getrusage counts the starter's too
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


if __name__ == "__main__":
    main()
