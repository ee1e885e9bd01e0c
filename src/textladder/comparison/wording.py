"""Numbers, durations and lists as people read them."""

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def short(number: float) -> str:
    """Two significant digits, whole numbers whole.

    >>> short(0.3333), short(40.4), short(1234.0)
    ('0.33', '40', '1,234')
    """
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def seconds_words(seconds: float) -> str:
    """A time as people read it.

    >>> seconds_words(1.44), seconds_words(43.2), seconds_words(630), seconds_words(9000)
    ('1.4 s', '43 s', '10.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{short(seconds)} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
