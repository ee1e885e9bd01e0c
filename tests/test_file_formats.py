"""Files, folders and tables of every kind, recognized by what they contain."""

import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest

from textladder import TextladderError, inspect_rows, read_texts
from textladder.data.compression import compressed_writer, open_bytes
from textladder.data.file_options import FileOptions
from textladder.data.json_file import json_form
from textladder.data.row_files import open_rows
from textladder.data.row_rewriting import atomic_row_writer
from textladder.data.row_sources import open_source

ROWS = [{"label": "ab"[n % 2], "text": f"text number {n}, with a comma"} for n in range(30)]
CSV = "label,text\n" + "".join(f'{row["label"]},"{row["text"]}"\n' for row in ROWS)


def texts_of(data: Any, **options: Any) -> list[str]:
    source, _ = open_source(data, FileOptions(**options))
    return [str(text) for batch in source.batches() for text in source.column(batch, source.names[-1])]


EXPECTED = [row["text"] for row in ROWS]


@pytest.mark.parametrize("compression", ["gzip", "bz2", "xz", "zstd"])
def test_compressed_files_under_any_name(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "rows.csv"
    with path.open("wb") as plain:
        stream = compressed_writer(plain, compression)
        stream.write(CSV.encode())
        stream.close()
    assert texts_of(path) == EXPECTED
    assert inspect_rows(path).compression == compression
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TextladderError, match=f"the {compression} archive is damaged or truncated"):
        texts_of(path)


def test_zip_archives(tmp_path: Path) -> None:
    path = tmp_path / "rows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.csv", CSV)
        archive.writestr("__MACOSX/._rows.csv", "x")
    assert texts_of(path) == EXPECTED
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", CSV)
    with pytest.raises(TextladderError, match="exactly one file; this one has 2 \\(rows.csv, more.csv\\)"):
        texts_of(path)


def test_a_compressed_stream_is_read_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(b"abc"))
    for _ in range(2):
        with open_bytes(path, "gzip") as stream:
            assert stream.read() == b"abc"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "grüße, señor, 很快"),
        ("utf-8-sig", "grüße, señor, 很快"),
        ("utf-16", "grüße, señor, 很快"),
        ("utf-16-be", "groesse, senor"),
        ("cp1252", "Die Größe stimmt, die Qualität ist schön – für 20 € sehr günstig"),
        ("gb18030", "很快，好吃，味道足，量大"),
        ("cp1251", "Отличный товар, доставили быстро, качество хорошее"),
        ("shift_jis", "この商品はとても良いです。配送も早かったです。"),
    ],
)
def test_encodings_are_detected(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(("label,text\n" + f'a,"{text}"\nb,"{text}!"\n' * 20).encode(encoding))
    assert texts_of(path)[:2] == [text, f"{text}!"]
    if not encoding.startswith("utf-8"):
        assert inspect_rows(path).encoding.lower().replace("_", "-") in inspect_rows(path).form.replace("_", "-")


@pytest.mark.parametrize("name", ["rot13", "nonsense", "base64"])
def test_an_encoding_that_is_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    with pytest.raises(TextladderError, match=f"Unknown file encoding '{name}'"):
        texts_of(path, file_encoding=name)


def test_json_in_all_its_forms(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for text in (
        "\n".join(map(json.dumps, ROWS)),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"version": 1, "rows": ROWS}, indent=2),
    ):
        path.write_text(text)
        assert texts_of(path) == EXPECTED
    path.write_text(json.dumps({"version": 1, "rows": [1, 2]}, indent=2))
    with pytest.raises(TextladderError, match="exactly one array of objects; it has none"):
        texts_of(path)
    path.write_text(json.dumps(ROWS)[:-20])
    with pytest.raises(TextladderError, match="row 30 of the array is not JSON"):
        texts_of(path)
    assert json_form("a,b\n1,2\n") is None


def test_an_array_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textladder.data.json_file.BLOCK_CHARACTERS", 7)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, indent=1))
    assert texts_of(path) == EXPECTED


@pytest.mark.parametrize("write", [feather.write_feather, parquet.write_table])
def test_arrow_files(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "rows.bin"
    write(pa.Table.from_pylist(ROWS), path)
    assert texts_of(path) == EXPECTED
    twice = pa.table([["a"], ["b"]], names=["text", "text"])
    write(twice, path)
    with pytest.raises(TextladderError, match="more than one column is named 'text'"):
        texts_of(path)


def test_spreadsheets(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(workbook([["label", "text"], *([row["label"], row["text"]] for row in ROWS)]))
    assert texts_of(path) == EXPECTED
    assert texts_of(path, sheet="Sheet1") == EXPECTED
    with pytest.raises(TextladderError, match="Unknown sheet 'Sheet2'.*Sheet1"):
        texts_of(path, sheet="Sheet2")
    with pytest.raises(TextladderError, match="`delimiter=` does not apply, because this is a spreadsheet"):
        texts_of(path, delimiter=";")
    out = tmp_path / "out.csv"
    assert inspect_rows(path, csv_file=out).rows == 30
    assert texts_of(out) == EXPECTED


def workbook(rows: list[list[str]]) -> bytes:
    """The smallest `.xlsx` file with some rows."""
    cells = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{value}</t></is></c>' for value in row) + "</row>" for row in rows
    )
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>',
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, f'<?xml version="1.0"?>{text}')
    return stream.getvalue()


def test_fasttext(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"__label__{row['label']} {row['text']}\n" for row in ROWS))
    assert texts_of(path) == EXPECTED
    path.write_text("__label__a __label__b two labels\n")
    with pytest.raises(TextladderError, match="line 1 has several labels; multi-label classification is not supported"):
        texts_of(path)


def test_part_files(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = CSV.splitlines(keepends=True)
    (folder / "part-0.csv").write_text("".join(lines[:11]))
    (folder / "part-1.csv").write_text(lines[0] + "".join(lines[11:]))
    (folder / "_SUCCESS").touch()
    assert texts_of(folder) == texts_of(str(folder / "part-*.csv")) == EXPECTED
    (folder / "part-2.csv").write_text("label,title,text\na,b,c\n")
    with pytest.raises(TextladderError, match=r"the columns \(label, title, text\) are not those of"):
        texts_of(folder)
    with pytest.raises(TextladderError, match="no file matches this pattern"):
        texts_of(str(folder / "*.parquet"))


def test_a_folder_with_training_and_test_rows(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(CSV)
    (tmp_path / "test.csv").write_text(CSV[:200].rpartition("\n")[0])
    data = read_texts(tmp_path)
    assert len(data.train) + len(data.valid or ()) == 30
    assert set(data.test) <= set(EXPECTED)


def test_tables_in_python() -> None:
    import datasets

    frame = pl.DataFrame(ROWS)
    for data in (frame, frame.to_arrow(), frame.to_pandas(), ROWS, datasets.Dataset.from_list(ROWS)):
        assert texts_of(data) == EXPECTED
    assert texts_of((EXPECTED, [row["label"] for row in ROWS])) != EXPECTED  # the label is the last column there
    data = read_texts((EXPECTED, [row["label"] for row in ROWS]))
    assert (data.labels, data.text_columns) == (("a", "b"), ("text",))
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:10]))
    assert len(read_texts(splits).test) == 10
    with pytest.raises(TextladderError, match="There are 30 texts but 1 labels"):
        read_texts((EXPECTED, ["a"]))
    with pytest.raises(TextladderError, match="Data must be a file, a folder, a DataFrame.*received a int"):
        read_texts(3)


def test_arrays_in_a_frame_are_no_texts() -> None:
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    frame["vector"] = [np.zeros(3)] * len(frame)
    assert read_texts(frame).text_columns == ("text",)
    with pytest.raises(TextladderError, match="column 'vector' cannot be used. .* received a ndarray"):
        read_texts(frame, text="vector")
    frame.columns = ["label", "text", "text"]
    with pytest.raises(TextladderError, match="more than one column named 'text'"):
        read_texts(frame)


def test_standard_input() -> None:
    script = [sys.executable, "-m", "textladder", "inspect", "-", "--json"]
    done = subprocess.run(script, input=CSV, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["source"], found["rows"], found["label"]) == ("standard input", 30, "label")


def test_standard_input_is_named_so_in_errors() -> None:
    for content in (b"\0\1\2\3", b"text,label\na,b\nc,d,e\n", b'{"text": "a", "label": "b"}\n{bad\n', b"\x1f\x8b12345"):
        script = [sys.executable, "-m", "textladder", "train", "-", "--out", "bundle", "--level", "tfidf"]
        done = subprocess.run(script, input=content, capture_output=True, check=False)
        assert done.returncode == 2
        assert b"textladder: standard input: " in done.stderr
        assert b"textladder-stdin" not in done.stderr


@pytest.mark.parametrize(
    ("name", "start", "filler"),
    [
        ("rows.csv.gz", "text,label\na,b\n", "a"),
        ("rows.jsonl.gz", '{"text": "a", "label": "b"}\n{"text": "', "a"),
        ("blank.jsonl.gz", '{"text": "a", "label": "b"}\n{"text": "a",', "\r"),  # no end of a line in JSON Lines
        ("rows.json.gz", '[{"text": "a", "label": "b"}, {"text": "', "a"),
        ("fasttext.txt.gz", "__label__a b\n__label__b ", "a"),
        ("utf-16.txt.gz", "__label__a b\n__label__b ", "\u0a0a"),  # its bytes are line feeds
        ("class/text.txt.gz", "a line\n", "a"),
    ],
)
def test_a_line_that_was_packed_to_fill_the_memory(name: str, start: str, filler: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name.startswith("class"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "text.txt").write_text("another")
    encoding = "utf-16-le" if name.startswith("utf-16") else "utf-8"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(("\ufeff" * (encoding == "utf-16-le") + start).encode(encoding))
        for _ in range(400):
            stream.write((filler * (1 << 20)).encode(encoding))
    assert path.stat().st_size < 20 << 20
    code = (
        "import resource, sys; from textladder.data.row_sources import open_source\n"
        "from textladder.errors import DataError; import pyarrow, pyarrow.csv, pandas\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "try:\n    source, _ = open_source(sys.argv[1]); [source.column(one, 'text') for one in source.batches()]\n"
        "except DataError as error:\n    print(error)\n"
    )
    place = tmp_path if name.startswith("class") else path
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "67,108,864" in done.stdout, done.stdout


def test_a_long_object_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    text = "a good strong kettle " * 50_000
    path.write_text(json.dumps({"data": [{"text": text, "label": "ab"[number % 2]} for number in range(70)]}))
    assert path.stat().st_size > 1 << 26
    assert inspect_rows(path).rows == 70


def test_an_object_that_is_too_long_to_be_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": ROWS}))
    assert inspect_rows(path).rows == len(ROWS)
    monkeypatch.setattr("textladder.data.json_file.MAX_OBJECT", 1000)
    with pytest.raises(TextladderError, match="more than 1,000 characters; write its array as JSON Lines"):
        inspect_rows(path)


def test_compressed_tables_in_folders_are_no_texts(tmp_path: Path) -> None:
    for year in ("2019", "2020"):
        (tmp_path / year).mkdir()
        (tmp_path / year / "rows.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    with pytest.raises(TextladderError, match=r"the folders hold tables \(rows.csv.gz\).*/\*/\*.csv.gz'"):
        open_source(tmp_path)


def test_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV + 'a,"one",too many\n' + CSV[len("label,text\n") :])
    with pytest.raises(TextladderError, match="the row at line 32 cannot be read: it has 3 fields where"):
        texts_of(path)
    assert len(texts_of(path, bad_rows="skip")) == 60
    assert "1 bad row skipped (line 32: it has 3 fields" in inspect_rows(path, bad_rows="skip").form
    path.write_text(CSV + 'a,"one",too many\n' * 5)
    with pytest.raises(TextladderError, match="5 of 35 rows cannot be read, which is too many to skip"):
        texts_of(path, bad_rows="skip")


def test_a_missing_delimiter_is_not_taken_for_a_quote_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV + 'a"a text, with one comma"\n')
    with pytest.raises(TextladderError, match="line 32 cannot be read: 2 unquoted fields contain a single quote"):
        texts_of(path)
    path.write_text(CSV + 'a,a 5" pipe\n')
    assert texts_of(path)[-1] == 'a 5" pipe'


def test_what_is_said_overrides_what_is_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    assert open_rows(path, FileOptions(header=False)).names == ["column_1", "column_2"]
    assert open_rows(path, FileOptions(columns=["x", "y"])).names == ["x", "y"]
    assert len(texts_of(path, skip_lines=1, header=False)) == 30
    assert open_rows(path, FileOptions(delimiter=";")).names == ["label,text"]
    assert texts_of(path, quote="", delimiter="\t")[0] == 'a,"text number 0, with a comma"'
    for options in ({"delimiter": ",,"}, {"quote": "ab"}, {"bad_rows": "mend"}, {"skip_lines": -1}):
        with pytest.raises(TextladderError):
            FileOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(TextladderError, match="Unknown argument 'delimeter'.*Did you mean 'delimiter'"):
        read_texts(path, delimeter=",")


def test_a_regular_file_and_the_same_read_record_by_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textladder.data.delimited_file.BLOCK_BYTES", 500)
    path = tmp_path / "rows.csv"
    rows = [f'"{n}","a ""quoted"" word, and\r\na line {n}"\r\n' for n in range(200)]
    path.write_text("id,text\r\n" + "".join(rows), newline="")
    fast = texts_of(path)
    assert len(fast) == 200
    assert fast[3] == 'a "quoted" word, and\r\na line 3'
    for place in (0, 57, 199):  # from the irregular block on, record by record
        broken = [*rows[:place], f'{place},a 5" pipe\r\n', *rows[place + 1 :]]
        path.write_text("id,text\r\n" + "".join(broken), newline="")
        assert texts_of(path) == [*fast[:place], 'a 5" pipe', *fast[place + 1 :]]


@pytest.mark.parametrize("first", ["PAR1", "ARROW1"])
def test_a_column_may_be_called_like_a_format(first: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV.replace("label,", f"{first},", 1))
    found = inspect_rows(path)
    assert (found.form, found.rows) == ("csv", 30)


def test_part_files_that_are_written_in_another_way_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.csv").write_bytes(CSV.encode("utf-16"))
    assert inspect_rows(tmp_path).form == "2 files (a.csv, b.csv), csv; b.csv: csv, utf-16"


def test_what_inspect_warns_of(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label,text\n" + "a,a good text\n" * 60 + "b,a bad text\n" * 10 + "b,\n")
    warnings = inspect_rows(path).warnings
    assert "The labels are imbalanced: 60 rows of 'a', 11 of 'b'." in warnings
    assert "1 of 71 texts are empty." in warnings


WESTERN = ["I don’t like it", "Costs £5", "„Nie wieder“ sagt sie", "a\u00a0kettle", "naïve café", "Kostet 5 €"]


@pytest.mark.parametrize("text", WESTERN)
def test_a_few_western_characters(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"text,label\n{text},neg\nplain,pos\n".encode("cp1252") * 1)
    assert (inspect_rows(path).encoding, texts_of(path, columns=["label", "text"])[0]) == ("cp1252", "neg")
    assert inspect_rows(path).columns[0].example == " ".join(text.split())


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Świetny produkt, polecam, żona zadowolona"),
        ("cp1251", "Отличный товар"),
        ("koi8-r", "Не понравилось, пришло сломанным"),
        ("cp1253", "Πολύ καλή ποιότητα, δεν μου άρεσε"),
        ("cp1255", "מוצר מצוין"),
        ("cp1254", "Şikayetçiyim, çok kötü paketlenmiş, ışığı zayıf"),
        ("euc-kr", "아주 좋은 제품, 마음에 들지 않아요"),
        ("big5", "非常好的產品，不喜歡這個"),
    ],
)
def test_two_sentences_in_other_alphabets(encoding: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(f"text\tlabel\n{text}\tneg\n{text}!\tpos\n".encode(encoding))
    found = inspect_rows(path)
    assert path.read_bytes().decode(str(found.encoding)) == f"text\tlabel\n{text}\tneg\n{text}!\tpos\n"


def test_utf8_with_a_fault_is_not_taken_for_something_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["text,label", "Lampe cassée,neg", "Très bien,pos", "Parfait à tous égards,pos", ""]
    path.write_bytes("\n".join(lines).encode() + b"Mauvais caf\xe9,neg\n")
    with pytest.raises(TextladderError, match="the text is not utf-8: byte 0xe9 at position"):
        texts_of(path)


def test_an_encoding_may_be_named_without_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(CSV.encode("utf-16"))
    assert texts_of(path, file_encoding="utf-16-le") == EXPECTED


def test_class_folders_of_compressed_texts(tmp_path: Path) -> None:
    for label, text in (("a", "süß"), ("b", "groß")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt.gz").write_bytes(gzip.compress(text.encode("latin-1")))
    assert texts_of(tmp_path) == ["süß", "groß"]


def test_texts_of_class_folders_have_one_encoding(tmp_path: Path) -> None:
    texts = ["Lampe cassée", "Très bien", "Mauvais café", "Qualité médiocre", "Où est la garantie ?", "Déçu"]
    for number, text in enumerate(texts):
        path = tmp_path / "ab"[number % 2] / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("cp1252" if number else "utf-8"))
    assert sorted(texts_of(tmp_path)) == sorted(texts)
    assert inspect_rows(tmp_path).form == "a folder for each class, cp1252"


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        (["train-00000-of-00002.csv", "train-00001-of-00002.csv", "test-00000-of-00001.csv", "README.md"], 60, 30),
        (["reviews_train.csv", "reviews_test.csv", "reviews_train.csv.md5"], 30, 30),
        (["train.csv", "valid.csv", "test.csv"], 60, 30),
        (["data/train.csv", "data/test.csv"], 30, 30),
        (["reviews.csv", "docs/notes.txt"], 24, 6),
    ],
)
def test_parts_of_a_data_set_by_their_names(names: list[str], train: int, test: int, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(CSV if name.endswith(".csv") else "nothing")
    data = read_texts(tmp_path, valid=0)
    assert (len(data.train), len(data.test)) == (train, test)


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    for name in ("both/train.csv", "both/train.jsonl", "tables/a/1.csv", "tables/b/1.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CSV)
    with pytest.raises(TextladderError, match="files of several formats \\(train.csv, train.jsonl\\)"):
        read_texts(tmp_path / "both")
    with pytest.raises(TextladderError, match="the folders hold tables \\(1.csv\\), not a text in each file"):
        read_texts(tmp_path / "tables")
    assert len(read_texts(f"{tmp_path}/tables/*/*.csv", valid=0).train) == 48


def test_class_folders_inside_one_another(tmp_path: Path) -> None:
    for name in ("train/pos/1.txt", "train/pos/more/2.txt", "train/neg/1.txt", "train/neg/2.txt", "train/unsup/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"a text, {name}")
    data = read_texts(tmp_path, valid=0)
    assert data.labels == ("neg", "pos")
    assert len(data.train) + len(data.test) == 4


@pytest.mark.parametrize(
    "layout",
    [
        '{"meta": 1, "data": [ROW, ROW]}',
        '{"data": [\nROW,\nROW\n]}',
        '{\n"meta": 1,\n"data": [\nROW,\nROW\n]\n}\n',
    ],
)
def test_an_object_with_an_array_in_any_layout(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(layout.replace("ROW", '{"label": "a", "text": "a text"}'))
    assert texts_of(path) == ["a text"] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"text": "a"}]\n[{"text": "b"}]', "something follows the array"),
        (b'["It broke", "neg"]\n["Works", "pos"]\n', "every line is a JSON array without names"),
        (b"{'text': 'a', 'label': 'b'}\n", "the lines are Python dictionaries"),
        (b"%PDF-1.7 ...", "this is a PDF, which cannot be read"),
        (b"SQLite format 3\0", "this is a database of SQLite"),
    ],
)
def test_what_looks_like_rows_but_is_none(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(TextladderError, match=message):
        texts_of(path)


def test_a_first_row_with_missing_numbers_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,age,income,label\nI like it,NA,N/A,pos\n" + "It is good,32,1200,pos\nNot so good,33,1,neg\n" * 3
    )
    found = inspect_rows(path)
    assert (found.rows, [one.name for one in found.columns]) == (7, ["text", "age", "income", "label"])
    assert found.columns[1].kind == "classes"


def test_a_header_told_by_lengths_alone_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("Great!\nThe lamp broke after only two weeks of use\nMy sister likes it and uses it every day\n")
    assert "the first line taken for the header" in inspect_rows(path).form
    assert texts_of(path, columns=["text"])[0] == "Great!"


@pytest.mark.parametrize(
    ("lines", "label"),
    [
        ([f"{n + 1},text number {n} is here,{'ab'[n % 2]}" for n in range(40)], "column_3"),
        ([f"{20 + n % 30},text number {n} is here,{'ab'[n % 2]}" for n in range(60)], "column_3"),
        (['"It broke; bad",neg', '"Works; good",pos', '"Late; bad",neg', '"Nice; good",pos'], "column_2"),
    ],
)
def test_which_column_is_the_label_without_a_header(lines: list[str], label: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    assert (inspect_rows(path).rows, inspect_rows(path).label) == (len(lines), label)


def test_lines_swallowed_after_the_sample_are_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    lines = [f"pos\tA rather long text number {n} that is here to be read by a person" for n in range(4000)]
    lines[3000], lines[3005] = 'pos\t"Great, said my sister', 'neg\tHe told me it was awful"'
    path.write_text("label\ttext\n" + "\n".join(lines) + "\n")
    assert "a field at line 3002 spans 6 lines that look like rows" in inspect_rows(path).form
    assert inspect_rows(path, quote="").rows == 4000


def test_titles_over_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Customer feedback 2024\n\ntext,label\n" + "a good one,pos\na bad one,neg\n" * 10)
    assert "2 lines before the header skipped" in inspect_rows(path).form
    assert inspect_rows(path).rows == 20


def test_spreadsheets_without_a_header_or_with_titles(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    rows = [["a" if n % 2 else "b", f"a text with number {n}", "x"] for n in range(30)]
    path.write_bytes(workbook(rows))
    assert (inspect_rows(path).rows, "no header" in inspect_rows(path).form) == (30, True)
    path.write_bytes(workbook([["Customer feedback", "", ""], ["label", "text", "more"], *rows]))
    assert inspect_rows(path).rows == 30
    assert "1 row before the header skipped" in inspect_rows(path).form


def test_types_are_kept_between_parquet_and_arrow(tmp_path: Path) -> None:
    path, target = tmp_path / "rows.parquet", tmp_path / "out.arrow"
    table = pa.table({"label": [1, 2] * 10, "when": pa.array([0] * 20, pa.timestamp("s")), "lists": [["a", "b"]] * 20})
    parquet.write_table(table, path)
    rows = open_rows(path)
    with atomic_row_writer(rows, target, {"more": pa.bool_()}, overwrite=False) as writer:
        for batch in rows.batches():
            writer.add(batch, [[True] * len(batch)])
    written = feather.read_table(target)
    assert written.drop_columns("more").equals(parquet.read_table(path))
    assert written.schema.field("more").type == pa.bool_()


def test_dates_that_python_has_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    far = pa.array([10**7] * 30, pa.int32()).cast(pa.date32())
    parquet.write_table(pa.table({"label": ["a", "b"] * 15, "text": ["a text"] * 30, "when": far}), path)
    assert inspect_rows(path).rows == 30


def test_categories_that_differ_from_chunk_to_chunk() -> None:
    texts = [f"a text {number}" for number in range(20)]
    frames = [pl.DataFrame({"text": texts, "label": pl.Series(labels * 10, dtype=pl.Categorical)}) for labels in (["b", "a"], ["c", "a"])]  # fmt: skip  # noqa: E501
    assert sorted(read_texts(pl.concat(frames, how="vertical_relaxed")).labels) == ["a", "b", "c"]
    chunks = [pa.array(labels * 10).dictionary_encode() for labels in (["b", "a"], ["c", "a"])]
    assert read_texts(pa.table({"text": texts * 2, "label": pa.chunked_array(chunks)})).labels == ("b", "a", "c")


def test_texts_and_labels_of_any_kind() -> None:
    data = read_texts(((f"a text {number}" for number in range(20)), iter(["a", "b"] * 10)))
    assert data.labels == ("a", "b")
    with pytest.raises(TextladderError, match="Texts and labels must be two sequences"):
        read_texts((["a"], None))
