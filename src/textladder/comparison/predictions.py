"""The predictions of a training run as a Parquet file: part, row, label, predicted label, one column per class."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textladder.classifier import ORIGINAL
from textladder.data.labelled_texts import LabelledTexts

PREDICTIONS = "predictions.parquet"  # of the original form
PROBABILITY_OF = "probability of "  # prefix of the columns with the classes' probabilities


@dataclass(frozen=True)
class PartPredictions:
    """What was predicted for the rows of one part.

    Attributes:
        texts: the part.
        source_rows: the rows' numbers in the data they came from, int64 (rows,).
        probabilities: float32 (rows, classes).
    """

    texts: LabelledTexts
    source_rows: np.ndarray
    probabilities: np.ndarray


def predictions_file(form: str) -> str:
    """The name of the file with the predictions of a form.

    >>> predictions_file("onnx-int8")
    'predictions-onnx-int8.parquet'
    """
    return PREDICTIONS if form == ORIGINAL else f"predictions-{form}.parquet"


def predictions_digest(folder: Path, form: str) -> str | None:
    """SHA-256 of the file with the predictions of a form in a training's folder; None if there is none."""
    try:
        with (folder / predictions_file(form)).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:  # nothing to predict
        return None


def write_predictions(path: Path, parts: Mapping[str, PartPredictions]) -> None:
    """Write the true label, the predicted label and the class probabilities of every row.

    Args:
        path: the Parquet file.
        parts: predictions by the name of the part, such as `test`; all of the same classes. The true labels of a part
            may be more than the classes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {"part": [], "row": [], "label": [], "predicted": []}
    for name, part in parts.items():
        columns["part"] += [name] * len(part.texts)
        columns["row"] += part.source_rows.tolist()
        labels = part.texts.labels
        columns["label"] += [labels[place] for place in part.texts.label_ids]
        columns["predicted"] += [labels[place] for place in part.probabilities.argmax(axis=1)]
    probabilities = np.concatenate([part.probabilities for part in parts.values()])
    labels = labels[: probabilities.shape[1]]
    by_class = {f"{PROBABILITY_OF}{label}": probabilities[:, place] for place, label in enumerate(labels)}
    pq.write_table(pa.table({**columns, **by_class}), path)


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a file that `write_predictions` wrote.

    Returns:
        The true classes, int64 (rows,), `classes` and more for labels that are none of them; the probabilities,
        float32 (rows, classes); the names of the parts, (rows,).
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = [name for name in table.column_names if name.startswith(PROBABILITY_OF)]
    place = {name.removeprefix(PROBABILITY_OF): number for number, name in enumerate(names)}
    labels = np.array([place.setdefault(label, len(place)) for label in table["label"].to_pylist()], np.int64)
    probabilities = np.stack([table[name].to_numpy() for name in names], axis=1)
    return labels, probabilities, np.array(table["part"].to_pylist())
