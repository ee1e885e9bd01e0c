"""How much time and memory does a row take, in a file of ten thousand rows and in one of millions?

    python benchmarks/large_file.py RESULTS.jsonl [--rows 10000 ...] [--steps audit tfidf ...] [--plot FILE]

The rows of the Amazon reviews are repeated until there are enough, each time with another word at the end. On that file
run `audit`, `train --level tfidf`, `predict --input` with the result, and the beginning of an epoch of `lstm`, with
texts of all lengths; each in a process of its own. Peak memory is the largest resident set of the process, with the
pages of mapped files. Every result is appended to RESULTS.jsonl, and those that are there are not repeated. The
temporary folder must hold the file three times.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[2] / "shared" / "data"
SOURCE = SHARED / "amazon_polarity" / "train.csv"
GLOVE = SHARED / "glove" / "glove.6B.100d.subset.txt.gz"
SIZES, STEPS = (10_000, 100_000, 1_000_000, 3_600_000), ("audit", "tfidf", "predict", "lstm")
LSTM_SECONDS = 60.0  # of training


def repeated(rows: Path, number: int) -> Iterator[list[str]]:
    with rows.open(encoding="utf-8", newline="") as stream:
        known = list(csv.reader(stream))
    for place in range(number):
        row = known[place % len(known)]
        yield [*row[:-1], f"{row[-1]} marker{place // len(known)}"]


def run(words: list[str]) -> dict[str, Any]:
    """Run a Python program: its time, its peak memory, and what it printed."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed with {os.waitstatus_to_exitcode(status)}")
    peak = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1) / 2**20
    return {"seconds": time.perf_counter() - begun, "peak_gib": peak, "printed": printed}


def train_lstm(path: Path) -> None:
    """Print how many rows a second are trained on, after a tenth of the time."""
    from textladder import TextClassifier, read_texts
    from textladder.progress import Monitor

    class Watch(Monitor):
        """Ends the training once it has been watched long enough."""

        times: list[tuple[float, int]]

        def start(self, name: str, steps: int | None) -> None:
            self.times = []

        def advance(self, done: int, note: str = "") -> None:
            self.times.append((time.perf_counter(), done))
            if self.times[-1][0] - self.times[0][0] > LSTM_SECONDS and len(self.times) > 100:
                raise KeyboardInterrupt

    watch, data = Watch(), read_texts(path)
    classifier = TextClassifier("lstm", epochs=4, shortest_first=False, adversarial_norm=0.0, vectors=str(GLOVE))
    with suppress(KeyboardInterrupt):
        classifier.fit(data, monitor=watch)
    first = len(watch.times) // 10
    (begun, before), (ended, done) = watch.times[first], watch.times[-1]
    print(json.dumps({"step_seconds": (ended - begun) / (done - before), "steps": done - before}))


def measure(step: str, path: Path, bundle: Path) -> dict[str, Any]:
    module = ["-m", "textladder"]
    if step == "audit":
        return run([*module, "audit", str(path), "--levels", "tfidf"])
    if step == "tfidf":
        return run([*module, "train", str(path), "--level", "tfidf", "--out", str(bundle), "--overwrite"])
    if step == "predict":
        if not bundle.exists():
            measure("tfidf", path, bundle)
        out = path.with_name("out.csv")
        found = run([*module, "predict", str(bundle), "--input", str(path), "--output", str(out)])
        out.unlink()
        return found
    return run([__file__, "--lstm", str(path)])


def draw(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for step in STEPS:
        own = sorted((one for one in results if one["step"] == step), key=lambda one: one["rows"])
        rows = [one["rows"] for one in own]
        left.plot(rows, [1e6 * one["seconds_per_row"] for one in own], marker="o", label=step)
        right.plot(rows, [one["peak_gib"] for one in own], marker="o", label=step)
    for axes, title in ((left, "microseconds a row"), (right, "peak memory, GiB")):
        axes.set(xscale="log", xlabel="rows", title=title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.set(yscale="log", ylim=(10, 10_000))
    right.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    if sys.argv[1:2] == ["--lstm"]:
        train_lstm(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--rows", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    lines = options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else []
    results = [json.loads(line) for line in lines]
    for rows in options.rows:
        left = [
            step for step in options.steps if not any((one["rows"], one["step"]) == (rows, step) for one in results)
        ]
        if not left:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.csv"
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(repeated(SOURCE, rows))
            for step in left:
                found = measure(step, path, Path(folder) / "bundle")
                printed = found.pop("printed")
                per_row = json.loads(printed)["step_seconds"] / 64 if step == "lstm" else found["seconds"] / rows
                results.append({"rows": rows, "step": step, "seconds_per_row": per_row, **found})
                with options.results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(results[-1]) + "\n")
    print("| rows |", " | ".join(f"{step}, µs a row, GiB" for step in STEPS), "|\n|---|" + "---|" * len(STEPS))
    for rows in sorted({one["rows"] for one in results}):
        cells = {
            one["step"]: f"{1e6 * one['seconds_per_row']:.0f}, {one['peak_gib']:.2f}"
            for one in results
            if one["rows"] == rows
        }
        print(f"| {rows:,} |", " | ".join(cells.get(step, "") for step in STEPS), "|")
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
