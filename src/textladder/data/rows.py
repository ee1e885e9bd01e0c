"""What every source of rows offers, whether a file, a DataFrame or a data set: batches, and their columns as text."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

from textladder.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

BATCH_ROWS = 4096

Batch = Any  # rows as their source holds them: a list, an Arrow record batch, a DataFrame or a dict of columns


class NestedValueError(DataError):
    """A value is a list, a mapping, an array or bytes where a plain value is needed."""


class RowSource(Protocol):
    """Rows with named columns that can be read from the start as often as needed.

    Attributes:
        names: the columns.
        amazon_form: whether the rows have the form of the Amazon, Yelp and AG News files: a class number, perhaps a
            title, a text. Where the numbers are 1 and 2, they mean negative and positive.
        typed: whether values have types; in a delimited file, all of them are text.
    """

    names: list[str]
    amazon_form: bool
    typed: bool

    @property
    def form(self) -> str:
        """Which kind it is, and whatever else was found out about it."""

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[Batch]:
        """The rows in order, at most `rows` at a time."""

    def column(self, batch: Batch, name: str) -> list[str | None]:
        """One column of a batch as text; None where the value is missing."""

    def values(self, batch: Batch, name: str) -> list[Any]:
        """One column of a batch as its values are, nested ones included."""

    def label_order(self, name: str) -> list[str] | None:
        """The order that the source declares for a column's values, or None."""


class RowFile(RowSource, Protocol):
    """A source of rows that can also be written in the same format.

    Attributes:
        path: the file.
    """

    path: "Path"

    @property
    def output(self) -> str:
        """The format that `writer` writes, as `row_files.output_format` names it; empty if it writes none."""

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "RowWriter":
        """Start a file of the same format, with the `added` columns and their types after the existing ones."""


class RowWriter(Protocol):
    """Writes batches of a source with further columns."""

    def add(self, batch: Batch, columns: Sequence[Sequence[Any]]) -> None:
        """Write a batch, with the values of the added columns."""

    def close(self) -> None:
        """Write whatever the format ends with; the stream stays open."""


def as_text(value: object) -> str | None:
    """Convert a cell to text: whole numbers without a decimal point, booleans as true and false, None if missing.

    >>> [as_text(value) for value in ("a", 2, 2.0, 0.5, True, float("nan"))]
    ['a', '2', '2', '0.5', 'true', None]

    Raises:
        NestedValueError: the value is a list, a mapping, an array or bytes.
    """
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "item") and not _is_array(value):  # a NumPy scalar
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, (list, dict, tuple, set, bytes)) or _is_array(value):
        raise NestedValueError(
            f"A text or a label must be a plain value; received a {type(value).__name__}: {str(value)[:60]!r}."
        )
    return None if str(value) in ("NaT", "<NA>") else str(value)


def plain_type(value: Any) -> type:
    """The type of a value; a number or boolean of NumPy counts as one of Python."""
    return type(value.item() if hasattr(value, "item") and not _is_array(value) else value)


def _is_array(value: object) -> bool:
    return bool(getattr(value, "shape", None))


def in_batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Group rows into lists of `size`; the last one may be shorter."""
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
