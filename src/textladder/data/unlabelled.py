"""Texts without labels: one document a line, of a text file or of a gzipped one."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from textladder.errors import DataError


def read_documents(path: str | Path) -> Iterator[str]:
    """The lines of a file that are not blank, as they come.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has no text in it.
    """
    found = line = 0
    try:
        with gzip.open(path) if str(path).endswith(".gz") else Path(path).open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
                if "\0" in text:
                    raise DataError(f"{path}: line {line:,} holds a zero byte, so this is no text file.")
                if text:
                    found += 1
                    yield text
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {line:,} is not UTF-8 ({error.reason}); convert the file first.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: the file cannot be read ({reason}).") from None
    if not found:
        raise DataError(f"{path}: there is no text in this file.")
