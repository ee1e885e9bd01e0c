"""What is in a file or table: `textladder inspect`, which trains nothing and changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from textladder.atomic_files import atomic_path
from textladder.data.columns import Sample, choose_columns, find_texts, is_date, is_number, mean_words, named_texts
from textladder.data.delimited_file import DelimitedFile
from textladder.data.delimited_records import LINE_END, RecordWriter
from textladder.data.file_options import file_options as checked_options
from textladder.data.labels import IMBALANCED, WRITTEN_AS_MISSING, doubtful_labels, normalized
from textladder.data.row_rewriting import as_field
from textladder.data.row_sources import joined_texts, open_sources, sample_columns
from textladder.data.rows import RowSource
from textladder.errors import DataError

FEW_VALUES = 100  # distinct values that a column of classes may have
EXAMPLE_LENGTH = 60


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its name.
        kind: `text`, `classes` (few distinct values), `numbers`, `dates`, `words` (short, mostly distinct values),
            `nested`, or `empty`.
        distinct: distinct values in the first rows.
        missing: missing or empty values in the first rows.
        example: a value, shortened.
        role: `label`, `text`, or why it is neither.
    """

    name: str
    kind: str
    distinct: int
    missing: int
    example: str
    role: str


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        source: the file, or what kind of table it is.
        form: how it is written, in a few words.
        rows: how many rows it has.
        compression: gzip, bz2, xz, zstd, zip, or None.
        encoding: of its text; None for tables and binary files.
        delimiter: between fields; None if it is no delimited file, or has one column.
        quote: around fields; None if it is no delimited file, or quotes are plain text.
        escape: before a quote in a quoted field; None if quotes are doubled.
        header: whether the first row holds the names; None if it is no delimited file.
        skipped_lines: lines before the header.
        columns: the columns in order.
        label: the label column; None if none was found.
        text: the text columns; empty if none were found.
        labels: rows of each label, the most frequent first.
        warnings: what a person should look at before training.
    """

    source: str
    form: str
    rows: int
    compression: str | None
    encoding: str | None
    delimiter: str | None
    quote: str | None
    escape: str | None
    header: bool | None
    skipped_lines: int
    columns: list[Column]
    label: str | None
    text: list[str]
    labels: dict[str, int]
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as `inspect --json` prints it."""
        return asdict(self)


def inspect_rows(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    csv_file: str | Path | None = None,
    overwrite: bool = False,
    **file_options: Any,
) -> Inspection:
    """Find out what is in a file or table, in one pass over it.

    Args:
        data: what `read_texts` takes; of a data set with parts, the training rows.
        text: the text columns, if they should not be detected.
        label: the label column, if it should not be detected.
        csv_file: also write all rows to this file, as UTF-8 with commas and the column names as header.
        overwrite: replace an existing `csv_file`.
        file_options: how files are read, by the names of `FileOptions`, where that should not be detected.

    Raises:
        DataError: the data cannot be read, or `csv_file` cannot be written.
        ConfigError: an option is unknown or out of range.
        PretrainedError: a named data set could not be fetched.
    """
    source, source_name, *_ = open_sources(data, None, checked_options(file_options))
    try:
        sample = sample_columns(source, source_name)
    except DataError as error:
        if "only a header" not in str(error):
            raise
        sample = Sample({name: [] for name in source.names})
    texts, chosen, warnings = _choose(sample, source_name, text, label)
    rows, empty, labels = _one_pass(source, texts, chosen, None if csv_file is None else Path(csv_file), overwrite)
    missing = labels.pop("", 0)
    if missing:
        warnings.append(f"{missing:,} of {rows:,} rows have no label in {chosen!r}.")
    single = [name for name, count in labels.items() if count == 1]
    if single:
        shown = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        warnings.append(f"{len(single):,} of {len(labels):,} labels have only one row: {shown}.")
    if chosen is not None:
        warnings += [f"{note[0].upper()}{note[1:]}." for note in doubtful_labels(labels, chosen)]
    if labels and max(labels.values()) > IMBALANCED * min(labels.values()):
        rarest, commonest = min(labels, key=labels.__getitem__), max(labels, key=labels.__getitem__)
        warnings.append(
            f"The labels are imbalanced: {labels[commonest]:,} rows of {commonest!r}, {labels[rarest]:,} of {rarest!r}."
        )
    if empty:
        warnings.append(f"{empty:,} of {rows:,} texts are empty.")
    if not rows:
        warnings.append("There are no rows, only a header.")
    known = _how_it_is_written(source)
    columns = [_column(name, sample, texts, chosen) for name in source.names]
    return Inspection(
        source_name, source.form, rows, **known, columns=columns, label=chosen, text=texts, labels=labels,
        warnings=warnings,
    )  # fmt: skip


def _choose(
    sample: Sample, source_name: str, text: str | Sequence[str] | None, label: str | None
) -> tuple[list[str], str | None, list[str]]:
    """The text columns, the label column, and what is doubtful about them; what the caller named must fit."""
    named = None if text is None else named_texts(sample, text)
    try:
        choice = choose_columns(sample, source_name, text=named, label=label)
        return choice.text, choice.label, [f"{note[0].upper()}{note[1:]}." for note in choice.notes]
    except DataError as error:
        if named is not None or label is not None:
            raise
        warning = str(error).removeprefix(f"{source_name}: ")
    try:
        return find_texts(sample, source_name).text, None, [warning]
    except DataError:
        return [], None, [warning]


def _one_pass(
    source: RowSource, texts: Sequence[str], label: str | None, csv_file: Path | None, overwrite: bool
) -> tuple[int, int, dict[str, int]]:
    """Count the rows, the empty texts and the labels, and write the rows if there is a file for them."""
    if csv_file is None:
        return _count(source, texts, label, None)
    if csv_file.exists() and not overwrite:
        raise DataError(f"{csv_file} exists; pass overwrite=True to replace it, or choose another path.")
    try:
        with (
            atomic_path(csv_file) as part,
            part.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream,
        ):
            writer = RecordWriter(stream, ",", '"', LINE_END)
            writer.write(source.names)
            return _count(source, texts, label, writer)
    except OSError as error:
        raise DataError(
            f"{csv_file}: the rows could not be written ({error.strerror or error}); nothing was kept."
        ) from None


def _count(
    source: RowSource, texts: Sequence[str], label: str | None, writer: RecordWriter | None
) -> tuple[int, int, dict[str, int]]:
    rows = empty = 0
    labels: dict[str, int] = {}
    for batch in source.batches():
        first = source.values(batch, source.names[0])
        rows += len(first)
        empty += sum(not text.strip() for text in joined_texts(source, batch, texts)) if texts else 0
        if label is not None:
            for value in source.column(batch, label):
                name = normalized(value or "")
                labels[name] = labels.get(name, 0) + 1
        if writer is not None:
            columns = [[as_field(one) for one in source.values(batch, name)] for name in source.names]
            for row in zip(*columns, strict=True):
                writer.write(row)
    return rows, empty, dict(sorted(labels.items(), key=lambda item: -item[1]))


def _how_it_is_written(source: RowSource) -> dict[str, Any]:
    file = getattr(source, "file", None)
    found: dict[str, Any] = {
        "compression": getattr(file, "compression", getattr(source, "compression", None)),
        "encoding": getattr(file, "encoding", None),
        **dict.fromkeys(("delimiter", "quote", "escape", "header")),
        "skipped_lines": 0,
    }
    if isinstance(source, DelimitedFile):
        dialect = source.dialect
        found |= {"delimiter": dialect.delimiter, "quote": dialect.quote, "escape": dialect.escape}
        found |= {"header": source.header, "skipped_lines": source.layout.skipped_lines}
    return found


def _column(name: str, sample: Mapping[str, list[str | None]], texts: Sequence[str], label: str | None) -> Column:
    role = "label" if name == label else ("text" if name in texts else "")
    if name not in sample:
        return Column(name, "nested", 0, 0, "", role or "it holds lists or mappings")
    present = [value for value in sample[name] if value and value.strip()]
    telling = [value for value in present if value.strip().lower() not in WRITTEN_AS_MISSING]
    kind, why = ("text", "") if role == "text" else _kind(telling)
    example = " ".join(present[0].split())[:EXAMPLE_LENGTH] if present else ""
    return Column(name, kind, len(set(present)), len(sample[name]) - len(present), example, role or why)


def _kind(values: Sequence[str]) -> tuple[str, str]:
    """The kind of a column by some of its values, and why it is no text."""
    if not values:
        return "empty", "it is empty in the first rows"
    if all(map(is_number, values)):
        distinct = len(set(values))
        return ("classes" if distinct <= min(FEW_VALUES, len(values) // 2) else "numbers"), "it holds numbers"
    if all(map(is_date, values)):
        return "dates", "it holds dates or times"
    if len(set(values)) <= min(FEW_VALUES, len(values) // 2):
        return "classes", "it has few distinct values"
    if mean_words(values) >= 2:
        return "text", "it was not chosen"
    return "words", "its values are single words"
