"""`tfidf`: weights of words, word pairs and characters, and logistic regression on them.

The baseline that honest comparisons need (Lin et al. 2023, arXiv 2306.07111). scikit-learn fits it; `linear.py`
predicts with plain arrays.

    n-grams of words and of characters -> counts -> 1 + log -> times the weight of the term, by how few texts have it
    and by how much the classes differ in it -> unit length -> logistic regression
"""

from collections.abc import Mapping, Sequence
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
from textladder.text.ngrams import TOKEN, Ngrams, character_ngrams, spaced, tokens, word_ngrams

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL_FILE = "model.safetensors"
KINDS = ("words", "characters")
MOST_TERMS = 200_000  # of each kind: beyond that, n-grams are rare
MOST_WEIGHTS = 1 << 25  # with many classes there are fewer terms, so that a bundle has at most 128 MB of weights


@dataclass(frozen=True)
class TfidfConfig:
    """The recipe's hyperparameters, chosen by cross-validation on seven sets of texts (docs/measured.md)."""

    max_ngram: int = setting(2, "longest n-gram that is counted, in words", low=1, high=5)
    # with the weights below, 0 to 1 point on reviews and questions, 3 on tweets, 9 on Chinese, which has no spaces
    characters: int = setting(5, "longest run of characters that is counted; 0 for words alone", low=0, high=8)
    # an n-gram that occurs in only one text teaches nothing
    min_documents: int = setting(2, "drop n-grams that occur in fewer texts than this", low=1)
    sublinear: bool = setting(True, "use 1 + log(count) instead of the count")
    # 1 point on reviews and of few rows, 3 on tweets; 1, as in the paper, is as good but worse on Chinese
    class_ratio: float = setting(
        0.5, "weight terms by this power of how much the classes differ in them; 0 for idf alone", low=0, high=2
    )
    # sparse unit-length rows need less shrinkage than the usual 1 gives; from 5 to 40 makes little difference
    regularization_c: float = setting(20.0, "inverse of the regularization strength", low=1e-6)
    # macro F1 gains up to 3 points where classes are unbalanced, accuracy hardly changes
    class_weights: str = setting(
        "balanced", "weight rows so that all classes count the same", choices=("none", "balanced"), shared=True
    )


class TfidfLevel:
    """The level `tfidf`."""

    name: ClassVar[str] = "tfidf"
    libraries: ClassVar[tuple[str, ...]] = ("sklearn.linear_model",)
    summary: ClassVar[str] = "TF-IDF of words and characters, logistic regression"
    config_type: ClassVar[type] = TfidfConfig
    network_files: ClassVar[tuple[str, ...]] = ()
    network_inputs: ClassVar[tuple[str, ...]] = ("terms", "values")
    presets: ClassVar[Mapping[str, Preset]] = {"default": Preset("the recipe chosen on seven sets of texts")}

    def __init__(self, config: TfidfConfig, classes: int) -> None:
        self.config, self.classes = config, classes
        # of each kind, the hashes of the terms in ascending order; terms are numbered through both kinds
        self._hashes = {kind: np.zeros(0, np.uint64) for kind in KINDS}
        self._term_weights = np.zeros(0, np.float32)  # (terms,)
        self._model = LinearModel(np.zeros((0, 0), np.float32), np.zeros(0, np.float32))
        self.exported: ExportedNetwork | None = None

    def fit(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Fit with scikit-learn; the validation rows are not used."""
        from scipy import sparse
        from sklearn.linear_model import LogisticRegression

        monitor.start("counting n-grams", len(train))
        counts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for done, text in enumerate(train, start=1):
            for kind, ngrams in self._ngrams(text).items():
                counts.setdefault(kind, []).append(np.unique(ngrams.hashes, return_counts=True))
            if done % 1000 == 0:
                monitor.advance(done)
        monitor.start("fitting the regression", None)
        blocks, weights = [], []
        for kind, of_texts in counts.items():
            self._hashes[kind] = self._frequent([hashes for hashes, _ in of_texts])
            counted = _count_matrix(of_texts, self._hashes[kind])
            weights.append(term_weights(counted, train.label_ids, self.classes, self.config.class_ratio))
            blocks.append(self._weighted(counted, weights[-1]))
        self._term_weights = np.concatenate(weights)
        if not len(self._term_weights):
            raise DataError(f"No word occurs in {self.config.min_documents} training texts, so nothing can be learned.")
        regression = LogisticRegression(
            C=self.config.regularization_c,
            class_weight="balanced" if self.config.class_weights == "balanced" else None,
            max_iter=1000,
            tol=1e-5,  # with 1e-4 it stops 1 point too early on long texts
            random_state=seed,
        )
        regression.fit(sparse.hstack(blocks, format="csr"), train.label_ids)
        monitor.stop()
        self._model = LinearModel.from_sklearn(regression)
        return FitReport(parameters=self._model.parameters, facts={"terms": len(self._term_weights)})

    def _frequent(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """The n-grams that enough texts have, as hashes in ascending order.

        Args:
            texts: the distinct hashes of each text.
        """
        hashes, documents = np.unique(np.concatenate(texts), return_counts=True)
        enough = documents >= min(self.config.min_documents, len(texts))
        hashes, documents = hashes[enough], documents[enough]
        most = min(MOST_TERMS, max(1, MOST_WEIGHTS // (2 * self.classes)))
        if len(hashes) > most:
            kept = np.sort(np.argsort(-documents, kind="stable")[:most])
            hashes = hashes[kept]
        return hashes

    def _weighted(self, counted: Any, weights: np.ndarray) -> Any:
        """The values of the terms of one kind in each text, float32 (texts, terms), from their counts."""
        counted.data = self._values_of(counted.data, weights[counted.indices])
        texts = np.repeat(np.arange(counted.shape[0]), np.diff(counted.indptr))
        squares = np.bincount(texts, counted.data.astype(np.float64) ** 2, minlength=counted.shape[0])
        counted.data /= np.sqrt(self._kinds * np.where(squares == 0, 1, squares))[texts].astype(np.float32)
        return counted

    @property
    def _kinds(self) -> int:
        return 2 if self.config.characters else 1

    def _values_of(self, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        values: np.ndarray = (np.log(counts) + np.float32(1) if self.config.sublinear else counts) * weights
        return values

    def _ngrams(self, text: str) -> dict[str, Ngrams]:
        text = spaced(text)
        found = {"words": word_ngrams(text, self.config.max_ngram)}
        if self.config.characters:
            found["characters"] = character_ngrams(text, self.config.characters)
        return found

    @property
    def longest_text(self) -> None:
        """None: no text is truncated."""
        return

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Number of words, marks and emoji in each text, int64 (texts,)."""
        return np.array([len(tokens(text)) for text in texts], np.int64)

    def resolved(self, rows: int, share: float = 1.0) -> TfidfConfig:
        """The config as it is: nothing depends on the number of rows."""
        return self.config

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words, marks and emoji."""
        return tokens(text)

    def score(self, texts: Sequence[str]) -> Scored:
        """The class probabilities of texts, of which none is truncated."""
        if self.exported is not None:
            logits = np.concatenate([self.exported.run(*self._features(text)) for text in texts])
        else:
            logits = np.stack([self._model.logits(*self._values(self._ngrams(text))) for text in texts])
        return Scored(softmax(logits), truncated=0)

    def graph(self) -> "ModelProto":
        """The regression as ONNX."""
        import_extra("onnx", "export")
        from textladder.networks.onnx_graphs import linear_graph

        model = self._model.with_all_columns()
        return linear_graph(model.weights, model.bias, self.classes)

    def _features(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The terms that occur, int64 (1, terms), and their weights, float32 (1, terms); at least one."""
        numbers, values = self._values(self._ngrams(text))
        if not len(numbers):
            numbers, values = np.zeros(1, np.int64), np.zeros(1, np.float32)
        return numbers[None], values[None]

    def _values(self, ngrams: Mapping[str, Ngrams]) -> tuple[np.ndarray, np.ndarray]:
        """The terms that occur in a text, int64 (terms,), and their weights, float32 (terms,)."""
        numbers, values, first = [], [], 0
        for kind, found in ngrams.items():
            hashes, counts = np.unique(found.hashes, return_counts=True)
            places, known = _look_up(hashes, self._hashes[kind])
            numbers.append(first + places)
            of_kind = self._values_of(counts[known].astype(np.float32), self._term_weights[numbers[-1]])
            values.append(of_kind / np.float32(np.sqrt(self._kinds * np.dot(of_kind, of_kind)) or 1))
            first += len(self._hashes[kind])
        return np.concatenate(numbers), np.concatenate(values)

    def contributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """What each word adds to the logit of a class over the mean of the others, as (start, stop, weight).

        With two classes these and the bias sum to the log-odds. The weight of a term is divided among its occurrences,
        and that of an occurrence among its characters.
        """
        normal, places = _spaced_with_places(text)
        ngrams = self._ngrams(text)
        numbers, values = self._values(ngrams)
        added = np.zeros(len(self._term_weights))
        added[numbers] = self._model.contributions(numbers, values, label)
        is_space = np.array([letter == " " for letter in normal])
        letters = np.concatenate([[0], np.cumsum(~is_space)])  # before each place
        rises = np.zeros(len(normal) + 1)
        first = 0
        for kind, found in ngrams.items():
            term, known = _look_up(found.hashes, self._hashes[kind])
            starts, stops = found.starts[known], found.stops[known]
            occurrences = np.bincount(term, minlength=len(self._hashes[kind]))[term]
            share = added[first + term] / occurrences / (letters[stops] - letters[starts])
            np.add.at(rises, starts, share)
            np.add.at(rises, stops, -share)
            first += len(self._hashes[kind])
        of_letters = np.where(is_space, 0, np.cumsum(rises)[:-1])
        sums = np.concatenate([[0], np.cumsum(of_letters)])
        return [
            (places[start], places[stop - 1] + 1, float(sums[stop] - sums[start]))
            for start, stop in (found.span() for found in TOKEN.finditer(normal))
        ]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`: the terms as hashes, their weights, and the regression."""
        from safetensors.numpy import save_file

        hashes = {f"{kind}_hashes": self._hashes[kind] for kind in KINDS}
        save_file({**hashes, "term_weights": self._term_weights, **self._model.tensors()}, folder / MODEL_FILE)

    @classmethod
    def load(
        cls, bundle: Bundle, config: TfidfConfig, classes: int, exported: ExportedNetwork | None = None
    ) -> "TfidfLevel":
        """Read a bundle's file and check that its shapes agree with each other and with the labels."""
        level = cls(config, classes)
        level.exported = exported
        tensors = bundle.read_tensors(MODEL_FILE)
        hashes = {kind: tensors.get(f"{kind}_hashes", np.zeros(0)) for kind in KINDS}
        terms = sum(one.size for one in hashes.values())
        expected: dict[str, tuple[int, ...]] = {f"{kind}_hashes": (one.size,) for kind, one in hashes.items()}
        expected |= {"term_weights": (terms,), **LinearModel.shapes(terms, classes)}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        in_order = all(one.dtype == np.uint64 and (one[1:] > one[:-1]).all() for one in hashes.values())
        if shapes != expected or not in_order:
            raise BundleError(
                f"{bundle.folder}: the weights do not fit {classes} labels and {terms} terms in order "
                f"(received {shapes}, expected {expected})."
            )
        level._hashes, level._term_weights = hashes, tensors["term_weights"]
        level._model = LinearModel.from_tensors(tensors)
        return level


def term_weights(counted: Any, label_ids: np.ndarray, classes: int, class_ratio: float) -> np.ndarray:
    """The weight of each term: its inverse document frequency times how much the classes differ in it.

    Classes differ by the logarithm of the share of their texts that have the term, as in naive Bayes (Wang & Manning
    2012, "Baselines and bigrams", section 2). With two classes the difference is their log-count ratio, with more it
    is twice the standard deviation over the classes.

    Args:
        counted: counts, sparse (texts, terms).
        label_ids: the class of each text, int64 (texts,).
        classes: how many classes there are.
        class_ratio: the power of the difference; 0 for the inverse document frequency alone.

    Returns:
        float32 (terms,).
    """
    from scipy import sparse

    texts = counted.shape[0]
    documents = np.bincount(counted.indices, minlength=counted.shape[1])
    weights = np.log((1 + texts) / (1 + documents)) + 1
    if class_ratio:
        present = sparse.csr_matrix((np.ones_like(counted.data), counted.indices, counted.indptr), counted.shape)
        members = sparse.csr_matrix((np.ones(texts, np.float32), (label_ids, np.arange(texts))), (classes, texts))
        having = (members @ present).toarray()
        shares = np.log((having + 1) / (np.bincount(label_ids, minlength=classes) + 2)[:, None])
        weights *= (2 * shares.std(axis=0)) ** class_ratio
    found: np.ndarray = weights.astype(np.float32)
    return found


def _count_matrix(counts: Sequence[tuple[np.ndarray, np.ndarray]], terms: np.ndarray) -> Any:
    """How often each term occurs in each text, as a sparse float32 matrix (texts, terms)."""
    from scipy import sparse

    found = [_look_up(hashes, terms) for hashes, _ in counts]
    ends = np.cumsum([0, *(len(places) for places, _ in found)])
    values = [numbers[known].astype(np.float32) for (_, numbers), (_, known) in zip(counts, found, strict=True)]
    places = np.concatenate([places for places, _ in found])
    return sparse.csr_matrix((np.concatenate(values), places, ends), (len(counts), len(terms)))


def _look_up(hashes: np.ndarray, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the terms, in ascending order, the known ones of some hashes are; and which ones are known."""
    places = np.searchsorted(terms, hashes)
    known = places < len(terms)
    known[known] = terms[places[known]] == hashes[known]
    return places[known], known


def _spaced_with_places(text: str) -> tuple[str, list[int]]:
    """The result of `spaced`, and for each of its characters where it is in the text."""
    lower = text.lower()
    origins = [index for index, letter in enumerate(text) for _ in letter.lower()]  # lower-casing makes two of some
    letters, places = [" "], [0]
    for letter, place in zip(lower, origins, strict=True):
        if not letter.isspace():
            letters.append(letter)
            places.append(place)
        elif letters[-1] != " ":
            letters.append(" ")
            places.append(place)
    if letters[-1] != " ":
        letters.append(" ")
        places.append(len(text))
    return "".join(letters), places
