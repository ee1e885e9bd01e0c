"""What does training an AWD-LSTM classifier cost? fastai's `text_classifier_learner` and `ulmfit`, in one run.

    python benchmarks/ulmfit_speed.py [TRAIN.csv]

Both sides use the same thousand Amazon reviews (title and text), words, pretrained weights, head, batch size, dropout,
learning rates and schedule: eight epochs of the head, the level's default for that many rows, then three of the whole
network. Neither fine-tunes the language model, and texts are split into words before the clock starts. fastai's side
has its own batches, padding and optimizer, in float32; validation counts on both sides. The sides take turns. Accuracy
is measured afterwards, on two thousand other rows.

Most of the gain comes from the frozen epochs, which cost next to nothing after the first. The two parts of the schedule
are printed separately, because with more rows there are fewer frozen epochs (two from 8,000 rows on).
"""

import sys
import time
import warnings
from dataclasses import replace
from itertools import pairwise
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
from textladder.language_models import load_language_model  # noqa: E402
from textladder.levels.base import make_config  # noqa: E402
from textladder.levels.ulmfit import UlmfitLevel  # noqa: E402
from textladder.progress import Monitor  # noqa: E402
from textladder.training.stages import seeded  # noqa: E402

TRAIN = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "train.csv"
ROWS, OTHER_ROWS, BATCH, EPOCHS, RUNS = 1000, 2000, 32, 3, 3


def ours(data: Any, seed: int) -> tuple[list[float], float, UlmfitLevel]:
    """Seconds of the frozen epochs and of the others, accuracy on the held-out rows, and the level."""
    settings = {"language_epochs": 0, "epochs": EPOCHS, "frozen_epochs": None, "gradual": False, "batch_size": BATCH}
    level = UlmfitLevel(make_config(UlmfitLevel, "paper", settings), len(data.labels))
    report = level.fit(data.train, data.valid, seed=seed, monitor=Monitor())
    seconds = [sum(entry["seconds"] for entry in report.epochs if (entry["trainable"] == "head") == head)
               for head in (True, False)]  # fmt: skip
    right = level.score(list(data.test)).probabilities.argmax(axis=1) == data.test.label_ids
    return seconds, float(right.mean()), level


def theirs(data: Any, level: UlmfitLevel, seed: int) -> tuple[list[float], float]:
    """The same for fastai, from the same pretrained weights."""

    def loader(texts: Any, labels: np.ndarray, shuffle: bool, batch: int = BATCH) -> SortedDL:
        rows = [
            (TensorText(torch.from_numpy(texts[index].astype(np.int64))), TensorCategory(int(label)))
            for index, label in enumerate(labels)
        ]
        return SortedDL(rows, bs=batch, shuffle=shuffle, before_batch=pad_input_chunk, num_workers=0)

    texts, valid_texts = (loader.dataset.batches.texts for loader in level.learner.dls)
    schedule, decay = level.resolved(len(data.train)), level.config.layer_decay
    sizes = load_language_model(level.config.language_model or "compact").forward_only().sizes
    config = {"emb_sz": sizes["dimension"], "n_hid": sizes["hidden_size"], "n_layers": sizes["layers"]}
    with seeded(seed):
        loaders = DataLoaders(
            loader(texts, data.train.label_ids, True), loader(valid_texts, data.valid.label_ids, False)
        )
        loaders.vocab, loaders.c = L(level.vocabulary.tokens, list(data.labels)), len(data.labels)
        learner = text_classifier_learner(
            loaders,
            AWD_LSTM,
            pretrained=False,
            config=config,
            drop_mult=level.config.dropout,
            metrics=[accuracy],
            loss_func=CrossEntropyLossFlat(),
        )
        fill(learner.model[0].module, level)
        clock = [time.perf_counter()]
        with learner.no_logging(), learner.no_bar():
            learner.freeze()
            learner.fit_one_cycle(schedule.frozen_epochs, schedule.frozen_learning_rate)
            clock.append(time.perf_counter())
            learner.unfreeze()
            rate = schedule.learning_rate
            learner.fit_one_cycle(EPOCHS, slice(rate * decay ** (len(learner.opt.param_groups) - 1), rate))
            clock.append(time.perf_counter())
            others = level.vocabulary.encode_texts(data.test)
            # one text at a time, because in a batch fastai's prediction depends on the padding
            found = learner.get_preds(dl=loader(others, data.test.label_ids, False, 1))[0]
        right = found.argmax(dim=1).numpy() == data.test.label_ids
        return [after - before for before, after in pairwise(clock)], float(right.mean())


def fill(encoder: Any, level: UlmfitLevel) -> None:
    """Copy the pretrained weights into fastai's network."""
    pretrained = load_language_model(level.config.language_model or "compact").forward_only()
    weights, _ = pretrained.weights_for(level.vocabulary.tokens)
    with torch.no_grad():
        encoder.encoder.weight.copy_(torch.from_numpy(weights["encoder.embedding.weight"]))
        for number, rnn in enumerate(encoder.rnns):
            own = {name: torch.from_numpy(weights[f"encoder.lstms.{number}.{name}"]) for name in NAMES}
            rnn.weight_hh_l0_raw.copy_(own["weight_hh_l0"])
            for name in NAMES[1:]:
                getattr(rnn.module, name).copy_(own[name])


NAMES = ("weight_hh_l0", "weight_ih_l0", "bias_ih_l0", "bias_hh_l0")


def main(train: Path) -> None:
    data = read_texts(train, first=ROWS + OTHER_ROWS, test=train, valid=0.0)
    rows = data.train.rows
    parts = [replace(data.train, rows=one) for one in np.split(rows, [ROWS - ROWS // 10, ROWS])]
    data = replace(data, train=parts[0], valid=parts[1], test=parts[2])
    print(f"{len(data.train):,} training and {len(parts[1]):,} validation rows, batches of {BATCH}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    times: dict[str, list[list[float]]] = {"ulmfit": [], "fastai": []}
    right: dict[str, list[float]] = {"ulmfit": [], "fastai": []}
    for seed in range(RUNS):
        seconds, accuracy_, level = ours(data, seed)
        their_seconds, their_accuracy = theirs(data, level, seed)
        for name, one, other in (("ulmfit", seconds, accuracy_), ("fastai", their_seconds, their_accuracy)):
            times[name].append(one)
            right[name].append(other)
            print(f"seed {seed}: {name} {one[0]:.1f} + {one[1]:.1f} s (frozen, everything), accuracy {other:.3f}",
                  flush=True)  # fmt: skip
    own, fastais = (np.array(times[name]) for name in ("ulmfit", "fastai"))
    whole = np.median(fastais.sum(axis=1) / own.sum(axis=1))
    frozen, everything = np.median(fastais / own, axis=0)
    print(f"fastai takes {whole:.2f} times as long ({frozen:.1f} times for the frozen epochs, {everything:.2f} for the "
          f"others); mean accuracy on {len(data.test):,} other rows {np.mean(right['fastai']):.3f} "
          f"(ulmfit {np.mean(right['ulmfit']):.3f})")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TRAIN)
