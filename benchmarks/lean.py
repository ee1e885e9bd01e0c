"""What does an exported classifier cost, compared with transformers' pipeline and with fastai's `learner.predict`?

    python benchmarks/lean.py --transformer BUNDLE --lstm BUNDLE --ulmfit BUNDLE [--data TEST.csv]

On the first 256 test rows. One text at a time: median latencies; the sides take turns block by block (text by text, the
threads of one would keep spinning on the other's cores). Many at once: rows per second, the median of three rounds in
turn; the pipeline uses the batch size out of 1, 8, 16, 32 and 64 that was best on 64 of the texts. `learner.predict`
is timed on forty texts: with fastai's own networks of the bundle's sizes and words, one forward and one backward, the
sum of both; and with the bundle's network. Bundles without exported forms get them first, on a copy.
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
from textladder.data.labelled_texts import read_labelled  # noqa: E402
from textladder.onnx_scorer import FLOAT32, INT8  # noqa: E402

TEST = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "test.csv"
ROWS, ROUNDS, FASTAI_TEXTS, WARM_UP, BLOCK = 256, 3, 40, 4, 32
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
    one: dict[str, Callable[[str], Any]] = {
        form: partial(predict_one, classifier) for form, classifier in forms.items()
    }
    many: dict[str, Callable[[], Any]] = {
        form: partial(classifier.predict_proba, texts) for form, classifier in forms.items()
    }
    if level == "transformer":
        pipeline = stock_pipeline(bundle, int(forms[INT8].config.max_tokens))
        one["pipeline"] = pipeline
        tried: dict[Any, Callable[[], Any]] = {
            size: partial(pipeline, texts[:64], batch_size=size) for size in BATCH_SIZES
        }
        rates = per_second(tried, 64, rounds=1)
        best = max(rates, key=rates.__getitem__)
        many["pipeline"] = partial(pipeline, texts, batch_size=best)
        print(f"the pipeline is fastest with batches of {best}", flush=True)
    found = in_turns(one, texts)
    print(f"{level}, one text, ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in found.items()), flush=True)
    if level == "transformer":
        print(f"  {INT8} takes {found[INT8] / found['pipeline']:.0%} of the pipeline's time")
    rates = per_second(many, len(texts), ROUNDS)
    print(f"{level}, rows per second: " + ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items()), flush=True)
    if level == "transformer":
        print(f"  {INT8} is {rates[INT8] / rates['pipeline']:.2f} times as fast as the pipeline at its best")
    if level == "ulmfit":
        learners = fastai_learners(forms["original"], all_texts)
        found = in_turns(one | {name: learner.predict for name, learner in learners.items()}, texts[:FASTAI_TEXTS])
        print(f"{level}, one text, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in found.items()), flush=True)
        print(
            f"  fastai takes {sum(found[name] for name in found if 'fastai,' in name) / found[INT8]:.1f} times as long"
        )


def predict_one(classifier: TextClassifier, text: str) -> Any:
    return classifier.predict_proba([text])


def in_turns(sides: dict[str, Callable[[str], Any]], texts: Sequence[str]) -> dict[str, float]:
    """The median milliseconds of one text for each side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        for name, side in sides.items():
            for text in block[:WARM_UP]:
                side(text)
            for text in block:
                started = time.perf_counter()
                side(text)
                seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * median(times) for name, times in seconds.items()}


def per_second(sides: dict[Any, Callable[[], Any]], rows: int, rounds: int) -> dict[Any, float]:
    """Rows per second of each side, the median of some rounds."""
    rates: dict[Any, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            rates[name].append(rows / (time.perf_counter() - started))
    return {name: median(found) for name, found in rates.items()}


def stock_pipeline(bundle: Path, max_tokens: int) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(bundle), device=-1, truncation=True, max_length=max_tokens)


def fastai_learners(classifier: TextClassifier, texts: list[str]) -> dict[str, Any]:
    """Learners with fastai's own tokenization: with its networks of the same sizes, and with the bundle's."""
    from fastai.basics import CrossEntropyLossFlat, Learner
    from fastai.callback.progress import ProgressCallback
    from fastai.text.all import AWD_LSTM, TextDataLoaders, text_classifier_learner

    level: Any = classifier._fitted
    frame = pd.DataFrame({"text": texts[:FASTAI_TEXTS], "label": np.arange(FASTAI_TEXTS) % len(classifier.labels)})
    loss = CrossEntropyLossFlat()
    found: dict[str, Any] = {}
    encoder = level.network.encoder
    for name, lstms in (("forward", encoder.lstms), ("backward", encoder.backward_lstms)):
        if not len(lstms):
            continue
        loaders = TextDataLoaders.from_df(
            frame, text_col="text", label_col="label", text_vocab=level.vocabulary.tokens, valid_pct=0.5, seed=0,
            backwards=name == "backward",
        )  # fmt: skip
        sizes = {"emb_sz": lstms[0].input_size, "n_hid": lstms[0].hidden_size, "n_layers": len(lstms)}
        found[f"fastai, {name}"] = text_classifier_learner(
            loaders, AWD_LSTM, pretrained=False, config=sizes, loss_func=loss
        )
    found["learner.predict of the bundle's network"] = Learner(loaders, level.network, loss_func=loss)
    for learner in found.values():
        learner.remove_cb(ProgressCallback)
    return found


if __name__ == "__main__":
    main()
