"""A file of texts in, the same file with predictions out: streamed, in order, whole or not at all.

What `predict --input --output` does. Memory holds one batch of rows, however long the file is.
"""

from collections.abc import Sequence
from pathlib import Path

from textladder.classifier import TextClassifier
from textladder.columns import check_texts
from textladder.data import joined_texts, sample_columns
from textladder.errors import DataError
from textladder.progress import Monitor
from textladder.rewriting import rewritten
from textladder.rows import open_rows

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
    rows = open_rows(source, columns=columns, encoding=file_encoding)
    sample = sample_columns(rows, str(source))
    names = list(text or classifier.text_columns)
    check_texts(sample, names, str(source))
    taken = [name for name in ADDED if name in rows.names]
    if taken:
        raise DataError(f"{source}: there is a column {taken[0]!r} already; rename it first.")
    done = 0
    try:
        with rewritten(rows, source, target, ADDED, overwrite) as writer:
            monitor.start("predicting", None)
            for batch in rows.batches():
                predictions = classifier.predictions(joined_texts(rows, batch, names))
                labels = [prediction.label for prediction in predictions]
                writer.add(batch, [labels, [round(prediction.probability, 6) for prediction in predictions]])
                done += len(labels)
                monitor.advance(done, f"{done:,} rows")
    finally:
        monitor.stop()
    return done
