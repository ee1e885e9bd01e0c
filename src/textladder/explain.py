"""Explain a prediction by the weights of the text's words.

    text -> words -> the text without each of them -> predict_proba -> the drop in log-odds

Occlusion: the weight of a word is what its removal costs the prediction (Li, Monroe & Jurafsky 2016, "Understanding
neural networks through representation erasure", section 3); in a text of more words than `MAX_PIECES`, several
neighbouring words are left out together. A linear level needs none of this: the weight of a word is what it contributes
to the logit (`contributions`).
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
from textladder.progress import Monitor, say_truncated

# Words, and punctuation that expresses sentiment; in scripts without spaces, each character is a word.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:['’-][^\W{UNSPACED}]+)*|[^\w\s.,;:'\"“”’()\[\]-]+")
BATCH_SIZE = 32  # efficient in one pass; a service predicts for others between two batches
MAX_PIECES = 256  # each is a prediction
MIN_PROBABILITY = 1e-7
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
<p><small>Blue words support the prediction, orange words oppose it.</small></p>
</body>
</html>
"""


@dataclass(frozen=True)
class Word:
    """A word of an explained text, or several neighbouring ones in a long text.

    Attributes:
        start: offset of its first character.
        stop: offset after its last character.
        weight: how much the log-odds of the predicted label drop without it, or what it contributes to the label's
            logit if the level is linear; negative if it opposes the prediction.
    """

    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class Explanation:
    """A prediction and the weights of the text's words.

    Attributes:
        text: the text.
        prediction: the prediction for it.
        words: its words, in order.
        exact: True if the weights are contributions to the logit of a linear level, False if they come from occlusion.
    """

    text: str
    prediction: Prediction
    words: list[Word]
    exact: bool

    def strongest(self, number: int, sign: int = 1) -> list[Word]:
        """The words that support the prediction most, strongest first; with `sign=-1`, those that oppose it most."""
        order = sorted(self.words, key=lambda word: -sign * word.weight)
        return [word for word in order[:number] if sign * word.weight > 0]

    def without(self, words: list[Word]) -> str:
        """The text without these words."""
        return without(self.text, [(word.start, word.stop) for word in words])

    def shade(self, word: Word) -> float:
        """A word's weight relative to the largest, -1 to 1."""
        largest = max((abs(one.weight) for one in self.words), default=0.0)
        return word.weight / largest if largest else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as in `explain --json`."""
        words = [
            {"word": self.text[word.start : word.stop], "start": word.start, "stop": word.stop, "weight": word.weight}
            for word in self.words
        ]
        return {"text": self.text, **vars(self.prediction), "exact": self.exact, "words": words}

    def as_html(self) -> str:
        """The text as HTML with shaded words: blue supports the prediction, orange opposes it."""
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
        """Write a self-contained HTML page.

        Raises:
            ConfigError: the file cannot be written.
        """
        name, probability = html.escape(self.prediction.name), f"{self.prediction.probability:.1%}"
        return write_text(path, PAGE.format(name=name, probability=probability, text=self.as_html()))


class Occlusion:
    """The texts to predict in order to explain one text, and the explanation from their predictions.

    Args:
        text: the text.
    """

    def __init__(self, text: str) -> None:
        self.text = text.encode("utf-8", "replace").decode()  # lone surrogates are replaced, as in prediction
        words = [found.span() for found in WORD.finditer(self.text)]
        size = max(1, -(-len(words) // MAX_PIECES))
        groups = [words[begin : begin + size] for begin in range(0, len(words), size)]
        self.spans = [(group[0][0], group[-1][1]) for group in groups]

    def parts(self) -> Iterator[list[str]]:
        """The text without its first piece, without its second, and so on, in batches of `BATCH_SIZE`."""
        for begin in range(0, len(self.spans), BATCH_SIZE):
            yield [without(self.text, [span]) for span in self.spans[begin : begin + BATCH_SIZE]]

    def explanation(self, prediction: Prediction, probabilities: list[float]) -> Explanation:
        """The weights of the words.

        Args:
            prediction: the prediction for the whole text.
            probabilities: the probability of the predicted label without each word.
        """
        whole, *others = _log_odds(np.array([prediction.probability, *probabilities])).tolist()
        words = [Word(*span, whole - other) for span, other in zip(self.spans, others, strict=True)]
        return Explanation(self.text, prediction, words, False)


def explain_text(classifier: TextClassifier, text: str, *, monitor: Monitor | None = None) -> Explanation:
    """Predict the label of a text and explain it by its words.

    Args:
        classifier: a fitted classifier.
        text: any text; each word, up to `MAX_PIECES`, costs one prediction, unless the level is linear.
        monitor: receives progress, and is told if the text was truncated.

    Raises:
        DataError: the text is not a string.
    """
    monitor = monitor or Monitor()
    scored = classifier.score([text])
    say_truncated(scored.truncated, 1, monitor)
    prediction = classifier.prediction(scored.probabilities[0])
    if (found := exact_explanation(classifier, text, prediction)) is not None:
        return found
    occlusion, label = Occlusion(text), int(scored.probabilities[0].argmax())
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
    """The explanation by what each word contributes to the logit; None if the level is not linear.

    Args:
        classifier: a fitted classifier.
        text: the text.
        prediction: the prediction for it.
    """
    text = text.encode("utf-8", "replace").decode()
    words = classifier.contributions(text, classifier.label_values.index(prediction.label))
    return None if words is None else Explanation(text, prediction, [Word(*one) for one in words], True)


def without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without some of its spans; where two spaces would then be adjacent, one is dropped too.

    >>> without("not bad at all", [(4, 7)])
    'not at all'
    """
    for start, stop in sorted(spans, reverse=True):
        spare_space = stop < len(text) and text[stop].isspace() and (start == 0 or text[start - 1].isspace())
        text = text[:start] + text[stop + spare_space :]
    return text


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    log_odds: np.ndarray = np.log(clipped) - np.log1p(-clipped)
    return log_odds
