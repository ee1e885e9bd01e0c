"""Files that are there whole or not at all: written under a temporary name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textladder.errors import ConfigError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; the file written there takes its place once the block ends without an error.

    Its name carries the process number, so that two processes never write to the same one.
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
