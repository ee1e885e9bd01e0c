"""Files of rows, recognized by what they contain and not by their names.

CSV and its relatives, JSON, Parquet, Arrow, spreadsheets and fastText's format, each also compressed. Most are read as
a stream, one batch at a time, so memory does not grow with them. Errors say where in the file they are; nothing is
repaired silently.
"""

import os
from pathlib import Path

from textladder.data.arrow_file import ArrowFile, arrow_form
from textladder.data.compression import ENDINGS, detect_compression, open_bytes
from textladder.data.delimited_file import DelimitedFile
from textladder.data.fasttext_file import PREFIX, FastTextFile
from textladder.data.file_options import DETECTED, FileOptions
from textladder.data.file_streams import MAX_LINE, TextFile
from textladder.data.json_file import JsonFile, json_form, unlike_json
from textladder.data.rows import RowFile
from textladder.data.spreadsheet_file import SpreadsheetFile, is_spreadsheet
from textladder.errors import ConfigError, DataError, unknown_name

START_CHARACTERS = 1 << 16
START_BYTES = 512
OTHER_FILES = {  # by the bytes at a place
    (0, b"%PDF"): "a PDF",
    (0, b"SQLite format 3"): "a database of SQLite",
    (0, b"7z\xbc\xaf\x27\x1c"): "a 7z archive",
    (0, b"Rar!"): "a RAR archive",
    (0, b"FEA1"): "a Feather file of version 1",
    (0, b"\x89PNG"): "a picture",
    (0, b"\xff\xd8\xff"): "a picture",
    (257, b"ustar"): "a tar archive",
}
FORMATS = {  # of files to be written, by the ending of their name
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


def output_format(path: Path) -> tuple[str, str | None]:
    """Tell the format and the compression of a file to be written from its name.

    >>> output_format(Path("reviews.csv.gz"))
    ('csv', 'gzip')

    Raises:
        ConfigError: the name has an unknown ending.
    """
    compression = ENDINGS.get(path.suffix.lower())
    suffix = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    if suffix not in FORMATS or compression == "zip":
        names = [*FORMATS, *(f"{name}{ending}" for name in FORMATS for ending in ENDINGS if ending != ".zip")]
        raise ConfigError(f"{path}: {unknown_name('file format', suffix or path.name, names)}")
    return FORMATS[suffix], compression


def open_rows(path: str | Path, options: FileOptions = DETECTED) -> RowFile:
    """Open a file of rows.

    Args:
        path: the file.
        options: what need not be detected.

    Raises:
        DataError: the file does not exist, is empty, or cannot be read as what it seems to be.
        ConfigError: the encoding is unknown, or an option does not apply to such a file.
    """
    path = Path(path) if isinstance(path, str) else path
    if not os.path.isfile(path):  # unlike Path.is_file, it also accepts names that are too long
        raise DataError(f"{path}: no such file." if not os.path.exists(path) else f"{path}: this is not a file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    compression = detect_compression(path)
    with open_bytes(path, compression if compression != "zip" else None) as stream:
        start = stream.read(START_BYTES)
    if is_spreadsheet(path, start):
        _refuse(path, options, "spreadsheet", "file_encoding", "delimiter", "quote", "escape")
        return SpreadsheetFile(path, options)
    if compression == "zip":
        with open_bytes(path, compression) as stream:
            start = stream.read(START_BYTES)
    for (place, magic), what in OTHER_FILES.items():
        if start.startswith(magic, place):
            raise DataError(f"{path}: this is {what}, which cannot be read; give the file with the rows itself.")
    form = arrow_form(start)
    if form is not None:
        _refuse(
            path,
            options,
            form,
            "columns",
            "file_encoding",
            "delimiter",
            "quote",
            "escape",
            "header",
            "skip_lines",
            "sheet",
        )
        return ArrowFile(path, form, compression)
    if not start:
        raise DataError(f"{path}: the file is empty.")
    file = TextFile.examine(path, options.file_encoding)
    with file.open() as text:
        beginning = text.read(START_CHARACTERS).lstrip()
        # JSON is told by its whole first line; one that is longer than that is an object
        if beginning.startswith("{") and "\n" not in beginning:
            beginning += text.readline(MAX_LINE)
    if options.delimiter is None and (problem := unlike_json(beginning)):
        raise DataError(f"{path}: {problem}")
    kind = None if options.delimiter else json_form(beginning)
    if kind is not None:
        _refuse(path, options, "JSON file", "columns", "quote", "escape", "header", "skip_lines", "sheet")
        return JsonFile(file, kind)
    if beginning.startswith(PREFIX) and options.delimiter is None:
        _refuse(path, options, "fastText file", "columns", "quote", "escape", "header", "skip_lines", "sheet")
        return FastTextFile(file)
    _refuse(path, options, "delimited file", "sheet")
    return DelimitedFile(file, options)


def _refuse(path: Path, options: FileOptions, kind: str, *names: str) -> None:
    """Refuse options that have no meaning for a kind of file."""
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"{path}: `{name}=` does not apply, because this is a {kind}.")
