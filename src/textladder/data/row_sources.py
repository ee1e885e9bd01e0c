"""Rows of whatever a person has: a file, a DataFrame, a data set of the Hub or a known name.

Stands between the forms of files and the labelled texts made of them; every source gives its columns as text.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.data.columns import Sample
from textladder.data.known_data import find_data_set
from textladder.data.row_files import RowSource, as_text, open_rows
from textladder.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 1000


def sample_columns(source: RowSource, where: str) -> Sample:
    """The first values of every column of a source.

    Raises:
        DataError: there are no rows.
    """
    batch = next(source.batches(SAMPLE_ROWS), None)
    if batch is None:
        raise DataError(f"{where}: there are no rows, only a header.")
    return {name: source.column(batch, name) for name in source.names}


def joined_texts(source: RowSource, batch: Any, columns: Sequence[str]) -> list[str]:
    """The text columns of a batch, joined with a space; a missing text is an empty one."""
    parts = [source.column(batch, name) for name in columns]
    return [" ".join(value for value in values if value) for values in zip(*parts, strict=True)]


def open_sources(
    data: Any, test: Any, columns: Sequence[str] | None, encoding: str
) -> tuple[RowSource, str, RowSource | None, str]:
    """The training source and, where there is one, the test source, each with its name for errors."""
    if isinstance(data, (str, Path)) and not looks_like_file(data):
        train, held_out = find_data_set(str(data))
        source, where = open_source(train, columns, encoding)
        if test is None and held_out is not None:
            return source, where, *open_source(held_out, columns, encoding)
    else:
        source, where = open_source(data, columns, encoding)
    return (source, where, *open_source(test, columns, encoding)) if test is not None else (source, where, None, "")


def looks_like_file(data: str | Path) -> bool:
    """A name without an ending that is no file here is a data set; so is a folder of files."""
    return not os.path.isdir(data) and (isinstance(data, Path) or os.path.exists(data) or "." in Path(data).name)


def open_source(data: Any, columns: Sequence[str] | None, encoding: str) -> tuple[RowSource, str]:
    """A source of rows from a file or a table, and what it is called in errors."""
    if isinstance(data, (str, Path)):
        return open_rows(data, columns=columns, encoding=encoding), str(data)
    if hasattr(data, "iter_batches") or hasattr(data, "features"):
        return HubRows(data), "the data set"
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return FrameRows(data), "the DataFrame"
    raise DataError(f"Data must be a file, a DataFrame or the name of a data set; received a {type(data).__name__}.")


class FrameRows:
    """A pandas DataFrame as a source of rows."""

    form = "DataFrame"

    def __init__(self, frame: "pd.DataFrame") -> None:
        self.frame = frame
        self.names = [str(name) for name in frame.columns]

    def batches(self, rows: int = SAMPLE_ROWS) -> Iterator["pd.DataFrame"]:
        """The rows in order, at most `rows` at a time."""
        for start in range(0, len(self.frame), rows):
            yield self.frame.iloc[start : start + rows]

    def column(self, batch: "pd.DataFrame", name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in batch.iloc[:, self.names.index(name)]]

    def label_order(self, name: str) -> list[str] | None:
        """The order of a categorical column's values."""
        dtype = self.frame.dtypes.iloc[self.names.index(name)]
        return [str(as_text(value)) for value in dtype.categories] if hasattr(dtype, "categories") else None


class HubRows:
    """One split of a data set of the `datasets` library as a source of rows; class numbers become names."""

    form = "data set"

    def __init__(self, split: Any) -> None:
        self.split = split
        self.names = list(split.column_names)

    def batches(self, rows: int = SAMPLE_ROWS) -> Iterator[dict[str, list[Any]]]:
        """The rows in order, at most `rows` at a time."""
        yield from self.split.iter(batch_size=rows)

    def column(self, batch: dict[str, list[Any]], name: str) -> list[str | None]:
        """One column of a batch."""
        names = self.label_order(name)
        if names is None:
            return [as_text(value) for value in batch[name]]
        return [None if value is None or value < 0 else names[value] for value in batch[name]]

    def label_order(self, name: str) -> list[str] | None:
        """The names of a class column in the order of their numbers."""
        names = getattr(self.split.features[name], "names", None)
        return list(names) if names else None
