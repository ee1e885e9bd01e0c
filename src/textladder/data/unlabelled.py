"""Unlabelled texts: one document per line of a text file, which may be gzipped."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from textladder.data.file_streams import MAX_LINE
from textladder.errors import DataError


def read_documents(path: str | Path) -> Iterator[str]:
    """Yield the lines of a file that are not blank, one at a time.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or contains no text.
    """
    documents = line_number = 0
    try:
        with gzip.open(path) if str(path).endswith(".gz") else Path(path).open("rb") as stream:
            for line_number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), start=1):
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}: line {line_number:,} has more than {MAX_LINE:,} bytes.")
                text = line.decode("utf-8-sig" if line_number == 1 else "utf-8").strip()
                if "\0" in text:
                    raise DataError(f"{path}: line {line_number:,} contains a zero byte; this is not a text file.")
                if text:
                    documents += 1
                    yield text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: line {line_number:,} is not UTF-8 ({error.reason}); convert the file to UTF-8 first."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: the file cannot be read ({reason}).") from None
    if not documents:
        raise DataError(f"{path}: the file contains no text.")
