"""Labels in one form and of one type, what looks wrong with them, and classes with too few rows.

Every label is kept as text, as it is written in most rows. What it was in the data, a number or a boolean, is the
type of all labels together.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from textladder.data.rows import as_text
from textladder.errors import ConfigError, unknown_name

WRITTEN_AS_MISSING = {"na", "n/a", "#n/a", "nan", "null", "<na>", "\\n", "#value!", "#ref!"}
RARE_CLASSES, UNKNOWN_LABELS = ("error", "drop", "merge"), ("error", "drop", "wrong")
IMBALANCED = 5  # from this ratio of the largest class to the smallest
MERGED = "other"  # the class of the merged rare ones
TEXT, INTEGER, NUMBER, BOOLEAN = "text", "integer", "number", "boolean"
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.0+)?")  # as many digits as 64 bits hold

Label = str | int | float | bool


@dataclass(frozen=True)
class LabelOptions:
    """What to do about labels that are doubtful.

    Attributes:
        merge_labels: take labels that differ only in case for one: the most frequent of them.
        missing_label: labels that mean that there is none; their rows are left out.
        rare_classes: what happens to classes with fewer than `min_class_rows` rows: `error`, `drop` their rows, or
            `merge` them into one class.
        min_class_rows: that number.
        unknown_labels: what happens to test rows whose label was not seen in training: `error`, `drop` them, or count
            every prediction for them as `wrong`.
        label_names: what people call some of the labels.

    Raises:
        ConfigError: a value is out of range.
    """

    merge_labels: bool = False
    missing_label: Label | Sequence[Label] = ()
    rare_classes: str = "error"
    min_class_rows: int = 2
    unknown_labels: str = "error"
    label_names: Mapping[Any, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in (("rare_classes", RARE_CLASSES), ("unknown_labels", UNKNOWN_LABELS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}; received {getattr(self, name)!r}.")
        if self.min_class_rows < 2:
            raise ConfigError(f"min_class_rows must be 2 or more; received {self.min_class_rows}.")

    @property
    def missing(self) -> set[str]:
        """The labels that mean that there is none, in one form."""
        labels = [self.missing_label] if isinstance(self.missing_label, (str, int, float)) else self.missing_label
        return {normalized(as_text(label) or "") for label in labels}

    def named(self, labels: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
        """The names of labels with those of `label_names` in place of the others.

        Args:
            labels: the labels.
            names: what they are called so far.

        Raises:
            ConfigError: there is no such label, or two labels would have one name.
        """
        places = {same_label(label): place for place, label in enumerate(labels)}
        found = list(names)
        for label, name in self.label_names.items():
            place = places.get(same_label(as_text(label) or ""))
            if place is None:
                raise ConfigError(f"`label_names=`: {unknown_name('label', str(label), labels)}")
            found[place] = str(name)
        if twice := sorted({name for name in found if found.count(name) > 1}):
            raise ConfigError(f"`label_names=`: more than one label would be called {twice[0]!r}.")
        return tuple(found)


def normalized(label: str) -> str:
    """A label without blanks at its ends, its characters composed (Unicode form NFC).

    >>> normalized(" Neg "), normalized("cafe\\u0301") == normalized("caf\\u00e9")
    ('Neg', True)
    """
    return unicodedata.normalize("NFC", label.strip())


def label_type(labels: Collection[str], types: Collection[type] | None) -> str:
    """Which type labels have: `text`, `integer`, `number` or `boolean`.

    Args:
        labels: all of them, as text.
        types: of their values; None if the source has no types, as a delimited file, and what is written decides.

    >>> label_type(["1", "2"], None), label_type(["1", "2"], [str]), label_type(["1.0", "0.0"], None)
    ('integer', 'text', 'integer')
    >>> label_type(["True", "False"], None), label_type(["1", "1.5"], [float]), label_type(["01", "2"], None)
    ('boolean', 'number', 'text')
    """
    booleans = {label.casefold() for label in labels} <= {"true", "false"}
    numbers = all(WHOLE.fullmatch(label) or _is_decimal(label) for label in labels)
    if booleans and (types is None or set(types) == {bool}):
        return BOOLEAN
    if not numbers or not (types is None or set(types) <= {int, float}):
        return TEXT
    return INTEGER if all(map(WHOLE.fullmatch, labels)) else NUMBER


def _is_decimal(label: str) -> bool:
    """Whether a label is a number as Python writes it, so that no other label is the same number (1.1 and 1.10)."""
    try:
        return label == repr(float(label)) and isfinite(float(label))
    except ValueError:
        return False


def same_label(label: str) -> str:
    """What labels have in common that are the same in another format: 1 and 1.0, True and true.

    >>> same_label("1.0"), same_label("True"), same_label("v1.0")
    ('1', 'true', 'v1.0')
    """
    if WHOLE.fullmatch(label):
        return str(int(label.partition(".")[0]))
    return label.casefold() if label.casefold() in ("true", "false") else label


def label_values(labels: Iterable[str], type_: str) -> tuple[Label, ...]:
    """Labels as values of their type.

    Raises:
        KeyError: there is no such type, or a label is no boolean.
        ValueError: a label is no number.

    >>> label_values(["0", "1.0"], "integer"), label_values(["False", "true"], "boolean")
    ((0, 1), (False, True))
    """
    convert: dict[str, Callable[[str], Label]] = {
        TEXT: str,
        INTEGER: lambda label: int(same_label(label)),
        NUMBER: float,
        BOOLEAN: lambda label: {"true": True, "false": False}[label.casefold()],
    }
    return tuple(convert[type_](label) for label in labels)


def merged(counts: Mapping[str, int], key: Callable[[str], str]) -> dict[str, str]:
    """For each label, the most frequent of those with the same key."""
    most: dict[str, str] = {}
    for label in sorted(counts, key=lambda one: (-counts[one], one)):
        most.setdefault(key(label), label)
    return {label: most[key(label)] for label in counts}


def doubtful_labels(counts: Mapping[str, int], column: str) -> list[str]:
    """What a person should look at among labels, as clauses.

    Args:
        counts: the rows of each label.
        column: the label column.
    """
    notes = []
    most_frequent = merged(counts, str.casefold)
    same: dict[str, list[str]] = {}
    for label, one in most_frequent.items():
        same.setdefault(one, []).append(label)
    alike = list(same.values())
    alike = [labels for labels in alike if len(labels) > 1]
    if alike:
        shown = "; ".join(" and ".join(map(repr, labels)) for labels in alike[:3])
        notes.append(
            f"labels that differ only in case: {shown}; pass merge_labels=True (--merge-labels on the command line) to "
            "take them for one"
        )
    for label, count in counts.items():
        if label.casefold() in WRITTEN_AS_MISSING:
            rows = f"{count:,} {'row' if count == 1 else 'rows'}"
            notes.append(
                f"the label {label!r} of {rows} looks like a missing one; to leave these rows out, pass "
                f'missing_label="{label}" (--missing-label on the command line)'
            )
        elif label == column:
            notes.append(f"the label {label!r} is also the name of the column, as if a header stood among the rows")
    return notes


def rare_classes(counts: Mapping[str, int], least: int) -> list[str]:
    """The labels with fewer rows than `least`."""
    return [label for label, count in counts.items() if count < least]
