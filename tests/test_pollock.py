"""The Pollock benchmark: 2,290 files with one fault each are read right, or refused with the line of the fault."""

import copy
import csv
import re
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from textladder.data.file_options import FileOptions
from textladder.data.row_files import open_rows
from textladder.errors import DataError

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

FAULTY_ROW = re.compile(r"row_.*?(\d+)_")  # the header is row 0
LINE = re.compile(r"\bline (\d+)\b")


class Found(NamedTuple):
    """What became of a file.

    Attributes:
        outcome: `right` if header and rows are as they should be, `refused`, or `wrong`.
        message: why it was refused.
        nearly_right: whether at most one row was missing when bad rows were skipped.
    """

    outcome: str
    message: str
    nearly_right: bool


def rows_of(source: Any) -> list[list[str]]:
    rows = [source.names] if source.header else []
    for batch in source.batches():
        rows += map(list, zip(*(source.column(batch, name) for name in source.names), strict=True))
    return rows


def read(path: Path) -> Found:
    with (path.parents[1] / "clean" / path.name).open(encoding="utf-8", newline="") as clean:
        expected = list(csv.reader(clean))
    try:
        source: Any = open_rows(path)
    except DataError as error:
        return Found("refused", str(error), nearly_right=False)
    try:
        outcome, message = "right" if rows_of(source) == expected else "wrong", ""
    except DataError as error:
        outcome, message = "refused", str(error)
    skipping = copy.copy(source)  # to look at the first lines again would take most of the time
    skipping.options = FileOptions(bad_rows="skip")
    try:
        rows = rows_of(skipping)
    except DataError:
        return Found(outcome, message, nearly_right=False)
    remaining = iter(expected)
    in_order = all(row in remaining for row in rows)
    return Found(outcome, message, nearly_right=in_order and len(expected) - len(rows) <= 1)


@pytest.fixture(scope="module")
def files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    folder = tmp_path_factory.mktemp("pollock")
    with tarfile.open(shared / "pollock_polluted.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return {path.name: read(path) for path in sorted((folder / "polluted" / "csv").iterdir())}


@pytest.mark.slow
def test_files_are_read_right_or_refused(files: dict[str, Found]) -> None:
    assert len(files) == 2290
    assert sum(one.outcome == "wrong" for one in files.values()) <= 5
    whole = [one for name, one in files.items() if not name.startswith("row_")]
    assert len(whole) == 22
    assert sum(one.outcome == "right" for one in whole) >= 16


@pytest.mark.slow
def test_a_refusal_names_the_line_of_the_fault(files: dict[str, Found]) -> None:
    for name, one in files.items():
        row = FAULTY_ROW.match(name)
        if one.outcome == "refused" and row is not None:
            line = LINE.search(one.message)
            assert line is not None, one.message
            assert int(line[1]) == int(row[1]) + 1, one.message


@pytest.mark.slow
def test_skipping_loses_at_most_the_bad_row(files: dict[str, Found]) -> None:
    assert sum(one.nearly_right for one in files.values()) >= 2250
