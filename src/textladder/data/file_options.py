"""What a person may say about a file, where it should not be detected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from textladder.errors import ConfigError, DataError, unknown_name

BAD_ROWS = ("error", "skip")
BAD_ROWS_SHARE = 0.05  # of the rows may be skipped
SHOWN_LINES = 10


@dataclass(frozen=True)
class FileOptions:
    """How to read a file of rows; None for what is to be detected.

    Attributes:
        columns: names for the columns, in order, in place of those of the header if there is one.
        file_encoding: the encoding of the text, by Python's name.
        delimiter: the character between fields of a delimited file.
        quote: the character around a field; empty if quotes are plain text.
        escape: the character before a quote in a quoted field; empty if quotes are doubled.
        header: whether the first row holds the column names.
        skip_lines: lines to skip before the header.
        sheet: the sheet of a spreadsheet, by name; by default the first with rows.
        bad_rows: what happens to rows of a delimited file that cannot be read: `error` or `skip`.

    Raises:
        ConfigError: a value is out of range.
    """

    columns: Sequence[str] | None = None
    file_encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    header: bool | None = None
    skip_lines: int | None = None
    sheet: str | None = None
    bad_rows: str = "error"

    def __post_init__(self) -> None:
        if self.delimiter in ("tab", "\\t"):  # as people type it in a shell
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"'):
            raise ConfigError(f"delimiter must be one character, or 'tab'; received {self.delimiter!r}.")
        for name in ("quote", "escape"):
            value = getattr(self, name)
            if value and (len(value) != 1 or value in "\r\n" or value == self.delimiter):
                raise ConfigError(f"{name} must be one character other than the delimiter; received {value!r}.")
        if self.skip_lines is not None and self.skip_lines < 0:
            raise ConfigError(f"skip_lines must be 0 or more; received {self.skip_lines}.")
        if self.bad_rows not in BAD_ROWS:
            raise ConfigError(f"bad_rows must be error or skip; received {self.bad_rows!r}.")
        if self.columns is not None:
            repeated = sorted({name for name in self.columns if list(self.columns).count(name) > 1})
            if repeated:
                raise ConfigError(f"Column names must be distinct; {repeated[0]!r} is given twice.")


DETECTED = FileOptions()
FILE_OPTIONS = tuple(one.name for one in fields(FileOptions))


def file_options(given: Mapping[str, Any]) -> FileOptions:
    """The options that a caller gave by name.

    Raises:
        ConfigError: there is no such option, or a value is out of range.
    """
    for name in given:
        if name not in FILE_OPTIONS:
            raise ConfigError(unknown_name("argument", name, FILE_OPTIONS))
    return FileOptions(**given)


class BadRows:
    """Counts the rows of a pass over a file that cannot be read, or refuses the first one.

    Args:
        source_name: what messages call the file.
        skip: leave such rows out instead of refusing them.
    """

    def __init__(self, source_name: str, *, skip: bool) -> None:
        self.source_name, self.skip = source_name, skip
        self.count, self.first_lines = 0, []  # type: tuple[int, list[tuple[int, str]]]

    def add(self, line: int, problem: str) -> None:
        """Note a row.

        Args:
            line: its first line, from 1.
            problem: why it cannot be read, as a clause.

        Raises:
            DataError: such rows are not to be skipped.
        """
        if not self.skip:
            raise DataError(
                f"{self.source_name}: the row at line {line} cannot be read: {problem}; "
                'to leave such rows out, pass `bad_rows="skip"`.'
            )
        self.count += 1
        if len(self.first_lines) < SHOWN_LINES:
            self.first_lines.append((line, problem))

    def check(self, rows: int) -> None:
        """Check, at the end of the file, that not too many rows were skipped.

        Args:
            rows: the rows that could be read.

        Raises:
            DataError: over 5% were skipped.
        """
        if self.count > max(1, BAD_ROWS_SHARE * (rows + self.count)):
            raise DataError(
                f"{self.source_name}: {self.count:,} of {rows + self.count:,} rows cannot be read, which is too many "
                f"to skip ({self.sentence()}); check the delimiter and the quoting."
            )

    def sentence(self) -> str:
        """Where the first rows are and what is wrong with the first of them; empty if there are none."""
        if not self.count:
            return ""
        line, problem = self.first_lines[0]
        more = ", ".join(str(number) for number, _ in self.first_lines[1:])
        etc = ", ..." if self.count > len(self.first_lines) else ""
        return f"line {line}: {problem}" + (f"; also lines {more}{etc}" if more else "")
