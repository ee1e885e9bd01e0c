"""Every command on a disk that is too small for it, a block larger each time: a sentence, and nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("fill_each.py")
NOT_ALLOWED = 77


def on_small_disks(folder: Path, step: int, *command: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The digests of the files before, and what became of each run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), str(step), *command],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    if done.returncode == NOT_ALLOWED:
        pytest.skip("this process may not mount a disk of its own")
    assert done.returncode == 0, done.stderr[-2000:]
    before, *runs = map(json.loads, done.stdout.splitlines())
    print(f"{len(runs)} disks")
    return before, runs


LSTM = "--level lstm --vectors vectors.txt --hidden-size 4 --epochs 2"
COMMANDS = [  # with the blocks from one disk to the next, and what may be left for the same command to go on from
    ("train data.csv --level tfidf --out out", 1, None),
    ("train data.csv --level tfidf --out bundle --overwrite", 1, None),
    (f"train data.csv {LSTM} --out out", 1, "out.partial/"),
    (f"train data.csv {LSTM} --out bundle --overwrite", 1, "bundle.partial/"),
    ("train data.csv --level ulmfit --language-model model --epochs 1 --out out", 5, "out.partial/"),
    ("train data.csv --level transformer --encoder encoder --max-tokens 32 --epochs 1 --out out", 15, "out.partial/"),
    ("pretrain corpus.txt --dimension 8 --hidden-size 8 --out out", 1, "out.partial/"),
    ("predict bundle --input data.csv --text text --output out.csv", 1, "out.csv.partial"),
    ("predict bundle --input data.csv --text text --output out.parquet", 1, "out.parquet.partial"),
    ("export bundle --data data.csv", 1, None),
    ("explain bundle good --html out.html", 1, None),
    (f"lr-find data.csv {LSTM} --plot out.png", 1, None),
    ("audit data.csv --test test.csv --levels tfidf --fix drop-leaks --output out.csv", 1, None),
    ("inspect data.csv --csv out.csv", 1, None),
    ("compare data.csv --levels tfidf --forms original --folds 1 --out run", 1, "run/"),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="disks of one's own are mounted by Linux only")
@pytest.mark.parametrize(("command", "step", "kept"), COMMANDS)
def test_nothing_is_lost(place_with_models: Path, command: str, step: int, kept: str | None) -> None:
    place = place_with_models
    (place / "test.csv").write_bytes((place / "data.csv").read_bytes())
    before, runs = on_small_disks(place, step, *command.split())
    assert len(runs) > 1
    assert runs[-1]["status"] == 0, runs[-1]
    for run in runs[:-1]:
        assert run["status"] == 2, run
        assert "Traceback" not in run["printed"], run
        assert run["printed"].splitlines()[-1].startswith("textladder: "), run
        # what was there before is there, and all that is new is what the same command goes on from
        assert {name: run["files"].get(name) for name in before} == before, run
        new = run["files"].keys() - before.keys()
        assert all(kept is not None and name.startswith(kept) for name in new), run
