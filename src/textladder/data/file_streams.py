"""Text of a file that may be compressed; whatever cannot be read becomes one sentence with its position."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from textladder.data.compression import detect_compression, open_bytes
from textladder.data.encodings import MARKS, checked_encoding, detect_encoding
from textladder.errors import DataError

MAX_LINE = 1 << 26  # characters; a longer one is no text, or was packed so that it fills the memory


def bounded_lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """The lines of a text with their ends.

    Args:
        text: an open file.
        path: its name in errors.

    Raises:
        DataError: a line is longer than `MAX_LINE`; no more than that of it is read.
    """
    for number in count(1):
        line = text.readline(MAX_LINE + 1)
        if not line:
            return
        if len(line) > MAX_LINE:
            raise DataError(f"{path}: line {number:,} has more than {MAX_LINE:,} characters; it cannot be read.")
        yield line


@dataclass(frozen=True)
class TextFile:
    """A text file with what was found out about its bytes.

    Attributes:
        path: the file.
        compression: gzip, bz2, xz, zstd, zip, or None.
        encoding: how the text is encoded, by Python's name; `utf-8-sig` with a byte-order mark.
        big_endian: whether the bytes of UTF-16 or UTF-32 with a mark come with the highest first.
    """

    path: Path
    compression: str | None
    encoding: str
    big_endian: bool = False

    @classmethod
    def examine(cls, path: Path, encoding: str | None) -> "TextFile":
        """Look at the first bytes of a file.

        Args:
            path: the file.
            encoding: its encoding; None to detect it.

        Raises:
            DataError: it cannot be read, or is not text.
            ConfigError: there is no such encoding.
        """
        compression = detect_compression(path)
        with open_bytes(path, compression) as stream:
            mark = stream.read(4)
        big_endian = mark.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
        if encoding is not None:
            known = checked_encoding(encoding)
            has_mark = known == "utf-8" and mark.startswith(codecs.BOM_UTF8)
            found = next((name for bytes_, name in MARKS.items() if mark.startswith(bytes_)), None)
            if found in ("utf-16", "utf-32") and known.startswith(found):
                known = found  # the mark is not part of the text
            return cls(path, compression, "utf-8-sig" if has_mark else known, big_endian)
        with open_bytes(path, compression) as stream:
            return cls(path, compression, detect_encoding(stream, f"{path}"), big_endian)

    @contextmanager
    def open_bytes(self) -> Iterator[IO[bytes]]:
        """Open the file for reading, decompressed.

        Raises:
            DataError: the file cannot be read.
        """
        with open_bytes(self.path, self.compression) as stream:
            yield stream

    @contextmanager
    def open(self) -> Iterator[io.TextIOWrapper]:
        """Open the file for reading as text, line ends as they are.

        Raises:
            DataError: the file cannot be read, or is not in this encoding.
        """
        with self.open_bytes() as stream:
            text = io.TextIOWrapper(stream, encoding=self.encoding, newline="")
            try:
                yield text
            except UnicodeError:
                raise DataError(self._decoding_error()) from None
            finally:
                text.detach()

    def writer(self, stream: IO[bytes], errors: str = "strict") -> io.TextIOWrapper:
        """Start a text in the same encoding, with a byte-order mark if the file has one.

        Args:
            stream: where to write; it is detached from the text at the end, not closed.
            errors: what happens to characters that the encoding lacks, by the name of an error handler.
        """
        big_endian = self.big_endian and self.encoding in ("utf-16", "utf-32")  # Python writes these little-endian
        encoding = f"{self.encoding}-be" if big_endian else self.encoding
        text = io.TextIOWrapper(stream, encoding=encoding, newline="", errors=errors)
        if big_endian:
            text.write("\ufeff")
        return text

    def _decoding_error(self) -> str:
        """Read the file again, to say which byte is wrong."""
        name = "utf-8" if self.encoding == "utf-8-sig" else self.encoding
        cure = "set the file encoding with `file_encoding=`"
        decoder = codecs.getincrementaldecoder(self.encoding)()
        block_start = 0
        with self.open_bytes() as stream:
            while True:
                block = stream.read(1 << 20)
                held_back = len(decoder.getstate()[0])  # bytes of the block before that the decoder still holds
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    position = block_start - held_back + error.start
                    byte = error.object[error.start]
                    return (
                        f"{self.path}: the text is not {name}: byte 0x{byte:02x} at position {position} cannot be "
                        f"read; {cure}, often latin-1 or cp1252."
                    )
                except UnicodeError as error:
                    return f"{self.path}: the text is not {name} ({error}); {cure}."
                block_start += len(block)
                if not block:
                    return f"{self.path}: the text is not {name}; {cure}."
