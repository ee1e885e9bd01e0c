"""fastText's format as a source of rows: a line for each text, with `__label__NAME` before it."""

from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from textladder.data.file_streams import TextFile, bounded_lines
from textladder.data.rows import BATCH_ROWS, in_batches
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from textladder.data.rows import RowWriter

PREFIX = "__label__"


class FastTextFile:
    """A file in fastText's format, with one label for each text.

    Args:
        file: its compression and encoding.
    """

    form = "fastText"
    amazon_form = False
    typed = False
    output = ""  # this format is not written

    def __init__(self, file: TextFile) -> None:
        self.names = ["label", "text"]
        self.file, self.path = file, file.path

    def _rows(self) -> Iterator[tuple[str | None, str]]:
        with self.file.open() as text:
            for number, line in enumerate(bounded_lines(text, self.path), start=1):
                words = line.split(maxsplit=1)
                if not words:
                    continue
                if not words[0].startswith(PREFIX):
                    yield None, line.strip()
                    continue
                rest = words[1].strip() if len(words) > 1 else ""
                if rest.startswith(PREFIX):
                    raise DataError(
                        f"{self.path}: the text at line {number} has several labels; multi-label classification is not "
                        "supported, every text needs exactly one label."
                    )
                yield words[0].removeprefix(PREFIX), rest

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[tuple[str | None, str]]]:
        """The rows in order, at most `rows` at a time."""
        return in_batches(self._rows(), rows)

    def column(self, batch: list[tuple[str | None, str]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [row[self.names.index(name)] for row in batch]

    def values(self, batch: list[tuple[str | None, str]], name: str) -> list[Any]:
        """One column of a batch."""
        return self.column(batch, name)

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "RowWriter":
        """The format has no place for further columns, so it is not written.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError
