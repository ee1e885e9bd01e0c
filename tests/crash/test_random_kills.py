"""Trainings killed three times at random moments end as if they had never been disturbed, to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from textladder import TextClassifier

DRIVER = Path(__file__).with_name("kill_at_random.py")
COMMANDS = [
    "train data.csv --level lstm --vectors vectors.txt --epochs 6 --out out",
    "train data.csv --level ulmfit --language-model model --epochs 4 --out out",
    "train data.csv --level transformer --encoder encoder --max-tokens 32 --epochs 4 --precision float32 --out out",
    "pretrain corpus.txt --dimension 16 --hidden-size 16 --epochs 4 --out out",
    "compare data.csv --levels tfidf,lstm --seeds 2 --learning-curve --forms original --out out",
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[:4]))
def test_resumed_equals_undisturbed(command: str, place_with_models: Path) -> None:
    place = place_with_models
    header, rows = (place / "data.csv").read_text().split("\n", 1)
    (place / "data.csv").write_text(f"{header}\n" + "".join(
        f"{line[:-1]} {word}\"\n" for line in rows.splitlines() for word in ("kettle", "box", "cable", "again")
    ))  # fmt: skip
    seed = int(os.environ.get("TEXTLADDER_KILL_SEED", "0"))
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(place), str(seed), *command.split()],
        capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    whole, killed = map(json.loads, done.stdout.splitlines())
    assert whole["status"] == 0, whole["printed"]
    assert killed["status"] == 0, killed["printed"]
    print(command, killed["killed"])
    assert killed["killed"].count(-9) >= 2, killed
    assert outcome(Path(killed["place"], "out")) == outcome(Path(whole["place"], "out"))


def outcome(folder: Path) -> dict[str, Any]:
    """The weights, the predictions, and everything else but times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in (".safetensors", ".onnx") or path.name in ("vocabulary.json", "tokenizer.json"):
            found[name] = path.read_bytes()
        elif path.suffix == ".parquet":
            found[name] = parquet.read_table(path).to_pydict()
        elif path.is_file():
            found[name] = None
        elif (path / "textladder.json").exists() and "level" in json.loads((path / "textladder.json").read_text()):
            found[name] = TextClassifier.load(path).predict_proba(["a good kettle", "it broke"]).tobytes()
    return found
