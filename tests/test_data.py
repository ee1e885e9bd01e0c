"""Reading, choosing columns, labels and splits."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from textladder import LabelledTexts, TextData, read_texts
from textladder.data.labelled_texts import read_labelled
from textladder.data.mapped_tables import write_table
from textladder.data.row_files import open_rows
from textladder.data.row_sources import open_source
from textladder.data.rows import as_text
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
    """Write rows in the format of the file's name, with other code than the one that reads them."""
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
    """All texts with their labels, of all parts."""
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


def test_a_frame_in_the_amazon_form() -> None:
    rows = [[2, "Fine", "Good, really"], [1, "Bad", "It broke"]] * 20
    frame = pd.DataFrame(rows, columns=["label", "title", "text"])
    data = read_texts(frame, test=frame)
    assert (data.labels, data.label_names) == (("1", "2"), ("negative", "positive"))
    assert data.train.label_names == data.test.label_names == ("negative", "positive")
    assert "(DataFrame): label from 'label' (1 negative, 2 positive), text from 'title' + 'text'" in data.description
    for other in (
        frame.assign(label=frame["label"].astype(str)),
        frame.assign(label=frame["label"] + 1),
        frame.assign(label=[1, 2, 3, 4] * 10),
        frame[["label", "text", "title"]],
        frame.assign(id=1),
    ):
        data = read_texts(other)
        assert data.label_names == data.labels


def test_a_column_named_longest_can_be_chosen() -> None:
    frame = pd.DataFrame({"label": ["a", "b"] * 5, "longest": ["two words"] * 10, "text": ["many more words"] * 10})
    assert read_texts(frame, text="longest").text_columns == ("longest",)
    assert read_texts(frame.rename(columns={"longest": "short"}), text="longest").text_columns == ("text",)


def test_every_source_has_the_members_of_the_protocol(tmp_path: Path) -> None:
    import datasets

    frame = pd.DataFrame(TRICKY, columns=["label", "text", "id"])
    files = [write_rows(tmp_path / f"in{form}", TRICKY) for form in (".csv", ".jsonl", ".parquet")]
    for data in (*files, frame, datasets.Dataset.from_pandas(frame)):
        source, _ = open_source(data)
        assert source.amazon_form is False
        assert source.label_order("label") is None


def test_the_limit_on_fields_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("label,text\n" + f"a,{'word ' * 300_000}\nb,short one\n" * 300)
    before = csv.field_size_limit()
    batches = open_rows(path).batches(10)
    rows = len(next(batches))  # also while a file is being read
    assert csv.field_size_limit() == before
    assert rows + sum(len(batch) for batch in batches) == 600
    path.write_text("label,text\n" + 'a,"quoted"\n' * 4 + 'a,"an open quote\n')
    with pytest.raises(DataError, match="opened and never closed"):
        list(open_rows(path).batches())
    assert csv.field_size_limit() == before


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


def test_read_labelled_keeps_the_order_of_the_classes() -> None:
    frame = pd.DataFrame({"label": ["b", "a", "b"], "text": ["one two", "three four", "five six"]})
    rows = read_labelled(frame, ["b", "a", "c"])
    assert rows.label_ids.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="label 'b' in 'label' was not seen in training; .* Known labels: a, c"):
        read_labelled(frame, ["a", "c"])


def test_test_rows_must_fit() -> None:
    good = many(100)
    with pytest.raises(DataError, match="label '7'"):
        read_texts(good, test=pd.DataFrame({"label": [7, 7], "text": ["a b", "c d"]}))
    with pytest.raises(DataError, match="Unknown column 'text'. Available: label, texts. Did you mean 'texts'"):
        read_texts(good, test=pd.DataFrame({"label": [1, 2], "texts": ["a b", "c d"]}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rows", 0, "^rows must be a positive number; received 0"),
        ("first", -1, "^first must be a positive number; received -1"),
        ("test_first", 0, "^test_first must be a positive number; received 0"),
        ("valid", 1.0, "^valid, the fraction of validation rows, must be at least 0 and less than 1; received 1.0"),
        ("seed", -1, "seed must be from 0 to 4294967295; received -1"),
    ],
)
def test_numbers_out_of_range(name: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_texts(many(), test=many(50), **{name: value})  # type: ignore[arg-type]


def test_the_first_rows_of_the_test_file() -> None:
    data = read_texts(many(), test=many(50), test_first=7)
    assert list(data.test) == [f"text number {n}" for n in range(7)]
    assert "validation and 7 test rows" in data.description
    assert len(read_texts(many(), test=many(50), test_first=99).test) == 50
    assert "and 1 test row." in read_texts(many(), test=many(50), test_first=1).description
    assert len(read_texts("sample", test_first=5).test) == 5  # the test rows that a known data set brings
    with pytest.raises(ConfigError, match="`test_first=` needs separate test rows; pass them with `test="):
        read_texts(many(), test_first=7)


def test_labels_that_are_missing_or_too_many() -> None:
    frame = many(100).astype({"label": object})
    frame.loc[[4], "label"] = None
    with pytest.raises(DataError, match="1 of 100 rows has no label in 'label'; to leave them out, pass drop_missing"):
        read_texts(frame)
    assert "1 row without a label left out" in read_texts(frame, drop_missing=True).description
    frame = pd.DataFrame({"label": [f"c{n}" for n in range(1001)] * 2, "text": ["some words"] * 2002})
    with pytest.raises(DataError, match="more than 1,000 distinct values; if it is the label all the same, name it"):
        read_texts(frame)
    assert len(read_texts(frame, test=frame, label="label", valid=0).labels) == 1001


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
            writer = source.writer(stream, {"predicted_label": pa.string(), "score": pa.float64(), "id2": pa.int64()})
            for batch in source.batches(3):
                rows = len(source.column(batch, "id"))
                writer.add(batch, [["pos"] * rows, [0.5] * rows, [7] * rows])
            writer.close()
        again = open_rows(out)
        assert again.names == ["label", "text", "id", "predicted_label", "score", "id2"]
        batch = next(again.batches())
        for index, name in enumerate(("label", "text", "id")):
            assert again.column(batch, name) == [row[index] for row in TRICKY]
        assert again.column(batch, "score") == ["0.5"] * len(TRICKY)
        assert again.column(batch, "id2") == ["7"] * len(TRICKY)


def test_rows_of_any_order_from_a_table_of_many_chunks() -> None:
    texts = [f"text {n}" for n in range(50)]
    batches = [
        pa.record_batch([texts[n : n + 7], pa.array([0] * len(texts[n : n + 7]), pa.int32())], names=["text", "label"])
        for n in range(0, 50, 7)
    ]
    rows = np.random.default_rng(0).permutation(50)
    part = LabelledTexts(pa.Table.from_batches(batches), rows, ("a",))
    assert [len(batch) for batch in part.batches(20)] == [20, 20, 10]
    assert list(part) == [texts[row] for row in rows]
    assert part.label_ids.tolist() == [0] * 50


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell how much memory is used")
def test_reading_all_of_a_large_table_takes_no_more_memory(tmp_path: Path) -> None:
    script = (
        "from textladder.data.labelled_texts import read_texts\n"
        "def mapped():\n"
        "    with open('/proc/self/status') as status:\n"
        "        return next(int(line.split()[1]) for line in status if line.startswith('RssFile'))\n"
        "texts = [f'{number} ' + 'a good kettle ' * 1000 for number in range(20_000)]\n"
        "data = read_texts((texts, ['neg', 'pos'] * 10_000), valid=0)\n"
        "del texts\n"
        "before = mapped()\n"
        "for batch in data.train.batches(500):\n"
        "    assert mapped() < before + 64_000\n"
        "assert sum(1 for _ in data.train) == 16_000\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_rows_that_are_being_copied_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[list[Path]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(3):
            yield pa.record_batch({"text": [f"text {number}"], "label": [0]})
            seen.append(list(tmp_path.iterdir()))

    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    assert write_table(batches(), schema)["text"].to_pylist() == ["text 0", "text 1", "text 2"]
    assert seen == [[], [], []]  # so that a killed process leaves no texts
