"""Reads fastai's archives of language models without running anything that is in them."""

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

from textladder.errors import PretrainedError, first_line, import_extra

LARGEST_MEMBER = 2 << 30  # bytes; of an archive's files


def read_fastai_archive(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The words and the arrays (float32, by fastai's names) of a language model in fastai's archive form.

    The archive holds a `.pth` file, which torch reads as weights only, and a `.pkl` file, of which nothing but lists
    and strings is read. Nothing is unpacked.

    Raises:
        PretrainedError: it is damaged, or holds anything else.
    """
    torch = import_extra("torch", "train")
    weights, pickled = _members(path, (".pth", ".pkl"))
    try:
        words = _ListsAndStrings(io.BytesIO(pickled)).load()
    except Exception as error:  # a damaged or hostile file makes the unpickler raise anything
        raise PretrainedError(f"{path}: its list of words cannot be read safely ({first_line(error)}).") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise PretrainedError(f"{path}: its list of words is not one.")
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        state = state.get("model", state)
        arrays = {str(name): value.float().numpy() for name, value in state.items()}
    except Exception as error:  # as above
        raise PretrainedError(f"{path}: its weights cannot be read safely ({first_line(error)}).") from None
    return words, arrays


class _ListsAndStrings(pickle.Unpickler):
    """An unpickler that makes what the format itself can make, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside of it")


def _members(path: Path, endings: tuple[str, ...]) -> list[bytes]:
    """The contents of the files of a tar archive with these endings, one each."""
    found: list[bytes] = []
    try:
        with tarfile.open(path) as archive:
            files = [member for member in archive if member.isfile()]
            for ending in endings:
                named = [member for member in files if member.name.endswith(ending)]
                if len(named) != 1 or named[0].size > LARGEST_MEMBER:
                    raise PretrainedError(
                        f"{path}: a language model's archive holds one {ending} file, this {len(named)}."
                    )
                stream = archive.extractfile(named[0])
                found.append(stream.read() if stream else b"")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise PretrainedError(f"{path}: the archive cannot be read ({first_line(error)}).") from None
    return found
