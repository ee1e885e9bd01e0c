"""Folds: what is in each of them, and a comparison that tests every row once."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from textladder import Comparison, TextClassifier, TextData, compare, read_texts
from textladder.comparison.folds import Folds
from textladder.comparison.plan import Plan
from textladder.comparison.trainings import CrossValidated
from textladder.errors import ConfigError
from textladder.progress import Monitor
from textladder.significance import paired_gain

PLAIN = ["kettle", "lamp", "cable", "toy", "book", "zip", "box", "handle", "day", "year", "price", "colour"]
LENGTH = 25  # words


def reviews(rows: int) -> pd.DataFrame:
    """Texts of three classes, the last of them rare, whose words mostly predict the label; every fifth is repeated."""
    rng, made = random.Random(3), list[dict[str, str]]()
    for number in range(rows):
        label = rng.choices(["good", "bad", "odd"], [5, 4, 1])[0]
        words = [label if rng.random() < 0.06 else rng.choice(PLAIN) for _ in range(LENGTH)]
        made.append({"label": label, "text": " ".join([*words, str(number)])})
        if number % 5 == 4:
            made.append({"label": label, "text": " ".join([*words, "again", str(number)])})
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def data() -> TextData:
    return read_texts(reviews(200), seed=1)


class Sentences(Monitor):
    def __init__(self) -> None:
        self.said = list[str]()

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_every_row_is_tested_once_and_repeated_texts_are_in_the_same_fold(data: TextData) -> None:
    folds = Folds(data, 4, 0, Monitor())
    parts = [folds.part(fold) for fold in range(4)]
    assert sorted(row for part in parts for row in part.test.rows.tolist()) == list(range(240))
    for part in parts:
        assert part.valid is not None
        rows = [*part.train.rows, *part.valid.rows, *part.test.rows]
        assert sorted(rows) == list(range(240))
        assert 0.09 < len(part.valid) / (len(part.train) + len(part.valid)) < 0.11
        shares = np.bincount(part.test.label_ids) / np.bincount(folds.rows.label_ids)
        assert shares == pytest.approx(np.full(3, 0.25), abs=0.13)
        assert set(part.train.label_ids) == set(part.valid.label_ids) == {0, 1, 2}
        assert sorted(part.test.rows.tolist()) == part.test.rows.tolist()
    texts = list(folds.rows)
    first = {" ".join(text.split()[:LENGTH]): fold for text, fold in zip(texts, folds.fold_of_row, strict=True)}
    assert [first[" ".join(text.split()[:LENGTH])] for text in texts] == folds.fold_of_row.tolist()
    finished = folds.finished()
    assert finished.valid is not None
    assert len(finished.train) + len(finished.valid) == len(finished.test) == 240
    assert finished.description.endswith("; 240 rows, each of them a test row in one of 4 folds.")
    assert Folds(data, 4, 0, Monitor()).fold_of_row.tolist() == folds.fold_of_row.tolist()
    assert Folds(data, 4, 1, Monitor()).fold_of_row.tolist() != folds.fold_of_row.tolist()


def test_each_class_can_be_trained_in_every_fold() -> None:
    """Even one whose rows all repeat one another."""
    rare = pd.DataFrame([{"label": "rare", "text": "the very same text of seven words"}] * 2)
    data = read_texts(pd.concat([reviews(60), rare]), valid=0.0)
    monitor = Sentences()
    folds = Folds(data, 3, 0, monitor)
    assert monitor.said == ["The smallest class has 2 rows, fewer than the 3 folds, so some folds test none of it."]
    for fold in range(3):
        part = folds.part(fold)
        assert part.valid is None
        assert set(part.train.label_ids) == set(range(4))


def test_rows_that_cannot_be_divided(data: TextData) -> None:
    separate = read_texts(reviews(50), test=reviews(20))
    with pytest.raises(ConfigError, match="cannot be divided into folds, because there are separate test rows"):
        compare(separate, ["tfidf"], folds=3)
    with pytest.raises(ConfigError, match="240 folds are too many: the largest class has"):
        compare(data, ["tfidf"], folds=240)
    few = pd.DataFrame([{"label": str(number % 40), "text": f"text {number}"} for number in range(120)])
    with pytest.raises(ConfigError, match="5 folds are too many: the largest class has 3 rows"):
        compare(read_texts(few), ["tfidf"], folds=5)
    same = pd.DataFrame({"label": ["a", "a", "a", "a", "a", "b"] * 4, "text": ["a text", *["another one"] * 5] * 4})
    with pytest.raises(ConfigError, match="5 folds are too many for 2 different texts"):
        compare(read_texts(same), ["tfidf"], folds=5)
    with pytest.raises(ConfigError, match="With folds there are no leaks to drop"):
        compare(data, ["tfidf"], folds=3, fix="drop-leaks")
    with pytest.raises(ConfigError, match="at least 1; received 0"):
        compare(data, ["tfidf"], folds=0)
    with pytest.raises(ConfigError, match="give seeds or folds, not both"):
        compare(data, ["tfidf"], folds=3, seeds=2)


def test_few_rows_are_divided_by_default(data: TextData) -> None:
    """Unless the test rows are the user's own, or what was asked for is of one split."""

    def folds(rows: TextData = data, **options: Any) -> int:
        given = {"seeds": None, "folds": None, "time_budget": None} | options
        return Plan(rows, ["tfidf"], {}, given["seeds"], given["folds"], 0, False, given["time_budget"]).folds

    assert folds() == 5
    assert folds(folds=1) == folds(seeds=1) == folds(time_budget=60.0) == 1
    frame = pd.DataFrame({"label": ["a", "b"] * 1500, "text": [f"text {number}" for number in range(3000)]})
    assert folds(read_texts(frame)) == 1
    assert folds(read_texts(frame[:2998])) == 5
    assert folds(read_texts(frame[:200], test=frame[200:300])) == 1


def test_rows_that_cannot_be_divided_are_split_once(tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            said.append(sentence)

    same = pd.DataFrame({"label": ["a", "a", "a", "a", "a", "b"] * 4, "text": ["a text", *["another one"] * 5] * 4})
    results = compare(read_texts(same), ["tfidf"], out=tmp_path / "run", monitor=Listening()).as_dict()
    assert results["folds"] == 1
    assert "The rows are split once. 5 folds are too many for 2 different texts." in said


@pytest.fixture(scope="module")
def found(data: TextData, vectors_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    settings: dict[str, Any] = {
        "tfidf": {"characters": 0},
        "lstm": {"vectors": str(vectors_file), "hidden_size": 8, "epochs": 2, "min_freq": 1},
    }
    out = tmp_path_factory.mktemp("compared") / "run"
    return compare(data, ["tfidf", "lstm"], settings=settings, folds=2, learning_curve=True, out=out)


@pytest.mark.slow
def test_a_comparison_with_folds(found: Comparison, data: TextData) -> None:
    results = json.loads((found.folder / "results.json").read_text())
    assert results["folds"] == 2
    assert results["rows"]["train"] + results["rows"]["valid"] == results["rows"]["test"] == 240
    numbers = Folds(data, 2, 0, Monitor()).fold_of_row
    right = {}
    for level in found.levels:
        (training,) = level.trainings
        assert isinstance(training, CrossValidated)
        assert not level.trained_once
        tables = [
            pq.read_table(found.folder / f"{level.level}-{fold}-fold-{fold}" / "predictions.parquet").to_pandas()
            for fold in (0, 1)
        ]
        tested = pd.concat([one[one["part"] == "test"] for one in tables]).sort_values("row")
        assert tested["row"].tolist() == list(range(240))
        right[level.level] = (tested["label"] == tested["predicted"]).to_numpy()
        assert level.test.accuracy == right[level.level].mean()
        assert level.correct.tolist() == [right[level.level].tolist()]
        assert len(training.predictions("valid")[1]) == results["rows"]["valid"]
        probabilities, label_ids = training.predictions("test")
        assert (probabilities.shape, label_ids.tolist()) == ((240, 3), found.data.test.label_ids.tolist())
        own = pq.read_table(training.folder / "predictions.parquet")["part"].to_pylist()
        assert set(own) == {"valid"}  # it was trained on the test rows
        bundle = TextClassifier.load(training.bundle)
        assert bundle.record["train_rows"] + bundle.record["valid_rows"] == 240
        assert level.curve is not None
        assert level.curve.rows[-1] == level.runs[0].record["train_rows"]
        one = next(one for one in results["levels"] if one["level"] == level.level)
        # the finished classifier is exported; the folds' test rows are predicted by their original forms
        assert one["form"] == ("original" if level.level == "tfidf" else "onnx-int8")
        assert one["predict_ms_p50"] == one["forms"][one["form"]]["predict_ms_p50"]
        assert one["forms"]["original"]["accuracy"] == level.test.accuracy
        assert one["form"] == "original" or one["forms"][one["form"]]["accuracy"] is None
        assert [seed["seed"] for seed in one["seeds"]] == [0, 1]
        assert [seed["accuracy"] for seed in one["seeds"]] == [
            right[level.level][numbers == fold].mean() for fold in (0, 1)
        ]
    gain = found.gain("lstm", "tfidf")
    assert gain == paired_gain(right["lstm"][None], right["tfidf"][None], folds=numbers)
    assert gain.rows == 240
    assert "trained once" not in found.verdict
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "240 rows, each of them a test row in one of 2 folds" in page
    assert "trained once" not in page
    assert "one seed" not in (found.folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_comparison_with_folds_resumes(found: Comparison, data: TextData, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {one.level: found.as_dict()["levels"][place]["settings"] for place, one in enumerate(found.levels)}
    monkeypatch.setattr("textladder.comparison.trainings.WorkerProcess", None)  # nothing is trained again
    again = compare(data, ["tfidf", "lstm"], settings=plan, folds=2, learning_curve=True, out=found.folder)
    assert [one.test for one in again.levels] == [one.test for one in found.levels]
    assert again.verdict == found.verdict
    with pytest.raises(ConfigError, match="was trained on other rows, with other settings"):
        compare(data, ["tfidf"], settings={"tfidf": plan["tfidf"]}, folds=3, out=found.folder)


def test_the_luck_of_the_folds_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    folds = np.repeat(np.arange(5), 200)
    base = rng.random(1000) < 0.8
    steady = base ^ (rng.random(1000) < 0.1)
    lucky = np.where(rng.random(1000) < np.repeat([0.0, 0.05, 0.1, 0.15, 0.2], 200), True, base)
    plain = [paired_gain(one[None], base[None]) for one in (steady, lucky)]
    widened = [paired_gain(one[None], base[None], folds=folds) for one in (steady, lucky)]
    assert [one.points for one in plain] == [one.points for one in widened]
    widths = [(two.high - two.low) / (one.high - one.low) for one, two in zip(plain, widened, strict=True)]
    assert 0.97 < widths[0] < 1.3 < widths[1]
    assert widened[1].smallest > plain[1].smallest
    assert widened[1].p_value >= plain[1].p_value
    # by hand: the variance between the folds' gains beyond the one within them, times 1/5 + 1/4
    gains = [lucky[folds == fold].mean() - base[folds == fold].mean() for fold in range(5)]
    differences = lucky.astype(float) - base
    within = np.mean([differences[folds == fold].var(ddof=1) / 200 for fold in range(5)])
    expected = 100 * np.sqrt(max(0, np.var(gains, ddof=1) - within) * (1 / 5 + 1 / 4))
    assert widened[1].seed_error == pytest.approx(expected)
