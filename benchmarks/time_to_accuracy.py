"""How long does it take to reach the tutorial's final accuracy? The tutorial's pipeline and `lstm`, in one run.

    python benchmarks/time_to_accuracy.py [FOLDER VECTORS]

FOLDER has a train.csv and a test.csv in the Amazon form. The tutorial's side is written as the tutorial writes it: a
`Dataset` that tokenizes a row on access, batches of 32 padded to 128 tokens, fastai's DataLoader and Learner, one-cycle
at 3e-3 for 5 epochs. The clock starts at the file on disk and includes the vocabulary and the vectors on both sides
(vectors already in the fast cache), but not the import of libraries. textladder's clock stops at the first validation
run, one every quarter epoch, that reaches the tutorial's final test accuracy. A single run may be luck, so training
continues to the first validation run whose 95% interval lies above it, and the network at that point is evaluated on
the test rows.
"""

import contextlib
import sys
import time
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import polars  # noqa: F401, so that importing it is not timed
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import torch
from torch import Tensor, nn

warnings.simplefilter("ignore")

from fastai.callback.schedule import Learner  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.data.load import DataLoader  # noqa: E402
from fastai.metrics import accuracy  # noqa: E402

from textladder import load_vectors, read_texts  # noqa: E402
from textladder.levels import find_level  # noqa: E402
from textladder.levels.base import make_config  # noqa: E402
from textladder.metrics import evaluate, wilson_interval  # noqa: E402
from textladder.progress import Monitor  # noqa: E402
from textladder.training.stages import seeded  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared" / "data"
DEFAULTS = (SHARED / "amazon_polarity", SHARED / "glove" / "glove.6B.100d.subset.txt.gz")
FINAL = 0.836  # the tutorial's test accuracy on these rows, as published with them


class TutorialRows(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """One row per item: take it from the frame, tokenize it, turn it into ids, pad it."""

    def __init__(self, frame: pd.DataFrame, vocabulary: dict[str, int]) -> None:
        self.frame, self.vocabulary = frame, vocabulary

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        label, _, text = self.frame.iloc[index]
        ids = [self.vocabulary.get(token, 0) for token in regex_tokens(text)]
        ids = (ids + [1] * (128 - len(ids)))[:128]
        return torch.tensor(ids), torch.tensor(int(label) - 1)


class TutorialModel(nn.Module):
    """Embedding, two LSTM layers, both last states through two linear layers."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(vectors), vectors.shape[1], _weight=vectors)
        self.lstm = nn.LSTM(vectors.shape[1], 64, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, ids: Tensor) -> Tensor:
        _, (states, _) = self.lstm(self.embedding(ids))
        logits: Tensor = self.head(states.permute(1, 0, 2).flatten(start_dim=1))
        return logits


def regex_tokens(text: str) -> list[str]:
    from tokenizing import split  # beside this file

    return split(text)


def tutorial(folder: Path, vectors: Path) -> tuple[float, float]:
    """Total seconds, and accuracy on the test rows."""
    marks = [("start", time.perf_counter())]
    names = ["label", "title", "text"]
    train = pd.read_csv(folder / "train.csv", names=names).fillna("")
    counter: Counter[str] = Counter()
    for text in train["text"]:
        counter.update(regex_tokens(text))
    tokens = ["<unk>", "<pad>", *(token for token, count in counter.most_common() if count >= 20)]
    marks.append(("read and count", time.perf_counter()))
    matrix, _ = load_vectors(vectors).lookup(tokens)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    test = pd.read_csv(folder / "test.csv", names=names).fillna("")
    marks.append(("vectors", time.perf_counter()))
    loaders = DataLoaders(
        DataLoader(TutorialRows(train, vocabulary), bs=32, shuffle=True),
        DataLoader(TutorialRows(test, vocabulary), bs=32),
    )
    model = TutorialModel(torch.from_numpy(matrix))
    learner = Learner(loaders, model, loss_func=nn.CrossEntropyLoss(), metrics=[accuracy])
    with learner.no_logging(), learner.no_bar():
        learner.fit_one_cycle(5, lr_max=3e-3)
    marks.append(("5 epochs with validation", time.perf_counter()))
    show("tutorial", marks)
    return marks[-1][1] - marks[0][1], float(learner.recorder.values[-1][-1])


class Reached(BaseException):  # fastai rewrites the message of every Exception
    """The validation accuracy was reached."""


class Clock(Monitor):
    """Records when each piece of work starts, and stops training at the first conclusive validation."""

    def __init__(self) -> None:
        self.rows = 0  # validation rows
        self.marks = [("start", time.perf_counter())]
        self.reached: tuple[float, float] | None = None  # seconds, accuracy

    def mark(self, name: str) -> None:
        self.marks.append((name, time.perf_counter()))

    def start(self, name: str, steps: int | None) -> None:
        if steps:
            self.mark("ids, vectors, network")

    def validated(self, accuracy: float) -> None:
        if accuracy >= FINAL and self.reached is None:
            self.mark(f"training to the first validation at or above {FINAL}")
            self.reached = self.marks[-1][1] - self.marks[0][1], accuracy
        if wilson_interval(round(accuracy * self.rows), self.rows)[0] >= FINAL:
            self.mark("to the first whose interval is above")
            raise Reached


def ours(folder: Path, vectors: Path, seed: int) -> tuple[float, float, float, float]:
    """Seconds to the first validation that reaches it, its accuracy, seconds to the conclusive one, test accuracy."""
    clock = Clock()
    data = read_texts(folder / "train.csv", test=folder / "test.csv", seed=seed)
    assert data.valid is not None
    clock.rows = len(data.valid)
    clock.mark("read and split")
    kind = find_level("lstm")
    level = kind(make_config(kind, "default", {"vectors": str(vectors), "validations_per_epoch": 4}), len(data.labels))
    with contextlib.suppress(Reached):
        level.fit(data.train, data.valid, seed=seed, monitor=clock)
    show("textladder", clock.marks)
    measured = evaluate(level.score(list(data.test)).probabilities, data.test.label_ids)
    assert clock.reached is not None
    return *clock.reached, clock.marks[-1][1] - clock.marks[0][1], measured.accuracy


def show(side: str, marks: list[tuple[str, float]]) -> None:
    spent = [f"{name} {now - before:.1f} s" for (_, before), (name, now) in pairwise(marks)]
    print(f"  {side}: {', '.join(spent)}", flush=True)


def main(folder: Path, vectors: Path) -> None:
    load_vectors(vectors)  # into the fast cache, for both sides
    ratios = []
    for seed in range(3):
        with seeded(seed):
            theirs, final = tutorial(folder, vectors)
        took, valid, sure, test = ours(folder, vectors, seed)
        ratios.append(theirs / took)
        print(
            f"seed {seed}: tutorial {theirs:.1f} s to test accuracy {final:.3f}; default lstm {took:.1f} s to "
            f"validation accuracy {valid:.3f}, {ratios[-1]:.1f} times as fast; {sure:.1f} s to the conclusive one, "
            f"{theirs / sure:.1f} times as fast, test accuracy there {test:.3f}",
            flush=True,
        )
    print(f"median over seeds: {np.median(ratios):.1f} times as fast, with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:3])) if len(sys.argv) > 2 else main(*DEFAULTS)
