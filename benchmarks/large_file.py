"""How much memory and time does a large file take?

    python benchmarks/large_file.py [--rows N]

A CSV file of 4 million rows is generated in the temporary folder (2.6 GB; the texts are copied there once more): an id,
a label and a text of 100 words that no other text repeats. On it run `audit`, `train --level tfidf --rows 20000` and
`evaluate` of the result on 100,000 further rows, each in a process of its own. Peak memory is the largest resident set
of the process, with the pages of mapped files.

A pass is `LabelledTexts.batches()` over all rows; its seconds per row are compared with those of a file of 40,000 rows,
medians of three passes.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from textladder import read_texts

SMALL, EVALUATED = 40_000, 100_000
WORDS_PER_TEXT = 100
TELLING = {"neg": ("broken", "never", "refund", "noisy"), "pos": ("lovely", "quiet", "again", "sturdy")}


def write_rows(path: Path, rows: int, seed: int) -> Path:
    chosen = random.Random(seed)
    letters = "abcdefghijklmnoprstuvw"
    words = ["".join(chosen.choices(letters, k=chosen.randint(2, 10))) for _ in range(20_000)]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("id,label,text\n")
        for number in range(rows):
            label = "neg" if number % 2 else "pos"
            text = [*chosen.choices(words, k=WORDS_PER_TEXT), chosen.choice(TELLING[label])]
            file.write(f'{number},{label},"{" ".join(text[:50])}, {" ".join(text[50:])}"\n')
    return path


def run(words: list[str]) -> None:
    """Run a command of textladder, and print its time and its peak memory."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "textladder", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begun
    peak = usage.ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1024
    failed = "" if status == 0 else f"  failed with {os.waitstatus_to_exitcode(status)}"
    print(f"{' '.join(words[:1]):<10} {seconds:7.0f} s   peak {peak:5.2f} GiB{failed}", flush=True)


def seconds_per_row(path: Path) -> float:
    train = read_texts(path, valid=0).train
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in train.batches():
            pass
        times.append((time.perf_counter() - begun) / len(train))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    rows: int = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        large, bundle = write_rows(Path(folder) / "large.csv", rows, seed=0), Path(folder) / "bundle"
        small = write_rows(Path(folder) / "small.csv", SMALL, seed=1)
        further = write_rows(Path(folder) / "further.csv", EVALUATED, seed=2)
        print(f"{rows:,} rows, {large.stat().st_size / 1e9:.2f} GB")
        run(["audit", str(large)])
        run(["train", str(large), "--level", "tfidf", "--rows", "20000", "--out", str(bundle)])
        run(["evaluate", str(bundle), str(further)])
        few, many = seconds_per_row(small), seconds_per_row(large)
        print(f"a pass: {1e6 * few:.2f} µs a row of {SMALL:,}, {1e6 * many:.2f} of {rows:,} ({many / few:.2f} times)")


if __name__ == "__main__":
    main()
