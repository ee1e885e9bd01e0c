"""The folder of a comparison: which rows it belongs to, locking, and what may be deleted."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from textladder.atomic_files import discard, locked, write_text
from textladder.bundle import check_output
from textladder.comparison.trainings import CHECKPOINTS, RECORD
from textladder.errors import ConfigError

MANIFEST, PLAN, RESULTS, LOCK = "comparison.json", "plan.json", "results.json", ".lock"
REPORTS = ("report.html", "report.md")
SHARED_ROWS = ".rows"
KIND = "textladder comparison"


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else, or cannot be written to, before any work is done.

    Raises:
        ConfigError: the folder cannot be used for a comparison.
    """
    try:
        if not folder.exists() and not folder.is_symlink():
            check_output(folder)
        elif not folder.is_dir() or (_holds_files(folder) and _row_digests(folder) is None):
            raise ConfigError(f"{folder} exists but is not a comparison; choose another folder.")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from None


def _holds_files(folder: Path) -> bool:
    """Whether there is more than what a comparison begins with, which one may have left that was killed at once."""
    return any(path.name != LOCK and not path.name.startswith(f".{MANIFEST}.") for path in folder.iterdir())


def _row_digests(folder: Path) -> dict[str, str] | None:
    """The digests of the rows that the folder is a comparison on; None if it is not a comparison."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["kind"] == KIND:
            rows: dict[str, str] = manifest["rows"]
            return rows
    return None


@contextmanager
def locked_folder(folder: Path, digests: Mapping[str, str], overwrite: bool) -> Iterator[Path]:
    """Lock the folder for a comparison on some rows.

    Args:
        folder: the folder; it is created if it does not exist.
        digests: of the rows of each part.
        overwrite: whether the folder may hold a comparison on other rows.

    Yields:
        The path of the shared rows; what is written there is deleted at the end.

    Raises:
        ConfigError: another process has locked it, or it holds a comparison on other rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "comparison", inside=True):
        previous = _row_digests(folder)
        if previous is not None and previous != digests and not overwrite:
            raise ConfigError(
                f"{folder} holds a comparison on other rows; choose another folder, or pass overwrite=True to start "
                "over."
            )
        write_text(folder / MANIFEST, json.dumps({"kind": KIND, "rows": digests}))
        shared_rows = folder / SHARED_ROWS
        shutil.rmtree(shared_rows, ignore_errors=True)
        try:
            yield shared_rows
        finally:
            shutil.rmtree(shared_rows, ignore_errors=True)


def delete_results(folder: Path) -> None:
    """Delete the training runs and results of an earlier comparison, and nothing else."""
    for path in folder.iterdir():
        if (path / RECORD).is_file() or path.suffix == CHECKPOINTS:
            discard(path)
            if path.exists():
                raise ConfigError(f"{path} could not be deleted; delete it, or choose another folder.")
        elif path.name in (PLAN, RESULTS, *REPORTS):
            path.unlink()
