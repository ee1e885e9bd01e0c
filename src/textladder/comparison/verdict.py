"""Which level is worth it: the arithmetic of a comparison, in numbers and in one sentence.

Cost is what one text takes (the median), ties by fit time. The verdict is the cheapest level from which no dearer one
is a detectable and worthwhile improvement, among those that keep the user's terms. Knows nothing of how levels are
trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textladder.comparison.wording import listed, short
from textladder.significance import Gain

SAME_COST = 2  # significant digits that two latencies may have in common to count as the same


@dataclass(frozen=True)
class Terms:
    """What the user wants of the level that is recommended.

    Attributes:
        worth: points of accuracy that a dearer level must gain.
        max_latency_ms: of one text, the median.
        max_size_mb: of the bundle.
        max_fit_minutes: of one training.
    """

    worth: float = 1.0
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    max_fit_minutes: float | None = None

    def broken_by(self, level: "Measured") -> list[str]:
        """Which of them a level breaks, in words."""
        limits = (
            ("latency", self.max_latency_ms, level.predict_ms_p50, "ms"),
            ("size", self.max_size_mb, level.bundle_mb, "MB"),
            ("fit time", self.max_fit_minutes, level.fit_seconds / 60, "minutes"),
        )
        return [
            f"{name} {found:.3g} {unit}, at most {limit:g} wanted"
            for name, limit, found, unit in limits
            if limit is not None and found > limit
        ]


@dataclass(frozen=True)
class Measured:
    """What the verdict has to know of a level.

    Attributes:
        level: its name.
        accuracy: on the test rows, a fraction.
        predict_ms_p50: what one text takes.
        fit_seconds: of one training.
        bundle_mb: of the saved classifier.
    """

    level: str
    accuracy: float
    predict_ms_p50: float
    fit_seconds: float
    bundle_mb: float

    @property
    def cost(self) -> tuple[float, float]:
        """What levels are ordered by."""
        return float(f"{self.predict_ms_p50:.{SAME_COST}g}"), self.fit_seconds


@dataclass(frozen=True)
class Verdict:
    """The level that is worth it, or None, and why."""

    recommended: str | None
    sentence: str


Gains = Callable[[str, str], Gain]


def by_cost(levels: Sequence[Measured]) -> list[Measured]:
    """The levels from the cheapest to the dearest."""
    return sorted(levels, key=lambda one: one.cost)


def best_cheaper(level: Measured, levels: Sequence[Measured]) -> Measured | None:
    """The most accurate of the cheaper levels; the cheapest of those that are as accurate."""
    cheaper = [one for one in by_cost(levels) if one.cost < level.cost]
    return max(cheaper, key=lambda one: one.accuracy, default=None)


def frontier(levels: Sequence[Measured]) -> list[str]:
    """The levels that are more accurate than every cheaper one, by cost."""
    found: list[Measured] = []
    for one in by_cost(levels):
        if not found or one.accuracy > found[-1].accuracy:
            found.append(one)
    return [one.level for one in found]


def decide(levels: Sequence[Measured], gain: Gains, terms: Terms, *, once: Sequence[str] = ()) -> Verdict:
    """The verdict.

    Args:
        levels: what was measured; at least one.
        gain: what the level first named gains over the other.
        terms: the user's.
        once: the levels that were trained with one seed only.
    """
    broken = {one.level: terms.broken_by(one) for one in levels}
    fitting = [one for one in by_cost(levels) if not broken[one.level]]
    if not fitting:
        reasons = "; ".join(f"{one.level}: {', '.join(broken[one.level])}" for one in by_cost(levels))
        return Verdict(None, f"No level keeps your terms ({reasons}).")

    def better(on: Measured) -> Measured | None:
        """The cheapest of the dearer levels that improve on one."""
        for other in fitting[fitting.index(on) + 1 :]:
            found = gain(other.level, on.level)
            if found.detectable and found.expected[0] >= terms.worth:
                return other
        return None

    chosen = next(one for one in fitting if better(one) is None)
    below, above = best_cheaper(chosen, fitting), fitting[fitting.index(chosen) + 1 :]
    if below is not None:
        parts = [_why(chosen, below, better(below), gain)]
    elif above:
        parts = [f"Stay with {chosen.level}"]
    else:
        alone = "keeps your terms" if any(broken.values()) else "was trained"
        parts = [f"Take {chosen.level}, the only one that {alone}"]
    if above:
        best = max(above, key=lambda one: one.accuracy)
        parts.append(_why_not(gain(best.level, chosen.level), best, chosen, terms))
    if any(broken.values()):
        parts.append(f"your terms leave out {listed([one.level for one in by_cost(levels) if broken[one.level]])}")
    if once and len(levels) > 1:
        was, their = ("was", "its") if len(once) == 1 else ("were", "their")
        parts.append(f"{listed(once)} {was} trained once, so the luck of a training is in {their} numbers")
    return Verdict(chosen.level, "; ".join(parts) + ".")


def _why(chosen: Measured, below: Measured, better: Measured | None, gain: Gains) -> str:
    """What the chosen level gains over the best cheaper one or, where only another one shows a gain, which."""
    if better is None or better is chosen:
        gained = gain_words(gain(chosen.level, below.level), below.level)
        return f"Take {chosen.level}: {gained} for {dearer_words(chosen, below)}"
    return (
        f"Take {chosen.level}: {better.level} gains {gain_words(gain(better.level, below.level), below.level)}, but "
        f"nothing detectable and worthwhile over {chosen.level}, which is cheaper"
    )


def _why_not(found: Gain, dearer: Measured, chosen: Measured, terms: Terms) -> str:
    points = f"{found.expected[0]:+.1f} points, {_interval(found)}"
    if found.detectable:
        return (
            f"{dearer.level} gains less than the {terms.worth:g} points that you want ({points}) for "
            f"{dearer_words(dearer, chosen)}"
        )
    if found.worse:
        return f"{dearer.level} is worse ({points})"
    return f"no detectable difference from {dearer.level} ({points}) for {dearer_words(dearer, chosen)}"


def gain_words(found: Gain, over: str) -> str:
    """A gain as people read it.

    >>> gain_words(Gain(3.1, 2.0, 4.2, 0.0001), "tfidf")
    '+3.1 points over tfidf (95% interval 2.0 to 4.2, McNemar p < 0.001)'
    >>> gain_words(Gain(3.1, 2.0, 4.2, 0.0001, (2.9, 1.6, 4.2)), "tfidf")
    '+2.9 points over tfidf (95% interval 1.6 to 4.2 over rows and seeds, McNemar p < 0.001)'
    """
    return f"{found.expected[0]:+.1f} points over {over} ({_interval(found)})"


def _interval(found: Gain) -> str:
    p = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
    _, low, high = found.expected
    return f"95% interval {low:.1f} to {high:.1f}{'' if found.seeds is None else ' over rows and seeds'}, McNemar {p}"


def dearer_words(dearer: Measured, cheaper: Measured) -> str:
    """How much more one text costs.

    >>> a, b = Measured("a", 0.9, 12.0, 60, 1), Measured("b", 0.8, 0.3, 2, 1)
    >>> dearer_words(a, b)
    '40 times the latency (12 ms a text instead of 0.3 ms)'
    """
    ratio = dearer.predict_ms_p50 / cheaper.predict_ms_p50
    much = f"{short(ratio)} times the latency" if round(ratio, 1) > 1 else "the same latency"
    return f"{much} ({short(dearer.predict_ms_p50)} ms a text instead of {short(cheaper.predict_ms_p50)} ms)"
