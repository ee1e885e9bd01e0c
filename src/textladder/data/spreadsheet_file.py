"""Spreadsheets as sources of rows: Excel's `.xlsx` and `.xls`, and `.ods`."""

import zipfile
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from textladder.data.dialects import MOST_PREAMBLE, has_header
from textladder.data.file_options import FileOptions
from textladder.data.rows import BATCH_ROWS, as_text, in_batches
from textladder.errors import DataError, unknown_name

if TYPE_CHECKING:
    import pyarrow as pa

    from textladder.data.rows import RowWriter

SAMPLE_ROWS = 1000
OLD_EXCEL_MAGIC = b"\xd0\xcf\x11\xe0"


def is_spreadsheet(path: Path, start: bytes) -> bool:
    """Whether a file is a spreadsheet, by what it contains."""
    if start.startswith(OLD_EXCEL_MAGIC):
        return True
    if not start.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile:
        return False
    return "[Content_Types].xml" in names or {"mimetype", "content.xml"} <= names


class SpreadsheetFile:
    """One sheet of a spreadsheet; titles above the rows and a row of names are detected, as in a delimited file.

    Args:
        path: the file.
        options: `sheet`, `columns`, `header` and `skip_lines`.
    """

    amazon_form = False
    typed = True
    output = ""  # spreadsheets are not written

    def __init__(self, path: Path, options: FileOptions) -> None:
        """Read the sheet, which has a million rows at most.

        Raises:
            DataError: it is damaged or protected, has no such sheet, or no rows.
        """
        from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum

        self.path = path
        try:
            workbook = CalamineWorkbook.from_path(str(path))
            names = workbook.sheet_names
            if options.sheet is not None and options.sheet not in names:
                raise DataError(f"{path}: {unknown_name('sheet', options.sheet, names)}")
            visible = [one.name for one in workbook.sheets_metadata if one.visible == SheetVisibleEnum.Visible]
            wanted = [options.sheet] if options.sheet is not None else (visible or names)
            sheet, cells = next(
                ((name, rows) for name in wanted if (rows := workbook.get_sheet_by_name(name).to_python(False))),
                (wanted[0] if wanted else "", []),
            )
        except (CalamineError, OSError) as error:
            raise DataError(f"{path}: the spreadsheet cannot be read ({error}).") from None
        cells = cells[options.skip_lines or 0 :]
        cells = [row for row in cells if any(value != "" for value in row)]
        rows_before = len(cells)
        if options.header is None and options.skip_lines is None:
            cells = _without_titles(cells)
        others = len(names) - 1
        if not cells:
            raise DataError(f"{path}: sheet {sheet!r} has no rows.")
        self.header = (
            _has_names(cells) if options.header is None and options.columns is None else options.header is not False
        )
        titles = rows_before - len(cells)
        self.form = f"spreadsheet, sheet {sheet!r}" + (f" of {len(names)}" if others else "")
        if titles:
            self.form += f", {titles} {'row' if titles == 1 else 'rows'} before the header skipped"
        if not self.header:
            self.form += ", no header"
        width = len(cells[0])
        written = [str(as_text(_plain(value)) or "").strip() for value in cells[0]] if self.header else [""] * width
        self._rows = cells[1:] if self.header else cells
        kept = [index for index, name in enumerate(written) if name or any(row[index] != "" for row in self._rows)]
        self.names = list(options.columns or [written[index] or f"column_{index + 1}" for index in kept])
        if len(self.names) != len(kept):
            raise DataError(
                f"{path}: {len(self.names)} column names were given ({', '.join(self.names)}), "
                f"but the rows have {len(kept)} cells."
            )
        self._index = dict(zip(self.names, kept, strict=True))
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(
                f"{path}: more than one column is named {repeated[0]!r}; name all columns yourself with `columns=`."
            )

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[list[Any]]]:
        """The rows in order, at most `rows` at a time."""
        return in_batches(self._rows, rows)

    def column(self, batch: list[list[Any]], name: str) -> list[str | None]:
        """One column of a batch; an empty cell is missing."""
        index = self._index[name]
        return [as_text(_plain(row[index])) for row in batch]

    def values(self, batch: list[list[Any]], name: str) -> list[Any]:
        """One column of a batch as its values are."""
        return [_plain(row[self._index[name]]) for row in batch]

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "RowWriter":
        """Spreadsheets are not written.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError


def _without_titles(cells: list[list[Any]]) -> list[list[Any]]:
    """The rows from the first one that is not a title: with more than a third of its cells filled."""
    width = max(map(len, cells), default=0)
    filled = [sum(value != "" for value in row) for row in cells]
    first = next((number for number, count in enumerate(filled) if count > max(1, width // 3)), 0)
    return cells[first:] if first <= MOST_PREAMBLE else cells


def _has_names(cells: list[list[Any]]) -> bool:
    """Whether the first row holds names, told as in a delimited file."""
    first, *rest = [[str(as_text(_plain(value)) or "") for value in row] for row in cells[: SAMPLE_ROWS + 1]]
    return has_header(first, rest, len(first))


def _plain(value: Any) -> Any:
    """A cell as a plain value; dates and times as they are written in ISO 8601."""
    if value == "":
        return None
    if isinstance(value, float) and value.is_integer():  # a spreadsheet has no integers
        return int(value)
    return value.isoformat(sep=" ") if isinstance(value, datetime) else (
        value.isoformat() if isinstance(value, (date, time)) else value
    )  # fmt: skip
