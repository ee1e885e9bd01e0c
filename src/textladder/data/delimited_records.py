"""Lines of a delimited file to records, and back: quoting as in RFC 4180, with every departure from it reported.

The parser is Python's `csv` in its strict mode. Around it, each record knows its line, and a record that breaks the
rules of its dialect says how and ends at its first line, so that a stray quote swallows nothing.
"""

import csv
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from typing import NamedTuple, TextIO

MAX_FIELD = 1 << 26  # characters; a longer field is a quote that was never closed
RECORDS_AT_ONCE = 256  # records parsed each time the csv module's limit on fields is raised
LINE_END = "\r\n"
_field_limit_lock = threading.Lock()


@dataclass(frozen=True)
class Dialect:
    """How fields are written.

    Attributes:
        delimiter: what separates fields; None if every line is one field.
        quote: what encloses a field; None if quotes are plain text.
        escape: what escapes a quote inside a quoted field; None if it is doubled. Without quoting, it escapes
            delimiters.
        space_after_delimiter: whether a space after each delimiter belongs to it.
        bare_quotes: whether quotes inside a quoted field are written as they are, neither doubled nor escaped; the last
            one before a delimiter or the end of the line then closes the field.
    """

    delimiter: str | None = ","
    quote: str | None = '"'
    escape: str | None = None
    space_after_delimiter: bool = False
    bare_quotes: bool = False

    @property
    def separator(self) -> str:
        """A delimiter for parsers that need one: a character that text files do not contain if there is none."""
        return "\0" if self.delimiter is None else self.delimiter

    @cached_property
    def _escaped(self) -> re.Pattern[str]:
        return re.compile(rf"{re.escape(self.escape or '')}([{re.escape((self.escape or '') + (self.quote or ''))}])")

    def unescaped(self, line: str) -> str:
        """A line with escaped quotes doubled instead, and escaped escapes as they are meant."""
        quote = self.quote
        if self.escape is None or quote is None or self.escape not in line:
            return line
        return self._escaped.sub(lambda found: quote * 2 if found[1] == quote else str(found[1]), line)


class Record(NamedTuple):
    """A record.

    Attributes:
        line: the number of its first line, from 1.
        lines: how many lines it takes.
        fields: its fields; empty for a blank line.
        problem: how it departs from its dialect, as a clause; None if it does not.
    """

    line: int
    lines: int
    fields: list[str]
    problem: str | None = None


class _Lines:
    """Lines for the csv module that remember what was taken for the current record."""

    def __init__(self, lines: Iterable[str], dialect: Dialect) -> None:
        self._lines, self._dialect = iter(lines), dialect
        self._returned: list[str] = []  # lines to be read again, the next one last
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else next(self._lines)
        self.taken.append(line)
        return self._dialect.unescaped(line)

    def keep_one(self) -> None:
        """Give back all lines of the current record but its first."""
        self._returned.extend(reversed(self.taken[1:]))
        del self.taken[1:]


def read_records(lines: Iterable[str], dialect: Dialect, *, first_line: int = 1) -> Iterator[Record]:
    """Parse lines into records.

    Args:
        lines: lines with their ends; an end is a line feed, a carriage return, or both.
        dialect: how fields are written.
        first_line: the number of the first line.

    Yields:
        Every record, blank lines and broken records included, so that their lines add up to all lines.
    """
    if dialect.bare_quotes:
        yield from _records_with_bare_quotes(lines, dialect, first_line)
        return
    records = _read_records(lines, dialect, first_line)
    while True:
        with _long_fields_allowed():
            some = list(islice(records, RECORDS_AT_ONCE))
        if not some:
            return
        yield from some


def _read_records(lines: Iterable[str], dialect: Dialect, line: int) -> Iterator[Record]:
    source = _Lines(lines, dialect)
    reader = _csv_reader(source, dialect)
    while True:
        problem, fields = None, []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not source.taken:
                return
            problem = _problem(str(error), dialect)
            source.keep_one()
            reader = _csv_reader(source, dialect)
        if dialect.quote is not None and problem is None and any(dialect.quote in field for field in fields):
            problem = _stray_quotes(source.taken, dialect)
        yield Record(line, len(source.taken), fields, problem)
        line += len(source.taken)
        source.taken.clear()


def _records_with_bare_quotes(lines: Iterable[str], dialect: Dialect, first_line: int) -> Iterator[Record]:
    """Every line is a record, and a quote closes a field only before a delimiter or at the end."""
    quote, delimiter = re.escape(dialect.quote or ""), re.escape(dialect.separator)
    field = re.compile(rf"(?:{quote}(.*?){quote}|([^{delimiter}]*))({delimiter}|$)")
    for number, line in enumerate(lines, start=first_line):
        text = line.rstrip(LINE_END)
        fields, end = [], 0
        while text and (found := field.match(text, end)):
            fields.append(found[2] if found[1] is None else found[1])
            end = found.end()
            if not found[3]:
                break
        unclosed = any(one.startswith(dialect.quote or "\0") for one in fields)
        problem = f"a quote ({dialect.quote}) is opened and never closed" if unclosed else None
        yield Record(number, 1, fields, problem)


def are_quoted(text: str, dialect: Dialect) -> list[bool]:
    """Which fields of a record are in quotes.

    >>> are_quoted('"a",1,""', Dialect(",", '"'))
    [True, False, True]
    """
    return [field is None for field in _unquoted_fields(text, dialect)]


def _unquoted_fields(text: str, dialect: Dialect) -> Iterator[str | None]:
    """The fields of a record as they are written, None in place of those in quotes."""
    quote, delimiter = re.escape(dialect.quote or ""), re.escape(dialect.separator)
    text = dialect.unescaped(text).rstrip(LINE_END)
    space = " *" if dialect.space_after_delimiter else ""
    field = re.compile(rf"{space}(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|([^{delimiter}]*))({delimiter}|$)")
    for found in field.finditer(text):
        yield found[1]
        if not found[2]:
            return


class RecordWriter:
    """Writes records that every reader takes for the same fields.

    Quotes are doubled. A field is quoted if it contains the delimiter, a quote, a line end or a byte-order mark, begins
    with a quote of another kind, or begins or ends with a blank; a record of one empty field is a pair of quotes.

    Args:
        text: where to write.
        delimiter: what separates fields.
        quote: what encloses them.
        line_end: what ends a record.
    """

    def __init__(self, text: TextIO, delimiter: str, quote: str, line_end: str) -> None:
        self._text, self._delimiter, self._quote, self._line_end = text, delimiter, quote, line_end
        self._needs_quotes = re.compile(rf"[{re.escape(delimiter + quote)}{LINE_END}\ufeff]|\A[\"'\s]|\s\Z").search

    def write(self, record: Iterable[object], quoted: Iterable[bool] = repeat(False)) -> None:
        """Write a record; None is an empty field, and a zero byte, which would make the file binary, is escaped.

        Args:
            record: the fields.
            quoted: which of them are quoted even if they need not be.
        """
        self.write_columns([[value] for value in record], quoted)

    def write_columns(self, columns: Sequence[Sequence[object]], quoted: Iterable[bool] = repeat(False)) -> None:
        """Write many records; columns take half the time that one record after the other takes.

        Args:
            columns: the fields of each column.
            quoted: which columns are quoted even where they need not be.
        """
        fields = [self._fields(values, always) for values, always in zip(columns, quoted, strict=False)]
        for line in map(self._delimiter.join, zip(*fields, strict=True)):
            self._text.write((line or self._quote * 2) + self._line_end)

    def _fields(self, values: Sequence[object], quoted: bool) -> list[str]:
        texts = ["" if value is None else str(value) for value in values]
        if any("\0" in text for text in texts):
            texts = [text.replace("\0", "\\x00") for text in texts]
        if not quoted and not any(map(self._needs_quotes, texts)):
            return texts
        quote, twice = self._quote, 2 * self._quote
        return [
            f"{quote}{text.replace(quote, twice)}{quote}" if quoted or self._needs_quotes(text) else text
            for text in texts
        ]


def _csv_reader(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    quoting = {"quoting": csv.QUOTE_NONE} if dialect.quote is None else {"quotechar": dialect.quote}
    return csv.reader(
        lines,
        delimiter=dialect.separator,
        escapechar=dialect.escape if dialect.quote is None else None,
        skipinitialspace=dialect.space_after_delimiter,
        strict=True,
        **quoting,
    )


def _problem(error: str, dialect: Dialect) -> str:
    if "unexpected end of data" in error:
        return f"a quote ({dialect.quote}) is opened and never closed"
    if "expected after" in error:
        return f"a quoted field is followed by other text; a quote ({dialect.quote}) inside a quoted field is doubled"
    if "field limit" in error:
        return f"a field has more than {MAX_FIELD:,} characters, as if a quote ({dialect.quote}) was never closed"
    return error


def _stray_quotes(lines: list[str], dialect: Dialect) -> str | None:
    """Tell whether quotes in unquoted fields make it doubtful where fields end.

    One unquoted field with a quote, such as `a 5" pipe`, is plain text. If a quote opens in the middle of one field and
    closes at the end of another, then a delimiter before the first is missing.
    """
    fields = _unquoted_fields("".join(lines), dialect)
    odd = sum((field or "").count(dialect.quote or "") % 2 for field in fields)
    if odd < 2:
        return None
    return f"{odd} unquoted fields contain a single quote ({dialect.quote}) each, as if a delimiter was missing"


@contextmanager
def _long_fields_allowed() -> Iterator[None]:
    """Raise the csv module's limit on fields, which holds for the whole process, and restore it."""
    with _field_limit_lock:
        before = csv.field_size_limit(MAX_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)
