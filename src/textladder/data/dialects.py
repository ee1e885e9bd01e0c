"""Finds how a delimited file is written: delimiter, quoting, lines before the header, header or none.

Every likely dialect parses a sample of the lines; the one in which most lines belong to rows of one width is taken.
Then the first rows are compared with the rest to tell a header from data. What was found is always reported, and the
whole file is then read strictly as what was found.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from textladder.data.columns import LABEL_NAMES, TEXT_NAMES, is_date, is_number
from textladder.data.delimited_records import LINE_END, Dialect, Record, read_records
from textladder.data.labels import WRITTEN_AS_MISSING

DELIMITERS = ("\t", "|", ";", ",", "^", "~")  # of equals, the first: a tab or a bar is rarely part of a text
QUOTES = ('"', "'")
USUAL_NAMES = {*LABEL_NAMES, *TEXT_NAMES, "id"}
LEAST_SHARE = 0.5  # of the lines must belong to rows of the same width; else every line is taken for one field
MANY_PROBLEMS = 3  # of one kind are a way of writing, not mistakes
MOST_PREAMBLE = 30  # records before the header
MOST_HEADER_LINES = 3


@dataclass(frozen=True)
class Layout:
    """How a delimited file is laid out.

    Attributes:
        dialect: how fields are written.
        width: fields of a row.
        skipped_lines: lines before the header, or before the first row if there is none.
        header: the column names as written; None if there is no header.
        header_lines: lines of the header.
        sure: whether names or the types of the columns told that there is a header, and not the lengths of fields.
    """

    dialect: Dialect
    width: int
    skipped_lines: int
    header: list[str] | None
    header_lines: int
    sure: bool = True


@dataclass(frozen=True)
class Known:
    """What the caller knows about a file; None for what is to be detected.

    Attributes:
        delimiter: what separates fields.
        quote: what encloses fields; empty for none.
        escape: what escapes a quote; empty if quotes are doubled.
        header: whether there is a header.
        names: whether the caller names the columns; a first row that need not be a header is then a row.
        skip_lines: lines before the header.
    """

    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    header: bool | None = None
    names: bool = False
    skip_lines: int | None = None


def detect_layout(lines: Sequence[str], complete: bool, known: Known = Known()) -> Layout:
    """Detect how a delimited file is laid out.

    Args:
        lines: the first lines, with their ends.
        complete: whether these are all lines.
        known: what need not be detected.
    """
    skipped = known.skip_lines or 0
    declared = re.fullmatch(r'"?sep=(.)"?', lines[skipped].rstrip(LINE_END)) if len(lines) > skipped else None
    if declared and known.delimiter is None:  # written by Excel
        known, skipped = replace(known, delimiter=declared[1]), skipped + 1
        known = replace(known, skip_lines=skipped)
    rest = lines[skipped:]
    dialect = _detect_dialect(rest, complete, known)
    records = _sample_records(rest, complete, dialect)
    width = _usual_width([one for one in records if one.problem is None])
    start, header_lines, header = _detect_header(records, width, known)
    sure = known.header is not None or header is None or _surely(records, header)
    if known.names and not sure:
        return detect_layout(lines, complete, replace(known, header=False))
    return Layout(dialect, width, skipped + start, header, header_lines, sure)


def _sample_records(lines: Sequence[str], complete: bool, dialect: Dialect) -> list[Record]:
    """Parse a sample, without its last record if that may be cut."""
    records = list(read_records(lines, dialect))
    if complete or len(records) < 2:
        return records
    unclosed = next((n for n, one in enumerate(records) if one.problem and "never closed" in one.problem), None)
    if unclosed is not None and unclosed > len(records) // 2:  # a long field that the sample cuts
        return records[:unclosed]
    return records[:-1]


def _usual_width(records: Sequence[Record]) -> int:
    widths: Counter[int] = Counter()
    for one in records:
        if one.fields:
            widths[len(one.fields)] += one.lines
    return max(widths, key=lambda width: (widths[width], width), default=1)


def _detect_dialect(lines: Sequence[str], complete: bool, known: Known) -> Dialect:
    if known.delimiter is not None:
        return _with_quoting(lines, complete, known.delimiter, known).dialect
    text = "".join(lines)
    tried = [
        replace(
            _with_quoting(lines, complete, one, known),
            enclosed=max(round(_enclosed_share(lines, one, quote), 1) for quote in QUOTES),
        )
        for one in DELIMITERS
        if one in text
    ]
    best = max(tried, key=lambda one: (one.share, one.width > 1, one.enclosed, one.tidy), default=None)
    if best is None or best.width < 2 or best.share < LEAST_SHARE:
        return replace(_with_quoting(lines, complete, "\0", known).dialect, delimiter=None)
    return best.dialect


@dataclass(frozen=True)
class _Fit:
    """How well a dialect explains the lines of a sample.

    Attributes:
        dialect: the dialect.
        width: the usual number of fields.
        share: of the lines that belong to rows of that width; 0 if there is one field alone.
        problems: records that break the rules of the dialect.
        enclosed: the share of lines with a field in quotes, of those with quotes.
        tidy: whether fields do not begin with a space, as words after a punctuation mark do.
    """

    dialect: Dialect
    width: int
    share: float
    problems: int
    tidy: bool
    enclosed: float = 0.0


def _with_quoting(lines: Sequence[str], complete: bool, delimiter: str, known: Known) -> _Fit:
    """The best fit with a delimiter."""

    def fit(quote: str | None) -> _Fit:
        return _best_escape(lines, complete, Dialect(delimiter, quote), known)

    if known.quote is not None:
        return fit(known.quote or None)
    enclosed = {quote: _enclosed_share(lines, delimiter, quote) for quote in QUOTES}
    # apostrophes are common in texts, so some fields in single quotes do not suffice
    if enclosed["'"] >= 0.5 and enclosed["'"] > enclosed['"']:
        return fit("'")
    double = fit('"')
    if not double.problems and double.share == 1:
        return double
    none = fit(None)
    if enclosed["'"] and enclosed['"'] < 0.1:
        single = fit("'")
        if not single.problems and single.share > max(double.share, none.share):
            return single
    if enclosed['"'] < 0.1 and double.problems and none.share >= double.share:
        return none
    return none if double.problems and none.share > double.share + 0.3 else double


def _best_escape(lines: Sequence[str], complete: bool, dialect: Dialect, known: Known) -> _Fit:
    """The best fit with a delimiter and a quote: doubled quotes or a backslash, spaces after the delimiter or not."""
    plain, quote = _fit(lines, complete, dialect), dialect.quote
    text = "".join(lines)
    if known.escape is not None:
        plain = _fit(lines, complete, replace(dialect, escape=known.escape or None))
    elif quote is not None and f"\\{quote}" in text and plain.problems:
        escaped = _fit(lines, complete, replace(dialect, escape="\\"))
        plain = max(plain, escaped, key=lambda fit: (fit.share, -fit.problems))
    if quote is not None and known.escape is None and plain.problems >= max(MANY_PROBLEMS, 0.03 * len(lines)):
        bare = _fit(lines, complete, replace(dialect, bare_quotes=True))
        plain = bare if bare.share == 1 else plain
    if f"{dialect.delimiter} " not in text:
        return plain
    spaced = _fit(lines, complete, replace(plain.dialect, space_after_delimiter=True))
    return spaced if not plain.tidy or spaced.share > plain.share + 0.1 else plain


def _fit(lines: Sequence[str], complete: bool, dialect: Dialect) -> _Fit:
    records = _sample_records(lines, complete, dialect)
    sound = [one for one in records if one.problem is None]
    width = _usual_width(sound)
    rows = [one for one in sound if len(one.fields) == width]
    total = sum(one.lines for one in records if one.fields or one.problem)  # a blank line is evidence of nothing
    swallowing = [one for one in rows if one.lines > 1 and _lines_look_like_rows(one, lines, dialect, width)]
    if len(swallowing) > max(1, 0.1 * len(rows)):  # stray quotes are rare: this is how the fields are written
        swallowing = []
    fitting = sum(one.lines for one in rows) - sum(one.lines for one in swallowing)
    fields = [field for row in rows for field in row.fields[1:] if field]
    after_space = sum(field.startswith(" ") for field in fields)
    return _Fit(
        dialect,
        width,
        fitting / total if total and width > 1 else 0.0,
        len(records) - len(sound) + len(swallowing),
        tidy=after_space <= 0.95 * len(fields),
    )


def _lines_look_like_rows(record: Record, lines: Sequence[str], dialect: Dialect, width: int) -> bool:
    """Whether each line of a record that has several would be a row by itself, were quotes plain text."""
    own = lines[record.line - 1 : record.line - 1 + record.lines]
    return width > 1 and all(line.count(dialect.separator) == width - 1 for line in own)


def _enclosed_share(lines: Sequence[str], delimiter: str, quote: str) -> float:
    """The share of lines with a field that begins and ends with a quote."""
    before, after = rf"(?:^|{re.escape(delimiter)}) ?{quote}", rf"{quote}(?:{re.escape(delimiter)}|\s*$)"
    enclosed = re.compile(rf"{before}(?:[^{quote}]|{quote}{quote})*{after}")
    return sum(enclosed.search(line) is not None for line in lines) / max(1, len(lines))


def _detect_header(records: Sequence[Record], width: int, known: Known) -> tuple[int, int, list[str] | None]:
    """Find where the rows begin: lines to skip, then lines of the header, and its names."""
    rows = [one for one in records if one.fields or one.problem]
    if not rows or rows[0].problem:
        return 0, 0, None
    rows = [one for one in rows if one.problem is None]
    first = 0 if known.skip_lines is not None else _first_full_row(rows, width)
    if known.header is False:
        return rows[first].line - 1, 0, None
    sample = [one.fields for one in rows[first:]]
    if known.header is None and not has_header(sample[0], sample[1:], width):
        # lines before a header are skipped; without a header, nothing tells them from broken rows
        return rows[0].line - 1, 0, None
    count = 1 if known.header else _header_rows(sample)
    header = rows[first : first + count]
    names = [" ".join(part for part in parts if part) for parts in zip(*(one.fields for one in header), strict=True)]
    end = header[-1].line - 1 + header[-1].lines
    return header[0].line - 1, end - (header[0].line - 1), names


def _surely(records: Sequence[Record], header: Sequence[str]) -> bool:
    """Whether a header has a usual name, or a name over a column of numbers or dates."""
    if any(name.strip().lower() in USUAL_NAMES for name in header):
        return True
    rows = [one.fields for one in records if one.problem is None and len(one.fields) == len(header)]
    return any(_is_typed([row[index] for row in rows[1:]]) for index, name in enumerate(header) if name.strip())


def _is_typed(values: Sequence[str]) -> bool:
    """Whether a column holds numbers or dates."""
    present = [value for value in values if value.strip() and value.strip().lower() not in WRITTEN_AS_MISSING]
    return bool(present) and any(sum(map(is_kind, present)) >= 0.9 * len(present) for is_kind in (is_number, is_date))


def _first_full_row(rows: Sequence[Record], width: int) -> int:
    """Skip titles and remarks: records in which at most a third of the fields are filled.

    Over two columns they have one field, and a header must follow that has a usual name.
    """
    if width < 3:
        full = next((n for n, one in enumerate(rows[: MOST_PREAMBLE + 1]) if len(one.fields) == width), 0)
        named = {field.strip().lower() for field in rows[full].fields} & USUAL_NAMES
        return full if width == 2 and named else 0
    for number, one in enumerate(rows[: MOST_PREAMBLE + 1]):
        filled = sum(bool(field.strip()) for field in one.fields)
        if filled > max(1, width // 3):
            return number
    return 0


def has_header(first: Sequence[str], rest: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the first row is a header: its fields differ from what is below them."""
    if [name.strip() for name in first] == [str(number) for number in range(len(first))] and len(first) > 1:
        return True  # as pandas writes a frame without names
    others = [row for row in rest if len(row) == width]
    usual = [index for index, field in enumerate(first[:width]) if field.strip().lower() in USUAL_NAMES]
    if usual and not any(row[index] == first[index] for row in others for index in usual):
        return True
    repeated = [row for row in others if list(row) == list(first)]
    if len(repeated) <= max(MOST_HEADER_LINES, len(others) // 20):  # the header again, and not a frequent row
        others = [row for row in others if list(row) != list(first)]
    if not others:
        return not any(is_number(field) or is_date(field) for field in first)
    votes = sum(_vote(field, [row[index] for row in others]) for index, field in enumerate(first[:width]))
    if votes:
        return votes > 0
    filled = [field.strip() for field in first if field.strip()]
    return len(set(filled)) == len(filled) and all(len(field) <= 40 for field in filled)


def _vote(first: str, column: Sequence[str]) -> int:
    """1 if a field looks like the name of a column, -1 if it looks like one of its values, 0 if neither."""
    values = [value for value in column if value.strip()]
    if not values or not first.strip():
        return 0
    for is_kind in (is_number, is_date):
        if sum(map(is_kind, values)) >= 0.9 * len(values):
            return -1 if is_kind(first) else 1
    if is_number(first) or is_date(first):
        return -1
    lengths = [len(value) for value in values]
    distinct = len(set(values))
    if first in values and distinct <= max(2, len(values) // 2):
        return -1
    if median(lengths) >= 20:  # running text
        return 1 if len(first) < min(20, min(lengths)) or len(first) <= 0.2 * median(lengths) else -1
    return 1 if distinct <= len(values) // 2 and len(values) >= 10 else 0  # not one of a few values


def _header_rows(sample: Sequence[Sequence[str]]) -> int:
    """How many rows the header has: more than one if it is repeated, or if only words stand over columns of numbers."""
    count = 1
    while count < min(MOST_HEADER_LINES, len(sample) - 1):
        row, below = sample[count], sample[count + 1 :]
        if list(row) != list(sample[0]) and not _over_numbers(row, below):
            break
        count += 1
    return count


def _over_numbers(row: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether a row has words over at least two columns of numbers or dates, and no number."""
    below = [one for one in below if len(one) == len(row)]
    missing = {*WRITTEN_AS_MISSING, "unknown", "none", "-", "?"}
    if len(below) < 3 or any(is_number(one) or is_date(one) or one.strip().lower() in missing for one in row):
        return False
    words = 0
    for index, field in enumerate(row):
        values = [one[index] for one in below]
        if not _is_typed(values):
            if _vote(field, values) < 0:
                return False
        elif not field.strip():
            return False
        else:
            words += 1
    return words >= 2
