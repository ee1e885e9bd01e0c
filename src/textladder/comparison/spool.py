"""The parts of a data set as a folder, for other processes to train on the very same rows.

`compare` writes it, its workers map it into memory. Arrow files and one JSON file; nothing is kept there afterwards.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from textladder.data import SCHEMA, LabelledTexts, TextData, stratified

ABOUT = "parts.json"
PARTS = ("train", "valid", "test")
STORED = SCHEMA.append(pa.field("row", pa.int64()))  # the row that it had where it came from


def write_spool(data: TextData, folder: Path) -> None:
    """Write every part's texts, labels and row numbers in order."""
    folder.mkdir(parents=True)
    for name in PARTS:
        part = getattr(data, name)
        if part is None:
            continue
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, STORED) as writer:
            start = 0
            for texts in part.batches():
                stop = start + len(texts)
                columns = [pa.array(texts, pa.string()), pa.array(part.label_ids[start:stop].astype(np.int32))]
                writer.write_batch(pa.record_batch([*columns, pa.array(part.rows[start:stop])], schema=STORED))
                start = stop
    about = {
        "labels": data.labels,
        "label_names": data.label_names,
        "text_columns": data.text_columns,
        "label_column": data.label_column,
        "description": data.description,
    }
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def read_spool(folder: Path) -> TextData:
    """The data that `write_spool` wrote; each part is a table of its own."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    labels, names = tuple(about["labels"]), tuple(about["label_names"])
    parts: dict[str, LabelledTexts | None] = dict.fromkeys(PARTS)
    for name in PARTS:
        path = folder / f"{name}.arrow"
        if path.exists():
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            parts[name] = LabelledTexts(table, np.arange(table.num_rows), labels, names)
    train, test = parts["train"], parts["test"]
    assert train is not None
    assert test is not None
    return TextData(
        train, parts["valid"], test, labels, names, tuple(about["text_columns"]), about["label_column"],
        about["description"],
    )  # fmt: skip


def fewer_rows(data: TextData, rows: int, seed: int) -> TextData:
    """A stratified choice of the training rows, and of the validation rows in proportion; the test rows stay.

    With the same seed fewer rows are among more: a learning curve adds rows and takes none away.
    """
    share = rows / len(data.train)

    def some(part: LabelledTexts | None) -> LabelledTexts | None:
        if part is None:
            return None
        wanted = max(len(part.labels), round(share * len(part)))
        chosen = stratified(part.rows, part.label_ids, wanted, np.random.default_rng(seed))
        return replace(part, rows=np.sort(chosen))

    train = some(data.train)
    assert train is not None
    return replace(data, train=train, valid=some(data.valid))
