"""Counts, numbers, durations and lists as people read them."""

import re
from collections.abc import Sequence

# C0 and C1 controls, line and paragraph separators, overrides of the direction, halves of surrogate pairs
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
CONTROLS_IN_LINES = re.compile(f"(?![\\n\\t]){CONTROLS.pattern}")


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """Join names for a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b"], "or")
    ('a', 'a, b and c', 'a or b')
    """
    return f" {conjunction} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(number: int, noun: str) -> str:
    """A count with its noun in the singular or plural.

    >>> counted(1, "row"), counted(2000, "row"), counted(0, "row")
    ('1 row', '2,000 rows', '0 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def capitalized(words: str) -> str:
    """Words at the beginning of a sentence; unlike `str.capitalize`, it leaves the other letters as they are.

    >>> capitalized("macro F1")
    'Macro F1'
    """
    return words[:1].upper() + words[1:]


def printable(text: str, *, lines: bool = False) -> str:
    """A text that a terminal shows and does not obey: control characters and changes of direction are escaped.

    Args:
        text: the text.
        lines: keep its line breaks and tabs; else the result is one line.

    >>> printable("a\\nb \\x1b[31mc 差"), printable("a\\nb\\x9b2J", lines=True)
    ('a\\\\nb \\\\x1b[31mc 差', 'a\\nb\\\\x9b2J')
    """
    return (CONTROLS_IN_LINES if lines else CONTROLS).sub(lambda one: one[0].encode("unicode_escape").decode(), text)


def short(number: float) -> str:
    """A number with two significant digits; from 10 on, a whole number.

    >>> short(0.3333), short(40.4), short(1234.0)
    ('0.33', '40', '1,234')
    """
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def rough(number: int) -> str:
    """A number that is only roughly known, with two significant digits.

    >>> rough(7), rough(1234), rough(98765)
    ('7', '1,200', '99,000')
    """
    return f"{float(f'{number:.2g}'):,.0f}"


def points_words(points: float) -> str:
    """Percentage points with their unit.

    >>> points_words(1.0), points_words(2.5)
    ('1 point', '2.5 points')
    """
    return f"{points:g} point{'' if points == 1 else 's'}"


def p_value_words(p_value: float) -> str:
    """A p-value as papers print it.

    >>> p_value_words(0.0002), p_value_words(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def seconds_words(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    >>> seconds_words(1.44), seconds_words(43.2), seconds_words(640), seconds_words(9000)
    ('1.4 s', '43 s', '11 min', '2.5 h')
    """
    if seconds < 100:
        return f"{short(seconds)} s"
    return f"{short(seconds / 60)} min" if seconds < 6000 else f"{short(seconds / 3600)} h"
