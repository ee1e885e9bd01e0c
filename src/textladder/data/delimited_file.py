"""CSV and TSV files as sources of rows: quoted line ends and doubled quotes as in RFC 4180."""

import csv
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from textladder.data.file_streams import open_text
from textladder.data.rows import BATCH_ROWS, in_batches
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FIELD = 1 << 27  # characters; a longer field is a quote that was never closed
ROWS_AT_ONCE = 256  # rows parsed each time the csv module's limit on fields is raised
_field_limit_lock = threading.Lock()


class DelimitedFile:
    """A CSV or TSV file, with a header or in the headerless Amazon form.

    Args:
        path: the file.
        form: `csv` or `tsv`.
        gzipped: whether it is compressed.
        encoding: how the text is encoded.
        columns: names for the columns of a file without a header.
    """

    def __init__(self, path: Path, form: str, gzipped: bool, encoding: str, columns: Sequence[str] | None) -> None:
        """Read the first rows.

        Raises:
            DataError: there are no rows, or the column names do not fit them.
        """
        self.path, self.gzipped, self.encoding = path, gzipped, encoding
        self.delimiter = "\t" if form == "tsv" else self._detect_delimiter()
        first_row = next(self._rows(), None)
        if first_row is None:
            raise DataError(f"{path}: the file has no rows.")
        self.header = columns is None and not self._is_headerless(first_row)
        if columns is not None:
            self.names = list(columns)
        elif self.header:
            self.names = [name.strip() for name in first_row]
        else:
            self.names = ["label", "text"] if len(first_row) == 2 else ["label", "title", "text"]
        self.amazon_form = columns is None and not self.header
        self.form = form if self.delimiter in ",\t" else f"{form} with {self.delimiter!r}"
        if self.amazon_form:
            self.form += ", headerless Amazon form"
        if len(self.names) != len(first_row):
            raise DataError(
                f"{path}: {len(self.names)} column names were given ({', '.join(self.names)}), "
                f"but the first row has {len(first_row)} fields."
            )
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(
                f"{path}: more than one column is named {repeated[0]!r}; name all columns yourself with `columns=`."
            )

    def _detect_delimiter(self) -> str:
        """A comma, unless the first line has none and has semicolons or tabs."""
        with open_text(self.path, self.gzipped, self.encoding) as text:
            line = text.readline(1 << 20)
        return next((mark for mark in (",", ";", "\t") if mark in line), ",")

    def _is_headerless(self, first_row: list[str]) -> bool:
        """Whether the file has the form of the Amazon, Yelp and AG News files: a class number, a title, a text.

        A bare number is never a column name, so the first row decides, confirmed by a few of the next.
        """
        if len(first_row) not in (2, 3):
            return False
        return all(row[0].strip().isdecimal() and len(row[0].strip()) <= 3 for row in islice(self._rows(), 20))

    def _rows(self) -> Iterator[list[str]]:
        """All rows, the header included; blank lines are skipped."""
        with open_text(self.path, self.gzipped, self.encoding) as text:
            rows = self._parse(text)
            while True:
                with _long_fields_allowed():
                    block = list(islice(rows, ROWS_AT_ONCE))
                if not block:
                    return
                yield from block

    def _parse(self, text: io.TextIOWrapper) -> Iterator[list[str]]:
        reader = csv.reader(text, delimiter=self.delimiter, strict=True)
        width, line = None, 1
        try:
            for row in reader:
                if row:
                    width = width or len(row)
                    if len(row) != width:
                        raise DataError(
                            f"{self.path}: the row at line {line} has {len(row)} fields where the first row has "
                            f"{width}; a field that contains a {self.delimiter!r} must be in double quotes."
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
        """The rows in order, at most `rows` at a time, without the header."""
        return in_batches(islice(self._rows(), int(self.header), None), rows)

    def column(self, batch: list[list[str]], name: str) -> list[str | None]:
        """One column of a batch."""
        index = self.names.index(name)
        return [row[index] for row in batch]

    def label_order(self, name: str) -> list[str] | None:
        """None: such a file declares no order."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "_DelimitedWriter":
        """Start a file with the same delimiter, header and encoding."""
        return _DelimitedWriter(self, stream, list(added))


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


@contextmanager
def _long_fields_allowed() -> Iterator[None]:
    """Raise the csv module's limit on fields, which holds for the whole process, and restore it."""
    with _field_limit_lock:
        before = csv.field_size_limit(MAX_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)
