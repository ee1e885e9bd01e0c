"""Finds the label column and the text columns from their names and a sample of their values.

Used where the caller named no columns. Every rule fits in one sentence, because what was chosen is always reported.
"""

from collections.abc import Sequence
from statistics import fmean

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
MAX_CLASSES = 1000  # a column with more distinct values is not a label, even if named

Sample = dict[str, list[str | None]]


def choose_columns(
    sample: Sample, source_name: str, *, text: Sequence[str] | None = None, label: str | None = None
) -> tuple[list[str], str]:
    """Choose the text columns and the label column.

    Args:
        sample: some values of every column.
        source_name: what error messages call the data.
        text: the text columns, if the caller named them.
        label: the label column, if the caller named it.

    Returns:
        The text columns and the label column.

    Raises:
        DataError: a named column does not exist or does not fit, or no column qualifies.
    """
    for name in [*(text or []), *([label] if label else [])]:
        if name not in sample:
            raise DataError(f"{source_name}: {unknown_name('column', name, sample)}")
    label = label or _find_label(sample, source_name, set(text or []))
    if text is None:
        text = find_texts({name: values for name, values in sample.items() if name != label}, source_name)
    if label in text:
        raise DataError(f"{source_name}: column {label!r} is named both as the label and as a text.")
    check_texts(sample, text, source_name)
    return list(text), label


def _find_label(sample: Sample, source_name: str, texts: set[str]) -> str:
    by_name = {name.strip().lower(): name for name in sample if name not in texts}
    for name in LABEL_NAMES:
        if name in by_name:
            return by_name[name]
    distinct_counts = {}
    for name in by_name.values():
        values = [value for value in sample[name] if value]
        distinct = len(set(values))
        if 2 <= distinct <= min(MAX_DETECTED_CLASSES, len(values) // 2):
            distinct_counts[name] = distinct
    if not distinct_counts:
        raise DataError(
            f"{source_name}: no column looks like a label (a name such as 'label' or 'category', or few distinct "
            f"values); name the label column with `label=`. Columns: {', '.join(sample)}."
        )
    return min(distinct_counts, key=lambda name: distinct_counts[name])


def find_texts(sample: Sample, source_name: str) -> list[str]:
    """Find every column of running text: one with a usual name, or with two words or more per value on average.

    Raises:
        DataError: every column holds numbers.
    """
    words = {name: _mean_words(values) for name, values in sample.items()}
    candidates = [name for name in sample if not _is_numeric(sample[name])]
    texts = [name for name in candidates if name.strip().lower() in TEXT_NAMES or words[name] >= 2]
    if not texts and candidates:
        texts = [max(candidates, key=lambda name: fmean(len(value or "") for value in sample[name]))]
    if not texts:
        raise DataError(
            f"{source_name}: no column looks like a text (every other column holds numbers); "
            f"name the text columns with `text=`. Columns: {', '.join(sample)}."
        )
    return texts


def longest_text(sample: Sample, source_name: str) -> str:
    """The column of running text with the most characters in the sample.

    Raises:
        DataError: every column holds numbers.
    """
    texts = find_texts(sample, source_name)
    return max(texts, key=lambda name: sum(len(value or "") for value in sample[name]))


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
        if name not in sample:
            raise DataError(f"{source_name}: {unknown_name('column', name, sample)}")
        if _is_numeric(sample[name]):
            raise DataError(
                f"{source_name}: text column {name!r} holds numbers, not text; name another one with `text=`."
            )


def _mean_words(values: list[str | None]) -> float:
    counts = [len(value.split()) for value in values if value]
    return fmean(counts) if counts else 0.0


def _is_numeric(values: list[str | None]) -> bool:
    present = [value for value in values if value and value.strip()]
    return bool(present) and all(_is_number(value) for value in present)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
