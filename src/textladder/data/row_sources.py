"""Sources of rows from whatever the caller has: a file, a DataFrame, a data set of the Hub or a known name."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textladder.data.columns import Sample
from textladder.data.known_data import find_data_set
from textladder.data.row_files import open_rows
from textladder.data.rows import Batch, RowSource, as_text
from textladder.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 1000
AMAZON_COLUMNS = ["label", "title", "text"]


def sample_columns(source: RowSource, source_name: str) -> Sample:
    """Read the first values of every column.

    Raises:
        DataError: there are no rows.
    """
    batch = next(source.batches(SAMPLE_ROWS), None)
    if batch is None:
        raise DataError(f"{source_name}: there are no rows, only a header.")
    return {name: source.column(batch, name) for name in source.names}


def joined_texts(source: RowSource, batch: Batch, columns: Sequence[str]) -> list[str]:
    """Join the text columns of a batch with a space.

    Args:
        source: where the batch comes from.
        batch: some rows.
        columns: the text columns; missing and empty values are skipped.
    """
    parts = [source.column(batch, name) for name in columns]
    return [" ".join(value for value in values if value) for values in zip(*parts, strict=True)]


def open_sources(
    data: Any, test: Any, columns: Sequence[str] | None, encoding: str
) -> tuple[RowSource, str, RowSource | None, str]:
    """Open the training rows and, if there are any, the test rows.

    Args:
        data: a file, a DataFrame, a data set, or the name of one.
        test: the same for the test rows; None to use those of a named data set, if it has any.
        columns: names for the columns of files without a header.
        encoding: how files are encoded.

    Returns:
        The training source and its name for error messages, then the test source or None, and its name.

    Raises:
        DataError: one of them cannot be read.
        PretrainedError: a named data set could not be fetched.
    """
    if isinstance(data, (str, Path)) and not looks_like_file(data):
        data, own_test = find_data_set(str(data))
        test = own_test if test is None else test
    source, source_name = open_source(data, columns, encoding)
    if test is None:
        return source, source_name, None, ""
    return source, source_name, *open_source(test, columns, encoding)


def looks_like_file(data: str | Path) -> bool:
    """Whether a name means a file; a folder, or a name without an ending that is not a file, means a data set."""
    return not os.path.isdir(data) and (isinstance(data, Path) or os.path.exists(data) or "." in Path(data).name)


def open_source(data: Any, columns: Sequence[str] | None, encoding: str) -> tuple[RowSource, str]:
    """Open a file or a table as a source of rows, and give its name for error messages.

    Args:
        data: a file, a DataFrame or a data set of the `datasets` library.
        columns: names for the columns of a file without a header.
        encoding: how a file is encoded.

    Raises:
        DataError: it is something else, or cannot be read.
    """
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
        self.amazon_form = self.names == AMAZON_COLUMNS and frame.dtypes.iloc[0].kind in "iu"

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
    """One split of a data set of the `datasets` library as a source of rows; class numbers become class names."""

    form = "data set"
    amazon_form = False

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
