"""JSON Lines files as sources of rows: one JSON object per line; keys may be missing from some."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from textladder.data.file_streams import open_text
from textladder.data.rows import BATCH_ROWS, as_text, in_batches
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FOR_NAMES = 256  # the columns are the keys of this many rows


class JsonLinesFile:
    """A file with one JSON object per line.

    Args:
        path: the file.
        gzipped: whether it is compressed.
        encoding: how the text is encoded.
    """

    form = "jsonl"
    amazon_form = False

    def __init__(self, path: Path, gzipped: bool, encoding: str) -> None:
        """Read the first rows.

        Raises:
            DataError: there are no rows.
        """
        self.path, self.gzipped, self.encoding = path, gzipped, encoding
        first_rows = next(self.batches(ROWS_FOR_NAMES), None)
        if first_rows is None:
            raise DataError(f"{path}: the file has no rows.")
        self.names = list(dict.fromkeys(key for row in first_rows for key in row))

    def _rows(self) -> Iterator[dict[str, Any]]:
        with open_text(self.path, self.gzipped, self.encoding) as text:
            text.reconfigure(newline="\n")  # a JSON string may contain other line ends
            for number, line in enumerate(text, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise DataError(f"{self.path}: line {number} is not JSON ({error}).") from None
                if not isinstance(row, dict):
                    raise DataError(f"{self.path}: line {number} is a {type(row).__name__}, not a JSON object.")
                yield row

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[dict[str, Any]]]:
        """The rows in order, at most `rows` at a time."""
        return in_batches(self._rows(), rows)

    def column(self, batch: list[dict[str, Any]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(row.get(name)) for row in batch]

    def label_order(self, name: str) -> list[str] | None:
        """None: such a file declares no order."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "_JsonLinesWriter":
        """Start a file with the same encoding."""
        return _JsonLinesWriter(self, stream, list(added))


class _JsonLinesWriter:
    def __init__(self, source: JsonLinesFile, stream: IO[bytes], added: Sequence[str]) -> None:
        self.text = io.TextIOWrapper(stream, encoding=source.encoding, newline="")
        self.added = added

    def add(self, batch: list[dict[str, Any]], columns: Sequence[Sequence[Any]]) -> None:
        for row, *values in zip(batch, *columns, strict=True):
            extended = {**row, **dict(zip(self.added, values, strict=True))}
            self.text.write(json.dumps(extended, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self.text.flush()
        self.text.detach()
