"""Reading, choosing columns, labels and splits."""

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from textladder import TextData, read_texts
from textladder.data.labelled_texts import read_labelled
from textladder.data.row_files import as_text, open_rows
from textladder.errors import ConfigError, DataError

TRICKY = [
    ("neg", "plain words here", "1"),
    ("pos", 'he said "no, thanks"; then left', "2"),
    ("neg", "two\nlines, one field", "3"),
    ("pos", "café, naïve — 日本語 😀", "4"),
    ("neg", "a\ttab and a 'quote'", "5"),
    ("pos", 'ends with a quote"', "6"),
    ("neg", "", "7"),
    ("pos", "windows\r\nline end", "8"),
]


def write_rows(path: Path, rows: list[tuple[str, str, str]], encoding: str = "utf-8") -> Path:
    """The rows in the form that the file's name says, written by other code than the one that reads."""
    names = ["label", "text", "id"]
    plain = path.name.removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, delimiter="\t" if plain.endswith(".tsv") else ",")
        writer.writerows([names, *rows])
        data = stream.getvalue().encode(encoding)
    elif plain.endswith(".parquet"):
        sink = io.BytesIO()
        parquet.write_table(pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)}), sink)
        data = sink.getvalue()
    else:
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
        data = ("\n".join(lines) + "\n").encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def everything(data: TextData) -> list[tuple[str, str]]:
    """All texts with their labels, whatever part they are in."""
    parts = [part for part in (data.train, data.valid, data.test) if part is not None]
    return sorted(
        (data.labels[label], text) for part in parts for label, text in zip(part.label_ids, part, strict=True)
    )


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("form", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_every_form_reads_the_same(tmp_path: Path, form: str, zipped: str) -> None:
    data = read_texts(write_rows(tmp_path / f"rows{form}{zipped}", TRICKY), text="text", label="label")
    assert everything(data) == sorted((label, text) for label, text, _ in TRICKY)
    assert data.labels == ("neg", "pos")


def test_a_data_frame_reads_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame(TRICKY, columns=["label", "text", "id"])
    assert everything(read_texts(frame)) == sorted((label, text) for label, text, _ in TRICKY)


def test_a_data_set_of_the_library_reads_the_same(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["pos", "neg"]),
            "text": datasets.Value("string"),
            "id": datasets.Value("string"),
        }
    )
    columns = {name: [row[i] for row in TRICKY] for i, name in enumerate(("label", "text", "id"))}
    split = datasets.Dataset.from_dict(columns, features=features)
    data = read_texts(split)  # type: ignore[arg-type]
    assert everything(data) == sorted((label, text) for label, text, _ in TRICKY)
    assert data.labels == ("pos", "neg")  # its own order, not the alphabet's


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "utf-8"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    rows = [("ja", "schöner Käse", "1"), ("nein", "für die Füße", "2")] * 5
    path = write_rows(tmp_path / "rows.csv", rows, encoding)
    declared = {} if encoding.startswith("utf-8") else {"file_encoding": encoding}
    data = read_texts(path, **declared)
    assert ("ja", "schöner Käse") in everything(data)
    assert data.label_column == "label"  # no byte-order mark stuck to the first name


def test_amazon_form(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('"2","Fine","Good, really"\n"1","Bad","It ""broke"""\n' * 20)
    data = read_texts(path)
    assert (data.labels, data.label_names) == (("1", "2"), ("negative", "positive"))
    assert (data.text_columns, data.label_column) == (("title", "text"), "label")
    assert set(everything(data)) == {("2", "Fine Good, really"), ("1", 'Bad It "broke"')}
    assert "headerless Amazon form" in data.description
    assert "1 negative, 2 positive" in data.description
    assert "'title' + 'text'" in data.description
    assert set(read_texts(path, text="longest").train) == {"Good, really", 'It "broke"'}
    assert set(read_texts(path, columns=["mark", "head", "body"], label="mark", text=["head"]).train) == {
        "Fine",
        "Bad",
    }


def test_columns_are_found(tmp_path: Path) -> None:
    rows = [
        {
            "id": n,
            "url": f"http://x/{n}",
            "stars": n % 5,
            "kind": "ab"[n % 2],
            "headline": "Two words",
            "words": f"some longer text {n} here",
        }
        for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = read_texts(path)
    assert data.label_column == "stars"  # by name
    assert data.text_columns == ("headline", "words")
    assert data.labels == ("0", "1", "2", "3", "4")
    for row in rows:
        del row["stars"]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_texts(path).label_column == "kind"  # by few distinct values


def test_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label;text\n" + "a;one, two\nb;three, four\n" * 5)
    assert ("a", "one, two") in everything(read_texts(path))


def test_label_order() -> None:
    frame = pd.DataFrame({"label": [10, 9, 2] * 4, "text": ["some words"] * 12})
    assert read_texts(frame).labels == ("2", "9", "10")
    frame["label"] = pd.Categorical(["lo", "hi", "mid"] * 4, categories=["lo", "mid", "hi"], ordered=True)
    assert read_texts(frame).labels == ("lo", "mid", "hi")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (None, None),
        (np.int64(3), "3"),
        (float("nan"), None),
        (pd.NaT, None),
    ],
)
def test_cells_as_text(value: Any, text: str | None) -> None:
    assert as_text(value) == text


def many(rows: int = 1000, classes: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = rng.choice(classes, rows, p=[0.7, 0.2, 0.1][:classes] if classes == 3 else None)
    return pd.DataFrame({"label": labels, "text": [f"text number {n}" for n in range(rows)]})


def test_splits_are_stratified_disjoint_and_seeded() -> None:
    frame = many()
    data = read_texts(frame, seed=1)
    assert data.valid is not None
    parts = [data.train, data.valid, data.test]
    assert [len(part) for part in parts] == [720, 80, 200]
    assert len({text for part in parts for text in part}) == 1000
    whole = Counter(frame["label"])
    for part in parts:
        counts = Counter(part.label_ids.tolist())
        for label in whole:
            assert counts[label] == pytest.approx(whole[label] * len(part) / 1000, abs=1.01)
    assert list(read_texts(frame, seed=1).test) == list(data.test)
    assert list(read_texts(frame, seed=2).test) != list(data.test)


def test_rows_and_first_touch_only_the_training_file() -> None:
    frame, test = many(), many(50)
    data = read_texts(frame, test=test, rows=100)
    assert len(data.test) == 50
    assert data.valid is not None
    assert len(data.train) + len(data.valid) == 100
    assert read_texts(frame, test=test, rows=100).train.fingerprint() == data.train.fingerprint()
    assert read_texts(frame, test=test, rows=100, seed=3).train.fingerprint() != data.train.fingerprint()
    data = read_texts(frame, test=test, first=100, valid=0)
    assert list(data.train) == [f"text number {n}" for n in range(100)]
    assert data.valid is None


def test_tiny_classes_reach_every_part() -> None:
    frame = pd.DataFrame({"label": ["a"] * 20 + ["b"] * 2, "text": ["two words"] * 22})
    data = read_texts(frame)
    assert Counter(data.train.label_ids.tolist())[1] == 1
    assert Counter(data.test.label_ids.tolist())[1] == 1


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = read_texts(many())
    assert not list(tmp_path.iterdir())
    assert len(list(data.train)) == 720  # though the rows are still read from the disk


def test_read_labelled_keeps_the_learnt_order() -> None:
    frame = pd.DataFrame({"label": ["b", "a", "b"], "text": ["one two", "three four", "five six"]})
    rows = read_labelled(frame, ["b", "a", "c"])
    assert rows.label_ids.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="label 'b' in 'label' is not one that was learnt. Learnt: a, c"):
        read_labelled(frame, ["a", "c"])


def test_test_rows_must_fit() -> None:
    good = many(100)
    with pytest.raises(DataError, match="label '7'"):
        read_texts(good, test=pd.DataFrame({"label": [7, 7], "text": ["a b", "c d"]}))
    with pytest.raises(DataError, match="Unknown column 'text'. Available: label, texts. Did you mean 'texts'"):
        read_texts(good, test=pd.DataFrame({"label": [1, 2], "texts": ["a b", "c d"]}))


@pytest.mark.parametrize(("name", "value"), [("rows", 0), ("first", -1), ("valid", 1.0)])
def test_numbers_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError):
        read_texts(many(), **{name: value})  # type: ignore[arg-type]


def test_long_fields_and_many_columns(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("label,text\n" + f"a,{'word ' * 300_000}\nb,short one\n" * 3)
    assert max(map(len, read_texts(path).train)) == 1_500_000


def test_the_sample_is_what_its_card_says() -> None:
    data = read_texts("sample")
    assert data.valid is not None
    rows = len(data.train) + len(data.valid)
    assert rows >= 600
    assert len(data.test) >= 120
    assert data.labels == ("negative", "positive")
    for part in (data.test, data.train + data.valid):
        assert abs(part.label_ids.mean() - 0.5) < 0.01
    card = (Path(__file__).parents[1] / "src/textladder/sample/README.md").read_text()
    assert f"({rows} rows)" in card
    assert f"({len(data.test)} rows)" in card
    assert "CC0" in card


@pytest.mark.realdata
def test_the_real_rows_against_the_csv_module(shared: Path) -> None:
    folder = shared / "amazon_polarity"
    data = read_texts(folder / "train.csv", test=folder / "test.csv")
    assert data.valid is not None
    assert (len(data.train), len(data.valid), len(data.test)) == (8995, 1000, 2000)
    with (folder / "test.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert list(data.test) == [" ".join(part for part in row[1:] if part) for row in rows]
    assert [data.labels[label] for label in data.test.label_ids] == [row[0] for row in rows]
    news = read_texts(shared / "ag_news" / "ag_news.csv")
    assert news.labels == news.label_names == ("1", "2", "3", "4")
    assert len(news.test) == 1520
    imdb = read_texts(shared / "imdb" / "train.csv.gz", first=500)
    assert imdb.labels == ("neg", "pos")


def test_writers_keep_the_rows(tmp_path: Path) -> None:
    for form in (".csv", ".tsv", ".jsonl", ".parquet"):
        source = open_rows(write_rows(tmp_path / f"in{form}", TRICKY))
        out = tmp_path / f"out{form}"
        with out.open("wb") as stream:
            writer = source.write(stream, ["predicted_label", "predicted_probability"])
            for batch in source.batches(3):
                rows = len(source.column(batch, "id"))
                writer.add(batch, [["pos"] * rows, [0.5] * rows])
            writer.close()
        again = open_rows(out)
        assert again.names == ["label", "text", "id", "predicted_label", "predicted_probability"]
        batch = next(again.batches())
        for place, name in enumerate(("label", "text", "id")):
            assert again.column(batch, name) == [row[place] for row in TRICKY]
        assert again.column(batch, "predicted_probability") == ["0.5"] * len(TRICKY)
