"""The metric that a person judges by: its values are scikit-learn's, and what rows contribute adds up to them."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from textladder import TextClassifier, read_texts
from textladder.errors import ConfigError
from textladder.levels.tfidf import TfidfConfig
from textladder.significance import paired_gain
from textladder.target_metric import NAMES, TargetMetric, find_metric, read_costs

LABELS = ["bug", "praise", "question", "spam"]


def table(seed: int, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities, more often right than not, and the true classes."""
    rng = np.random.default_rng(seed)
    label_ids = rng.choice(classes, rows, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    label_ids[:2] = 0
    logits = rng.standard_normal((rows, classes)) + 1.5 * np.eye(classes)[label_ids]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), label_ids


def of_scikit_learn(name: str, probabilities: np.ndarray, label_ids: np.ndarray) -> float:
    predicted = probabilities.argmax(axis=1)
    is_bug, score = label_ids == 0, probabilities[:, 0]
    match name:
        case "accuracy":
            return metrics.accuracy_score(label_ids, predicted)
        case "macro-f1":
            return metrics.f1_score(label_ids, predicted, average="macro")
        case "weighted-f1":
            return metrics.f1_score(label_ids, predicted, average="weighted")
        case "balanced-accuracy":
            return metrics.balanced_accuracy_score(label_ids, predicted)
        case "mcc":
            return metrics.matthews_corrcoef(label_ids, predicted)
        case "log-loss":
            return metrics.log_loss(label_ids, probabilities, labels=range(4))
        case "f1:bug":
            return metrics.f1_score(is_bug, predicted == 0)
        case "average-precision:bug":
            return metrics.average_precision_score(is_bug, score)
    precision, recall, _ = metrics.precision_recall_curve(is_bug, score)
    return float(recall[precision >= 0.9].max())


def named(name: str) -> TargetMetric:
    return find_metric(name.replace("LABEL", "bug"), LABELS)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("name", [name.replace("LABEL", "bug") for name in NAMES])
def test_values_are_those_of_scikit_learn_and_the_mean_of_the_contributions(name):
    metric = named(name)
    for seed in range(20):
        probabilities, label_ids = table(seed)
        expected = of_scikit_learn(name, probabilities, label_ids)
        assert metric.value(probabilities, label_ids) == pytest.approx(expected, abs=1e-12)
        contributions = metric.contributions(probabilities, label_ids)
        assert contributions.mean() == pytest.approx(metric.sign * expected, abs=1e-9)


@pytest.mark.parametrize("name", [name.replace("LABEL", "bug") for name in NAMES])
def test_standard_errors_are_those_of_the_bootstrap(name):
    metric = named(name)
    probabilities, label_ids = table(3, rows=400)
    error = metric.contributions(probabilities, label_ids).std() / len(label_ids) ** 0.5
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(label_ids), len(label_ids)) for _ in range(300)]
    bootstrap = np.std([metric.value(probabilities[rows], label_ids[rows]) for rows in drawn])
    assert error == pytest.approx(bootstrap, rel=0.4 if name.startswith("recall") else 0.15)


def test_the_standard_error_of_recall_at_a_precision_allows_for_the_threshold():
    """Half of it comes from where the threshold falls."""
    metric = named("recall-at-precision:bug=0.8")
    draws = [table(seed, rows=2_000) for seed in range(200)]
    spread = np.std([metric.value(*draw) for draw in draws])
    errors = [metric.contributions(*draw).std() / 2_000**0.5 for draw in draws[:40]]
    assert np.median(errors) == pytest.approx(spread, rel=0.3)


def test_contributions_say_by_how_much_a_row_changes_the_metric():
    probabilities, label_ids = table(5)
    metric = named("average-precision:bug")
    rows = len(label_ids)
    without = [metric.value(np.delete(probabilities, row, axis=0), np.delete(label_ids, row)) for row in range(rows)]
    jackknife = metric.value(probabilities, label_ids) + (rows - 1) * (np.mean(without) - np.array(without))
    contributions = metric.contributions(probabilities, label_ids)
    assert np.corrcoef(jackknife, contributions)[0, 1] > 0.99


def test_a_class_that_is_in_no_test_row_has_no_f1():
    probabilities, label_ids = table(1)
    some = (label_ids != 3) & (probabilities.argmax(axis=1) != 3)
    expected = metrics.f1_score(label_ids[some], probabilities[some].argmax(axis=1), average="macro")
    assert named("macro-f1").value(probabilities[some], label_ids[some]) == pytest.approx(expected)


def test_labels_that_were_not_seen_in_training_count_as_wrong():
    probabilities, label_ids = table(1)
    label_ids[:5] = 4  # the labels of a test file may be more than the classes
    for name in NAMES:
        metric = find_metric(name.replace("LABEL", "bug"), [*LABELS, "new"])
        contributions = metric.contributions(probabilities, label_ids)
        assert metric.value(probabilities, label_ids) == pytest.approx(metric.sign * contributions.mean())


@pytest.mark.parametrize("name", [name.replace("LABEL", "spam") for name in NAMES])
def test_a_label_may_be_in_no_test_row(name):
    probabilities, label_ids = table(1)
    some = label_ids != 3
    metric = find_metric(name, LABELS)
    contributions = metric.contributions(probabilities[some], label_ids[some])
    assert metric.value(probabilities[some], label_ids[some]) == pytest.approx(metric.sign * contributions.mean())
    assert np.isfinite(metric.contributions(probabilities[:1], label_ids[:1])).all()


def test_a_precision_that_is_never_reached_means_no_recall():
    label_ids = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2]])
    metric = find_metric("recall-at-precision:a=0.9", ["a", "b"])
    assert metric.value(probabilities, label_ids) == 0
    assert not metric.contributions(probabilities, label_ids).any()


def test_gains_cover_the_true_difference_in_macro_f1():
    """In 80 draws of 300 rows with a class of a twentieth, the 95% interval holds the difference on 200,000 rows."""
    metric = find_metric("macro-f1", ["a", "b", "c"])
    rng = np.random.default_rng(7)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label_ids = rng.choice(3, rows, p=[0.6, 0.35, 0.05])
        shared = rng.standard_normal((rows, 3))
        probabilities = []
        for strength in (1.2, 1.8):
            logits = strength * np.eye(3)[label_ids] + shared + 0.5 * rng.standard_normal((rows, 3))
            probabilities.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        return label_ids, *probabilities

    label_ids, low, high = draw(200_000)
    truth = 100 * (metric.value(high, label_ids) - metric.value(low, label_ids))
    covered = []
    for _ in range(80):
        label_ids, low, high = draw(300)
        parts = [metric.contributions(one, label_ids)[None] for one in (high, low)]
        gain = paired_gain(*parts, unit=metric.unit)
        covered.append(gain.low <= truth <= gain.high)
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("macro-f2", "macro-f1"),
        ("f1", "f1:bug"),
        ("f1:", "label"),
        ("f1:bugs", "bug"),
        ("recall-at-precision:bug", "=0.9"),
        ("recall-at-precision:bug=2", "between 0 and 1"),
        ("recall-at-precision:bug=x", "between 0 and 1"),
        ("costs:nowhere.csv", "nowhere.csv"),
        ("", "metric"),
        (":", "metric"),
    ],
)
def test_what_is_no_metric_is_refused_in_a_sentence(name, words):
    with pytest.raises(ConfigError, match=words):
        find_metric(name, LABELS)


def test_labels_may_have_any_characters():
    labels = ["a:b=0.5", "c"]
    assert find_metric("f1:a:b=0.5", labels).title == "F1 of a:b=0.5"
    metric = find_metric("recall-at-precision:a:b=0.5=0.8", labels)
    assert (metric.label_id, metric.precision) == (0, 0.8)


def test_a_label_may_be_given_by_its_display_name():
    assert find_metric("f1:negative", ["1", "2"], ["negative", "positive"]).title == "F1 of negative"


class TestCosts:
    LABELS = ("1", "2", "3")

    def read(self, folder, text: str) -> list[list[float]]:
        path = folder / "costs.csv"
        path.write_text(text, encoding="utf-8")
        return read_costs(path, self.LABELS).tolist()

    def test_in_rows(self, tmp_path):
        text = "predicted,label,cost\n2,1,5\n*,*,1\n*,3,2.5\n"
        assert self.read(tmp_path, text) == [[0, 5, 1], [1, 0, 1], [2.5, 2.5, 0]]

    def test_in_a_table(self, tmp_path):
        assert self.read(tmp_path, ";3;1;2\n1;1;0;5\n2;1;1;0\n3;-0;2;2\n") == [[0, 5, 1], [1, 0, 1], [2, 2, 0]]

    def test_a_right_prediction_may_cost_something_too(self, tmp_path):
        assert self.read(tmp_path, "label,predicted,cost\n*,*,1\n1,1,0.2\n")[0] == [0.2, 1, 1]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("label,predicted,cost\n1,2,1\n", "'1' is predicted as '3'"),
            ("label,predicted,cost\n*,*,1\n9,1,2\n", "'9'"),
            ("label,predicted,cost\n*,*,one\n", "'one'"),
            ("label,predicted,cost\n*,*,-1\n", "'-1'"),
            ("label,predicted,cost\n*,*,nan\n", "'nan'"),
            ("label,predicted,cost\n*,*,0\n", "as good as any other"),
            ("", "empty"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, text, words):
        with pytest.raises(ConfigError, match=words):
            self.read(tmp_path, text)

    def test_the_mean_cost_of_a_text(self, tmp_path):
        (tmp_path / "costs.csv").write_text("label,predicted,cost\n*,*,1\n1,2,5\n", encoding="utf-8")
        metric = find_metric(f"costs:{tmp_path / 'costs.csv'}", ["1", "2"])
        probabilities = np.array([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
        assert metric.value(probabilities, np.array([0, 0, 1, 1])) == pytest.approx((5 + 0 + 1 + 0) / 4)
        assert metric.unit.worth == pytest.approx(0.01 * (5 + 1) / 2)


def test_tfidf_chooses_strength_and_class_weights_by_the_metric_on_validation_rows():
    rng = np.random.default_rng(0)
    words = [[f"{kind}{number}" for number in range(30)] for kind in "ab"] + [[f"c{number}" for number in range(200)]]
    rows = []
    for place in range(900):
        label = int(place % 8 == 0)
        telling = rng.choice(words[label if rng.random() < 0.75 else 1 - label], 2)
        rows.append({"label": str(label), "text": " ".join([*telling, *rng.choice(words[2], 8)])})
    data = read_texts(pd.DataFrame(rows))
    fitted = {name: TextClassifier("tfidf", metric=name).fit(data) for name in (None, "log-loss", "accuracy")}
    assert fitted[None].config.regularization_c == TfidfConfig().regularization_c
    assert fitted[None].config.class_weights == "balanced"
    # balanced weights make the rare class too likely
    assert fitted["log-loss"].config.class_weights == "none"
    losses = {name: one.evaluate(data.valid).log_loss for name, one in fitted.items()}
    assert losses["log-loss"] == min(losses.values()) < 0.9 * losses[None]
    assert fitted["accuracy"].evaluate(data.valid).accuracy >= fitted[None].evaluate(data.valid).accuracy
    again = TextClassifier("tfidf", metric="log-loss").fit(data)
    assert (again.predict_proba(data.test) == fitted["log-loss"].predict_proba(data.test)).all()
