"""Parquet and Arrow files (also called Feather or IPC) as sources of rows, read one batch at a time."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from textladder.data.compression import open_bytes
from textladder.data.rows import BATCH_ROWS, as_text
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_MAGIC, ARROW_MAGIC, STREAM_MAGIC = b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"
AFTER_A_NAME = (b"", *(bytes([byte]) for byte in b',;|\t\r\n"'))  # if a column is called PAR1


def arrow_form(start: bytes) -> str | None:
    """Tell Parquet and Arrow files by their first bytes; None if it is neither."""
    if start.startswith(PARQUET_MAGIC) and start[4:5] in AFTER_A_NAME:
        return None
    magics = {PARQUET_MAGIC: "parquet", ARROW_MAGIC: "arrow", STREAM_MAGIC: "arrow stream"}
    return next((form for magic, form in magics.items() if start.startswith(magic)), None)


class ArrowFile:
    """A Parquet or Arrow file.

    Args:
        path: the file.
        form: the result of `arrow_form`.
        compression: how the file as a whole is compressed.
    """

    amazon_form = False
    typed = True

    def __init__(self, path: Path, form: str, compression: str | None) -> None:
        """Read the schema.

        Raises:
            DataError: the file has no rows, is damaged, or has two columns of one name.
        """
        self.path, self.form, self.compression = path, form, compression
        self.output = form.split()[0]
        with self._open() as (schema, batches):
            self.schema: pa.Schema = schema
            if not any(batch.num_rows for batch in batches):
                raise DataError(f"{path}: the file has no rows.")
        self.names: list[str] = list(self.schema.names)
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: more than one column is named {repeated[0]!r}; rename one of them first.")

    @contextmanager
    def _open(self, rows: int = BATCH_ROWS) -> Iterator[tuple["pa.Schema", Iterator["pa.RecordBatch"]]]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        with tempfile.TemporaryFile() if self.compression else self.path.open("rb") as stream:
            if self.compression:  # these files are read from their end, which is expensive to reach in an archive
                with open_bytes(self.path, self.compression) as archive:
                    shutil.copyfileobj(archive, stream)
                stream.seek(0)
            try:
                if self.form == "parquet":
                    file = parquet.ParquetFile(stream)
                    yield file.schema_arrow, file.iter_batches(batch_size=rows)
                elif self.form == "arrow":
                    reader = pa.ipc.open_file(stream)
                    yield reader.schema, _sliced(map(reader.get_batch, range(reader.num_record_batches)), rows)
                else:
                    reader = pa.ipc.open_stream(stream)
                    yield reader.schema, _sliced(reader, rows)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                name = "a Parquet file" if self.form == "parquet" else "an Arrow file"
                raise DataError(f"{self.path}: this is not {name}, or it is damaged ({reason}).") from None

    def batches(self, rows: int = BATCH_ROWS) -> Iterator["pa.RecordBatch"]:
        """The rows in order as Arrow record batches of at most `rows`."""
        with self._open(rows) as (_, batches):
            yield from batches

    def column(self, batch: "pa.RecordBatch", name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(value) for value in self.values(batch, name)]

    def values(self, batch: "pa.RecordBatch", name: str) -> list[Any]:
        """One column of a batch as its values are; dates beyond the year 9999, which Python has not, as text."""
        import pyarrow as pa

        try:
            return batch.column(name).to_pylist()  # type: ignore[no-any-return]
        except (OverflowError, ValueError):
            return batch.column(name).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]

    def label_order(self, name: str) -> list[str] | None:
        """None: labels are ordered by value."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "_ArrowWriter":
        """Start a file with the same schema, the added columns after it."""
        return _ArrowWriter(self, stream, added)


def _sliced(batches: Any, rows: int) -> Iterator["pa.RecordBatch"]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


class _ArrowWriter:
    def __init__(self, source: ArrowFile, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        self.schema = source.schema
        for name, type_ in added.items():
            self.schema = self.schema.append(pa.field(name, type_))
        writers = {"parquet": parquet.ParquetWriter, "arrow": pa.ipc.new_file, "arrow stream": pa.ipc.new_stream}
        self.writer = writers[source.form](stream, self.schema)

    def add(self, batch: "pa.RecordBatch", columns: Sequence[Sequence[Any]]) -> None:
        import pyarrow as pa

        self.writer.write_batch(pa.record_batch([*batch.columns, *map(pa.array, columns)], schema=self.schema))

    def close(self) -> None:
        self.writer.close()
