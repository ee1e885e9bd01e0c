"""Copies the texts and labels of a source of rows into a memory-mapped Arrow table, so that memory does not grow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from textladder.data.columns import MAX_CLASSES, Choice, Sample, choose_columns, longest_text, named_texts
from textladder.data.labels import TEXT, LabelOptions, doubtful_labels, label_type, merged, normalized, same_label
from textladder.data.mapped_tables import write_table
from textladder.data.row_sources import joined_texts, sample_columns
from textladder.data.rows import RowSource, plain_type
from textladder.errors import DataError

MAX_SHOWN = 20
DEFAULT_LABEL_OPTIONS = LabelOptions()
LONGEST_TEXT = "longest"  # asks for the column with the longest texts, unless a column has this name
AMAZON_NAMES = {"1": "negative", "2": "positive"}
SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int32())])


@dataclass(frozen=True)
class LabelledTable:
    """A source of rows as an Arrow table.

    Attributes:
        table: the columns `text` and `label`, an index into `labels`.
        labels: the distinct labels in order.
        label_names: what people call them.
        label_type: what they are in the data: `text`, `integer`, `number` or `boolean`.
        text_columns: the columns that were joined to make each text.
        label_column: the column of the labels.
        description: what was read and which columns were chosen, in one line.
        warnings: what is doubtful about the columns and the labels, as clauses of the description.
    """

    table: pa.Table
    labels: tuple[str, ...]
    label_names: tuple[str, ...]
    label_type: str
    text_columns: tuple[str, ...]
    label_column: str
    description: str
    warnings: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The rows of each label."""
        counts = np.bincount(self.table["label"].to_numpy(), minlength=len(self.labels))
        return dict(zip(self.labels, counts.tolist(), strict=True))

    def numbered_as(
        self, labels: Sequence[str], source_name: str, renamed: Mapping[str, str | None], options: LabelOptions
    ) -> tuple[pa.Table, np.ndarray, tuple[str, ...]]:
        """The table with its labels as indices into other labels.

        Args:
            labels: the other labels.
            source_name: what error messages call the data.
            renamed: labels that became others, or None if their rows are left out.
            options: `merge_labels` and `unknown_labels`.

        Returns:
            The table; the rows that are not left out, int64; the other labels, and after them those that are not
            among them but count as wrong.

        Raises:
            DataError: a label is not among the other ones, and nothing was said about that.
        """
        exactly = {label: index for index, label in enumerate(labels)}
        same = {same_label(label): index for index, label in enumerate(labels)}
        by_case = {label.casefold(): index for index, label in enumerate(labels)} if options.merge_labels else {}
        became = {same_label(label): name for label, name in renamed.items()} | dict(renamed)

        def index_of(label: str) -> int | None:
            new = became.get(label, became.get(same_label(label), label))
            if new is None:
                return -1
            found = exactly.get(new, same.get(same_label(new)))
            return by_case.get(new.casefold()) if found is None else found

        indices = {label: index_of(label) for label in self.labels}
        unknown = [label for label, index in indices.items() if index is None]
        if unknown and options.unknown_labels == "error":
            raise DataError(
                f"{source_name}: label {unknown[0]!r} in {self.label_column!r} was not seen in training; to leave such "
                'rows out, pass `unknown_labels="drop"`; to count every prediction for them as wrong, '
                f'`unknown_labels="wrong"`. Known labels: {shown_labels(labels)}.'
            )
        wrong = unknown if options.unknown_labels == "wrong" else []
        after = {label: len(labels) + number for number, label in enumerate(wrong)}
        ids = [after.get(label, -1) if index is None else index for label, index in indices.items()]
        table = _renumber(self.table, ids)
        return table, np.flatnonzero(table["label"].to_numpy() >= 0), (*labels, *wrong)


def copy_to_arrow(
    source: RowSource,
    source_name: str,
    *,
    text: str | Sequence[str] | None,
    label: str | None,
    drop_missing: bool,
    options: LabelOptions = DEFAULT_LABEL_OPTIONS,
    first: int | None = None,
) -> LabelledTable:
    """Copy the joined texts and the labels of a source.

    Args:
        source: the rows.
        source_name: what error messages call them.
        text: the text columns, `LONGEST_TEXT`, or None to detect them.
        label: the label column, or None to detect it.
        drop_missing: leave out rows without a label instead of refusing them.
        options: `merge_labels` and `missing_label`.
        first: copy the first rows only.

    Raises:
        DataError: the columns do not fit, labels are missing, or the copy cannot be written.
    """
    try:
        choice = _resolve_columns(sample_columns(source, source_name), source_name, text, label)
    except DataError:
        if label is not None:
            raise
        # in a file that is sorted by label, the first rows do not tell the label column
        choice = _resolve_columns(sample_columns(source, source_name, spread=True), source_name, text, label)
    text_columns, label_column = choice.text, choice.label
    most = None if label is not None else MAX_CLASSES
    copier = _Copier(source, source_name, text_columns, label_column, first, options.missing, most)
    table = write_table(copier.batches(), SCHEMA)
    if copier.missing and not drop_missing:
        have = "has" if copier.missing == 1 else "have"
        raise DataError(
            f"{source_name}: {copier.missing:,} of {copier.rows:,} rows {have} no label in {label_column!r}; "
            "to leave them out, pass drop_missing=True."
        )
    if not table.num_rows:
        raise DataError(f"{source_name}: no row has a label in {label_column!r}.")
    unused = options.missing - copier.missing_seen
    counts = dict(zip(copier.label_ids, np.bincount(table["label"].to_numpy()).tolist(), strict=True))
    type_ = label_type(counts, copier.types if source.typed else None)
    value_of = str if type_ == TEXT else same_label
    one_of = merged(counts, lambda label: value_of(label).casefold() if options.merge_labels else value_of(label))
    labels = _ordered(one_of.values(), source.label_order(label_column))
    names = tuple(AMAZON_NAMES[label] for label in labels) if source.amazon_form and labels == ("1", "2") else labels
    shown = ", ".join(one if one == name else f"{one} {name}" for one, name in zip(labels[:6], names, strict=False))
    description = (
        f"{source_name} ({source.form}): "
        f"label from {label_column!r} ({shown}{f', ... {len(labels)} classes' if len(labels) > 6 else ''}), "
        f"text from {' + '.join(map(repr, text_columns))}"
    )
    doubts = doubtful_labels({label: counts[label] for label in labels}, label_column)
    notes = [*choice.notes, *choice.doubts, *doubts]
    if len(labels) < len(counts) and not options.merge_labels:
        label = next(label for label in counts if one_of[label] != label)
        notes.append(f"labels with the same value ({label!r} and {one_of[label]!r}) taken for one")
    if copier.changed:
        rows = f"{copier.changed:,} {'row' if copier.changed == 1 else 'rows'}"
        notes.append(f"blanks or accents of the label written in another way in {rows}")
    if copier.left_out:
        rows = f"{copier.left_out:,} {'row' if copier.left_out == 1 else 'rows'}"
        seen = " or ".join(map(repr, sorted(copier.missing_seen)))
        notes.append(f"{rows} with the label {seen} left out")
    if unused:
        notes.append(f"no row has the label {' or '.join(map(repr, sorted(unused)))}")
    description += "".join(f", {note}" for note in notes)
    if copier.missing:
        description += f", {copier.missing:,} {'row' if copier.missing == 1 else 'rows'} without a label left out"
    return LabelledTable(
        _renumber(table, [labels.index(one_of[label]) for label in copier.label_ids]),
        labels, names, type_, tuple(text_columns), label_column, description, (*choice.doubts, *doubts),
    )  # fmt: skip


def _resolve_columns(sample: Sample, source_name: str, text: str | Sequence[str] | None, label: str | None) -> Choice:
    if text is not None:
        text = named_texts(sample, text)
    if text == [LONGEST_TEXT] and LONGEST_TEXT not in sample:
        label = choose_columns(sample, source_name, label=label).label
        text = [longest_text(sample, source_name, label=label)]
    return choose_columns(sample, source_name, text=text, label=label)


class _Copier:
    """Turns the batches of a source into Arrow batches.

    Attributes:
        label_ids: the distinct labels so far, numbered in the order of their first appearance.
        rows: how many rows were read.
        missing: how many of them have no label.
        left_out: how many have a label that means that there is none.
        changed: how many labels were brought into another form.
        types: the types of their values, if the source has types.
        missing_seen: labels that were found of those that mean that there is none.
    """

    def __init__(
        self,
        source: RowSource,
        source_name: str,
        text_columns: Sequence[str],
        label_column: str,
        first: int | None,
        missing_labels: set[str],
        most_classes: int | None,
    ) -> None:
        self.source, self.source_name, self.first = source, source_name, first
        self.text_columns, self.label_column = text_columns, label_column
        self.missing_labels, self.most_classes = missing_labels, most_classes
        self.not_a_label = {None, "", *missing_labels}
        self.label_ids: dict[str, int] = {}
        self.types: set[type] = set()
        self.missing_seen: set[str] = set()
        self.rows = self.missing = self.left_out = self.changed = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self.source.batches():
            texts = joined_texts(self.source, batch, self.text_columns)
            labels = self.source.column(batch, self.label_column)
            if self.first is not None:
                texts, labels = texts[: self.first - self.rows], labels[: self.first - self.rows]
            self.rows += len(texts)
            forms = {label: normalized(label) for label in set(labels) if label is not None}
            one_form = [forms.get(label) for label in labels]  # type: ignore[arg-type]
            self.changed += sum(new is not None and new != old for old, new in zip(labels, one_form, strict=True))
            self.missing += sum(not label for label in one_form)
            self.missing_seen |= self.missing_labels & set(forms.values())
            self.left_out += sum(label in self.missing_labels for label in one_form)
            labelled = [
                (text, label)
                for text, label in zip(texts, one_form, strict=True)
                if label is not None and label not in self.not_a_label
            ]
            ids = [self._id(label) for _, label in labelled]
            if self.source.typed:
                values = zip(self.source.values(batch, self.label_column), one_form, strict=False)
                self.types |= {plain_type(value) for value, label in values if label not in self.not_a_label}
            if self.most_classes is not None and len(self.label_ids) > self.most_classes:
                raise DataError(
                    f"{self.source_name}: label column {self.label_column!r} has more than {self.most_classes:,} "
                    "distinct values; if it is the label all the same, name it with `label=`."
                )
            yield self._record_batch([text for text, _ in labelled], ids)
            if self.first is not None and self.rows >= self.first:
                return

    def _id(self, label: str) -> int:
        if label not in self.label_ids:
            try:
                label.encode()
            except UnicodeEncodeError:
                raise DataError(
                    f"{self.source_name}: label {label!r} contains half of a surrogate pair, which is not a character."
                ) from None
        return self.label_ids.setdefault(label, len(self.label_ids))

    def _record_batch(self, texts: list[str], ids: list[int]) -> pa.RecordBatch:
        try:
            return pa.record_batch([pa.array(texts, pa.string()), pa.array(ids, pa.int32())], schema=SCHEMA)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.source_name}: a text contains half of a surrogate pair, which is not a character ({error})."
            ) from None


def _renumber(table: pa.Table, new_ids: list[int]) -> pa.Table:
    """The table with label i replaced by `new_ids[i]`."""
    return table.set_column(1, "label", pa.array(np.array(new_ids, np.int32)[table["label"].to_numpy()]))


def shown_labels(labels: Sequence[str]) -> str:
    """Labels as a sentence lists them, the first ones if there are many."""
    more = f", ... ({len(labels):,} in all)" if len(labels) > MAX_SHOWN else ""
    return ", ".join(labels[:MAX_SHOWN]) + more


def _ordered(names: Iterable[str], declared_order: list[str] | None) -> tuple[str, ...]:
    """Labels in the order that the source declares, else numbers by value, else alphabetically."""
    labels = set(names)
    if declared_order is not None:
        return tuple(label for label in dict.fromkeys(map(normalized, declared_order)) if label in labels)
    try:
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(labels))
