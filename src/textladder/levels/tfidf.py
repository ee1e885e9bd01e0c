"""`tfidf`: weighted counts of words and word pairs, and logistic regression on them.

The baseline that honest comparisons need (Lin et al. 2023, arXiv 2306.07111). scikit-learn learns it; predicting is
done here with plain arrays, because importing scikit-learn takes longer than answering.

    words and marks -> pairs -> counts -> 1 + log -> times idf -> length 1 -> logistic regression
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
from textladder.levels.base import FitReport, Preset
from textladder.onnx_scorer import ExportedNetwork
from textladder.progress import Monitor
from textladder.scoring import softmax
from textladder.settings import setting

if TYPE_CHECKING:
    from onnx import ModelProto

# Whole words, one-letter words among them, and the two marks that carry feeling: on Amazon validation rows
# 0.894 against 0.890 with scikit-learn's own pattern.
TOKEN_PATTERN = r"(?u)\b\w+\b|[!?]"  # noqa: S105, no password
MODEL_FILE, VOCABULARY_FILE = "model.safetensors", "vocabulary.json"


@dataclass(frozen=True)
class TfidfConfig:
    """The recipe's numbers. On Amazon validation rows (mean of 4 splits): each choice's gain is beside it."""

    max_ngram: int = setting(2, "count runs of up to this many words", low=1, high=5)
    # a run that occurs in one text alone teaches nothing: 0.8 points, and a quarter of the size
    min_documents: int = setting(2, "leave out runs that occur in fewer texts than this", low=1)
    # 1 + log(count): 0.5 points
    sublinear: bool = setting(True, "take the logarithm of counts")
    # sparse unit-length rows want less shrinkage than the usual 1: 0.9 points
    regularization_c: float = setting(10.0, "inverse strength of the regression's shrinkage", low=1e-6)
    class_weights: str = setting("none", "weigh rows so that every class counts the same", choices=("none", "balanced"))


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
        self._weights = np.zeros((0, 0), np.float32)  # (terms, classes), or one column for two classes
        self._bias = np.zeros(0, np.float32)
        self.exported: ExportedNetwork | None = None

    def fit(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Learn with scikit-learn; the validation rows are not needed."""
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
        except ValueError as error:  # scikit-learn's word for texts that share no word
            raise DataError(
                f"No word occurs in {self.config.min_documents} training texts, so there is nothing to learn ({error})."
            ) from None
        monitor.start("fitting the regression", None)
        regression.fit(features, train.label_ids)
        monitor.stop()
        self._terms = {str(term): int(number) for term, number in vectorizer.vocabulary_.items()}
        self._idf = vectorizer.idf_.astype(np.float32)
        self._weights = regression.coef_.T.astype(np.float32)
        self._bias = regression.intercept_.astype(np.float32)
        return FitReport(parameters=self._weights.size + self._bias.size, facts={"terms": len(self._terms)})

    @property
    def longest_text(self) -> None:
        """No text is cut."""
        return

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Words and marks of each text, int64 (texts,)."""
        return np.array([len(self.tokenize(text)) for text in texts], np.int64)

    def resolved(self, rows: int, share: float = 1.0) -> TfidfConfig:
        """The config as it is: nothing depends on the number of rows."""
        return self.config

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words, `!` and `?`."""
        return self._token.findall(text.lower())

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities, float32 (texts, classes)."""
        if self.exported is not None:
            return softmax(np.concatenate([self.exported.run(*self._features(text)) for text in texts]))
        scores = np.stack([self._score(text) for text in texts])
        if scores.shape[1] == 1:  # scikit-learn keeps one column of weights for two classes
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        return softmax(scores)

    def graph(self) -> "ModelProto":
        """The regression as ONNX."""
        import_extra("onnx", "export")
        from textladder.networks.onnx_graphs import linear_graph

        weights, bias = self._weights, self._bias
        if weights.shape[1] == 1:
            weights = np.concatenate([np.zeros_like(weights), weights], axis=1)
            bias = np.concatenate([np.zeros_like(bias), bias])
        return linear_graph(weights, bias, self.classes)

    def _features(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Which terms occur, int64 (1, terms), and how much each counts, float32 (1, terms); one term at least."""
        numbers, values = self._values(self.tokenize(text))
        if not len(numbers):
            numbers, values = np.zeros(1, np.int64), np.zeros(1, np.float32)
        return numbers[None], values[None]

    def contributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """What each word adds to the score of a label over the mean of the others, with its place in the text.

        With two labels these sum up, with the bias, to the log-odds. A run's part is shared by its words.
        """
        places = [place for place, letter in enumerate(text) for _ in letter.lower()]  # of some letters it makes two
        matches = list(self._token.finditer(text.lower()))
        spans = [(places[match.start()], places[match.end() - 1] + 1) for match in matches]
        tokens = [match[0] for match in matches]
        numbers, values = self._values(tokens)
        rows = self._weights[numbers]
        if rows.shape[1] == 1:  # for the second of two labels
            towards = rows[:, 0] if label else -rows[:, 0]
        else:
            towards = rows[:, label] - np.delete(rows, label, axis=1).mean(axis=1)
        added = dict(zip(numbers.tolist(), (values * towards).tolist(), strict=True))
        counts = Counter(self._ngrams(tokens))
        found = [0.0] * len(tokens)
        for size in range(1, self.config.max_ngram + 1):
            for start in range(len(tokens) - size + 1):
                term = " ".join(tokens[start : start + size])
                part = added.get(self._terms.get(term, -1), 0.0) / counts[term] / size
                for place in range(start, start + size):
                    found[place] += part
        return [(*span, weight) for span, weight in zip(spans, found, strict=True)]

    def _score(self, text: str) -> np.ndarray:
        """Scores of one text, float32 (columns of weights,): a dot product over the terms that occur."""
        numbers, values = self._values(self.tokenize(text))
        scores: np.ndarray = values @ self._weights[numbers] + self._bias
        return scores

    def _values(self, tokens: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Which terms occur among tokens, int64 (terms,), and how much each of them counts, float32 (terms,)."""
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
        """Write `model.safetensors` and the terms in the order of their numbers."""
        import json

        from safetensors.numpy import save_file

        save_file(
            {"idf": self._idf, "weights": np.ascontiguousarray(self._weights), "bias": self._bias},
            folder / MODEL_FILE,
        )
        terms = sorted(self._terms, key=self._terms.__getitem__)
        (folder / VOCABULARY_FILE).write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(
        cls, bundle: Bundle, config: TfidfConfig, classes: int, exported: ExportedNetwork | None = None
    ) -> "TfidfLevel":
        """Read a bundle's files and hold their shapes to each other and to the labels."""
        level = cls(config, classes)
        level.exported = exported
        tensors = bundle.read_tensors(MODEL_FILE)
        terms: Any = bundle.read_json(VOCABULARY_FILE)
        columns = 1 if classes == 2 else classes
        expected = {"idf": (len(terms),), "weights": (len(terms), columns), "bias": (columns,)}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != expected or not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            raise BundleError(
                f"{bundle.folder}: the weights do not fit {classes} labels and {len(terms)} terms "
                f"(received {shapes}, expected {expected})."
            )
        level._terms = {term: number for number, term in enumerate(terms)}
        level._idf, level._weights, level._bias = tensors["idf"], tensors["weights"], tensors["bias"]
        return level
