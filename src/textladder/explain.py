"""Which words carried a prediction, for every level by the same method.

    text -> words -> the text without each of them -> predict_proba -> how much less sure it is

Occlusion: a word is worth what its absence costs (Li, Monroe & Jurafsky 2016, "Understanding neural networks through
representation erasure", section 3). A level that can tell it exactly, because it is linear, has `contributions`.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textladder.atomic_files import write_text
from textladder.classifier import Prediction, TextClassifier
from textladder.progress import Monitor

# Words, and marks that carry feeling; where words are not set apart by blanks, each character is one.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:['’-][^\W{UNSPACED}]+)*|[^\w\s.,;:'\"“”’()\[\]-]+")
TEXTS_AT_ONCE = 32  # as many as one pass takes well; a service lets others in between
LEAST_PROBABILITY = 1e-7
BLUE, ORANGE = "37,99,168", "224,122,31"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>textladder: {name}, {probability}</title>
<body style="font:16px/1.6 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere">
<h1 style="font-size:1.25rem">{name}, {probability}</h1>
{text}
<p><small>Blue words carried the prediction, orange ones stood against it.</small></p>
</body>
</html>
"""


@dataclass(frozen=True)
class Word:
    """A word of an explained text.

    Attributes:
        start: its first character's place in the text.
        stop: the place behind its last one.
        weight: how much the log-odds of the predicted label would fall without it; below 0 if they would rise.
    """

    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class Explanation:
    """A prediction and the words of its text.

    Attributes:
        text: the text.
        prediction: what the classifier says of it.
        words: its words in their order.
        exact: the weights are the level's own coefficients; else each comes from a prediction without the word.
    """

    text: str
    prediction: Prediction
    words: list[Word]
    exact: bool

    def strongest(self, number: int, sign: int = 1) -> list[Word]:
        """The words that carried the prediction most, the strongest first; with -1 those that stood against it."""
        order = sorted(self.words, key=lambda word: -sign * word.weight)
        return [word for word in order[:number] if sign * word.weight > 0]

    def without(self, words: list[Word]) -> str:
        """The text without some of its words."""
        return without(self.text, [(word.start, word.stop) for word in words])

    def shade(self, word: Word) -> float:
        """A word's weight as a share of the largest, -1 to 1."""
        most = max((abs(one.weight) for one in self.words), default=0.0)
        return word.weight / most if most else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as `explain --json` has it."""
        words = [
            {"word": self.text[word.start : word.stop], "start": word.start, "stop": word.stop, "weight": word.weight}
            for word in self.words
        ]
        return {"text": self.text, **vars(self.prediction), "exact": self.exact, "words": words}

    def as_html(self) -> str:
        """The text as a piece of HTML, its words shaded: blue for the prediction, orange against it."""
        parts, place = [], 0
        for word in self.words:
            share = self.shade(word)
            parts += [
                html.escape(self.text[place : word.start]),
                f'<span style="background:rgba({BLUE if share > 0 else ORANGE},{0.55 * abs(share):.2f})" '
                f'title="{word.weight:+.2f}">{html.escape(self.text[word.start : word.stop])}</span>',
            ]
            place = word.stop
        return f'<p style="white-space:pre-wrap">{"".join(parts)}{html.escape(self.text[place:])}</p>'

    def write_page(self, path: str | Path) -> Path:
        """Write a page of HTML that needs nothing but itself.

        Raises:
            ConfigError: the place cannot be written.
        """
        said = self.prediction
        page = PAGE.format(name=html.escape(said.name), probability=f"{said.probability:.1%}", text=self.as_html())
        return write_text(path, page)


class Occlusion:
    """A text without each of its words: what is to be predicted, and what comes of it.

    Args:
        text: the text.
    """

    def __init__(self, text: str) -> None:
        self.text = text.encode("utf-8", "replace").decode()  # as it is predicted
        self.spans = [found.span() for found in WORD.finditer(self.text)]

    def parts(self) -> Iterator[list[str]]:
        """The text without its first word, without its second, and so on, `TEXTS_AT_ONCE` at a time."""
        for begin in range(0, len(self.spans), TEXTS_AT_ONCE):
            yield [without(self.text, [span]) for span in self.spans[begin : begin + TEXTS_AT_ONCE]]

    def explanation(self, prediction: Prediction, probabilities: list[float]) -> Explanation:
        """What the words are worth.

        Args:
            prediction: of the whole text.
            probabilities: of the predicted label, without each of the words.
        """
        whole, *others = _log_odds(np.array([prediction.probability, *probabilities])).tolist()
        words = [Word(*span, whole - other) for span, other in zip(self.spans, others, strict=True)]
        return Explanation(self.text, prediction, words, False)


def explain_text(classifier: TextClassifier, text: str, *, monitor: Monitor | None = None) -> Explanation:
    """Predict a text and say which of its words carried the prediction.

    Args:
        classifier: a fitted one.
        text: any text; each word costs a prediction, unless the level is linear.
        monitor: is told of the words done.

    Raises:
        DataError: the text is no string.
    """
    monitor = monitor or Monitor()
    (prediction,) = classifier.predictions([text])
    if (found := exact_explanation(classifier, text, prediction)) is not None:
        return found
    occlusion, label = Occlusion(text), classifier.labels.index(prediction.label)
    probabilities: list[float] = []
    monitor.start("leaving out words", len(occlusion.spans))
    try:
        for part in occlusion.parts():
            probabilities += classifier.predict_proba(part)[:, label].tolist()
            monitor.advance(len(probabilities))
    finally:
        monitor.stop()
    return occlusion.explanation(prediction, probabilities)


def exact_explanation(classifier: TextClassifier, text: str, prediction: Prediction) -> Explanation | None:
    """The words' own coefficients, where the level is linear; None where it is not."""
    text = text.encode("utf-8", "replace").decode()
    words = classifier.contributions(text, classifier.labels.index(prediction.label))
    return None if words is None else Explanation(text, prediction, [Word(*one) for one in words], True)


def without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without some stretches of it, nor the blank that each of them leaves too much.

    >>> without("not bad at all", [(4, 7)])
    'not at all'
    """
    for start, stop in sorted(spans, reverse=True):
        blank = stop < len(text) and text[stop].isspace() and (start == 0 or text[start - 1].isspace())
        text = text[:start] + text[stop + blank :]
    return text


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    held = np.clip(probabilities.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    found: np.ndarray = np.log(held) - np.log1p(-held)
    return found
