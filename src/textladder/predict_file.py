"""A file of texts in, the same file with predictions out: streamed, in order, whole or not at all.

    rows -> predictions, kept beside the output as they come -> the rows once more, with their predictions

What `predict --input --output` does. Memory holds one batch of rows, however long the file is. A run that was killed
goes on where it was, and its output is the same to the byte, in every form of file.
"""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textladder.classifier import TextClassifier
from textladder.data.columns import check_texts
from textladder.data.row_files import open_rows
from textladder.data.row_rewriting import atomic_row_writer, check_target
from textladder.data.row_sources import joined_texts, sample_columns
from textladder.errors import ConfigError, DataError, TextladderError
from textladder.progress import Monitor

ADDED = ("predicted_label", "predicted_probability")
RECORD = np.dtype([("label", "<i4"), ("probability", "<f8")])


def predict_file(
    classifier: TextClassifier,
    source: str | Path,
    target: str | Path,
    *,
    text: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    file_encoding: str = "utf-8",
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> int:
    """Predict every row of a file.

    What is predicted is kept in `TARGET.partial` until the output is there; the same call with a classifier from the
    same bundle goes on from there.

    Args:
        classifier: a fitted one.
        source: the file to read.
        target: the file to write, of the same form: the rows of `source` in their order with the columns
            `predicted_label` and `predicted_probability` after theirs.
        text: the text columns; by default the ones that were learnt from.
        columns: names for the columns of a file without a header.
        file_encoding: how both files are encoded.
        overwrite: replace a file that is there, and begin anew whatever was cut off.
        monitor: is told of the rows done.

    Returns:
        How many rows were predicted.

    Raises:
        DataError: the file cannot be read, lacks a text column, or the output cannot be written.
        ConfigError: the output's form is not the input's, or `TARGET.partial` is of something else.
    """
    source, target, monitor = Path(source), Path(target), monitor or Monitor()
    rows = open_rows(source, columns=columns, encoding=file_encoding)
    sample = sample_columns(rows, str(source))
    names = list(text or classifier.text_columns)
    check_texts(sample, names, str(source))
    taken = [name for name in ADDED if name in rows.names]
    if taken:
        raise DataError(f"{source}: there is a column {taken[0]!r} already; rename it first.")
    check_target(source, target, overwrite)
    size, changed = source.stat().st_size, source.stat().st_mtime_ns
    about = [classifier.digest, classifier.form, str(source.resolve()), size, changed, names, columns, file_encoding]
    kept = PredictionJournal(
        target.with_name(f"{target.name}.partial"), json.dumps(about), overwrite or classifier.digest is None
    )
    try:
        monitor.start("predicting", None)
        done = 0
        try:
            for batch in rows.batches():
                if not kept.has(done + len(batch)):
                    kept.put(done, classifier.predict_proba(joined_texts(rows, batch, names)))
                done += len(batch)
                monitor.advance(done, f"{done:,} rows")
        except DataError:  # a row that cannot be read: the file will have to change, and this is no part of it then
            kept.path.unlink()
            raise
        monitor.start("writing", None)
        with atomic_row_writer(rows, source, target, ADDED, overwrite) as writer:
            place = 0
            for batch in rows.batches():
                labels, probabilities = kept.get(place, len(batch))
                writer.add(batch, [[classifier.labels[label] for label in labels], probabilities])
                place += len(batch)
        kept.path.unlink()
    finally:
        monitor.stop()
        kept.file.close()
    return done


class PredictionJournal:
    """Predictions in a file of their own: a line that says what they are of, and a record for each row.

    Args:
        path: the file.
        about: what they are of.
        anew: leave what an earlier run kept.
    """

    def __init__(self, path: Path, about: str, anew: bool) -> None:
        first = f"{about}\n".encode()
        self.path, self.begin = path, len(first)
        there = path.exists() and not anew
        try:
            self.file = path.open("r+b" if there else "w+b", buffering=0)
            if not there:
                self.file.write(first)
        except OSError as error:
            raise DataError(f"{path}: predictions could not be written ({error.strerror or error}).") from None
        if there and self.file.read(self.begin) != first:
            self.file.close()
            raise ConfigError(
                f"{path} is of another input, bundle or setting, or the input has changed since; say --overwrite to "
                "begin anew, or take it away."
            )
        self.rows = (path.stat().st_size - self.begin) // RECORD.itemsize

    def has(self, rows: int) -> bool:
        """Whether so many rows are there, from the first on."""
        return rows <= self.rows

    def put(self, place: int, probabilities: np.ndarray) -> None:
        """The predictions of a batch of rows from a place on, float32 (rows, classes), over what a kill left of them.

        Raises:
            TextladderError: they cannot be written; those before are kept.
        """
        found = np.empty(len(probabilities), RECORD)
        found["label"], found["probability"] = probabilities.argmax(axis=1), probabilities.max(axis=1)
        try:
            self.file.seek(self._offset(place))
            # a disk that fills up takes a part, and says so only at the next write
            if self.file.write(found.tobytes()) < found.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TextladderError(
                f"{self.path}: predictions could not be written ({error.strerror or error}); those of the first "
                f"{place:,} rows are kept, and the same command goes on from there."
            ) from None
        self.rows = place + len(found)

    def get(self, place: int, rows: int) -> tuple[list[int], list[float]]:
        """The labels' places and the probabilities of some rows from a place on."""
        self.file.seek(self._offset(place))
        found = np.frombuffer(self.file.read(rows * RECORD.itemsize), RECORD)
        return found["label"].tolist(), [round(probability, 6) for probability in found["probability"].tolist()]

    def _offset(self, place: int) -> int:
        return self.begin + place * RECORD.itemsize
