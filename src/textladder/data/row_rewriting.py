"""Writes the rows of a file with further columns or with fewer rows, in their own format or in another one.

The new file appears complete or not at all. Memory holds one batch of rows.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from textladder.atomic_files import atomic_path, tidy
from textladder.data.compression import compressed_writer
from textladder.data.delimited_records import RecordWriter
from textladder.data.file_options import DETECTED, FileOptions
from textladder.data.json_file import ESCAPE
from textladder.data.row_files import open_rows, output_format
from textladder.data.rows import RowFile, RowWriter, as_text
from textladder.errors import DataError


def check_target(target: Path, overwrite: bool, *kept: Path) -> None:
    """Check, before any work is done, that rows can be written to a file.

    Args:
        target: the file that will be written.
        overwrite: whether it may be replaced.
        kept: as for `atomic_files.tidy`.

    Raises:
        ConfigError: its name ends in no known format.
        DataError: it exists.
    """
    output_format(target)
    if target.exists() and not overwrite:
        tidy(target, *kept)
        raise DataError(f"{target} exists; pass overwrite=True to replace it, or choose another path.")


@contextmanager
def atomic_row_writer(
    rows: RowFile, target: Path, added: Mapping[str, pa.DataType], overwrite: bool, kept: str = "nothing was kept"
) -> Iterator[RowWriter]:
    """Write a file; it appears once the block has ended without an error.

    Args:
        rows: the open source.
        target: the file to write; its name tells the format. If that is the format of `rows`, then the encoding, the
            delimiter, the schema and so on are those of `rows` too.
        added: further columns, by name, with their types.
        overwrite: replace an existing file.
        kept: what the error says of the work if it cannot be written.

    Yields:
        The writer.

    Raises:
        ConfigError: the target's name ends in no known format.
        DataError: the target exists, or cannot be written.
    """
    check_target(target, overwrite)
    form, compression = output_format(target)
    of_caller: OSError | None = None  # while it read or predicted the rows
    try:
        with atomic_path(target) as part, part.open("wb") as plain:
            stream = compressed_writer(plain, compression)
            writer = rows.writer(stream, added) if form == rows.output else _Converter(rows, stream, form, added)
            try:
                yield _Reporting(writer, target, kept)
            except BaseException as error:
                of_caller = error if isinstance(error, OSError) else None
                with suppress(Exception):  # unclosed, the writers of Parquet and of archives would complain later
                    writer.close()
                    stream.close()
                raise
            writer.close()
            if stream is not plain:
                stream.close()
            if target.exists() and not overwrite:
                raise DataError(
                    f"{target} was created by another process in the meantime, and is left unchanged; {kept}."
                )
    except (OSError, UnicodeEncodeError) as error:
        if error is of_caller:
            raise
        raise _not_written(error, target, kept) from None


class _Reporting:
    """Says what cannot be written.

    Args:
        writer: writes.
        target: the file.
        kept: what the error says of the work.
    """

    def __init__(self, writer: RowWriter, target: Path, kept: str) -> None:
        self._writer, self._target, self._kept = writer, target, kept

    def add(self, batch: Any, columns: Sequence[Sequence[Any]]) -> None:
        """Write a batch.

        Raises:
            DataError: it cannot be written.
        """
        try:
            self._writer.add(batch, columns)
        except (OSError, UnicodeEncodeError) as error:
            raise _not_written(error, self._target, self._kept) from None

    def close(self) -> None:
        """Nothing: the file is closed at the end of the block."""


def _not_written(error: OSError | UnicodeEncodeError, target: Path, kept: str) -> DataError:
    if isinstance(error, UnicodeEncodeError):
        return DataError(f"{target}: a value cannot be encoded as {error.encoding} ({error.reason}).")
    return DataError(f"{target}: the rows could not be written ({error.strerror or error}); {kept}.")


class _Converter:
    """Writes rows in another format than their own: UTF-8, and strings in Parquet and Arrow columns.

    Between Parquet and Arrow the types are kept.
    """

    def __init__(self, rows: RowFile, stream: IO[bytes], form: str, added: Mapping[str, pa.DataType]) -> None:
        self.rows, self.form, self.names = rows, form, [*rows.names, *added]
        self.count = 0
        if form in ("parquet", "arrow"):
            known = getattr(rows, "schema", None)  # of a Parquet file written as Arrow or the other way round
            types = {name: pa.string() if known is None else known.field(name).type for name in rows.names}
            self.typed = known is not None
            fields = [*types.items(), *added.items()]
            self.schema = pa.schema(fields)
            self.writer: Any = (parquet.ParquetWriter if form == "parquet" else pa.ipc.new_file)(stream, self.schema)
            return
        errors = ESCAPE if form in ("json", "jsonl") else "backslashreplace"
        self.text = io.TextIOWrapper(stream, encoding="utf-8", newline="", errors=errors)
        if form in ("csv", "tsv"):
            self.records = RecordWriter(self.text, "\t" if form == "tsv" else ",", '"', "\n")
            self.records.write(self.names)

    def add(self, batch: Any, columns: Sequence[Sequence[Any]]) -> None:
        if later := getattr(self.rows, "later_names", {}):
            name, row = next(iter(later.items()))
            raise DataError(
                f"{self.rows.path}: the key {name!r} comes up first at row {row:,}, too late for a column; write a "
                "file of the input's own format."
            )
        convert = _plain if self.form in ("json", "jsonl") else as_field
        if self.form in ("parquet", "arrow") and self.typed:
            arrays = [*batch.columns, *map(pa.array, columns, self.schema.types[len(self.rows.names) :])]
            self.writer.write_batch(pa.record_batch(arrays, schema=self.schema))
            return
        values = [[convert(value) for value in self.rows.values(batch, name)] for name in self.rows.names]
        if self.form in ("parquet", "arrow"):
            strings = [[_encodable(value) for value in column] for column in values]
            arrays = list(map(pa.array, [*strings, *columns], self.schema.types))
            self.writer.write_batch(pa.record_batch(arrays, schema=self.schema))
            return
        for row in zip(*values, *columns, strict=True):
            if self.form in ("csv", "tsv"):
                self.records.write(row)
            else:
                line = json.dumps(dict(zip(self.names, row, strict=True)), ensure_ascii=False)
                before = "" if self.form == "jsonl" else ("[\n" if not self.count else ",\n")
                self.text.write(before + line + ("\n" if self.form == "jsonl" else ""))
            self.count += 1

    def close(self) -> None:
        if self.form in ("parquet", "arrow"):
            self.writer.close()
            return
        if self.form == "json":
            self.text.write("[]\n" if not self.count else "\n]\n")
        self.text.flush()
        self.text.detach()


def _plain(value: Any) -> Any:
    """A value that JSON can hold; None if it is missing."""
    if hasattr(value, "tolist"):  # a scalar or an array of NumPy
        value = value.tolist()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else (None if math.isnan(value) else str(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        raise DataError("A column with binary values can be written only in the format of the input.")
    return as_text(value.isoformat() if as_text(value) and hasattr(value, "isoformat") else value)


def as_field(value: Any) -> str | None:
    """A value as a field of a delimited file, lists and mappings as JSON; None if it is missing."""
    value = _plain(value)
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else as_text(value)


def _encodable(text: str | None) -> str | None:
    """A text with halves of surrogate pairs escaped."""
    return text if text is None or text.isascii() else text.encode(errors="backslashreplace").decode()


def without_rows(
    source: str | Path,
    target: str | Path,
    dropped: set[int],
    *,
    label: str,
    options: FileOptions = DETECTED,
    overwrite: bool = False,
) -> int:
    """Copy a file without some of its rows.

    Args:
        source: the file to read.
        target: the file to write.
        dropped: which rows to drop, counted from 0 over the rows that have a label.
        label: the label column.
        options: how to read the source.
        overwrite: replace an existing file.

    Returns:
        How many rows were written.

    Raises:
        DataError: the source cannot be read, or the target exists or cannot be written.
        ConfigError: the target's name ends in no known format.
    """
    rows = open_rows(source, options)
    labelled = written = 0
    with atomic_row_writer(rows, Path(target), {}, overwrite) as writer:
        for batch in rows.batches():
            has_label = np.array([value not in (None, "") for value in rows.column(batch, label)], bool)
            row_numbers = labelled + np.cumsum(has_label) - 1
            labelled += int(has_label.sum())
            kept = np.flatnonzero(~(has_label & np.isin(row_numbers, list(dropped))))
            writer.add(batch.take(pa.array(kept)) if hasattr(batch, "take") else [batch[i] for i in kept], ())
            written += len(kept)
    return written
