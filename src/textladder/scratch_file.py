"""Arrays that do not fit into memory, in a temporary file without a name: nothing is left behind by any death."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from textladder.errors import DataError

MOST_IN_MEMORY = 1 << 28  # bytes of arrays that are put together


class ScratchFile:
    """A temporary file to which arrays are added, and from which parts of them are read.

    Reading copies, so that memory holds what is in use and no pages of the file.
    """

    def __init__(self) -> None:
        """Create the file in the temporary folder.

        Raises:
            DataError: it cannot be created.
        """
        self._file: IO[bytes] = self._kept(tempfile.TemporaryFile, prefix="textladder-")
        weakref.finalize(self, self._file.close)
        self._size = 0

    def append(self, array: np.ndarray) -> int:
        """Write an array of one dimension to the end.

        Returns:
            Where it begins, in bytes.

        Raises:
            DataError: there is no space for it.
        """
        start = self._size
        self.write(start, array)
        self._size += array.nbytes
        return start

    def write(self, start: int, array: np.ndarray) -> None:
        """Write an array over what begins at a place.

        Raises:
            DataError: there is no space for it.
        """
        self._file.seek(start)
        self._kept(self._file.write, np.ascontiguousarray(array).data.cast("B"))
        self._kept(self._file.flush)

    def read(self, start: int, count: int, dtype: Any) -> np.ndarray:
        """Read `count` values from a place on, as an array of its own."""
        found = np.empty(count, dtype)
        self._file.seek(start)
        if count and self._file.readinto(found.data.cast("B")) != found.nbytes:  # type: ignore[attr-defined]
            raise ValueError(f"{count} values from {start} on are beyond the end of the file.")
        return found

    def mapped(self, dtype: Any) -> np.ndarray:
        """The whole file as an array of one dimension, of which memory holds the pages that are in use."""
        return np.asarray(np.memmap(self._file, dtype, "r"))  # as a plain array, whose parts are found faster

    @staticmethod
    def _kept(do: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return do(*arguments, **named)
        except OSError as error:
            raise DataError(
                f"Temporary data could not be written to {tempfile.gettempdir()} ({os.strerror(error.errno or 0)}); "
                "set TMPDIR to a folder with more room."
            ) from None


def concatenated(arrays: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
    """Arrays of one dimension one after the other: in memory, or mapped from a temporary file if they are large.

    Raises:
        DataError: there is no space for the file.
    """
    parts, size, file = [np.zeros(0, dtype)], 0, None
    for array in arrays:
        parts.append(array.astype(dtype, copy=False))
        size += parts[-1].nbytes
        if size > MOST_IN_MEMORY:
            file = file or ScratchFile()
            file.append(np.concatenate(parts))
            parts, size = parts[:1], 0
    if file is None:
        return np.concatenate(parts)
    file.append(np.concatenate(parts))
    return file.mapped(dtype)
