"""Labelled texts: from a file, a DataFrame or a known data set to a training, a validation and a test part.

First step of the flow. `rows.py` reads, `columns.py` chooses columns, this module copies the joined texts and
the label numbers into an Arrow file that is memory-mapped, and splits it. Memory does not grow with the texts.
It knows nothing of tokens or models.
"""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from textladder.data.columns import MOST_CLASSES, check_texts, choose_columns, find_texts
from textladder.data.row_files import RowSource
from textladder.data.row_sources import joined_texts, looks_like_file, open_source, open_sources, sample_columns
from textladder.data.splits import check_classes, stratified
from textladder.errors import ConfigError, DataError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

TEST_FRACTION = 0.2
VALID_FRACTION = 0.1
AMAZON_NAMES = {"1": "negative", "2": "positive"}
SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int32())])


@dataclass(frozen=True)
class LabelledTexts:
    """Some rows of a table of texts and labels, in order, without a copy of the texts.

    Attributes:
        table: Arrow table with the columns `text` and `label` (the place of the label in `labels`).
        rows: the rows of the table that belong to this part, int64.
        labels: the labels as they stand in the data; their order is the order of the classes.
        label_names: what they are called where people read them; by default the labels themselves.
    """

    table: pa.Table
    rows: np.ndarray
    labels: tuple[str, ...]
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_names", self.label_names or self.labels)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        for texts in self.batches():
            yield from texts

    def batches(self, size: int = 4096) -> Iterator[list[str]]:
        """The texts in order, at most `size` at a time."""
        for start in range(0, len(self.rows), size):
            yield self.table["text"].take(pa.array(self.rows[start : start + size])).to_pylist()

    @cached_property
    def label_ids(self) -> np.ndarray:
        """The class of every row as its place in `labels`, int64."""
        ids: np.ndarray = self.table["label"].take(pa.array(self.rows)).to_numpy().astype(np.int64)
        return ids

    def __add__(self, other: "LabelledTexts") -> "LabelledTexts":
        if other.table is not self.table:
            raise ValueError("Only parts of one table can be put together.")
        rows = np.sort(np.concatenate([self.rows, other.rows]))
        return LabelledTexts(self.table, rows, self.labels, self.label_names)

    def fingerprint(self) -> str:
        """SHA-256 of the texts and labels in order, as 64 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.labels).encode())
        for texts in self.batches():
            for text in texts:
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        digest.update(self.label_ids.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class TextData:
    """The parts of one data set.

    Attributes:
        train: the rows to learn from.
        valid: the rows to choose on; None where none were asked for.
        test: the held-out rows, looked at once, at the end.
        labels: the labels as they stand in the data; their order is the order of the classes.
        label_names: what a label is called where people read it (Amazon's `1` is `negative`).
        text_columns: the columns that were joined with a space to make each text.
        label_column: the column that the labels came from.
        description: what was read and what was chosen, in one line.
    """

    train: LabelledTexts
    valid: LabelledTexts | None
    test: LabelledTexts
    labels: tuple[str, ...]
    label_names: tuple[str, ...]
    text_columns: tuple[str, ...]
    label_column: str
    description: str


@dataclass
class _Table:
    """A source spooled into Arrow, and what was chosen on the way."""

    table: pa.Table
    labels: tuple[str, ...]
    text_columns: list[str]
    label_column: str
    description: str
    dropped: int = 0
    label_names: tuple[str, ...] = field(default=())


def read_texts(
    data: "str | Path | pd.DataFrame",
    *,
    test: "str | Path | pd.DataFrame | None" = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    file_encoding: str = "utf-8",
    rows: int | None = None,
    first: int | None = None,
    valid: float = VALID_FRACTION,
    drop_missing: bool = False,
    seed: int = 0,
) -> TextData:
    """Read labelled texts and split them.

    Args:
        data: a file (`.csv`, `.tsv`, `.jsonl`, `.parquet`, each also `.gz`), a DataFrame, the name
            `amazon-polarity` or `sample`, or a data set of the Hugging Face Hub.
        test: held-out rows; without them a stratified 20% of `data` is held out.
        text: the text column or columns, joined with a space; by default every column of running text.
            `"longest"` takes the one with the longest texts.
        label: the label column; by default found by name, else by few distinct values.
        columns: names for the columns of a file without a header; the Amazon form is recognised.
        file_encoding: how the file's text is encoded.
        rows: take a seeded, stratified choice of this many rows of `data` (never of `test`).
        first: take the first rows of `data`.
        valid: fraction of the training rows, stratified, to choose on; 0 for none.
        drop_missing: leave out rows without a label instead of refusing them.
        seed: of the choice of rows and of the splits.

    Raises:
        DataError: what is wrong with the data, in one sentence.
    """
    for name, number in (("rows", rows), ("first", first)):
        if number is not None and number < 1:
            raise ConfigError(f"--{name} must be a positive number; received {number}.")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The seed must be from 0 to 4294967295; received {seed}.")
    if not 0 <= valid < 1:
        raise ConfigError(f"The fraction of validation rows must be at least 0 and below 1; received {valid}.")
    source, where, test_source, test_where = open_sources(data, test, columns, file_encoding)
    main = _spool(source, where, text, label, drop_missing, first)
    chosen = np.arange(main.table.num_rows)
    ids = main.table["label"].to_numpy()
    if rows is not None and rows < len(chosen):
        chosen = np.sort(stratified(chosen, ids, rows, np.random.default_rng(seed)))
    check_classes(ids[chosen], main.labels, where)
    rng = np.random.default_rng(seed)
    if test_source is None:
        held_out = stratified(chosen, ids, round(TEST_FRACTION * len(chosen)), rng)
        chosen = np.setdiff1d(chosen, held_out)
        test_part = LabelledTexts(main.table, np.sort(held_out), main.labels, main.label_names)
    else:
        test_part = _spool_more(test_source, test_where, main, drop_missing)
    kept = stratified(chosen, ids, round(valid * len(chosen)), rng) if valid else np.array([], np.int64)
    train = LabelledTexts(main.table, np.setdiff1d(chosen, kept), main.labels, main.label_names)
    valid_part = LabelledTexts(main.table, np.sort(kept), main.labels, main.label_names) if len(kept) else None
    counts = f"{len(train):,} training, {len(kept):,} validation and {len(test_part):,} test rows"
    return TextData(
        train, valid_part, test_part, main.labels, main.label_names, tuple(main.text_columns), main.label_column,
        f"{main.description}; {counts}.",
    )  # fmt: skip


def read_labelled(
    data: "str | Path | pd.DataFrame",
    labels: Sequence[str],
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    file_encoding: str = "utf-8",
    drop_missing: bool = False,
) -> LabelledTexts:
    """Read all rows of labelled texts whose labels are already known, to evaluate on.

    Args: as of `read_texts`; `labels` are the classes in their order.

    Raises:
        DataError: a label that is not among `labels`, or anything else that is wrong with the data.
    """
    source, where, test_source, test_where = open_sources(data, None, columns, file_encoding)
    if test_source is not None:  # a data set of known parts: its held-out part is the one to evaluate on
        source, where = test_source, test_where
    table = _spool(source, where, text, label, drop_missing, None)
    return _renumbered(table, tuple(labels), where)


def read_perhaps_labelled(
    data: "str | Path | pd.DataFrame",
    labels: Sequence[str],
    *,
    text: Sequence[str],
    label: str,
    columns: Sequence[str] | None = None,
    file_encoding: str = "utf-8",
    drop_missing: bool = False,
    first: int | None = None,
) -> "LabelledTexts | list[str]":
    """The first texts of some data, with their labels where there is a column for them.

    Args: as of `read_labelled`; `first` is how many at most.

    Raises:
        DataError: a text column is missing, a label is not among `labels`, or something else is wrong with the data.
    """
    if isinstance(data, (str, Path)) and not looks_like_file(data):
        labelled = True  # known data sets are
    else:
        source, where = open_source(data, columns, file_encoding)
        labelled = label in source.names
    if labelled:
        options: dict[str, Any] = {"columns": columns, "file_encoding": file_encoding, "drop_missing": drop_missing}
        rows = read_labelled(data, labels, text=text, label=label, **options)
        return dataclasses.replace(rows, rows=rows.rows[:first])
    check_texts(sample_columns(source, where), text, where)
    texts = (one for batch in source.batches() for one in joined_texts(source, batch, text))
    return list(islice(texts, first))


def _spool(
    source: RowSource,
    where: str,
    text: str | Sequence[str] | None,
    label: str | None,
    drop_missing: bool,
    first: int | None,
) -> _Table:
    """Copy the joined texts and the labels of a source into a memory-mapped Arrow table."""
    sample = sample_columns(source, where)
    if text == "longest":
        _, label = choose_columns(sample, where, label=label)
        texts = find_texts({name: values for name, values in sample.items() if name != label}, where)
        text = [max(texts, key=lambda name: sum(len(value or "") for value in sample[name]))]
    names, label = choose_columns(sample, where, text=[text] if isinstance(text, str) else text, label=label)
    codes: dict[str, int] = {}
    missing = seen = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal missing, seen
        for batch in source.batches():
            texts, labels = joined_texts(source, batch, names), source.column(batch, label)
            if first is not None:
                texts, labels = texts[: first - seen], labels[: first - seen]
            seen += len(texts)
            present = [(t, value) for t, value in zip(texts, labels, strict=True) if value not in (None, "")]
            missing += len(texts) - len(present)
            ids = [codes.setdefault(_encodable(str(value), where), len(codes)) for _, value in present]
            if len(codes) > max(MOST_CLASSES, 1000):
                raise DataError(
                    f"{where}: label column {label!r} has more than {len(codes) - 1:,} distinct values, "
                    "so it is not a label; name another with --label."
                )
            yield _record_batch([t for t, _ in present], ids, where)
            if first is not None and seen >= first:
                return

    table = _memory_mapped(batches())
    if missing and not drop_missing:
        raise DataError(
            f"{where}: {missing:,} of {seen:,} rows have no label in {label!r}; "
            "say --drop-missing to go on without them."
        )
    if not table.num_rows:
        raise DataError(f"{where}: no row has a label in {label!r}.")
    labels = _ordered(codes, getattr(source, "label_order", lambda _: None)(label))
    place = np.array([labels.index(value) for value in codes], np.int32)
    table = table.set_column(1, "label", pa.array(place[table["label"].to_numpy()]))
    amazon = getattr(source, "amazon_form", False) and labels == ("1", "2")
    shown = tuple(AMAZON_NAMES[value] for value in labels) if amazon else labels
    form = f"{source.form}, headerless Amazon form" if getattr(source, "amazon_form", False) else source.form
    classes = ", ".join(f"{a} {b}" if a != b else a for a, b in zip(labels[:6], shown, strict=False))
    more = f", ... {len(labels)} classes" if len(labels) > 6 else ""
    description = (
        f"{where} ({form}): label from {label!r} ({classes}{more}), "
        f"text from {' + '.join(repr(name) for name in names)}"
        + (f", {missing:,} rows without a label left out" if missing else "")
    )
    return _Table(table, labels, names, label, description, missing, shown)


def _spool_more(source: RowSource, where: str, main: _Table, drop_missing: bool) -> LabelledTexts:
    """Read test rows with the columns and the labels of the training rows."""
    sample = sample_columns(source, where)
    missing = [name for name in (*main.text_columns, main.label_column) if name not in sample]
    if missing:
        raise DataError(f"{where}: {unknown_name('column', missing[0], sample)}")
    check_texts(sample, main.text_columns, where)
    table = _spool(source, where, main.text_columns, main.label_column, drop_missing, None)
    return _renumbered(table, main.labels, where)


def _renumbered(table: _Table, labels: tuple[str, ...], where: str) -> LabelledTexts:
    strange = [value for value in table.labels if value not in labels]
    if strange:
        raise DataError(
            f"{where}: label {strange[0]!r} in {table.label_column!r} is not one that was learnt. "
            f"Learnt: {', '.join(labels)}."
        )
    place = np.array([labels.index(value) for value in table.labels], np.int32)
    arrow = table.table.set_column(1, "label", pa.array(place[table.table["label"].to_numpy()]))
    return LabelledTexts(arrow, np.arange(arrow.num_rows), labels)


def _encodable(label: str, where: str) -> str:
    try:
        label.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: label {label!r} holds half of a surrogate pair, which is no character.") from None
    return label


def _record_batch(texts: list[str], ids: list[int], where: str) -> pa.RecordBatch:
    try:
        return pa.record_batch([pa.array(texts, pa.string()), pa.array(ids, pa.int32())], schema=SCHEMA)
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a text holds half of a surrogate pair, which is no character ({error}).") from None


def _memory_mapped(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    """Write batches to a file that has no name any more, so that nothing is left behind, and map it."""
    handle, name = tempfile.mkstemp(prefix="textladder-", suffix=".arrow")
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(name)).read_all()
    except OSError as error:
        folder = Path(name).parent
        raise DataError(f"The rows could not be copied to {folder} ({error}); set TMPDIR to a larger place.") from None
    finally:
        os.unlink(name)


def _ordered(codes: dict[str, int], order: list[str] | None) -> tuple[str, ...]:
    """Labels in the order that the data declares, else numbers by value, else names by alphabet."""
    if order is not None:
        return tuple(value for value in order if value in codes)
    try:
        return tuple(sorted(codes, key=lambda value: (float(value), value)))
    except ValueError:
        return tuple(sorted(codes))
