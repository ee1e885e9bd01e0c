"""Pretrained word vectors: GloVe's text form read once, kept in a fast form, looked up for a vocabulary.

Third step of `lstm` (Pennington et al. 2014). Where the file is comes from `pretrained.py`.
"""

import gzip
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textladder import pretrained
from textladder.errors import PretrainedError
from textladder.pretrained import Progress, VectorSource

LINES_AT_ONCE = 10_000


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors.

    Attributes:
        name: where they come from, for reports.
        words: Arrow array of strings.
        matrix: float32 (words, dimension), memory-mapped.
    """

    name: str
    words: Any
    matrix: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    @property
    def dimension(self) -> int:
        """How many numbers a word has."""
        return int(self.matrix.shape[1])

    def lookup(self, tokens: Sequence[str], *, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, int]:
        """The vectors of a vocabulary's tokens.

        A token that has no vector gets one from a seeded normal distribution, never zeros: equal vectors would
        leave the network no way to tell two unknown words apart.

        Args:
            tokens: the tokens in the order of their numbers.
            seed: of the drawn vectors.
            spread: standard deviation of the drawn vectors.

        Returns:
            float32 (tokens, dimension), and how many tokens were found.
        """
        import pyarrow as pa
        import pyarrow.compute as compute

        places = compute.index_in(pa.array(tokens, self.words.type), value_set=self.words)
        found = compute.is_valid(places).to_numpy(zero_copy_only=False)
        shape = (len(tokens), self.dimension)
        vectors = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(spread)
        vectors[found] = self.matrix[places.drop_null().to_numpy()]
        return vectors, int(found.sum())


def load_vectors(wanted: str | Path | None = None, *, progress: Progress | None = None) -> WordVectors:
    """Load word vectors.

    Args:
        wanted: a file in GloVe's text form (`.txt`, `.vec`, `.gz`, `.zip`; any dimension), a name such as
            `glove.6B.100d`, or None for what is at hand.
        progress: is told of a download's bytes.

    Raises:
        PretrainedError: nothing found, or a file that is not in that form.
    """
    return read_vectors(pretrained.find_vectors(wanted, progress))


def read_vectors(source: VectorSource) -> WordVectors:
    """Open vectors that were found, through the fast form in the cache where they are text."""
    import pyarrow.parquet as parquet

    matrix, words = source.matrix, source.words
    if source.text is not None:
        folder = _fast_form(source.text, source.member)
        matrix, words = folder / "matrix.npy", folder / "words.parquet"
    assert matrix is not None
    assert words is not None
    column = parquet.read_table(words).column(0).combine_chunks()
    return WordVectors(source.name, column, np.load(matrix, mmap_mode="r", allow_pickle=False))


def _fast_form(path: Path, member: str | None) -> Path:
    """The folder of a text file's fast form, made if need be; its name changes when the file does."""
    stat = path.stat()
    key = f"{path.resolve()}|{member}|{stat.st_size}|{stat.st_mtime_ns}"
    folder = pretrained.cache_folder() / "vectors" / f"{path.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        try:
            _write_fast_form(path, member, part)
            os.rename(part, folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was first, which is as good
                raise PretrainedError(
                    f"{path}: the vectors could not be cached in {folder.parent} ({error})."
                ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_fast_form(path: Path, member: str | None, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    words: list[str] = []
    blocks: list[np.ndarray] = []
    dimension = None
    with _open_lines(path, member) as lines:
        while True:
            numbered = [(number, line) for number, line in zip(range(LINES_AT_ONCE), lines, strict=False)]
            if not numbered:
                break
            start = len(words)
            texts = [line.rstrip() for _, line in numbered if line.strip()]
            if start == 0 and texts and len(texts[0].split(" ")) == 2:
                texts = texts[1:]  # word2vec's form begins with how many words and numbers there are
            if dimension is None and texts:
                dimension = len(texts[0].split(" ")) - 1
            if not texts or not dimension:
                break
            # from the right: some files have words with blanks in them
            parts = [text.rsplit(" ", dimension) for text in texts]
            block = _numbers(parts, dimension, path, start)
            words += [part[0] for part in parts]
            blocks.append(block)
    if not words:
        raise PretrainedError(
            f"{path}: there are no word vectors in it; a line is a word and its numbers, with blanks between."
        )
    np.save(folder / "matrix.npy", np.concatenate(blocks))
    parquet.write_table(pa.table({"word": pa.array(words)}), folder / "words.parquet")


def _numbers(parts: list[list[str]], dimension: int, path: Path, start: int) -> np.ndarray:
    for number, part in enumerate(parts, start=start + 1):
        if len(part) != dimension + 1:
            raise PretrainedError(
                f"{path}: word {number} has {len(part) - 1} numbers where the first has {dimension}; "
                "a line is a word and its numbers, with blanks between."
            )
    try:
        return np.array([part[1:] for part in parts], dtype=np.float32)
    except ValueError as error:
        raise PretrainedError(f"{path}: among words {start + 1} to {start + len(parts)}: {error}.") from None


@contextmanager
def _open_lines(path: Path, member: str | None) -> Iterator[io.TextIOWrapper]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith((".txt", ".vec"))]
                name = member or (names[0] if len(names) == 1 else None)
                if name not in names:
                    raise PretrainedError(
                        f"{path}: it holds {', '.join(names) or 'no .txt file'}; unzip the one that you want."
                    )
                with archive.open(name) as stream:
                    yield io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        else:
            opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
            with opened as stream:
                yield io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PretrainedError(f"{path}: the archive is damaged or cut short ({error}).") from None
    except UnicodeDecodeError as error:
        raise PretrainedError(f"{path}: the vectors are not UTF-8 text ({error}).") from None
