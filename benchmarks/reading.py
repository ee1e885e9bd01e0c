"""How are faulty CSV files read, and how fast is a large one, compared with csv, pandas, polars, DuckDB and CleverCSV?

    python benchmarks/reading.py [--rows N]

Faults: the 2,290 files of the Pollock benchmark, each with one fault, and what each file should have been. A file is
read right if header and rows are the same as there, refused if the reader raises an exception, and wrong otherwise; the
header counts only if the reader says that there is one, and blank rows of csv and CleverCSV do not count. In 2,268
files the fault is in one row and cannot always be repaired: to refuse them is no mistake, to read them wrong is. The
other 22, where the whole file is unusual, can be read. Every reader detects what it can; Sniffer and CleverCSV look at
no more than the first 20,000 characters, because CleverCSV is slow. The readers that can skip bad rows do so in the
second table, where a file is right with at most one row missing.

Speed: a generated file of labels and texts of about 500 characters with commas, doubled quotes and some line ends, on
the disk's cache; medians of three rounds in turn. csv gives lists of strings, textladder and DuckDB one Arrow batch
after the other, polars and pyarrow the whole table. The cores that a reader keeps busy are its processor time divided
by its time; DuckDB, polars and pyarrow may use all cores, csv and textladder use one.
"""

import argparse
import csv
import random
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import clevercsv
import duckdb
import pandas as pd
import polars as pl
from pyarrow import csv as arrow_csv

from textladder.data.file_options import DETECTED, FileOptions
from textladder.data.row_files import open_rows

POLLOCK = Path(__file__).parents[2] / "shared" / "data" / "pollock_polluted.tar.xz"
SNIFFED = 20_000  # characters
ROUNDS = 3
WORDS = ("kettle", "lamp", "arrived", "broken", "quiet", "lovely", "weeks", "seller", "box", "music", "pages", "never")

Rows = list[list[str]]


def textladder(path: Path, options: FileOptions = DETECTED) -> Rows:
    source = open_rows(path, options)
    rows = [list(source.names)] if source.header else []  # type: ignore[attr-defined]
    for batch in source.batches():
        rows += as_strings(zip(*(source.column(batch, name) for name in source.names), strict=True))
    return rows


def textladder_skipping(path: Path) -> Rows:
    return textladder(path, FileOptions(bad_rows="skip"))


def of_csv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        try:
            dialect: Any = csv.Sniffer().sniff(file.read(SNIFFED))
        except csv.Error:
            dialect = "excel"
        file.seek(0)
        return [row for row in csv.reader(file, dialect) if row]


def of_clevercsv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        dialect = clevercsv.Sniffer().sniff(file.read(SNIFFED))
        file.seek(0)
        return [row for row in clevercsv.reader(file, dialect or "excel") if row]


def of_pandas(path: Path, **options: Any) -> Rows:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, **options)
    return [list(frame.columns), *frame.to_numpy().tolist()]


def pandas_skipping(path: Path) -> Rows:
    return of_pandas(path, on_bad_lines="skip")


def of_polars(path: Path) -> Rows:
    frame = pl.read_csv(path, infer_schema=False)
    return [frame.columns, *as_strings(frame.rows())]


def of_duckdb(path: Path, options: str = "") -> Rows:
    with duckdb.connect() as connection:
        found = connection.sql(f"select * from read_csv('{path}', all_varchar = true{options})")
        names = found.columns
        header = [] if names == [f"column{index}" for index in range(len(names))] else [names]
        return [*header, *as_strings(found.fetchall())]


def duckdb_skipping(path: Path) -> Rows:
    return of_duckdb(path, ", ignore_errors = true")


def as_strings(rows: Any) -> Rows:
    return [["" if value is None else value for value in row] for row in rows]


STRICT: dict[str, Callable[[Path], Rows]] = {
    "textladder": textladder,
    "csv, Sniffer": of_csv,
    "CleverCSV": of_clevercsv,
    "pandas": of_pandas,
    "polars": of_polars,
    "DuckDB": of_duckdb,
}
SKIPPING: dict[str, Callable[[Path], Rows]] = {
    "textladder": textladder_skipping,
    "pandas": pandas_skipping,
    "DuckDB": duckdb_skipping,
}


def outcome(read: Callable[[Path], Rows], path: Path, expected: Rows, missing: int) -> str:
    """What becomes of a file if as many rows may be missing."""
    try:
        rows = read(path)
    except Exception:
        return "refused"
    remaining = iter(expected)
    in_order = all(row in remaining for row in rows)
    return "right" if in_order and len(expected) - len(rows) <= missing else "wrong"


def compare_faults(folder: Path) -> None:
    files = {}
    for path in sorted((folder / "csv").iterdir()):
        with (folder / "clean" / path.name).open(encoding="utf-8", newline="") as clean:
            files[path] = list(csv.reader(clean))
    whole = [path for path in files if not path.name.startswith("row_")]
    for readers, missing in ((STRICT, 0), (SKIPPING, 1)):
        columns = f"{'right':>7} {'refused':>7} {'wrong':>7}"
        print(f"\n{'bad rows skipped' if missing else '':<16} {f'{len(files):,} files':>23}"
              f"   {f'{len(whole)} whole-file faults':>23}\n{'':<16} {columns}   {columns}")  # fmt: skip
        for name, read in readers.items():
            found = {path: outcome(read, path, expected, missing) for path, expected in files.items()}
            counts = [Counter(found.values()), Counter(found[path] for path in whole)]
            cells = (f"{one['right']:>7,} {one['refused']:>7,} {one['wrong']:>7,}" for one in counts)
            print(f"{name:<16} {'   '.join(cells)}", flush=True)


def write_rows(path: Path, count: int) -> None:
    rng = random.Random(0)
    sentences = []
    for _ in range(2000):
        words = rng.choices(WORDS, k=14)
        words[3] += ","
        if rng.random() < 0.3:
            words[7] = f'"{words[7]}"'
        sentences.append(" ".join(words) + ("\n" if rng.random() < 0.1 else ". "))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "text"])
        for _ in range(count):
            writer.writerow([rng.choice(("negative", "positive")), "".join(rng.choices(sentences, k=6)).strip()])


def count_csv(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def count_textladder(path: Path) -> int:
    return sum(batch.num_rows for batch in open_rows(path).batches())


def count_strings(path: Path) -> int:
    source = open_rows(path)
    return sum(
        1
        for batch in source.batches()
        for _ in zip(*(source.column(batch, name) for name in source.names), strict=True)
    )


def count_duckdb(path: Path) -> int:
    with duckdb.connect() as connection:
        reader = connection.sql(f"select * from read_csv('{path}')").to_arrow_reader(4096)
        assert reader is not None
        return sum(batch.num_rows for batch in reader)


def count_polars(path: Path) -> int:
    return pl.read_csv(path, infer_schema=False).height


def count_pyarrow(path: Path) -> int:
    options = arrow_csv.ParseOptions(newlines_in_values=True)
    return int(arrow_csv.read_csv(path, parse_options=options).num_rows)


COUNTING: dict[str, Callable[[Path], int]] = {
    "csv": count_csv,
    "textladder": count_textladder,
    "textladder, to lists of strings": count_strings,
    "DuckDB": count_duckdb,
    "polars": count_polars,
    "pyarrow": count_pyarrow,
}


def compare_speed(path: Path, rows: int) -> None:
    write_rows(path, rows)
    seconds: dict[str, list[float]] = {name: [] for name in COUNTING}
    cores: dict[str, list[float]] = {name: [] for name in COUNTING}
    for turn in range(ROUNDS + 1):
        for name, count in COUNTING.items():
            started, busy = time.perf_counter(), time.process_time()
            assert count(path) == rows, f"{name} finds another number of rows"
            if turn:  # the first round warms the disk
                seconds[name].append(time.perf_counter() - started)
                cores[name].append((time.process_time() - busy) / seconds[name][-1])
    size = path.stat().st_size / 1e6
    print(f"\n{rows:,} rows, {size:,.0f} MB             rows per second    MB per second   cores busy")
    for name, times in seconds.items():
        took = median(times)
        print(f"{name:<33} {rows / took:>14,.0f}   {size / took:>14,.0f}   {median(cores[name]):>10.1f}")


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(POLLOCK) as archive:
            archive.extractall(folder, filter="data")
        compare_faults(Path(folder) / "polluted")
        compare_speed(Path(folder) / "large.csv", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000, help="of the file that is read for speed")
    main(parser.parse_args().rows)
