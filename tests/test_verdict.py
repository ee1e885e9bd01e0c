"""The arithmetic of the verdict on invented figures."""

import pytest

from textladder.comparison.verdict import Candidate, Gains, Terms, best_cheaper, decide, frontier
from textladder.significance import Gain

TFIDF = Candidate("tfidf", 0.88, 0.3, 1.5, 0.4)
LSTM = Candidate("lstm", 0.905, 2.4, 43, 12)
ULMFIT = Candidate("ulmfit", 0.909, 20, 1100, 50)
TRANSFORMER = Candidate("transformer", 0.931, 12, 630, 92)
ALL = [TFIDF, LSTM, ULMFIT, TRANSFORMER]


def gains(**points: float) -> Gains:
    """Gains computed from the levels' accuracies; detectable above one and a half points."""

    def gain(one: str, other: str) -> Gain:
        accuracy = {level.level: 100 * level.score for level in ALL} | points
        found = accuracy[one] - accuracy[other]
        p_value = 0.0001 if found > 1.5 else 0.03 if found < -1.5 else 0.3
        return Gain(found, found - 1.5, found + 1.5, p_value, rows=2000, row_error=1.5 / 1.96)

    return gain


def test_the_cheapest_level_that_none_improves_on_is_recommended() -> None:
    verdict = decide(ALL, gains(), Terms())
    assert (verdict.recommended, verdict.decision) == ("transformer", "take")
    assert verdict.sentence.startswith(
        "Take transformer: +2.6 points over lstm (95% interval 1.1 to 4.1, p < 0.001) at 5 times the latency "
        "(12 ms per text instead of 2.4 ms); ulmfit is worse (-2.2 points, 95% interval -3.7 to -0.7, p = 0.030)"
    )
    assert "trained once" not in verdict.sentence
    once = decide(ALL, gains(), Terms(), trained_once=["ulmfit", "transformer"]).sentence
    assert once.endswith("; ulmfit and transformer were each trained once, so run-to-run noise is not accounted for.")
    single = decide(ALL, gains(), Terms(), trained_once=["ulmfit"]).sentence
    assert single.endswith("; ulmfit was trained once, so its run-to-run noise is not accounted for.")


def test_a_gain_must_be_worth_it() -> None:
    verdict = decide(ALL, gains(), Terms(worth=3.0))
    # the transformer gains 5.1 over tfidf and 2.6 over lstm, perhaps 4.1; lstm 2.5 over tfidf
    assert (verdict.recommended, verdict.decision) == ("lstm", "take")
    assert "; these rows cannot tell whether transformer gains 3 points or more (+2.6 points" in verdict.sentence
    sure = decide(ALL, gains(), Terms(worth=4.5))
    assert (sure.recommended, sure.decision) == ("lstm", "take")
    assert "transformer gains less than 4.5 points (+2.6 points" in sure.sentence
    nothing = decide(ALL, gains(), Terms(worth=7))
    assert (nothing.recommended, nothing.decision) == ("tfidf", "stay")
    assert nothing.sentence.startswith("Stay with tfidf; transformer gains less than 7 points (+5.1")
    assert nothing.rows_to_settle is None
    fewer = decide(ALL, gains(ulmfit=92.4), Terms())
    assert "; ulmfit is no better (-0.7 points, 95% interval -2.2 to 0.8, p = 0.300)" in fewer.sentence


def test_rows_that_cannot_tell() -> None:
    alike = gains(tfidf=90.0, lstm=91.0, ulmfit=90.5, transformer=91.2)
    close = [Candidate(one.level, 0.9, one.predict_ms_p50, one.fit_seconds, one.bundle_mb) for one in ALL]
    verdict = decide(close, alike, Terms())
    assert (verdict.recommended, verdict.decision) == ("tfidf", "cannot tell")
    # the most for ulmfit, which seems to gain half a point less than what is worthwhile
    assert verdict.rows_to_settle == pytest.approx(2000 * ((2.144 / 0.5) ** 2 - 1), rel=0.01)
    assert verdict.sentence == (
        "These rows cannot tell whether transformer is worth it: +1.2 points over tfidf (95% interval -0.3 to 2.7, "
        "p = 0.300) at 40 times the latency (12 ms per text instead of 0.3 ms); nor whether lstm or ulmfit is; take "
        "tfidf for now, and lose at most 2.7 points; 2,000 test rows would show a gain of 2.1 points four times out of "
        "five; about 35,000 more would settle it."
    )
    single = decide(close[:2], gains(tfidf=90.0, lstm=91.4), Terms())
    assert single.decision == "cannot tell"
    assert single.smallest_gain == pytest.approx(2.144, abs=0.01)
    assert single.rows_to_settle == pytest.approx(2000 * ((2.144 / 1.4) ** 2 - 1), rel=0.01)
    assert single.sentence.endswith("four times out of five; about 2,700 more would settle it.")
    too_close = decide(close[:2], gains(tfidf=90.0, lstm=90.99), Terms())
    assert too_close.rows_to_settle is None
    assert too_close.sentence.endswith("four times out of five; more rows alone would hardly settle it.")
    # so close that none gains a point
    sure = decide(close, lambda one, other: Gain(0.1, -0.4, 0.6, 0.7), Terms())
    assert (sure.recommended, sure.decision) == ("tfidf", "stay")
    # a better level is found, and whether the best of all is better still is open
    between = decide(ALL, gains(transformer=91.0), Terms())
    assert (between.recommended, between.decision) == ("lstm", "take")
    assert "; these rows cannot tell whether transformer gains 1 point or more (+0.5" in between.sentence
    assert between.rows_to_settle is not None


def test_terms() -> None:
    verdict = decide(ALL, gains(), Terms(max_latency_ms=5))
    assert verdict.recommended == "lstm"
    assert "your terms rule out transformer and ulmfit" in verdict.sentence
    assert decide([TFIDF, LSTM], gains(), Terms(max_size_mb=5)).sentence.startswith(
        "Take tfidf, the only level within your terms; your terms rule out lstm"
    )
    assert decide(ALL, gains(), Terms(max_size_mb=5)).recommended == "tfidf"
    assert decide(ALL, gains(), Terms(max_fit_minutes=1)).recommended == "lstm"
    nothing = decide(ALL, gains(), Terms(max_latency_ms=0.1))
    assert nothing.recommended is None
    assert nothing.sentence.startswith("No level meets your terms (tfidf: latency 0.3 ms, limit 0.1 ms; lstm:")


def test_the_interval_over_seeds_can_undo_a_gain() -> None:
    def gain(one: str, other: str) -> Gain:
        return Gain(3.0, 1.5, 4.5, 0.0001, (2.0, -0.5, 4.5))

    verdict = decide([TFIDF, LSTM], gain, Terms())
    assert verdict.recommended == "tfidf"
    assert verdict.decision == "cannot tell"
    assert "whether lstm is worth it: +2.0 points over tfidf (95% interval -0.5 to 4.5 over rows" in verdict.sentence
    # worse with the kept seeds, but not over all seeds
    worse = decide([TFIDF, LSTM], lambda one, other: Gain(-1.5, -2.5, -0.5, 0.01, (0.5, -1.5, 2.5)), Terms())
    assert "whether lstm is worth it: +0.5 points" in worse.sentence


def test_the_mean_over_seeds_decides_and_is_reported() -> None:
    less = decide([TFIDF, LSTM], lambda one, other: Gain(2.0, 1.0, 3.0, 0.001, (0.8, 0.1, 1.5)), Terms())
    assert less.recommended == "tfidf"
    assert "whether lstm is worth it: +0.8 points" in less.sentence
    more = decide([TFIDF, LSTM], lambda one, other: Gain(0.9, 0.1, 2.0, 0.01, (1.2, 0.2, 2.2)), Terms())
    assert more.sentence.startswith("Take lstm: +1.2 points over tfidf (95% interval 0.2 to 2.2 over rows and seeds")


def test_only_the_ends_of_the_ladder_differ() -> None:
    """lstm is not detectably better than tfidf, and the transformer, which is, not detectably better than lstm."""

    def gain(one: str, other: str) -> Gain:
        apart = {one, other} == {"tfidf", "transformer"}
        return Gain(2.0, 0.5, 3.5, 0.01) if apart else Gain(1.0, -0.5, 2.5, 0.2)

    verdict = decide([TFIDF, LSTM, TRANSFORMER], gain, Terms())
    assert verdict.recommended == "lstm"
    assert verdict.sentence.startswith(
        "Take lstm: transformer gains +2.0 points over tfidf (95% interval 0.5 to 3.5, p = 0.010), but nothing "
        "detectable and worthwhile over the cheaper lstm; these rows cannot tell whether transformer gains 1 point or "
    )


def test_one_level_alone() -> None:
    assert decide([LSTM], gains(), Terms()).sentence == "Take lstm, the only level trained."


def test_frontier_and_best_cheaper() -> None:
    assert frontier(ALL) == ["tfidf", "lstm", "transformer"]
    assert best_cheaper(ULMFIT, ALL) == TRANSFORMER
    assert best_cheaper(LSTM, ALL) == TFIDF
    assert best_cheaper(TFIDF, ALL) is None


def test_equal_latencies_are_not_compared() -> None:
    slower = Candidate("slower", 0.93, 2.44, 50, 12)
    sentence = decide([LSTM, slower], lambda one, other: Gain(2.5, 1.0, 4.0, 0.001), Terms()).sentence
    assert sentence.startswith("Take slower: +2.5 points over lstm (95% interval 1.0 to 4.0, p = 0.001) at the same")
    assert "at the same latency (2.4 ms per text)" in sentence


def test_equal_latency_is_decided_by_fit_time() -> None:
    slow, quick = Candidate("a", 0.9, 2.04, 100, 1), Candidate("b", 0.9, 2.02, 1, 1)
    assert [one.level for one in sorted([slow, quick], key=lambda one: one.cost)] == ["b", "a"]


@pytest.mark.parametrize("worth", [-5.0, 0.0])
def test_a_worse_level_is_never_recommended_for_being_worth_little(worth: float) -> None:
    assert decide([TFIDF, LSTM], lambda one, other: Gain(-1.0, -2.0, -0.1, 0.04), Terms(worth)).recommended == "tfidf"
