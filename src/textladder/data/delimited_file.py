"""CSV and other delimited files as sources of rows.

`dialects.py` looks at the first lines and says how the file is written. Then the whole file is read strictly as that:
a row that does not fit is an error with its line, or is skipped and counted. Blocks whose quotes are all where the
rules want them are parsed by Arrow, which is several times as fast as `delimited_records.py`; from the first block that
is not so regular, every record is parsed by itself.
"""

import codecs
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from textladder.data.columns import MIN_JUDGED, mean_words
from textladder.data.delimited_records import (
    LINE_END,
    MAX_FIELD,
    Dialect,
    Record,
    RecordWriter,
    are_quoted,
    read_records,
)
from textladder.data.dialects import Known, Layout, detect_layout
from textladder.data.file_options import BadRows, FileOptions
from textladder.data.file_streams import TextFile, bounded_lines
from textladder.data.rows import BATCH_ROWS
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_CHARACTERS = 1 << 17
BLOCK_BYTES = 1 << 21
# Fields of a row that may end with a delimiter where the header does not. In wider tables that looks the same as a
# header that lacks a delimiter, with an empty last column.
MAX_TRAILING = 4
LINES_LIKE_ROWS = 2  # inside a field: as if a stray quote had swallowed them
MOST_AMAZON_CLASSES = 20  # DBpedia has 14
BYTE_ORDER_MARK = "\ufeff"
DELIMITER_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}


class DelimitedFile:
    """A CSV, TSV or similarly delimited file.

    Attributes:
        file: its compression and encoding.
        layout: its dialect, and where the rows begin.
        names: the columns that are read; unnamed columns without values are left out.
        skipped: what was left out in the last complete pass, by reason: bad rows and repeated headers.
    """

    def __init__(self, file: TextFile, options: FileOptions) -> None:
        """Look at the first lines.

        Args:
            file: the file.
            options: what need not be detected.

        Raises:
            DataError: there are no rows, or the column names do not fit them.
        """
        self.file, self.path, self.options = file, file.path, options
        named = options.columns is not None
        known = Known(options.delimiter, options.quote, options.escape, options.header, named, options.skip_lines)
        lines, complete = self._sample()
        if not any(line.strip() for line in lines):
            raise DataError(f"{self.path}: the file has no rows.")
        self.layout: Layout = detect_layout(lines, complete, known)
        self.dialect: Dialect = self.layout.dialect
        self.skipped: dict[str, str] = {}
        self.header = self.layout.header is not None
        rest = lines[self.layout.skipped_lines + self.layout.header_lines :]
        self._first_rows = [
            one.fields
            for one in read_records(rest, self.dialect)
            if self._problem(one) is None and not self._is_blank(one)
        ]
        self._choose_columns()
        self.line_end = next((end for end in ("\r\n", "\n", "\r") if lines[0].endswith(end)), "\n")

    def _sample(self) -> tuple[list[str], bool]:
        """The first lines, and whether these are all."""
        with self.file.open() as text:
            start = text.read(SAMPLE_CHARACTERS)
            start += text.readline(SAMPLE_CHARACTERS)
            complete = not text.read(1)
        if "\0" in start:
            raise DataError(f"{self.path}: the file contains zero bytes; this is not a text file.")
        return io.StringIO(start, newline="").readlines(), complete

    def quoted_columns(self) -> tuple[list[bool], list[bool]]:
        """Which names are in quotes, and which columns have all of their values in quotes, in the first lines."""
        lines, _ = self._sample()
        lines = lines[self.layout.skipped_lines :]
        first_row = self.layout.header_lines + 1
        header, rows = [False] * self.layout.width, []
        if self.dialect.quote is not None:
            for one in read_records(lines, self.dialect):
                written = are_quoted("".join(lines[one.line - 1 : one.line - 1 + one.lines]), self.dialect)
                if one.problem is not None or len(written) != self.layout.width:
                    continue
                if one.line < first_row:
                    header = written
                else:
                    rows.append(written)
        columns = [all(column) for column in zip(*rows, strict=True)] if rows else [False] * self.layout.width
        return [header[index] for index in self._kept], [columns[index] for index in self._kept]

    def _choose_columns(self) -> None:
        """Set the names, and the width and the empty columns of the rows."""
        layout, options = self.layout, self.options
        rows = self._first_rows
        written = [name.strip().removeprefix(BYTE_ORDER_MARK) for name in layout.header or [""] * layout.width]
        if len(written) == layout.width - 1 < MAX_TRAILING and not any(row[-1] for row in rows):
            written.append("")  # a delimiter at the end of every row but the header
        if len(written) != layout.width and rows:
            line = layout.skipped_lines + 1
            raise DataError(
                f"{self.path}: the header at line {line} has {len(written)} fields, but the rows have {layout.width}; "
                "correct it, or set how the file is written (`delimiter=`, `quote=`, `header=`, `skip_lines=`)."
            )
        self.typed = False
        self.amazon_form = options.columns is None and not self.header and _is_amazon_form(rows)
        self._empty = frozenset(
            index for index, name in enumerate(written)
            if self.header and not name and rows and not any(row[index].strip() for row in rows)
        )  # fmt: skip
        kept = [index for index in range(len(written)) if index not in self._empty]
        if options.columns is not None:
            if len(options.columns) != len(kept):
                raise DataError(
                    f"{self.path}: {len(options.columns)} column names were given ({', '.join(options.columns)}), "
                    f"but the rows have {len(kept)} fields."
                )
            self.names = list(options.columns)
        elif self.amazon_form:
            self.names = ["label", "text"] if len(kept) == 2 else ["label", "title", "text"]
        else:
            self.names = [written[index] or f"column_{index + 1}" for index in kept]
        self._kept = kept
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(
                f"{self.path}: more than one column is named {repeated[0]!r}; "
                "name all columns yourself with `columns=`."
            )

    @property
    def output(self) -> str:
        """The ending of files with this delimiter."""
        return "tsv" if self.dialect.delimiter == "\t" else "csv"

    @property
    def form(self) -> str:
        """What was found, in a few words: `csv, tab, quote "`."""
        parts = ["tsv" if self.dialect.delimiter == "\t" else "csv"]
        if self.file.compression:
            parts.append(self.file.compression)
        if self.file.encoding not in ("utf-8", "ascii"):
            parts.append("utf-8 with a byte-order mark" if self.file.encoding == "utf-8-sig" else self.file.encoding)
        if self.dialect.delimiter is None:
            parts.append("one column")
        elif self.dialect.delimiter not in ",\t":
            parts.append(f"delimiter {self.dialect.delimiter!r}")
        if self.dialect.space_after_delimiter:
            parts.append("a space after each delimiter")
        if self.dialect.quote is None:
            parts.append("quotes are plain text")
        elif self.dialect.quote != '"':
            parts.append(f"quoted with {self.dialect.quote}")
        if self.dialect.bare_quotes:
            parts.append("quotes inside fields neither doubled nor escaped")
        if self.dialect.escape:
            parts.append(f"quotes escaped with {self.dialect.escape}")
        if self.layout.skipped_lines:
            lines = "line" if self.layout.skipped_lines == 1 else "lines"
            parts.append(f"{self.layout.skipped_lines} {lines} before the header skipped")
        if self.layout.header_lines > 1:
            parts.append(f"header of {self.layout.header_lines} lines")
        if self.amazon_form:
            parts.append("headerless Amazon form")
        elif not self.header:
            parts.append("no header")
        elif not self.layout.sure:
            parts.append("the first line taken for the header (if it is a row: --no-header, in Python header=False)")
        if self._empty:
            columns = "column" if len(self._empty) == 1 else "columns"
            parts.append(f"{len(self._empty)} unnamed empty {columns} left out")
        return ", ".join([*parts, *self.skipped.values()])

    def _problem(self, record: Record) -> str | None:
        """Why a record is not a row, as a clause; None if it is one, or is blank."""
        width = self.layout.width
        if record.problem is not None or len(record.fields) == width or not record.fields or self._is_blank(record):
            return record.problem
        delimiter = self.dialect.delimiter or ","
        name = DELIMITER_NAMES.get(delimiter, repr(delimiter))
        count = f"{len(record.fields)} field{'s' if len(record.fields) > 1 else ''}"
        hint = f"; a field that contains a {name} must be in quotes" if len(record.fields) > width else ""
        return f"it has {count} where the others have {width}{hint}"

    def _is_blank(self, record: Record) -> bool:
        """Whether a record is a blank line; in a file of one column that is a row with an empty value."""
        return self.layout.width > 1 and (
            not record.fields or (len(record.fields) == 1 and not record.fields[0].strip())
        )

    def _is_header(self, fields: Sequence[str]) -> bool:
        header = self.layout.header if self.layout.header_lines == 1 else None
        return (
            header is not None and len(fields) > 1 and [fields[0].removeprefix(BYTE_ORDER_MARK), *fields[1:]] == header
        )

    def batches(self, rows: int = BATCH_ROWS) -> Iterator["pa.RecordBatch"]:
        """The rows in order as Arrow record batches of at most `rows`; every column is a string.

        Raises:
            DataError: a row cannot be read, or too many were skipped.
        """
        bad_rows = BadRows(f"{self.path}", skip=self.options.bad_rows == "skip")
        headers: list[int] = []
        count, self.skipped = 0, {}
        for batch in self._batches(rows, bad_rows, headers):
            count += batch.num_rows
            yield batch
        bad_rows.check(count)
        if bad_rows.count:
            rows_ = "row" if bad_rows.count == 1 else "rows"
            self.skipped["bad rows"] = f"{bad_rows.count:,} bad {rows_} skipped ({bad_rows.sentence()})"
        if headers:
            lines = ", ".join(map(str, headers[:10]))
            self.skipped["headers"] = f"the header is repeated at line {lines} and left out there"

    def _batches(self, rows: int, bad_rows: BadRows, headers: list[int]) -> Iterator["pa.RecordBatch"]:
        line = 1 + self.layout.skipped_lines + self.layout.header_lines
        if self._is_simple():
            for start, table in self._regular_blocks(line):
                if table is None:
                    line = start
                    break
                yield from table.to_batches(max_chunksize=rows)
            else:
                return
        with self.file.open() as text:
            lines = self._checked(itertools.islice(bounded_lines(text, self.path), line - 1, None), line)
            yield from self._parsed(read_records(lines, self.dialect, first_line=line), rows, bad_rows, headers)

    def _is_simple(self) -> bool:
        """Whether Arrow reads the dialect as it is meant."""
        dialect = self.dialect
        return (
            self.file.encoding in ("utf-8", "utf-8-sig", "ascii")
            and dialect.escape is None
            and not dialect.bare_quotes
            and dialect.delimiter is not None
            and not dialect.space_after_delimiter
            and self.layout.width > 1
        )

    def _regular_blocks(self, first_line: int) -> Iterator[tuple[int, "pa.Table | None"]]:
        """Parse block after block while they are regular.

        Args:
            first_line: the number of the first line after the header.

        Yields:
            The number of a block's first line, and its rows; None in place of the rows of the first block that has to
            be parsed record by record, with which it ends.
        """
        with self.file.open_bytes() as stream:
            line, data = 1, b""
            while more := stream.read(BLOCK_BYTES):
                data += more
                if line < first_line:
                    start = _after_lines(data, first_line - 1)
                    if start is None:
                        continue
                    line, data = first_line, data[start:]
                elif line == 1 and data.startswith(codecs.BOM_UTF8):
                    data = data[len(codecs.BOM_UTF8) :]
                end, long = _regular_end(data, self.dialect, last=False)
                if end == 0 and len(data) < MAX_FIELD:
                    continue
                table = self._arrow_table(data[:end], long) if end else None
                yield line, table
                if table is None:
                    return
                line, data = line + _count_lines(data[:end]), data[end:]
            if data.strip(b"\r\n") and line >= first_line:
                end, long = _regular_end(data, self.dialect, last=True)
                yield line, self._arrow_table(data, long) if end else None

    def _arrow_table(self, block: bytes, long: Sequence[str]) -> "pa.Table | None":
        """Parse a regular block; None if one of its rows does not fit, or a long field looks like rows."""
        import pyarrow as pa
        import pyarrow.compute as compute
        from pyarrow import csv as arrow_csv

        if block.startswith(codecs.BOM_UTF8):  # of a field; at the start of its input Arrow would drop it
            block = b"\n" + block
        places = [f"{index}" for index in range(self.layout.width)]
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block),
                read_options=arrow_csv.ReadOptions(column_names=places, block_size=len(block) + 1, use_threads=False),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.dialect.separator,
                    quote_char=self.dialect.quote or False,
                    newlines_in_values=self.dialect.quote is not None,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            return None
        first = self.layout.header[0] if self.layout.header else None
        if first is not None:  # a repeated header
            values = pa.array([first, BYTE_ORDER_MARK + first])
            if compute.any(compute.is_in(table.column(0), values)).as_py():
                return None
        if any(compute.any(compute.not_equal(table.column(index), "")).as_py() for index in self._empty):
            return None
        if self._few_values and any(map(self._looks_like_rows, long)):
            return None
        return table.select(self._kept).rename_columns(self.names)

    def _looks_like_rows(self, field: str) -> bool:
        """Whether the lines inside a field would be rows, were the quotes around it plain text.

        They have as many fields as a row, and the usual values in a column that has few.
        """
        inside = [line.split(self.dialect.separator) for line in field.split("\n")[1:-1]]
        if len(inside) < LINES_LIKE_ROWS or any(len(fields) != self.layout.width for fields in inside):
            return False
        return any(all(fields[index] in values for fields in inside) for index, values in self._few_values.items())

    @cached_property
    def _few_values(self) -> dict[int, set[str]]:
        """The values of the columns that have few of them, by the place of the column."""
        columns = dict(enumerate(zip(*self._first_rows, strict=False)))
        found = {index: set(values) for index, values in columns.items()}
        return {index: values for index, values in found.items() if len(values) <= len(columns[index]) // 4}

    def _checked(self, lines: Iterator[str], first: int) -> Iterator[str]:
        """The lines, none of which has a zero byte."""
        for number, line in enumerate(lines, start=first):
            if "\0" in line:
                raise DataError(f"{self.path}: line {number} contains a zero byte; this is not a text file.")
            yield line

    def _parsed(
        self, records: Iterator[Record], rows: int, bad_rows: BadRows, headers: list[int]
    ) -> Iterator["pa.RecordBatch"]:
        """Batches of the records that are rows."""
        fields: list[list[str]] = []
        blank_lines = 0
        swallowing: list[Record] = []
        for one in records:
            problem = self._problem(one)
            if problem is None and self._is_blank(one):
                continue
            if problem is None and self._is_header(one.fields):
                headers.append(one.line)
                continue
            if problem is None and any(one.fields[index].strip() for index in self._empty):
                problem = "it has a value in an unnamed column that is empty in the first rows; name it with `columns=`"
            if problem is not None:
                bad_rows.add(one.line, problem)
                continue
            if one.lines > LINES_LIKE_ROWS + 1 and any(map(self._looks_like_rows, one.fields)):
                swallowing.append(one)
            blank_lines += not one.fields
            fields.append(one.fields or [""])
            if len(fields) == rows:
                yield self._record_batch(fields)
                fields = []
        if fields:
            yield self._record_batch(fields)
        if swallowing:
            first = swallowing[0]
            others = f", and {len(swallowing) - 1:,} more do" if len(swallowing) > 1 else ""
            self.skipped["swallowing"] = (
                f"a field at line {first.line} spans {first.lines} lines that look like rows{others} (if its quote is "
                "plain text: --no-quotes, in Python quote='')"
            )
        if blank_lines:
            lines = "line is" if blank_lines == 1 else "lines are"
            self.skipped["blank lines"] = f"{blank_lines:,} blank {lines} read as empty texts"

    def _record_batch(self, fields: list[list[str]]) -> "pa.RecordBatch":
        import pyarrow as pa

        columns = list(zip(*fields, strict=True))
        return pa.record_batch([pa.array(columns[index], pa.string()) for index in self._kept], names=self.names)

    def column(self, batch: "pa.RecordBatch", name: str) -> list[str | None]:
        """One column of a batch."""
        return batch.column(name).to_pylist()  # type: ignore[no-any-return]

    def values(self, batch: "pa.RecordBatch", name: str) -> list[Any]:
        """One column of a batch."""
        return self.column(batch, name)

    def label_order(self, name: str) -> list[str] | None:
        """None: such a file declares no order."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "_DelimitedWriter":
        """Start a file with the same delimiter, header and encoding."""
        return _DelimitedWriter(self, stream, list(added))


def _is_amazon_form(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows have the form of the Amazon, Yelp and AG News files: a class number, perhaps a title, a text.

    Numbers that count the rows or have many values are no classes, nor are any if the last column has few words.
    """
    if not rows or len(rows[0]) not in (2, 3) or not all(row[0].strip().isdecimal() for row in rows[:20]):
        return False
    columns = list(zip(*rows, strict=True))
    numbers = [int(one) for one in columns[0] if one.strip().isdecimal()]
    if len(numbers) > 2 and all(after == before + 1 for before, after in itertools.pairwise(numbers)):
        return False
    other_label = len(set(columns[-1])) <= len(rows) // 4 and mean_words(columns[-1]) < 2
    return max(numbers) < 100 and (
        len(rows) < MIN_JUDGED or (len(set(numbers)) <= MOST_AMAZON_CLASSES and not other_label)
    )


def _after_lines(data: bytes, count: int) -> int | None:
    """The position after a number of lines; None if there are fewer."""
    position = 0
    for _ in range(count):
        ends = [end for mark in (b"\n", b"\r") if (end := data.find(mark, position)) >= 0]
        if not ends:
            return None
        position = min(ends) + (2 if data[min(ends) : min(ends) + 2] == b"\r\n" else 1)
    return position


def _count_lines(block: bytes) -> int:
    returns = block.count(b"\r")
    return block.count(b"\n") + (returns - block.count(b"\r\n") if returns else 0)


def _regular_end(data: bytes, dialect: Dialect, *, last: bool) -> tuple[int | None, list[str]]:
    """Where the last complete record of a block ends, if every quote up to there opens, closes or doubles.

    A quote opens after a delimiter or a line end and closes before one; between a pair of doubled quotes one field
    would close and the next open. So opening and closing quotes alternate, and it suffices to look at their neighbours.

    Args:
        data: a block that begins with a record.
        dialect: its delimiter and quote.
        last: whether the file ends with the block.

    Returns:
        The position, None if some quote is elsewhere or the block contains a zero byte; and the fields with
        many lines.
    """
    block = np.frombuffer(data, np.uint8)
    if b"\0" in data:
        return None, []
    quotes = np.array([], np.int64)
    if dialect.quote is not None:
        quotes = np.flatnonzero(block == ord(dialect.quote))
    line_ends = np.flatnonzero(block == ord("\n"))
    if not len(line_ends):  # lines may end with carriage returns alone, of which the last may be half an end
        line_ends = np.flatnonzero(block[:-1] == ord("\r"))
    before_end = np.searchsorted(quotes, line_ends)  # an odd number of quotes before a line end inside a field
    inside = before_end[before_end % 2 == 1]
    closing = np.unique(inside[LINES_LIKE_ROWS:][inside[LINES_LIKE_ROWS:] == inside[:-LINES_LIKE_ROWS]])
    closing = closing[closing < len(quotes)]
    spans = zip(quotes[closing - 1].tolist(), quotes[closing].tolist(), strict=True)
    long = [data[start + 1 : stop].decode(errors="replace") for start, stop in spans]
    if last:
        end = len(block)
        if len(quotes) % 2:
            return None, long
    else:
        outside = line_ends[before_end % 2 == 0]
        if not len(outside):
            return 0, long
        end = int(outside[-1]) + 1
        quotes = quotes[: np.searchsorted(quotes, end)]
    if not len(quotes):
        return end, long
    around = np.frombuffer((dialect.separator + (dialect.quote or "") + LINE_END).encode(), np.uint8)
    opening, closing = quotes[0::2], quotes[1::2]
    before = block[opening[opening > 0] - 1]
    after = block[closing[closing < end - 1] + 1]
    return end if np.isin(before, around).all() and np.isin(after, around).all() else None, long


class _DelimitedWriter:
    """Writes rows with the delimiter, the quote, the line ends and the encoding of their source."""

    def __init__(self, source: DelimitedFile, stream: IO[bytes], added: Sequence[str]) -> None:
        self.text = source.file.writer(stream)
        dialect = source.dialect
        self.records = RecordWriter(self.text, dialect.delimiter or ",", dialect.quote or '"', source.line_end)
        quoted_names, self.quoted = source.quoted_columns()
        # a further column is quoted like those before it if these are all alike
        self.quoted += [all(self.quoted)] * len(added)
        if source.header:
            self.records.write([*source.names, *added], [*quoted_names, *[all(quoted_names)] * len(added)])

    def add(self, batch: "pa.RecordBatch", columns: Sequence[Sequence[Any]]) -> None:
        self.records.write_columns([*(column.to_pylist() for column in batch.columns), *columns], self.quoted)

    def close(self) -> None:
        self.text.flush()
        self.text.detach()
