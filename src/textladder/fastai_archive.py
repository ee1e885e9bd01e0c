"""Reads fastai's archives of language models without running any code in them."""

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

from textladder.errors import PretrainedError, first_line, import_extra

LARGEST_MEMBER = 2 << 30  # bytes, of a file in an archive


def read_fastai_archive(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Read the words and the weights of a language model in fastai's archive format.

    The archive holds a `.pth` file, which torch reads with `weights_only`, and a `.pkl` file, of which only lists and
    strings are read. Nothing is unpacked to disk.

    Returns:
        The words in the order of their ids, and float32 arrays by fastai's names.

    Raises:
        PretrainedError: the archive is damaged or holds something else.
    """
    torch = import_extra("torch", "train")
    weights, pickled = _members(path, (".pth", ".pkl"))
    try:
        words = _ListsAndStrings(io.BytesIO(pickled)).load()
    except Exception as error:  # a damaged or hostile file can make the unpickler raise anything
        raise PretrainedError(f"{path}: its list of words cannot be read safely ({first_line(error)}).") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise PretrainedError(f"{path}: its list of words is not a list of strings.")
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        state = state.get("model", state)
        arrays = {str(name): value.float().numpy() for name, value in state.items()}
    except Exception as error:  # as above
        raise PretrainedError(f"{path}: its weights cannot be read safely ({first_line(error)}).") from None
    return words, arrays


class _ListsAndStrings(pickle.Unpickler):
    """An unpickler that builds only what the format itself can, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def _members(path: Path, endings: tuple[str, ...]) -> list[bytes]:
    """The contents of the files in a tar archive with these endings, exactly one for each."""
    found: list[bytes] = []
    try:
        with tarfile.open(path) as archive:
            files = [member for member in archive if member.isfile()]
            for ending in endings:
                named = [member for member in files if member.name.endswith(ending)]
                if len(named) != 1 or named[0].size > LARGEST_MEMBER:
                    raise PretrainedError(
                        f"{path}: a language model's archive holds one {ending} file; this one holds {len(named)}."
                    )
                stream = archive.extractfile(named[0])
                found.append(stream.read() if stream else b"")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise PretrainedError(f"{path}: the archive cannot be read ({first_line(error)}).") from None
    return found
