"""Files of rows by their names: CSV, TSV, JSON Lines and Parquet, each of them also gzipped.

A file is read as a stream, one batch at a time, so memory does not grow with it. Errors say where in the file they are;
nothing is repaired silently.
"""

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from textladder.data.delimited_file import DelimitedFile
from textladder.data.json_lines_file import JsonLinesFile
from textladder.data.parquet_file import ParquetFile
from textladder.data.rows import RowFile
from textladder.errors import ConfigError, DataError, unknown_name

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def file_format(path: Path) -> tuple[str, bool]:
    """Tell a file's format from its name, and whether it is gzipped.

    >>> file_format(Path("reviews.csv.gz"))
    ('csv', True)

    Raises:
        ConfigError: the name has an unknown ending.
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
        columns: names for the columns of a CSV or TSV file without a header line.
        encoding: how the text is encoded, by Python's name for it; a UTF-8 byte-order mark is recognised by itself.

    Raises:
        DataError: the file does not exist, is empty, or is not what its name says.
        ConfigError: the format or the encoding is unknown.
    """
    path = Path(path)
    form, gzipped = file_format(path)
    if not os.path.isfile(path):  # unlike Path.is_file, it also accepts names that are too long
        raise DataError(f"{path}: no such file." if not os.path.exists(path) else f"{path}: this is not a file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ConfigError(
            f"Unknown file encoding {encoding!r}; use a name that Python knows, such as utf-8 or latin-1."
        ) from None
    if form in ("csv", "tsv"):
        return DelimitedFile(path, form, gzipped, encoding, columns)
    if columns is not None:
        raise ConfigError(f"{path}: only the columns of a CSV or TSV file can be named; this file has its own names.")
    return JsonLinesFile(path, gzipped, encoding) if form == "jsonl" else ParquetFile(path, gzipped)
