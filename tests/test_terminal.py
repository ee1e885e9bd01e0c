"""Words of files reach the terminal escaped, whichever command prints them (CWE-150)."""

import csv
import re
from pathlib import Path

import pytest

from textladder.cli import main

EVIL = "\x1b]0;owned\x07\x9b2J\u202e"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    words = {f"good{EVIL}": "a strong lovely kettle", f"bad{EVIL}": "broke at once, a waste"}
    with (tmp_path / f"rows{EVIL}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([f"label{EVIL}", f"text{EVIL}"])
        for number in range(60):
            label = sorted(words)[number % 2]
            writer.writerow([label, f"{words[label]} {EVIL} number {number // 2}"])
    return tmp_path


def test_no_command_lets_files_command_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, columns = f"rows{EVIL}.csv", ["--label", f"label{EVIL}", "--text", f"text{EVIL}"]
    out = f"out{EVIL}"
    commands = [
        ["inspect", rows, *columns],
        ["audit", rows, *columns],
        ["train", rows, "--level", "tfidf", "--out", out, *columns],
        ["train", rows, "--level", "tfidf", "--out", out, *columns],
        ["evaluate", out, rows, *columns],
        ["predict", out, f"a kettle {EVIL}"],
        ["predict", out, "--input", rows, "--output", f"predicted{EVIL}.csv", "--text", f"text{EVIL}"],
        ["predict", out, "--input", rows, "--output", f"predicted{EVIL}.csv", "--text", f"other{EVIL}"],
        ["explain", out, f"a kettle {EVIL} broke"],
        ["compare", rows, "--levels", "tfidf", "--out", f"run{EVIL}", "--folds", "2", *columns],
        ["train", f"missing{EVIL}.csv", "--out", "other"],
        ["train", rows, "--out", "other", "--label", f"missing{EVIL}"],
        ["predict", out, f"a text{EVIL}", f"--flag{EVIL}"],
    ]
    for command in commands:
        for more in ([], ["--json"]):
            if more and "compare" in command:
                continue
            status = main([*command, *more])
            captured = capsys.readouterr()
            shown = captured.out + captured.err
            assert status in (0, 2), shown
            assert shown
            assert not OBEYED.search(shown), (command, shown)
    report = folder / f"run{EVIL}" / "report.md"
    assert not OBEYED.search(report.read_text(encoding="utf-8"))
