"""Text files that are there whole or not at all."""

from pathlib import Path

from textladder.errors import ConfigError


def write_whole(path: str | Path, content: str) -> Path:
    """Write a text file under another name and put it in place when it is done.

    Raises:
        ConfigError: the place cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: the file could not be written ({error.strerror or error}).") from None
    finally:
        part.unlink(missing_ok=True)
    return path
