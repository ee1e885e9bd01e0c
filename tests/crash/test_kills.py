"""Every command killed before each of its changes to the file system, and run again: nothing wrong, nothing lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textladder import TextClassifier

DRIVER = Path(__file__).with_name("kill_each.py")
TEXTS = ["a good strong kettle", "broke on the second day"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def killed(folder: Path, step: int, *command: str) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the undisturbed run, and what became of each killed one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), str(step), *command],
        capture_output=True, text=True, timeout=500, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, *lines = map(json.loads, done.stdout.splitlines())
    print(f"{len(lines)} kills")
    assert first["status"] == 0, first["printed"]
    for line in lines:
        assert line["killed"] == -9, line
        # the same command goes on or starts over; killed after its work was done, it says that the output is there
        assert line["status"] == 0 or (line["status"] == 2 and "exists" in line["printed"]), line
    return Path(first["place"]), lines


@pytest.fixture
def place(tmp_path: Path, fitted: Callable[[str], Any], sentences_file: Path) -> Path:
    folder = tmp_path / "start"
    folder.mkdir()
    (folder / "data.csv").write_bytes(sentences_file.read_bytes())
    fitted("tfidf").save(folder / "bundle")
    return folder


def same_predictions(one: Path, other: Path) -> bool:
    first, second = (TextClassifier.load(bundle).predict_proba(TEXTS) for bundle in (one, other))
    return np.array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
def test_train(place: Path, existing: bool) -> None:
    command = ["train", "data.csv", "--level", "tfidf", "--out", "out", "--seed", "3"]
    if existing:
        command.append("--overwrite")
        (place / "out").mkdir()
        for name, content in files(place / "bundle").items():
            (place / "out" / name).write_bytes(content)
    whole, lines = killed(place, 1, *command)
    assert len(lines) > 10
    for line in lines:
        seen = Path(line["seen"], "out")
        if existing or seen.exists():  # the old one or the new one
            TextClassifier.load(seen)
        assert same_predictions(Path(line["place"], "out"), whole / "out"), line
        assert set(files(Path(line["place"]))) == set(files(whole)), line


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
def test_predict(place: Path, existing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "\n".join(f'"{TEXTS[number % 2]} {number}"' for number in range(20_000))
    (place / "texts.csv").write_text(f"text\n{rows}\n")
    command = ["predict", "bundle", "--input", "texts.csv", "--output", "out.csv"]
    if existing:
        command.append("--overwrite")
        (place / "out.csv").write_text("old")
    whole, lines = killed(place, 1, *command)
    assert len(lines) > 5
    for line in lines:
        before = files(Path(line["seen"])).get("out.csv")
        assert before in ((b"old",) if existing else (None,)) or before == files(whole)["out.csv"], line
        assert files(Path(line["place"])) == files(whole), line


@pytest.mark.slow
def test_export(place: Path) -> None:
    whole, lines = killed(place, 1, "export", "bundle", "--data", "data.csv")
    assert len(lines) > 10
    for line in lines:
        TextClassifier.load(Path(line["seen"], "bundle"))
        assert set(files(Path(line["place"]))) == set(files(whole)), line
        TextClassifier.load(Path(line["place"], "bundle"), form="onnx-float32")


@pytest.mark.slow
def test_explain(place: Path) -> None:
    whole, lines = killed(place, 1, "explain", "bundle", TEXTS[0], "--html", "page.html")
    for line in lines:
        assert files(Path(line["seen"])).get("page.html") in (None, files(whole)["page.html"])
        assert files(Path(line["place"])) == files(whole), line


@pytest.mark.slow
def test_compare(place: Path) -> None:
    command = ["compare", "data.csv", "--levels", "tfidf", "--seeds", "2", "--forms", "original", "--out", "run"]
    whole, lines = killed(place, 12, *command, "--folds", "1")
    assert len(lines) > 5
    bundles = [one.relative_to(whole) for one in (whole / "run").glob("*/bundle")]
    for line in lines:
        place = Path(line["place"])
        for bundle in bundles:
            assert same_predictions(place / bundle, whole / bundle), line
        assert set(files(place)) == set(files(whole)), line
