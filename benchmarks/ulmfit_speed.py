"""What training an AWD-LSTM classifier costs: fastai's own `text_classifier_learner`, and `ulmfit`, in one run.

    python benchmarks/ulmfit_speed.py [TRAIN.csv]

The same Amazon reviews (title and text), words, pretrained weights, batch size and schedule: an epoch of the head, one
more for each layer from the top, then three of everything. Fine-tuning the language model is left out on both sides,
and splitting into words is done before the clock starts. fastai's side has its own batches, padding, dropout and
optimizer, in float32; the looks at the validation rows count on both sides. The sides take turns.
"""

import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.losses import CrossEntropyLossFlat  # noqa: E402
from fastai.metrics import accuracy  # noqa: E402
from fastai.text.data import SortedDL, TensorText, pad_input_chunk  # noqa: E402
from fastai.text.learner import text_classifier_learner  # noqa: E402
from fastai.text.models.awdlstm import AWD_LSTM  # noqa: E402
from fastai.torch_core import TensorCategory  # noqa: E402
from fastcore.foundation import L  # noqa: E402

from textladder import read_texts  # noqa: E402
from textladder.levels.base import make_config  # noqa: E402
from textladder.levels.ulmfit import UlmfitLevel  # noqa: E402
from textladder.progress import Monitor  # noqa: E402
from textladder.training import seeded  # noqa: E402

TRAIN = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "train.csv"
ROWS, BATCH, EPOCHS, RUNS = 3000, 32, 3, 3


def ours(data: Any, seed: int) -> tuple[float, float, UlmfitLevel]:
    """Seconds of the schedule, the last look's accuracy, and the level."""
    settings = {"language_epochs": 0, "epochs": EPOCHS, "batch_size": BATCH}
    config = make_config(UlmfitLevel, "paper", settings)
    level = UlmfitLevel(config, len(data.labels))
    report = level.fit(data.train, data.valid, seed=seed, monitor=Monitor())
    return sum(look["seconds"] for look in report.epochs), report.epochs[-1]["valid_accuracy"], level


def theirs(data: Any, level: UlmfitLevel, seed: int) -> tuple[float, float]:
    """The same of fastai, from the same pretrained weights."""

    def loader(texts: Any, labels: np.ndarray, shuffle: bool) -> SortedDL:
        rows = [
            (TensorText(torch.from_numpy(texts[place].astype(np.int64))), TensorCategory(int(label)))
            for place, label in enumerate(labels)
        ]
        return SortedDL(rows, bs=BATCH, shuffle=shuffle, before_batch=pad_input_chunk, num_workers=0)

    assert level.valid_texts is not None
    sizes = level.pretrained.sizes
    config = {"emb_sz": sizes["dimension"], "n_hid": sizes["hidden_size"], "n_layers": sizes["layers"]}
    with seeded(seed):
        loaders = DataLoaders(
            loader(level.texts, data.train.label_ids, True), loader(level.valid_texts, data.valid.label_ids, False)
        )
        loaders.vocab, loaders.c = L(level.vocabulary.tokens, list(data.labels)), len(data.labels)
        learner = text_classifier_learner(
            loaders,
            AWD_LSTM,
            pretrained=False,
            config=config,
            drop_mult=0.5,
            metrics=[accuracy],
            loss_func=CrossEntropyLossFlat(),
        )
        fill(learner.model[0].module, level)
        begun = time.perf_counter()
        with learner.no_logging(), learner.no_bar():
            learner.freeze()
            learner.fit_one_cycle(1, 1e-2)
            for number in range(1, sizes["layers"]):
                learner.freeze_to(-1 - number)
                learner.fit_one_cycle(1, slice(5e-3 / 2.6**4, 5e-3))
            learner.unfreeze()
            learner.fit_one_cycle(EPOCHS, slice(4e-3 / 2.6**4, 4e-3))
        return time.perf_counter() - begun, float(learner.recorder.final_record[-1])


def fill(encoder: Any, level: UlmfitLevel) -> None:
    """The pretrained weights by fastai's names."""
    weights, _ = level.pretrained.weights_for(level.vocabulary.tokens)
    with torch.no_grad():
        encoder.encoder.weight.copy_(torch.from_numpy(weights["encoder.embedding.weight"]))
        for number, rnn in enumerate(encoder.rnns):
            own = {name: torch.from_numpy(weights[f"encoder.lstms.{number}.{name}"]) for name in NAMES}
            rnn.weight_hh_l0_raw.copy_(own["weight_hh_l0"])
            for name in NAMES[1:]:
                getattr(rnn.module, name).copy_(own[name])


NAMES = ("weight_hh_l0", "weight_ih_l0", "bias_ih_l0", "bias_hh_l0")


def main(train: Path) -> None:
    data = read_texts(train, rows=ROWS, test=train, valid=1 / 3, seed=0)
    assert data.valid is not None
    print(f"{len(data.train):,} training and {len(data.valid):,} validation rows, batches of {BATCH}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    times: dict[str, list[float]] = {"ulmfit": [], "fastai": []}
    right: dict[str, list[float]] = {"ulmfit": [], "fastai": []}
    for seed in range(RUNS):
        seconds, accuracy_, level = ours(data, seed)
        their_seconds, their_accuracy = theirs(data, level, seed)
        for name, one, other in (("ulmfit", seconds, accuracy_), ("fastai", their_seconds, their_accuracy)):
            times[name].append(one)
            right[name].append(other)
        print(f"seed {seed}: ulmfit {seconds:.1f} s, accuracy {accuracy_:.3f}; "
              f"fastai {their_seconds:.1f} s, accuracy {their_accuracy:.3f}")  # fmt: skip
    ratio = statistics.median(b / a for a, b in zip(times["ulmfit"], times["fastai"], strict=True))
    print(f"fastai takes {ratio:.2f} times as long; mean accuracy {np.mean(right['fastai']):.3f} "
          f"(ulmfit {np.mean(right['ulmfit']):.3f})")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TRAIN)
