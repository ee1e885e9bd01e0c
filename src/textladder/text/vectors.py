"""Pretrained word vectors: read once from GloVe's text format, cached in a binary form, looked up for a vocabulary.

Third step of `lstm` (Pennington, Socher & Manning 2014). `pretrained.py` finds the file.
"""

import gzip
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from textladder import pretrained
from textladder.atomic_files import atomic_folder
from textladder.errors import ConfigError, PretrainedError
from textladder.pretrained import Progress, VectorSource

BINARY_FORM, CHECKSUMS = ("matrix.npy", "words.parquet"), "checksums.json"
LINES_AT_ONCE = 10_000
MAX_LINE = 1 << 20  # characters
LINE_FORMAT = "each line must be a word and its values, separated by spaces"


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors.

    >>> import pyarrow
    >>> vectors = WordVectors("tiny", pyarrow.array(["the", "cat"]), np.array([[0.5, 1], [2, 0.25]], np.float32))
    >>> vectors["cat"]
    array([2.  , 0.25], dtype=float32)
    >>> "cat" in vectors, "dog" in vectors
    (True, False)

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

    def __getitem__(self, word: str) -> np.ndarray:
        """The vector of a word, float32 (dimension,).

        Raises:
            ConfigError: the word has no vector.
        """
        index = self._index(word)
        if index < 0:
            raise ConfigError(f"The word {word!r} has no vector in {self.name}.")
        return np.array(self.matrix[index])

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._index(word) >= 0

    def __iter__(self) -> Iterator[str]:
        return iter(self.words.to_pylist())

    def _index(self, word: str) -> int:
        import pyarrow as pa
        import pyarrow.compute as compute

        return int(compute.index(self.words, pa.scalar(word, self.words.type)).as_py())

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self.matrix.shape[1])

    def first_words(self, number: int) -> list[str]:
        """The first words of the file, which in GloVe's are the most frequent ones."""
        return list(self.words.slice(0, number).to_pylist())

    def known(self, tokens: Sequence[str]) -> np.ndarray:
        """Which tokens have a vector, bool (tokens,)."""
        import pyarrow as pa
        import pyarrow.compute as compute

        found = compute.is_in(pa.array(tokens, self.words.type), value_set=self.words)
        known: np.ndarray = found.to_numpy(zero_copy_only=False)
        return known

    def lookup(self, tokens: Sequence[str], *, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, int]:
        """Look up the vectors of a vocabulary's tokens.

        A token without a vector gets a random one, never zeros: with equal vectors the network could not tell two such
        words apart.

        Args:
            tokens: the tokens in the order of their ids.
            seed: seed of the random vectors.
            spread: standard deviation of the normal distribution that they are drawn from.

        Returns:
            float32 (tokens, dimension), and how many tokens have a vector.
        """
        import pyarrow as pa
        import pyarrow.compute as compute

        indices = compute.index_in(pa.array(tokens, self.words.type), value_set=self.words)
        found = compute.is_valid(indices).to_numpy(zero_copy_only=False)
        shape = (len(tokens), self.dimension)
        vectors = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(spread)
        vectors[found] = self.matrix[indices.drop_null().to_numpy()]
        return vectors, int(found.sum())


def load_vectors(name_or_path: str | Path | None = None, *, progress: Progress | None = None) -> WordVectors:
    """Load word vectors.

    Args:
        name_or_path: a file in GloVe's text format (`.txt`, `.vec`, `.gz`, `.zip`; any dimension), a name such as
            `glove.6B.100d`, or None for whatever is available on this machine.
        progress: called with the number of bytes downloaded.

    Raises:
        PretrainedError: nothing was found, or the file is not in that format.
    """
    return read_vectors(pretrained.find_vectors(name_or_path, progress))


def read_vectors(source: VectorSource) -> WordVectors:
    """Open vectors that `pretrained.find_vectors` found; those in text are converted to a binary form in the cache.

    Raises:
        PretrainedError: the file cannot be read, or the cache cannot be written.
    """
    import pyarrow.parquet as parquet

    matrix, words = source.matrix, source.words
    if source.text is not None:
        folder = _binary_form(source.text, source.member)
        matrix, words = (folder / name for name in BINARY_FORM)
    assert matrix is not None
    assert words is not None
    column = parquet.read_table(words).column(0).combine_chunks()
    return WordVectors(source.name, column, np.load(matrix, mmap_mode="r", allow_pickle=False))


def _binary_form(path: Path, member: str | None) -> Path:
    """The folder with a text file's binary form, made if it does not exist; its name changes when the file does."""
    stat = path.stat()
    key = f"{path.resolve()}|{member}|{stat.st_size}|{stat.st_mtime_ns}"
    folder = pretrained.cache_folder() / "vectors" / f"{path.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not _is_whole(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_folder(folder) as part:
                _convert(path, member, part)
                (part / CHECKSUMS).write_text(json.dumps({name: _checksum(part / name) for name in BINARY_FORM}))
        except OSError as error:
            raise PretrainedError(
                f"{path}: the vectors could not be cached in {folder.parent} ({error.strerror or error})."
            ) from None
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a binary form is as it was written."""
    try:
        checksums = json.loads((folder / CHECKSUMS).read_text())
        return all(checksums[name] == _checksum(folder / name) for name in BINARY_FORM)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checksum(path: Path) -> int:
    """CRC-32 of a file."""
    found = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def _convert(path: Path, member: str | None, folder: Path) -> None:
    """Write the matrix and the words."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    words: list[str] = []
    blocks: list[np.ndarray] = []
    dimension = None
    with _open_lines(path, member) as lines:
        while block := list(islice(_bounded(lines, path), LINES_AT_ONCE)):
            texts = [line.rstrip() for line in block if line.strip()]
            if not words and texts and len(texts[0].split(" ")) == 2:
                texts = texts[1:]  # word2vec's format begins with the number of words and the dimension
            if dimension is None and texts:
                dimension = len(texts[0].split(" ")) - 1
            if not texts or not dimension:
                break
            # from the right: some files have words that contain spaces
            fields = [text.rsplit(" ", dimension) for text in texts]
            blocks.append(_parse_values(fields, dimension, path, len(words)))
            words += [word for word, *_ in fields]
    if not words:
        raise PretrainedError(f"{path}: the file contains no word vectors; {LINE_FORMAT}.")
    matrix_file, words_file = (folder / name for name in BINARY_FORM)
    np.save(matrix_file, np.concatenate(blocks))
    parquet.write_table(pa.table({"word": pa.array(words)}), words_file)


def _bounded(lines: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """Lines that are not too long for a vector."""
    while line := lines.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise PretrainedError(f"{path}: a line has {MAX_LINE:,} characters or more; {LINE_FORMAT}.")
        yield line


def _parse_values(fields: list[list[str]], dimension: int, path: Path, words_before: int) -> np.ndarray:
    for number, (_, *values) in enumerate(fields, start=words_before + 1):
        if len(values) != dimension:
            count = "1 value" if len(values) == 1 else f"{len(values)} values"
            raise PretrainedError(
                f"{path}: word {number} has {count} where the first word has {dimension}; {LINE_FORMAT}."
            )
    try:
        return np.array([values for _, *values in fields], dtype=np.float32)
    except ValueError as error:
        last = words_before + len(fields)
        raise PretrainedError(f"{path}: among words {words_before + 1} to {last}: {error}.") from None


@contextmanager
def _open_lines(path: Path, member: str | None) -> Iterator[io.TextIOWrapper]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith((".txt", ".vec"))]
                name = member or (names[0] if len(names) == 1 else None)
                if name not in names:
                    raise PretrainedError(
                        f"{path}: the archive contains {', '.join(names) or 'no .txt file'}; unzip the one you want."
                    )
                with archive.open(name) as stream:
                    yield io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        else:
            opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
            with opened as stream:
                yield io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PretrainedError(f"{path}: the archive is damaged or truncated ({error}).") from None
    except UnicodeDecodeError as error:
        raise PretrainedError(f"{path}: the vectors are not UTF-8 text ({error}).") from None
