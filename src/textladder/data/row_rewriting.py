"""A file of rows written anew in its own form: with columns more, or with rows fewer; whole or not at all.

What `predict --input --output` and `audit --fix --output` write with. Memory holds one batch of rows.
"""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from textladder.atomic_files import atomic_path
from textladder.data.row_files import RowFile, RowWriter, file_format, open_rows
from textladder.errors import ConfigError, DataError


def check_target(source: Path, target: Path, overwrite: bool) -> bool:
    """Refuse a place that a file cannot be written anew to, before any work is done; says whether it is gzipped.

    Raises:
        ConfigError: the output's form is not the input's.
        DataError: the output is there.
    """
    (form, _), (target_form, gzipped) = file_format(source), file_format(target)
    if form != target_form:
        raise ConfigError(f"{target}: the output has the input's form, so its name must end like {source.name}.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists; say --overwrite to replace it, or give another place.")
    return gzipped


@contextmanager
def atomic_row_writer(
    rows: RowFile, source: Path, target: Path, added: Sequence[str], overwrite: bool
) -> Iterator[RowWriter]:
    """A writer of the form of `rows`; what it was given is in place once the block has ended without an error.

    Args:
        rows: the open source.
        source: where it is.
        target: the file to write; its name says the same form.
        added: names of columns after the source's own.
        overwrite: replace a file that is there.

    Raises:
        ConfigError: the output's form is not the input's.
        DataError: the output is there, or cannot be written.
    """
    gzipped = check_target(source, target, overwrite)
    try:
        with atomic_path(target) as part, part.open("wb") as plain:
            # no time stamp inside, so that the same rows give the same bytes
            stream: IO[bytes] = gzip.GzipFile(fileobj=plain, mode="wb", filename="", mtime=0) if gzipped else plain  # type: ignore[assignment]
            writer = rows.write(stream, added)
            yield writer
            writer.close()
            if gzipped:
                stream.close()
    except OSError as error:
        raise DataError(
            f"{target}: the rows could not be written ({error.strerror or error}); nothing was kept."
        ) from None
    except UnicodeEncodeError as error:
        raise DataError(f"{target}: a value cannot be written as {error.encoding} ({error.reason}).") from None


def without_rows(
    source: str | Path,
    target: str | Path,
    left_out: set[int],
    *,
    label: str,
    columns: Sequence[str] | None = None,
    file_encoding: str = "utf-8",
    overwrite: bool = False,
) -> int:
    """Write a file without some of its rows.

    Args:
        source: the file to read.
        target: the file to write, of the same form.
        left_out: which rows, counted from 0 over the rows that have a label.
        label: the label column.
        columns: names for the columns of a file without a header.
        file_encoding: how both files are encoded.
        overwrite: replace a file that is there.

    Returns:
        How many rows were written.
    """
    source, target = Path(source), Path(target)
    rows = open_rows(source, columns=columns, encoding=file_encoding)
    labelled = written = 0
    with atomic_row_writer(rows, source, target, (), overwrite) as writer:
        for batch in rows.batches():
            has_label = np.array([value not in (None, "") for value in rows.column(batch, label)], bool)
            numbers = labelled + np.cumsum(has_label) - 1
            labelled += int(has_label.sum())
            places = np.flatnonzero(~(has_label & np.isin(numbers, list(left_out))))
            writer.add(batch.take(pa.array(places)) if hasattr(batch, "take") else [batch[at] for at in places], ())
            written += len(places)
    return written
