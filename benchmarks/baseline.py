"""What does `tfidf` cost, compared with the same scikit-learn pipeline by itself?

    python benchmarks/baseline.py [FOLDER]

FOLDER has a train.csv and a test.csv in the Amazon form. Both sides run in fresh processes, in turn: the whole command
`textladder train` (reading, splitting, fitting, measuring on validation and test rows, a checked bundle), and a script
that reads the same rows with pandas and fits and scores scikit-learn's own pipeline with the same settings, but without
weights by the difference of the classes, which it has not.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity"
ROUNDS = 5
PIPELINE = r"""
import sys
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
names = ["label", "title", "text"]
train, test = (pd.read_csv(f"{sys.argv[1]}/{part}.csv", names=names).fillna("") for part in ("train", "test"))
pipeline = make_pipeline(
    TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), min_df=2, sublinear_tf=True),
    LogisticRegression(C=6, solver="liblinear", dual=True, class_weight="balanced"),
)
pipeline.fit(train.title + " " + train.text, train.label)
print(pipeline.score(test.title + " " + test.text, test.label))
"""


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main(folder: Path) -> None:
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as out:
        train = ["train", str(folder / "train.csv"), "--test", str(folder / "test.csv"), "--level", "tfidf"]
        for number in range(ROUNDS + 1):
            one = seconds([sys.executable, "-m", "textladder", *train, "--out", f"{out}/{number}"])
            other = seconds([sys.executable, "-c", PIPELINE, str(folder)])
            if number:  # the first round warms the disk
                ours.append(one)
                theirs.append(other)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"whole processes, {ROUNDS} rounds in turn, medians")
    print(f"textladder train --level tfidf   {statistics.median(ours):6.2f} s")
    print(f"scikit-learn pipeline            {statistics.median(theirs):6.2f} s")
    print(
        f"ratio                            {statistics.median(ratios):6.2f}   ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
