"""Every command killed before each of its changes to the file system, and run again: nothing wrong, nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textladder import TextClassifier

DRIVER = Path(__file__).with_name("kill_each.py")
TEXTS = ["a good strong kettle", "broke on the second day"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def killed(folder: Path, *command: str) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the undisturbed run, and what became of each killed one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), *command],
        capture_output=True, text=True, timeout=1800, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, *lines = map(json.loads, done.stdout.splitlines())
    assert first["status"] == 0, first["printed"]
    for line in lines:
        # the same command goes on or starts over; killed after its work was done, it says that the output is there
        assert line["status"] == 0 or (line["status"] == 2 and "exists; pass" in line["printed"]), line
    kills = sum(len(line["seen"]) for line in lines)
    assert kills >= len(lines) > 0
    print(f"{kills} kills")
    return Path(first["place"]), lines


def same_predictions(one: Path, other: Path) -> bool:
    first, second = (TextClassifier.load(bundle).predict_proba(TEXTS) for bundle in (one, other))
    return np.array_equal(first, second)


FIX = ["--fix", "drop-leaks"]
TINY = {
    "tfidf": ["--seed", "3"],
    "lstm": ["--vectors", "vectors.txt", "--epochs", "4", "--hidden-size", "4"],
}


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("level", list(TINY))
def test_train(place: Path, level: str, existing: bool) -> None:
    command = ["train", "data.csv", "--level", level, *TINY[level], "--out", "out"]
    if existing:
        command.append("--overwrite")
        shutil.copytree(place / "bundle", place / "out")
    whole, lines = killed(place, *command)
    assert len(lines) >= 10
    for line in lines:
        for seen in line["seen"]:
            if existing or Path(seen, "out").exists():  # the old one or the new one
                TextClassifier.load(Path(seen, "out"))
        assert same_predictions(Path(line["place"], "out"), whole / "out"), line
        assert set(files(Path(line["place"]))) == set(files(whole)), line


@pytest.mark.slow
def test_pretrain(place: Path) -> None:
    sizes = ["--epochs", "2", "--dimension", "8", "--hidden-size", "8"]
    whole, lines = killed(place, "pretrain", "corpus.txt", "--out", "out", *sizes)
    assert len(lines) > 10
    weights = {name: content for name, content in files(whole / "out").items() if name.endswith(".safetensors")}
    assert weights
    for line in lines:
        found = files(Path(line["place"], "out"))
        assert {name: found[name] for name in weights} == weights, line
        assert set(files(Path(line["place"]))) == set(files(whole)), line


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.jsonl.gz"])
def test_predict(place: Path, name: str, existing: bool) -> None:
    rows = "\n".join(f'"{TEXTS[number % 2]} {number}"' for number in range(9_000))
    (place / "texts.csv").write_text(f"text\n{rows}\n")
    command = ["predict", "bundle", "--input", "texts.csv", "--output", name]
    if existing:
        command.append("--overwrite")
        (place / name).write_text("old")
    whole, lines = killed(place, *command)
    assert len(lines) > 5
    for line in lines:
        for seen in line["seen"]:
            before = files(Path(seen)).get(name)
            assert before == (b"old" if existing else None) or before == files(whole)[name], line
        assert files(Path(line["place"])) == files(whole), line


@pytest.mark.slow
def test_export(place: Path) -> None:
    whole, lines = killed(place, "export", "bundle", "--data", "data.csv")
    assert len(lines) > 10
    for line in lines:
        for seen in line["seen"]:
            TextClassifier.load(Path(seen, "bundle"))
        assert set(files(Path(line["place"]))) == set(files(whole)), line
        TextClassifier.load(Path(line["place"], "bundle"), form="onnx-float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["explain", "bundle", TEXTS[0], "--html", "out.html"], "out.html"),
        (["inspect", "data.csv", "--csv", "out.csv"], "out.csv"),
        (["lr-find", "data.csv", "--level", "lstm", *TINY["lstm"], "--plot", "out.png"], "out.png"),
        (["audit", "data.csv", "--levels", "tfidf", "--test", "test.csv", *FIX, "--output", "out.csv"], "out.csv"),
    ],
)
def test_other_outputs(place: Path, command: list[str], name: str) -> None:
    (place / "test.csv").write_bytes((place / "data.csv").read_bytes())
    whole, lines = killed(place, *command)
    for line in lines:
        for seen in line["seen"]:
            assert files(Path(seen)).get(name) in (None, files(whole)[name])
        assert files(Path(line["place"])) == files(whole), line


@pytest.mark.slow
def test_compare(place: Path) -> None:
    command = ["compare", "data.csv", "--levels", "tfidf", "--seeds", "2", "--forms", "original", "--out", "run"]
    whole, lines = killed(place, *command, "--folds", "1")
    assert len(lines) > 5
    bundles = [one.relative_to(whole) for one in (whole / "run").glob("*/bundle")]
    for line in lines:
        place = Path(line["place"])
        for bundle in bundles:
            assert same_predictions(place / bundle, whole / bundle), line
        assert set(files(place)) == set(files(whole)), line
