"""Run one command over and over on a disk that is too small for what it writes, and a little larger each time.

    python fill_each.py FOLDER BLOCKS COMMAND...

FOLDER holds what the command needs. The disk is a tmpfs with a copy of the folder's contents and room for BLOCKS more
blocks each time, until the command succeeds. One line of JSON is printed for each run: the exit status, what was
printed, and the digests of the files that were there afterwards. Exit status 77 if this process may not mount a disk.
"""

import ctypes
import hashlib
import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from kill_each import import_for

from textladder.cli import main

BLOCK, MOST = 4096, 10_000  # bytes, and blocks
NEW_MOUNTS, NEW_USER, PRIVATE = 0x20000, 0x10000000, 0x40000 | 0x4000  # of Linux: sched.h, mount.h
NOT_ALLOWED = 77


def digests(folder: Path) -> dict[str, str]:
    """The files below a folder by their names."""
    return {
        str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


def mount(place: Path, blocks: int) -> None:
    """Mount a disk that only this process sees, and that is gone when it ends."""
    library = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if library.unshare(NEW_MOUNTS):
        if library.unshare(NEW_MOUNTS | NEW_USER):
            os._exit(NOT_ALLOWED)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    size = f"size={blocks * BLOCK}".encode()
    if library.mount(None, b"/", None, PRIVATE, None) or library.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, size):
        os._exit(NOT_ALLOWED)


def attempt(folder: Path, disk: Path, blocks: int, command: list[str]) -> dict[str, Any] | None:
    """Run the command in a fork on a disk of that many blocks; None if the disk cannot be mounted."""
    log, answer = disk.with_suffix(".log"), disk.with_suffix(".json")
    process = os.fork()
    if process == 0:
        status = 70
        try:
            mount(disk, blocks)
            shutil.copytree(folder, disk, dirs_exist_ok=True)
            os.chdir(disk)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            status = main(command)
            sys.stdout.flush()
            answer.write_text(json.dumps(digests(disk)))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == NOT_ALLOWED:
        return None
    found = json.loads(answer.read_text()) if answer.exists() else {}
    answer.unlink(missing_ok=True)
    return {"blocks": blocks, "status": code, "printed": log.read_text(errors="replace"), "files": found}


def fill_each(folder: Path, step: int, command: list[str]) -> int:
    """Run on larger and larger disks until it succeeds."""
    import_for(command)
    disk = folder.with_name("disk")
    disk.mkdir()
    print(json.dumps(digests(folder)), flush=True)
    blocks = sum(-(-one.stat().st_size // BLOCK) for one in folder.rglob("*") if one.is_file())  # what it holds
    for more in range(0, MOST, step):
        found = attempt(folder, disk, blocks + more, command)
        if found is None:
            return NOT_ALLOWED
        print(json.dumps(found), flush=True)
        if found["status"] != 2:
            break
    return 0


if __name__ == "__main__":
    sys.exit(fill_each(Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3:]))
