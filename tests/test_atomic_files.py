"""Outputs are whole or not there, whoever is killed, and one process writes each at a time."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textladder import atomic_files
from textladder.atomic_files import atomic_folder, atomic_path, locked, part_path, sweep, tidy, write_text
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


def write_folder(path: Path, content: str) -> None:
    with atomic_folder(path) as part:
        (part / "sub").mkdir()
        (part / "sub" / "file").write_text(content)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(atomic_files, "_exchanged", lambda one, other: False)
    path = tmp_path / "folder"
    for content in ("first", "second"):
        write_folder(path, content)
        assert (path / "sub" / "file").read_text() == content
    with pytest.raises(KeyboardInterrupt), atomic_folder(path):
        raise KeyboardInterrupt
    assert (path / "sub" / "file").read_text() == "second"
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_everything_is_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    flush, put, replace = atomic_files.flush, atomic_files._put_in_place, Path.replace

    def noted(path: Path) -> None:
        steps.append(path.name)
        flush(path)

    monkeypatch.setattr(atomic_files, "flush", noted)
    monkeypatch.setattr(atomic_files, "_put_in_place", lambda *paths: (steps.append("rename"), put(*paths)))
    write_folder(tmp_path / "out", "content")
    above, renamed = steps.pop(), steps.pop()
    assert (above, renamed) == (tmp_path.name, "rename")
    assert {"sub", "file"} < set(steps)
    steps.clear()
    monkeypatch.setattr(Path, "replace", lambda *paths: (steps.append("rename"), replace(*paths)))
    with atomic_path(tmp_path / "file") as part:
        part.write_text("content")
    assert steps == [part_path(tmp_path / "file").name, "rename", tmp_path.name]


def test_what_dead_processes_left_is_swept_up(tmp_path: Path, dead_part: Callable[[Path], Path]) -> None:
    output = tmp_path / "out"
    dead, living, other = dead_part(output), part_path(output), dead_part(tmp_path / "other")
    living = living.with_name(living.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
    elsewhere = tmp_path / dead.name.replace("out.", "out.another")
    for one in (dead, living, other, elsewhere):
        one.mkdir()
        (one / "file").write_text("x")
    sweep(output)
    assert sorted(tmp_path.iterdir()) == sorted([living, other, elsewhere])


def test_a_replacement_that_stopped_halfway_is_undone(tmp_path: Path, dead_part: Callable[[Path], Path]) -> None:
    output = tmp_path / "out"
    dead = dead_part(output)
    dead.mkdir()
    old = dead.with_name(f"{dead.name}.old")
    old.mkdir()
    (old / "file").write_text("precious")
    sweep(output)
    assert (output / "file").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [output]


COUNT = """
import sys, time
from pathlib import Path
from textladder.atomic_files import locked
from textladder.errors import ConfigError
counter = Path(sys.argv[1])
for _ in range(40):
    while True:
        try:
            with locked(counter, "counter"):
                number = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(number + 1))
            break
        except ConfigError:
            time.sleep(0.0005)
"""


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    """Though its file is deleted each time."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(counter)]) for _ in range(4)]
    assert [one.wait(120) for one in processes] == [0] * 4
    assert counter.read_text() == "160"
    assert list(tmp_path.iterdir()) == [counter]


def test_a_lock_is_gone_with_its_process(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from textladder.atomic_files import locked\n"
    script += "with locked(Path(sys.argv[1]), 'file'): print('locked', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="another process is writing this file"), locked(tmp_path / "out", "file"):
            pass
        process.kill()
    with locked(tmp_path / "out", "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_finished_output_leaves_is_deleted(tmp_path: Path) -> None:
    output, kept, newer = tmp_path / "out.csv", tmp_path / "out.csv.partial", tmp_path / "newer.partial"
    lock = tmp_path / ".out.csv.lock"
    kept.write_text("journal")
    output.write_text("whole")
    newer.write_text("another journal")
    os.utime(kept, ns=(1, 1))
    os.utime(newer, ns=(2**62, 2**62))
    lock.touch()
    with locked(output, "file"):  # another process writes it: nothing is touched
        tidy(output, kept, newer)
        assert kept.exists()
    lock.touch()
    tidy(output, kept, newer)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["newer.partial", "out.csv"]
