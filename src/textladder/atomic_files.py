"""Files that appear complete or not at all: written under a temporary name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textladder.errors import ConfigError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; the file written there replaces `path` once the block ends without an error.

    The temporary name contains the process id, so that two processes never write to the same file.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
