"""Predicts every row of a file: `textladder predict --input FILE --output FILE`.

    rows -> predictions, kept in a journal beside the output -> the rows with their predictions

Rows are streamed, so memory holds a few batches however long the file is; an engine may predict several at a time. A
run that was killed resumes from its journal, and its output is the same to the byte, in every format.
"""

import errno
import hashlib
import itertools
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from textladder.atomic_files import locked
from textladder.classifier import TextClassifier
from textladder.data.columns import check_texts, named_texts
from textladder.data.file_options import file_options as checked_options
from textladder.data.labels import BOOLEAN, INTEGER, NUMBER, TEXT, Label
from textladder.data.row_files import open_rows, output_format
from textladder.data.row_rewriting import atomic_row_writer, check_target
from textladder.data.row_sources import STANDARD_INPUT, joined_texts, sample_columns, spooled_input
from textladder.data.rows import Batch, RowFile, RowWriter
from textladder.engines import Engine, EngineError
from textladder.errors import BundleError, ConfigError, DataError, TextladderError
from textladder.levels.base import Scored
from textladder.progress import Monitor, say_truncated

ARROW_TYPES = {TEXT: pa.string(), INTEGER: pa.int64(), NUMBER: pa.float64(), BOOLEAN: pa.bool_()}
DIGITS = 6  # of a probability
DIGEST_BYTES = 16
HEAD, CHECKSUM = struct.Struct(f"<I{DIGEST_BYTES}s"), struct.Struct("<I")


def predict_file(
    classifier: TextClassifier,
    source: str | Path,
    target: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    top_k: int = 1,
    probabilities: bool = False,
    overwrite: bool = False,
    monitor: Monitor | None = None,
    engine: Engine | None = None,
    part: tuple[int, int] = (1, 1),
    **file_options: Any,
) -> int:
    """Predict every row of a file.

    Predictions are kept in `TARGET.partial` until the output is complete; after an interruption, the same call with a
    classifier loaded from the same bundle resumes there.

    Args:
        classifier: a fitted classifier.
        source: the file to read; `-` for standard input.
        target: the file to write, in the format that its name tells: the rows of `source` in their order, with the
            columns `predicted_label` and `predicted_probability` added. The labels have the type that they have in the
            data, if the format has types.
        text: the text columns; by default those that the classifier was trained on.
        top_k: how many of the most probable labels to write; further columns are `predicted_label_2`,
            `predicted_probability_2` and so on.
        probabilities: also add a column `probability_LABEL` for each label.
        overwrite: replace an existing file, and start over instead of resuming.
        monitor: receives progress, and how many of the texts predicted by this call were truncated.
        engine: predicts in other processes, with the classifier's bundle (a script that uses one begins with
            `if __name__ == "__main__":`).
        part: which part of the rows to predict and write, from 1, and in how many parts they are divided. Parts in
            their order are the whole, to the last digit.
        file_options: how the source is read, by the names of `FileOptions`, where that should not be detected.

    Returns:
        How many rows were predicted.

    Raises:
        DataError: the file cannot be read, lacks a text column, or the output cannot be written.
        ConfigError: the output's name ends in no known format, `top_k` is out of range, or `TARGET.partial` belongs to
            other predictions, or another process is writing the output; or there is an engine, and the classifier was
            not read from a bundle; or there is no such part.
        TextladderError: a process of the engine was killed.
    """
    check_part(part)
    is_input = str(source) == STANDARD_INPUT
    source, target, monitor = spooled_input() if is_input else Path(source), Path(target), monitor or Monitor()
    rows = open_rows(source, checked_options(file_options))
    sample = sample_columns(rows, f"{source}")
    names = named_texts(sample, text or classifier.text_columns)
    check_texts(sample, names, f"{source}")
    columns = PredictionColumns(classifier, top_k, probabilities, output_format(target)[0])
    for name in columns.types:
        if name in rows.names:
            raise DataError(f"{source}: column {name!r} already exists; rename it first.")
    path = target.with_name(f"{target.name}.partial")
    check_target(target, overwrite, path)
    size, changed = source.stat().st_size, source.stat().st_mtime_ns
    about = [classifier.digest, classifier.form, str(source.resolve()), size, changed, names, file_options]
    about += [top_k, probabilities, *part]
    start_over = overwrite or classifier.digest is None or is_input
    scoring = _Scoring(classifier) if engine is None else _ScoringElsewhere(classifier, engine)
    kept = f"the predictions so far are kept in {path}, and the same command goes on from there"
    if start_over:
        kept = "the same command starts over"
    try:
        with (
            locked(target, "file"),
            PredictionJournal(path, json.dumps(about), columns.record, start_over=start_over) as journal,
            atomic_row_writer(rows, target, columns.types, overwrite, kept) as writer,
        ):
            count = _predict_rows(scoring, rows, part, names, columns, journal, writer, monitor)
            if (source.stat().st_size, source.stat().st_mtime_ns) != (size, changed):
                raise DataError(f"{source}: the file was changed while it was being predicted.")
    except EngineError as error:
        raise TextladderError(f"{error}; {kept}.") from None
    finally:
        monitor.stop()
    return count


def check_top_k(top_k: int, labels: Sequence[str]) -> None:
    """Check how many of the labels are asked for.

    Raises:
        ConfigError: it is not from 1 to all of them.
    """
    if not 1 <= top_k <= len(labels):
        raise ConfigError(f"`top_k=` must be from 1 to {len(labels)}, the number of labels; received {top_k}.")


def check_part(part: tuple[int, int]) -> None:
    """Check which part of the rows, or of the files, is asked for.

    Raises:
        ConfigError: there is no such part.
    """
    number, parts = part
    if not 1 <= number <= parts:
        raise ConfigError(f"`part=` must be from 1 to the number of parts; received {number} of {parts}.")


class PredictionColumns:
    """The columns that are added to the rows, and how the journal keeps them.

    Args:
        classifier: predicts.
        top_k: how many of the most probable labels there are.
        probabilities: whether there is a column for each label.
        form: the format of the output.

    Attributes:
        types: the columns by name, with their types.
        record: what the journal keeps of a row.
    """

    def __init__(self, classifier: TextClassifier, top_k: int, probabilities: bool, form: str) -> None:
        """Check `top_k`.

        Raises:
            ConfigError: it is not from 1 to the number of labels.
        """
        labels = classifier.labels
        check_top_k(top_k, labels)
        # a delimited file has no types, and labels are written there as they were in training
        self._labels: Sequence[Label] = labels if form in ("csv", "tsv") else classifier.label_values
        label_type = ARROW_TYPES[classifier.label_type]
        self.types: dict[str, pa.DataType] = {}
        for place in range(1, top_k + 1):
            number = "" if place == 1 else f"_{place}"
            self.types |= {f"predicted_label{number}": label_type, f"predicted_probability{number}": pa.float64()}
        every = labels if probabilities else ()
        self.types |= {f"probability_{label}": pa.float64() for label in every}
        self.record = np.dtype([("labels", "<i4", (top_k,)), ("best", "<f8", (top_k,)), ("all", "<f4", (len(every),))])

    def records(self, probabilities: np.ndarray) -> np.ndarray:
        """What the journal keeps of class probabilities, float32 (rows, classes)."""
        records = np.empty(len(probabilities), self.record)
        top_k, every = records["labels"].shape[1], records["all"].shape[1]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        records["labels"], records["best"] = order, np.take_along_axis(probabilities, order, axis=1)
        records["all"] = probabilities[:, :every]
        return records

    def values(self, records: np.ndarray) -> list[list[Any]]:
        """The columns of some records."""
        columns: list[list[Any]] = []
        for place in range(records["labels"].shape[1]):
            columns.append([self._labels[label] for label in records["labels"][:, place].tolist()])
            columns.append(records["best"][:, place].round(DIGITS).tolist())
        return columns + [column.tolist() for column in records["all"].T.astype(np.float64).round(DIGITS)]


class _Scoring:
    """Scores texts in this process, when they are asked for."""

    waiting = 0  # batches

    def __init__(self, classifier: TextClassifier) -> None:
        self._classifier = classifier

    def start(self, texts: Sequence[str]) -> Callable[[], Scored]:
        return partial(self._classifier.score, texts)


class _ScoringElsewhere:
    """Has texts scored by an engine.

    Args:
        classifier: read from a bundle, which the processes of the engine read too.
        engine: computes them.
    """

    def __init__(self, classifier: TextClassifier, engine: Engine) -> None:
        if classifier.folder is None:
            raise ConfigError("An engine needs a classifier that was loaded from a bundle: save it, then load it.")
        self._bundle = (str(classifier.folder.resolve()), classifier.form, classifier.digest)
        self._engine = engine
        self.waiting = engine.workers  # batches, besides the next one

    def start(self, texts: Sequence[str]) -> Callable[[], Scored]:
        # a whole batch, as in one process: what it is computed with decides the last digits of a prediction
        result = self._engine.submit(score_texts, *self._bundle, texts)

        def wait() -> Scored:
            scored: Scored = result.result()
            return scored

        return wait


def score_texts(folder: str, form: str, digest: str, texts: Sequence[str]) -> Scored:
    """Score texts in a process of an engine, which keeps the classifier for the next ones.

    Args:
        folder: of the bundle.
        form: the form that predicts.
        digest: of the bundle when the predictions began.
        texts: a batch.

    Raises:
        BundleError: the bundle was replaced, or cannot be read.
    """
    return _classifier(folder, form, digest).score(texts)


@lru_cache(maxsize=1)
def _classifier(folder: str, form: str, digest: str) -> TextClassifier:
    classifier = TextClassifier.load(folder, form=form)
    if classifier.digest != digest:
        raise BundleError(f"{folder}: the bundle was replaced while it was in use.")
    return classifier


@dataclass(frozen=True)
class _Waiting:
    """A batch whose predictions are being computed, or that has been predicted before.

    Attributes:
        start: its first row.
        batch: its rows.
        texts: their texts.
        scored: waits for the predictions; None if the journal has them.
    """

    start: int
    batch: Batch
    texts: list[str]
    scored: Callable[[], Scored] | None


def _predict_rows(
    scoring: _Scoring | _ScoringElsewhere,
    rows: RowFile,
    part: tuple[int, int],
    text: Sequence[str],
    columns: PredictionColumns,
    journal: "PredictionJournal",
    writer: RowWriter,
    monitor: Monitor,
) -> int:
    """Fill the journal, write the rows with their predictions, and return how many there are."""
    monitor.start("predicting", None)
    done = predicted = truncated = 0
    waiting: deque[_Waiting] = deque()

    def finish() -> None:
        nonlocal done, predicted, truncated
        first = waiting.popleft()
        if first.scored is not None:
            scored = first.scored()
            journal.write(first.start, first.texts, columns.records(scored.probabilities))
            predicted, truncated = predicted + len(first.texts), truncated + scored.truncated
        writer.add(first.batch, columns.values(journal.read(first.start)))
        done += len(first.texts)
        monitor.advance(done, f"{done:,} rows")

    start = 0
    for batch, texts in _of_part(rows, part, text, journal):
        waiting.append(_Waiting(start, batch, texts, None if journal.has(start, texts) else scoring.start(texts)))
        start += len(texts)
        while len(waiting) > scoring.waiting:
            finish()
    while waiting:
        finish()
    say_truncated(truncated, predicted, monitor)
    return done


def _of_part(
    rows: RowFile, part: tuple[int, int], text: Sequence[str], journal: "PredictionJournal"
) -> Iterator[tuple[Batch, list[str]]]:
    """The batches of one part of the rows, whole, so that they are those of a run without parts; and their texts."""
    number, parts = part
    try:
        batches = rows.batches()
        if parts > 1:
            total = sum(1 for _ in rows.batches())
            batches = itertools.islice(batches, total * (number - 1) // parts, total * number // parts)
        for batch in batches:
            yield batch, joined_texts(rows, batch, text)
    except DataError:  # a row cannot be read: once the file is corrected, the journal no longer belongs to it
        journal.discard()
        raise


class PredictionJournal:
    """Predictions kept in a file: a line that says what they belong to, then a block for each batch of rows.

    A block is its number of rows, a digest of their texts, the records, and a checksum of all this, so that neither a
    block that a crash left half-written nor one of other texts is taken for these predictions.

    A context manager: the file is removed when the block ends without an error, and kept for resuming if it is
    interrupted, unless `discard` was called.

    Args:
        path: the file.
        about: what the predictions belong to.
        record: the type of a record.
        start_over: ignore what an earlier run kept.
    """

    def __init__(self, path: Path, about: str, record: np.dtype, *, start_over: bool) -> None:
        """Open the file, or create it.

        Raises:
            DataError: it cannot be opened.
            ConfigError: it belongs to other predictions.
        """
        header = f"{about}\n".encode()
        self.path, self._record, self._keep = path, record, True
        self._blocks: dict[int, tuple[int, int, bytes]] = {}  # by the first row: where it begins, rows, digest of texts
        try:
            if start_over:
                path.unlink(missing_ok=True)
            # never through a link that somebody put there
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            self._file = open(os.open(path, flags, 0o666), "r+b", buffering=0)
            found = self._file.read(len(header))
            if header.startswith(found) and found != header:  # new, or killed as it was created
                self._file.truncate(0)
                self._file.seek(0)
                self._file.write(header)
        except OSError as error:
            raise DataError(f"{path}: predictions could not be written ({error.strerror or error}).") from None
        if not header.startswith(found):
            self._file.close()
            raise ConfigError(
                f"{path} belongs to a different input, bundle or settings, or the input has changed since; "
                "pass overwrite=True to start over, or delete it."
            )
        self._end = len(header)
        self._read_blocks()

    def __enter__(self) -> "PredictionJournal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None or not self._keep:
            self.path.unlink()

    def discard(self) -> None:
        """Remove the file at the end of the block, even after an error."""
        self._keep = False

    def has(self, start: int, texts: Sequence[str]) -> bool:
        """Whether the rows from `start` on, with these texts, are predicted.

        Raises:
            ConfigError: rows are that have other texts.
        """
        _, rows, digest = self._blocks.get(start, (0, 0, b""))
        if rows != len(texts):
            return False
        if digest != _digest(texts):
            raise ConfigError(
                f"{self.path} belongs to other rows: the input has changed since; pass overwrite=True to start over, "
                "or delete it."
            )
        return True

    def write(self, start: int, texts: Sequence[str], records: np.ndarray) -> None:
        """Write the predictions of a batch, over whatever an interruption left there.

        Args:
            start: the first row of the batch.
            texts: of its rows.
            records: of its rows.

        Raises:
            TextladderError: they cannot be written; those before are kept.
        """
        digest = _digest(texts)
        content = HEAD.pack(len(records), digest) + records.tobytes()
        content += CHECKSUM.pack(zlib.crc32(content))
        try:
            self._file.seek(self._end)
            # a disk that fills up accepts a part, and reports an error only at the next write
            if self._file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TextladderError(
                f"{self.path}: predictions could not be written ({error.strerror or error}); those of the first "
                f"{start:,} rows are kept, and the same command resumes from there."
            ) from None
        self._blocks[start] = self._end, len(records), digest
        self._end += len(content)

    def read(self, start: int) -> np.ndarray:
        """The records of the batch from the row `start` on."""
        place, rows, _ = self._blocks[start]
        self._file.seek(place + HEAD.size)
        return np.frombuffer(self._file.read(rows * self._record.itemsize), self._record)

    def _read_blocks(self) -> None:
        """Find the blocks that an earlier run kept, up to the first that is not whole."""
        size, start = os.fstat(self._file.fileno()).st_size, 0
        while self._end + HEAD.size + CHECKSUM.size < size:
            self._file.seek(self._end)
            head = self._file.read(HEAD.size)
            rows, digest = HEAD.unpack(head)
            length = rows * self._record.itemsize + CHECKSUM.size
            if not rows or self._end + HEAD.size + length > size:
                return
            content = self._file.read(length)
            if CHECKSUM.unpack(content[-CHECKSUM.size :])[0] != zlib.crc32(head + content[: -CHECKSUM.size]):
                return
            self._blocks[start] = self._end, rows, digest
            self._end, start = self._end + HEAD.size + length, start + rows


def _digest(texts: Sequence[str]) -> bytes:
    """A digest of some texts, each with its length, so that none can pass for two."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.digest()
