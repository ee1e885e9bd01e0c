"""Labels keep their type, are one across formats, and are told when they are doubtful; columns that predict adds."""

import csv
import json
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from starlette.testclient import TestClient

from textladder import TextClassifier, TextData, audit_texts, compare, read_texts
from textladder.bundle import MANIFEST, _canonical, _own_digest
from textladder.cli import main
from textladder.comparison.predictions import PartPredictions, read_predictions, write_predictions
from textladder.data.labelled_texts import read_labelled
from textladder.data.labels import label_type, label_values, same_label
from textladder.errors import BundleError, ConfigError, DataError
from textladder.explain import explain_text
from textladder.metrics import SMALLEST_PROBABILITY, evaluate
from textladder.predict_file import predict_file
from textladder.serving.app import create_app

WORDS = ("poor weak", "fine strong", "odd square")
POOR, FINE = "a poor weak kettle", "a fine strong kettle"
NAN = float("nan")


def texts(rows: int = 40, words: Sequence[str] = WORDS[:2]) -> list[str]:
    """Texts that are all different, each with the words of a class, the classes in turn."""
    return [f"a {tell} kettle number{row}" for row, tell in enumerate(islice(cycle(words), rows))]


def labels_of(*labels: Any, rows: int = 40) -> list[Any]:
    """The labels in turn, as the texts are."""
    return list(islice(cycle(labels), rows))


def make(form: str, labels: Sequence[Any], folder: Path, texts_: Sequence[str] | None = None) -> Any:
    """Rows with labels: a file of a format, a DataFrame, a table, or a pair; a missing label is None or NaN."""
    texts_ = texts(len(labels)) if texts_ is None else texts_
    path = folder / f"{len(list(folder.iterdir()))}.{form}"
    if form in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter="\t" if form == "tsv" else ",")
            writer.writerows([("label", "text"), *zip(labels, texts_, strict=True)])
    elif form == "jsonl":
        pairs = zip(labels, texts_, strict=True)
        path.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in pairs))
    elif form == "parquet":
        parquet.write_table(pa.table({"label": list(labels), "text": list(texts_)}), path)
    elif form == "frame":
        return pd.DataFrame({"label": labels, "text": texts_})
    elif form == "objects":
        return pd.DataFrame({"label": pd.Series(list(labels), dtype=object), "text": texts_})
    elif form == "table":
        return pa.table({"label": list(labels), "text": list(texts_)})
    else:
        return list(texts_), labels
    return path


def fit(data: Any, **reading: Any) -> TextClassifier:
    found = data if isinstance(data, TextData) else read_texts(data, **reading)
    return TextClassifier("tfidf", min_documents=1).fit(found)


def typed(values: Sequence[Any]) -> list[tuple[type, Any]]:
    """Values with their types, because 1 == 1.0 == True."""
    return [(type(value), value) for value in values]


def accuracy(classifier: TextClassifier, data: Any, **reading: Any) -> float:
    return classifier.evaluate(read_labelled(data, classifier.labels, text="text", label="label", **reading)).accuracy


def output(path: Path) -> list[dict[str, Any]]:
    """The rows of a predicted file."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A bundle of the labels 1 and 2."""
    return fit((texts(), labels_of(1, 2))).save(tmp_path / "numbers")


@pytest.fixture
def wrong(tmp_path: Path) -> tuple[TextData, Path]:
    """Data whose test rows have two labels more than the training rows, and the test file."""
    test = make("jsonl", labels_of(1, 2, 7, 8, rows=24), tmp_path, texts(24, [*WORDS, "round"]))
    return read_texts((texts(60), labels_of(1, 2, rows=60)), test=test, unknown_labels="wrong"), test


def three_labels(tmp_path: Path, form: str, *labels: Any) -> tuple[TextClassifier, Path]:
    """A classifier of three labels that was read from a bundle, and a file to predict."""
    rows = texts(42, WORDS)
    classifier = fit(make(form, labels_of(*labels, rows=42), tmp_path, rows))
    source = tmp_path / f"in.{form}"
    make(form, range(12), tmp_path, rows[:12]).rename(source)
    return TextClassifier.load(classifier.save(tmp_path / "bundle")), source


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("1", "2"), (1, 2)),
        (("0.0", "1.0"), (0, 1)),
        (("-1", "1"), (-1, 1)),
        (("False", "True"), (False, True)),
        (("false", "true"), (False, True)),
        (("1.5", "2.5"), (1.5, 2.5)),
        (("1.5", "2.0"), (1.5, 2.0)),
        (("01", "02"), ("01", "02")),
        (("1", "02"), ("1", "02")),
        (("1.50", "2.50"), ("1.50", "2.50")),
        (("1", "true"), ("1", "true")),
        (("+1", "-1"), ("+1", "-1")),
        (("1", "nan?"), ("1", "nan?")),
        (("no", "yes"), ("no", "yes")),
    ],
)
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_in_a_delimited_file_what_is_written_decides(
    form: str, labels: tuple[str, str], expected: tuple[Any, Any], tmp_path: Path
) -> None:
    classifier = fit(make(form, labels_of(*labels), tmp_path))
    assert typed(classifier.predict([POOR, FINE])) == typed(expected)
    assert set(classifier.labels) == set(labels)  # kept as they are written


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((1, 2), (1, 2)),
        ((1.0, 0.0), (1, 0)),
        ((-0.0, 1.0), (0, 1)),
        ((True, False), (True, False)),
        ((1.5, 2.0), (1.5, 2.0)),
        (("1", "2"), ("1", "2")),
        (("1.0", "0.0"), ("1.0", "0.0")),
        (("true", "false"), ("true", "false")),
        ((10**17, -(10**17)), (10**17, -(10**17))),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet", "frame", "objects", "table", "pair"])
def test_where_values_have_types_these_decide(
    form: str, labels: tuple[Any, Any], expected: tuple[Any, Any], tmp_path: Path
) -> None:
    data = read_texts(make(form, labels_of(*labels), tmp_path))
    classifier = fit(data)
    assert typed(classifier.predict([POOR, FINE])) == typed(expected)
    assert classifier.label_type == data.label_type == label_type(data.labels, [type(labels[0])])
    assert all(isinstance(label, str) for label in classifier.labels)


@pytest.mark.parametrize(
    ("dtype", "labels", "expected"),
    [
        ("int8", (1, 2), (1, 2)),
        ("uint64", (1, 2), (1, 2)),
        ("Int64", (1, 2), (1, 2)),
        ("float32", (1, 2), (1, 2)),
        ("float32", (0.5, 1.5), (0.5, 1.5)),
        ("bool", (True, False), (True, False)),
        ("boolean", (True, False), (True, False)),
        ("str", ("1", "2"), ("1", "2")),
        ("category", (1, 2), (1, 2)),
    ],
)
def test_the_types_of_numpy_and_pandas(
    dtype: str, labels: tuple[Any, Any], expected: tuple[Any, Any], tmp_path: Path
) -> None:
    column = pd.Series(labels_of(*labels)).astype(dtype)
    assert typed(fit(make("frame", column, tmp_path)).predict([POOR, FINE])) == typed(expected)
    if dtype != "category" and dtype[0].islower():
        assert typed(fit((texts(), np.array(column))).predict([POOR, FINE])) == typed(expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((1, "2"), ("1", "2")),
        ((True, 0), ("true", "0")),
        (("true", False), ("true", "false")),
        ((1, 10**20), ("1", "100000000000000000000")),
    ],
)
def test_values_of_mixed_types_are_text(labels: tuple[Any, Any], expected: tuple[str, str]) -> None:
    assert typed(fit((texts(), labels_of(*labels))).predict([POOR, FINE])) == typed(expected)


@pytest.mark.parametrize(
    ("form", "missing", "labels"),
    [
        ("frame", NAN, (1, 2)),
        *[(form, None, labels) for form in ("objects", "jsonl", "parquet") for labels in ((1, 2), (True, False))],
        *[("csv", "", labels) for labels in ((1, 2), (True, False))],
    ],
)
def test_rows_without_a_label_do_not_change_the_type(
    form: str, missing: Any, labels: tuple[Any, Any], tmp_path: Path
) -> None:
    rows = [missing, missing, *labels_of(*labels, rows=38)]
    with pytest.raises(DataError, match="2 of 40 rows have no label in 'label'"):
        read_texts(make(form, rows, tmp_path))
    classifier = fit(make(form, rows, tmp_path), drop_missing=True)
    assert typed(classifier.predict([POOR, FINE])) == typed(labels)
    left_out = fit(make("csv", ["NA", "NA", *rows[2:]], tmp_path), missing_label="NA")
    assert typed(left_out.predict([POOR, FINE])) == typed(labels)


@pytest.mark.parametrize("labels", [(1, 2), (True, False), (1.5, 2.5), ("1", "2")])
def test_predictions_are_typed_before_and_after_saving(labels: tuple[Any, Any], tmp_path: Path) -> None:
    classifier = fit((texts(), labels_of(*labels)))
    loaded = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert json.loads((tmp_path / "bundle" / MANIFEST).read_text())["label_type"] == classifier.label_type
    for one in (classifier, loaded):
        found = one.predictions([POOR, FINE])
        assert typed([prediction.label for prediction in found]) == typed(labels)
        assert [set(prediction.probabilities) for prediction in found] == [set(classifier.labels)] * 2
        assert typed([explain_text(one, POOR).prediction.label]) == typed(labels[:1])
        assert typed(one.label_values) == typed(label_values(one.labels, one.label_type))


def forge(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows the format."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    manifest["sha256"] = _own_digest(manifest)
    (bundle / MANIFEST).write_bytes(_canonical(manifest))


@pytest.mark.parametrize("type_", ["integer", "number", "boolean", "date", "", 7, None])
def test_a_bundle_whose_labels_have_another_type_is_refused(type_: Any, tmp_path: Path) -> None:
    bundle = fit((texts(), labels_of("no", "yes"))).save(tmp_path / "bundle")
    forge(bundle, lambda manifest: manifest.update(label_type=type_))
    with pytest.raises(BundleError):
        TextClassifier.load(bundle)


def test_a_bundle_without_a_type_has_labels_of_text(numbers: Path) -> None:
    forge(numbers, lambda manifest: manifest.pop("label_type"))
    assert typed(TextClassifier.load(numbers).predict([POOR, FINE])) == typed(["1", "2"])


@pytest.mark.parametrize(
    ("typed_labels", "written"),
    [
        ((1, 2), [("1", "2"), ("1.0", "2.0")]),
        ((True, False), [("True", "False"), ("true", "false"), ("TRUE", "FALSE")]),
    ],
)
def test_a_label_is_the_same_in_every_format(
    typed_labels: tuple[Any, Any], written: list[tuple[str, str]], tmp_path: Path
) -> None:
    kinds = [(form, typed_labels) for form in ("jsonl", "parquet", "frame")]
    kinds += [("jsonl", written[0]), *[("csv", labels) for labels in written]]
    made: list[tuple[Any, dict[str, Any]]] = [(make(form, labels_of(*one), tmp_path), {}) for form, one in kinds]
    if typed_labels == (1, 2):
        missing = make("frame", [NAN, NAN, *labels_of(1, 2, rows=38)], tmp_path)
        made.append((missing, {"drop_missing": True}))
    for data, reading in made:
        classifier = fit(data, **reading)
        for other, other_reading in made:
            assert accuracy(classifier, other, **other_reading) == 1
        assert read_texts(data, test=made[0][0], **reading).test.labels == classifier.labels


def test_text_that_only_looks_like_another_label_stays_apart(tmp_path: Path) -> None:
    classifier = fit(make("jsonl", labels_of("1", "1.0"), tmp_path))
    assert classifier.predict([POOR, FINE]) == ["1", "1.0"]
    assert accuracy(classifier, make("jsonl", labels_of("1", "1.0"), tmp_path)) == 1
    classifier = fit(make("csv", labels_of("v1", "v2"), tmp_path))
    with pytest.raises(DataError, match="label 'v1.0' in 'label' was not seen in training"):
        accuracy(classifier, make("csv", labels_of("v1.0", "v2"), tmp_path))


@pytest.mark.parametrize(
    ("labels", "expected", "values", "said"),
    [
        (("0", "1", "0", "1", "0", "1.0"), ("0", "1"), (0, 1), "'1.0' and '1'"),
        (("0", "1.0", "0", "1.0", "0", "1"), ("0", "1.0"), (0, 1), "'1' and '1.0'"),
        (("False", "True", "False", "True", "False", "true"), ("False", "True"), (False, True), "'true' and 'True'"),
    ],
)
@pytest.mark.parametrize("merge", [False, True])
def test_a_value_written_in_two_ways_is_one_class(
    labels: tuple[str, ...],
    expected: tuple[str, ...],
    values: tuple[Any, ...],
    said: str,
    merge: bool,
    tmp_path: Path,
) -> None:
    data = read_texts(make("csv", labels_of(*labels, rows=42), tmp_path), merge_labels=merge)
    assert data.labels == expected
    if not merge:
        assert f"labels with the same value ({said}) taken for one" in data.description
    classifier = fit(data)
    assert typed(classifier.predict([POOR, FINE])) == typed(values)
    assert accuracy(classifier, make("csv", labels_of(*labels, rows=42), tmp_path)) == 1


@pytest.mark.parametrize("how", ["drop", "merge"])
def test_rare_classes_are_told_in_another_format_too(how: str, tmp_path: Path) -> None:
    train = make("frame", labels_of(1, 2) + [3, 4], tmp_path)
    test = make("csv", ["1.0", "2.0", "3.0", "4.0"], tmp_path)
    data = read_texts(train, test=test, rare_classes=how)
    if how == "drop":
        assert (data.labels, list(data.test.label_ids)) == (("1", "2"), [0, 1])
    else:
        assert (data.labels, list(data.test.label_ids)) == (("1", "2", "other"), [0, 1, 2, 2])


@pytest.mark.parametrize(
    ("form", "labels", "written"),
    [
        ("jsonl", (1, 2, 3), (1, 2, 3)),
        ("jsonl", ("1", "2", "3"), ("1", "2", "3")),
        ("jsonl", (0.5, 1.5, 2.0), (0.5, 1.5, 2.0)),
        ("parquet", (1, 2, 3), (1, 2, 3)),
        ("parquet", ("a", "b", "c"), ("a", "b", "c")),
        ("csv", ("1.0", "2.0", "3.0"), ("1.0", "2.0", "3.0")),
        ("csv", ("1", "2", "03"), ("1", "2", "03")),
    ],
)
def test_the_columns_of_predicted_files(
    form: str, labels: tuple[Any, ...], written: tuple[Any, ...], tmp_path: Path
) -> None:
    classifier, source = three_labels(tmp_path, form, *labels)
    target = tmp_path / f"out.{form}"
    assert predict_file(classifier, source, target, top_k=2, probabilities=True) == 12
    rows = output(target)
    expected = classifier.predict_proba(texts(12, WORDS))
    names = [f"probability_{label}" for label in classifier.labels]
    best = ["predicted_label", "predicted_probability", "predicted_label_2", "predicted_probability_2"]
    assert list(rows[0]) == ["label", "text", *best, *names]
    assert typed([row["predicted_label"] for row in rows]) == typed(labels_of(*written, rows=12))
    for row, numbers in zip(rows, expected, strict=True):
        every = [float(row[name]) for name in names]
        assert every == pytest.approx(numbers.tolist(), abs=1e-6)
        assert sum(every) == pytest.approx(1, abs=3e-6)
        order = np.argsort(-numbers)
        for number, place in (("", order[0]), ("_2", order[1])):
            assert same_label(str(row[f"predicted_label{number}"])) == same_label(classifier.labels[place])
            assert float(row[f"predicted_probability{number}"]) == pytest.approx(numbers[place], abs=1e-6)


@pytest.mark.parametrize(("form", "written"), [("jsonl", (True, False)), ("csv", ("True", "False"))])
def test_booleans_in_predicted_files(form: str, written: tuple[Any, Any], tmp_path: Path) -> None:
    classifier = fit(make("csv", labels_of("True", "False"), tmp_path))  # of another format than the output
    predict_file(classifier, make(form, labels_of(0, 1), tmp_path), tmp_path / f"out.{form}")
    rows = output(tmp_path / f"out.{form}")
    assert typed([row["predicted_label"] for row in rows]) == typed(labels_of(*written))


@pytest.mark.parametrize(
    ("labels", "type_"), [((1, 2), "int64"), ((True, False), "bool"), ((1.5, 2.0), "double"), (("a", "b"), "string")]
)
def test_the_types_of_columns_in_parquet(labels: tuple[Any, Any], type_: str, tmp_path: Path) -> None:
    source = make("parquet", labels_of(*labels), tmp_path)
    predict_file(fit(source), source, tmp_path / "out.parquet", top_k=2, probabilities=True)
    schema = parquet.read_schema(tmp_path / "out.parquet")
    found = {name: str(schema.field(name).type) for name in schema.names[2:]}
    assert [found.pop(name) for name in ("predicted_label", "predicted_label_2")] == [type_] * 2
    assert len(found) == 4
    assert set(found.values()) == {"double"}


@pytest.mark.parametrize("top_k", [0, 3, -1])
def test_how_many_labels_is_checked(
    top_k: int, numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = make("csv", labels_of(1, 2), tmp_path), tmp_path / "out.csv"
    with pytest.raises(ConfigError, match=f"`top_k=` must be from 1 to 2, the number of labels; received {top_k}"):
        predict_file(TextClassifier.load(numbers), source, target, top_k=top_k)
    for words in (["a text"], ["--input", str(source), "--output", str(target)]):
        assert main(["predict", str(numbers), *words, f"--top-k={top_k}"]) == 2
        assert f"from 1 to 2, the number of labels; received {top_k}" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("predicted_label", {}),
        ("predicted_label_2", {"top_k": 2}),
        ("predicted_probability_2", {"top_k": 2}),
        ("probability_1", {"probabilities": True}),
    ],
)
def test_an_existing_column_is_not_replaced(name: str, options: dict[str, Any], numbers: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    pd.DataFrame({"text": texts(6), name: range(6)}).to_csv(source, index=False)
    classifier = TextClassifier.load(numbers)
    with pytest.raises(DataError, match=f"column '{name}' already exists; rename it first"):
        predict_file(classifier, source, target, **options)
    assert not list(tmp_path.glob("out*"))
    if options:
        assert predict_file(classifier, source, target) == 6  # which adds no such column
        assert list(output(target)[0]) == ["text", name, "predicted_label", "predicted_probability"]


def test_other_columns_do_not_resume(numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = TextClassifier.load(numbers)
    source, target = make("csv", labels_of(1, 2), tmp_path), tmp_path / "out.csv"

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("textladder.predict_file.PredictionColumns.values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_file(classifier, source, target, top_k=2)
    others: list[dict[str, Any]] = [{}, {"top_k": 1}, {"top_k": 2, "probabilities": True}]
    for options in others:
        with pytest.raises(ConfigError, match="out.csv.partial belongs to a different input, bundle or settings"):
            predict_file(classifier, source, target, **options)
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "score", interrupted)  # nothing is left to predict
        assert predict_file(classifier, source, target, top_k=2) == 40
    assert "predicted_label_2" in output(target)[0]


def test_the_command_gives_several_labels(numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(numbers), FINE, "--top-k", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "2"
    assert first.endswith(FINE)
    assert second.split()[0] == "1"
    assert FINE not in second
    assert main(["predict", str(numbers), FINE, POOR, "--probabilities"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["2", "1", "1", "2"]
    assert main(["predict", str(numbers), FINE, "--json", "--top-k", "2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["label"] == 2
    assert [one["label"] for one in found["top"]] == [2, 1]
    assert found["top"][0] == {name: found[name] for name in ("label", "name", "probability")}
    assert sum(one["probability"] for one in found["top"]) == pytest.approx(1, abs=1e-6)
    assert main(["predict", str(numbers), FINE, "--json"]) == 0
    assert "top" not in json.loads(capsys.readouterr().out)["predictions"][0]
    source, target = make("jsonl", labels_of(1, 2), tmp_path), tmp_path / "out.jsonl"
    files = ["--input", str(source), "--output", str(target)]
    assert main(["predict", str(numbers), *files, "--top-k", "2", "--probabilities"]) == 0
    assert {"predicted_label_2", "probability_1", "probability_2"} < set(output(target)[0])


@pytest.mark.parametrize("labels", [(1, 2), (True, False), (1.5, 2.5), ("1", "2")])
def test_the_service_answers_with_typed_labels(labels: tuple[Any, Any]) -> None:
    with TestClient(create_app({"tfidf": fit((texts(), labels_of(*labels)))})) as client:
        found = client.post("/predict", json={"text": [POOR, FINE]}).json()["predictions"]
        assert typed([one["label"] for one in found]) == typed(labels)
        assert all(isinstance(one["name"], str) for one in found)
        for text, label in zip((POOR, FINE), labels, strict=True):
            explained = client.post("/explain", json={"text": text}).json()
            assert typed([explained["label"]]) == typed([label])
            assert explained["words"]


def test_an_unknown_label_is_an_error_that_names_the_choices(wrong: tuple[TextData, Path]) -> None:
    data, test = wrong
    train = (texts(60), labels_of(1, 2, rows=60))
    for read in (lambda: read_texts(train, test=test), lambda: read_labelled(test, data.labels)):
        with pytest.raises(DataError, match="label '7' in 'label' was not seen in training") as error:
            read()
        assert 'unknown_labels="drop"' in str(error.value)
        assert 'unknown_labels="wrong"' in str(error.value)
        assert "Known labels: 1, 2." in str(error.value)
    dropped = read_texts(train, test=test, unknown_labels="drop")
    assert (len(dropped.test), dropped.test.labels) == (12, ("1", "2"))
    assert "12 test rows with other labels left out" in dropped.description
    with pytest.raises(ConfigError, match="unknown_labels must be one of error, drop, wrong; received 'ignore'"):
        read_texts(train, test=test, unknown_labels="ignore")


def test_unknown_labels_count_as_wrong(wrong: tuple[TextData, Path]) -> None:
    data, test = wrong
    assert data.labels == data.train.labels == ("1", "2")
    assert data.test.labels == data.test.label_names == ("1", "2", "7", "8")
    assert len(data.test) == 24
    assert "12 test rows with labels not seen in training count as wrong" in data.description
    classifier = fit(data)
    found = classifier.evaluate(data.test)
    assert (found.accuracy, found.rows) == (0.5, 24)
    assert np.isfinite(found.log_loss)
    assert typed(classifier.predict([POOR])) == typed([1])
    rows = read_labelled(test, classifier.labels, unknown_labels="wrong")
    assert rows.labels == data.test.labels
    assert classifier.evaluate(rows) == found
    assert classifier.evaluate(read_labelled(test, classifier.labels, unknown_labels="drop")).accuracy == 1
    with pytest.raises(DataError, match="The rows have the labels"):
        classifier.evaluate(read_labelled(test, ("2", "1"), unknown_labels="wrong"))


def test_the_commands_count_unknown_labels_as_wrong(
    wrong: tuple[TextData, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, test = wrong
    bundle = fit(data).save(tmp_path / "bundle")
    for choice, expected, rows, said in (
        ("wrong", 0.5, 24, "12 rows with labels not seen in training count as wrong"),
        ("drop", 1, 12, "12 rows with labels not seen in training left out"),
    ):
        assert main(["evaluate", str(bundle), str(test), "--unknown-labels", choice, "--json"]) == 0
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        assert (found["accuracy"], found["rows"]) == (expected, rows)
        assert said in printed.err
        assert len(found["labels"]) == len(found["confusion"]) == (4 if choice == "wrong" else 2)
        assert np.shape(found["confusion"])[1] == len(found["per_class"]) == 2
    assert main(["evaluate", str(bundle), str(test)]) == 2
    message = capsys.readouterr().err
    assert "--unknown-labels drop" in message
    assert "--unknown-labels wrong" in message
    train = make("csv", labels_of(1, 2), tmp_path)
    words = ["train", str(train), "--test", str(test), "--level", "tfidf", "--unknown-labels", "wrong", "--json"]
    assert main([*words, "--out", str(tmp_path / "trained")]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["test"]["accuracy"] == 0.5
    assert "count as wrong" in " ".join(printed.err.split())


def test_metrics_of_labels_beyond_the_classes() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]], np.float32)
    found = evaluate(probabilities, np.array([0, 1, 3]))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.8, SMALLEST_PROBABILITY]).mean(), rel=1e-5)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)  # the label 3 is a class that is never predicted
    nothing = evaluate(probabilities, np.array([2, 2, 2]))
    assert (nothing.accuracy, nothing.macro_f1) == (0, 0)
    assert nothing.log_loss == pytest.approx(-np.log(SMALLEST_PROBABILITY))


def test_predictions_with_unknown_labels_are_kept(wrong: tuple[TextData, Path], tmp_path: Path) -> None:
    data, _ = wrong
    classifier = fit(data)
    assert data.valid is not None
    parts = {
        name: PartPredictions(part, np.arange(len(part)), classifier.predict_proba(part))
        for name, part in (("valid", data.valid), ("test", data.test))
    }
    for names in (["valid", "test"], ["test", "valid"], ["test"]):
        path = tmp_path / "predictions.parquet"
        write_predictions(path, {name: parts[name] for name in names})
        label_ids, probabilities, part = read_predictions(path)
        for name in names:
            assert probabilities[part == name].tolist() == parts[name].probabilities.tolist()
            assert label_ids[part == name].tolist() == parts[name].texts.label_ids.tolist()
        table = parquet.read_table(path).to_pandas()
        assert set(table["label"]) == {"1", "2", "7", "8"}
        assert set(table["predicted"]) <= {"1", "2"}


def test_a_comparison_with_unknown_labels(wrong: tuple[TextData, Path], tmp_path: Path) -> None:
    data, test = wrong
    found = compare(data, ["tfidf"], seeds=1, out=tmp_path / "run")
    assert found.levels[0].test.accuracy == 0.5
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["labels"] == ["1", "2"]
    assert results["audit"]["classes"] == {"1": 36, "2": 36, "7": 6, "8": 6}
    assert "count as wrong" in results["data"]
    for name in ("report.html", "report.md"):
        assert "count as wrong" in (tmp_path / "run" / name).read_text()
    loaded = TextClassifier.load(tmp_path / "run" / results["levels"][0]["bundle"])
    assert typed(loaded.predict([POOR, FINE])) == typed([1, 2])
    assert accuracy(loaded, test, unknown_labels="wrong") == 0.5


@pytest.mark.parametrize("keys", [(1, 2), ("1", "2"), (1.0, "2.0"), (np.int64(1), np.int64(2))])
def test_names_of_labels(keys: tuple[Any, Any], tmp_path: Path) -> None:
    data = read_texts((texts(), labels_of(1, 2)), label_names=dict(zip(keys, ("World", "Sports"), strict=True)))
    assert (data.labels, data.label_names, data.test.label_names) == (("1", "2"), ("World", "Sports"), data.label_names)
    classifier = fit(data)
    for one in (classifier, TextClassifier.load(classifier.save(tmp_path / "bundle"))):
        assert [(found.label, found.name) for found in one.predictions([POOR, FINE])] == [(1, "World"), (2, "Sports")]
    some = read_texts(make("csv", labels_of("True", "False"), tmp_path), label_names={True: "spam"})
    assert some.label_names == ("False", "spam")


def test_amazon_names_are_kept_beside_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("".join(f'"{n % 2 + 1}","title","{text}"\n' for n, text in enumerate(texts())))
    classifier = fit(path)
    assert [(one.label, one.name) for one in classifier.predictions([POOR, FINE])] == [(1, "negative"), (2, "positive")]
    assert read_texts(path, label_names={1: "bad"}).label_names == ("bad", "positive")


def test_names_of_labels_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, bundle = make("csv", labels_of(1, 2), tmp_path), tmp_path / "bundle"
    words = ["train", str(source), "--level", "tfidf", "--out", str(bundle), "--label-names"]
    assert main([*words, '1=World, "2=Sports, Games"']) == 0
    assert TextClassifier.load(bundle).label_names == ("World", "Sports, Games")
    assert json.loads((bundle / MANIFEST).read_text())["label_names"] == ["World", "Sports, Games"]
    capsys.readouterr()
    assert main(["predict", str(bundle), POOR, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert (found["label"], found["name"]) == (1, "World")
    assert main(["predict", str(bundle), POOR]) == 0
    assert capsys.readouterr().out.startswith("1 World")
    for value, message in (
        ("1", "such as 1=World,2=Sports; received '1'"),
        ("=World", "received '=World'"),
        ("1=", "received '1='"),
        ("", "received ''"),
        ("9=World", "Unknown label '9'"),
        ("1=2", "more than one label would be called '2'"),
    ):
        assert main([*words, value, "--overwrite"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({3: "Business"}, "`label_names=`: Unknown label '3'"),
        ({"One": "World"}, "`label_names=`: Unknown label 'One'"),
        ({1: "World", 2: "World"}, "`label_names=`: more than one label would be called 'World'"),
        ({1: "2"}, "`label_names=`: more than one label would be called '2'"),
    ],
)
def test_names_that_do_not_fit(names: dict[Any, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_texts((texts(), labels_of(1, 2)), label_names=names)
    assert read_texts((texts(), labels_of(1, 2)), label_names={1: "2", 2: "1"}).label_names == ("2", "1")


@pytest.mark.parametrize(
    ("labels", "finding", "way_out", "left"),
    [
        (
            ("neg", "pos", "neg", "Pos"),
            "Labels that differ only in case: 'Pos' and 'pos'",
            ["--merge-labels"],
            ["neg", "Pos"],
        ),
        (
            ("neg", "pos", "neg", "NA"),
            "The label 'NA' of 10 rows looks like a missing one",
            ["--missing-label", "NA"],
            ["neg", "pos"],
        ),
        (("neg", "pos", "neg", "label"), "The label 'label' is also the name of the column", [], []),
    ],
)
def test_an_audit_finds_doubtful_labels(
    labels: tuple[str, ...],
    finding: str,
    way_out: list[str],
    left: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make("csv", labels_of(*labels), tmp_path)
    found = audit_texts(read_texts(source), levels=["tfidf"])
    assert any(one.startswith(finding) for one in found.findings())
    words = ["audit", str(source), "--levels", "tfidf"]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert finding in printed
    assert " ".join(way_out) in printed
    assert "_label" not in printed  # no argument in Python
    if way_out:
        assert main([*words, *way_out, "--json"]) == 0
        after = json.loads(capsys.readouterr().out)
        assert sorted(after["classes"]) == sorted(left)
        assert after["warnings"] == []


@pytest.mark.parametrize(("rows", "found"), [(40, True), (19, False)])
def test_an_audit_finds_a_text_that_gives_the_label_away(
    rows: int, found: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    columns = {"label": labels_of("a", "b", rows=rows), "kind": labels_of("of the first", "of the second", rows=rows)}
    pd.DataFrame({**columns, "text": texts(rows)}).to_csv(source, index=False)
    expected = "'kind' may not be a text: each of its values stands for one label, so it gives the label away"
    data = read_texts(source, text=["kind", "text"])
    assert (expected in data.description) is found
    assert data.warnings == ((expected,) if found else ())
    assert main(["audit", str(source), "--levels", "tfidf", "--text", "kind,text"]) == 0
    assert (expected in " ".join(capsys.readouterr().out.split())) is found
    if found:  # without a name it is not taken
        assert read_texts(source).text_columns == ("text",)
        assert read_texts(source).warnings == ()
        mixed = pd.DataFrame({**columns, "text": texts(rows)}).assign(label=["a", "a", "b", "b"] * (rows // 4))
        assert read_texts(mixed, text=["kind", "text"]).warnings == ()


@pytest.mark.parametrize("form", ["csv", "jsonl", "frame"])
def test_merged_rare_classes_make_labels_text(form: str, tmp_path: Path) -> None:
    rows = texts(48, WORDS[:2])[:40] + [f"an odd square kettle number{row}" for row in range(8)]
    labels = labels_of(1, 2) + [11, 12, 13, 14, 15, 16, 17, 18]
    data = read_texts(make(form, labels, tmp_path, rows), rare_classes="merge")
    assert (data.labels, data.label_type) == (("1", "2", "other"), "text")
    assert "8 classes of fewer than 2 rows merged into 'other'" in data.description
    assert typed(fit(data).predict([POOR, FINE, "an odd square kettle"])) == typed(["1", "2", "other"])
    dropped = read_texts(make(form, labels, tmp_path, rows), rare_classes="drop")
    assert typed(fit(dropped).predict([POOR, FINE])) == typed([1, 2])
    nothing = read_texts(make(form, labels[:40], tmp_path, rows[:40]), rare_classes="merge")
    assert nothing.label_type == "integer"


def test_one_rare_row_cannot_be_merged() -> None:
    source = (texts(41), [1, 2] * 20 + [3])
    with pytest.raises(
        DataError, match="class 'other'; pass `rare_classes=\"drop\"`.*or `min_class_rows=` to merge more"
    ):
        read_texts(source, rare_classes="merge")
    assert "1 class of fewer than 2 rows left out (1 row)" in read_texts(source, rare_classes="drop").description


def test_numbers_that_mean_no_label() -> None:
    texts = [f"a good kettle {number}" for number in range(60)]
    data = read_texts((texts, [0, 1, -1] * 20), missing_label=-1)
    assert data.labels == ("0", "1")
    assert read_texts((texts, [0, 1, -1] * 20), missing_label=[-1]).labels == ("0", "1")


def test_categories_with_blanks_keep_their_order() -> None:
    texts = [f"a good kettle {number}" for number in range(40)]
    frame = pd.DataFrame({"text": texts, "label": pd.Categorical([" pos", "neg"] * 20, [" pos", "neg"])})
    assert read_texts(frame).labels == ("pos", "neg")


def test_a_label_with_two_names_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sample", "--level", "tfidf", "--out", "b", "--label-names", "1=a,1=b"]) == 2
    assert "a label has two names in '1=a,1=b'" in capsys.readouterr().err
