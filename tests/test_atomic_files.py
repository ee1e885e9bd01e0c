"""A text file appears complete or not at all."""

from pathlib import Path
from typing import Any

import pytest

from textladder.atomic_files import write_text
from textladder.errors import ConfigError


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_text(tmp_path / "page.html", "first")
    whole = Path.write_text

    def half(self: Path, content: str, **options: Any) -> int:
        whole(self, content[: len(content) // 2], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(ConfigError, match="page.html: the file could not be written .No space left on device"):
        write_text(target, "second")
    assert target.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
