"""Checks labelled texts before anything is trained on them: `textladder audit`, and the first step of `compare`.

Finds training and validation rows that leak into the test rows, texts with more than one label, duplicates, empty
texts, imbalanced classes, and what each level would truncate. It changes nothing; `drop_leaks` gives the
data without the leaks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.data.labels import IMBALANCED
from textladder.errors import DataError, TextladderError
from textladder.levels import LEVELS, find_level
from textladder.levels.base import make_config
from textladder.near_duplicates import TextIndex
from textladder.progress import Monitor

TOKEN_SAMPLE = 5_000  # tokens are counted on a sample of this many texts
ID_CLASSES, ID_ROWS = 30, 5  # more classes than this, with fewer rows each, look like an identifier
EXAMPLES, EXAMPLE_LENGTH = 5, 200
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class TokenCounts:
    """How long the texts are for a level.

    Attributes:
        level: the level's name.
        median: median number of tokens per text.
        longest: tokens of the longest text.
        limit: how many tokens the level reads; None if there is no limit.
        truncated: how many of the counted texts would be truncated.
        texts: how many texts were counted.
        unknown: why nothing could be counted; None if it could.
    """

    level: str
    median: float = 0.0
    longest: int = 0
    limit: int | None = None
    truncated: int = 0
    texts: int = 0
    unknown: str | None = None


@dataclass(frozen=True)
class Audit:
    """What was found. Rows are counted from 0 in the order of their file, without those that have no label.

    Attributes:
        rows: the number of rows of each part, by `train`, `valid` and `test`.
        classes: the number of rows of each label, over all parts.
        leaks: every training or validation row whose text is also in the test rows: the row, the test row, and their
            similarity, 1 for the same words, else the Jaccard similarity of their word triples.
        leaking_test_rows: how many test rows are among the training or validation rows too.
        duplicates: how many training and validation rows repeat an earlier one: `exact`, with the `same_words`
            (but other case or punctuation), or `near`.
        test_duplicates: the same among the test rows.
        contradictions: groups of rows with the same words but different labels, each row as (part, row).
        empty: rows without any word, as (part, row).
        warnings: what is doubtful about the columns and the labels, as clauses.
        tokens: how long the texts are for each level.
        examples: a few texts of each kind, shortened.
    """

    rows: dict[str, int]
    classes: dict[str, int]
    leaks: list[tuple[int, int, float]]
    leaking_test_rows: int
    duplicates: dict[str, int]
    test_duplicates: dict[str, int]
    contradictions: list[list[tuple[str, int]]]
    empty: list[tuple[str, int]]
    warnings: list[str]
    tokens: list[TokenCounts]
    examples: dict[str, list[str]]

    @property
    def looks_like_ids(self) -> bool:
        """Whether there are many classes with a handful of rows each."""
        return len(self.classes) > ID_CLASSES and sum(self.rows.values()) / len(self.classes) < ID_ROWS

    @property
    def imbalanced(self) -> bool:
        """Whether the largest class has more than five times as many rows as the smallest."""
        return max(self.classes.values()) > IMBALANCED * min(self.classes.values())

    def findings(self) -> list[str]:
        """What was found as sentences, the most serious first."""
        return list(_findings(self))

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as `audit --json` prints it."""
        leaks = [dict(zip(("row", "test_row", "similarity"), leak, strict=True)) for leak in self.leaks]
        groups = [[{"part": part, "row": row} for part, row in group] for group in self.contradictions]
        empty = [{"part": part, "row": row} for part, row in self.empty]
        return {
            **{name: getattr(self, name) for name in ("rows", "classes", "duplicates", "test_duplicates", "warnings")},
            "examples": self.examples,
            "leaks": leaks,
            "leaking_test_rows": self.leaking_test_rows,
            "contradictions": groups,
            "contradictory_rows": sum(map(len, groups)),
            "empty": empty,
            "labels_look_like_ids": self.looks_like_ids,
            "tokens": [asdict(counts) for counts in self.tokens],
            "findings": self.findings(),
        }


def audit_texts(
    data: TextData,
    *,
    levels: Sequence[str] = tuple(LEVELS),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> Audit:
    """Check labelled texts for leaks, contradictions, duplicates, imbalance and truncation.

    Args:
        data: the parts to check, each by itself and against the others.
        levels: the levels to count tokens for.
        settings: settings that differ from a level's defaults, by the level's name; `preset` may be among them.
        seed: seed of the sample that tokens are counted on.
        monitor: receives progress.

    Raises:
        ConfigError: an unknown level or setting.
    """
    monitor = monitor or Monitor()
    parts = {name: part for name in PARTS if (part := getattr(data, name)) is not None}
    try:
        monitor.start("looking for duplicates", sum(map(len, parts.values())))
        index = TextIndex(parts, monitor)
        near = index.near_pairs()
        leaks, leaking_test_rows = index.leaks(near)
        contradictions = index.contradictions()
        duplicates, test_duplicates = (index.count_duplicates(names, near) for names in (PARTS[:2], PARTS[2:]))
        empty = index.wordless
        del index, near  # their memory is needed no longer
        monitor.start("counting tokens", len(levels))
        tokens = list(_count_tokens(_sample_texts(parts, seed), levels, len(data.labels), settings or {}, monitor))
    finally:
        monitor.stop()
    counts = sum(np.bincount(part.label_ids, minlength=len(data.test.labels)) for part in parts.values())
    examples = {
        "leaks": [_shortened(parts["test"], test) for _, test, _ in leaks[:EXAMPLES]],
        "contradictions": [_shortened(parts[group[0][0]], group[0][1]) for group in contradictions[:EXAMPLES]],
    }
    return Audit(
        rows={name: len(part) for name, part in parts.items()},
        classes=dict(zip(data.test.labels, np.asarray(counts).tolist(), strict=True)),
        leaks=leaks,
        leaking_test_rows=leaking_test_rows,
        duplicates=duplicates,
        test_duplicates=test_duplicates,
        contradictions=contradictions,
        empty=empty,
        warnings=list(data.warnings),
        tokens=tokens,
        examples=examples,
    )


def drop_leaks(data: TextData, audit: Audit) -> TextData:
    """Leave out the training and validation rows that are also test rows.

    Raises:
        DataError: no training row of some class would be left.
    """
    leaking = np.array(sorted({row for row, _, _ in audit.leaks}), np.int64)

    def without_leaks(part: LabelledTexts) -> LabelledTexts:
        return replace(part, rows=np.setdiff1d(part.rows, leaking))

    train = without_leaks(data.train)
    for label_id, label in enumerate(data.labels):
        if label_id not in train.label_ids:
            raise DataError(f"Without the rows that leak into the test rows, no row of class {label!r} is left.")
    valid = without_leaks(data.valid) if data.valid else None
    return replace(data, train=train, valid=valid or None)


def _shortened(part: LabelledTexts, row: int) -> str:
    text = " ".join(part.table["text"][row].as_py().split())
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[:EXAMPLE_LENGTH]}..."


def _sample_texts(parts: Mapping[str, LabelledTexts], seed: int) -> list[str]:
    """The texts of all parts, or a random sample if there are many."""
    offsets = np.cumsum([0, *map(len, parts.values())])
    chosen = np.arange(offsets[-1])
    if len(chosen) > TOKEN_SAMPLE:
        chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), TOKEN_SAMPLE, replace=False))
    texts: list[str] = []
    for part, start, stop in zip(parts.values(), offsets, offsets[1:], strict=False):
        rows = part.rows[chosen[(chosen >= start) & (chosen < stop)] - start]
        texts += replace(part, rows=rows)
    return texts


def _count_tokens(
    texts: Sequence[str],
    levels: Sequence[str],
    classes: int,
    settings: Mapping[str, Mapping[str, Any]],
    monitor: Monitor,
) -> Iterator[TokenCounts]:
    for done, name in enumerate(levels, start=1):
        own = dict(settings.get(name, {}))
        preset = own.pop("preset", "default")
        level = find_level(name)(make_config(find_level(name), preset, own), classes)
        try:
            counts = level.token_counts(texts)
        except TextladderError as error:
            yield TokenCounts(name, unknown=str(error))
        else:
            limit = level.longest_text
            truncated = 0 if limit is None else int((counts > limit).sum())
            yield TokenCounts(name, float(np.median(counts)), int(counts.max()), limit, truncated, len(texts))
        monitor.advance(done)


def _findings(audit: Audit) -> Iterator[str]:
    rows = audit.rows
    kind = "training or validation" if "valid" in rows else "training"
    if audit.leaks:
        nearly = sum(similarity < 1 for *_, similarity in audit.leaks)
        changed = f" ({nearly:,} of them with a few words changed)" if nearly else ""
        yield (
            f"{_count(len(audit.leaks), f'{kind} row leaks', f'{kind} rows leak')} into the test rows: the same text "
            f"is in both{changed}. {audit.leaking_test_rows:,} of {_count(rows['test'], 'test row', 'test rows')} may "
            f"have been memorised; --fix drop-leaks (in Python fix='drop-leaks') removes the {kind} rows."
        )
    yield from (f"{warning[0].upper()}{warning[1:]}." for warning in audit.warnings)
    if audit.contradictions:
        among = sum(map(len, audit.contradictions))
        yield (
            f"{_count(len(audit.contradictions), 'text has', 'texts have')} more than one label ({among:,} rows): "
            "a model can learn only one of them."
        )
    if audit.looks_like_ids:
        yield (
            f"There are {len(audit.classes):,} labels for {sum(rows.values()):,} rows, "
            "which looks like an identifier rather than a class."
        )
    if audit.empty:
        yield f"{_count(len(audit.empty), 'text contains', 'texts contain')} no words."
    yield from _duplicate_finding(audit.duplicates, rows["train"] + rows.get("valid", 0), kind)
    yield from _duplicate_finding(audit.test_duplicates, rows["test"], "test")
    yield _balance_finding(audit)
    for counts in audit.tokens:
        yield from _token_finding(counts, sum(rows.values()))
    if not audit.leaks and not audit.contradictions:
        yield f"No test row was found among the {kind} rows, and no text has more than one label."


def _duplicate_finding(duplicates: Mapping[str, int], rows: int, part: str) -> Iterator[str]:
    if total := sum(duplicates.values()):
        yield (
            f"{total:,} of {_count(rows, f'{part} row', f'{part} rows')} {'repeats' if total == 1 else 'repeat'} "
            f"another one: {duplicates['exact']:,} exactly, {duplicates['same_words']:,} except for case and "
            f"punctuation, {duplicates['near']:,} nearly."
        )


def _balance_finding(audit: Audit) -> str:
    total = sum(audit.classes.values())
    order = sorted(audit.classes.items(), key=lambda item: item[1])
    (rarest, fewest), (commonest, most) = order[0], order[-1]
    if audit.imbalanced:
        return (
            f"The classes are imbalanced: {fewest / total:.1%} of the rows are {rarest!r}, {most / total:.1%} "
            f"{commonest!r}. Check macro F1 as well as accuracy; class weights (--class-weights balanced, in Python "
            "class_weights='balanced') make every class count the same."
        )
    return (
        f"{len(order)} classes, from {fewest / total:.1%} ({rarest!r}) to {most / total:.1%} ({commonest!r}) of rows."
    )


def _token_finding(counts: TokenCounts, rows: int) -> Iterator[str]:
    if counts.unknown:
        yield f"{counts.level}: truncation could not be checked. {counts.unknown}"
    elif counts.truncated:
        sample = "" if counts.texts == rows else " (a sample)"
        yield (
            f"{counts.level} would truncate {counts.truncated:,} of {_count(counts.texts, 'text', 'texts')}{sample}, "
            f"those longer than {counts.limit:,} tokens; the longest has {counts.longest:,}."
        )


def _count(number: int, singular: str, plural: str) -> str:
    """A number with its noun, and perhaps its verb.

    >>> _count(1, "row leaks", "rows leak"), _count(2000, "row leaks", "rows leak")
    ('1 row leaks', '2,000 rows leak')
    """
    return f"{number:,} {singular if number == 1 else plural}"
