"""What is wrong with labelled texts before anything is trained on them: `textladder audit`, the first step of compare.

    rows -> words, without case and punctuation -> the same texts -> MinHash of word triples -> nearly the same texts

Finds what leaks from the training rows into the test rows, what stands under two labels, what is empty, how the classes
are balanced, and what each level would cut off. It changes nothing; `drop_leaks` gives the data without the leaks.
"""

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.errors import DataError, TextladderError
from textladder.levels import LEVELS, find_level
from textladder.levels.base import make_config
from textladder.progress import Monitor

NEAR = 0.8  # texts that share so much of their word triples (Jaccard) are nearly the same
# A pair of this similarity shares one of the bands with a probability of 99% (at 0.9: all but surely).
BANDS, BAND_ROWS = 12, 5
TOKENS_SAMPLE = 5_000  # texts that token counts are taken of, where there are more
FEWEST_WORDS = 5  # shorter texts ("Great book!") are the same by chance
ID_CLASSES, ID_ROWS = 30, 5  # more classes than this with fewer rows each look like an identifier
UNBALANCED = 5  # the largest class is so many times the smallest
EXAMPLES, EXAMPLE_LENGTH = 5, 200
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Tokens:
    """How long the texts are for a level.

    Attributes:
        level: its name.
        median: tokens of a text.
        longest: tokens of the longest text.
        limit: where the level cuts; None if it never does.
        cut: how many of the texts looked at would lose tokens.
        texts: how many were looked at.
        unknown: why nothing is known, where that is so.
    """

    level: str
    median: float = 0.0
    longest: int = 0
    limit: int | None = None
    cut: int = 0
    texts: int = 0
    unknown: str | None = None


@dataclass(frozen=True)
class Audit:
    """What was found. Rows are counted from 0 in the order of the data that they came from, unlabelled ones left out.

    Attributes:
        rows: how many rows the parts have, by `train`, `valid` and `test`.
        classes: how many rows each label has, over all parts, by label.
        leaks: of each training or validation row whose text is also a test row's: its row, the test row's, and their
            similarity (1 for the same text but for case and punctuation, else of their word triples).
        leaking_test_rows: how many test rows stand among the training or validation rows too.
        duplicates: rows of the training and validation parts whose text stood there before: how many are the same
            to the letter, the same but for case and punctuation, and nearly the same.
        test_duplicates: the same among the test rows.
        contradictions: groups of rows with the same text (but for case and punctuation) under different labels, each
            row as (part, row).
        empty: rows without any word, as (part, row).
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
    tokens: list[Tokens]
    examples: dict[str, list[str]]

    @property
    def looks_like_ids(self) -> bool:
        """Many classes with a handful of rows each."""
        return len(self.classes) > ID_CLASSES and sum(self.rows.values()) / len(self.classes) < ID_ROWS

    def findings(self) -> list[str]:
        """What was found, in plain words; the gravest first."""
        return list(_findings(self))

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as `audit --json` has it."""
        leaks = [dict(zip(("row", "test_row", "similarity"), one, strict=True)) for one in self.leaks]
        groups = [[{"part": part, "row": row} for part, row in group] for group in self.contradictions]
        empty = [{"part": part, "row": row} for part, row in self.empty]
        return {
            **{name: getattr(self, name) for name in ("rows", "classes", "duplicates", "test_duplicates", "examples")},
            "leaks": leaks,
            "leaking_test_rows": self.leaking_test_rows,
            "contradictions": groups,
            "contradictory_rows": sum(map(len, groups)),
            "empty": empty,
            "labels_look_like_ids": self.looks_like_ids,
            "tokens": [asdict(one) for one in self.tokens],
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
    """Look for what is wrong with labelled texts.

    Args:
        data: its parts are looked at one by one and against each other.
        levels: whose token counts are wanted.
        settings: of a level, by its name, where they are not the defaults; `preset` among them.
        seed: of the sample that token counts are taken of.
        monitor: is told how far it is.
    """
    monitor = monitor or Monitor()
    parts = {name: part for name in PARTS if (part := getattr(data, name)) is not None}
    try:
        monitor.start("looking for duplicates", sum(map(len, parts.values())))
        texts = _Texts(parts, monitor)
        near = texts.near_pairs()
        leaks, leaking_test_rows = texts.leaks(near)
        contradictions = texts.contradictions()
        monitor.start("counting tokens", len(levels))
        tokens = list(_tokens(parts, data, levels, settings or {}, seed, monitor))
    finally:
        monitor.stop()
    classes = Counter(place for part in parts.values() for place in part.label_ids.tolist())
    examples = {
        "leaks": [_shortened(parts["test"], test) for _, test, _ in leaks[:EXAMPLES]],
        "contradictions": [_shortened(parts[group[0][0]], group[0][1]) for group in contradictions[:EXAMPLES]],
    }
    return Audit(
        rows={name: len(part) for name, part in parts.items()},
        classes={label: classes[place] for place, label in enumerate(data.labels)},
        leaks=leaks,
        leaking_test_rows=leaking_test_rows,
        duplicates=texts.duplicates(("train", "valid"), near),
        test_duplicates=texts.duplicates(("test",), near),
        contradictions=contradictions,
        empty=texts.empty,
        tokens=tokens,
        examples=examples,
    )


def drop_leaks(data: TextData, audit: Audit) -> TextData:
    """The data without the training and validation rows that are test rows too.

    Raises:
        DataError: no row of some class is left to learn from.
    """
    leaking = np.array(sorted({row for row, _, _ in audit.leaks}), np.int64)

    train, valid = (part and replace(part, rows=np.setdiff1d(part.rows, leaking)) for part in (data.train, data.valid))
    assert train is not None
    for place, name in enumerate(data.labels):
        if place not in train.label_ids:
            raise DataError(f"Without the rows that leak into the test rows no row of class {name!r} is left.")
    return replace(data, train=train, valid=valid if valid is not None and len(valid) else None)


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation.

    >>> words_of("It's GOOD -- really!")
    ['it', 's', 'good', 'really']
    """
    return re.findall(r"\w+", text.casefold())


class _Texts:
    """The texts of all parts, each known by what it says; the test rows come first, so that they lead their groups."""

    def __init__(self, parts: Mapping[str, LabelledTexts], monitor: Monitor) -> None:
        from datasketch import MinHash

        self.parts = parts
        self.names = [name for name in ("test", "train", "valid") if name in parts]
        self.starts = np.cumsum([0, *[len(parts[name]) for name in self.names]])
        self.labels = np.concatenate([parts[name].label_ids for name in self.names])
        self.empty: list[tuple[str, int]] = []
        exact: dict[bytes, int] = {}
        said: dict[bytes, int] = {}
        self.exact, self.said = np.empty(self.starts[-1], np.int64), np.empty(self.starts[-1], np.int64)
        self.leaders: list[int] = []  # the first place of each text that has words enough to be nearly like another
        signatures: list[np.ndarray] = []
        blank = MinHash(BANDS * BAND_ROWS, hashfunc=zlib.crc32)
        for place, text in enumerate(text for name in self.names for text in parts[name]):
            words = words_of(text)
            if not words:
                self.empty.append(self.row(place))
            said_before = len(said)
            self.exact[place] = exact.setdefault(_digest(text), place)
            self.said[place] = said.setdefault(_digest(" ".join(words) or text.strip()), place)
            if len(words) >= FEWEST_WORDS and len(said) > said_before:
                sketch = blank.copy()
                sketch.update_batch(_shingles(words))
                signatures.append(sketch.hashvalues)
                self.leaders.append(place)
            if place % 1000 == 999:
                monitor.advance(place + 1)
        self._signatures = np.array(signatures, np.uint32).reshape(len(signatures), BANDS * BAND_ROWS)

    def row(self, place: int) -> tuple[str, int]:
        """The part and the row of a place."""
        number = int(np.searchsorted(self.starts, place, side="right")) - 1
        name = self.names[number]
        return name, int(self.parts[name].rows[place - self.starts[number]])

    def text(self, place: int) -> str:
        """The text at a place."""
        name, row = self.row(place)
        found: str = self.parts[name].table["text"][row].as_py()
        return found

    def places(self, names: Sequence[str]) -> np.ndarray:
        """The places of some parts."""
        ranges = [
            np.arange(*self.starts[number : number + 2]) for number, name in enumerate(self.names) if name in names
        ]
        return np.concatenate([np.zeros(0, np.int64), *ranges])

    def near_pairs(self) -> list[tuple[int, int, float]]:
        """Leaders that say nearly the same, the earlier one first, with their similarity.

        Locality-sensitive hashing (Leskovec, Rajaraman & Ullman, "Mining of massive datasets", section 3.4): what
        shares a band of the signature is looked at. Of a group that shares one, each is held against its first and
        against its neighbour, so that a template of a thousand texts makes no million pairs.
        """
        pairs: set[tuple[int, int]] = set()
        mixed = np.random.default_rng(0).integers(2**63, size=BAND_ROWS, dtype=np.uint64) | np.uint64(1)
        for band in np.split(self._signatures, BANDS, axis=1):
            keys = (band * mixed).sum(axis=1, dtype=np.uint64)
            order = np.argsort(keys, kind="stable")
            alike = keys[order][1:] == keys[order][:-1]
            begins = np.where(np.concatenate([[True], ~alike]), np.arange(len(order)), 0)
            sequence_offsets = order[np.maximum.accumulate(begins)]
            for earlier in (order[:-1], sequence_offsets[1:]):
                pairs.update(zip(earlier[alike].tolist(), order[1:][alike].tolist(), strict=True))
        found, hashed = [], dict[int, np.ndarray]()
        for one, other in sorted(pairs):
            for leader in {one, other} - hashed.keys():
                shingles = _shingles(words_of(self.text(self.leaders[leader])))
                hashed[leader] = np.unique(np.fromiter(map(zlib.crc32, shingles), np.uint32))
            a, b = hashed[one], hashed[other]
            shared = len(np.intersect1d(a, b, assume_unique=True))
            similarity = shared / (len(a) + len(b) - shared)
            if similarity >= NEAR:
                found.append((self.leaders[one], self.leaders[other], similarity))
        return found

    def duplicates(self, names: Sequence[str], near: Sequence[tuple[int, int, float]]) -> dict[str, int]:
        """How many rows of some parts repeat one of them, by how exactly."""
        places = self.places(names)
        exact, said = len(np.unique(self.exact[places])), len(np.unique(self.said[places]))
        there = set(self.said[places].tolist())
        nearly = {other for one, other, _ in near if one in there and other in there}
        return {"exact": len(places) - exact, "same_words": exact - said, "near": len(nearly)}

    def leaks(self, near: Sequence[tuple[int, int, float]]) -> tuple[list[tuple[int, int, float]], int]:
        """Training and validation rows that say what a test row says, and how many test rows those are."""
        tests = self.starts[1]
        nearest: dict[int, tuple[int, float]] = {}
        for one, other, similarity in near:
            if one < tests <= other and similarity > nearest.get(other, (0, 0.0))[1]:
                nearest[other] = one, similarity
        found, known = [], set[int]()
        for place in range(tests, self.starts[-1]):
            leader = int(self.said[place])
            test, similarity = (leader, 1.0) if leader < tests else nearest.get(leader, (-1, 0.0))
            if test >= 0:
                found.append((self.row(place)[1], self.row(test)[1], similarity))
                known.add(test)
        return sorted(found), int(np.isin(self.said[:tests], list(known)).sum())

    def contradictions(self) -> list[list[tuple[str, int]]]:
        """Rows that say the same under different labels."""
        order = np.argsort(self.said, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.said[order])) + 1)
        wordless = set(self.empty)
        found = []
        for group in groups:
            if len(group) > 1 and len(set(self.labels[group].tolist())) > 1:
                rows = [self.row(place) for place in group.tolist()]
                if rows[0] not in wordless:
                    found.append(rows)
        return found


def _shortened(part: LabelledTexts, row: int) -> str:
    text = " ".join(part.table["text"][row].as_py().split())
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[:EXAMPLE_LENGTH]}..."


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def _shingles(words: Sequence[str]) -> list[bytes]:
    """Runs of three words, as bytes."""
    return [" ".join(run).encode() for run in zip(words, words[1:], words[2:], strict=False)]


def _tokens(
    parts: Mapping[str, LabelledTexts],
    data: TextData,
    levels: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    monitor: Monitor,
) -> Iterator[Tokens]:
    """How long the texts are for each level, over a sample of all parts."""
    everything = [(name, row) for name, part in parts.items() for row in part.rows.tolist()]
    if len(everything) > TOKENS_SAMPLE:
        places = np.random.default_rng(seed).choice(len(everything), TOKENS_SAMPLE, replace=False)
        everything = [everything[place] for place in np.sort(places)]
    texts = [parts[name].table["text"][row].as_py() for name, row in everything]
    for done, name in enumerate(levels):
        own = dict(settings.get(name, {}))
        preset = own.pop("preset", "default")
        level = find_level(name)(make_config(find_level(name), preset, own), len(data.labels))
        try:
            counts = level.token_counts(texts)
        except TextladderError as error:
            yield Tokens(name, unknown=str(error))
        else:
            limit = level.longest_text
            cut = 0 if limit is None else int((counts > limit).sum())
            yield Tokens(name, float(np.median(counts)), int(counts.max()), limit, cut, len(texts))
        monitor.advance(done + 1)


def _findings(audit: Audit) -> Iterator[str]:
    rows = audit.rows
    learnt_from = rows["train"] + rows.get("valid", 0)
    if audit.leaks:
        nearly = sum(similarity < 1 for *_, similarity in audit.leaks)
        yield (
            f"{_many(len(audit.leaks), 'training row', 'leak')} into the test rows: the same text stands in both"
            + (f" ({nearly:,} of them with a few words changed)" if nearly else "")
            + f". Of {rows['test']:,} test rows {audit.leaking_test_rows:,} can be known by heart; "
            "--fix drop-leaks takes the training rows out."
        )
    if audit.contradictions:
        among = sum(map(len, audit.contradictions))
        yield (
            f"{_many(len(audit.contradictions), 'text', 'stand')} under more than one label ({among:,} rows): "
            "at most one of the labels can be learnt."
        )
    if audit.looks_like_ids:
        yield (
            f"There are {len(audit.classes):,} labels for {sum(rows.values()):,} rows: "
            "that looks like an identifier, not like classes."
        )
    if audit.empty:
        yield f"{_many(len(audit.empty), 'text', 'hold')} no word at all."
    for where, found, of in (
        ("training", audit.duplicates, learnt_from),
        ("test", audit.test_duplicates, rows["test"]),
    ):
        if repeated := sum(found.values()):
            yield (
                f"{repeated:,} of {of:,} {where} rows repeat another one: {found['exact']:,} to the letter, "
                f"{found['same_words']:,} but for case and punctuation, {found['near']:,} nearly."
            )
    yield _balance(audit)
    for one in audit.tokens:
        if one.unknown:
            yield f"{one.level}: how many texts it would cut is not known. {one.unknown}"
        elif one.cut:
            share = "" if one.texts == sum(rows.values()) else " (a sample)"
            yield (
                f"{one.level} would cut {one.cut:,} of {one.texts:,} texts{share}, those of more than {one.limit:,} "
                f"tokens; the longest has {one.longest:,}."
            )
    if not audit.leaks and not audit.contradictions:
        yield "No test row was found among the training rows, and no text under two labels."


def _balance(audit: Audit) -> str:
    total = sum(audit.classes.values())
    order = sorted(audit.classes.items(), key=lambda one: one[1])
    (least, few), (most, many) = order[0], order[-1]
    if many > UNBALANCED * few:
        return (
            f"The classes are not balanced: {few / total:.1%} of the rows are {least!r}, {many / total:.1%} {most!r}. "
            "Look at macro F1 beside accuracy; --class-weights balanced makes them count the same."
        )
    return f"{len(order)} classes, from {few / total:.1%} ({least!r}) to {many / total:.1%} ({most!r}) of the rows."


def _many(number: int, thing: str, verb: str) -> str:
    """A number with its noun and verb.

    >>> _many(1, "row", "leak"), _many(2000, "row", "leak")
    ('1 row leaks', '2,000 rows leak')
    """
    return f"{number:,} {thing} {verb}s" if number == 1 else f"{number:,} {thing}s {verb}"
