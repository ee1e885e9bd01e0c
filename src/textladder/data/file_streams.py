"""Bytes and text of a file that may be gzipped; whatever cannot be read becomes one sentence with its position."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from textladder.errors import DataError


@contextmanager
def open_bytes(path: Path, gzipped: bool) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed.

    Raises:
        DataError: the archive is damaged, or the file cannot be read.
    """
    try:
        with gzip.open(path) if gzipped else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip archive is damaged or truncated ({error}).") from None
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from None


@contextmanager
def open_text(path: Path, gzipped: bool, encoding: str) -> Iterator[io.TextIOWrapper]:
    """Open a file for reading as text, line ends as they are.

    Raises:
        DataError: the file cannot be read, or is not in this encoding.
    """
    with open_bytes(path, gzipped) as stream:
        start = stream.read(4)
        stream.seek(0)
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        if is_utf8 and start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f'{path}: the text is UTF-16, not UTF-8; pass `file_encoding="utf-16"`.')
        # utf-8-sig removes a byte-order mark and is plain UTF-8 if there is none
        text = io.TextIOWrapper(stream, encoding="utf-8-sig" if is_utf8 else encoding, newline="")
        try:
            yield text
        except UnicodeError:
            raise DataError(_decoding_error(path, gzipped, encoding)) from None
        finally:
            text.detach()


def _decoding_error(path: Path, gzipped: bool, encoding: str) -> str:
    """Read the file again, to say which byte is wrong."""
    cure = "set the file encoding with `file_encoding=`"
    decoder = codecs.getincrementaldecoder(encoding)()
    block_start = 0
    with open_bytes(path, gzipped) as stream:
        while True:
            block = stream.read(1 << 20)
            held_back = len(decoder.getstate()[0])  # bytes of the block before that the decoder still holds
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                position = block_start - held_back + error.start
                byte = error.object[error.start]
                return (
                    f"{path}: the text is not {encoding}: byte 0x{byte:02x} at position {position} cannot be read; "
                    f"{cure}, often latin-1 or cp1252."
                )
            except UnicodeError as error:
                return f"{path}: the text is not {encoding} ({error}); {cure}."
            block_start += len(block)
            if not block:
                return f"{path}: the text is not {encoding}; {cure}."
