"""Writes a file of rows in the format that it was read in, with further columns or with fewer rows.

The new file appears complete or not at all. Memory holds one batch of rows.
"""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from textladder.atomic_files import atomic_path
from textladder.data.row_files import file_format, open_rows
from textladder.data.rows import RowFile, RowWriter
from textladder.errors import ConfigError, DataError


def check_target(source: Path, target: Path, overwrite: bool) -> bool:
    """Check, before any work is done, that the rows of a file can be written to another one.

    Args:
        source: the file that is read.
        target: the file that will be written.
        overwrite: whether `target` may be replaced.

    Returns:
        Whether the target is gzipped.

    Raises:
        ConfigError: the target's name ends in another format than the source's.
        DataError: the target exists.
    """
    (form, _), (target_form, gzipped) = file_format(source), file_format(target)
    if form != target_form:
        raise ConfigError(f"{target}: the output has the input's format, so its name must end like {source.name}.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists; pass overwrite=True to replace it, or choose another path.")
    return gzipped


@contextmanager
def atomic_row_writer(
    rows: RowFile, source: Path, target: Path, added: Mapping[str, pa.DataType], overwrite: bool
) -> Iterator[RowWriter]:
    """Write a file in the format of `rows`; it appears once the block has ended without an error.

    Args:
        rows: the open source.
        source: its path.
        target: the file to write, in the same format.
        added: further columns, by name, with their types.
        overwrite: replace an existing file.

    Yields:
        The writer.

    Raises:
        ConfigError: the target's name ends in another format than the source's.
        DataError: the target exists, or cannot be written.
    """
    gzipped = check_target(source, target, overwrite)
    try:
        with atomic_path(target) as part, part.open("wb") as plain:
            # without a time stamp inside, the same rows give the same bytes
            stream: IO[bytes] = gzip.GzipFile(fileobj=plain, mode="wb", filename="", mtime=0) if gzipped else plain  # type: ignore[assignment]
            writer = rows.writer(stream, added)
            yield writer
            writer.close()
            if gzipped:
                stream.close()
    except OSError as error:
        raise DataError(
            f"{target}: the rows could not be written ({error.strerror or error}); nothing was kept."
        ) from None
    except UnicodeEncodeError as error:
        raise DataError(f"{target}: a value cannot be encoded as {error.encoding} ({error.reason}).") from None


def without_rows(
    source: str | Path,
    target: str | Path,
    dropped: set[int],
    *,
    label: str,
    columns: Sequence[str] | None = None,
    file_encoding: str = "utf-8",
    overwrite: bool = False,
) -> int:
    """Copy a file without some of its rows.

    Args:
        source: the file to read.
        target: the file to write, in the same format.
        dropped: which rows to drop, counted from 0 over the rows that have a label.
        label: the label column.
        columns: names for the columns of a file without a header.
        file_encoding: how both files are encoded.
        overwrite: replace an existing file.

    Returns:
        How many rows were written.

    Raises:
        DataError: the source cannot be read, or the target exists or cannot be written.
        ConfigError: the target's name ends in another format than the source's.
    """
    source, target = Path(source), Path(target)
    rows = open_rows(source, columns=columns, encoding=file_encoding)
    labelled = written = 0
    with atomic_row_writer(rows, source, target, {}, overwrite) as writer:
        for batch in rows.batches():
            has_label = np.array([value not in (None, "") for value in rows.column(batch, label)], bool)
            row_numbers = labelled + np.cumsum(has_label) - 1
            labelled += int(has_label.sum())
            kept = np.flatnonzero(~(has_label & np.isin(row_numbers, list(dropped))))
            writer.add(batch.take(pa.array(kept)) if hasattr(batch, "take") else [batch[i] for i in kept], ())
            written += len(kept)
    return written
