"""Labels in one form, what looks wrong with them, and classes with too few rows."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textladder.errors import ConfigError

WRITTEN_AS_MISSING = {"na", "n/a", "#n/a", "nan", "null", "<na>", "#value!", "#ref!"}
RARE_CLASSES, UNKNOWN_LABELS = ("error", "drop", "merge"), ("error", "drop")
MERGED = "other"  # the class of the merged rare ones


@dataclass(frozen=True)
class LabelOptions:
    """What to do about labels that are doubtful.

    Attributes:
        merge_labels: take labels that differ only in case for one: the most frequent of them.
        missing_label: labels that mean that there is none; their rows are left out.
        rare_classes: what happens to classes with fewer than `min_class_rows` rows: `error`, `drop` their rows, or
            `merge` them into one class.
        min_class_rows: that number.
        unknown_labels: what happens to test rows whose label was not seen in training: `error` or `drop`.

    Raises:
        ConfigError: a value is out of range.
    """

    merge_labels: bool = False
    missing_label: Sequence[str] = ()
    rare_classes: str = "error"
    min_class_rows: int = 2
    unknown_labels: str = "error"

    def __post_init__(self) -> None:
        if isinstance(self.missing_label, str):
            object.__setattr__(self, "missing_label", (self.missing_label,))
        for name, choices in (("rare_classes", RARE_CLASSES), ("unknown_labels", UNKNOWN_LABELS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}; received {getattr(self, name)!r}.")
        if self.min_class_rows < 2:
            raise ConfigError(f"min_class_rows must be 2 or more; received {self.min_class_rows}.")

    @property
    def missing(self) -> set[str]:
        """The labels that mean that there is none, in one form."""
        return {normalized(label) for label in self.missing_label}


def normalized(label: str) -> str:
    """A label without blanks at its ends, its characters composed (Unicode form NFC).

    >>> normalized(" Neg "), normalized("cafe\\u0301") == normalized("caf\\u00e9")
    ('Neg', True)
    """
    return unicodedata.normalize("NFC", label.strip())


def merged_by_case(counts: Mapping[str, int]) -> dict[str, str]:
    """For each label, the most frequent of those that differ from it only in case."""
    most: dict[str, str] = {}
    for label in sorted(counts, key=lambda one: (-counts[one], one)):
        most.setdefault(label.casefold(), label)
    return {label: most[label.casefold()] for label in counts}


def doubtful_labels(counts: Mapping[str, int], column: str) -> list[str]:
    """What a person should look at among labels, as clauses.

    Args:
        counts: the rows of each label.
        column: the label column.
    """
    notes = []
    merged = merged_by_case(counts)
    alike = [[label for label in counts if merged[label] == one] for one in dict.fromkeys(merged.values())]
    alike = [labels for labels in alike if len(labels) > 1]
    if alike:
        shown = "; ".join(" and ".join(map(repr, labels)) for labels in alike[:3])
        notes.append(f"labels that differ only in case: {shown} (pass merge_labels=True to take them for one)")
    for label, count in counts.items():
        if label.casefold() in WRITTEN_AS_MISSING:
            rows = f"{count:,} {'row' if count == 1 else 'rows'}"
            notes.append(
                f"the label {label!r} of {rows} looks like a missing one (to leave these rows out, pass "
                f'missing_label="{label}")'
            )
        elif label == column:
            notes.append(f"the label {label!r} is also the name of the column, as if a header stood among the rows")
    return notes


def rare_classes(counts: Mapping[str, int], least: int) -> list[str]:
    """The labels with fewer rows than `least`."""
    return [label for label, count in counts.items() if count < least]
