"""Parquet files as sources of rows, read one row group at a time."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from textladder.data.file_streams import open_bytes
from textladder.data.rows import BATCH_ROWS, as_text
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetFile:
    """A Parquet file.

    Args:
        path: the file.
        gzipped: whether the file as a whole is compressed.
    """

    form = "parquet"
    amazon_form = False

    def __init__(self, path: Path, gzipped: bool) -> None:
        """Read the schema.

        Raises:
            DataError: the file has no rows, or is not Parquet.
        """
        self.path, self.gzipped = path, gzipped
        with self._open() as file:
            self.schema = file.schema_arrow
            if file.metadata.num_rows == 0:
                raise DataError(f"{path}: the file has no rows.")
        self.names = list(self.schema.names)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        with tempfile.TemporaryFile() if self.gzipped else self.path.open("rb") as stream:
            if self.gzipped:  # Parquet is read from its end, which is expensive to reach in a gzip stream
                with open_bytes(self.path, gzipped=True) as archive:
                    shutil.copyfileobj(archive, stream)
            try:
                yield parquet.ParquetFile(stream)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise DataError(f"{self.path}: this is not a Parquet file, or it is damaged ({reason}).") from None

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[Any]:
        """The rows in order as Arrow record batches of at most `rows`."""
        with self._open() as file:
            yield from file.iter_batches(batch_size=rows)

    def column(self, batch: Any, name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in batch.column(name).to_pylist()]

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "_ParquetWriter":
        """Start a file with the same schema, the added columns after it."""
        return _ParquetWriter(self, stream, added)


class _ParquetWriter:
    def __init__(self, source: ParquetFile, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        self.schema = source.schema
        for name, type_ in added.items():
            self.schema = self.schema.append(pa.field(name, type_))
        self.writer = parquet.ParquetWriter(stream, self.schema)

    def add(self, batch: Any, columns: Sequence[Sequence[Any]]) -> None:
        import pyarrow as pa

        self.writer.write_batch(pa.record_batch([*batch.columns, *map(pa.array, columns)], schema=self.schema))

    def close(self) -> None:
        self.writer.close()
