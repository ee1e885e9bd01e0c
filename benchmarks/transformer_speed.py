"""What does fine-tuning an encoder cost? The stock Trainer, the tutorial's input pipeline and `transformer`.

    python benchmarks/transformer_speed.py [TRAIN.csv]

Three questions, on Amazon reviews (title and text, 256 tokens at most):

1. all-MiniLM-L6-v2, fully trainable: the stock `Trainer` with its defaults (float32, batches of 16 padded to the
   longest, dropout, AdamW at 5e-5), and `transformer` at the same rate with as many steps; training rows per second and
   the two loss curves. Then `transformer`'s own batches.
2. A DistilBERT with random weights: with the tutorial's input (a Dataset that tokenizes a row on access, padded to
   512, batches of 8, float32), and by `transformer`.
3. The encoder frozen: the first epoch, and the later ones.

The first batches of every run warm up and are not counted. `make env` installs accelerate for the stock side.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from fastai.callback.core import Callback, CancelFitException  # noqa: E402
from fastai.callback.schedule import Learner  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.data.load import DataLoader  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from textladder import TextData, read_texts  # noqa: E402
from textladder.levels.transformer import TransformerConfig, TransformerLevel  # noqa: E402
from textladder.pretrained import find_encoder  # noqa: E402
from textladder.progress import Monitor  # noqa: E402
from textladder.training.stages import seeded  # noqa: E402

TRAIN = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "train.csv"
ROWS, HELD_OUT = 2000, 500
WARM_UP = 3  # batches


class Watch(Callback):  # type: ignore[misc]
    """Times the batches of a fit, and ends it after a number of them."""

    def __init__(self, batches: int) -> None:
        self.most, self.done, self.rows, self.losses = batches, 0, 0, []  # type: ignore[var-annotated]

    def after_batch(self) -> None:
        if not self.training:
            return
        self.done += 1
        self.losses.append((float(self.loss), len(self.yb[0])))
        if self.done == WARM_UP:
            self.started = time.perf_counter()
        elif self.done > WARM_UP:
            self.rows += len(self.yb[0])
            self.seconds = time.perf_counter() - self.started
        if self.done >= self.most:
            raise CancelFitException

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


@contextmanager
def quiet(learner: Learner) -> Iterator[None]:
    with learner.no_logging(), learner.no_bar():
        yield


def ours(data: TextData, batches: int = 10**9, **settings: Any) -> tuple[Watch, TransformerLevel]:
    """One epoch of `transformer`, or its first batches."""
    config = TransformerConfig(**{"epochs": 1, **settings})
    level, watch = TransformerLevel(config, 2), Watch(batches)
    level.prepare(data.train, None, seed=0, monitor=Monitor())
    with seeded(0), quiet(level.learner):
        level.learner.fit_one_cycle(1, config.learning_rate, pct_start=config.warm_up, cbs=watch)
    return watch, level


def stock(data: TextData, encoder: str) -> tuple[float, list[tuple[float, int]], nn.Module]:
    """Rows per second, the loss of every step, and the model after one epoch of the stock Trainer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    texts = list(data.train)
    encoded = tokenizer(texts, truncation=True, max_length=256, padding=False)
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(label)}
        for ids, label in zip(encoded["input_ids"], data.train.label_ids, strict=True)
    ]
    times: list[float] = []

    class Times(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder, per_device_train_batch_size=16, num_train_epochs=1, report_to=[], save_strategy="no",
            logging_steps=1, disable_tqdm=True, use_cpu=not torch.cuda.is_available(), seed=0,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=rows, data_collator=transformers.DataCollatorWithPadding(tokenizer),
            callbacks=[Times()],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    losses = [(entry["loss"], 16) for entry in trainer.state.log_history if "loss" in entry]
    rate = 16 * (len(times) - WARM_UP) / (times[-1] - times[WARM_UP - 1])
    return rate, losses, trainer.model


def curve(losses: list[tuple[float, int]], parts: int = 5) -> list[tuple[float, float]]:
    """Mean and standard error of the loss over equal parts of the rows."""
    rows = np.concatenate([np.full(count, loss) for loss, count in losses])
    steps = max(1, len(losses) // parts)
    return [
        (float(part.mean()), float(np.std([loss for loss, _ in losses[n * steps : (n + 1) * steps]]) / steps**0.5))
        for n, part in enumerate(np.array_split(rows, parts))
    ]


def held_out_loss(data: TextData, level: TransformerLevel) -> tuple[float, float]:
    probabilities = level.score(list(data.test)).probabilities
    losses = -np.log(probabilities[np.arange(len(data.test)), data.test.label_ids] + 1e-12)
    return float(losses.mean()), float(losses.std() / len(losses) ** 0.5)


class TutorialRows(torch.utils.data.Dataset[tuple[dict[str, Tensor], Tensor]]):
    """One row per item: take it, split it into word pieces, pad it to 512."""

    def __init__(self, texts: list[str], labels: np.ndarray, tokenizer: Any) -> None:
        self.texts, self.labels, self.tokenizer = texts, labels, tokenizer

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        found = self.tokenizer(
            self.texts[index], return_tensors="pt", padding="max_length", truncation=True, max_length=512
        )
        return {name: found[name][0] for name in ("input_ids", "attention_mask")}, torch.tensor(self.labels[index])


class TutorialModel(nn.Module):
    """Takes the dictionary and returns the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**batch).logits
        return logits


def tutorial(data: TextData, folder: str, batches: int) -> float:
    """Rows per second with the tutorial's input pipeline."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    rows = TutorialRows(list(data.train), data.train.label_ids, tokenizer)
    loader = DataLoader(rows, bs=8, shuffle=True)
    learner, watch = (
        Learner(DataLoaders(loader, loader), TutorialModel(model), loss_func=nn.CrossEntropyLoss()),
        Watch(batches),
    )
    with quiet(learner):
        learner.fit_one_cycle(1, 3e-4, cbs=watch)
    return watch.rate


def random_distilbert(folder: str) -> None:
    with seeded(0):
        model = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(num_labels=2))
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(find_encoder("all-MiniLM-L6-v2"))
    tokenizer.save_pretrained(folder)


def main(train: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    data = read_texts(train, rows=ROWS + HELD_OUT, valid=0, seed=0)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    has = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in flags]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{device}; the processor has {', '.join(has) or 'none of the expected flags'}; {len(data.train):,} rows")
    minilm = find_encoder("all-MiniLM-L6-v2")

    theirs, their_losses, their_model = stock(data, minilm)
    same: dict[str, Any] = {
        "learning_rate": 5e-5, "layer_decay": 1.0, "warm_up": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0,
        "batch_size": 16,
    }  # fmt: skip
    watch, level = ours(data, encoder="all-MiniLM-L6-v2", **same)
    default, _ = ours(data, encoder="all-MiniLM-L6-v2")
    print(f"1. all-MiniLM-L6-v2: stock Trainer {theirs:.1f} rows/s")
    print(f"   transformer, batches of 16: {watch.rate:.1f} rows/s ({watch.rate / theirs:.1f} times)")
    print(f"   transformer, its own batches: {default.rate:.1f} rows/s ({default.rate / theirs:.1f} times)")
    for name, losses in (("stock", their_losses), ("transformer", watch.losses)):
        print(f"   training loss over fifths of the rows, {name:<11} "
              + "  ".join(f"{mean:.3f} ± {error:.3f}" for mean, error in curve(losses)))  # fmt: skip
    mine = held_out_loss(data, level)
    assert level.encoder is not None
    level.encoder.network.model = their_model
    other = held_out_loss(data, level)
    print(f"   loss on {len(data.test)} held-out rows: stock {other[0]:.3f} ± {other[1]:.3f}, "
          f"transformer {mine[0]:.3f} ± {mine[1]:.3f}")  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        random_distilbert(folder)
        slow = tutorial(data, folder, WARM_UP + 4)
        quick, _ = ours(data, WARM_UP + 20, encoder=folder)
        single, _ = ours(data, WARM_UP + 8, encoder=folder, precision="float32")
    print(f"2. DistilBERT's size: the tutorial's input {slow:.2f} rows/s; transformer {quick.rate:.1f} "
          f"({quick.rate / slow:.1f} times), in float32 {single.rate:.1f}")  # fmt: skip

    config = TransformerConfig(encoder="all-MiniLM-L6-v2", frozen_epochs=4, epochs=0)
    frozen = TransformerLevel(config, 2)
    epochs = frozen.fit(data.train, data.test, seed=0, monitor=Monitor()).epochs
    seconds = [entry["seconds"] for entry in epochs]
    print(f"3. frozen: first epoch {seconds[0]:.1f} s, later ones {', '.join(f'{one:.2f}' for one in seconds[1:])} s "
          f"(at most {max(seconds[1:]) / seconds[0]:.1%})")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TRAIN)
