"""Text of a file that may be compressed; whatever cannot be read becomes one sentence with its position."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from textladder.data.compression import detect_compression, open_bytes
from textladder.data.encodings import MARKS, checked_encoding, detect_encoding
from textladder.errors import DataError

MAX_LINE = 1 << 26  # bytes; a longer one is no line of text, or was packed so that it fills the memory


class BoundedLines(io.BufferedIOBase):
    """A stream of bytes that is refused at a line that is too long, before it is in memory.

    Args:
        stream: what is read.
        path: its name in errors.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._read = getattr(stream, "read1", stream.read)
        self._lines, self._length = 0, 0  # line feeds so far, and bytes since the last end of a line

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def read1(self, size: int = -1) -> bytes:
        """Some of the next bytes.

        Raises:
            DataError: a line is longer than `MAX_LINE`.
        """
        data: bytes = self._read(size)
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))  # in UTF-16 also half of other characters, which does no harm
        self._length = len(data) - end - 1 if end >= 0 else self._length + len(data)
        self._lines += data.count(b"\n")
        if self._length > MAX_LINE:
            raise DataError(
                f"{self._path}: line {self._lines + 1} has more than {MAX_LINE:,} bytes; a text of that length cannot "
                "be read."
            )
        return data

    read = read1  # type: ignore[assignment]


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
    def open(self, *, lines: bool = True) -> Iterator[io.TextIOWrapper]:
        """Open the file for reading as text, line ends as they are.

        Args:
            lines: whether it consists of lines, which are refused if they are longer than `MAX_LINE`.

        Raises:
            DataError: the file cannot be read, is not in this encoding, or has a line that is too long.
        """
        with self.open_bytes() as stream:
            content: Any = BoundedLines(stream, self.path) if lines else stream
            text = io.TextIOWrapper(content, encoding=self.encoding, newline="")
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
