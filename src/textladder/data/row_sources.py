"""Sources of rows from whatever the caller has: a file, a DataFrame, a data set of the Hub or a known name."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.atomic_files import part_path, sweep
from textladder.data.columns import Sample
from textladder.data.file_groups import (
    ClassFolders,
    PartFiles,
    class_folders,
    matching_files,
    named_parts,
    part_files,
)
from textladder.data.file_options import DETECTED, FileOptions
from textladder.data.known_data import SAVED_DATA_SET, find_data_set, load_saved
from textladder.data.row_files import open_rows
from textladder.data.rows import BATCH_ROWS, Batch, NestedValueError, RowSource, as_text, in_batches
from textladder.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SAMPLE_ROWS = 1000
SPREAD_ROWS = 20  # of each batch of that many
STANDARD_INPUT = "-"
AMAZON_COLUMNS = ["label", "title", "text"]


def sample_columns(source: RowSource, source_name: str, *, spread: bool = False) -> Sample:
    """Read some values of every column; columns with lists, mappings or bytes are kept apart.

    Args:
        source: the rows.
        source_name: what error messages call them.
        spread: read all rows and take some from everywhere, instead of the first ones.

    Raises:
        DataError: there are no rows.
    """
    sample = Sample({name: [] for name in source.names})
    for batch in source.batches(SAMPLE_ROWS):
        for name in list(sample):
            try:
                sample[name] += source.column(batch, name)[: SPREAD_ROWS if spread else None]
            except NestedValueError as error:
                sample.nested[name] = str(error)
                del sample[name]
        if not sample or (not spread and len(next(iter(sample.values()))) >= SAMPLE_ROWS):
            break
    if sample and not next(iter(sample.values())):
        raise DataError(f"{source_name}: there are no rows, only a header.")
    return sample


def joined_texts(source: RowSource, batch: Batch, columns: Sequence[str]) -> list[str]:
    """Join the text columns of a batch with a space.

    Args:
        source: where the batch comes from.
        batch: some rows.
        columns: the text columns; missing and empty values are skipped.
    """
    parts = [source.column(batch, name) for name in columns]
    return [" ".join(value for value in values if value) for values in zip(*parts, strict=True)]


def open_sources(data: Any, test: Any, options: FileOptions) -> tuple[RowSource, str, RowSource | None, str]:
    """Open the training rows and, if there are any, the test rows.

    Args:
        data: what `open_source` takes, the name of a data set, or something with parts called `train` and `test`: a
            folder, or a `DatasetDict`.
        test: the test rows; None to use those of `data`, if it has any.
        options: how files are read.

    Returns:
        The training source and its name for error messages, then the test source or None, and its name.

    Raises:
        DataError: one of them cannot be read.
        PretrainedError: a named data set could not be fetched.
    """
    data, own_test = _parts(data)
    test = own_test if test is None else test
    source, source_name = open_source(data, options)
    if test is None:
        return source, source_name, None, ""
    test, own_test = _parts(test)
    return source, source_name, *open_source(test if own_test is None else own_test, options)


def _parts(data: Any) -> tuple[Any, Any]:
    """The training part and the test part of something that may have parts."""
    if isinstance(data, (str, Path)) and not is_readable(data):
        return find_data_set(str(data))
    if isinstance(data, (str, Path)) and os.path.isdir(data):
        if any((Path(data) / name).exists() for name in SAVED_DATA_SET):
            data = load_saved(Path(data))
        elif (Path(data) / "train").is_dir():
            test = Path(data) / "test"
            return Path(data) / "train", test if test.is_dir() else None
        else:
            named = named_parts(part_files(Path(data)))
            if "train" in named:  # validation rows are held out anew
                return [*named["train"], *named.get("valid", [])], named.get("test")
            inside = class_folders(Path(data))
            if len(inside) == 1:  # a folder around the data
                return _parts(inside[0])
    if isinstance(data, Mapping):  # a DatasetDict, or a dict of frames
        if "train" not in data:
            raise DataError(f"The data has no part named 'train'. Its parts: {', '.join(map(str, data))}.")
        return data["train"], data.get("test")
    return data, None


def is_readable(data: str | Path) -> bool:
    """Whether a name means a file, a folder, a pattern of files or standard input, and not a data set on the Hub."""
    name = str(data)
    return (
        isinstance(data, Path)
        or os.path.exists(data)
        or name == STANDARD_INPUT
        or "." in Path(name).name
        or any(mark in name for mark in "*?[")
    )


def open_source(data: Any, options: FileOptions = DETECTED) -> tuple[RowSource, str]:
    """Open a file, several files or a table as a source of rows, and give its name for error messages.

    Args:
        data: a file, a folder of part files or with a folder for each class, a pattern such as `part-*.csv`, `-` for
            standard input; a list of files; a pandas or polars DataFrame, an Arrow table, a data set of the `datasets`
            library, a list of mappings, or a pair (texts, labels).
        options: how files are read.

    Raises:
        DataError: it is something else, or cannot be read.
    """
    if isinstance(data, (str, Path)):
        return _open_path(data, options), "standard input" if str(data) == STANDARD_INPUT else str(data)
    if isinstance(data, list) and data and all(isinstance(path, (str, Path)) for path in data):
        paths = list(map(Path, data))
        if len(paths) == 1:
            return open_rows(paths[0], options), str(paths[0])
        if len({"".join(path.suffixes).lower() for path in paths}) > 1:
            raise DataError(f"{paths[0].parent}: files of several formats ({', '.join(path.name for path in paths)}).")
        return PartFiles(paths, options), str(paths[0].parent)
    if hasattr(data, "iter_batches") or hasattr(data, "features"):
        return HubRows(data), "the data set"
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return FrameRows(data), "the DataFrame"
    if hasattr(data, "to_arrow"):  # polars
        return TableRows(data.to_arrow(), "polars DataFrame"), "the DataFrame"
    if hasattr(data, "to_batches") and hasattr(data, "schema"):
        return TableRows(data, "Arrow table"), "the table"
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str):
        return MappingRows.from_pair(*data), "the texts and labels"
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return MappingRows(data, "list of mappings"), "the rows"
    raise DataError(
        "Data must be a file, a folder, a DataFrame, an Arrow table, a list of mappings, a pair (texts, labels) or the "
        f"name of a data set; received a {type(data).__name__}."
    )


def _open_path(data: str | Path, options: FileOptions) -> RowSource:
    name = str(data)
    if name == STANDARD_INPUT:
        return open_rows(spooled_input(), options)
    if os.path.isdir(data):
        if class_folders(Path(data)):
            return ClassFolders(Path(data), options.file_encoding)
        paths = part_files(Path(data))
        if not paths:
            raise DataError(f"{data}: the folder has no files of rows, and no folder for each class.")
        return open_rows(paths[0], options) if len(paths) == 1 else PartFiles(paths, options)
    if any(mark in name for mark in "*?[") and not os.path.exists(data):
        paths = matching_files(name)
        if not paths:
            raise DataError(f"{data}: no file matches this pattern.")
        return PartFiles(paths, options)
    return open_rows(data, options)


class _InputCopy(type(Path())):  # type: ignore[misc]
    """The path of the copy of standard input, which messages call by the name of what it is a copy of."""

    def __format__(self, specification: str) -> str:
        return format("standard input", specification)


@cache
def spooled_input() -> Path:
    """Copy standard input to a temporary file, since rows are read more than once.

    The copies of processes that were killed are deleted first: their names say whose they are.
    """
    folder = Path(tempfile.gettempdir())
    sweep(folder / "textladder-stdin")
    copy = _InputCopy(part_path(folder / "textladder-stdin"))
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:
        atexit.register(copy.unlink, missing_ok=True)
        shutil.copyfileobj(sys.stdin.buffer, stream)
    return copy


class FrameRows:
    """A pandas DataFrame as a source of rows."""

    form = "DataFrame"

    def __init__(self, frame: "pd.DataFrame") -> None:
        self.frame = frame
        self.names = [str(name) for name in frame.columns]
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(f"The DataFrame has more than one column named {repeated[0]!r}; rename one of them first.")
        self.typed = True
        self.amazon_form = self.names == AMAZON_COLUMNS and frame.dtypes.iloc[0].kind in "iu"

    def batches(self, rows: int = SAMPLE_ROWS) -> Iterator["pd.DataFrame"]:
        """The rows in order, at most `rows` at a time."""
        for start in range(0, len(self.frame), rows):
            yield self.frame.iloc[start : start + rows]

    def column(self, batch: "pd.DataFrame", name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in batch.iloc[:, self.names.index(name)]]

    def values(self, batch: "pd.DataFrame", name: str) -> list[Any]:
        """One column of a batch as its values are."""
        return list(batch.iloc[:, self.names.index(name)])

    def label_order(self, name: str) -> list[str] | None:
        """The order of a categorical column's values."""
        dtype = self.frame.dtypes.iloc[self.names.index(name)]
        return [str(as_text(value)) for value in dtype.categories] if hasattr(dtype, "categories") else None


class HubRows:
    """One split of a data set of the `datasets` library as a source of rows; class numbers become class names."""

    form = "data set"
    amazon_form = False
    typed = True

    def __init__(self, split: Any) -> None:
        self.split = split
        self.names = list(split.column_names)

    def batches(self, rows: int = SAMPLE_ROWS) -> Iterator[dict[str, list[Any]]]:
        """The rows in order, at most `rows` at a time."""
        yield from self.split.iter(batch_size=rows)

    def column(self, batch: dict[str, list[Any]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in self.values(batch, name)]

    def values(self, batch: dict[str, list[Any]], name: str) -> list[Any]:
        """One column of a batch as its values are."""
        names = self.label_order(name)
        if names is None:
            return list(batch[name])
        return [None if value is None or value < 0 else names[value] for value in batch[name]]

    def label_order(self, name: str) -> list[str] | None:
        """The names of a class column in the order of their numbers."""
        names = getattr(self.split.features[name], "names", None)
        return list(names) if names else None


class TableRows:
    """An Arrow table, or a polars DataFrame as one, as a source of rows."""

    amazon_form = False
    typed = True

    def __init__(self, table: "pa.Table", form: str) -> None:
        self.table, self.form = table, form
        self.names: list[str] = list(table.column_names)
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(f"The table has more than one column named {repeated[0]!r}; rename one of them first.")

    def batches(self, rows: int = BATCH_ROWS) -> Iterator["pa.RecordBatch"]:
        """The rows in order, at most `rows` at a time."""
        yield from self.table.to_batches(max_chunksize=rows)

    def column(self, batch: "pa.RecordBatch", name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in self.values(batch, name)]

    def values(self, batch: "pa.RecordBatch", name: str) -> list[Any]:
        """One column of a batch as its values are."""
        return batch.column(name).to_pylist()  # type: ignore[no-any-return]

    def label_order(self, name: str) -> list[str] | None:
        """The order of a dictionary column's values, such as a polars Enum."""
        chunks = [chunk for chunk in self.table.column(name).chunks if hasattr(chunk, "dictionary")]
        values = [str(as_text(value)) for chunk in chunks for value in chunk.dictionary.to_pylist()]
        return list(dict.fromkeys(values)) or None


class MappingRows:
    """A list of mappings as a source of rows; keys may be missing from some."""

    amazon_form = False
    typed = True

    def __init__(self, rows: Sequence[Mapping[str, Any]], form: str) -> None:
        self.rows, self.form = rows, form
        self._keys = {str(key): key for row in rows for key in row}
        self.names = list(self._keys)

    @classmethod
    def from_pair(cls, texts: Any, labels: Any) -> "MappingRows":
        """Rows of texts and labels, each a sequence of the same length.

        Raises:
            DataError: their lengths differ.
        """
        try:
            texts, labels = list(texts), list(labels)
        except TypeError as error:
            raise DataError(f"Texts and labels must be two sequences ({error}).") from None
        if len(texts) != len(labels):
            raise DataError(f"There are {len(texts):,} texts but {len(labels):,} labels.")
        pairs = zip(texts, labels, strict=True)
        return cls([{"text": text, "label": label} for text, label in pairs], "texts and labels")

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[Mapping[str, Any]]]:
        """The rows in order, at most `rows` at a time."""
        return in_batches(self.rows, rows)

    def column(self, batch: list[Mapping[str, Any]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in self.values(batch, name)]

    def values(self, batch: list[Mapping[str, Any]], name: str) -> list[Any]:
        """One column of a batch as its values are."""
        return [row.get(self._keys[name]) for row in batch]

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None
