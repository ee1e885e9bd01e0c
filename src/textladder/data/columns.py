"""Finds the label column and the text columns from their names and a sample of their values.

Used where the caller named no columns. Every rule fits in one sentence, because what was chosen is always reported.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from textladder.errors import DataError, unknown_name

LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "polarity", "topic", "intent",
    "rating", "stars", "score", "y",
)  # fmt: skip
TEXT_NAMES = (
    "text", "title", "review", "content", "body", "summary", "sentence", "comment", "headline", "subject",
    "description", "message", "question", "tweet", "document",
)  # fmt: skip
MAX_DETECTED_CLASSES = 100  # a column with more distinct values is taken for the label only if the caller names it
MIN_JUDGED = 20  # fewer values say little about a column
MULTI_LABEL = "That is multi-label classification, which is not supported: every text needs exactly one label."
YES_OR_NO = {"0", "1", "0.0", "1.0", "true", "false", "yes", "no"}
NUMBER = re.compile(r"[+-]?[$€£]?[\d.,' ]*\d[\d.,]*(?:[eE][+-]?\d+)?\s?[%€]?")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?.*)?|\d{1,2}:\d{2}(?::\d{2})?")
NAME_OF_A_PERSON = re.compile(r"(?:[A-Z][\w'-]*\.?)(?: (?:van|von|de|der|da|di|la|le|bin|al|[A-Z][\w'-]*\.?)){1,3}")
MAX_CLASSES = 1000  # a column with more distinct values is no label unless the caller names it


class Sample(dict[str, list[str | None]]):
    """Some values of every plain column, by its name.

    Attributes:
        nested: the columns with lists, mappings, arrays or bytes, each with what is wrong with it as a text or label.
    """

    def __init__(self, *columns: Any, nested: Mapping[str, str] | None = None) -> None:
        super().__init__(*columns)
        self.nested: dict[str, str] = dict(nested or {})


@dataclass(frozen=True)
class Choice:
    """Which columns are used.

    Attributes:
        text: the text columns.
        label: the label column.
        notes: what a person should know about the choice, as clauses.
        doubts: what is doubtful about columns that the caller named, as clauses.
    """

    text: list[str]
    label: str
    notes: list[str]
    doubts: list[str]


def choose_columns(
    sample: Sample, source_name: str, *, text: Sequence[str] | None = None, label: str | None = None
) -> Choice:
    """Choose the text columns and the label column.

    Args:
        sample: some values of every column.
        source_name: what error messages call the data.
        text: the text columns, if the caller named them.
        label: the label column, if the caller named it.

    Raises:
        DataError: a named column does not exist or does not fit, no column qualifies, or there are several labels for
            each text.
    """
    if text is not None and not text:
        raise DataError(f"{source_name}: `text=` names no column.")
    for name in [*(text or []), *([] if label is None else [label])]:
        _check_column(sample, name, source_name)
    notes: list[str] = []
    if label is None:
        label, others = _find_label(sample, source_name, set(text or []))
        if others:
            shown = " or ".join(f'label="{name}"' for name in others[:3])
            notes.append(f"the label could also be another column: pass {shown} to take that one")
    if text is None:
        found = find_texts(sample, source_name, label=label)
        text = list(found.text)
        notes += [f"{name!r} is left out: {reason}" for name, reason in found.left_out.items()]
    if label in text:
        raise DataError(f"{source_name}: column {label!r} is named both as the label and as a text.")
    check_texts(sample, text, source_name)
    doubts = [f"{name!r} may not be a text: {SETTLES}" for name in text if _gives_away(sample[name], sample[label])]
    return Choice(list(text), label, notes, doubts)


def _find_label(sample: Sample, source_name: str, texts: set[str]) -> tuple[str, list[str]]:
    """The label column, and others that it could be."""
    for name in sample.nested:
        if _words_of(name) & set(LABEL_NAMES) and not any(_words_of(one) & set(LABEL_NAMES) for one in sample):
            raise DataError(
                f"{source_name}: column {name!r} holds lists of labels. {MULTI_LABEL} Choose one label for each text "
                "and name its column with `label=`."
            )
    names = [name for name in sample if name not in texts]
    named = sorted(
        (place, name)
        for name in names
        for place, known in enumerate(LABEL_NAMES)
        if name.strip().lower() == known or (known in _words_of(name) and len(set(name.lower().split())) == 1)
    )
    if named:
        label = named[0][1]
        return label, [name for _, name in named[1:] if name != label]
    distinct = {}
    for name in names:
        present = [value for value in sample[name] if value]
        number = len(set(present))
        if 2 <= number <= min(MAX_DETECTED_CLASSES, len(present) // 2) and not all(map(is_date, present)):
            distinct[name] = number
    yes_or_no = [name for name in distinct if {str(value).lower() for value in sample[name] if value} <= YES_OR_NO]
    if len(yes_or_no) >= 3 and len(yes_or_no) == len(distinct):
        raise DataError(
            f"{source_name}: the columns {', '.join(map(repr, yes_or_no[:5]))} each say yes or no. {MULTI_LABEL} To "
            f"learn one of them alone, name it with `label=`."
        )
    if not distinct:
        raise DataError(
            f"{source_name}: no column looks like a label (a name such as 'label' or 'category', or few distinct "
            f"values); name the label column with `label=`. Columns: {', '.join(sample)}."
        )
    label = min(distinct, key=lambda name: distinct[name])
    return label, [name for name in distinct if name != label]


def _words_of(name: str) -> set[str]:
    return set(name.strip().lower().split())


@dataclass(frozen=True)
class Texts:
    """Columns of running text.

    Attributes:
        text: the columns.
        left_out: columns that look like text at first sight, each with the reason why they are none.
    """

    text: list[str]
    left_out: dict[str, str]


def find_texts(sample: Sample, source_name: str, *, label: str | None = None) -> Texts:
    """Find every column of running text: one with a usual name, or with two words or more per value on average.

    Args:
        sample: some values of every column.
        source_name: what error messages call the data.
        label: the label column, which is no text.

    Raises:
        DataError: no column holds text.
    """
    kinds = {name: _not_text(name, sample, label) for name in sample if name != label}
    candidates = [name for name in kinds if kinds[name] is None]
    texts = [name for name in candidates if name.strip().lower() in TEXT_NAMES or mean_words(sample[name]) >= 2]
    if not texts:  # few distinct values or single words, but texts all the same if there is nothing else
        candidates = [name for name in kinds if kinds[name] not in (NUMBERS, DATES) and any(sample[name])] or candidates
        if candidates:
            texts = [max(candidates, key=lambda name: sum(len(value or "") for value in sample[name]))]
    if not texts:
        numbers = " (every other column holds numbers)" if set(kinds.values()) == {NUMBERS} else ""
        nested = "".join(f" Column {name!r} cannot be used. {why}" for name, why in sample.nested.items())
        raise DataError(
            f"{source_name}: no column looks like a text{numbers}; name the text columns with `text=`.{nested} "
            f"Columns: {', '.join([*sample, *sample.nested])}."
        )
    left_out = {
        name: reason
        for name, reason in kinds.items()
        if reason and name not in texts and (mean_words(sample[name]) >= 2 or name.strip().lower() in TEXT_NAMES)
    }
    return Texts(texts, left_out | dict.fromkeys(sample.nested, "it holds lists, mappings or bytes"))


NUMBERS, DATES, FEW = "it holds numbers", "it holds dates or times", "it has few distinct values"
PEOPLE, SETTLES = "it holds names of people", "each of its values stands for one label, so it gives the label away"


def _not_text(name: str, sample: Sample, label: str | None) -> str | None:
    """Why a column is no text; None if it may be one."""
    values = sample[name]
    present = [value for value in values if value and value.strip()]
    if not present:
        return None
    if all(map(is_number, present)):
        return NUMBERS
    if all(map(is_date, present)):
        return DATES
    if name.strip().lower() in TEXT_NAMES:
        return None
    if label is not None and _gives_away(values, sample[label]):
        return SETTLES
    if len(present) >= MIN_JUDGED and len(set(present)) <= min(MAX_DETECTED_CLASSES, len(present) // 4):
        return FEW
    if len(present) >= MIN_JUDGED and all(NAME_OF_A_PERSON.fullmatch(value.strip()) for value in present):
        return PEOPLE
    return None


def _gives_away(values: Sequence[str | None], labels: Sequence[str | None]) -> bool:
    """Whether values that repeat have equal labels, and there are at least two labels."""
    present = [value for value in values if value and value.strip()]
    if len(present) < MIN_JUDGED or len(set(present)) > len(present) // 2:
        return False
    found: dict[str, set[str]] = {}
    for value, label in zip(values, labels, strict=True):
        if value and label:
            found.setdefault(value, set()).add(label)
    return all(len(labels) == 1 for labels in found.values()) and len(set().union(*found.values())) > 1


def longest_text(sample: Sample, source_name: str, *, label: str) -> str:
    """The column of running text with the most characters in the sample.

    Args:
        sample: some values of every column.
        source_name: what error messages call the data.
        label: the label column, which is no text.

    Raises:
        DataError: every column holds numbers.
    """
    texts = find_texts(sample, source_name, label=label).text
    return max(texts, key=lambda name: sum(len(value or "") for value in sample[name]))


def named_texts(sample: Sample, text: str | Sequence[str]) -> list[str]:
    """The text columns that a caller named: a list, one name, or several names separated by commas.

    >>> named_texts(Sample({"title, full": [], "text": []}), "title, full")
    ['title, full']
    >>> named_texts(Sample({"title": [], "text": []}), "title, text")
    ['title', 'text']
    """
    if not isinstance(text, str):
        return list(text)
    if text in sample or text in sample.nested:
        return [text]
    return [name.strip() for name in text.split(",") if name.strip()]


def check_texts(sample: Sample, texts: Sequence[str], source_name: str) -> None:
    """Check that the text columns exist and hold text.

    Args:
        sample: some values of every column.
        texts: the text columns.
        source_name: what error messages call the data.

    Raises:
        DataError: a column does not exist, or holds numbers.
    """
    for name in texts:
        _check_column(sample, name, source_name)
        if _is_numeric(sample[name]):
            raise DataError(
                f"{source_name}: text column {name!r} holds numbers, not text; name another one with `text=`."
            )


def _check_column(sample: Sample, name: str, source_name: str) -> None:
    if name in sample.nested:
        raise DataError(f"{source_name}: column {name!r} cannot be used. {sample.nested[name]}")
    if name not in sample:
        raise DataError(f"{source_name}: {unknown_name('column', name, sample)}")


def mean_words(values: Sequence[str | None]) -> float:
    """Words per value, on average over those that are not missing."""
    counts = [len(value.split()) for value in values if value]
    return fmean(counts) if counts else 0.0


def _is_numeric(values: Sequence[str | None]) -> bool:
    present = [value for value in values if value and value.strip()]
    return bool(present) and all(map(is_number, present))


def is_number(value: str) -> bool:
    """Whether a value is a number as people write them: `-1`, `1,234.5`, `$74.69`, `12 %`, `nan`."""
    value = value.strip()
    return NUMBER.fullmatch(value) is not None or value.lower() in ("nan", "inf", "-inf")


def is_date(value: str) -> bool:
    """Whether a value is a date, a time of day, or both."""
    return DATE.fullmatch(value.strip()) is not None
