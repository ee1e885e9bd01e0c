"""Two writers of one output: one works, and the other says so or comes after it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textladder import TextClassifier
from textladder.atomic_files import locked
from textladder.cli import main


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "test.csv").write_bytes((place / "data.csv").read_bytes())
    monkeypatch.chdir(place)


@pytest.mark.parametrize(
    ("output", "what", "command"),
    [
        ("out", "bundle", "train data.csv --level tfidf --out out"),
        ("bundle", "bundle", "train data.csv --level tfidf --out bundle --overwrite"),
        ("bundle", "bundle", "train data.csv --level tfidf --out link --overwrite"),
        ("out", "language model", "pretrain corpus.txt --out out"),
        ("out.csv", "file", "predict bundle --input data.csv --text text --output out.csv"),
        ("bundle", "bundle", "export bundle --data data.csv"),
        ("out", "bundle", "export bundle --data data.csv --out out"),
        ("run", "comparison", "compare data.csv --levels tfidf --out run"),
    ],
)
def test_the_second_writer_says_that_there_is_another(
    place: Path, output: str, what: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "link").symlink_to("bundle")
    inside = what == "comparison"
    if inside:
        (place / output).mkdir()
    with locked(place / output, what, inside=inside):
        before = {one: one.read_bytes() for one in place.rglob("*") if one.is_file()}
        assert main(command.split()) == 2
        assert f": another process is writing this {what}; wait for it" in capsys.readouterr().err
        assert {one: one.read_bytes() for one in place.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize(
    ("output", "command", "values"),
    [
        ("out", "train data.csv --level tfidf --out out --seed {}", ("1", "2")),
        ("out.csv", "predict bundle --input {} --text text --output out.csv", ("data.csv", "more.csv")),
        ("out.html", "explain bundle {} --html out.html", ("good", "bad")),
        ("a.csv", "audit data.csv --test {} --levels tfidf --fix drop-leaks --output a.csv", ("test.csv", "no.csv")),
        ("out.csv", "inspect {} --csv out.csv", ("data.csv", "more.csv")),
    ],
)  # fmt: skip
def test_at_the_same_time(place: Path, output: str, command: str, values: tuple[str, str]) -> None:
    header, rows = (place / "data.csv").read_text().split("\n", 1)
    (place / "more.csv").write_text(f"{header}\n{rows * 20}")
    (place / "no.csv").write_text("label,text\ngood,nothing like it\nbad,nor this\n")
    commands = [f"{command.format(value)} --overwrite" for value in values]
    alone = []
    for command in commands:
        subprocess.run([sys.executable, "-m", "textladder", *command.split()], check=True, capture_output=True)
        alone.append(content(place / output))
    both = [
        subprocess.Popen([sys.executable, "-m", "textladder", *command.split()], stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    ends = [(one.communicate()[1], one.returncode) for one in both]
    assert any(status == 0 for _, status in ends), ends
    assert all(status == 0 or (status == 2 and "another process is writing" in said) for said, status in ends), ends
    finished = [one for one, (_, status) in zip(alone, ends, strict=True) if status == 0]
    assert content(place / output) in finished
    assert not [one.name for one in place.iterdir() if one.name.startswith(f".{output}")]


def content(path: Path) -> Any:
    """What an output says, without the times in it."""
    if path.is_dir():
        return TextClassifier.load(path).predict_proba(["a good strong kettle"]).tolist()
    return json.dumps(path.read_text())
