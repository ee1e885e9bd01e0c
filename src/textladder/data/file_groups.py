"""Several files as one source of rows: part files, and a folder for each class."""

import glob
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textladder.data.compression import ENDINGS, detect_compression, open_bytes
from textladder.data.encodings import MARKS, SAMPLE_BYTES, detect_encoding
from textladder.data.file_options import FileOptions
from textladder.data.file_streams import MAX_LINE, TextFile
from textladder.data.row_files import open_rows
from textladder.data.rows import BATCH_ROWS, Batch, RowFile, in_batches
from textladder.errors import DataError

SHOWN = 3  # files that are described one by one
PART_NAMES = {  # how the files of a part are called
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
NO_DATA = re.compile(  # what lies beside files of rows
    r"(readme|licen[cs]e|citation|copying|checksums?)\b.*"
    r"|.*\.(md5|sha1|sha256|sha512|md|rst|pdf|html?|py|ipynb|ya?ml|toml|log|lock|png|jpe?g|svg)"
)
TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods"}
UNLABELLED = "unsup"  # the folder of the IMDb reviews without a label


def matching_files(pattern: str) -> list[Path]:
    """The files that a pattern such as `part-*.csv` stands for, in order of their names."""
    return sorted(path for name in glob.glob(pattern) if (path := Path(name)).is_file())


def part_files(folder: Path) -> list[Path]:
    """The files in a folder, in order of their names, without hidden ones, markers such as `_SUCCESS` and a README."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    return [path for path in files if not NO_DATA.fullmatch(path.name.lower())]


def named_parts(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The files by the part of a data set that their names tell: `train`, `valid` or `test`.

    >>> found = named_parts([Path("reviews_train.csv"), Path("test-00000-of-00001.parquet"), Path("trainers.csv")])
    >>> {part: [path.name for path in paths] for part, paths in found.items()}
    {'train': ['reviews_train.csv'], 'test': ['test-00000-of-00001.parquet']}
    """
    found: dict[str, list[Path]] = {}
    for path in paths:
        words = re.split(r"[^a-z]+", path.name.partition(".")[0].lower())
        part = next((part for part, names in PART_NAMES.items() if set(words) & set(names)), None)
        if part is not None:
            found.setdefault(part, []).append(path)
    return found


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder that has no files of rows itself: one for each class, empty ones left out."""
    if part_files(folder):
        return []
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [one for one in folders if one.name != UNLABELLED and text_files(one)]


def text_files(folder: Path) -> list[Path]:
    """The files in a folder and in the folders inside it, in order, without hidden ones."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _ending(path: Path) -> str:
    """The ending of a file's name, apart from that of a compression."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in ENDINGS else path.suffix.lower()


def _content(path: Path) -> bytes:
    """The bytes of a file with one text, decompressed."""
    with open_bytes(path, detect_compression(path)) as stream:
        content = stream.read(MAX_LINE + 1)
    _check_length(path, content)
    return content


def _check_length(path: Path, content: bytes | str) -> None:
    if len(content) > MAX_LINE:
        raise DataError(f"{path}: a text of more than {MAX_LINE:,} characters cannot be read.")


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
        names = f" ({', '.join(one.path.name for one in self.files)})" if len(self.files) <= SHOWN else ""
        other = [f"{one.path.name}: {one.form}" for one in others if one.form != first.form]
        more = f", ... ({len(other)} such files)" if len(other) > SHOWN else ""
        return "; ".join([f"{len(self.files)} files{names}, {first.form}", *other[:SHOWN]]) + more

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
        encoding: the encoding of the files; None to detect it. Files that are neither UTF-8 nor begin with a
            byte-order mark are all read in the encoding that fits them together.
    """

    amazon_form = False
    typed = False

    def __init__(self, folder: Path, encoding: str | None) -> None:
        """Look at all files, if the encoding is to be detected.

        Raises:
            DataError: the folders hold tables, or the encoding cannot be detected.
        """
        self.names = ["label", "text"]
        self.folder, self.encoding = folder, encoding
        self._files = [(one.name, path) for one in class_folders(folder) for path in text_files(one)]
        table = next((path for _, path in self._files if _ending(path) in TABLES), None)
        if table is not None:
            raise DataError(
                f"{folder}: the folders hold tables ({table.name}), not a text in each file; give the files as a "
                f"pattern, such as '{folder}/*/*{''.join(table.suffixes[-2:])}'."
            )
        self._others = None if encoding is not None else self._encoding_of_others()
        self.form = "a folder for each class" + (f", {self._others}" if self._others else "")

    def _encoding_of_others(self) -> str | None:
        """The encoding of the files that are not UTF-8; None if all are."""
        sample = b""
        for _, path in self._files:
            data = _content(path)
            try:
                data.decode()
            except UnicodeDecodeError:
                if not data.startswith(tuple(MARKS)):
                    sample += data + b"\n"
            if len(sample) > SAMPLE_BYTES:
                break
        return detect_encoding(io.BytesIO(sample), str(self.folder)) if sample else None

    def _rows(self) -> Iterator[dict[str, str]]:
        for label, path in self._files:
            if not os.path.getsize(path):
                yield {"label": label, "text": ""}
                continue
            with TextFile.examine(path, self.encoding or self._own_encoding(path)).open() as text:
                content = text.read(MAX_LINE + 1)
            _check_length(path, content)
            yield {"label": label, "text": content}

    def _own_encoding(self, path: Path) -> str | None:
        """That of all files that are not UTF-8 for one of them; None to detect it."""
        if self._others is None:
            return None
        data = _content(path)
        try:
            data.decode()
            return None
        except UnicodeDecodeError:
            return None if data.startswith(tuple(MARKS)) else self._others

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
