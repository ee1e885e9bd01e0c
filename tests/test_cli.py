"""The commands as people run them: results, one JSON object, and one sentence for every mistake."""

import argparse
import csv
import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from textladder import TextClassifier
from textladder.cli import COMMANDS, main, make_parser, parse
from textladder.flags import in_flags
from textladder.levels import LEVELS, find_level
from textladder.training.pretraining import PretrainingConfig

Run = Callable[..., subprocess.CompletedProcess[str]]
GOOD = "label,text\n" + "good,fine and nice\nbad,poor and ugly\n" * 20


@pytest.fixture
def saved(fitted: Callable[[str], Any], tmp_path: Path) -> Path:
    path: Path = fitted("tfidf").save(tmp_path / "tfidf-bundle")
    return path


def test_train_evaluate_predict_with_json(run: Run, tmp_path: Path, vectors_file: Path) -> None:
    data, test = tmp_path / "data.csv", tmp_path / "test.csv"
    data.write_text(GOOD)
    test.write_text(GOOD[:200].rpartition("\n")[0] + "\n")
    bundle = tmp_path / "bundle"
    flags = ("--vectors", vectors_file, "--min-freq", 1, "--hidden-size", 8, "--epochs", 3, "--json")
    done = run("train", data, "--test", test, "--level", "lstm", "--out", bundle, *flags)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for key in (
        "level",
        "preset",
        "bundle",
        "train_rows",
        "valid_rows",
        "test_rows",
        "parameters",
        "fit_seconds",
    ):
        assert key in result
    assert (result["train_rows"], result["valid_rows"], result["level"]) == (36, 4, "lstm")
    assert set(result["test"]) == {"accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece"}
    assert set(result["valid"]) == {"accuracy", "macro_f1"}
    assert result["unique_tokens"] == 5
    assert result["vocabulary"] == 7
    assert result["vectors_found"] < 7
    for epoch in result["epochs"]:
        assert {
            "stage",
            "trainable",
            "rows",
            "train_loss",
            "valid_loss",
            "valid_accuracy",
            "train_seconds",
            "seconds",
        } <= set(epoch)
    assert len(result["epochs"]) == 3
    assert "label from 'label' (bad, good), text from 'text'" in done.stderr

    evaluated = json.loads(run("evaluate", bundle, test, "--json").stdout)
    assert set(evaluated) == set(result["test"]) | {"rows", "rows_per_second", "per_class", "labels", "confusion"}
    assert list(evaluated["per_class"]) == evaluated["labels"] == ["bad", "good"]
    assert np.sum(evaluated["confusion"]) == evaluated["rows"]
    assert np.trace(evaluated["confusion"]) == round(evaluated["accuracy"] * evaluated["rows"])
    assert evaluated["accuracy"] == result["test"]["accuracy"]

    table = run("evaluate", bundle, test).stdout
    assert "F1 (95% interval)" in table
    names = [line.split()[0] for line in table.splitlines()]
    assert names.index("good") == names.index("bad") + 1 == names.index("class") + 3  # after a rule
    assert max(map(len, table.splitlines())) <= 80

    predicted = json.loads(run("predict", bundle, "fine and nice", "", "--json").stdout)["predictions"]
    assert len(predicted) == 2
    assert sum(predicted[0]["probabilities"].values()) == pytest.approx(1)
    assert list(predicted[0]["probabilities"]) == ["bad", "good"]
    plain = run("predict", bundle, "fine and nice")
    assert plain.stdout.split()[0] == predicted[0]["label"]
    assert TextClassifier.load(bundle).record["test"] == result["test"]


def test_a_baseline_has_no_epochs(run: Run, sentences_file: Path, tmp_path: Path) -> None:
    done = run("train", sentences_file, "--level", "tfidf", "--min-documents", 1, "--out", tmp_path / "b", "--json")
    assert json.loads(done.stdout)["epochs"] == []
    done = run("train", sentences_file, "--level", "tfidf", "--out", tmp_path / "c")
    assert "Test accuracy" in done.stdout
    assert "(0.0 MB)" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80


def test_predicting_a_file(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.csv.gz"
    texts = [f'a strong kettle, "number" {n}\nsecond line' if n % 3 else "" for n in range(10_000)]
    with gzip.open(source, "wt", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "note"])
        writer.writerows([n, text, "é"] for n, text in enumerate(texts))
    target = tmp_path / "out.csv.gz"
    assert main(["predict", str(saved), "--input", str(source), "--output", str(target)]) == 0
    assert "10,000 rows predicted" in capsys.readouterr().out
    frame = pd.read_csv(target, keep_default_na=False)
    assert list(frame.columns) == ["id", "text", "note", "predicted_label", "predicted_probability"]
    assert frame["id"].tolist() == list(range(10_000))
    assert frame["text"].tolist() == texts
    probabilities = TextClassifier.load(saved).predict_proba(texts)
    assert (frame["predicted_label"] == [["bad", "good"][row.argmax()] for row in probabilities]).all()
    assert abs(frame["predicted_probability"] - probabilities.max(axis=1)).max() < 1e-6
    before = target.read_bytes()
    assert main(["predict", str(saved), "--input", str(source), "--output", str(target)]) == 2
    assert main(["predict", str(saved), "--input", str(source), "--output", str(target), "--overwrite"]) == 0
    assert target.read_bytes() == before


def test_truncated_texts_are_reported(
    fitted: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that predicts says how many texts were truncated, and nothing if none was."""
    bundle = str(fitted("lstm").save(tmp_path / "bundle"))
    long, source = "strong " * TextClassifier.load(bundle).config.max_tokens + "kettle", tmp_path / "in.csv"
    source.write_text(f"label,text\ngood,{long}\nbad,broke\ngood,{long}\n")
    written = ["--input", str(source), "--output", str(tmp_path / "out.csv")]
    for words, expected in (
        (["predict", bundle, long, "broke"], "1 of 2 texts"),
        (["predict", bundle, *written], "2 of 3 texts"),
        (["evaluate", bundle, str(source)], "2 of 3 texts"),
        (["explain", bundle, "kettle" + " ," * 1000], "1 of 1 text"),
    ):
        assert main(words) == 0
        assert capsys.readouterr().err == f"Truncated {expected} to the level's token limit.\n"
    for words in (["predict", bundle, "broke"], ["explain", bundle, "broke"]):
        assert main(words) == 0
        assert capsys.readouterr().err == ""


def test_a_headerless_file_stays_headerless(saved: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('"1","kettle","good, strong"\n"2","toy","broke"\n')
    assert main(["predict", str(saved), "--input", str(source), "--output", str(target)]) == 0
    rows = list(csv.reader(target.read_text().splitlines()))
    assert [row[:3] for row in rows] == [["1", "kettle", "good, strong"], ["2", "toy", "broke"]]
    assert [len(row) for row in rows] == [5, 5]


def test_levels_and_version(run: Run) -> None:
    listed = json.loads(run("levels", "--json").stdout)["levels"]
    assert [level["level"] for level in listed] == list(LEVELS)
    assert "tutorial" in run("levels").stdout
    assert run("--version").stdout.startswith("textladder ")


def test_settings_come_from_file_and_flags(run: Run, sentences_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("min_documents = 1\nregularization_c = 3\nseed = 7\n")
    out = tmp_path / "bundle"
    done = run("train", sentences_file, "--level", "tfidf", "--config", config, "--regularization-c", 5, "--out", out)
    assert done.returncode == 0, done.stderr
    classifier = TextClassifier.load(out)
    assert classifier.config.min_documents == 1
    assert classifier.config.regularization_c == 5
    assert classifier.seed == 7


def test_lr_find(run: Run, sentences_file: Path, vectors_file: Path, tmp_path: Path) -> None:
    flags = (
        "--level",
        "lstm",
        "--vectors",
        vectors_file,
        "--min-freq",
        1,
        "--hidden-size",
        8,
        "--batch-size",
        4,
    )
    plot = tmp_path / "curve.png"
    done = run("lr-find", sentences_file, *flags, "--json", "--plot", plot)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["range"][0] <= found["learning_rate"] <= found["range"][1]
    assert len(found["rates"]) == len(found["losses"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = run("lr-find", sentences_file, *flags)
    assert "The finder suggests a learning rate" in done.stdout
    done = run("lr-find", sentences_file, "--level", "tfidf")
    assert done.returncode == 2
    assert "no learning rate to find" in done.stderr


FILES = {
    "good.csv": GOOD,
    "seed.toml": 'seed = "abc"\n',
    "half-seed.toml": "seed = 1.5\n",
    "preset.toml": "preset = 3\n",
    "presets.toml": 'preset = ["default"]\n',
    "empty.csv": "",
    "header.csv": "label,text\n",
    "one-class.csv": "label,text\n" + "good,fine words\n" * 9,
    "one-row-class.csv": "label,text\n" + "good,fine words\n" * 9 + "bad,poor words\n",
    "missing.csv": "label,text\n" + "good,fine words\nbad,poor words\n,no label\n" * 9,
    "numbers.csv": "label,text\n" + "good,1.5\nbad,2\n" * 9,
    "latin.csv": b"label,text\n" + "good,fine words\nbad,schön\n".encode("latin-1") * 9,
    "quote.csv": "label,text\n" + 'good,"nice words"\n' * 9 + 'good,"fine\nbad,"poor words"\n',
    "quote-inside.csv": "label,text\n" + 'good,"nice words"\n' * 9 + 'good,"fine "inner" words"\n',
    "ragged.csv": "label,text\ngood,fine, really\nbad,poor words\n",
    "wrong.parquet": "not parquet at all",
    "wrong.parquet.gz": gzip.compress(b"not parquet at all"),
    "wrong.csv.gz": "not gzip",
    "cut.parquet": "PAR1 and then nothing",
    "cut.csv.gz": gzip.compress(GOOD.encode() * 50)[:-30],
    "wrong.jsonl": '{"label": "a", "text": "b"}\n{"label": \n',
    "list.jsonl": '{"label": "a", "text": "b"}\n[1, 2]\n',
    "nested.jsonl": '{"label": "a", "text": {"b": 1}}\n' * 3,
    "surrogate.jsonl": '{"label": "a", "text": "x \\ud83d"}\n{"label": "b", "text": "y z"}\n' * 5,
    "id-label.csv": "label,text\n" + "".join(f"{n},some words {n}\n" for n in range(3000)),
    "twice.csv": "text,text,label\na b,c d,x\n",
    "no-label.csv": "a,b\n" + "".join(f"{n} words here,{n} others there\n" for n in range(50)),
}
MISTAKES = [
    (["nowhere.csv"], "nowhere.csv: no such file"),
    (["x" * 300 + ".csv"], ".csv: no such file"),
    (["empty.csv"], "empty.csv: the file is empty"),
    (["header.csv"], "header.csv: there are no rows, only a header"),
    (
        ["good.csv", "--label", "lable"],
        "Unknown column 'lable'. Available: label, text. Did you mean 'label'?",
    ),
    (["good.csv", "--text", "txt"], "Unknown column 'txt'. Available: label, text. Did you mean 'text'?"),
    (["good.csv", "--text", "label", "--label", "label"], "both as the label and as a text"),
    (["one-class.csv"], "every row has the label 'good'; at least two classes are needed"),
    (["one-row-class.csv"], "there are fewer than 2 rows of class 'bad'; pass --rare-classes drop to leave"),
    (["missing.csv"], "9 of 27 rows have no label in 'label'; to leave them out"),
    (["numbers.csv"], "no column looks like a text (every other column holds numbers)"),
    (["numbers.csv", "--text", "text"], "text column 'text' holds numbers"),
    (["latin.csv", "--file-encoding", "utf-8"], "byte 0xf6 at position 34 cannot be read; set the file encoding"),
    (["good.csv", "--file-encoding", "klingon"], "Unknown file encoding 'klingon'"),
    (["quote.csv"], "row at line 11 cannot be read: a quoted field is followed by other text"),
    (["quote-inside.csv"], "row at line 11 cannot be read: a quoted field is followed by other text"),
    (["ragged.csv"], "row at line 2 cannot be read: it has 3 fields where the others have 2"),
    (["wrong.parquet"], "there are no rows, only a header"),
    (["wrong.parquet.gz"], "there are no rows, only a header"),
    (["wrong.csv.gz"], "there are no rows, only a header"),
    (["cut.parquet"], "not a Parquet file, or it is damaged"),
    (["cut.csv.gz"], "gzip archive is damaged or truncated"),
    (["wrong.jsonl"], "line 2 is not JSON"),
    (["list.jsonl"], "line 2 is a list, not a JSON object"),
    (["nested.jsonl"], "must be a plain value; received a dict"),
    (["surrogate.jsonl"], "half of a surrogate pair"),
    (["id-label.csv"], "if it is the label all the same, name it with --label"),
    (["twice.csv"], "more than one column is named 'text'"),
    (["no-label.csv"], "no column looks like a label"),
    (["good.csv", "--columns", "a,b,c"], "3 column names were given (a, b, c), but the rows have 2"),
    (["wrong.jsonl", "--columns", "a,b"], "--columns does not apply, because this is a JSON file"),
    (["good.csv", "--delimiter", "::"], "delimiter must be one character, or 'tab'; received '::'"),
    (["good.csv", "--level", "bert"], "Unknown level 'bert'. Available: tfidf, lstm, ulmfit, transformer."),
    (["good.csv", "--level", "lsmt"], "Did you mean 'lstm'?"),
    (
        ["good.csv", "--preset", "tutoral", "--level", "lstm"],
        "Unknown lstm preset 'tutoral'. Available: default, tutorial. Did you mean 'tutorial'?",
    ),
    (["good.csv", "--epochs", "3"], "Unknown flag '--epochs'"),
    (["good.csv", "--level", "lstm", "--epochs", "0"], "Setting 'epochs' must be at least 1; received 0"),
    (["good.csv", "--level", "lstm", "--epochs", "many"], "invalid int value: 'many'"),
    (["good.csv", "--level", "lstm", "--pooling", "sum"], "Unknown value of 'pooling': 'sum'"),
    (["good.csv", "--level", "lstm", "--vectors", "none.txt"], "none.txt: no such file of vectors"),
    (["good.csv", "--rows", "0"], "rows must be a positive number"),
    (["good.csv", "--test", "good.csv", "--test-first", "0"], "test_first must be a positive number; received 0"),
    (["good.csv", "--test-first", "3"], "--test-first needs separate test rows; pass them with --test."),
    (["good.csv", "--seed", "-4"], "The seed must be from 0"),
    (["good.csv", "--config", "seed.toml"], "The seed must be a whole number; received 'abc'."),
    (["good.csv", "--config", "half-seed.toml"], "The seed must be a whole number; received 1.5."),
    (["good.csv", "--config", "preset.toml"], "Unknown tfidf preset '3'. Available: default."),
    (["good.csv", "--config", "presets.toml"], "Unknown tfidf preset \"['default']\". Available: default."),
    (["good.csv", "--config", "none.toml"], "none.toml: the settings file cannot be read"),
    (["good.csv", "--config", "good.csv"], "this is not valid TOML"),
    (["good.csv", "--test", "one-class.csv", "--label", "x"], "Unknown column 'x'"),
    (["good.csv", "--out", "taken"], "taken exists; pass --overwrite"),
    (["good.csv", "--out", "taken", "--overwrite"], "taken exists but is not a bundle; not replaced"),
    (["good.csv", "--out", "good.csv/inside"], "cannot write to "),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_mistakes_are_one_sentence_and_status_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    Path("taken").mkdir()
    Path("taken/file").touch()
    before = sorted(Path().rglob("*"))
    words = ["train", *words]
    words += [] if "--level" in words else ["--level", "tfidf"]
    words += [] if "--out" in words else ["--out", "bundle"]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    lines = [line for line in printed.err.splitlines() if line.startswith("textladder:")]
    assert len(lines) == 1
    assert printed.err.splitlines()[-1] == lines[0]
    assert not printed.out
    assert sorted(Path().rglob("*")) == before


def test_the_first_rows_of_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text(GOOD)
    test.write_text("label,text\n" + "good,fine\n" * 3 + "good,poor\n" * 5)
    flags = ["--level", "tfidf", "--first", "20", "--test-first", "3", "--out", str(tmp_path / "b"), "--json"]
    assert main(["train", str(train), "--test", str(test), *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["train_rows"] + result["valid_rows"], result["test_rows"]) == (20, 3)
    assert result["test"]["accuracy"] == 1


def test_going_on_without_missing_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing.csv"
    path.write_text(str(FILES["missing.csv"]))
    flags = ["--level", "tfidf", "--min-documents", "1", "--drop-missing", "--json"]
    assert main(["train", str(path), "--out", str(tmp_path / "b"), *flags]) == 0
    printed = capsys.readouterr()
    assert "9 rows without a label left out" in printed.err
    result = json.loads(printed.out)
    assert result["train_rows"] + result["valid_rows"] + result["test_rows"] == 18


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json"], "required: COMMAND"),
        (
            ["trian"],
            "Unknown command 'trian'. Available: compare, train, evaluate, predict, explain, export, serve, inspect, "
            "audit, lr-find, pretrain, levels. Did you mean 'train'?",
        ),
        (["train"], "required: DATA, --level, --out"),
        (["train", "x.csv", "--level", "tfidf", "--out", "b", "--overwite"], "Unknown flag '--overwite'"),
        (["predict", "nowhere", "text"], "nowhere: no such bundle"),
        (["predict", "nowhere"], "Give either texts, or --input FILE with --output FILE"),
        (["predict", "nowhere", "--input", "a.csv"], "Give either texts"),
    ],
)
def test_other_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("in.csv", "out.doc", "Unknown file format '.doc'"),
        ("other.csv", "out.csv", "Unknown column 'text'. Available: words, predicted."),
        ("had.csv", "out.csv", "column 'predicted_label' already exists"),
        ("in.csv", "nowhere/out.csv", "could not be written"),
        ("broken.csv", "out.csv", "the row at line 12002 cannot be read"),
    ],
)
def test_mistakes_in_predicting(
    saved: Path,
    source: str,
    target: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\none text\n")
    Path("other.csv").write_text("words,predicted\none text,two words\n")
    Path("had.csv").write_text("text,predicted_label\none text,x\n")
    Path("broken.csv").write_text("text,id\n" + "fine words,1\n" * 12_000 + '"open,2\n')
    before = sorted(Path().rglob("*"))
    assert main(["predict", str(saved), "--input", source, "--output", target]) == 2
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_is_kept(tmp_path: Path, vectors_file: Path, number: signal.Signals) -> None:
    data = tmp_path / "data.csv"
    data.write_text("label,text\n" + "good,fine and nice\nbad,poor and ugly\n" * 4000)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = [
        "train",
        data,
        "--level",
        "lstm",
        "--vectors",
        vectors_file,
        "--epochs",
        500,
        "--out",
        tmp_path / "bundle",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "textladder", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        # what is started in the background inherits that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Vectors"):
                break
        time.sleep(6)  # well into the training
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"the training so far is kept in {tmp_path}/bundle.partial; run the same command to resume" in printed
    assert "Traceback" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.partial", "data.csv", "tmp"]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_code_made_from_a_string(tmp_path: Path, number: signal.Signals) -> None:
    code = f"import os\nos.kill(os.getpid(), {int(number)})\nwhile True: pass"
    script = (
        "import dataclasses, signal, sys\nfrom textladder.cli import COMMANDS, main\n"
        f"COMMANDS['levels'] = dataclasses.replace(COMMANDS['levels'], run=lambda _: exec({code!r}))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nsys.argv = ['textladder', 'levels']\n"
        "sys.exit(main())\n"
    )
    (tmp_path / "interrupted.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "\ntextladder: interrupted; nothing was written.\n")


def arguments(*words: str) -> dict[str, argparse.Action]:
    """The arguments of a command by what they are called in its help."""
    (commands,) = (one for one in make_parser(words)._actions if isinstance(one, argparse._SubParsersAction))
    actions = commands.choices[words[0]]._actions
    return {(action.option_strings or [action.metavar])[0]: action for action in actions}


ALL = [
    *((name,) for name in COMMANDS),
    *((name, "--level", level) for name in ("train", "lr-find") for level in LEVELS),
]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_argument_has_its_help(words: tuple[str, ...]) -> None:
    for name, action in arguments(*words).items():
        assert action.help, name
        if isinstance(action.default, str | int | float) and action.default not in (False, argparse.SUPPRESS):
            value = f"{action.default:g}" if isinstance(action.default, float) else action.default
            assert f"[default: {value}" in action.help, action.help


@pytest.mark.parametrize("level", [*LEVELS, None])
def test_settings_show_choices_bounds_and_defaults(level: str | None) -> None:
    """In the help of every setting, as its field has them; `None` is `pretrain`."""
    words = ["pretrain"] if level is None else ["train", "--level", level]
    shown = arguments(*words)
    config_type: Any = PretrainingConfig if level is None else find_level(level).config_type
    for item in dataclasses.fields(config_type):
        help = str(shown["--" + item.name.replace("_", "-")].help).replace("%%", "%")
        assert help.startswith(item.metadata["help"])
        choices, low, high = (item.metadata[key] for key in ("choices", "low", "high"))
        assert all(choice in help for choice in choices), help
        assert all(f"{bound:g}" in help for bound in (low, high) if bound is not None), help
        assert "default" in help
        if isinstance(item.default, str | int) and not isinstance(item.default, bool):
            assert f"default: {item.default}]" in help


def test_shared_settings_show_them_for_each_level() -> None:
    for command in ("compare", "audit"):
        shown = arguments(command)
        assert {name for name, action in shown.items() if action.dest.startswith("setting_")} == {
            "--class-weights", "--vectors", "--language-model", "--unlabelled", "--frozen-epochs", "--encoder",
            "--max-tokens",
        }  # fmt: skip
        help = str(shown["--frozen-epochs"].help)
        assert help.startswith("ulmfit: ")
        assert "; transformer: " in help
        weights = "tfidf: weight rows so that all classes count the same [none or balanced; default: balanced]; lstm: "
        assert str(shown["--class-weights"].help).startswith(weights)
        assert "from 3 to 8192; default: 256" in str(shown["--max-tokens"].help)


@pytest.mark.parametrize("words", [(), *ALL], ids=" ".join)
def test_help_fits_a_terminal(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="^0$"):
        main([*words, "--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "distilbert-\n" not in shown


def test_an_overview_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit, match="^0$"):
            main(words)
        return capsys.readouterr().out

    assert shown() == shown("help") == shown("--help")
    assert all(f"{name} " in shown() for name in COMMANDS)
    assert shown("help", "train") == shown("train", "--help")
    assert shown("help", "train", "--level", "lstm") == shown("train", "--level", "lstm", "--help")
    assert main(["help", "trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_errors_name_flags_instead_of_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for message in ("pass overwrite=True to", "pass `overwrite=True` (or --overwrite) to"):
        assert in_flags(message, ["--overwrite"]) == "pass --overwrite to"
        assert in_flags(message, ["--out"]) == message
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "file").touch()
    assert main(["train", "x.csv", "--level", "tfidf", "--out", str(tmp_path / "bundle")]) == 2
    assert "exists; pass --overwrite to replace it, or choose another path." in capsys.readouterr().err


def test_what_an_interrupted_command_keeps(tmp_path: Path) -> None:
    out = str(tmp_path / "out")

    def kept(*words: str) -> str:
        return COMMANDS[words[0]].kept(parse(words))

    predict = ("predict", "bundle", "--input", "in.csv", "--output", out)
    pretrain = ("pretrain", "corpus.txt", "--out", out)
    assert kept("levels") == kept("predict", "bundle", "text") == "nothing was written"
    train = ("train", "x.csv", "--level", "tfidf", "--out", out)
    for words in (predict, pretrain, train):
        assert kept(*words) == f"nothing was written to {out}"
    Path(f"{out}.partial").touch()
    assert kept(*predict) == f"the predictions so far are kept in {out}.partial; run the same command to resume"
    for words in (pretrain, train):
        assert kept(*words) == f"the training so far is kept in {out}.partial; run the same command to resume"
    assert kept("compare", "x.csv", "--out", out).endswith(f"kept in {out}; run the same command to resume")
    assert "run the same command without --overwrite" in kept("compare", "x.csv", "--overwrite")


@pytest.mark.parametrize("command", ["compare", "audit", "pretrain"])
def test_help_with_settings_imports_no_library_that_trains(command: str) -> None:
    """What reads the configs imports the levels' modules, which need numpy and pyarrow and nothing larger."""
    script = (
        "import sys\nfrom textladder.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = set('torch fastai transformers pandas sklearn datasets polars matplotlib rich'.split())\n"
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_the_command_itself_sets_up_its_process() -> None:
    """A program that calls `main` keeps its own signals and standard output."""
    script = (
        "import signal, sys\n"
        "from textladder.cli import main\n"
        "assert main(['levels']) == 0\n"
        "assert sys.stdout.errors == 'strict', sys.stdout.errors\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "sys.argv = ['textladder', 'levels']\n"
        "assert main() == 0\n"
        "assert sys.stdout.errors == 'backslashreplace'\n"
        "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(COMMANDS, "levels", dataclasses.replace(COMMANDS["levels"], run=broken))
    with pytest.raises(ZeroDivisionError):
        main(["levels"])


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(("level", "least"), [("tfidf", 0.82), ("lstm", 0.80)])
def test_ag_news_with_level_and_out_alone(run: Run, shared: Path, tmp_path: Path, level: str, least: float) -> None:
    news = tmp_path / "news.csv"
    lines = (shared / "ag_news" / "ag_news.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    news.write_text("".join(lines[:3001]), encoding="utf-8")
    done = run("train", news, "--level", level, "--out", tmp_path / "bundle", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["test_rows"] == 600
    assert result["test"]["accuracy"] >= least
    if level == "lstm":
        assert result["vectors"] == "glove.6B.50d"
        assert "Vectors: glove.6B.50d" in done.stderr


@pytest.mark.realdata
def test_the_baseline_on_amazon(run: Run, shared: Path, tmp_path: Path) -> None:
    folder = shared / "amazon_polarity"
    done = run(
        "train",
        folder / "train.csv",
        "--test",
        folder / "test.csv",
        "--level",
        "tfidf",
        "--out",
        tmp_path / "b",
        "--json",
    )
    assert json.loads(done.stdout)["test"]["accuracy"] >= 0.875


@pytest.mark.slow
@pytest.mark.realdata
def test_the_tutorials_counts(run: Run, shared: Path, tmp_path: Path) -> None:
    folder = shared / "amazon_polarity"
    vectors = shared / "glove" / "glove.6B.100d.subset.txt.gz"
    flags = ("--level", "lstm", "--preset", "tutorial", "--vectors", vectors, "--epochs", 1, "--json")
    done = run("train", folder / "train.csv", "--test", folder / "test.csv", *flags, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["unique_tokens"], result["vocabulary"], result["parameters"]) == (35431, 2891, 373262)
    assert (result["train_rows"], result["valid_rows"], result["valid"]) == (9995, 0, None)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "redirection", "status"),
    [
        ("levels", ">/dev/full", 2),
        ("--help", ">/dev/full", 2),
        ("levels", ">&-", 0),
        ("levels", "2>&-", 0),
        ("levels", ">&- 2>&-", 0),
        ("levels", "| true", 0),
        ("--help", "| true", 0),
    ],
)
def test_an_output_that_cannot_be_written(words: str, redirection: str, status: int, unbuffered: str) -> None:
    command = f'"{sys.executable}" -m textladder {words} {redirection}'
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == status
    if redirection == ">/dev/full":
        assert done.stderr == "textladder: Standard output could not be written (No space left on device).\n"
    else:
        assert not done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal here")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_goes(ignored: bool) -> None:
    code = (
        "import os, signal, sys, time; from textladder import cli\n"
        f"signal.signal(signal.SIGHUP, signal.SIG_{'IGN' if ignored else 'DFL'})\n"
        "def run(options):\n    os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.2); print('went on')\n"
        "import dataclasses; cli.COMMANDS['levels'] = dataclasses.replace(cli.COMMANDS['levels'], run=run)\n"
        "sys.argv[1:] = ['levels']; sys.exit(cli.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if ignored else 130), done.stderr
    assert ("went on" in done.stdout) is ignored
    assert ("interrupted; nothing was written" in done.stderr) is not ignored


def test_many_interrupts_are_one(tmp_path: Path) -> None:
    code = (
        "import dataclasses, sys, time; from textladder import cli\n"
        "def run(options):\n    print('started', flush=True); time.sleep(60)\n"
        "cli.COMMANDS['levels'] = dataclasses.replace(cli.COMMANDS['levels'], run=run)\n"
        "sys.argv[1:] = ['levels']; sys.exit(cli.main())"
    )
    for _ in range(3):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.002)
            assert process.stderr is not None
            assert (process.returncode, process.stderr.read()) == (
                130, "\ntextladder: interrupted; nothing was written.\n",
            )  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize(
    "end", ["raise TextladderError('wrong')", "raise KeyboardInterrupt", "thread(); raise KeyboardInterrupt"]
)
def test_what_was_printed_before_it_could_not_be_written(end: str) -> None:
    code = (
        "import dataclasses, sys, threading, time; from textladder import cli\n"
        "from textladder.errors import TextladderError\n"
        "def thread(): threading.Thread(target=time.sleep, args=(60,)).start()\n"
        f"def run(options):\n    print('something'); {end}\n"
        "cli.COMMANDS['levels'] = dataclasses.replace(cli.COMMANDS['levels'], run=run)\n"
        "sys.argv[1:] = ['levels']; sys.exit(cli.main())"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, env=environment
        )
    assert done.returncode == (2 if "wrong" in end else 130)
    assert done.stderr.count("\n") <= 2, done.stderr


def test_the_command_twice_in_one_process_and_into_a_string() -> None:
    code = (
        "import contextlib, io, sys; from textladder.cli import main\n"
        "print('before'); sys.argv[1:] = ['levels']; main(); main()\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text: main()\n"
        "print(len(text.getvalue().splitlines()), 'lines')"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    first, *_, last = done.stdout.splitlines()
    assert (first, last) == ("before", f"{(len(done.stdout.splitlines()) - 2) // 2} lines")


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(options: Any) -> None:
        np.empty((1 << 60,), np.int8)

    monkeypatch.setitem(COMMANDS, "levels", dataclasses.replace(COMMANDS["levels"], run=run))
    assert main(["levels"]) == 2
    assert capsys.readouterr().err.startswith("textladder: There is not enough memory (Unable to allocate 1.00 EiB")
