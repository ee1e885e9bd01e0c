"""`tfidf`: TF-IDF weights of words and word pairs, and logistic regression on them.

The baseline that honest comparisons need (Lin et al. 2023, arXiv 2306.07111). scikit-learn fits it; `linear.py`
predicts with plain arrays.

    words, ! and ? -> n-grams -> counts -> 1 + log -> times idf -> unit length -> logistic regression
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from textladder.bundle import Bundle
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import BundleError, DataError, import_extra
from textladder.levels.base import FitReport, Preset, Scored
from textladder.levels.linear import LinearModel
from textladder.onnx_scorer import ExportedNetwork
from textladder.progress import Monitor
from textladder.scoring import softmax
from textladder.settings import setting

if TYPE_CHECKING:
    from onnx import ModelProto

# Whole words, including one-letter words, and the two punctuation marks that express sentiment: 0.894 on Amazon
# validation rows, against 0.890 with scikit-learn's own pattern.
TOKEN_PATTERN = r"(?u)\b\w+\b|[!?]"  # noqa: S105, no password
MODEL_FILE, VOCABULARY_FILE = "model.safetensors", "vocabulary.json"


@dataclass(frozen=True)
class TfidfConfig:
    """The recipe's hyperparameters, with the gain of each on Amazon validation rows (mean of 4 splits)."""

    max_ngram: int = setting(2, "longest n-gram that is counted, in words", low=1, high=5)
    # an n-gram that occurs in only one text teaches nothing: 0.8 points, and a quarter of the size
    min_documents: int = setting(2, "drop n-grams that occur in fewer texts than this", low=1)
    # 1 + log(count): 0.5 points
    sublinear: bool = setting(True, "use 1 + log(count) instead of the count")
    # sparse unit-length rows need less shrinkage than the usual 1 gives: 0.9 points
    regularization_c: float = setting(10.0, "inverse of the regularization strength", low=1e-6)
    class_weights: str = setting(
        "none", "weight rows so that all classes count the same", choices=("none", "balanced"), shared=True
    )


class TfidfLevel:
    """The level `tfidf`."""

    name: ClassVar[str] = "tfidf"
    libraries: ClassVar[tuple[str, ...]] = ("sklearn.linear_model", "sklearn.feature_extraction.text")
    summary: ClassVar[str] = "TF-IDF of words and word pairs, logistic regression"
    config_type: ClassVar[type] = TfidfConfig
    network_files: ClassVar[tuple[str, ...]] = ()
    network_inputs: ClassVar[tuple[str, ...]] = ("terms", "values")
    presets: ClassVar[Mapping[str, Preset]] = {"default": Preset("the recipe chosen on Amazon validation rows")}

    def __init__(self, config: TfidfConfig, classes: int) -> None:
        self.config, self.classes = config, classes
        self._token = re.compile(TOKEN_PATTERN)
        self._terms: dict[str, int] = {}
        self._idf = np.zeros(0, np.float32)  # (terms,)
        self._model = LinearModel(np.zeros((0, 0), np.float32), np.zeros(0, np.float32))
        self.exported: ExportedNetwork | None = None

    def fit(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Fit with scikit-learn; the validation rows are not used."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        vectorizer = TfidfVectorizer(
            token_pattern=TOKEN_PATTERN,
            ngram_range=(1, self.config.max_ngram),
            min_df=min(self.config.min_documents, len(train)),
            sublinear_tf=self.config.sublinear,
            dtype=np.float32,
        )
        regression = LogisticRegression(
            C=self.config.regularization_c,
            class_weight="balanced" if self.config.class_weights == "balanced" else None,
            max_iter=1000,
            random_state=seed,
        )
        monitor.start("counting words", None)
        try:
            features = vectorizer.fit_transform(train)
        except ValueError as error:  # what scikit-learn raises for texts that have no word in common
            raise DataError(
                f"No word occurs in {self.config.min_documents} training texts, so nothing can be learned ({error})."
            ) from None
        monitor.start("fitting the regression", None)
        regression.fit(features, train.label_ids)
        monitor.stop()
        self._terms = {str(term): int(number) for term, number in vectorizer.vocabulary_.items()}
        self._idf = vectorizer.idf_.astype(np.float32)
        self._model = LinearModel.from_sklearn(regression)
        return FitReport(parameters=self._model.parameters, facts={"terms": len(self._terms)})

    @property
    def longest_text(self) -> None:
        """None: no text is truncated."""
        return

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Number of words, `!` and `?` in each text, int64 (texts,)."""
        return np.array([len(self.tokenize(text)) for text in texts], np.int64)

    def resolved(self, rows: int, share: float = 1.0) -> TfidfConfig:
        """The config as it is: nothing depends on the number of rows."""
        return self.config

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words, `!` and `?`."""
        return self._token.findall(text.lower())

    def score(self, texts: Sequence[str]) -> Scored:
        """The class probabilities of texts, of which none is truncated."""
        if self.exported is not None:
            logits = np.concatenate([self.exported.run(*self._features(text)) for text in texts])
        else:
            logits = np.stack([self._model.logits(*self._values(self.tokenize(text))) for text in texts])
        return Scored(softmax(logits), truncated=0)

    def graph(self) -> "ModelProto":
        """The regression as ONNX."""
        import_extra("onnx", "export")
        from textladder.networks.onnx_graphs import linear_graph

        model = self._model.with_all_columns()
        return linear_graph(model.weights, model.bias, self.classes)

    def _features(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams that occur, int64 (1, terms), and their weights, float32 (1, terms); at least one."""
        numbers, values = self._values(self.tokenize(text))
        if not len(numbers):
            numbers, values = np.zeros(1, np.int64), np.zeros(1, np.float32)
        return numbers[None], values[None]

    def contributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """What each word adds to the logit of a class over the mean of the others, as (start, stop, weight).

        With two classes these and the bias sum to the log-odds. The weight of an n-gram is divided among its words.
        """
        places = [
            index for index, letter in enumerate(text) for _ in letter.lower()
        ]  # lower-casing makes two of some letters
        matches = list(self._token.finditer(text.lower()))
        spans = [(places[match.start()], places[match.end() - 1] + 1) for match in matches]
        tokens = [match[0] for match in matches]
        numbers, values = self._values(tokens)
        parts = self._model.contributions(numbers, values, label)
        added = dict(zip(numbers.tolist(), parts.tolist(), strict=True))
        counts = Counter(self._ngrams(tokens))
        found = [0.0] * len(tokens)
        for size in range(1, self.config.max_ngram + 1):
            for start in range(len(tokens) - size + 1):
                term = " ".join(tokens[start : start + size])
                part = added.get(self._terms.get(term, -1), 0.0) / counts[term] / size
                for place in range(start, start + size):
                    found[place] += part
        return [(*span, weight) for span, weight in zip(spans, found, strict=True)]

    def _values(self, tokens: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams that occur among tokens, int64 (terms,), and their weights, float32 (terms,)."""
        counts = Counter(self._terms[term] for term in self._ngrams(tokens) if term in self._terms)
        numbers = np.fromiter(counts.keys(), np.int64, len(counts))
        values = np.fromiter(counts.values(), np.float32, len(counts))
        if self.config.sublinear:
            values = np.log(values) + np.float32(1)
        values *= self._idf[numbers]
        return numbers, values / (np.sqrt(np.dot(values, values)) or 1)

    def _ngrams(self, tokens: list[str]) -> Iterator[str]:
        yield from tokens
        for size in range(2, self.config.max_ngram + 1):
            for start in range(len(tokens) - size + 1):
                yield " ".join(tokens[start : start + size])

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and the n-grams in the order of their ids."""
        import json

        from safetensors.numpy import save_file

        save_file({"idf": self._idf, **self._model.tensors()}, folder / MODEL_FILE)
        terms = sorted(self._terms, key=self._terms.__getitem__)
        (folder / VOCABULARY_FILE).write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(
        cls, bundle: Bundle, config: TfidfConfig, classes: int, exported: ExportedNetwork | None = None
    ) -> "TfidfLevel":
        """Read a bundle's files and check that their shapes agree with each other and with the labels."""
        level = cls(config, classes)
        level.exported = exported
        tensors = bundle.read_tensors(MODEL_FILE)
        terms: Any = bundle.read_json(VOCABULARY_FILE)
        expected = {"idf": (len(terms),), **LinearModel.shapes(len(terms), classes)}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != expected or not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            raise BundleError(
                f"{bundle.folder}: the weights do not fit {classes} labels and {len(terms)} terms "
                f"(received {shapes}, expected {expected})."
            )
        level._terms = {term: number for number, term in enumerate(terms)}
        level._idf, level._model = tensors["idf"], LinearModel.from_tensors(tensors)
        return level
