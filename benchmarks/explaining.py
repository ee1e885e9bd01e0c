"""Do the words that `explain` names carry the prediction? Texts without them, and without as many random words.

    python benchmarks/explaining.py BUNDLE... [--data TEST.csv]

For two hundred test reviews: does the predicted label's probability drop more without the three strongest words than
without three random ones? The random words are drawn once for each review, from the same words.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from textladder import TextClassifier, explain_text
from textladder.data.labelled_texts import read_labelled
from textladder.explain import WORD, Word, without

TEST = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "test.csv"
ROWS, WORDS = 200, 3


def main(bundle: Path, data: Path) -> None:
    classifier = TextClassifier.load(bundle)
    rows = read_labelled(data, classifier.labels, text=list(classifier.text_columns), label=classifier.label_column)
    texts = [text for text in rows if len(WORD.findall(text)) > 2 * WORDS][:ROWS]
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    explained = [explain_text(classifier, text) for text in texts]
    seconds = time.perf_counter() - started
    thinned: list[list[str]] = [[], []]
    for one in explained:
        spans = [found.span() for found in WORD.finditer(one.text)]
        indices = rng.choice(len(spans), WORDS, replace=False).tolist()
        drawn = [Word(start, stop, 0.0) for start, stop in (spans[index] for index in indices)]
        for texts_without, words in zip(thinned, (one.strongest(WORDS), drawn), strict=True):
            texts_without.append(without(one.text, [(word.start, word.stop) for word in words]))
    labels = [classifier.labels.index(one.prediction.label) for one in explained]
    whole = np.array([one.prediction.probability for one in explained])
    drops = [whole - classifier.predict_proba(part)[np.arange(len(labels)), labels] for part in thinned]
    print(
        f"{classifier.level}: the probability drops more without the {WORDS} named words than without {WORDS} random "
        f"ones in {(drops[0] > drops[1]).mean():.1%} of {len(texts)} texts (mean drop {drops[0].mean():.3f} and "
        f"{drops[1].mean():.3f}); {1000 * seconds / len(texts):.0f} ms per text",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=TEST)
    given = parser.parse_args()
    for bundle in given.bundles:
        main(bundle, given.data)
