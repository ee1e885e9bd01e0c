"""The parts of a data set as a folder, for other processes to train on the very same rows.

`compare` writes it, its workers map it into memory. Arrow files and one JSON file; nothing is kept there afterwards.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from textladder.data.labelled_table import SCHEMA
from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.data.splits import stratified

ABOUT, LEARNT_FROM, TESTED_ON = "parts.json", "train.arrow", "test.arrow"
STORED = SCHEMA.append(pa.field("row", pa.int64()))  # the row that it had where it came from


def write_shared_rows(data: TextData, folder: Path) -> None:
    """Write every part's texts, labels and row numbers in order; training and validation rows are one table."""
    folder.mkdir(parents=True)
    _write_table(folder / LEARNT_FROM, [data.train, *([] if data.valid is None else [data.valid])])
    _write_table(folder / TESTED_ON, [data.test])
    about = {
        "train_rows": len(data.train),
        "labels": data.labels,
        "label_names": data.label_names,
        "text_columns": data.text_columns,
        "label_column": data.label_column,
        "description": data.description,
    }
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _write_table(path: Path, parts: Sequence[LabelledTexts]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, STORED) as writer:
        for part in parts:
            start = 0
            for texts in part.batches():
                stop = start + len(texts)
                labels = pa.array(part.label_ids[start:stop].astype(np.int32))
                columns = [pa.array(texts, pa.string()), labels, pa.array(part.rows[start:stop])]
                writer.write_batch(pa.record_batch(columns, schema=STORED))
                start = stop


def read_shared_rows(folder: Path) -> TextData:
    """The data that `write_shared_rows` wrote."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    labels, names = tuple(about["labels"]), tuple(about["label_names"])
    learnt_from, tested_on = (
        pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all() for name in (LEARNT_FROM, TESTED_ON)
    )
    train, valid = np.split(np.arange(learnt_from.num_rows), [about["train_rows"]])
    return TextData(
        LabelledTexts(learnt_from, train, labels, names),
        LabelledTexts(learnt_from, valid, labels, names) if len(valid) else None,
        LabelledTexts(tested_on, np.arange(tested_on.num_rows), labels, names),
        labels, names, tuple(about["text_columns"]), about["label_column"], about["description"],
    )  # fmt: skip


def fewer_rows(data: TextData, rows: int, seed: int) -> TextData:
    """A stratified choice of the training rows, and of the validation rows in proportion; the test rows stay.

    Every class keeps a row. With the same seed fewer rows are among more: a learning curve takes none away.
    """
    share = rows / len(data.train)

    def some(part: LabelledTexts) -> LabelledTexts:
        rng = np.random.default_rng(seed)
        places = np.arange(len(part))
        chosen = stratified(places, part.label_ids, round(share * len(part)), rng, keep_back=False)
        return replace(part, rows=part.rows[np.sort(chosen)])

    return replace(data, train=some(data.train), valid=None if data.valid is None else some(data.valid))
