"""Comparisons with real processes on small rows: what is measured, kept, resumed and shown."""

import html
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint

from textladder import Comparison, Terms, TextClassifier, compare, export_bundle, read_texts
from textladder.bundle import read_bundle
from textladder.cli import main
from textladder.comparison.budget import fit_estimate
from textladder.comparison.curve import Curve
from textladder.comparison.forms import Measuring
from textladder.comparison.hardware import peak_memory_mb
from textladder.comparison.label_errors import find_label_errors
from textladder.comparison.level_result import LevelResult, still_falling
from textladder.comparison.predictions import predictions_file
from textladder.comparison.report import _label_next
from textladder.comparison.report_charts import _place_labels
from textladder.comparison.report_texts import _shortened
from textladder.comparison.run_folder import locked_folder
from textladder.comparison.shared_rows import fewer_rows, read_shared_rows, source_rows, write_shared_rows
from textladder.comparison.trainings import Training, TrainingStore
from textladder.comparison.worker import Job, _by_length
from textladder.comparison.worker_process import WarmWorker, WorkerError
from textladder.cores import available_cores, threads_environment
from textladder.data.labelled_texts import TextData
from textladder.errors import ConfigError, TextladderError
from textladder.metrics import at_temperature, evaluate, temperature
from textladder.progress import Monitor
from textladder.significance import paired_gain
from textladder.target_metric import Accuracy, Score, find_metric

GOOD, BAD = ["fine", "strong", "lovely", "quick", "best", "warm"], ["poor", "weak", "ugly", "slow", "worst", "cold"]
PLAIN = ["kettle", "lamp", "cable", "toy", "book", "zip", "box", "handle", "day", "year", "price", "colour"]
SCRIPT = "<script>document.title='hurt'</script><img src=http://example.org/x.png>"


def reviews(rows: int, seed: int) -> pd.DataFrame:
    """Texts whose words predict the label most of the time."""
    rng = random.Random(seed)
    made = []
    for _ in range(rows):
        label = rng.choice(["good", "bad"])
        telling = GOOD if (label == "good") != (rng.random() < 0.15) else BAD
        words = [rng.choice(telling if rng.random() < 0.25 else PLAIN) for _ in range(12)]
        made.append({"label": label, "text": " ".join(words)})
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def data() -> TextData:
    test = reviews(150, 2)
    test.loc[0, "text"] = f"{SCRIPT} worst poor ugly"
    test.loc[0, "label"] = "good"
    return read_texts(reviews(400, 1), test=test)


@pytest.fixture(scope="module")
def settings(vectors_file: Path) -> dict[str, dict[str, Any]]:
    return {"lstm": {"vectors": str(vectors_file), "hidden_size": 8, "epochs": 2, "min_freq": 1}}


@pytest.fixture(scope="module")
def found(data: TextData, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    out = tmp_path_factory.mktemp("compared") / "run"
    return compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=out, command="textladder compare")


def test_the_numbers_of_each_level(found: Comparison, data: TextData) -> None:
    results = json.loads((found.folder / "results.json").read_text())
    assert results == json.loads(json.dumps(found.as_dict()))
    assert results["rows"] == {"train": 360, "valid": 40, "test": 150}
    assert [one["level"] for one in results["levels"]] == ["tfidf", "lstm"]
    tfidf, lstm = results["levels"]
    assert len(tfidf["seeds"]) == len(lstm["seeds"]) == results["seeds"] == 2
    assert tfidf["seed_spread"] == 0
    cheapest = min(results["levels"], key=lambda one: one["predict_ms_p50"])
    assert cheapest["gain_over_below"] is cheapest["gain_over_best_cheaper"] is None
    for one in results["levels"]:
        assert 0 < one["predict_ms_p50"] <= one["predict_ms_p95"]
        assert one["rows_per_second"] > 0
        assert one["bundle_mb"] > 0
        assert one["parameters"] > 0
        assert one["peak_memory_mb"] > 20
        assert one["test"]["accuracy"] > 0.6
        assert set(one["calibrated"]) == {"temperature", "ece", "log_loss"}
        bundle = TextClassifier.load(found.folder / one["bundle"])
        assert bundle.evaluate(data.test).accuracy == one["test"]["accuracy"]
        kept = max(one["seeds"], key=lambda seed: (seed["valid_accuracy"], -seed["seed"]))
        assert kept["accuracy"] == one["test"]["accuracy"]
    assert lstm["peak_memory_mb"] > tfidf["peak_memory_mb"]
    assert results["recommended"] in ("tfidf", "lstm")
    assert results["verdict"] == found.verdict
    assert found.verdict.endswith(".")
    assert results["decision"] in ("take", "stay", "cannot tell")
    assert (results["rows_to_settle"] is None) == (results["decision"] != "cannot tell")
    dearer = found.levels_by_cost[1]
    if results["recommended"] != dearer.level:
        assert results["smallest_gain"] == found.gain(dearer.level, results["recommended"]).smallest
    assert set(results["hardware"]) >= {"processor", "cores"}
    assert results["report"] == str(found.folder / "report.html")


class Told(Training):
    """A training run with predictions that are told."""

    def predictions(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The predictions that stand in its record."""
        return np.eye(2)[self.record["predicted"]], self.record["label_ids"]


def test_another_metric_changes_the_verdict(found: Comparison, tmp_path: Path) -> None:
    """The cheaper level overlooks the rare class, the dearer one finds it and raises false alarms."""
    rng = np.random.default_rng(0)
    label_ids = (np.arange(600) % 10 == 0).astype(np.int64)
    careful = np.where(rng.random(600) < 0.2, label_ids, 0)
    eager = np.where(label_ids == 1, rng.random(600) < 0.9, rng.random(600) < 0.15).astype(np.int64)
    costs = tmp_path / "costs.csv"
    costs.write_text("label,predicted,cost\nbad,good,0.5\ngood,bad,20\n", encoding="utf-8")
    unbalanced = replace(found.audit, classes={"bad": 540, "good": 60})

    def by(metric: str) -> Comparison:
        levels = []
        target = find_metric(metric, ["bad", "good"])
        for level, predicted, latency in zip(found.levels, (careful, eager), (1.0, 10.0), strict=True):
            record = {**level.kept.record, "predict_ms_p50": latency, "epochs": [], "valid_rows": 0}
            training = Told(level.kept.folder, {**record, "predicted": predicted, "label_ids": label_ids})
            levels.append(LevelResult(level.level, [training], metric=target))
        return replace(found, levels=levels, metric=target, audit=unbalanced)

    accuracy, macro_f1, cost = by("accuracy"), by("macro-f1"), by(f"costs:{costs}")
    assert (accuracy.recommended, macro_f1.recommended, cost.recommended) == ("tfidf", "lstm", "lstm")
    assert "the classes are unbalanced, and by macro F1 it would be lstm" in accuracy.verdict
    assert "the classes are unbalanced, and by accuracy it would be tfidf" in macro_f1.verdict
    expected = 100 * (f1_score(label_ids, eager, average="macro") - f1_score(label_ids, careful, average="macro"))
    assert macro_f1.gain("lstm", "tfidf").points == pytest.approx(expected)
    assert "points of macro F1 over tfidf" in macro_f1.verdict
    assert "saved per text over tfidf" in cost.verdict
    assert cost.as_dict()["terms"]["worth"] == cost.worth == pytest.approx(0.01 * 20.5 / 2)
    assert cost["tfidf"].score.value == pytest.approx(20 * (careful < label_ids).mean())
    assert "By macro F1, because the classes are unbalanced: tfidf " in accuracy.text_table()
    for one in (accuracy, macro_f1, cost):
        assert one.as_dict()["metric"] == one.metric.name
        assert all(len(line) <= 80 for line in one.text_table().splitlines())


@pytest.mark.slow
def test_a_comparison_by_macro_f1(data: TextData, settings: dict[str, Any], tmp_path: Path) -> None:
    options = {"settings": settings, "seeds": 1, "metric": "macro-f1", "learning_curve": True}
    results = compare(data, ["tfidf", "lstm"], **options, out=tmp_path / "run").as_dict()
    assert results["metric"] == "macro-f1"
    for one in results["levels"]:
        assert one["settings"]["metric"] == "macro-f1"
        assert one["score"]["value"] == pytest.approx(one["test"]["macro_f1"])
        assert one["learning_curve"]["points"][-1]["score"] == pytest.approx(one["test"]["macro_f1"])
        assert one["score"]["low"] < one["score"]["value"] < one["score"]["high"] <= 1
    with pytest.raises(ConfigError, match="with other settings"):
        compare(data, ["tfidf", "lstm"], **{**options, "metric": "log-loss"}, out=tmp_path / "run")


def test_a_metric_of_a_label_needs_test_rows_of_it(data: TextData) -> None:
    frame = pd.DataFrame({"label": ["a", "b", "c"] * 40, "text": [f"text number {one}" for one in range(120)]})
    rows = read_texts(frame, test=frame[frame["label"] != "c"])
    with pytest.raises(ConfigError, match="no test row with the label 'c', so F1 of c cannot be measured"):
        compare(rows, ["tfidf"], metric="f1:c")


@pytest.mark.parametrize("metric", ["nonsense", "f1:neither", "costs:nowhere.csv"])
def test_what_is_no_metric_is_refused_before_anything_is_done(data: TextData, tmp_path: Path, metric: str) -> None:
    with pytest.raises(ConfigError):
        compare(data, ["tfidf"], metric=metric, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_agree_with_other_libraries(found: Comparison) -> None:
    tables = {}
    for one in found.levels:
        table = pq.read_table(one.kept.folder / predictions_file(one.kept.form)).to_pandas()
        tables[one.level] = table[table["part"] == "test"].sort_values("row")
    right = {name: (table["label"] == table["predicted"]).to_numpy() for name, table in tables.items()}
    for name, one in right.items():
        test = found[name].test
        low, high = proportion_confint(one.sum(), len(one), method="wilson")
        assert (test.accuracy, test.accuracy_low, test.accuracy_high) == pytest.approx((one.mean(), low, high))
    gain = found.gain("lstm", "tfidf")
    a, b = right["lstm"], right["tfidf"]
    crossed = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    single = paired_gain(found["lstm"].kept.correct[None], found["tfidf"].kept.correct[None])
    # theirs is not the mid-p, which counts the table itself half
    itself = stats.binom.pmf(crossed[0][1], crossed[0][1] + crossed[1][0], 0.5)
    assert single.p_value == pytest.approx(their_mcnemar(crossed, exact=True).pvalue - itself)
    assert gain.points == pytest.approx(100 * (a.mean() - b.mean()))
    interval = stats.bootstrap(
        (a.astype(float), b.astype(float)), lambda x, y, axis: 100 * (x.mean(axis) - y.mean(axis)), paired=True,
        n_resamples=9999, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (gain.low, gain.high) == pytest.approx((interval.low, interval.high), abs=0.7)  # a row is 0.67 points


def test_predictions_keep_the_rows_of_the_source(found: Comparison, data: TextData) -> None:
    table = pq.read_table(found["tfidf"].kept.folder / "predictions.parquet").to_pandas()
    for part in ("test", "valid"):
        rows = getattr(data, part)
        assert table[table["part"] == part]["row"].tolist() == rows.rows.tolist()
        assert table[table["part"] == part]["label"].tolist() == [data.labels[one] for one in rows.label_ids]


def test_the_table_and_the_frontier(found: Comparison) -> None:
    table = found.table
    assert sorted(table.index) == ["lstm", "tfidf"]
    assert table["predict_ms_p50"].is_monotonic_increasing
    assert np.isnan(table["gain"].iloc[0])
    gain = found.gain(table.index[1], table.index[0])
    assert gain.seeds is not None
    # everywhere the gain that the verdict states: over the seeds
    assert tuple(table.iloc[1][["gain", "gain_low", "gain_high"]]) == gain.expected == gain.seeds
    points, interval = f"{gain.seeds[0]:+.1f}", f"({gain.seeds[1]:.1f} to {gain.seeds[2]:.1f})"
    assert f" {points} {interval} " in found.text_table()
    assert f"| {points} {interval} over {table.index[0]} |" in (found.folder / "report.md").read_text()
    assert f'>{points} <span class="soft">{interval}</span></td>' in (found.folder / "report.html").read_text()
    assert f">{points} {interval}, p" in (found.folder / "report.html").read_text()
    assert found.frontier[0] == table.index[0]
    text = found.text_table()
    assert max(map(len, text.splitlines())) <= 80
    assert sum(line.startswith(">") for line in text.splitlines()) == 1
    spreads = ", ".join(f"{one.level} {one.seed_spread:.1f}" for one in found.levels)
    assert f"Spread between runs: {spreads} points." in text.splitlines()
    assert found.recommended is not None
    by_class = found[found.recommended].by_class
    worst = sorted(zip(found.data.label_names, by_class, strict=True), key=lambda one: one[1].f1)
    words = ", ".join(f"'{name}' {one.f1:.3f}" for name, one in worst)
    assert text.splitlines()[-1] == f"F1 of the classes, {found.recommended}: {words}."
    name, one = worst[0]
    shown = f"{one.f1:.3f} ({one.f1_low:.3f} to {one.f1_high:.3f})"
    assert f"| {name} | {one.precision:.3f} | {one.recall:.3f} | {shown} |" in (found.folder / "report.md").read_text()
    once = replace(found, levels=[replace(one, trainings=one.trainings[:1]) for one in found.levels])
    assert "Spread" not in once.text_table()
    with pytest.raises(ConfigError, match="Unknown level 'lsmt'. Available: tfidf, lstm. Did you mean 'lstm'"):
        found["lsmt"]
    assert once.verdict.endswith("tfidf and lstm were each trained once, so run-to-run noise is not accounted for.")


def test_without_proc_and_resource_the_peak_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*args: Any, **options: Any) -> str:
        raise OSError

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(Path, "read_text", unreadable)
    assert peak_memory_mb() is None


def test_one_comparison_at_a_time(tmp_path: Path) -> None:
    with (
        locked_folder(tmp_path, {"train": "a"}, overwrite=False),
        pytest.raises(ConfigError, match="another process is writing this comparison; wait for it, or choose another"),
        locked_folder(tmp_path, {"train": "a"}, overwrite=False),
    ):
        pass
    with locked_folder(tmp_path, {"train": "a"}, overwrite=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]


def test_a_report_of_single_trainings(found: Comparison, tmp_path: Path) -> None:
    once = replace(found, levels=[replace(found["tfidf"], trainings=found["tfidf"].trainings[:1]), found["lstm"]])
    page = once.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "tfidf was trained once, so its run-to-run noise is not accounted for." in " ".join(page.split())
    assert re.search(r"Spread between runs: lstm \d+\.\d points \(2 seeds\)", page)


def test_an_unreported_peak_memory_is_shown_as_unknown(found: Comparison, tmp_path: Path) -> None:
    tfidf = found["tfidf"]
    trainings = [replace(one, record={**one.record, "peak_memory_mb": None}) for one in tfidf.trainings]
    unknown = replace(found, levels=[replace(tfidf, trainings=trainings)])
    assert unknown["tfidf"].peak_memory_mb is None
    assert "unknown" in unknown.report(tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_learning_curves_and_seeds_by_default(data: TextData, tmp_path: Path) -> None:
    found = compare(data, ["tfidf"], learning_curve=True, out=tmp_path / "run")
    one = found["tfidf"]
    assert [training.seed for training in one.trainings] == [0, 1, 2]  # a quick level
    assert one.curve is not None
    assert one.curve.rows == [45, 90, 180, 360]
    assert one.curve.scores[-1].value == one.trainings[0].correct.mean()
    assert one.curve.doubled is not None
    assert one.curve.doubled[1] <= one.curve.doubled[0] <= one.curve.doubled[2]
    more = 100 * (one.curve.doubled[0] - one.curve.scores[-1].value)
    assert f"; twice as many training rows would likely bring tfidf {more:+.1f} points (95% interval" in found.verdict


@pytest.mark.parametrize(("further", "word"), [(1.0, "more"), (-1.0, "less")])
def test_the_verdict_says_whether_more_rows_are_the_better_buy(found: Comparison, further: float, word: str) -> None:
    cheap, dear = found.levels_by_cost
    right = cheap.kept.correct
    better = right.copy()
    better[np.flatnonzero(~right)[:4]] = True
    gained = 100 * 4 / len(right)

    def verdict(correct: np.ndarray) -> str:
        doubled = 0.5 + (gained + further) / 100
        points = [Score(0.4, 0.3, 0.5), Score(0.5, 0.4, 0.6)]
        curve = Curve(Accuracy(), [50, 100], points, Score(doubled, doubled - 0.02, doubled + 0.03))
        both = replace(cheap, curve=curve, trainings=cheap.trainings[:1]), replace(dear, trainings=dear.trainings[:1])
        both[0].__dict__["contributions"], both[1].__dict__["contributions"] = right[None], correct[None]
        return replace(found, levels=both, terms=Terms(worth=100)).verdict

    more = (
        f"; twice as many training rows would likely bring {cheap.level} {gained + further:+.1f} points (95% interval "
        f"{gained + further - 2:.1f} to {gained + further + 3:.1f})"
    )
    assert verdict(better).endswith(f"{more}, {word} than {dear.level} does ({gained:+.1f}).")
    assert verdict(right).endswith(f"{more}.")  # no level gains anything


def test_the_report_is_self_contained_and_escapes_texts(found: Comparison) -> None:
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 2_000_000
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert re.findall(r"""(?:src|href)=[^ >]*|url\(|@import""", page.replace("&#34;", '"').partition("<body>")[0]) == [
        'href="data:,"'
    ]
    assert not re.search(r"<(script|img|link|iframe|object)", page.partition("<body>")[2])
    assert found.verdict.replace("'", "&#39;").replace("<", "&lt;") in page
    for heading in (
        "The classes",
        "The levels", "Accuracy and latency", "Confusion matrix", r"true \ predicted", "Data audit", "Calibration",
        "Where the levels disagree", "The hardest test rows", "Labels that look wrong",
        "How to reproduce this comparison",
    ):  # fmt: skip
        assert heading in page, heading
    text = (found.folder / "report.md").read_text(encoding="utf-8")
    assert found.verdict.replace("<", "&lt;") in text
    assert "| tfidf |" in text


def test_the_report_begins_with_plain_words(found: Comparison) -> None:
    page = " ".join((found.folder / "report.html").read_text(encoding="utf-8").split())
    scores = " and ".join(f"{one.level} {one.score.value:.3f}" for one in found.levels_by_cost)
    names = " and ".join(one.level for one in found.levels_by_cost)
    assert f"{names} learned from 400 texts and were tested on 150 others, in 2 classes. Accuracy: {scores}." in page
    assert f'<p class="soft">textladder, {found.run.date}</p>' in page
    for target in re.findall(r'href="#([a-z-]+)"', page):
        assert f'id="{target}"' in page, target


def test_the_report_shows_the_most_common_mix_up_with_texts(found: Comparison, data: TextData, tmp_path: Path) -> None:
    level = found[found.recommended]
    probabilities, label_ids = level.kept.predictions("test")
    predicted = probabilities.argmax(axis=1)
    rows = max((np.flatnonzero((label_ids == one) & (predicted == 1 - one)) for one in (0, 1)), key=len)
    sure = rows[probabilities[rows].max(axis=1).argmax()]
    text = list(data.test)[sure]
    page = " ".join(found.report(tmp_path / "page.html").read_text(encoding="utf-8").split())
    label = data.labels[label_ids[sure]]
    other = data.labels[predicted[sure]]
    start = page.index(f"<li>{label} predicted as {other}: {len(rows)} rows")
    assert html.escape(text) in page[start : page.index("</li>", start)]
    without = found.report(tmp_path / "page.html", texts=False).read_text(encoding="utf-8")
    assert f"{label} predicted as {other}: {len(rows)} rows" in " ".join(without.split())
    assert not any(html.escape(one) in without for one in data.test)
    assert "The hardest test rows" not in without


def test_what_to_label_next() -> None:
    """Classes that are often overlooked, for the rows that there are to learn them from."""

    def advice(recalls: list[float], training: list[int]) -> list[str]:
        by_class = [SimpleNamespace(recall=one, support=20) for one in recalls]
        label_ids = np.repeat(np.arange(len(training)), training)
        names = [f"class {place}" for place in range(len(recalls))]
        data = SimpleNamespace(train=SimpleNamespace(label_ids=label_ids), labels=names, label_names=names)
        return list(_label_next(SimpleNamespace(by_class=by_class), data))

    assert advice([0.9, 0.5, 0.5, 1.0], [10, 100, 20, 5]) == [
        "class 2: 10 of 20 test rows overlooked, with 20 training rows",
        "class 0: 2 of 20 test rows overlooked, with 10 training rows",
    ]
    assert advice([1.0, 1.0, 1.0], [10, 10, 10]) == []
    assert advice([0.5, 0.5], [10, 10]) == []


def test_long_texts_are_opened(found: Comparison) -> None:
    assert _shortened("a short  text") == {"start": "a short text", "rest": ""}
    text = " ".join(f"word{place}" for place in range(100))
    shown = _shortened(text)
    assert len(shown["start"]) <= 300
    assert shown["start"] + shown["rest"] == text
    endless = _shortened("x" * 10_000)
    assert len(endless["start"]) == 300
    assert endless["rest"].endswith("x [...]")


def test_a_report_at_any_path(found: Comparison, tmp_path: Path) -> None:
    assert found.report(tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert found.report(tmp_path / "page.md").read_text(encoding="utf-8").startswith("# textladder")
    with pytest.raises(ConfigError, match="could not be written"):
        found.report(tmp_path / "nowhere" / "page.html")


def test_names_of_classes_are_whole_and_may_break(tmp_path: Path) -> None:
    names = ("card_<b>_not_working", "_top_up_", "refund")
    rows = pd.DataFrame({"label": names * 16, "text": [f"{name} {n}" for n in range(16) for name in names]})
    found = compare(read_texts(rows), ["tfidf"], seeds=1, out=tmp_path / "run")
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    cells = re.findall(r"<tr><td>(.*?)</td><td data-name=\"precision\">", page)
    assert sorted(html.unescape(cell.replace("<wbr>", "")) for cell in cells) == sorted(names)
    assert "card_<wbr>&lt;b&gt;_<wbr>not_<wbr>working" in cells


@pytest.mark.slow
def test_the_page_in_a_browser(found: Comparison, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page, log = found.folder / "report.html", tmp_path / "net.json"
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--log-net-log={log}", "--net-log-capture-mode=Everything", f"--user-data-dir={tmp_path / 'profile'}",
         "--disable-background-networking", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "How to reproduce this comparison" in done.stdout
    assert "<title>hurt" not in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "example.org" not in log.read_text(errors="replace")


def test_finished_trainings_are_reused(
    found: Comparison, data: TextData, settings: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(found.folder, out)
    shutil.rmtree(out / "tfidf-1")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
    again = compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=out)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
    assert {path: after[path] for path in before} == before
    assert (out / "tfidf-1").is_dir()
    assert again["tfidf"].test == found["tfidf"].test
    assert again.gain("lstm", "tfidf") == found.gain("lstm", "tfidf")
    with FileLock(out / ".lock"), pytest.raises(ConfigError, match="another process is writing this comparison"):
        compare(data, ["tfidf"], out=out)
    vectors = Path(settings["lstm"]["vectors"])
    other = tmp_path / vectors.name
    other.write_text(vectors.read_text() + "zebra" + " 0.1" * 8 + "\n")
    store = TrainingStore(out, {}, Monitor())
    jobs = [Job("fit", "", "", "lstm", "default", {"vectors": str(path)}, 0) for path in (vectors, other)]
    assert store._identity(jobs[0])["files"] != store._identity(jobs[1])["files"]
    changed = {"lstm": {**settings["lstm"], "hidden_size": 9}}
    with pytest.raises(ConfigError, match="with other settings or versions, or on another machine; choose"):
        compare(data, ["tfidf", "lstm"], settings=changed, out=out)
    with pytest.raises(ConfigError, match="a comparison on other rows; .*overwrite=True"):
        compare(read_texts(reviews(300, 5)), ["tfidf"], out=out)
    (out / "mine.txt").write_text("stays")
    (out / "rows.json").write_text("stays too")
    wrong = {"lstm": {"vectors": "nowhere.txt"}}
    with pytest.raises(TextladderError, match="lstm cannot be trained here"):  # before anything is deleted
        compare(data, ["tfidf", "lstm"], settings=wrong, out=out, overwrite=True)
    assert (out / "lstm-0").is_dir()
    restarted = compare(data, ["tfidf"], seeds=1, out=out, overwrite=True)
    assert [one.level for one in restarted.levels] == ["tfidf"]
    assert not (out / "lstm-0").exists()
    assert (out / "mine.txt").read_text() == "stays"
    assert (out / "rows.json").read_text() == "stays too"


def test_a_level_is_judged_by_the_form_for_deployment(found: Comparison, data: TextData, tmp_path: Path) -> None:
    results = found.as_dict()
    assert (results["forms"], results["threads"], results["price_per_hour"]) == ("deployable", available_cores(), None)
    tfidf, lstm = results["levels"]
    assert tfidf["form"] == "original"
    assert list(tfidf["forms"]) == ["original"]
    assert lstm["form"] == found["lstm"].kept.form == "onnx-int8"
    assert list(lstm["forms"]) == ["original", "onnx-int8"]
    assert tfidf["form_refused"] is lstm["form_refused"] is None
    for one in (tfidf, lstm):
        for name, value in one["forms"][one["form"]].items():
            place = {"accuracy": one["test"], "score": {"score": one["score"]["value"]}}.get(name, one)
            assert value == place.get(name, value)
        for figures in one["forms"].values():
            assert set(figures) == {
                "predict_ms_p50", "predict_ms_p95", "rows_per_second", "load_seconds", "predict_memory_mb", "bundle_mb",
                "by_length", "accuracy", "score",
            }  # fmt: skip
            assert sum(group["rows"] for group in figures["by_length"]) == 150
            ends = [group["characters"] for group in figures["by_length"]]
            assert all(one[1] < other[0] for one, other in pairwise(ends))
            assert all(0 < group["predict_ms_p50"] <= group["predict_ms_p95"] for group in figures["by_length"])
    kept = found["lstm"].kept
    original = TextClassifier.load(kept.bundle, form="original")
    assert lstm["forms"]["original"]["accuracy"] == original.evaluate(data.test).accuracy
    assert TextClassifier.load(kept.bundle).form == "onnx-int8"  # what `predict` uses, too
    probabilities = TextClassifier.load(kept.bundle).predict_proba(data.valid)
    assert np.abs(kept.predictions("valid")[0] - probabilities).max() < 1e-6
    gate = read_bundle(kept.bundle).manifest["exports"]["onnx-int8"]["gate"]
    assert gate["rows"] == 200  # the 40 validation rows and training rows
    export_bundle(kept.bundle, data.valid, quantize="int8", out=tmp_path / "lean")
    size = sum(file.stat().st_size for file in (tmp_path / "lean").rglob("*") if file.is_file()) / 1e6
    assert lstm["bundle_mb"] == pytest.approx(size, rel=0.02)  # the manifests differ
    assert [one.form for one in found["lstm"].trainings] == ["onnx-int8"] * 2  # each seed is exported
    assert found.table.loc["lstm", "form"] == "onnx-int8"
    shown = f"{lstm['forms']['original']['accuracy']:.3f}"
    assert re.search(rf"^    original  {shown} ", found.text_table(), re.MULTILINE)
    assert "Form for deployment: lstm onnx-int8." in found.text_table().splitlines()
    assert f"| lstm, original | {shown} |" in (found.folder / "report.md").read_text()
    page = (found.folder / "report.html").read_text()
    assert f'lstm, original form</td><td class="soft">{shown}</td>' in page
    assert "Figures are of the form for deployment: lstm onnx-int8." in page
    assert len(re.findall(r"<td>latency of \d+ to \d+ characters", page)) == len(lstm["forms"]["original"]["by_length"])


@pytest.mark.slow
def test_forms_are_measured_without_training_again(
    found: Comparison,
    data: TextData,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dead_part: Callable[[Path], Path],
) -> None:
    out = tmp_path / "run"
    shutil.copytree(found.folder, out)
    run, jobs = TrainingStore.run, list[str]()

    def noted(self: TrainingStore, job: Job, **options: Any) -> dict[str, Any]:
        jobs.append(f"{job.kind} {job.level}-{job.seed} {job.form}")
        return run(self, job, **options)

    monkeypatch.setattr(TrainingStore, "run", noted)

    def again(**options: Any) -> Comparison:
        jobs.clear()
        return compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=out, **options)

    original = again(forms="original")
    assert jobs == []
    lstm = original.as_dict()["levels"][1]
    assert (lstm["form"], list(lstm["forms"])) == ("original", ["original"])
    assert lstm["predict_ms_p50"] == found["lstm"].forms["original"]["predict_ms_p50"]
    assert lstm["test"]["accuracy"] == found["lstm"].forms["original"]["accuracy"]
    # killed while the bundle was being replaced, before the form was measured
    (out / "lstm-0" / "forms.json").unlink()
    dead = dead_part(out / "lstm-0" / "bundle")
    shutil.copytree(out / "lstm-0" / "bundle", dead)
    (out / "lstm-1" / "forms.json").write_text("[1")
    resumed = again()
    steps = [("export", "original"), ("measure", "onnx-int8")]
    assert jobs == [f"{kind} lstm-{seed} {form}" for seed in (0, 1) for kind, form in steps]
    assert not list((out / "lstm-0").glob(".bundle*"))
    assert resumed["lstm"].test == found["lstm"].test
    assert resumed.gain("lstm", "tfidf") == found.gain("lstm", "tfidf")
    other = available_cores() % 2 + 1
    if other <= (os.cpu_count() or 1):
        assert again(threads=other).as_dict()["threads"] == other
        assert [job.split()[0] for job in jobs] == ["measure"] * 2 + ["export", "measure"] * 2


def test_names_in_the_frontier_chart_are_clear_of_everything() -> None:
    """Also where levels are close to one another, as four of them were on tweets."""
    rng, names = np.random.default_rng(0), ["tfidf", "lstm", "transformer", "ulmfit", "embedding", "cascade"]
    tweets = [(216.0, 170.0), (230.0, 140.0), (400.0, 70.0), (397.0, 200.0)]
    cases = [tweets, *([tuple(one) for one in rng.uniform((66, 40), (460, 210), (6, 2))] for _ in range(200))]
    for case in cases:
        dots = [
            {"level": name, "x": x, "y": y, "low": y + 15, "high": y - 15}
            for name, (x, y) in zip(names, case, strict=False)
        ]
        best, frontier = 1e9, []
        for dot in sorted(dots, key=lambda one: one["x"]):
            if dot["y"] < best:
                best, frontier = dot["y"], [*frontier, dot["level"]]
        _place_labels(dots, frontier)
        boxes = []
        for dot in dots:
            half = 3.7 * len(dot["level"])
            box = (dot["label_x"] - half, dot["label_x"] + half, dot["label_y"] - 11, dot["label_y"] + 3)
            assert box[0] >= 55.9
            assert box[1] <= 470.1
            assert box[2] >= 0
            boxes.append(box)
        bars = [(dot["x"], dot["x"], dot["high"], dot["low"]) for dot in dots]
        pairs = [(one, other) for place, one in enumerate(boxes) for other in (*boxes[:place], *bars)]
        touched = [(a, b) for a, b in pairs if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]]
        assert not touched


@pytest.mark.parametrize("what", ["predictions", "cut", "bundle", "no bundle"])
def test_a_training_that_was_changed_is_not_believed(
    what: str, found: Comparison, data: TextData, settings: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(found.folder, out)
    training, message = out / "tfidf-0", "its predictions were changed or damaged"
    predictions = training / "predictions.parquet"
    if what == "predictions":
        table = pq.read_table(predictions)
        pq.write_table(table.set_column(3, "predicted", table["label"]), predictions)
    elif what == "cut":
        predictions.write_bytes(predictions.read_bytes()[:-9])
    elif what == "bundle":
        (training / "bundle" / "model.safetensors").write_bytes(b"")
        message = "the file was altered, damaged or truncated"
    else:
        shutil.rmtree(training / "bundle")
        message = "no such bundle"
    with pytest.raises(ConfigError, match=rf"{message}.*[dD]elete .*tfidf-0 to train it again"):
        compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=out)
    shutil.rmtree(training)
    again = compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=out)
    assert again["tfidf"].test == found["tfidf"].test


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refused", "slower", "fails"])
def test_a_level_that_cannot_be_exported_is_judged_by_its_original_form(
    data: TextData, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run, sentences = TrainingStore.run, list[str]()
    reason = "onnx-int8 is no faster."

    def failing(self: TrainingStore, job: Job, **options: Any) -> dict[str, Any]:
        if job.kind != "export":
            return run(self, job, **options)
        if how == "fails":
            raise WorkerError(f"Traceback\n{reason}")
        figures = run(self, replace(job, kind="measure"), **options)
        return {"figures": figures, "fastest": "original", "refusal": reason}

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            sentences.append(sentence)

    monkeypatch.setattr(TrainingStore, "run", failing)
    found = compare(data, ["lstm"], settings=settings, seeds=2, out=tmp_path / "run", monitor=Listening())
    (one,) = found.as_dict()["levels"]
    assert one["form"] == "original"
    assert one["form_refused"] == (f"It could not be exported: {reason}" if how == "fails" else reason)
    assert [said for said in sentences if "judged" in said] == [
        f"lstm is judged by its form original. {one['form_refused']}"
    ]
    assert f"is judged by its form original. {one['form_refused']}" in (found.folder / "report.html").read_text()
    assert f"- lstm is judged by its form original. {one['form_refused']}" in (found.folder / "report.md").read_text()
    stored = json.loads((found.folder / "lstm-0" / "forms.json").read_text())
    assert stored["fastest"] == (None if how == "fails" else "original")  # a failure is tried again


def test_without_the_library_the_original_form_is_taken_and_said_once(
    found: Comparison, data: TextData, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = list[str]()

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            sentences.append(sentence)

    shutil.copytree(found.folder, tmp_path / "run")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name))
    again = compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=tmp_path / "run", monitor=Listening())
    reason = "This needs onnx, which is not installed: run pip install 'textladder[export]'."
    assert [one for one in sentences if "onnx" in one] == [
        f"Levels are not exported, but judged by their original forms. {reason}"
    ]
    assert (again["lstm"].kept.form, again["lstm"].kept.refusal) == ("original", reason)


def test_threads_reach_the_process_that_measures(
    found: Comparison, data: TextData, settings: dict[str, Any], tmp_path: Path
) -> None:
    script = (
        "import torch; from textladder.cores import available_cores; print(available_cores(), torch.get_num_threads())"
    )
    environment = {**os.environ, **threads_environment(2)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "2"]
    environments = list[list[bytes]]()

    class Looking(Monitor):
        def start(self, name: str, steps: int | None) -> None:
            if name == "measuring the latency of one text":
                (worker,) = _workers(os.getpid())
                environments.append(Path(f"/proc/{worker}/environ").read_bytes().split(b"\0"))

    rows = tmp_path / "rows"
    write_shared_rows(data, rows)
    job = Job("measure", str(rows), str(found["lstm"].kept.folder), "lstm", "default", {}, 0, form="onnx-int8")
    predictions = (found["lstm"].kept.folder / "predictions-onnx-int8.parquet").read_bytes()
    TrainingStore(tmp_path, {}, Looking(), measuring=Measuring(threads=1)).run(job)
    assert [b"OMP_NUM_THREADS=1" in one for one in environments] == [True]
    assert (found["lstm"].kept.folder / "predictions-onnx-int8.parquet").read_bytes() == predictions


def test_prices(found: Comparison, tmp_path: Path) -> None:
    priced = replace(found, run=replace(found.run, price_per_hour=3.6))
    for one in priced.as_dict()["levels"]:
        assert one["price_per_million"] == pytest.approx(1000 / one["rows_per_second"])
        assert one["fit_price"] == pytest.approx(one["fit_seconds"] / 1000)
    table, text = priced.table, priced.text_table()
    assert table.loc["lstm", "price_per_million"] == priced.as_dict()["levels"][1]["price_per_million"]
    cheap, dear = table.index
    prices, fits = table["price_per_million"], table["fit_price"]
    sentence = (
        f"Price of a million texts: {cheap} {prices[cheap]:.2g}, {dear} {prices[dear]:.2g}; "
        f"of a training run: {cheap} {fits[cheap]:.2g}, {dear} {fits[dear]:.2g}."
    )
    assert sentence in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    page = priced.report(tmp_path / "page.html").read_text()
    assert f'<tr><td>price of a million texts</td><td data-name="{cheap}">{prices[cheap]:.2g}</td>' in page
    assert "<tr><th>price per hour</th><td>3.6</td></tr>" in page
    assert "price" not in found.table
    assert found.as_dict()["levels"][0]["price_per_million"] is None
    assert "price" not in (found.folder / "report.html").read_text().partition("<details>")[2].partition("<h2>")[0]


def test_latency_by_length() -> None:
    assert _by_length([7] * 30, [0.001] * 30) == [
        {"characters": [7, 7], "rows": 30, "predict_ms_p50": 1.0, "predict_ms_p95": 1.0}
    ]
    groups = _by_length(list(range(100, 0, -1)), [0.001 * one for one in range(100, 0, -1)])
    assert [one["characters"] for one in groups] == [[1, 25], [26, 50], [51, 75], [76, 100]]
    assert [one["predict_ms_p50"] for one in groups] == pytest.approx([13, 38, 63, 88])
    assert len(_by_length([1, 2, 3], [0.1, 0.2, 0.3])) == 1


def test_rare_classes_and_odd_names(tmp_path: Path) -> None:
    names = ["a|b", "<b>bold</b>", "ends with\nline", "=1+1", *[f"class {place}" for place in range(11)]]
    rng = random.Random(0)
    rows = [
        {"label": name, "text": " ".join([f"word{place}"] * rng.randint(1, 3) + rng.choices(PLAIN, k=6))}
        for place, name in enumerate(names)
        for _ in range(2 if place == 4 else 9)
    ]
    data = read_texts(pd.DataFrame(rows), test=pd.DataFrame(rows[::3]))
    few = fewer_rows(data, len(data.train) // 8, seed=0)
    assert set(few.train.label_ids) == set(range(15))
    found = compare(data, ["tfidf"], seeds=1, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<b>bold" not in page
    assert "Confusion matrix of tfidf</h3>\n<svg" in page
    assert page.count('<rect class="square"') == len(np.unique([found["tfidf"].kept.predictions("test")[1]]))
    assert "mixes up none of the test rows" in page
    assert found.as_dict()["label_errors_unavailable"].startswith("There are too few rows")
    assert all(line.count("|") < 20 for line in (tmp_path / "run" / "report.md").read_text().splitlines())


@pytest.mark.slow
def test_killed_and_resumed(data: TextData, settings: dict[str, Any], found: Comparison, tmp_path: Path) -> None:
    out, rows = tmp_path / "run", tmp_path / "rows"
    write_shared_rows(data, rows)
    script = (
        "import json, sys; from pathlib import Path\n"
        "from textladder import compare; from textladder.comparison.shared_rows import read_shared_rows\n"
        f"data = read_shared_rows(Path({str(rows)!r}))\n"
        f"compare(data, ['tfidf', 'lstm'], settings=json.loads(sys.argv[1]), seeds=2, out={str(out)!r})"
    )
    command = [sys.executable, "-c", script, json.dumps(settings)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300  # a bound for busy machines; it takes seconds
    while not (out / "lstm-0").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1)  # the next training is running
    workers = _workers(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/record.json")}
    assert {"tfidf-0", "tfidf-1", "lstm-0"} <= {path.parent.name for path in before}
    deadline = time.monotonic() + 30
    while any(map(_is_worker, workers)):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.1)
    subprocess.run(command, check=True, timeout=600)
    for path, when in before.items():
        assert path.stat().st_mtime_ns == when
    assert not list(out.glob(".*"))
    assert not (out / ".rows").exists()
    results = json.loads((out / "results.json").read_text())
    for one in results["levels"]:
        undisturbed = found[one["level"]]
        assert one["test"] == undisturbed.test.as_dict()
        for seed in range(2):
            name = f"{one['level']}-{seed}/predictions.parquet"
            theirs = pq.read_table(found.folder / name).drop(["row"])
            assert pq.read_table(out / name).drop(["row"]).equals(theirs), name


def _workers(parent: int) -> list[int]:
    """The running worker processes that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [child for child in map(int, children) if _is_worker(child)]


def _is_worker(process: int) -> bool:
    try:
        return b"textladder.comparison.worker" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def test_a_level_that_cannot_be_trained(data: TextData, settings: dict[str, Any], tmp_path: Path) -> None:
    wrong = {"lstm": {**settings["lstm"], "vectors": str(tmp_path / "nowhere.txt")}}
    with pytest.raises(TextladderError, match=r"lstm cannot be trained here\. .*nowhere\.txt: no such file"):
        compare(data, ["tfidf", "lstm"], settings=wrong, out=tmp_path / "a")
    assert not list((tmp_path / "a").glob("*/record.json"))


def test_levels_that_were_not_requested_are_left_out(
    data: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sentences = TrainingStore.run, list[str]()

    def lacking(self: TrainingStore, job: Job, **options: Any) -> dict[str, Any]:
        if job.level != "tfidf":
            raise TextladderError(f"{job.level} lacks <something>.")
        return run(self, job, **options)

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            sentences.append(sentence)

    monkeypatch.setattr(TrainingStore, "run", lacking)
    for budget, word in ((None, "failed"), (600.0, "is left out")):
        left = compare(data, seeds=1, time_budget=budget, out=tmp_path / f"run-{word}", monitor=Listening())
        assert [one.level for one in left.levels] == ["tfidf"]
        assert list(left.failed) == ["lstm", "ulmfit", "transformer"]
        assert f"transformer {word}. transformer lacks <something>." in sentences
        assert "there is no result for lstm, ulmfit and transformer" in left.verdict
        assert "lacks &lt;something&gt;" in (left.folder / "report.html").read_text()
    with pytest.raises(TextladderError, match="lstm cannot be trained here. lstm lacks"):
        compare(data, ["tfidf", "lstm"], out=tmp_path / "named")


def test_levels_that_are_not_installed_are_said_before_anything_is_trained(
    data: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[str]()

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            events.append(sentence)

        def start(self, name: str, steps: int | None) -> None:
            events.append(name)

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    found = compare(data, seeds=1, out=tmp_path / "run", monitor=Listening())
    assert [one.level for one in found.levels] == ["tfidf"]
    reason = "This needs torch, which is not installed: run pip install 'textladder[train]'."
    assert found.failed == dict.fromkeys(("lstm", "ulmfit", "transformer"), reason)
    assert events.index(f"transformer is left out. {reason}") < events.index("starting a process")
    assert found.verdict.startswith("Take tfidf, the only level trained; there is no result for lstm, ulmfit and")


def test_levels_that_cannot_read_the_texts_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoders: Callable[[str], Path]
) -> None:
    run = TrainingStore.run

    def baseline_alone(self: TrainingStore, job: Job, **options: Any) -> dict[str, Any]:
        if job.kind == "check":
            return {}
        if job.level != "tfidf":
            raise TextladderError("It lacks something.")
        return run(self, job, **options)

    monkeypatch.setattr(TrainingStore, "run", baseline_alone)
    rows = pd.DataFrame({"label": ["good", "bad"] * 20, "text": ["味道很好", "味道很差"] * 20})
    data = read_texts(rows, test=rows, valid=0)
    settings = {"transformer": {"encoder": str(encoders("bert"))}}
    found = compare(data, settings=settings, seeds=1, out=tmp_path / "run")
    assert found.failed["lstm"] == "It lacks something."
    assert "does not know 100% of the words of these texts" in found.failed["ulmfit"]
    assert "no word pieces for 100% of the characters of these texts" in found.failed["transformer"]
    assert "name it among the levels" in found.failed["transformer"]
    named = compare(data, ["tfidf", "ulmfit"], seeds=1, out=tmp_path / "named")
    assert named.failed == {"ulmfit": "It lacks something."}  # it was tried


def test_what_a_level_warned_about_is_repeated(found: Comparison, tmp_path: Path) -> None:
    training = found["lstm"].kept
    assert found["lstm"].warnings == training.record["warnings"] == []
    assert "warning" not in found.verdict
    older = replace(training, record={name: value for name, value in training.record.items() if name != "warnings"})
    assert replace(found["lstm"], trainings=[older]).warnings == []
    warned = replace(training, record={**training.record, "warnings": ["It has <few> rows."]})
    again = replace(found, levels=[found["tfidf"], replace(found["lstm"], trainings=[warned])])
    assert "there is a warning about lstm" in again.verdict
    assert again.text_table().splitlines()[-1] == "lstm: It has <few> rows."
    assert again.as_dict()["levels"][1]["warnings"] == ["It has <few> rows."]
    assert "<b>lstm:</b> It has &lt;few&gt; rows." in again.report(tmp_path / "report.html").read_text()
    assert "- lstm: It has &lt;few> rows." in again.report(tmp_path / "report.md").read_text()


def test_a_training_that_had_not_settled_is_marked(found: Comparison) -> None:
    def ended(*validations: tuple[float, float]) -> list[str]:
        entries = [
            {"stage": "classifier", "valid_loss": loss, "valid_accuracy": accuracy, "valid_macro_f1": accuracy}
            for loss, accuracy in validations
        ]
        head = {"stage": "head", "valid_loss": 9.0, "valid_accuracy": 0.1, "valid_macro_f1": 0.1}
        kept = found["lstm"].kept
        training = replace(kept, record={**kept.record, "epochs": [head, *entries]})
        return replace(found["lstm"], trainings=[training]).warnings

    (sentence,) = ended((4.3, 0.2), (3.6, 0.3), (3.14, 0.41))
    assert sentence.startswith(
        "The validation loss was still falling when its training ended, lately from 3.60 to 3.14"
    )
    assert ended((0.9, 0.7), (0.8, 0.75), (0.79, 0.76)) == []  # hardly
    assert ended((0.9, 0.7), (0.7, 0.76), (0.65, 0.75)) == []  # no better
    assert ended((0.8, 0.7)) == []  # the head's losses are not comparable
    without = {"stage": "classifier", "valid_loss": None, "valid_accuracy": None, "valid_macro_f1": None}
    assert still_falling([without] * 3) is still_falling([]) is None


def test_a_gain_is_adjusted_for_the_number_of_levels(found: Comparison) -> None:
    two = found.gain("lstm", "tfidf")
    four = replace(found, levels=[*found.levels, *(replace(found["lstm"], level=name) for name in ("a", "b"))])
    adjusted = four.gain("lstm", "tfidf")
    assert (two.comparisons, adjusted.comparisons) == (1, 3)
    assert adjusted.adjusted_p_value == min(1, 3 * two.p_value)


def test_runs_that_differ_by_more_than_the_gain_are_marked(found: Comparison) -> None:
    dearer = found.levels_by_cost[1]
    gained, rows = found.gain(dearer.level, found.levels_by_cost[0].level), len(dearer.kept.correct)
    assert dearer.seed_spread is not None
    expected = 0 < gained.expected[0] < dearer.seed_spread
    assert any("training runs differ" in one for one in found.warnings(dearer)) == expected
    apart = replace(found, levels=[found["tfidf"], replace(found["lstm"])])
    right = found["tfidf"].kept.correct
    better, equal = right.copy(), right.copy()
    better[np.flatnonzero(~right)[:3]] = True
    apart["lstm"].__dict__["contributions"] = np.stack([better, equal]).astype(float)
    (sentence,) = apart.warnings(apart["lstm"])
    points = 100 * 3 / rows
    assert sentence == (
        f"Its 2 training runs differ by {points:.1f} points, more than the {points / 2:.1f} points that it gains: more "
        "of them would tell more (--seeds 4)."
    )
    assert apart.as_dict()["levels"][1]["warnings"] == [sentence]
    assert sentence in " ".join(apart.text_table().split())
    alone = replace(found, levels=[replace(one, trainings=one.trainings[:1]) for one in found.levels])
    assert [alone.warnings(one) for one in alone.levels] == [[], []]


def test_a_failed_training_leaves_the_others(data: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TrainingStore.run
    faults: dict[str, Exception] = {
        "lstm-0": TextladderError("The process was killed by SIGKILL."),
        "tfidf-1": WorkerError("fit of tfidf failed:\nTraceback\nKeyError: 3"),
    }

    def failing(self: TrainingStore, job: Job, **options: Any) -> dict[str, Any]:
        if job.kind == "check":
            return {}
        if job.kind == "fit" and (fault := faults.get(f"{job.level}-{job.seed}")) is not None:
            raise fault
        return run(self, job, **options)

    monkeypatch.setattr(TrainingStore, "run", failing)
    found = compare(data, ["tfidf", "lstm"], seeds=2, out=tmp_path / "run")
    assert [(one.level, len(one.trainings)) for one in found.levels] == [("tfidf", 1)]
    assert found.failed["lstm"] == "The process was killed by SIGKILL."
    assert found.failed["tfidf (seed 1)"].startswith("KeyError: 3 (the traceback is in ")
    assert "Traceback" in (tmp_path / "run" / "failed-tfidf.txt").read_text()
    assert found.recommended == "tfidf"
    assert not list((tmp_path / "run").glob(".*"))


def test_a_killed_worker_and_a_bug(data: TextData, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    write_shared_rows(data, rows)
    store = TrainingStore(tmp_path, {}, Monitor())
    with pytest.raises(RuntimeError, match="(?s)unknown of tfidf failed:.*KeyError"):
        store.run(Job("unknown", str(rows), str(tmp_path), "tfidf", "default", {}, 0))

    class Killing(Monitor):
        def start(self, name: str, steps: int | None) -> None:
            for worker in _workers(os.getpid()):
                os.kill(worker, signal.SIGKILL)

    store = TrainingStore(tmp_path, {}, Killing())
    with pytest.raises(TextladderError, match="killed by SIGKILL; SIGKILL usually means out of memory"):
        store.run(Job("fit", str(rows), str(tmp_path), "tfidf", "default", {}, 0))


def test_a_warm_worker(data: TextData, settings: dict[str, Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    write_shared_rows(data, rows)
    job = Job("fit", str(rows), str(tmp_path / "lstm"), "lstm", "default", settings["lstm"], 0)
    (tmp_path / "lstm").mkdir()
    with WarmWorker("lstm") as warm_worker:
        while not (started := _workers(os.getpid())):  # its command line takes a moment to appear
            time.sleep(0.01)
        store = TrainingStore(tmp_path, {}, Monitor(), warm_worker)
        with pytest.raises(
            RuntimeError, match="of tfidf failed"
        ):  # in another process, because it is for another level
            store.run(replace(job, kind="nothing", level="tfidf"))
        assert _workers(os.getpid()) == started
        assert store.run(job)["train_rows"] == len(data.train)
        assert _workers(os.getpid()) == []
    with WarmWorker("lstm"), WarmWorker(None):  # that is never used
        while not _workers(os.getpid()):
            time.sleep(0.01)
    assert _workers(os.getpid()) == []


def test_a_warm_worker_starts_for_what_is_not_trained_yet(
    found: Comparison, data: TextData, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str | None] = []

    class Noted(WarmWorker):
        def __init__(self, level: str | None) -> None:
            started.append(level)
            super().__init__(None)

    monkeypatch.setattr("textladder.comparison.compare.WarmWorker", Noted)
    shutil.copytree(found.folder, tmp_path / "run")
    compare(data, ["tfidf", "lstm"], settings=settings, seeds=2, out=tmp_path / "run")
    compare(data, ["tfidf"], seeds=1, out=tmp_path / "other")
    with pytest.raises(TextladderError, match="cannot be trained here"):
        compare(data, ["lstm", "tfidf"], settings={"lstm": {"vectors": "nowhere.txt"}}, out=tmp_path / "other")
    with pytest.raises(TextladderError, match="cannot be trained here"):
        compare(data, ["lstm"], settings={"lstm": {"vectors": "no.txt"}}, out=tmp_path / "run", overwrite=True)
    assert started == [None, None, "lstm", "lstm"]


def test_terms_and_wrong_calls(found: Comparison, data: TextData, tmp_path: Path) -> None:
    nothing = replace(found, terms=Terms(max_latency_ms=1e-6))
    assert nothing.recommended is None
    assert nothing.decision.decision == "none"
    assert nothing.verdict.startswith("No level meets your terms")
    assert "No level" in nothing.report(tmp_path / "r.html").read_text()
    for wrong, message in (
        ({"levels": ["lsmt"]}, "Did you mean 'lstm'"),
        ({"levels": []}, "name at least one"),
        ({"levels": ["tfidf"], "settings": {"lstm": {}}}, "not among the levels"),
        ({"levels": ["tfidf"], "settings": {"tfidf": {"epochs": 3}}}, "Unknown tfidf setting 'epochs'"),
        ({"levels": ["tfidf"], "seeds": 0}, "at least 1"),
        ({"levels": ["tfidf"], "seed": 1.5}, "The seed must be a whole number; received 1.5"),
        ({"levels": ["tfidf"], "fix": "all"}, "Unknown fix 'all'"),
        ({"forms": "orignal"}, "Unknown form 'orignal'. Available: deployable, original. Did you mean 'original'"),
        ({"threads": 0}, "The number of threads must be from 1 to .*; received 0"),
        ({"threads": 10**6}, "the cores of this machine; received 1000000"),
        ({"threads": 1.5}, "received 1.5"),
        ({"price_per_hour": 0}, "The price per hour must be a number above 0; received 0"),
        ({"price_per_hour": float("nan")}, "above 0; received nan"),
        ({"price_per_hour": float("inf")}, "above 0; received inf"),
        ({"levels": ["tfidf"], "out": Path(__file__)}, "exists but is not a comparison"),
        ({"levels": ["tfidf"], "out": Path(__file__).parent}, "exists but is not a comparison"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare(data, **wrong)


def test_leaks_are_dropped_and_a_temporary_folder_goes_with_its_result() -> None:
    test = reviews(100, 3)
    train = pd.concat([reviews(200, 4), test.iloc[:10]], ignore_index=True)
    result = compare(read_texts(train, test=test), ["tfidf"], seeds=1, fix="drop-leaks")
    folder = result.folder
    assert folder.is_dir()
    assert len(result.data.train) + len(result.data.valid or ()) == 200
    assert result.as_dict()["row_changes"] == ["Removed 10 training or validation rows that leaked into the test rows."]
    assert result.as_dict()["report"] is None
    del result
    assert not folder.exists()


def test_the_predicted_fit_time_continues_from_the_largest_samples() -> None:
    found = fit_estimate({128: 1.0, 256: 1.5, 512: 4.0}, 3.0, 612, 9.5)
    assert found.fit_seconds == pytest.approx(2 + 4 + 100 * 2.5 / 256)  # 2 seconds of the first fit were one-off costs
    assert found.affordable_rows(10, 612) == 0
    assert found.affordable_rows(6, 612) == 512
    steeper = fit_estimate({256: 0.5, 512: 3.0}, 0.5, 612, 4.0)  # more rows cost more each
    assert steeper.fit_seconds == pytest.approx(3 + 100 * 2.5 / 256)
    assert steeper.seconds(10) == 0
    assert steeper.affordable_rows(3, 612) == 512


def test_a_time_budget(data: TextData, tmp_path: Path) -> None:
    sentences: list[str] = []

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            sentences.append(sentence)

    whole = compare(data, ["tfidf"], time_budget=600.0, out=tmp_path / "a", monitor=Listening())
    assert whole["tfidf"].predicted_fit_seconds
    assert len(whole["tfidf"].trainings) == 1
    assert sentences[-2].startswith("tfidf: a fit on all 360 rows takes about")
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())
    assert plan["rows"] == {"tfidf": 0}
    short = compare(data, ["tfidf"], time_budget=0.001, out=tmp_path / "b", monitor=Listening())
    assert not short.levels
    assert "the time budget leaves" in short.failed["tfidf"]
    assert short.verdict == "No level could be trained."
    assert "has no result" in (tmp_path / "b" / "report.html").read_text()
    # a stored decision is kept
    plan["rows"] = {"tfidf": 100}
    (tmp_path / "a" / "plan.json").write_text(json.dumps(plan))
    fewer = compare(data, ["tfidf"], time_budget=600.0, out=tmp_path / "a")
    assert fewer["tfidf"].kept.record["train_rows"] == 100
    assert "not all 360 training rows were used (tfidf: 100)" in fewer.verdict


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reviews(200, 1).to_csv(tmp_path / "train.csv", index=False)
    reviews(80, 2).to_csv(tmp_path / "test.csv", index=False)
    config, out = tmp_path / "settings.toml", tmp_path / "run"
    config.write_text("seed = 3\n[tfidf]\nmax_ngram = 1\n")
    words = ["compare", str(tmp_path / "train.csv"), "--test", str(tmp_path / "test.csv"), "--levels", "tfidf"]
    assert main([*words, "--config", str(config), "--seeds", "2", "--out", str(out), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["levels"][0]["settings"] == {"max_ngram": 1}
    assert [one["seed"] for one in results["levels"][0]["seeds"]] == [3, 4]
    assert results["command"].startswith("textladder compare ")
    assert main([*words, "--config", str(config), "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"Report: {out}/report.html" in printed
    measured = ["--forms", "original", "--threads", "1", "--price-per-hour", "2.5", "--json"]
    assert main([*words, "--config", str(config), "--seeds", "2", "--out", str(out), *measured]) == 0
    results = json.loads(capsys.readouterr().out)
    assert (results["forms"], results["threads"], results["price_per_hour"]) == ("original", 1, 2.5)
    for wrong in (["--forms", "int8"], ["--threads", "0"], ["--threads", "two"], ["--price-per-hour", "-1"]):
        assert main([*words, "--out", str(tmp_path / "wrong"), *wrong]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("textladder: ")
    assert "textladder predict" in printed
    for flags, message in (
        (["--time-budget", "soon"], "expected a duration such as 90s, 30m or 2h; received 'soon'"),
        (["--vectors", "x.txt"], "--vectors is a setting of lstm, which is not among the levels tfidf"),
        (["--level", "tfidf"], "Did you mean '--levels'?"),
        (["--out", str(tmp_path)], "exists but is not a comparison"),
    ):
        assert main([*words, *flags]) == 2
        assert message in capsys.readouterr().err
    config.write_text("max_ngram = 1\n")
    assert main([*words, "--config", str(config)]) == 2
    assert "must be in the table of a level" in capsys.readouterr().err


def test_shared_rows_are_the_same_data(data: TextData, tmp_path: Path) -> None:
    write_shared_rows(data, tmp_path / "rows")
    back = read_shared_rows(tmp_path / "rows")
    for name in ("train", "valid", "test"):
        assert getattr(back, name).fingerprint() == getattr(data, name).fingerprint()
        assert source_rows(getattr(back, name)).tolist() == getattr(data, name).rows.tolist()
    with pytest.raises(ValueError, match="Only parts from read_shared_rows"):
        source_rows(data.test)
    assert (back.labels, back.text_columns, back.description) == (data.labels, data.text_columns, data.description)
    few, more = fewer_rows(back, 60, seed=1), fewer_rows(back, 120, seed=1)
    assert len(few.train) == 60
    assert few.valid is not None
    assert len(few.valid) == round(60 / 360 * 40)
    assert set(few.train.rows) < set(more.train.rows)
    assert few.test is back.test
    shares = np.bincount(few.train.label_ids) / 60
    assert shares == pytest.approx(np.bincount(back.train.label_ids) / 360, abs=0.02)


def test_label_errors_are_the_flipped_labels() -> None:
    rows = reviews(600, 9)
    rng = np.random.default_rng(0)
    flipped = rng.choice(600, 120, replace=False)
    rows.loc[flipped, "label"] = rows.loc[flipped, "label"].map({"good": "bad", "bad": "good"})
    found = find_label_errors(read_texts(rows, test=reviews(60, 10)))
    named = {one.row for one in found[:60]}
    assert len(named & set(flipped.tolist())) >= 30
    assert all(one.label != one.predicted for one in found)


@pytest.mark.realdata
@pytest.mark.slow
def test_flipped_amazon_labels_are_found(shared: Path) -> None:
    names = ["label", "title", "text"]
    rows = pd.read_csv(shared / "amazon_polarity/train.csv", header=None, names=names, keep_default_na=False)
    flipped = np.random.default_rng(0).choice(len(rows), len(rows) // 5, replace=False)
    rows.loc[flipped, "label"] = 3 - rows.loc[flipped, "label"]
    found = find_label_errors(read_texts(rows, test=shared / "amazon_polarity/test.csv"))
    assert len(found) == 100
    assert len({one.row for one in found} & set(flipped.tolist())) >= 50


def test_temperature_scaling_calibrates() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4000, 3))
    truth = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=one) for one in truth])
    bold = at_temperature(truth, 1 / 3)  # logits three times too large
    assert temperature(bold, labels) == pytest.approx(3, rel=0.1)
    assert evaluate(at_temperature(bold, temperature(bold, labels)), labels).ece < evaluate(bold, labels).ece / 3


def test_a_folder_that_a_killed_comparison_began(tmp_path: Path) -> None:
    from textladder.comparison.run_folder import check_folder

    for name in (".lock", ".comparison.json.host-1.part"):
        (tmp_path / name).touch()
    check_folder(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="exists but is not a comparison"):
        check_folder(tmp_path)
