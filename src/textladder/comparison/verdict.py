"""The verdict: which level is worth using, by arithmetic, in one sentence.

Cost is the median latency of one text, ties broken by fit time. The recommended level is the cheapest one that no more
expensive one improves on by a detectable and worthwhile gain, among the levels that meet the user's terms. If that is
the cheapest of all and another may still gain what is worthwhile, the rows cannot tell yet. Nothing here knows how
levels are trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from textladder.significance import POINTS, Gain, Unit
from textladder.wording import listed, p_value_words, rough, short

TAKE, STAY, CANNOT_TELL, NONE = "take", "stay", "cannot tell", "none"  # decisions
COST_DIGITS = 2  # latencies that agree to this many significant digits count as equal


@dataclass(frozen=True)
class Terms:
    """What the user demands of the recommended level.

    Attributes:
        worth: what a more expensive level must gain, in percentage points or in the unit of the costs; by default 1
            point, or a hundredth of the mean cost of a mistake.
        max_latency_ms: maximum median latency of one text.
        max_size_mb: maximum size of the bundle.
        max_fit_minutes: maximum duration of one training run.
    """

    worth: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    max_fit_minutes: float | None = None

    def broken_by(self, level: "Candidate") -> list[str]:
        """The limits that a level exceeds, in words."""
        limits = (
            ("latency", self.max_latency_ms, level.predict_ms_p50, "ms"),
            ("size", self.max_size_mb, level.bundle_mb, "MB"),
            ("fit time", self.max_fit_minutes, level.fit_seconds / 60, "min"),
        )
        return [
            f"{name} {found:.3g} {unit}, limit {limit:g} {unit}"
            for name, limit, found, unit in limits
            if limit is not None and found > limit
        ]


@dataclass(frozen=True)
class Candidate:
    """A level that may be recommended: how good and how expensive it is.

    Attributes:
        level: its name.
        score: accuracy or another metric on the test rows, higher for better.
        predict_ms_p50: median latency of one text in milliseconds.
        fit_seconds: duration of one training run.
        bundle_mb: size of the saved classifier.
    """

    level: str
    score: float
    predict_ms_p50: float
    fit_seconds: float
    bundle_mb: float

    @property
    def cost(self) -> tuple[float, float]:
        """The sort key of levels: latency to two significant digits, then fit time."""
        return float(f"{self.predict_ms_p50:.{COST_DIGITS}g}"), self.fit_seconds


@dataclass(frozen=True)
class Verdict:
    """What to do and why.

    Attributes:
        recommended: name of the level to take, for the time being if these rows cannot tell; None if none is within the
            terms.
        sentence: the reason.
        decision: `take`, if it is better than the cheapest level by a detectable and worthwhile gain or there is
            no choice; `stay`, if it is the cheapest level and none gains what is worthwhile; `cannot tell`, if it is
            the cheapest and another one may; `none`.
        smallest_gain: the smallest gain over it, in points, that these rows would have shown with a power of 80%; None
            if there is no more expensive level.
        rows_to_settle: how many more test rows would show whether a more expensive level gains what is worthwhile, with
            a power of 80%; None if that is known already, or if no affordable number would.
    """

    recommended: str | None
    sentence: str
    decision: str
    smallest_gain: float | None = None
    rows_to_settle: int | None = None


Gains = Callable[[str, str], Gain]  # the gain of the level named first over the one named second


def by_cost(levels: Sequence[Candidate]) -> list[Candidate]:
    """The levels from the cheapest to the most expensive."""
    return sorted(levels, key=lambda one: one.cost)


def best_cheaper(level: Candidate, levels: Sequence[Candidate]) -> Candidate | None:
    """The best of the cheaper levels, or the cheapest of equally good ones; None for the cheapest."""
    cheaper = [one for one in by_cost(levels) if one.cost < level.cost]
    return max(cheaper, key=lambda one: one.score, default=None)


def frontier(levels: Sequence[Candidate]) -> list[str]:
    """The levels that are better than every cheaper one, by cost."""
    found: list[Candidate] = []
    for one in by_cost(levels):
        if not found or one.score > found[-1].score:
            found.append(one)
    return [one.level for one in found]


def decide(
    levels: Sequence[Candidate],
    gain: Gains,
    terms: Terms,
    *,
    unit: Unit = POINTS,
    trained_once: Sequence[str] = (),
) -> Verdict:
    """Recommend a level.

    Args:
        levels: at least one.
        gain: the gain of the level named first over the other.
        terms: the user's.
        unit: of the gains.
        trained_once: the levels that were trained with a single seed.

    Returns:
        The recommended level, None if no level meets the terms, and the reason.
    """
    worth = unit.worth if terms.worth is None else terms.worth
    broken = {one.level: reasons for one in by_cost(levels) if (reasons := terms.broken_by(one))}
    eligible = [one for one in by_cost(levels) if one.level not in broken]
    if not eligible:
        excess = "; ".join(f"{level}: {', '.join(limits)}" for level, limits in broken.items())
        return Verdict(None, f"No level meets your terms ({excess}).", NONE)
    chosen = next(one for one in eligible if _improvement(one, eligible, gain, worth) is None)
    above = eligible[eligible.index(chosen) + 1 :]
    over_chosen = {one.level: gain(one.level, chosen.level) for one in above}
    open_levels = [one for one in above if over_chosen[one.level].expected[2] >= worth]
    decision = TAKE if chosen is not eligible[0] or not above else CANNOT_TELL if open_levels else STAY
    smallest = max((one.smallest for one in over_chosen.values()), default=None)
    more = [over_chosen[one.level].rows_to_settle(worth) for one in open_levels]
    rows = max((one for one in more if one is not None), default=None) if None not in more else None
    if len(eligible) == 1:
        parts = [f"Take {chosen.level}, the only level {'within your terms' if broken else 'trained'}"]
    elif decision == CANNOT_TELL:
        parts = _cannot_tell(chosen, open_levels, over_chosen, rows)
    else:
        parts = [_why(chosen, eligible, gain, worth)]
        if above:
            best = max(open_levels or above, key=lambda one: over_chosen[one.level].expected[2])
            parts.append(_why_not(over_chosen[best.level], best, chosen, worth))
    if broken:
        parts.append(f"your terms rule out {listed(list(broken))}")
    if trained_once and len(levels) > 1:
        noise = "its run-to-run noise" if len(trained_once) == 1 else "run-to-run noise"
        were = "was" if len(trained_once) == 1 else "were each"
        parts.append(f"{listed(trained_once)} {were} trained once, so {noise} is not accounted for")
    return Verdict(chosen.level, "; ".join(parts) + ".", decision, smallest, rows)


def _improvement(level: Candidate, eligible: Sequence[Candidate], gain: Gains, worth: float) -> Candidate | None:
    """The cheapest of the more expensive levels whose gain over `level` is detectable and worthwhile."""
    for other in eligible[eligible.index(level) + 1 :]:
        found = gain(other.level, level.level)
        if found.detectable and found.expected[0] >= worth:
            return other
    return None


def _cannot_tell(
    chosen: Candidate, open_levels: Sequence[Candidate], gains: Mapping[str, Gain], rows: int | None
) -> list[str]:
    """Which levels may be worth it, what is lost at most without them, and how many rows would show it.

    Args:
        chosen: the cheapest level.
        open_levels: those whose gain over it may be worthwhile.
        gains: the gain of each level over it.
        rows: how many more rows would settle the question.
    """
    first, *others = sorted(open_levels, key=lambda one: -gains[one.level].expected[2])
    found = gains[first.level]
    parts = [
        f"These rows cannot tell whether {first.level} is worth it: {gain_words(found, chosen.level)} at "
        f"{cost_words(first, chosen)}"
    ]
    if others:
        parts.append(f"nor whether {listed([one.level for one in others], 'or')} is")
    parts.append(f"take {chosen.level} for now, and lose at most {found.unit.words(found.expected[2])}")
    more = "more rows alone would hardly settle it" if rows is None else f"about {rough(rows)} more would settle it"
    shown = f"a gain of {found.unit.words(found.smallest)} four times out of five"
    parts.append(f"{found.rows:,} test rows would show {shown}; {more}")
    return parts


def _why(chosen: Candidate, eligible: Sequence[Candidate], gain: Gains, worth: float) -> str:
    """The gain of the chosen level over the best cheaper one or, if only another level's is detectable, that one's."""
    below = best_cheaper(chosen, eligible)
    if below is None:
        return f"Stay with {chosen.level}"
    better = _improvement(below, eligible, gain, worth)
    if better is None or better is chosen:
        gained = gain_words(gain(chosen.level, below.level), below.level)
        return f"Take {chosen.level}: {gained} at {cost_words(chosen, below)}"
    return (
        f"Take {chosen.level}: {better.level} gains {gain_words(gain(better.level, below.level), below.level)}, but "
        f"nothing detectable and worthwhile over the cheaper {chosen.level}"
    )


def _why_not(found: Gain, candidate: Candidate, chosen: Candidate, worth: float) -> str:
    """Why a more expensive level is not recommended."""
    points = f"{found.unit.words(found.expected[0], '+')}, {_interval_words(found)}"
    if found.worse:
        return f"{candidate.level} is worse ({points})"
    asked, cost = found.unit.asked(worth), cost_words(candidate, chosen)
    if found.expected[2] >= worth:
        return f"these rows cannot tell whether {candidate.level} gains {asked} or more ({points}) at {cost}"
    gained = "is no better" if found.expected[0] <= 0 else f"gains less than {asked}"
    return f"{candidate.level} {gained} ({points}) at {cost}"


def gain_words(found: Gain, over: str) -> str:
    """A gain with its interval and p-value.

    >>> gain_words(Gain(3.1, 2.0, 4.2, 0.0001), "tfidf")
    '+3.1 points over tfidf (95% interval 2.0 to 4.2, p < 0.001)'
    >>> gain_words(Gain(3.1, 2.0, 4.2, 0.01, (2.9, 1.6, 4.2), comparisons=3), "tfidf")
    '+2.9 points over tfidf (95% interval 1.6 to 4.2 over rows and seeds, p = 0.030 for 3 comparisons)'
    """
    return f"{found.unit.words(found.expected[0], '+')} over {over} ({_interval_words(found)})"


def _interval_words(found: Gain) -> str:
    _, low, high = found.expected
    over = "" if found.seeds is None else " over rows and seeds"
    compared = f" for {found.comparisons} comparisons" if found.comparisons > 1 else ""
    ends = f"{found.unit.number(low)} to {found.unit.number(high)}"
    return f"95% interval {ends}{over}, {p_value_words(found.adjusted_p_value)}{compared}"


def cost_words(expensive: Candidate, cheap: Candidate) -> str:
    """The latency of one level compared with a cheaper one's.

    >>> a, b = Candidate("a", 0.9, 12.0, 60, 1), Candidate("b", 0.8, 0.3, 2, 1)
    >>> cost_words(a, b)
    '40 times the latency (12 ms per text instead of 0.3 ms)'
    """
    ratio = expensive.predict_ms_p50 / cheap.predict_ms_p50
    per_text = f"{short(expensive.predict_ms_p50)} ms per text"
    if round(ratio, 1) <= 1:
        return f"the same latency ({per_text})"
    return f"{short(ratio)} times the latency ({per_text} instead of {short(cheap.predict_ms_p50)} ms)"
