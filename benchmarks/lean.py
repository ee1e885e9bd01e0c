"""What an exported classifier costs: beside transformers' own pipeline, and beside fastai's `learner.predict`.

    python benchmarks/lean.py --transformer BUNDLE --lstm BUNDLE --ulmfit BUNDLE [--data TEST.csv]

The first 256 test rows. One text at a time: medians, the sides taking turns text by text. Many at once: rows a second,
the median of three rounds in turns; the pipeline at its best batch size of 1, 8, 16, 32 and 64. `learner.predict` is
asked on forty texts, with the bundle's own network and words. Bundles without an int8 form get one on a copy first.
"""

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from textladder import TextClassifier, export_bundle  # noqa: E402
from textladder.bundle import read_bundle  # noqa: E402
from textladder.data import read_labelled  # noqa: E402
from textladder.lean import FLOAT32, INT8  # noqa: E402

TEST = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "test.csv"
ROWS, ROUNDS, FASTAI_TEXTS, WARM_UP = 256, 3, 40, 8
BATCH_SIZES = (1, 8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser()
    for level in ("transformer", "lstm", "ulmfit"):
        parser.add_argument(f"--{level}", type=Path)
    parser.add_argument("--data", type=Path, default=TEST)
    given = vars(parser.parse_args())
    data = given.pop("data")
    for level, bundle in given.items():
        if bundle is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            bundle = shutil.copytree(bundle, Path(folder) / "bundle")
            about = read_bundle(bundle).manifest
            rows = read_labelled(data, about["labels"], text=about["text_columns"], label=about["label_column"])
            texts = next(rows.batches(ROWS))
            for form, quantize in ((FLOAT32, None), (INT8, "int8")):
                if form not in about.get("exports", {}):
                    print(f"{level}: {export_bundle(bundle, rows, quantize=quantize).gate.sentence()}", flush=True)
            forms = {form: TextClassifier.load(bundle, form=form) for form in ("original", FLOAT32, INT8)}
            report(level, bundle, forms, texts, list(rows))


def report(level: str, bundle: Path, forms: dict[str, TextClassifier], texts: list[str], all_texts: list[str]) -> None:
    one: dict[str, Callable[[str], Any]] = {form: partial(ask, classifier) for form, classifier in forms.items()}
    many: dict[str, Callable[[], Any]] = {
        form: partial(classifier.predict_proba, texts) for form, classifier in forms.items()
    }
    if level == "transformer":
        pipeline = stock_pipeline(bundle, int(forms[INT8].config.max_tokens))
        one["pipeline"] = pipeline
        many |= {f"pipeline, batches of {size}": partial(pipeline, texts, batch_size=size) for size in BATCH_SIZES}
    found = in_turns(one, texts)
    print(f"{level}, one text, ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in found.items()), flush=True)
    if level == "transformer":
        print(f"  {INT8} takes {found[INT8] / found['pipeline']:.0%} of the pipeline's time")
    rates = per_second(many, len(texts))
    print(f"{level}, rows a second: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), flush=True)
    if level == "transformer":
        best = max(rate for name, rate in rates.items() if name.startswith("pipeline"))
        print(f"  {INT8} does {rates[INT8] / best:.2f} times the pipeline's best")
    if level == "ulmfit":
        learner = fastai_learner(forms["original"], all_texts)
        predict = {"learner.predict": learner.predict, **one}
        found = in_turns(predict, texts[:FASTAI_TEXTS])
        print(f"{level}, one text, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in found.items()), flush=True)


def ask(classifier: TextClassifier, text: str) -> Any:
    return classifier.predict_proba([text])


def in_turns(sides: dict[str, Callable[[str], Any]], texts: Sequence[str]) -> dict[str, float]:
    """The median milliseconds of one text for each side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for text in (*texts[:WARM_UP], *texts):
        for name, side in sides.items():
            begun = time.perf_counter()
            side(text)
            seconds[name].append(time.perf_counter() - begun)
    return {name: 1000 * median(times[WARM_UP:]) for name, times in seconds.items()}


def per_second(sides: dict[str, Callable[[], Any]], rows: int) -> dict[str, float]:
    """Rows a second of each side, the median of several rounds."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(ROUNDS):
        for name, side in sides.items():
            begun = time.perf_counter()
            side()
            rates[name].append(rows / (time.perf_counter() - begun))
    return {name: median(found) for name, found in rates.items()}


def stock_pipeline(bundle: Path, max_tokens: int) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(bundle), device=-1, truncation=True, max_length=max_tokens)


def fastai_learner(classifier: TextClassifier, texts: list[str]) -> Any:
    """A Learner of fastai's on the classifier's own network, with fastai's own way from a text to numbers."""
    from fastai.basics import CrossEntropyLossFlat, Learner, ProgressCallback
    from fastai.text.all import TextDataLoaders

    level: Any = classifier._fitted
    frame = pd.DataFrame({"text": texts[:FASTAI_TEXTS], "label": np.arange(FASTAI_TEXTS) % len(classifier.labels)})
    loaders = TextDataLoaders.from_df(
        frame, text_col="text", label_col="label", text_vocab=level.vocabulary.tokens, valid_pct=0.5, seed=0
    )
    learner = Learner(loaders, level.network, loss_func=CrossEntropyLossFlat())
    learner.remove_cb(ProgressCallback)
    return learner


if __name__ == "__main__":
    main()
