"""The awkward files of `../shared/cases`: each is read as a person would read it, or refused in one sentence."""

import codecs
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from textladder import TextClassifier, inspect_rows, read_texts
from textladder.cli import main
from textladder.errors import TextladderError
from textladder.predict_file import predict_file
from textladder.text.plain_words import words_of

# file: what differs from 60 rows with the label `label`, the text `text` and 30 rows each of neg and pos
READ: dict[str, dict[str, Any]] = {
    "base.csv": {},
    "c01_spam_v1v2.csv": {"label": "v1", "text": ["v2"], "encoding": "cp1252", "form": "3 unnamed empty columns"},
    "c02_sep_line.csv": {"delimiter": ";", "skipped_lines": 1},
    "c03_headerless_str.csv": {"header": False, "label": "column_1", "text": ["column_2"], "form": "no header"},
    "c03b_headerless_tab.tsv": {"header": False, "delimiter": "\t", "label": "column_1", "text": ["column_2"]},
    "c03d_headerless_minus1.csv": {"header": False, "label": "column_1", "text": ["column_2"]},
    "c04_pandas_int_header.csv": {"header": True, "label": "0", "text": ["1"]},
    "c05_quotes_swallow.tsv": {"delimiter": "\t", "quote": None, "form": "quotes are plain text"},
    "c05c_quote_then_text.tsv": {"delimiter": "\t", "quote": None, "text": ["sentence"]},
    "c06_jsonl_meta.jsonl": {"label": "overall", "text": ["reviewText"], "note": "'style' is left out"},
    "c06b_jsonl_meta_named.jsonl": {"note": "'meta' is left out"},
    "c09_label_text.csv": {"text": ["text"], "note": "'label_text' is left out: each of its values stands"},
    "c10_timestamp.csv": {"text": ["text"], "note": "'user' is left out"},
    "c12_trailing_rows.csv": {"form": "1 unnamed empty column left out"},
    "c12b_trailing_all.csv": {"form": "1 unnamed empty column left out"},
    "c13_backslash.csv": {"escape": "\\", "form": "quotes escaped with \\"},
    "c14_array.json": {"form": "json array"},
    "c15_fasttext.txt": {"form": "fastText"},
    "c16_pipe.csv": {"delimiter": "|"},
    "c16c_semicolon_comma_header.csv": {"delimiter": ";", "text": ["text, as typed"]},
    "c17_utf16.csv": {"encoding": "utf-16", "form": "utf-16"},
    "c17b_utf16le_nobom.csv": {"encoding": "utf-16-le", "form": "utf-16-le"},
    "c21_int.jsonl": {},
    "c21b_bool.csv": {},
    "c21c_float.csv": {},
    "c21d_bool.jsonl": {},
    "c23_comma_header.csv": {"text": ["Review, full"]},
    "c46_bom_inside.csv": {"form": "the header is repeated at line 32"},
    "d3_saved": {},
    "p3_listcol.parquet": {"note": "'embedding' is left out"},
    "p4_struct.parquet": {},
    "p7_ts.parquet": {"text": ["text"], "note": "'when' is left out"},
    "z2_gz_named.csv": {"compression": "gzip"},
    "z3.csv.zip": {"compression": "zip"},
    "z4.csv.bz2": {"compression": "bz2"},
    "z5.csv.xz": {"compression": "xz"},
}  # fmt: skip


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    return shared.parent / "cases"


@pytest.mark.parametrize("name", READ)
def test_what_is_found(name: str, cases: Path) -> None:
    expected = {"label": "label", "rows": 60, **READ[name]}
    found = inspect_rows(cases / name)
    assert expected.pop("form", "") in found.form
    note = expected.pop("note", "")
    assert any(note in warning for warning in found.warnings) or not note
    assert {key: getattr(found, key) for key in expected} == expected
    assert sorted(found.labels.values()) == [30, 30]
    data = read_texts(cases / name)
    assert len(data.train) + len(data.valid or ()) + len(data.test) == 60


def test_quotes_that_are_plain_text_stay(cases: Path) -> None:
    texts = set(read_texts(cases / "c05_quotes_swallow.tsv", valid=0).train)
    texts |= set(read_texts(cases / "c05_quotes_swallow.tsv", valid=0).test)
    assert '"A broken clock as described and really dreadful number 84' in texts


@pytest.mark.parametrize("name", ["c20_multilabel.jsonl", "c20c_onehot.csv"])
def test_several_labels_for_a_text_are_refused(name: str, cases: Path) -> None:
    with pytest.raises(TextladderError, match="multi-label classification, which is not supported"):
        read_texts(cases / name)


def test_a_folder_for_each_class(cases: Path) -> None:
    data = read_texts(cases / "d1_imdb")
    assert data.labels == ("neg", "pos")
    assert len(data.train) + len(data.valid or ()) == 48
    assert len(data.test) == sum(1 for _ in (cases / "d1_imdb" / "test").glob("*/*.txt"))


def test_blank_lines_of_one_column_are_rows(cases: Path) -> None:
    found = inspect_rows(cases / "c45_blank_lines.csv")
    assert (found.rows, found.text) == (60, ["text"])
    assert "12 blank lines are read as empty texts" in found.form


def test_a_column_name_with_a_comma_can_be_named(cases: Path) -> None:
    assert read_texts(cases / "c23_comma_header.csv", text="Review, full").text_columns == ("Review, full",)


def test_the_zoo_without_a_flag(shared: Path) -> None:
    zoo = shared / "zoo"
    for name, rows, labels, label, text, header in (
        ("sms/sms.tsv", 5574, 2, "column_1", ["column_2"], False),
        ("gnad10/articles.csv", 1028, 9, "column_1", ["column_2"], False),
        ("waimai/waimai_10k.csv", 11987, 2, "label", ["review"], True),
        ("banking77/train.csv", 10003, 77, "category", ["text"], True),
        ("banking77/test.csv", 3080, 77, "category", ["text"], True),
        ("tweet_emotion/train.csv", 3257, 4, "label", ["text"], True),
    ):
        found = inspect_rows(zoo / name)
        assert (found.rows, len(found.labels), found.label, found.text, found.header) == (
            rows, labels, label, text, header
        ), name  # fmt: skip
    assert inspect_rows(zoo / "gnad10/articles.csv").quote == "'"
    assert inspect_rows(zoo / "sms/sms.tsv").quote is None


def test_labels_in_one_form(cases: Path) -> None:
    data = read_texts(cases / "c07_label_space.csv")
    assert data.labels == ("Neg", "Pos", "neg", "pos")
    assert "blanks or accents of the label written in another way in" in data.description
    assert "labels that differ only in case" in data.description
    assert "pass merge_labels=True (--merge-labels on the command line) to take them for one" in data.description
    assert read_texts(cases / "c07_label_space.csv", merge_labels=True).labels == ("neg", "pos")
    assert read_texts(cases / "c07b_space_after_comma.csv").labels == ("neg", "pos")
    assert read_texts(cases / "c51_unicode_form.csv").labels == ("bar", "café")


def test_a_label_that_is_written_as_missing(cases: Path) -> None:
    assert "the label '#N/A' of" in read_texts(cases / "c50_excel_error.csv").description
    data = read_texts(cases / "c50_excel_error.csv", missing_label="#N/A")
    assert data.labels == ("neg", "pos")
    assert "with the label '#N/A' left out" in data.description


def test_inspect_points_at_doubtful_labels(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(cases / "c50_excel_error.csv")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "looks like a missing one; to leave these rows out, pass --missing-label #N/A" in printed
    assert main(["inspect", str(cases / "c07_label_space.csv")]) == 0
    assert "pass --merge-labels to take them for one" in " ".join(capsys.readouterr().out.split())


def test_classes_with_few_rows(cases: Path) -> None:
    with pytest.raises(TextladderError, match="fewer than 2 rows of each of the classes .*rare_classes") as error:
        read_texts(cases / "c18_singletons.csv")
    singles = [name for name, count in inspect_rows(cases / "c18_singletons.csv").labels.items() if count == 1]
    assert all(repr(name) in str(error.value) for name in singles[:10])
    dropped = read_texts(cases / "c18_singletons.csv", rare_classes="drop")
    assert not set(singles) & set(dropped.labels)
    merged = read_texts(cases / "c18_singletons.csv", rare_classes="merge")
    assert set(merged.labels) == {*dropped.labels, "other"}
    parts = [merged.train, merged.valid, merged.test]
    assert sum(len(part) for part in parts if part is not None) == sum(
        inspect_rows(cases / "c18_singletons.csv").labels.values()
    )


def test_many_classes(cases: Path) -> None:
    assert len(read_texts(cases / "c31_longtail.csv", rare_classes="drop").labels) > 20
    assert len(read_texts(cases / "c32_1500classes.csv", label="product_code").labels) == 1500


def test_test_rows_with_unknown_labels(cases: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("text,label\nfine,pos\npoor,neg\nodd,mixed\n")
    with pytest.raises(TextladderError, match="label 'mixed' in 'label' was not seen in training"):
        read_texts(cases / "base.csv", test=test)
    data = read_texts(cases / "base.csv", test=test, unknown_labels="drop")
    assert list(data.test) == ["fine", "poor"]
    assert "1 test row with other labels left out" in data.description


@pytest.mark.parametrize("name", ["c22_chinese.csv", "c22c_hindi.csv", "c22d_emoji.csv", "c22e_emoticon.csv"])
def test_texts_without_blanks_or_letters_are_learnt(name: str, cases: Path) -> None:
    data = read_texts(cases / name, valid=0)
    assert data.labels == ("neg", "pos")
    assert sorted([*data.train, *data.test]) == sorted(pd.read_csv(cases / name)["text"])
    for level in ("tfidf", "lstm"):
        assert TextClassifier(level).fit(data).evaluate(data.test).accuracy >= 0.95, level


@pytest.mark.parametrize(
    ("text", "other"),
    [("👎 the lamp", "👍 the lamp"), ("यह दिन है", "यह दीन है"), ("the lamp :(", "the lamp :)"), ("lamp👎", "lamp 👍")],
)
def test_texts_that_differ_in_a_sign_that_speaks_are_not_the_same(text: str, other: str) -> None:
    assert words_of(text) != words_of(other)
    assert words_of(f"{text} !!") == words_of(f"  {text.upper()} .")


def test_any_label_name(cases: Path, tmp_path: Path) -> None:
    path = cases / "c30_label_names.csv"
    bundle = TextClassifier("tfidf").fit(path).save(tmp_path / "bundle")
    classifier = TextClassifier.load(bundle)
    labels = pd.read_csv(path, keep_default_na=False)["label"].str.strip().unique()
    assert set(classifier.labels) == set(labels)
    predict_file(classifier, path, tmp_path / "out.csv", probabilities=True)
    frame = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert len(frame) == 210
    assert set(frame["predicted_label"]) <= set(labels)
    assert set(frame.columns[-15:]) == {f"probability_{label}" for label in labels}


@pytest.fixture(scope="module")
def classifier(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    bundle = TextClassifier("tfidf").fit(cases / "base.csv").save(tmp_path_factory.mktemp("cases") / "bundle")
    return TextClassifier.load(bundle)


def test_a_byte_order_mark_and_line_ends_stay(cases: Path, classifier: TextClassifier, tmp_path: Path) -> None:
    assert predict_file(classifier, cases / "c40_bom_crlf.csv", tmp_path / "out.csv") == 60
    written = (tmp_path / "out.csv").read_bytes()
    assert written.startswith(codecs.BOM_UTF8 + b"text,")
    assert written.count(b"\n") == written.count(b"\r\n") == 61


def test_half_a_surrogate_pair_is_answered(cases: Path, classifier: TextClassifier, tmp_path: Path) -> None:
    assert predict_file(classifier, cases / "c41_surrogate.jsonl", tmp_path / "out.jsonl") == 60
    before, after = (cases / "c41_surrogate.jsonl").read_text(), (tmp_path / "out.jsonl").read_text()
    assert r"great \ud83d kettle" in before
    assert r"great \ud83d kettle" in after
    assert all("predicted_label" in line for line in after.splitlines())


@pytest.mark.parametrize("name", ["c11_bare_cr.csv", "c55_cr_test.csv"])
def test_a_carriage_return_inside_a_field_stays(
    name: str, cases: Path, classifier: TextClassifier, tmp_path: Path
) -> None:
    predict_file(classifier, cases / name, tmp_path / "out.csv")
    texts = [list(map(str, pd.read_csv(path)["text"])) for path in (cases / name, tmp_path / "out.csv")]
    assert texts[0] == texts[1]
    assert any("\r" in text for text in texts[0])


def test_a_leak_among_rows_of_many_lines_is_left_out(cases: Path, tmp_path: Path) -> None:
    train, test, fixed = cases / "c53_fix_train.csv", cases / "c53_fix_test.csv", tmp_path / "fixed.csv"
    words = [
        "audit",
        train,
        "--test",
        test,
        "--drop-missing",
        "--levels",
        "tfidf",
        "--fix",
        "drop-leaks",
        "--output",
        fixed,
    ]
    assert main(list(map(str, words))) == 0
    before, after, tested = (pd.read_csv(path) for path in (train, fixed, test))
    leaked, old, new = (set(frame["text"].map(words_of).map(" ".join)) for frame in (tested, before, after))
    assert leaked <= old
    assert not leaked & new
    assert len(after) == len(before) - len(tested)
    assert after["label"].isna().sum() == before["label"].isna().sum()


def test_what_was_written_without_leaks_can_be_trained_on(cases: Path, tmp_path: Path) -> None:
    train, test, fixed = cases / "c55_cr_train.csv", cases / "c55_cr_test.csv", tmp_path / "fixed.csv"
    words = ["audit", train, "--test", test, "--levels", "tfidf", "--fix", "drop-leaks", "--output", fixed]
    assert main(list(map(str, words))) == 0
    assert pd.read_csv(fixed)["text"].isin(pd.read_csv(train)["text"]).all()
    assert len(read_texts(fixed, test=test).train) > 0
