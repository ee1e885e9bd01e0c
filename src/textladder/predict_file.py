"""Predicts every row of a file: `textladder predict --input FILE --output FILE`.

    rows -> predictions, kept in a journal beside the output -> the rows again, with their predictions

Rows are streamed, so memory holds one batch however long the file is. A run that was killed resumes from its journal,
and its output is the same to the byte, in every format.
"""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from textladder.classifier import TextClassifier
from textladder.data.columns import check_texts, named_texts
from textladder.data.file_options import file_options as checked_options
from textladder.data.row_files import open_rows
from textladder.data.row_rewriting import atomic_row_writer, check_target
from textladder.data.row_sources import joined_texts, sample_columns
from textladder.data.rows import RowFile
from textladder.errors import ConfigError, DataError, TextladderError
from textladder.progress import Monitor, say_truncated

ADDED = {"predicted_label": pa.string(), "predicted_probability": pa.float64()}
RECORD = np.dtype([("label", "<i4"), ("probability", "<f8")])


def predict_file(
    classifier: TextClassifier,
    source: str | Path,
    target: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    overwrite: bool = False,
    monitor: Monitor | None = None,
    **file_options: Any,
) -> int:
    """Predict every row of a file.

    Predictions are kept in `TARGET.partial` until the output is complete; after an interruption, the same call with a
    classifier loaded from the same bundle resumes there.

    Args:
        classifier: a fitted classifier.
        source: the file to read.
        target: the file to write, in the format that its name tells: the rows of `source` in their order, with the
            columns `predicted_label` and `predicted_probability` added.
        text: the text columns; by default those that the classifier was trained on.
        overwrite: replace an existing file, and start over instead of resuming.
        monitor: receives progress, and how many of the texts predicted by this call were truncated.
        file_options: how the source is read, by the names of `FileOptions`, where that should not be detected.

    Returns:
        How many rows were predicted.

    Raises:
        DataError: the file cannot be read, lacks a text column, or the output cannot be written.
        ConfigError: the output's name ends in no known format, or `TARGET.partial` belongs to other predictions.
    """
    source, target, monitor = Path(source), Path(target), monitor or Monitor()
    rows = open_rows(source, checked_options(file_options))
    sample = sample_columns(rows, str(source))
    names = named_texts(sample, text or classifier.text_columns)
    check_texts(sample, names, str(source))
    for name in ADDED:
        if name in rows.names:
            raise DataError(f"{source}: column {name!r} already exists; rename it first.")
    check_target(target, overwrite)
    size, changed = source.stat().st_size, source.stat().st_mtime_ns
    about = [classifier.digest, classifier.form, str(source.resolve()), size, changed, names, file_options]
    path, start_over = target.with_name(f"{target.name}.partial"), overwrite or classifier.digest is None
    try:
        with PredictionJournal(path, json.dumps(about), start_over=start_over) as journal:
            count = _predict_rows(classifier, rows, names, journal, monitor)
            monitor.start("writing", None)
            with atomic_row_writer(rows, target, ADDED, overwrite) as writer:
                start = 0
                for batch in rows.batches():
                    labels, probabilities = journal.read(start, len(batch))
                    writer.add(batch, [[classifier.labels[label] for label in labels], probabilities])
                    start += len(batch)
    finally:
        monitor.stop()
    return count


def _predict_rows(
    classifier: TextClassifier, rows: RowFile, text: Sequence[str], journal: "PredictionJournal", monitor: Monitor
) -> int:
    """Fill the journal, and return the number of rows."""
    monitor.start("predicting", None)
    done = predicted = truncated = 0
    try:
        for batch in rows.batches():
            if not journal.has(done + len(batch)):
                scored = classifier.score(joined_texts(rows, batch, text))
                journal.write(done, scored.probabilities)
                predicted, truncated = predicted + len(batch), truncated + scored.truncated
            done += len(batch)
            monitor.advance(done, f"{done:,} rows")
    except DataError:  # a row cannot be read: once the file is corrected, the journal no longer belongs to it
        journal.discard()
        raise
    say_truncated(truncated, predicted, monitor)
    return done


class PredictionJournal:
    """Predictions kept in a file: a line that says what they belong to, then a record for each row.

    A context manager: the file is removed when the block ends without an error, and kept for resuming if it is
    interrupted, unless `discard` was called.

    Args:
        path: the file.
        about: what the predictions belong to.
        start_over: ignore what an earlier run kept.
    """

    def __init__(self, path: Path, about: str, *, start_over: bool) -> None:
        """Open the file, or create it.

        Raises:
            DataError: it cannot be opened.
            ConfigError: it belongs to other predictions.
        """
        header = f"{about}\n".encode()
        self.path, self._header_size, self._keep = path, len(header), True
        resume = path.exists() and not start_over
        try:
            self._file = path.open("r+b" if resume else "w+b", buffering=0)
            if not resume:
                self._file.write(header)
        except OSError as error:
            raise DataError(f"{path}: predictions could not be written ({error.strerror or error}).") from None
        if resume and self._file.read(len(header)) != header:
            self._file.close()
            raise ConfigError(
                f"{path} belongs to a different input, bundle or settings, or the input has changed since; "
                "pass overwrite=True to start over, or delete it."
            )
        self._rows = (path.stat().st_size - len(header)) // RECORD.itemsize

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

    def has(self, rows: int) -> bool:
        """Whether the first `rows` rows are predicted."""
        return rows <= self._rows

    def write(self, start: int, probabilities: np.ndarray) -> None:
        """Write the predictions of a batch, over whatever an interruption left there.

        Args:
            start: the first row of the batch.
            probabilities: float32 (rows, classes).

        Raises:
            TextladderError: they cannot be written; those before are kept.
        """
        records = np.empty(len(probabilities), RECORD)
        records["label"], records["probability"] = probabilities.argmax(axis=1), probabilities.max(axis=1)
        try:
            self._file.seek(self._offset(start))
            # a disk that fills up accepts a part, and reports an error only at the next write
            if self._file.write(records.tobytes()) < records.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TextladderError(
                f"{self.path}: predictions could not be written ({error.strerror or error}); those of the first "
                f"{start:,} rows are kept, and the same command resumes from there."
            ) from None
        self._rows = start + len(records)

    def read(self, start: int, rows: int) -> tuple[list[int], list[float]]:
        """The predicted classes, as indices, and the probabilities of `rows` rows from `start` on."""
        self._file.seek(self._offset(start))
        records = np.frombuffer(self._file.read(rows * RECORD.itemsize), RECORD)
        return records["label"].tolist(), [round(probability, 6) for probability in records["probability"].tolist()]

    def _offset(self, row: int) -> int:
        return self._header_size + row * RECORD.itemsize
