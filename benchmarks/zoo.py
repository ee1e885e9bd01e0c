"""How good is each level's default on data sets unlike each other, and how much better would it be if it were tuned?

    python benchmarks/zoo.py RESULTS.jsonl [--levels tfidf lstm] [--sets banking77 ag_news:100] [--seeds 0 1] [--tuned]

Every fit is appended to RESULTS.jsonl, and those that are there are not repeated, so that a run of hours may be
interrupted. With `--tuned` the settings in SEARCH are tried too. Of these and the default, those that do best on the
validation rows, by the mean of accuracy and macro F1, are the tuned level; what it gains over the default on the test
rows is the default's regret. A level that `compare` would leave out is left out here.
"""

import argparse
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import pandas as pd  # noqa: E402

from textladder import TextClassifier, TextData, read_texts  # noqa: E402
from textladder.data.labelled_texts import LabelledTexts  # noqa: E402
from textladder.levels import find_level  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared" / "data"
GLOVE = SHARED / "glove" / "glove.6B.100d.subset.txt.gz"
ZOO = SHARED / "zoo"
# The arguments of `read_texts`; without a test file a fifth of the rows is held out by the seed.
SETS: dict[str, dict[str, Any]] = {
    "banking77": {"data": ZOO / "banking77" / "train.csv", "test": ZOO / "banking77" / "test.csv"},
    "tweet_emotion": {"data": ZOO / "tweet_emotion" / "train.csv", "test": ZOO / "tweet_emotion" / "test.csv"},
    "sms": {"data": ZOO / "sms" / "sms.tsv"},
    "gnad10": {"data": ZOO / "gnad10" / "articles.csv"},
    "waimai": {"data": ZOO / "waimai" / "waimai_10k.csv"},
    "ag_news": {"data": SHARED / "ag_news" / "ag_news.csv"},
    "amazon": {
        "data": SHARED / "amazon_polarity" / "train.csv",
        "test": SHARED / "amazon_polarity" / "test.csv",
        "test_first": 2000,
    },
    "imdb": {
        "data": SHARED / "imdb" / "train.csv.gz",
        "test": SHARED / "imdb" / "test.csv.gz",
        "rows": 5000,
        "test_first": 5000,
    },
}
FEW = [f"{name}:{rows}" for name in ("ag_news", "amazon") for rows in (100, 300, 1000)]
FEW += ["banking77:308", "banking77:616", "banking77:924"]  # 4, 8 and 12 rows of each of 77 classes
SEARCH: dict[str, dict[str, list[Any]]] = {
    "tfidf": {"regularization_c": [1.0, 6.0, 30.0], "class_ratio": [0.0, 1.0, 2.0], "characters": [0, 5]},
    "lstm": {"epochs": [3, 8, 16], "learning_rate": [3e-3, 8e-3]},
    "ulmfit": {"epochs": [3, 10], "learning_rate": [3e-3, 1e-3]},
    "transformer": {"epochs": [3, 6, 12], "learning_rate": [1e-4, 3e-4]},
}
FIXED: dict[str, dict[str, Any]] = {"lstm": {"vectors": str(GLOVE)}, "transformer": {"encoder": "all-MiniLM-L6-v2"}}


def read(name: str, seed: int) -> TextData:
    """The rows of a set; after a colon in its name, a sample of that many training rows, as many of each class."""
    name, _, rows = name.partition(":")
    data = read_texts(**SETS[name], seed=seed)
    if not rows:
        return data

    def frame(part: LabelledTexts) -> pd.DataFrame:
        return pd.DataFrame({"label": [data.labels[number] for number in part.label_ids], "text": list(part)})

    assert data.valid is not None
    train = pd.concat([frame(data.train), frame(data.valid)], ignore_index=True)
    train = train.groupby("label").sample(int(rows) // len(data.labels), random_state=seed)
    return read_texts(train, test=frame(data.test), seed=seed)


def measure(level: str, data: TextData, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit, and measure on the validation and the test rows; empty if the level is not suited to the rows."""
    classifier = TextClassifier(level, seed=seed, **FIXED.get(level, {}), **settings)
    if find_level(level)(classifier.config, len(data.labels)).unsuitable(data.train):
        return {}
    started = time.perf_counter()
    classifier.fit(data)
    found: dict[str, Any] = {"fit_seconds": time.perf_counter() - started, "train_rows": len(data.train)}
    assert data.valid is not None
    for name, part in {"valid": data.valid, "test": data.test}.items():
        evaluation = classifier.evaluate(part)
        found |= {name: evaluation.accuracy, f"{name}_macro_f1": evaluation.macro_f1}
    times = []
    for text in list(data.test)[:100]:
        started = time.perf_counter()
        classifier.predict_proba([text])
        times.append(time.perf_counter() - started)
    found["predict_ms"] = 1000 * statistics.median(times)
    return found


def candidates(level: str) -> Iterator[dict[str, Any]]:
    names, values = zip(*SEARCH[level].items(), strict=True)
    for chosen in itertools.product(*values):
        yield dict(zip(names, chosen, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--levels", nargs="+", default=list(SEARCH), choices=list(SEARCH))
    parser.add_argument("--sets", nargs="+", default=[*SETS, *FEW])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--tuned", action="store_true")
    options = parser.parse_args()
    lines = options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else []
    done = {entry["key"]: entry for entry in map(json.loads, lines)}

    def result(name: str, level: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps([name, level, seed, settings])
        if key not in done:
            done[key] = {"key": key, **measure(level, read(name, seed), seed, settings)}
            with options.results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(done[key]) + "\n")
        found: dict[str, Any] = done[key]
        return found

    print("| set | level | training rows | accuracy / macro F1 | tuned | fit | one text |")
    print("|---|---|---|---|---|---|---|", flush=True)
    regrets: dict[str, list[float]] = {level: [] for level in options.levels}
    for name, level in itertools.product(options.sets, options.levels):
        defaults = [result(name, level, seed, {}) for seed in options.seeds]
        if not all("test" in one for one in defaults):
            print(f"| {name} | `{level}` | left out | | | | |", flush=True)
            continue
        tuned = []
        if options.tuned:
            for seed, default in zip(options.seeds, defaults, strict=True):
                tries = [default, *(result(name, level, seed, one) for one in candidates(level))]
                tuned.append(max(tries, key=lambda one: one["valid"] + one["valid_macro_f1"]))

        def mean(found: list[dict[str, Any]], field: str) -> float:
            return float(statistics.mean(one[field] for one in found))

        text = "-"
        if tuned:
            text = f"{mean(tuned, 'test'):.3f} / {mean(tuned, 'test_macro_f1'):.3f}"
            regrets[level].append(100 * (mean(tuned, "test") - mean(defaults, "test")))
        print(
            f"| {name} | `{level}` | {defaults[0]['train_rows']:,} "
            f"| {mean(defaults, 'test'):.3f} / {mean(defaults, 'test_macro_f1'):.3f} | {text} "
            f"| {mean(defaults, 'fit_seconds'):.1f} s | {mean(defaults, 'predict_ms'):.2f} ms |",
            flush=True,
        )
    for level, found in regrets.items():
        if found:
            print(f"\nRegret of `{level}`: mean {statistics.mean(found):.1f} points, highest {max(found):.1f}.")


if __name__ == "__main__":
    main()
