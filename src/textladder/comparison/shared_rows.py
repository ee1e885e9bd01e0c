"""The parts of a data set in a folder, so that other processes train on exactly the same rows.

Arrow files and one JSON file. `compare` writes the folder, its workers map it into memory, and `compare` deletes it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from textladder.data.labelled_table import SCHEMA
from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.data.mapped_tables import map_table
from textladder.data.splits import stratified

MANIFEST, TRAIN_TABLE, TEST_TABLE = "parts.json", "train.arrow", "test.arrow"
SOURCE_ROW = "row"  # extra column: the row's number in the data it came from
STORED = SCHEMA.append(pa.field(SOURCE_ROW, pa.int64()))


def write_shared_rows(data: TextData, folder: Path) -> None:
    """Write the texts, labels and source row numbers of every part; training and validation rows share a table."""
    folder.mkdir(parents=True)
    _write_table(folder / TRAIN_TABLE, [data.train, *([] if data.valid is None else [data.valid])])
    _write_table(folder / TEST_TABLE, [data.test])
    manifest = {
        "train_rows": len(data.train),
        "labels": data.labels,
        "label_names": data.label_names,
        "label_type": data.label_type,
        "test_labels": data.test.labels,
        "test_label_names": data.test.label_names,
        "text_columns": data.text_columns,
        "label_column": data.label_column,
        "description": data.description,
        "warnings": data.warnings,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _write_table(path: Path, parts: Sequence[LabelledTexts]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, STORED) as writer:
        for part in parts:
            for batch in _record_batches(part):
                writer.write_batch(batch)


def _record_batches(part: LabelledTexts) -> Iterator[pa.RecordBatch]:
    start = 0
    for texts in part.batches():
        stop = start + len(texts)
        labels = pa.array(part.label_ids[start:stop].astype(np.int32))
        columns = [pa.array(texts, pa.string()), labels, pa.array(part.rows[start:stop])]
        yield pa.record_batch(columns, schema=STORED)
        start = stop


def read_shared_rows(folder: Path) -> TextData:
    """Read the data that `write_shared_rows` wrote, memory-mapped."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    labels, names = tuple(manifest["labels"]), tuple(manifest["label_names"])
    trained_on, tested_on = (map_table(folder / name) for name in (TRAIN_TABLE, TEST_TABLE))
    train, valid = np.split(np.arange(trained_on.num_rows), [manifest["train_rows"]])
    return TextData(
        LabelledTexts(trained_on, train, labels, names),
        LabelledTexts(trained_on, valid, labels, names) if len(valid) else None,
        LabelledTexts(
            tested_on, np.arange(tested_on.num_rows), tuple(manifest["test_labels"]),
            tuple(manifest["test_label_names"]),
        ),
        labels, names, manifest["label_type"], tuple(manifest["text_columns"]), manifest["label_column"],
        manifest["description"], tuple(manifest["warnings"]),
    )  # fmt: skip


def source_rows(part: LabelledTexts) -> np.ndarray:
    """Row numbers of a part in the data it came from, int64 (rows,).

    Raises:
        ValueError: the part does not come from `read_shared_rows`.
    """
    if SOURCE_ROW not in part.table.column_names:
        raise ValueError(f"Only parts from read_shared_rows have source rows; received {part.table.column_names}.")
    numbers: np.ndarray = part.table[SOURCE_ROW].to_numpy()[part.rows]
    return numbers


def fewer_rows(data: TextData, rows: int, seed: int) -> TextData:
    """Take a stratified sample of the training rows, and of the validation rows in proportion.

    Every class keeps at least one row. With the same seed, a smaller sample is a subset of a larger one, as a learning
    curve needs.

    Args:
        data: all rows.
        rows: number of training rows to keep.
        seed: of the sample.

    Returns:
        The data with fewer training and validation rows and the same test rows.
    """
    share = rows / len(data.train)

    def sample(part: LabelledTexts) -> LabelledTexts:
        rng = np.random.default_rng(seed)
        places = np.arange(len(part))
        chosen = stratified(places, part.label_ids, round(share * len(part)), rng, keep_back=False)
        return replace(part, rows=part.rows[np.sort(chosen)])

    return replace(data, train=sample(data.train), valid=None if data.valid is None else sample(data.valid))
