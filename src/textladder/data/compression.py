"""Files that may be compressed, recognized by their first bytes and not by their names."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from textladder.errors import DataError

MAGIC = {
    "gzip": b"\x1f\x8b",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
}
MAGIC_BYTES = 10
ENDINGS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}  # of files to be written


def detect_compression(path: Path) -> str | None:
    """Name the compression of a file: gzip, bz2, xz, zstd or zip; None if it is not compressed.

    An archive in the zip format may also be a spreadsheet; `row_files.py` asks for that first.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(MAGIC_BYTES)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from None
    name = next((name for name, magic in MAGIC.items() if start.startswith(magic)), None)
    # a header may begin with the letters of bzip2, but not with its block or its end
    return None if name == "bz2" and not start[4:10].startswith((b"1AY&SY", b"\x17rE8P\x90")) else name


@contextmanager
def open_bytes(path: Path, compression: str | None) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed.

    Args:
        path: the file.
        compression: the result of `detect_compression`.

    Raises:
        DataError: the archive is damaged or has more than one file, or the file cannot be read.
    """
    try:
        with _open(path, compression) as stream:
            yield stream
    except NotImplementedError as error:
        raise DataError(f"{path}: the {compression} archive cannot be read ({error}); unpack it first.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: the {compression} archive is damaged or truncated ({error}).") from None
    except OSError as error:
        if compression in ("bz2", "zstd"):  # these report damage as an OSError
            raise DataError(f"{path}: the {compression} archive is damaged or truncated ({error}).") from None
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from None


@contextmanager
def _open(path: Path, compression: str | None) -> Iterator[IO[bytes]]:
    if compression == "zip":
        with zipfile.ZipFile(path) as archive, archive.open(_only_member(path, archive)) as member:
            yield member
        return
    if compression == "zstd":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as decompressed:
            yield decompressed
        return
    openers: dict[str | None, Any] = {None: Path.open, "gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    with openers[compression](path, "rb") as stream:
        yield stream


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one file of an archive, apart from what macOS adds."""
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:5]) or "none"
        raise DataError(f"{path}: a zip archive must have exactly one file; this one has {len(members)} ({names}).")
    if members[0].flag_bits & 1:
        raise DataError(f"{path}: the zip archive is encrypted.")
    return members[0]


def compressed_writer(stream: IO[bytes], compression: str | None) -> IO[bytes]:
    """Wrap an open file so that what is written to it is compressed; closing the result leaves the file open.

    The same bytes always give the same archive: no time stamp is stored.

    Args:
        stream: a file that is open for writing.
        compression: gzip, bz2, xz, zstd, or None to write the bytes as they are.
    """
    if compression is None:
        return stream
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0)  # type: ignore[return-value]
    if compression == "bz2":
        return bz2.BZ2File(stream, "wb")
    if compression == "xz":
        return lzma.LZMAFile(stream, "wb")
    import pyarrow as pa

    return pa.CompressedOutputStream(pa.PythonFile(_Unclosed(stream), "w"), "zstd")  # type: ignore[no-any-return]


class _Unclosed:
    """A stream that Arrow cannot close."""

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self.write, self.flush = stream.write, stream.flush
        self.tell = stream.tell

    def close(self) -> None:
        """Leave the stream open."""
