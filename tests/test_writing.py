"""Every file that is written reads back to the same rows, with this package's reader and with other programs."""

import csv
import gc
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textladder import inspect_rows
from textladder.data.delimited_file import DelimitedFile
from textladder.data.file_options import FileOptions
from textladder.data.json_file import JsonFile
from textladder.data.row_files import open_rows
from textladder.data.row_rewriting import as_field, atomic_row_writer, without_rows
from textladder.data.row_sources import MappingRows
from textladder.errors import DataError
from textladder.predict_file import predict_file

CASES = Path(__file__).parents[2] / "shared" / "cases"
CASE_NAMES = sorted(path.name for path in CASES.glob("*.*") if path.name != "README.md") or ["base.csv"]
ADDED = ["predicted_label", "predicted_probability"]
PIECES = (
    '"', '""', "'", ",", ";", "|", "\t", "\r", "\n", "\r\n", " ", "\\", '\\"', "\\n", "\u2028", "\u0085", "\u200b",
    "\u200f", "\u00a0", "\ufeff", "\x0b", "\x0c", "\x1c", "😀", "é", "日本", "a", "good kettle", "NA", "null", "nan",
    "#", "{", "[", "1", "2.50", "true",
)  # fmt: skip
NAMES = ["text", "label", 'a, "b"', "note"]
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
Cells = list[list[str]]

# --- other programs: the rows of a file as lists of strings, an empty string for a missing value


def with_csv(path: Path, delimiter: str, quote: str, encoding: str, line_end: str) -> Cells:
    with path.open(newline="", encoding=encoding) as stream:
        return list(csv.reader(stream, delimiter=delimiter, quotechar=quote, strict=True))


def with_pandas(path: Path, delimiter: str, quote: str, encoding: str, line_end: str) -> Cells:
    frame = pd.read_csv(
        path, sep=delimiter, quotechar=quote, encoding=encoding, header=None, dtype=str, keep_default_na=False
    )
    return [[str(value) for value in row] for row in frame.itertuples(index=False)]


def with_polars(path: Path, delimiter: str, quote: str, encoding: str, line_end: str) -> Cells:
    frame = pl.read_csv(
        path, separator=delimiter, quote_char=quote, has_header=False, infer_schema=False,
        empty_string_is_null=False, eol_char="\r" if line_end == "\r" else "\n",
        encoding="utf8" if encoding.startswith("utf-8") else encoding,
    )  # fmt: skip
    return [list(row) for row in frame.rows()]


def with_duckdb(path: Path, delimiter: str, quote: str, encoding: str, line_end: str) -> Cells:
    if not encoding.startswith("utf-8"):  # it reads others with an extension that has to be downloaded
        recoded = path.with_name(f"{path.name}.utf-8")
        recoded.write_bytes(path.read_bytes().decode(encoding).encode())
        path = recoded
    rows = duckdb.execute(
        "select * from read_csv(?, delim=?, quote=?, escape=?, header=false, all_varchar=true, auto_detect=false, "
        "columns=?)",
        [str(path), delimiter, quote, quote, _varchar_columns(path, delimiter, quote)],
    ).fetchall()
    return [[value or "" for value in row] for row in rows]


def _varchar_columns(path: Path, delimiter: str, quote: str) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        width = len(next(csv.reader(stream, delimiter=delimiter, quotechar=quote)))
    return {f"c{index}": "varchar" for index in range(width)}


READERS = (with_csv, with_pandas, with_polars, with_duckdb)


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def json_readers(path: Path, names: list[str]) -> dict[str, Cells]:
    """The rows of a file of JSON lines whose values are strings."""
    with path.open(newline="\n", encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    frame = pd.read_json(path, lines=True, dtype=False, convert_axes=False)
    columns = ", ".join(f"{quoted(name)}: 'varchar'" for name in names)
    query = f"select * from read_json(?, format='newline_delimited', columns={{{columns}}})"
    return {
        "json": [[one[name] or "" for name in names] for one in lines],
        "pandas": [list(row) for row in frame[names].fillna("").itertuples(index=False)],
        "polars": [list(row) for row in pl.read_ndjson(path).select(names).fill_null("").rows()],
        "duckdb": [[value or "" for value in row] for row in duckdb.execute(query, [str(path)]).fetchall()],
    }


def parquet_readers(path: Path, names: list[str]) -> dict[str, Cells]:
    selected = ", ".join(map(quoted, names))
    rows = duckdb.execute(f"select {selected} from read_parquet(?)", [str(path)]).fetchall()
    frame = pd.read_parquet(path)[names]
    return {
        "pandas": [list(row) for row in frame.fillna("").itertuples(index=False)],
        "polars": [list(row) for row in pl.read_parquet(path).select(names).fill_null("").rows()],
        "duckdb": [[value or "" for value in row] for row in rows],
    }


def own(path: Path, **options: Any) -> tuple[list[str], Cells]:
    """The names and the rows of a file with this package's reader."""
    rows = open_rows(path, FileOptions(**options))
    cells: Cells = []
    for batch in rows.batches():
        columns = [[as_field(value) for value in rows.values(batch, name)] for name in rows.names]
        cells += [list(row) for row in zip(*columns, strict=True)]
    return rows.names, cells


def encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


# --- files of many kinds, predicted


@pytest.mark.realdata
@pytest.mark.parametrize("name", CASE_NAMES)
def test_predicted_files_read_back(name: str, shared: Path, fitted: Callable[[str], Any], tmp_path: Path) -> None:
    source = shared.parent / "cases" / name
    rows, text = open_rows(source), inspect_rows(source).text
    names, cells = own(source)
    expected = [[encodable(value) for value in row] for row in cells]
    places = [rows.names.index(one) for one in text]
    texts = [[row[place] for place in places] for row in expected]
    targets = {form: tmp_path / f"out.{form}" for form in ("csv", "tsv", "jsonl", "parquet")}
    for target in targets.values():
        assert predict_file(fitted("tfidf"), source, target, text=text) == len(cells)

    for form in ("csv", "tsv"):
        kept = isinstance(rows, DelimitedFile) and rows.output == form
        dialect = (
            (rows.dialect.delimiter or ",", rows.dialect.quote or '"', rows.file.encoding, rows.line_end)
            if kept else ("\t" if form == "tsv" else ",", '"', "utf-8", "\n")
        )  # fmt: skip
        header = [[*names, *ADDED]] if not kept or rows.header else []
        for read in READERS:
            found = read(targets[form], *dialect)
            assert [row[:-2] for row in found] == [row[:-2] for row in header] + expected, read.__name__
        again = open_rows(targets[form])
        _, found = own(targets[form])
        assert [[row[place] for place in places] for row in found] == texts
        assert isinstance(again, DelimitedFile)
        assert (again.dialect.delimiter, again.file.encoding, again.line_end) == (dialect[0], *dialect[2:])
        assert again.header == bool(header)
        if kept:
            assert targets[form].read_bytes()[:2] == _decompressed(source)[:2] or rows.layout.skipped_lines

    if not isinstance(rows, JsonFile):
        for program, found in json_readers(targets["jsonl"], text).items():
            assert found == texts, program
    assert [one[:-2] for one in own(targets["jsonl"])[1]] == cells
    if rows.output == "parquet":
        table, whole = parquet.read_table(source), parquet.read_table(targets["parquet"])
        assert whole.drop_columns(ADDED).equals(table)
    else:
        for program, found in parquet_readers(targets["parquet"], text).items():
            assert found == texts, program


def _decompressed(path: Path) -> bytes:
    with open_rows(path).file.open_bytes() as stream:
        return stream.read()


# --- tables of any characters


class Table(MappingRows):
    """Rows that are written in no format of their own."""

    output = ""

    def writer(self, stream: Any, added: Any) -> Any:
        raise NotImplementedError


fields = st.lists(st.sampled_from(PIECES), max_size=5).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
)
tables = st.integers(1, len(NAMES)).flatmap(
    lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), min_size=1, max_size=6)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def as_rows(cells: Cells) -> list[dict[str, str]]:
    return [dict(zip(NAMES, row, strict=False)) for row in cells]


def write(rows: Any, target: Path) -> Path:
    """Write all rows, without further columns."""
    with atomic_row_writer(rows, target, {}, overwrite=True) as writer:
        for batch in rows.batches():
            writer.add(batch, [])
    return target


def check_delimited(path: Path, cells: Cells, delimiter: str = ",", quote: str = '"', encoding: str = "utf-8", line_end: str = "\n") -> None:  # fmt: skip  # noqa: E501
    """Every reader finds the same cells, the header first."""
    whole = [NAMES[: len(cells[0])], *cells]
    for read in READERS:
        assert read(path, delimiter, quote, encoding, line_end) == whole, read.__name__
    assert own(path, **written_as(delimiter, quote), file_encoding=encoding) == (whole[0], cells)


def written_as(delimiter: str, quote: str = '"') -> dict[str, Any]:
    """What cannot always be detected in a table of a few rows."""
    return {"delimiter": delimiter, "quote": quote, "escape": "", "header": True}


@settings(max_examples=350, deadline=None)
@given(tables)
def test_any_table_as_csv_and_tsv(folder: Path, cells: Cells) -> None:
    rows: Any = Table(as_rows(cells), "table")
    check_delimited(write(rows, folder / "table.csv"), cells)
    check_delimited(write(rows, folder / "table.tsv"), cells, "\t")


@settings(max_examples=200, deadline=None)
@given(tables)
def test_any_table_as_the_csv_of_inspect(folder: Path, cells: Cells) -> None:
    target = folder / "inspected.csv"
    assert inspect_rows(as_rows(cells), csv_file=target, overwrite=True).rows == len(cells)
    check_delimited(target, cells, line_end="\r\n")


@settings(max_examples=550, deadline=None)
@given(
    tables, st.sampled_from(",;|\t"), st.sampled_from("\"'"), st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030"]),
)  # fmt: skip
def test_any_table_in_its_own_format(
    folder: Path, cells: Cells, delimiter: str, quote: str, line_end: str, encoding: str
) -> None:
    source = folder / "source.csv"
    with source.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(
            stream, delimiter=delimiter, quotechar=quote, quoting=csv.QUOTE_ALL, lineterminator=line_end
        )
        writer.writerows([NAMES[: len(cells[0])], *cells])
    rows = open_rows(source, FileOptions(**written_as(delimiter, quote), file_encoding=encoding))
    target = write(rows, folder / ("target.tsv" if delimiter == "\t" else "target.csv"))
    check_delimited(target, cells, delimiter, quote, encoding, line_end)


@settings(max_examples=350, deadline=None)
@given(tables)
def test_any_table_as_json(folder: Path, cells: Cells) -> None:
    names = NAMES[: len(cells[0])]
    rows: Any = Table(as_rows(cells), "table")
    lines, array = write(rows, folder / "table.jsonl"), write(rows, folder / "table.json")
    for path in (lines, write(open_rows(lines), folder / "again.jsonl")):
        for program, found in json_readers(path, names).items():
            assert found == cells, program
        assert own(path) == (names, cells)
    for path in (array, write(open_rows(array), folder / "again.json")):
        assert json.loads(path.read_text(encoding="utf-8")) == as_rows(cells)
        assert own(path) == (names, cells)
    check_delimited(write(open_rows(array), folder / "from_json.csv"), cells)


@settings(max_examples=350, deadline=None)
@given(tables)
def test_any_table_as_parquet_and_arrow(folder: Path, cells: Cells) -> None:
    names = NAMES[: len(cells[0])]
    rows: Any = Table(as_rows(cells), "table")
    first = write(rows, folder / "table.parquet")
    for path in (first, write(open_rows(first), folder / "again.parquet")):
        for program, found in parquet_readers(path, names).items():
            assert found == cells, program
        assert own(path) == (names, cells)
    assert own(write(rows, folder / "table.arrow")) == (names, cells)
    assert own(write(open_rows(first), folder / "table.feather")) == (names, cells)
    check_delimited(write(open_rows(first), folder / "from_parquet.csv"), cells)


@settings(max_examples=200, deadline=None)
@given(tables, st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "arrow"]), st.sampled_from(COMPRESSIONS))
def test_any_table_compressed(folder: Path, cells: Cells, form: str, compression: str) -> None:
    rows: Any = Table(as_rows(cells), "table")
    options = written_as("\t" if form == "tsv" else ",") if form in ("csv", "tsv") else {}
    target = write(rows, folder / f"table.{form}{compression}")
    again = write(open_rows(target, FileOptions(**options)), folder / f"again.{form}{compression}")
    for path in (target, again):
        assert own(path, **options) == (NAMES[: len(cells[0])], cells)


# --- what few files have


def test_zero_bytes_and_halves_of_surrogate_pairs_are_escaped(tmp_path: Path) -> None:
    table: Any = Table([{"text": "half \ud83d", "label": "zero \0"}], "table")
    escaped = ["half \\ud83d", "zero \\x00"]
    check_delimited(write(table, tmp_path / "table.csv"), [escaped])
    inspect_rows(table.rows, csv_file=tmp_path / "inspected.csv")
    check_delimited(tmp_path / "inspected.csv", [escaped], line_end="\r\n")
    for form in ("parquet", "arrow"):  # these can hold a zero byte
        path = write(table, tmp_path / f"table.{form}")
        assert own(path) == (["text", "label"], [[escaped[0], "zero \0"]])
    for form in ("jsonl", "json"):
        path = write(table, tmp_path / f"table.{form}")
        assert path.read_bytes().isascii()
        again = write(open_rows(path), tmp_path / f"again.{form}")
        assert own(path) == own(again) == (["text", "label"], [["half \ud83d", "zero \0"]])


@pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "utf-16"])
def test_json_in_an_encoding_that_lacks_some_characters(encoding: str, tmp_path: Path) -> None:
    rows = [{"text": "\x81 é \u0416 😀 \ud83d", "note": "ｱ 語", "nested": {"é": ["😀"]}}] * 40
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding=encoding)
    target = write(open_rows(source, FileOptions(file_encoding=encoding)), tmp_path / "target.jsonl")
    assert own(target, file_encoding=encoding) == own(source, file_encoding=encoding)


def test_values_that_are_no_strings(tmp_path: Path) -> None:
    when = datetime(2024, 5, 6, 7, 8)
    values = {
        "float": [0.5, None, float("inf")],
        "nested": [[{"when": when, "value": float("nan")}], None, []],
        "when": [when, None, when],
        "whole": [1, 2, None],
        "bool": [True, False, None],
    }
    source = tmp_path / "source.parquet"
    parquet.write_table(pa.table(values), source)
    nested = [{"when": "2024-05-06T07:08:00", "value": None}]
    expected = [
        [0.5, nested, "2024-05-06T07:08:00", 1, True],
        [None, None, None, 2, False],
        ["inf", [], "2024-05-06T07:08:00", None, None],
    ]
    fields = [["" if value is None else as_field(value) for value in row] for row in expected]
    lines = write(open_rows(source), tmp_path / "target.jsonl").read_text(encoding="utf-8").splitlines()
    assert [list(json.loads(line, parse_constant=pytest.fail).values()) for line in lines] == expected
    for form in ("csv", "arrow"):
        names, cells = own(write(open_rows(source), tmp_path / f"target.{form}"))
        assert names == list(values)
        assert [[value or "" for value in row] for row in cells] == fields
    assert fields[0] == ["0.5", json.dumps(nested), "2024-05-06T07:08:00", "1", "true"]


def test_missing_values_of_a_frame_are_empty_in_the_csv_of_inspect(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": pd.Series(["good", np.nan, None], dtype=object),
            "score": [np.float32(0.5), np.nan, 2.0],
            "when": [pd.Timestamp(2024, 5, 6), pd.NaT, pd.NaT],
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "vector": [np.array([1.5, np.nan]), None, (1, 2)],
        }
    )
    inspect_rows(frame, csv_file=tmp_path / "inspected.csv")
    assert own(tmp_path / "inspected.csv")[1] == [
        ["good", "0.5", "2024-05-06T00:00:00", "1", "[1.5, null]"],
        ["", "", "", "", ""],
        ["", "2.0", "", "3", "[1, 2]"],
    ]
    inspect_rows([{"text": "good", "score": np.float64(0.25)}], csv_file=tmp_path / "scalar.csv")
    assert own(tmp_path / "scalar.csv")[1] == [["good", "0.25"]]


def test_binary_values_are_written_in_their_own_format_alone(tmp_path: Path) -> None:
    source = tmp_path / "source.parquet"
    parquet.write_table(pa.table({"text": ["good"], "image": [b"\xff\x00"]}), source)
    for target in ("target.csv", "target.jsonl"):
        with pytest.raises(DataError, match="binary values"):
            write(open_rows(source), tmp_path / target)
    with pytest.raises(DataError, match="binary values"):
        inspect_rows(source, csv_file=tmp_path / "inspected.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["source.parquet"]
    assert parquet.read_table(write(open_rows(source), tmp_path / "target.parquet")).equals(parquet.read_table(source))


def test_an_error_leaves_no_open_writer(tmp_path: Path) -> None:
    table: Any = Table([{"text": "good"}], "table")
    for form in ("parquet", "arrow", "csv", "json", "parquet.gz"):
        with pytest.raises(KeyError), atomic_row_writer(table, tmp_path / f"target.{form}", {}, False):
            raise KeyError
        gc.collect()  # a writer that complains now fails the test
    assert list(tmp_path.iterdir()) == []


def test_a_csv_file_of_inspect_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be written"):
        inspect_rows([{"text": "good"}], csv_file=tmp_path / "missing" / "inspected.csv")


@pytest.mark.parametrize(
    ("before", "after"),
    [(" ", ""), ("", " "), ("'", "'"), ('"', '"'), ("\ufeff", ""), ("a, ", ""), ("a\r", "\r"), ("a\nb\n", "\\")],
)
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_what_was_written_is_detected(before: str, after: str, form: str, tmp_path: Path) -> None:
    cells = [[f"{before}works well, number {n}{after}", ("pos", "neg")[n % 2]] for n in range(40)]
    rows: Any = Table(as_rows(cells), "table")
    assert own(write(rows, tmp_path / f"table.{form}")) == (["text", "label"], cells)


def test_a_byte_order_mark_at_the_start_of_a_field_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "marked.csv"
    path.write_text("text,label\n\ufeffgood,pos\n\ufeffbad,neg\n", encoding="utf-8")
    assert own(path)[1] == [["\ufeffgood", "pos"], ["\ufeffbad", "neg"]]


def test_a_last_row_of_empty_fields_without_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "empty.tsv"
    path.write_text("text\tlabel\ngood\tpos\n\t", encoding="utf-8")
    assert own(path)[1] == [["good", "pos"], ["", ""]]


def test_json_lines_that_begin_with_a_long_one(tmp_path: Path) -> None:
    rows: Any = Table([{"text": "good " * 50_000}, {"text": "bad"}], "table")
    path = write(rows, tmp_path / "long.jsonl")
    assert open_rows(path).form == "jsonl"
    assert own(path)[1] == [[row["text"]] for row in rows.rows]


ALL_QUOTED = '"id","text"\r\n' + "".join(f'"{number}","a ""good"" kettle"\r\n' for number in range(30))
TEXTS_QUOTED = "id,text\n" + "".join(f'{number},"good"\n' for number in range(30))
SOME_QUOTED = "id,text\n" + "".join(f'{number},{"a kettle" if number else chr(34) + "a, b" + chr(34)}\n' for number in range(30))  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("before", "header", "first"),
    [
        (ALL_QUOTED, '"id","text","more"', '"0","a ""good"" kettle","x"'),
        (TEXTS_QUOTED, "id,text,more", '0,"good",x'),
        (SOME_QUOTED, "id,text,more", '0,"a, b",x'),
    ],
)
def test_fields_are_quoted_as_before(before: str, header: str, first: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(before, newline="")
    rows = open_rows(path)
    with atomic_row_writer(rows, tmp_path / "out.csv", {"more": pa.string()}, overwrite=False) as writer:
        for batch in rows.batches():
            writer.add(batch, [["x"] * len(batch)])
    written = (tmp_path / "out.csv").read_bytes().decode()
    assert written.splitlines()[:2] == [header, first]
    assert ("\r\n" in written) == ("\r\n" in before)


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-be", "utf-16-le"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_order_of_bytes_is_kept(encoding: str, form: str, tmp_path: Path) -> None:
    lines = ["text", *["größer"] * 30] if form == "csv" else ['{"text": "größer"}'] * 30
    path, target = tmp_path / f"in.{form}", tmp_path / f"out.{form}"
    path.write_bytes("\ufeff".encode(encoding) + ("\n".join(lines) + "\n").encode(encoding))
    rows = open_rows(path)
    with atomic_row_writer(rows, target, {}, overwrite=False) as writer:
        for batch in rows.batches():
            writer.add(batch, ())
    assert target.read_bytes() == path.read_bytes()


def test_a_key_that_comes_up_late_is_said_and_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n' * 300 + '{"text": "a", "late": 1}\n')
    assert "keys that come up only later ('late' at row 301) are no columns" in inspect_rows(path).form
    rows = open_rows(path)
    with atomic_row_writer(rows, tmp_path / "out.jsonl", {}, overwrite=False) as writer:
        for batch in rows.batches():
            writer.add(batch, ())
    assert (tmp_path / "out.jsonl").read_text() == path.read_text()
    with pytest.raises(DataError, match="the key 'late' comes up first at row 301, too late for a column"):
        without_rows(path, tmp_path / "out.csv", set(), label="text")
