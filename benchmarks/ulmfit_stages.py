"""What does each stage of `ulmfit` contribute? Random weights, pretrained ones, and fine-tuned ones.

    python benchmarks/ulmfit_stages.py [TRAIN.csv TEST.csv]

Each has the same rows, seed, network and schedule of the classifier. The recipe was chosen on training rows.
"""

import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from textladder import TextClassifier, read_texts  # noqa: E402

AMAZON = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity"
STAGES: dict[str, dict[str, Any]] = {
    "random weights": {"language_model": "random", "language_epochs": 0},
    "pretrained": {"language_epochs": 0},
    "pretrained, then fine-tuned on the texts": {},
}


def main(train: Path, test: Path) -> None:
    data = read_texts(train, test=test, seed=0)
    assert data.valid is not None
    print(f"{len(data.train):,} training, {len(data.valid):,} validation and {len(data.test):,} test rows")
    for name, settings in STAGES.items():
        started = time.perf_counter()
        classifier = TextClassifier("ulmfit", seed=0, **settings).fit(data)
        minutes = (time.perf_counter() - started) / 60
        found, chosen = classifier.evaluate(data.test), classifier.evaluate(data.valid)
        print(
            f"{name:<42} test {found.accuracy:.4f} ({found.accuracy_low:.3f} to {found.accuracy_high:.3f}), "
            f"validation {chosen.accuracy:.3f}; {minutes:.1f} minutes",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3])) if len(sys.argv) > 2 else main(AMAZON / "train.csv", AMAZON / "test.csv")
