"""Rows of a file, a batch at a time: CSV, TSV, JSON Lines and Parquet, each also gzipped.

The bottom of the data side: `data.py` picks columns and labels out of these rows, `predict` writes them back with
its own columns added. A file is read as a stream, so memory does not grow with it. Whatever is wrong with a
file is said with its place in it; nothing is repaired in silence.
"""

import codecs
import csv
import gzip
import io
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from textladder.errors import ConfigError, DataError, unknown_name

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
BATCH_ROWS = 4096
LONGEST_FIELD = 1 << 27  # characters; one field longer than this is a quote that was never closed

Batch = Any  # a batch in its source's own form: a list of rows, or an Arrow record batch


class RowSource(Protocol):
    """Rows with named columns that can be read from the start as often as needed."""

    names: list[str]
    form: str

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[Batch]:
        """The rows in order, at most `rows` at a time."""

    def column(self, batch: Batch, name: str) -> list[str | None]:
        """One column of a batch as text; None where the value is missing."""


class RowFile(RowSource, Protocol):
    """A row source that can also write its rows back in the same form."""

    def write(self, stream: IO[bytes], added: Sequence[str]) -> "RowWriter":
        """Start a file of the same form with the `added` columns after the present ones."""


class RowWriter(Protocol):
    """Writes batches of a source with more columns."""

    def add(self, batch: Batch, columns: Sequence[Sequence[Any]]) -> None:
        """Write a batch with the values of the added columns."""

    def close(self) -> None:
        """Write what a file of this form ends with."""


def file_format(path: Path) -> tuple[str, bool]:
    """The form of a file by its name, and whether it is gzipped.

    >>> file_format(Path("reviews.csv.gz"))
    ('csv', True)
    """
    gzipped = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if gzipped else path.suffix.lower()
    if suffix not in FORMATS:
        names = [*FORMATS, *(f"{name}.gz" for name in FORMATS)]
        raise ConfigError(f"{path}: {unknown_name('file format', suffix or path.name, names)}")
    return FORMATS[suffix], gzipped


def open_rows(path: str | Path, *, columns: Sequence[str] | None = None, encoding: str = "utf-8") -> RowFile:
    """Open a file of rows.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet` file, or one of them with `.gz`.
        columns: names for the columns of a CSV or TSV file that has no header line.
        encoding: how the text is encoded, by Python's name; a byte-order mark is understood without it.

    Raises:
        DataError: no such file, an empty one, or one that is not what its name says.
        ConfigError: a format or an encoding that is not known.
    """
    path = Path(path)
    form, gzipped = file_format(path)
    if not os.path.isfile(path):  # which, unlike Path's own, also takes a name that is no name
        raise DataError(f"{path}: no such file." if not os.path.exists(path) else f"{path}: this is not a file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ConfigError(
            f"Unknown file encoding {encoding!r}: give a name that Python knows, such as utf-8 or latin-1."
        ) from None
    if form in ("csv", "tsv"):
        return DelimitedFile(path, form, gzipped, encoding, columns)
    if columns is not None:
        raise ConfigError(f"{path}: only a CSV or TSV file can be given names for its columns; this one has its own.")
    return JsonLinesFile(path, gzipped, encoding) if form == "jsonl" else ParquetFile(path, gzipped)


@contextmanager
def _open_bytes(path: Path, gzipped: bool) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped; a damaged archive and an unreadable file become one sentence."""
    try:
        with gzip.open(path) if gzipped else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip archive is damaged or cut short ({error}).") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None


@contextmanager
def _open_text(path: Path, gzipped: bool, encoding: str) -> Iterator[io.TextIOWrapper]:
    with _open_bytes(path, gzipped) as stream:
        start = stream.read(4)
        stream.seek(0)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and codecs.lookup(encoding).name == "utf-8":
            raise DataError(f"{path}: the text is UTF-16, not UTF-8; say --file-encoding utf-16.")
        # utf-8-sig takes a byte-order mark away where there is one and is plain UTF-8 where there is none
        name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        text = io.TextIOWrapper(stream, encoding=name, newline="")
        try:
            yield text
        except UnicodeError:
            raise DataError(_where_decoding_fails(path, gzipped, encoding)) from None
        finally:
            text.detach()


def _where_decoding_fails(path: Path, gzipped: bool, encoding: str) -> str:
    decoder = codecs.getincrementaldecoder(encoding)()
    place = 0  # bytes before this block, less what the decoder still holds of them
    with _open_bytes(path, gzipped) as stream:
        while True:
            block = stream.read(1 << 20)
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = place - held + error.start
                byte = error.object[error.start]
                return (
                    f"{path}: the text is not {encoding}: byte 0x{byte:02x} at position {at} cannot be read; "
                    "name the encoding with --file-encoding (latin-1 or cp1252 are common)."
                )
            except UnicodeError as error:
                return f"{path}: the text is not {encoding} ({error}); name the encoding with --file-encoding."
            place += len(block)
            if not block:
                return f"{path}: the text is not {encoding}; name the encoding with --file-encoding."


def as_text(value: object) -> str | None:
    """A cell as text: whole numbers without a point, booleans as true and false, None where it is missing.

    >>> [as_text(value) for value in ("a", 2, 2.0, 0.5, True, float("nan"))]
    ['a', '2', '2', '0.5', 'true', None]
    """
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, (list, dict, tuple, bytes)):
        raise DataError(
            f"A text or a label must be a plain value; received a {type(value).__name__}: {str(value)[:60]!r}."
        )
    return None if str(value) in ("NaT", "<NA>") else str(value)


class DelimitedFile:
    """A CSV or TSV file: quoted line ends and doubled quotes as RFC 4180 has them."""

    def __init__(self, path: Path, form: str, gzipped: bool, encoding: str, columns: Sequence[str] | None) -> None:
        self.path, self.gzipped, self.encoding = path, gzipped, encoding
        self.delimiter = "\t" if form == "tsv" else self._delimiter()
        self.form = form if self.delimiter in ",\t" else f"{form} with {self.delimiter!r}"
        first = next(self._lines(), None)
        if first is None:
            raise DataError(f"{path}: the file has no rows.")
        self.header = columns is None and not self._is_headerless(first)
        if columns is not None:
            self.names = list(columns)
        elif self.header:
            self.names = [name.strip() for name in first]
        else:
            self.names = ["label", "text"] if len(first) == 2 else ["label", "title", "text"]
        self.amazon_form = columns is None and not self.header
        if len(self.names) != len(first):
            raise DataError(
                f"{path}: --columns names {len(self.names)} columns ({', '.join(self.names)}), "
                f"but the first row has {len(first)}."
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"{path}: more than one column is named {twice[0]!r}; give names with --columns.")

    def _delimiter(self) -> str:
        """A comma, unless the first line has none of them and has semicolons or tabs."""
        with _open_text(self.path, self.gzipped, self.encoding) as text:
            line = text.readline(1 << 20)
        return next((mark for mark in (",", ";", "\t") if mark in line), ",")

    def _is_headerless(self, first: list[str]) -> bool:
        """Whether the file has the form of the Amazon, Yelp and AG News files: a class number, a title, a text.

        No header has a bare number for a name, so the first row decides, held to a few of the next.
        """
        if len(first) not in (2, 3):
            return False
        rows = self._lines()
        sample = [row for row, _ in zip(rows, range(20), strict=False)]
        return all(row[0].strip().isdecimal() and len(row[0].strip()) <= 3 for row in sample)

    def _lines(self) -> Iterator[list[str]]:
        """All rows, the header among them; blank lines are none."""
        csv.field_size_limit(LONGEST_FIELD)
        with _open_text(self.path, self.gzipped, self.encoding) as text:
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            width, line = None, 1
            try:
                for row in reader:
                    if row:
                        width = width or len(row)
                        if len(row) != width:
                            raise DataError(
                                f"{self.path}: the row at line {line} has {len(row)} fields where the first row has "
                                f"{width}; a field that holds a {self.delimiter!r} must stand in double quotes."
                            )
                        yield row
                    line = reader.line_num + 1
            except csv.Error as error:
                if "NUL" in str(error) or "new-line character" in str(error):
                    raise DataError(f"{self.path}: the row at line {line} is not text ({error}).") from None
                raise DataError(
                    f"{self.path}: the row at line {line} has an unbalanced quote ({error}); "
                    'a double quote inside a quoted field must be doubled ("").'
                ) from None

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[list[str]]]:
        """The rows in order, at most `rows` at a time, the header left out."""
        lines = self._lines()
        if self.header:
            next(lines, None)
        return _grouped(lines, rows)

    def column(self, batch: list[list[str]], name: str) -> list[str | None]:
        """One column of a batch."""
        place = self.names.index(name)
        return [row[place] for row in batch]

    def write(self, stream: IO[bytes], added: Sequence[str]) -> "RowWriter":
        """Start a file of the same delimiter, header and encoding."""
        return _DelimitedWriter(self, stream, added)


class _DelimitedWriter:
    def __init__(self, source: DelimitedFile, stream: IO[bytes], added: Sequence[str]) -> None:
        self.text = io.TextIOWrapper(stream, encoding=source.encoding, newline="")
        self.writer = csv.writer(self.text, delimiter=source.delimiter, lineterminator="\n")
        if source.header:
            self.writer.writerow([*source.names, *added])

    def add(self, batch: list[list[str]], columns: Sequence[Sequence[Any]]) -> None:
        self.writer.writerows([*row, *values] for row, *values in zip(batch, *columns, strict=True))

    def close(self) -> None:
        self.text.flush()
        self.text.detach()


class JsonLinesFile:
    """One JSON object a line; rows may lack keys."""

    form = "jsonl"

    def __init__(self, path: Path, gzipped: bool, encoding: str) -> None:
        self.path, self.gzipped, self.encoding = path, gzipped, encoding
        first = next(self.batches(256), None)
        if first is None:
            raise DataError(f"{path}: the file has no rows.")
        self.names = list(dict.fromkeys(key for row in first for key in row))

    def _rows(self) -> Iterator[dict[str, Any]]:
        with _open_text(self.path, self.gzipped, self.encoding) as text:
            text.reconfigure(newline="\n")  # a JSON string may hold other line ends
            for number, line in enumerate(text, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise DataError(f"{self.path}: line {number} is not JSON ({error}).") from None
                if not isinstance(row, dict):
                    raise DataError(f"{self.path}: line {number} is a {type(row).__name__}, not a JSON object.")
                yield row

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[dict[str, Any]]]:
        """The rows in order, at most `rows` at a time."""
        return _grouped(self._rows(), rows)

    def column(self, batch: list[dict[str, Any]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(row.get(name)) for row in batch]

    def write(self, stream: IO[bytes], added: Sequence[str]) -> "RowWriter":
        """Start a file of the same encoding."""
        return _JsonLinesWriter(self, stream, added)


class _JsonLinesWriter:
    def __init__(self, source: JsonLinesFile, stream: IO[bytes], added: Sequence[str]) -> None:
        self.text = io.TextIOWrapper(stream, encoding=source.encoding, newline="")
        self.added = added

    def add(self, batch: list[dict[str, Any]], columns: Sequence[Sequence[Any]]) -> None:
        for row, *values in zip(batch, *columns, strict=True):
            self.text.write(
                json.dumps({**row, **dict(zip(self.added, values, strict=True))}, ensure_ascii=False) + "\n"
            )

    def close(self) -> None:
        self.text.flush()
        self.text.detach()


class ParquetFile:
    """A Parquet file, read row group by row group."""

    form = "parquet"

    def __init__(self, path: Path, gzipped: bool) -> None:
        self.path, self.gzipped = path, gzipped
        with self._open() as file:
            self.schema = file.schema_arrow
            if file.metadata.num_rows == 0:
                raise DataError(f"{path}: the file has no rows.")
        self.names = list(self.schema.names)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        with tempfile.TemporaryFile() if self.gzipped else self.path.open("rb") as stream:
            if self.gzipped:  # Parquet is read from its end, which a gzip stream cannot reach cheaply
                with _open_bytes(self.path, gzipped=True) as archive:
                    shutil.copyfileobj(archive, stream)
            try:
                yield parquet.ParquetFile(stream)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise DataError(f"{self.path}: this is not a Parquet file that can be read ({reason}).") from None

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[Any]:
        """The rows in order as Arrow record batches of at most `rows`."""
        with self._open() as file:
            yield from file.iter_batches(batch_size=rows)

    def column(self, batch: Any, name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in batch.column(name).to_pylist()]

    def write(self, stream: IO[bytes], added: Sequence[str]) -> "RowWriter":
        """Start a file of the same schema."""
        return _ParquetWriter(self, stream, added)


class _ParquetWriter:
    def __init__(self, source: ParquetFile, stream: IO[bytes], added: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        types = {"predicted_probability": pa.float64()}
        self.schema = source.schema
        for name in added:
            self.schema = self.schema.append(pa.field(name, types.get(name, pa.string())))
        self.writer = parquet.ParquetWriter(stream, self.schema)

    def add(self, batch: Any, columns: Sequence[Sequence[Any]]) -> None:
        import pyarrow as pa

        self.writer.write_batch(pa.record_batch([*batch.columns, *map(pa.array, columns)], schema=self.schema))

    def close(self) -> None:
        self.writer.close()


def _grouped(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
