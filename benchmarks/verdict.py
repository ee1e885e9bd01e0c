"""Does the verdict keep its promises? Error rates, coverage and power by simulation, then on real rows.

    python benchmarks/verdict.py equal            # levels that are equal in truth
    python benchmarks/verdict.py real [--draws 200] [--rows 300 1000]

`equal` invents which rows each level predicts correctly, so that all levels are equally good in truth, and counts how
often a more expensive one is recommended. `real` draws rows from IMDb's 25,000 training rows again and again, fits two
TF-IDF recipes on a split of them and on five folds, and compares what the rows say with the truth, which is the gain on
IMDb's 25,000 test rows.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textladder import Terms, read_texts
from textladder.comparison.verdict import Candidate, decide
from textladder.significance import Gain, paired_gain

IMDB = Path(__file__).parents[2] / "shared" / "data" / "imdb"


def equal_levels(levels: int, rows: int, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Which rows each training of each level predicts correctly, bool (levels, seeds, rows); equal in truth.

    Like those of real classifiers, the mistakes of all levels, and even more those of one level's trainings, are partly
    on the same rows.
    """
    difficulty = rng.random(rows)
    of_level = np.where(rng.random((levels, rows)) < 0.7, difficulty, rng.random((levels, rows)))
    of_training = rng.random((levels, seeds, rows))
    same = rng.random((levels, seeds, rows)) < 0.8
    accuracies = 0.85 + 0.005 * rng.standard_normal((levels, seeds, 1))  # run-to-run noise
    correct: np.ndarray = np.where(same, of_level[:, None], of_training) < accuracies
    return correct


def recommends_expensive(correct: np.ndarray) -> bool:
    """Whether a more expensive level than the cheapest is recommended."""
    levels = [Candidate(str(number), float(one.mean()), 1.0 + number, 1.0, 1.0) for number, one in enumerate(correct)]

    def gain(one: str, other: str) -> Gain:
        return paired_gain(correct[int(one)], correct[int(other)], comparisons=len(levels) - 1)

    return decide(levels, gain, Terms()).recommended != "0"


def simulate_equal(draws: int) -> None:
    print("| equal levels | test rows | seeds | a more expensive one is recommended |")
    print("|---|---|---|---|", flush=True)
    for levels in (2, 3, 6, 10):
        for rows, seeds in ((60, 1), (200, 1), (200, 3), (2_000, 3)):
            rng = np.random.default_rng(0)
            found = [recommends_expensive(equal_levels(levels, rows, seeds, rng)) for _ in range(draws)]
            print(f"| {levels} | {rows:,} | {seeds} | {np.mean(found):.1%} |", flush=True)


class Features(NamedTuple):
    """The counts of the words of some texts, sparse (texts, words), and their classes."""

    counts: Any
    label_ids: np.ndarray

    def take(self, rows: np.ndarray) -> "Features":
        return Features(self.counts[rows], self.label_ids[rows])


def read_features() -> tuple[Features, Features]:
    """IMDb's training and test rows."""
    from sklearn.feature_extraction.text import HashingVectorizer

    data = read_texts(IMDB / "train.csv.gz", test=IMDB / "test.csv.gz", valid=0.0)
    vectorizer = HashingVectorizer(norm=None, alternate_sign=False, n_features=2**17)
    train, test = (Features(vectorizer.transform(part), part.label_ids) for part in (data.train, data.test))
    return train, test


def correct_rows(recipe: str, train: Features, *tests: Features) -> list[np.ndarray]:
    """Which rows are predicted correctly after training with a recipe, bool (rows,) for each of `tests`."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    weights = TfidfTransformer(sublinear_tf=True, use_idf=recipe == "TF-IDF")
    model = make_pipeline(weights, LogisticRegression(C=10.0, max_iter=200))
    model.fit(train.counts, train.label_ids)
    return [model.predict(one.counts) == one.label_ids for one in tests]


RECIPES = ("TF-IDF", "TF")  # the first is about 3 points better with 300 and with 1,000 rows


class Draw(NamedTuple):
    """One draw of rows: the truth, and what one split and five folds say about the gain of the first recipe.

    Attributes:
        truth: gain in points on the 25,000 test rows, trained on the draw's training part.
        split: the gain on the fifth that was held out.
        whole: as `truth`, trained on all rows of the draw.
        pooled: the gain on all rows, each predicted by the classifier that did not see it, as if all had been predicted
            by the same one.
        folds: the same, with run-to-run noise in its interval.
        by_fold: gain in points on each fold.
    """

    truth: float
    split: Gain
    whole: float
    pooled: Gain
    folds: Gain
    by_fold: np.ndarray


def draws(train: Features, test: Features, rows: int, number: int) -> Iterator[Draw]:
    from sklearn.model_selection import StratifiedKFold

    for seed in range(number):
        rng = np.random.default_rng(seed)
        drawn = train.take(rng.choice(len(train.label_ids), rows, replace=False))
        correct: list[np.ndarray] = []
        folds = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(drawn.label_ids, drawn.label_ids))
        held_out, truths, wholes = [], [], []
        number_of = np.zeros(rows, np.int64)
        for recipe in RECIPES:
            pooled, by_fold = np.zeros(rows, bool), []
            for number_of_fold, (rest, held) in enumerate(folds):
                tests = [drawn.take(held), *([test] if number_of_fold == 0 else [])]
                right, *on_test = correct_rows(recipe, drawn.take(rest), *tests)
                pooled[held], number_of[held] = right, number_of_fold
                by_fold.append(right)
                truths += [one.mean() for one in on_test]
            correct.append(pooled)
            held_out.append(by_fold)
            wholes.append(correct_rows(recipe, drawn, test)[0].mean())
        one, other = held_out
        yield Draw(
            100 * float(truths[0] - truths[1]),
            paired_gain(one[0][None], other[0][None]),
            100 * float(wholes[0] - wholes[1]),
            paired_gain(correct[0][None], correct[1][None]),
            paired_gain(correct[0][None], correct[1][None], folds=number_of),
            100 * np.array([a.mean() - b.mean() for a, b in zip(one, other, strict=True)]),
        )


def corrected_interval(by_fold: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean gain over folds (Nadeau & Bengio 2003, section 3: the corrected resampled t-test)."""
    from scipy.stats import t

    folds = len(by_fold)
    spread = np.sqrt((1 / folds + 1 / (folds - 1)) * by_fold.var(ddof=1))
    half = t.ppf(0.975, folds - 1) * spread
    return float(by_fold.mean() - half), float(by_fold.mean() + half)


def detected_share(found: list[Gain]) -> float:
    return float(np.mean([one.detectable for one in found]))


def stated_power(found: list[Gain], truth: float) -> float:
    """The mean probability to detect a true gain, from the standard errors that the gains state."""
    normal = statistics.NormalDist()
    detecting = normal.inv_cdf(0.975)
    errors = [one.smallest / (detecting + normal.inv_cdf(0.8)) for one in found]
    return statistics.fmean(1 - normal.cdf(detecting - truth / error) for error in errors)


def measure_real(number: int, sizes: list[int]) -> None:
    train, test = read_features()
    for rows in sizes:
        found = list(draws(train, test, rows, number))
        print(f"{rows:,} rows, {number} draws; gain of TF-IDF over TF, points:")
        for name, gains, truths in (
            ("one split", [one.split for one in found], [one.truth for one in found]),
            ("five folds, pooled", [one.pooled for one in found], [one.whole for one in found]),
            ("five folds", [one.folds for one in found], [one.whole for one in found]),
        ):
            mean = statistics.fmean(truths)
            of_own = np.mean([one.low <= truth <= one.high for one, truth in zip(gains, truths, strict=True)])
            of_mean = np.mean([one.low <= mean <= one.high for one in gains])
            width = statistics.fmean(one.high - one.low for one in gains)
            print(
                f"- {name}: truth {mean:+.2f} (varies by {statistics.stdev(truths):.2f}), estimates "
                f"{statistics.fmean(one.points for one in gains):+.2f} (vary by "
                f"{statistics.stdev([one.points for one in gains]):.2f}); the interval, {width:.1f} wide, covers the "
                f"draw's own truth in {of_own:.1%}, the mean truth in {of_mean:.1%}; detected in "
                f"{detected_share(gains):.1%}, stated power {stated_power(gains, mean):.1%}",
                flush=True,
            )
        mean = statistics.fmean(one.whole for one in found)
        corrected = [corrected_interval(one.by_fold) for one in found]
        covered = np.mean([low <= mean <= high for low, high in corrected])
        width = statistics.fmean(high - low for low, high in corrected)
        print(f"- five folds, Nadeau and Bengio's interval, {width:.1f} wide, covers the mean truth in {covered:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("equal", "real"))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 1_000])
    options = parser.parse_args()
    if options.what == "equal":
        simulate_equal(options.draws)
    else:
        measure_real(options.draws, options.rows)


if __name__ == "__main__":
    main()
