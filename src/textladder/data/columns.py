"""Which columns hold the label and the texts, found from their names and a sample of their values.

Used by `data.py` when the user did not name them. Every rule is one that can be said in a sentence, because what was
chosen is always said.
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
MOST_CLASSES = 100  # a column with more distinct values than this is not taken for a label unless it is named

Sample = dict[str, list[str | None]]


def choose_columns(
    sample: Sample, where: str, *, text: Sequence[str] | None = None, label: str | None = None
) -> tuple[list[str], str]:
    """The text columns and the label column.

    Args:
        sample: some values of every column.
        where: the data's name, for errors.
        text: the text columns, where the user named them.
        label: the label column, where the user named it.
    """
    for name in [*(text or []), *([label] if label else [])]:
        if name not in sample:
            raise DataError(f"{where}: {unknown_name('column', name, sample)}")
    label = label or _find_label(sample, where, set(text or []))
    if text is None:
        text = find_texts({name: values for name, values in sample.items() if name != label}, where)
    if label in text:
        raise DataError(f"{where}: column {label!r} is named both as the label and as a text.")
    check_texts(sample, text, where)
    return list(text), label


def _find_label(sample: Sample, where: str, texts: set[str]) -> str:
    by_name = {name.strip().lower(): name for name in sample if name not in texts}
    for name in LABEL_NAMES:
        if name in by_name:
            return by_name[name]
    few = {}
    for name in by_name.values():
        values = [value for value in sample[name] if value]
        distinct = set(values)
        if 2 <= len(distinct) <= min(MOST_CLASSES, len(values) // 2):
            few[name] = len(distinct)
    if not few:
        raise DataError(
            f"{where}: no column looks like a label (a name such as 'label' or 'category', or few distinct values); "
            f"name it with --label. Columns: {', '.join(sample)}."
        )
    return min(few, key=lambda name: few[name])


def find_texts(sample: Sample, where: str) -> list[str]:
    """Every column that holds running text: by its name, or because its values have two words or more on average."""
    words = {name: _mean_words(values) for name, values in sample.items()}
    candidates = [name for name in sample if not _is_numeric(sample[name])]
    texts = [name for name in candidates if name.strip().lower() in TEXT_NAMES or words[name] >= 2]
    if not texts and candidates:
        texts = [max(candidates, key=lambda name: fmean(len(value or "") for value in sample[name]))]
    if not texts:
        raise DataError(
            f"{where}: no column looks like a text (every other column holds numbers); "
            f"name it with --text. Columns: {', '.join(sample)}."
        )
    return texts


def check_texts(sample: Sample, texts: Sequence[str], where: str) -> None:
    """Refuse a text column that the data lacks, or one of numbers."""
    for name in texts:
        if name not in sample:
            raise DataError(f"{where}: {unknown_name('column', name, sample)}")
        if _is_numeric(sample[name]):
            raise DataError(f"{where}: text column {name!r} holds numbers, not texts; name another with --text.")


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
