"""Arrow tables in memory-mapped files, whose pages can be given back: reading all of a file takes no more memory than
reading a part of it.

The system keeps pages of a mapped file as long as there is room, and counts them as the process's memory. So whoever
reads a large table from end to end gives them back on the way; what is read again comes from the system's file cache.
"""

import mmap
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from textladder.errors import DataError

SMALL = 64 << 20  # bytes of a file whose pages are not worth giving back

# the mapping of a table, by the address of its first text; it is gone when no table needs it
_mappings: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()


def write_table(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Write batches to a temporary file and map it; the file has no name, so nothing is left behind by any death.

    Args:
        batches: what to write.
        schema: their columns; `text` is one of them.

    Raises:
        DataError: there is no space for them.
    """
    try:
        with tempfile.TemporaryFile(prefix="textladder-") as file:
            with pa.ipc.new_file(pa.PythonFile(file, "w"), schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
            return _map(file.fileno())
    except OSError as error:
        raise DataError(
            f"The rows could not be copied to {tempfile.gettempdir()} ({error}); set TMPDIR to a folder with more room."
        ) from None


def map_table(path: Path) -> pa.Table:
    """Map an Arrow file with a column `text` into memory."""
    with path.open("rb") as file:
        return _map(file.fileno())


def _map(file: int) -> pa.Table:
    mapping = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_file(pa.py_buffer(mapping)).read_all()
    if (address := _first_address(table)) is not None:
        _mappings[address] = mapping
    return table


def release_pages(table: pa.Table) -> None:
    """Give the pages of a large mapped table back to the system; other tables are left alone."""
    address = _first_address(table)
    mapping = None if address is None else _mappings.get(address)
    if mapping is not None and len(mapping) > SMALL and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _first_address(table: pa.Table) -> int | None:
    texts = table["text"]
    data = texts.chunk(0).buffers()[2] if texts.num_chunks else None
    return data.address if data is not None else None
