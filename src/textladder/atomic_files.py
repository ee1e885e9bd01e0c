"""Outputs of which readers see the whole or nothing, and which one process writes at a time.

An output is written under a temporary name beside it, flushed to the disk, and renamed, so that a process that is
killed, or a machine that loses its power, leaves the old one or the new one. The temporary name says which process
writes it: the next one that writes the same output deletes what dead ones left.
"""

import ctypes
import errno
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textladder.errors import ConfigError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2), which Python's os does not have


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; the file written there replaces `path` once the block ends without an error.

    Args:
        path: the file.

    Yields:
        The temporary path.
    """
    sweep(path)
    part = part_path(path)
    try:
        yield part
        flush(part)
        part.replace(path)
        flush(path.absolute().parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, which takes its place once the block ends without an error.

    Args:
        path: the folder.

    Yields:
        The temporary folder.
    """
    sweep(path)
    part = part_path(path)
    try:
        part.mkdir()
        yield part
        flush_folder(part)
        _put_in_place(part, path)
        flush(path.absolute().parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: str | Path, content: str) -> Path:
    """Write a text file in UTF-8.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = Path(path)
    try:
        with atomic_path(path) as part:
            part.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the file could not be written ({error.strerror or error}).") from None
    return path


@contextmanager
def locked(path: Path, what: str, *, inside: bool = False) -> Iterator[None]:
    """Be the only process that writes an output.

    Args:
        path: the output; the lock is a hidden file beside it, which is gone at the end.
        what: what the output is, for the message.
        inside: put the lock into the output, a folder that exists.

    Raises:
        ConfigError: another process is writing it, or the lock cannot be made.
    """
    from filelock import FileLock, Timeout

    place = _lock_of(path, inside)
    if not place.parent.is_dir():  # it would be made
        raise ConfigError(f"{path}: the {what} could not be written (there is no folder {place.parent}).")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        message = f"{path}: another process is writing this {what}; wait for it, or choose another path."
        raise ConfigError(message) from None
    except OSError as error:
        raise ConfigError(f"{path}: the {what} cannot be locked ({error.strerror or error}).") from None
    try:
        yield
    finally:
        # before the lock is released: a process that opened this file, and gets its lock then, sees that it is gone
        with suppress(PermissionError):  # on Windows, where it cannot be deleted while it is open
            place.unlink(missing_ok=True)
        lock.release()


def tidy(path: Path, *kept: Path) -> None:
    """Delete what a process left that was killed when its output was in place already.

    Args:
        path: the output, which exists.
        kept: what such a process keeps until then, so as to resume; it is deleted if it is older than the output.
    """
    from filelock import FileLock, Timeout

    sweep(path)
    place = _lock_of(path)
    if not (place.exists() or any(one.exists() for one in kept)):
        return
    with suppress(OSError, Timeout), FileLock(place).acquire(timeout=0):  # else another process is writing
        for one in kept:
            if one.exists() and one.stat().st_mtime_ns <= path.stat().st_mtime_ns:
                discard(one) if one.is_dir() else one.unlink()
        place.unlink(missing_ok=True)


def _lock_of(path: Path, inside: bool = False) -> Path:
    if inside:
        return path / ".lock"
    if path.is_dir():  # a bundle and a link to it have one lock
        path = path.resolve()
    return path.with_name(f".{path.name}.lock")


def part_path(path: Path) -> Path:
    """The temporary name of an output as long as this process writes it."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.part")


def sweep(path: Path) -> None:
    """Delete what dead processes of this machine left of an output, and undo a replacement that one of them began."""
    place = path.absolute().parent
    left = re.compile(re.escape(f".{path.name}.{_host()}-") + r"(\d+)\.part(\.old)?")
    with suppress(OSError):
        for one in list(place.iterdir()):
            found = left.fullmatch(one.name)
            if found is None or _is_alive(int(found[1])):
                continue
            if found[2] and not path.exists():
                one.rename(path)
            elif one.is_dir() and not one.is_symlink():
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Delete a folder, at once for everybody else: what a process leaves that is killed meanwhile is swept up."""
    part = part_path(folder)
    try:
        folder.rename(part)
    except FileNotFoundError:
        return
    except OSError:  # such as a file that is open on Windows
        part = folder
    shutil.rmtree(part, ignore_errors=True)


def flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before anything is renamed that depends on it."""
    if path.is_dir() and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """`flush` for everything in a folder, and the folder itself."""
    for one in folder.rglob("*"):
        flush(one)
    flush(folder)


def _put_in_place(part: Path, path: Path) -> None:
    """Give a folder its final name; in between, readers find the old one or the new one.

    Where the file system cannot exchange two names, the old one is renamed first; `sweep` undoes that if this process
    dies before the second renaming.
    """
    if not path.exists():
        part.rename(path)
        return
    if _exchanged(part, path):
        return
    old = part.with_name(f"{part.name}.old")
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders at once; False where that is not possible."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def _host() -> str:
    """The machine's name, as far as it goes into a file's name: other machines may write to the same folder."""
    return re.sub(r"[^A-Za-z0-9]", "", platform.node())[:16] or "local"


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # where such a signal would interrupt it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
