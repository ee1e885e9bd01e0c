"""Several files as one source of rows: part files, and a folder for each class."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textladder.data.file_options import FileOptions
from textladder.data.file_streams import TextFile
from textladder.data.row_files import open_rows
from textladder.data.rows import BATCH_ROWS, Batch, RowFile, in_batches
from textladder.errors import DataError

SHOWN = 3  # files that are described one by one


def matching_files(pattern: str) -> list[Path]:
    """The files that a pattern such as `part-*.csv` stands for, in order of their names."""
    return sorted(path for name in glob.glob(pattern) if (path := Path(name)).is_file())


def part_files(folder: Path) -> list[Path]:
    """The files in a folder, in order of their names, without hidden ones and markers such as `_SUCCESS`."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, if it has no other files: one for each class."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return folders if folders and all(part_files(one) for one in folders) else []


class PartFiles:
    """Files with the same columns, one after the other.

    Args:
        paths: the files in order.
        options: how to read each of them.
    """

    def __init__(self, paths: Sequence[Path], options: FileOptions) -> None:
        """Look at the first lines of each file.

        Raises:
            DataError: one of them cannot be read, or has other columns than the first.
        """
        self.files: list[RowFile] = [open_rows(path, options) for path in paths]
        first = self.files[0]
        self.names, self.amazon_form, self.typed = first.names, first.amazon_form, first.typed
        for path, one in zip(paths, self.files, strict=True):
            if one.names != self.names:
                raise DataError(
                    f"{path}: the columns ({', '.join(one.names)}) are not those of {paths[0]} "
                    f"({', '.join(self.names)})."
                )

    @property
    def form(self) -> str:
        """That of the first file, and of those that are written in another way."""
        first, *others = self.files
        other = [f"{one.path.name}: {one.form}" for one in others if one.form != first.form]
        more = f", ... ({len(other)} such files)" if len(other) > SHOWN else ""
        return "; ".join([f"{len(self.files)} files, {first.form}", *other[:SHOWN]]) + more

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[Batch]:
        """The rows in order, at most `rows` at a time."""
        for one in self.files:
            for batch in one.batches(rows):
                yield one, batch

    def column(self, batch: Batch, name: str) -> list[str | None]:
        """One column of a batch."""
        source, rows = batch
        return source.column(rows, name)  # type: ignore[no-any-return]

    def values(self, batch: Batch, name: str) -> list[Any]:
        """One column of a batch as its values are."""
        source, rows = batch
        return source.values(rows, name)  # type: ignore[no-any-return]

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None


class ClassFolders:
    """A folder for each class, with a file for each text; the folder's name is the label.

    Args:
        folder: the folder of the folders.
        encoding: the encoding of the files; None to detect that of each.
    """

    form = "a folder for each class"
    amazon_form = False
    typed = False

    def __init__(self, folder: Path, encoding: str | None) -> None:
        self.names = ["label", "text"]
        self.folder, self.encoding = folder, encoding
        self._files = [(one.name, path) for one in class_folders(folder) for path in part_files(one)]

    def _rows(self) -> Iterator[dict[str, str]]:
        for label, path in self._files:
            if not os.path.getsize(path):
                yield {"label": label, "text": ""}
                continue
            with TextFile.examine(path, self.encoding).open() as text:
                yield {"label": label, "text": text.read()}

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[dict[str, str]]]:
        """The texts by class and then by file name, at most `rows` at a time."""
        return in_batches(self._rows(), rows)

    def column(self, batch: list[dict[str, str]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [row[name] for row in batch]

    def values(self, batch: list[dict[str, str]], name: str) -> list[Any]:
        """One column of a batch."""
        return self.column(batch, name)

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None
