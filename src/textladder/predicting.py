"""A file of texts in, the same file with predictions out: streamed, in order, whole or not at all.

What `predict --input --output` does. Memory holds one batch of rows, however long the file is.
"""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from textladder.classifier import TextClassifier
from textladder.columns import check_texts
from textladder.data import joined_texts, sample_columns
from textladder.errors import ConfigError, DataError
from textladder.progress import Monitor
from textladder.rows import file_format, open_rows

ADDED = ("predicted_label", "predicted_probability")


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

    Args:
        classifier: a fitted one.
        source: the file to read.
        target: the file to write, of the same form: the rows of `source` in their order with the columns
            `predicted_label` and `predicted_probability` after theirs.
        text: the text columns; by default the ones that were learnt from.
        columns: names for the columns of a file without a header.
        file_encoding: how both files are encoded.
        overwrite: replace a file that is there.
        monitor: is told of the rows done.

    Returns:
        How many rows were predicted.

    Raises:
        DataError: the file cannot be read, lacks a text column, or the output cannot be written.
        ConfigError: the output's form is not the input's.
    """
    source, target, monitor = Path(source), Path(target), monitor or Monitor()
    (form, _), (target_form, gzipped) = file_format(source), file_format(target)
    if form != target_form:
        raise ConfigError(f"{target}: the output has the input's form, so its name must end like {source.name}.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists; say --overwrite to replace it, or give another place.")
    rows = open_rows(source, columns=columns, encoding=file_encoding)
    sample = sample_columns(rows, str(source))
    names = list(text or classifier.text_columns)
    check_texts(sample, names, str(source))
    taken = [name for name in ADDED if name in rows.names]
    if taken:
        raise DataError(f"{source}: there is a column {taken[0]!r} already; rename it first.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    done = 0
    try:
        with part.open("wb") as plain:
            # no time stamp inside, so that the same rows give the same bytes
            stream: IO[bytes] = gzip.GzipFile(fileobj=plain, mode="wb", filename="", mtime=0) if gzipped else plain  # type: ignore[assignment]
            writer = rows.write(stream, ADDED)
            monitor.start("predicting", None)
            for batch in rows.batches():
                predictions = classifier.predictions(joined_texts(rows, batch, names))
                labels = [prediction.label for prediction in predictions]
                writer.add(batch, [labels, [round(prediction.probability, 6) for prediction in predictions]])
                done += len(labels)
                monitor.advance(done, f"{done:,} rows")
            writer.close()
            if gzipped:
                stream.close()
        part.replace(target)
    except OSError as error:
        raise DataError(
            f"{target}: the predictions could not be written ({error.strerror or error}); nothing was kept."
        ) from None
    except UnicodeEncodeError as error:
        raise DataError(f"{target}: a label cannot be written in {file_encoding} ({error.reason}).") from None
    finally:
        monitor.stop()
        part.unlink(missing_ok=True)
    return done
