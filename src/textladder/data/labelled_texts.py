"""Labelled texts, split into training, validation and test parts: the first step of every run.

`row_sources.py` reads rows, `columns.py` chooses columns, `labelled_table.py` copies texts and labels into a
memory-mapped table, and this module splits it. It knows nothing of tokens or models.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from textladder.data.columns import check_texts, named_texts
from textladder.data.file_options import file_options as checked_options
from textladder.data.labelled_table import LabelledTable, copy_to_arrow
from textladder.data.labels import MERGED, TEXT, Label, LabelOptions
from textladder.data.labels import rare_classes as find_rare_classes
from textladder.data.mapped_tables import release_pages
from textladder.data.row_sources import is_readable, joined_texts, open_source, open_sources, sample_columns
from textladder.data.splits import check_classes, stratified
from textladder.errors import ConfigError
from textladder.wording import counted

if TYPE_CHECKING:
    import pandas as pd

TEST_FRACTION = 0.2
VALID_FRACTION = 0.1
CHUNKS_AT_ONCE = 16  # whose pages may be in memory together


@dataclass(frozen=True)
class LabelledTexts:
    """Some rows of a table of texts and labels, in order; the texts are not copied.

    Attributes:
        table: Arrow table with the columns `text` and `label`, an index into `labels`.
        rows: the rows of the table that belong to this part, int64.
        labels: the labels as they appear in the data; their order is the order of the classes.
        label_names: what people call them; by default the labels themselves.
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

    def sample(self, size: int = 2_000) -> list[str]:
        """About `size` of the texts, evenly spaced: enough to tell what kind of texts they are."""
        return list(islice(self, 0, None, max(1, len(self) // size)))

    def batches(self, size: int = 4096) -> Iterator[list[str]]:
        """The texts in order, at most `size` at a time."""
        # Each chunk is asked by itself: Arrow would join all of them first, at the cost of the whole table for every
        # batch, and not at all beyond 2 GiB of text.
        chunks = self.table["text"].chunks
        first_rows = np.cumsum([0, *map(len, chunks)])
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            places = np.searchsorted(first_rows, rows, side="right") - 1
            texts = np.empty(len(rows), object)
            for number, place in enumerate(np.unique(places).tolist(), start=1):
                inside = places == place
                texts[inside] = chunks[place].take(pa.array(rows[inside] - first_rows[place])).to_pylist()
                if number % CHUNKS_AT_ONCE == 0:  # a few rows from everywhere
                    release_pages(self.table)
            release_pages(self.table)
            yield texts.tolist()

    @cached_property
    def label_ids(self) -> np.ndarray:
        """The class of every row as an index into `labels`, int64 (rows,)."""
        ids: np.ndarray = self.table["label"].to_numpy()[self.rows].astype(np.int64)
        return ids

    def __add__(self, other: "LabelledTexts") -> "LabelledTexts":
        if other.table is not self.table:
            raise ValueError("Only parts of the same table can be added.")
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
    """The parts of a data set.

    Attributes:
        train: the rows to train on.
        valid: the validation rows, for choosing between models; None if there are none.
        test: the held-out rows, used once, at the end. Its labels may be more than those of the other parts, if test
            rows with labels that were not seen in training count as wrong.
        labels: the labels as they appear in the data; their order is the order of the classes.
        label_names: what people call the labels (Amazon's `1` is `negative`).
        label_type: what the labels are in the data: `text`, `integer`, `number` or `boolean`.
        text_columns: the columns that were joined with a space to make each text.
        label_column: the column of the labels.
        description: what was read and which columns were chosen, in one line.
        warnings: what is doubtful about the columns and the labels, as clauses of the description.
    """

    train: LabelledTexts
    valid: LabelledTexts | None
    test: LabelledTexts
    labels: tuple[str, ...]
    label_names: tuple[str, ...]
    label_type: str
    text_columns: tuple[str, ...]
    label_column: str
    description: str
    warnings: tuple[str, ...] = ()


def read_texts(
    data: "str | Path | pd.DataFrame",
    *,
    test: "str | Path | pd.DataFrame | None" = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    rows: int | None = None,
    first: int | None = None,
    test_first: int | None = None,
    valid: float = VALID_FRACTION,
    drop_missing: bool = False,
    merge_labels: bool = False,
    missing_label: Label | Sequence[Label] = (),
    rare_classes: str = "error",
    min_class_rows: int = 2,
    unknown_labels: str = "error",
    label_names: Mapping[Any, str] | None = None,
    seed: int = 0,
    **file_options: Any,
) -> TextData:
    """Read labelled texts and split them.

    Args:
        data: a file of any kind that `open_source` reads, a folder, a DataFrame or table, a list of mappings, a pair
            (texts, labels), `amazon-polarity`, `sample`, or the name of a data set on the Hugging Face Hub.
        test: the test rows; by default a stratified 20% of `data` is held out.
        text: the text column or columns, joined with a space; by default every column of running text. `"longest"`
            takes the column with the longest texts, unless a column has that name.
        label: the label column; by default detected by its name, else by few distinct values.
        rows: take a stratified random sample of this many rows of `data` (never of `test`).
        first: take the first rows of `data`.
        test_first: take the first rows of the test rows.
        valid: fraction of the training rows, stratified, to hold out for validation; 0 for none.
        drop_missing: leave out rows without a label instead of refusing them.
        merge_labels: take labels that differ only in case for one.
        missing_label: labels that mean that there is none, such as `NA`; their rows are left out.
        rare_classes: what happens to classes with fewer than `min_class_rows` rows: `error`, `drop` their rows, or
            `merge` them into the class `other`.
        min_class_rows: that number.
        unknown_labels: what happens to test rows whose label was not seen in training: `error`, `drop` them, or count
            every prediction for them as `wrong`.
        label_names: what people call some of the labels, such as `{1: "World", 2: "Sports"}`.
        seed: seed of the sample and the splits.
        file_options: how files are read, by the names of `FileOptions`, where that should not be detected.

    Raises:
        DataError: the data cannot be read, or its columns or labels do not fit.
        ConfigError: a number is out of range, or `test_first` is given without test rows.
        PretrainedError: a named data set could not be fetched.
    """
    _check_options({"rows": rows, "first": first, "test_first": test_first}, valid, seed)
    options = LabelOptions(merge_labels, missing_label, rare_classes, min_class_rows, unknown_labels, label_names or {})
    source, source_name, test_source, test_name = open_sources(data, test, checked_options(file_options))
    if test_first is not None and test_source is None:
        raise ConfigError("`test_first=` needs separate test rows; pass them with `test=`.")
    main = copy_to_arrow(
        source, source_name, text=text, label=label, drop_missing=drop_missing, options=options, first=first
    )
    main, chosen, renamed = _without_rare_classes(main, options)
    main = dataclasses.replace(main, label_names=options.named(main.labels, main.label_names))
    ids = main.table["label"].to_numpy()
    if rows is not None and rows < len(chosen):
        chosen = np.sort(stratified(chosen, ids, rows, np.random.default_rng(seed)))
    check_classes(ids[chosen], main.labels, source_name, options.min_class_rows, merged=MERGED in renamed.values())
    rng = np.random.default_rng(seed)

    def part(indices: np.ndarray) -> LabelledTexts:
        return LabelledTexts(main.table, np.sort(indices), main.labels, main.label_names)

    if test_source is None:
        held_out = stratified(chosen, ids, round(TEST_FRACTION * len(chosen)), rng)
        share = len(held_out) / len(chosen)
        chosen = np.setdiff1d(chosen, held_out, assume_unique=True)
        test_part = part(held_out)
    else:
        test_copy = copy_to_arrow(
            test_source, test_name, text=main.text_columns, label=main.label_column, drop_missing=drop_missing,
            options=options, first=test_first,
        )  # fmt: skip
        test_table, test_rows, test_labels = test_copy.numbered_as(main.labels, test_name, renamed, options)
        unknown = test_labels[len(main.labels) :]
        test_part = LabelledTexts(test_table, test_rows, test_labels, (*main.label_names, *unknown))
    valid_rows = stratified(chosen, ids, round(valid * len(chosen)), rng) if valid else np.array([], np.int64)
    train = part(np.setdiff1d(chosen, valid_rows, assume_unique=True))
    left_out = len(test_part.table) - len(test_part) if test_source is not None else 0
    wrong = int((test_part.label_ids >= len(main.labels)).sum())
    counts = (
        (f"{counted(left_out, 'test row')} with other labels left out; " if left_out else "")
        + (f"{counted(wrong, 'test row')} with labels not seen in training count as wrong; " if wrong else "")
        + f"{len(train):,} training, {len(valid_rows):,} validation and {counted(len(test_part), 'test row')}"
    )
    if test_source is None and share > 1.1 * TEST_FRACTION:
        counts += f" ({share:.0%} of the rows are held out, because every class has a test row)"
    return TextData(
        train, part(valid_rows) if len(valid_rows) else None, test_part, main.labels, main.label_names,
        main.label_type, main.text_columns, main.label_column, f"{main.description}; {counts}.", main.warnings,
    )  # fmt: skip


def _without_rare_classes(
    table: LabelledTable, options: LabelOptions
) -> tuple[LabelledTable, np.ndarray, dict[str, str | None]]:
    """The table without its rare classes, the rows that are left, and what became of each rare class."""
    rare = [] if options.rare_classes == "error" else find_rare_classes(table.counts, options.min_class_rows)
    everything = np.arange(table.table.num_rows)
    if not rare:
        return table, everything, {}
    merged = options.rare_classes == "merge"
    renamed: dict[str, str | None] = dict.fromkeys(rare, MERGED if merged else None)
    kept = [label for label in table.labels if label not in renamed]
    labels = [*kept, *([MERGED] if merged and MERGED not in kept else [])]
    numbered, rows, _ = table.numbered_as(labels, "", renamed, options)
    names = dict(zip(table.labels, table.label_names, strict=True))
    classes = f"{len(rare):,} {'class' if len(rare) == 1 else 'classes'} of fewer than {options.min_class_rows} rows"
    what = f"merged into {MERGED!r}" if merged else f"left out ({counted(len(everything) - len(rows), 'row')})"
    changed = dataclasses.replace(
        table,
        table=numbered,
        labels=tuple(labels),
        label_names=tuple(names.get(label, label) for label in labels),
        label_type=TEXT if MERGED in labels else table.label_type,
        description=f"{table.description}, {classes} {what}",
    )
    return changed, rows, renamed


def _check_options(counts: dict[str, int | None], valid: float, seed: int) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"{name} must be a positive number; received {count}.")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The seed must be from 0 to 4294967295; received {seed}.")
    if not 0 <= valid < 1:
        raise ConfigError(
            f"valid, the fraction of validation rows, must be at least 0 and less than 1; received {valid}."
        )


def read_labelled(
    data: "str | Path | pd.DataFrame",
    labels: Sequence[str],
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    drop_missing: bool = False,
    unknown_labels: str = "error",
    **file_options: Any,
) -> LabelledTexts:
    """Read all rows of labelled texts whose classes are already known, to evaluate on.

    Args:
        data: as for `read_texts`; of a named data set, the test rows if it has any.
        labels: the classes in order.
        text: the text column or columns.
        label: the label column.
        drop_missing: leave out rows without a label instead of refusing them.
        unknown_labels: what happens to rows whose label is not among `labels`: `error`, `drop` them, or count every
            prediction for them as `wrong`; these labels are then the last ones of the result.
        file_options: how a file is read, as for `read_texts`.

    Raises:
        DataError: the data cannot be read, its columns do not fit, or a label is not among `labels`.
    """
    source, source_name, test_source, test_name = open_sources(data, None, checked_options(file_options))
    if test_source is not None:
        source, source_name = test_source, test_name
    copied = copy_to_arrow(source, source_name, text=text, label=label, drop_missing=drop_missing)
    options = LabelOptions(unknown_labels=unknown_labels)
    return LabelledTexts(*copied.numbered_as(labels, source_name, {}, options))


def read_perhaps_labelled(
    data: "str | Path | pd.DataFrame",
    labels: Sequence[str],
    *,
    text: Sequence[str],
    label: str,
    drop_missing: bool = False,
    unknown_labels: str = "error",
    first: int | None = None,
    **file_options: Any,
) -> "LabelledTexts | list[str]":
    """Read texts, with their labels if there is a column for them.

    Args:
        data: as for `read_labelled`.
        labels: the classes in order.
        text: the text columns.
        label: the label column, which may be missing.
        drop_missing: leave out rows without a label instead of refusing them.
        unknown_labels: what happens to rows whose label is not among `labels`, as for `read_labelled`.
        first: read the first texts only.
        file_options: how a file is read, as for `read_texts`.

    Raises:
        DataError: the data cannot be read, a text column is missing, or a label is not among `labels`.
    """
    if isinstance(data, (str, Path)) and not is_readable(data):
        has_labels = True  # every data set known by name is labelled
    else:
        source, source_name = open_source(data, checked_options(file_options))
        has_labels = label in source.names
    if has_labels:
        labelled = read_labelled(
            data, labels, text=text, label=label, drop_missing=drop_missing, unknown_labels=unknown_labels,
            **file_options,
        )  # fmt: skip
        return dataclasses.replace(labelled, rows=labelled.rows[:first])
    sample = sample_columns(source, source_name)
    text = named_texts(sample, text)
    check_texts(sample, text, source_name)
    texts = (one for batch in source.batches() for one in joined_texts(source, batch, text))
    return list(islice(texts, first))
