"""`tfidf`: weights of words, word pairs and characters, and logistic regression on them.

The baseline that honest comparisons need (Lin et al. 2023, arXiv 2306.07111). scikit-learn fits it; `linear.py`
predicts with plain arrays.

    n-grams of words and of characters -> counts -> 1 + log -> times the weight of the term, by how few texts have it
    and by how much the classes differ in it -> unit length -> logistic regression
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from textladder.bundle import Bundle
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import BundleError, DataError, import_extra
from textladder.levels.base import FitReport, Preset, Scored
from textladder.levels.linear import LinearModel
from textladder.levels.regression import SparseTexts, TermValues, fit_regression
from textladder.onnx_scorer import ExportedNetwork
from textladder.progress import Monitor
from textladder.scoring import softmax
from textladder.settings import setting
from textladder.target_metric import TargetMetric, find_metric
from textladder.text.document_counts import DocumentCounts
from textladder.text.ngrams import TOKEN, Ngrams, Terms, batches, character_ngrams, pieces, tokens, word_ngrams

if TYPE_CHECKING:
    from onnx import ModelProto

    from textladder.training.checkpoints import FitCheckpoint

MODEL_FILE = "model.safetensors"
KINDS = ("words", "characters")
CHARACTERS = 5  # 4 and 6 are as good
MOST_BYTES = 96_000_000  # of the terms and their weights: with many classes there are fewer terms

# With this many words to learn from, in all and in a text, words alone are as good as words and characters, and three
# times as fast: so on reviews. Elsewhere characters gain from 0.3 points (news) to 3 (tweets), or 5 with few rows.
ENOUGH_WORDS, LONG_TEXT = 400_000, 40
SAMPLE = 1_000  # texts in which words are counted
STRENGTHS = (1 / 4, 1, 4)  # times the inverse of the regularization strength, where a metric chooses it


@dataclass(frozen=True)
class TfidfConfig:
    """The recipe's hyperparameters, chosen by cross-validation on eight sets of texts (docs/measured.md)."""

    max_ngram: int = setting(2, "longest n-gram that is counted, in words", low=1, high=5)
    # 2 to 3 points on tweets and questions, 5 of few rows, none on reviews
    characters: int | None = setting(
        None,
        "longest run of characters that is counted; 0 for words alone (default: 0 for many long texts, else 5)",
        low=0,
        high=8,
    )
    # an n-gram that occurs in only one text teaches nothing
    min_documents: int = setting(2, "drop n-grams that occur in fewer texts than this", low=1)
    # 20,000 long reviews have the best accuracy with 200,000, of 382,000 that two texts have
    max_terms: int = setting(
        200_000, "keep at most this many n-grams of words, and of characters: the most frequent", low=1, high=3_000_000
    )
    sublinear: bool = setting(True, "use 1 + log(count) instead of the count")
    # 0.6 points on reviews, 1 on news, 2 on tweets; nothing on short Chinese texts
    class_ratio: float = setting(
        1.0, "weight terms by 1 plus this times how much the classes differ in them", low=0, high=10
    )
    # sparse unit-length rows need less shrinkage than the usual 1 gives; from 3 to 12 makes little difference
    regularization_c: float = setting(6.0, "inverse of the regularization strength", low=1e-6)
    # macro F1 gains up to 1 point where classes are unbalanced, accuracy hardly changes
    class_weights: str = setting(
        "balanced", "weight rows so that all classes count the same", choices=("none", "balanced"), shared=True
    )
    metric: str | None = setting(
        None,
        "choose strength and class weights by this metric on the validation rows, as in `compare` (default: as set)",
    )


class TfidfLevel:
    """The level `tfidf`."""

    name: ClassVar[str] = "tfidf"
    libraries: ClassVar[tuple[str, ...]] = ("sklearn.linear_model",)
    summary: ClassVar[str] = "TF-IDF of words and characters, logistic regression"
    config_type: ClassVar[type] = TfidfConfig
    network_files: ClassVar[tuple[str, ...]] = ()
    network_inputs: ClassVar[tuple[str, ...]] = ("terms", "values")
    batch_cores: ClassVar[int | None] = 1
    presets: ClassVar[Mapping[str, Preset]] = {"default": Preset("the recipe chosen on eight sets of texts")}

    def __init__(self, config: TfidfConfig, classes: int) -> None:
        self.config, self.classes = config, classes
        self._terms: dict[str, Terms] = {}  # of each kind that is counted; numbered through both kinds
        self._term_weights = np.zeros(0, np.float32)  # (terms,)
        self._model = LinearModel(np.zeros((0, 0), np.float32), np.zeros(0, np.float32))
        self.exported: ExportedNetwork | None = None

    def fit(
        self,
        train: LabelledTexts,
        valid: LabelledTexts | None,
        *,
        seed: int,
        monitor: Monitor,
        checkpoint: "FitCheckpoint | None" = None,
    ) -> FitReport:
        """Fit with scikit-learn; the validation rows are used if there is a metric to choose by."""
        metric = (
            None if self.config.metric is None else find_metric(self.config.metric, train.labels, train.label_names)
        )
        self.config = replace(self.config, characters=self._longest_run(train))
        monitor.start("counting n-grams", 2 * len(train))
        self._terms = self._choose_terms(train, monitor)
        if not any(map(len, self._terms.values())):
            raise DataError(f"No word occurs in {self.config.min_documents} training texts, so nothing can be learned.")
        texts, having = self._count_all(train, monitor)
        self._term_weights = term_weights(
            having, np.bincount(train.label_ids, minlength=self.classes), self.config.class_ratio
        )
        texts.change(lambda counts: self._values(counts, self._term_weights))
        in_steps = metric is not None and texts.in_memory
        monitor.start("fitting the regression", 2 * len(STRENGTHS) if in_steps else None)
        self._fit_regression(texts, train, seed, monitor)
        if metric is not None and valid is not None:
            self._choose_regression(texts, train, valid, metric, seed, monitor)
        monitor.stop()
        facts = {"terms": len(self._term_weights), "characters": self.config.characters}
        return FitReport(parameters=self._model.parameters, facts=facts)

    def _fit_regression(self, texts: SparseTexts, train: LabelledTexts, seed: int, monitor: Monitor) -> None:
        self._model = fit_regression(
            texts,
            train.label_ids,
            self.classes,
            strength=self.config.regularization_c,
            balanced=self.config.class_weights == "balanced",
            seed=seed,
            monitor=monitor,
        )

    def _choose_regression(
        self,
        texts: SparseTexts,
        train: LabelledTexts,
        valid: LabelledTexts,
        metric: TargetMetric,
        seed: int,
        monitor: Monitor,
    ) -> None:
        """Keep the strength and the class weights that do best on the validation rows.

        Those that are set stay unless others do better by a standard error of the difference: the best of several on
        few rows is often so by luck.
        """
        given, tried = (self.config, self._model), []
        for number, (factor, class_weights) in enumerate(product(STRENGTHS, ("balanced", "none"))):
            monitor.advance(number)
            strength = factor * given[0].regularization_c
            self.config = replace(given[0], regularization_c=strength, class_weights=class_weights)
            if self.config != given[0]:
                self._fit_regression(texts, train, seed, monitor)
                tried.append((self._contributions(valid, metric), self.config, self._model))
        self.config, self._model = given
        before = self._contributions(valid, metric)
        best, config, model = max(tried, key=lambda one: float(one[0].mean()))
        better = best - before
        if better.mean() > better.std() / np.sqrt(len(better)):
            self.config, self._model = config, model

    def _contributions(self, valid: LabelledTexts, metric: TargetMetric) -> np.ndarray:
        return metric.contributions(self.score(list(valid)).probabilities, valid.label_ids)

    def _longest_run(self, train: LabelledTexts) -> int:
        """Longest run of characters that is counted."""
        if self.config.characters is not None:
            return self.config.characters
        sample = list(islice(train, 0, None, max(1, len(train) // SAMPLE)))
        # a character of a script that does not separate words is a token, but no word
        words = sum(len(token) > 1 for text in sample for token in tokens(text)) / len(sample)
        return 0 if words >= LONG_TEXT and words * len(train) >= ENOUGH_WORDS else CHARACTERS

    def _choose_terms(self, texts: LabelledTexts, monitor: Monitor) -> dict[str, Terms]:
        """The n-grams of each kind that the most texts have."""
        counts = {kind: DocumentCounts() for kind in (KINDS if self.config.characters else KINDS[:1])}
        done = 0
        for size, batch in batches(texts):
            for kind, ngrams in self._ngrams(batch, counts).items():
                counts[kind].add(ngrams)
            done += size
            monitor.advance(done)
        least = min(self.config.min_documents, len(texts))
        bytes_of_term = 12 + 4 * (1 if self.classes == 2 else self.classes)  # a hash, its weight, those of the classes
        most = min(self.config.max_terms, max(1, MOST_BYTES // (len(KINDS) * bytes_of_term)))
        return {kind: Terms(one.most_frequent(least, most)) for kind, one in counts.items()}

    def _count_all(self, texts: LabelledTexts, monitor: Monitor) -> tuple[SparseTexts, np.ndarray]:
        """How often each term occurs in each text; and how many texts of each class have it, int64 (classes, terms)."""
        terms = sum(map(len, self._terms.values()))
        counted, having, done = SparseTexts(terms), np.zeros(self.classes * terms, np.int64), 0
        for size, batch in batches(texts):
            counted.add(self._count(size, batch))
            done += size
            monitor.advance(len(texts) + done)
        start = 0
        for chunk in counted.chunks():
            stop = start + len(chunk.ends) - 1
            labels = np.repeat(texts.label_ids[start:stop], np.diff(chunk.ends))
            having += np.bincount(labels * terms + chunk.terms, minlength=having.size)
            start = stop
        return counted, having.reshape(self.classes, terms)

    def _values(self, counts: TermValues, weights: np.ndarray) -> np.ndarray:
        """The value of each term in each text, float32 (n,): each kind has the same length, and both together 1."""
        values = counts.values.astype(np.float32)
        if self.config.sublinear:
            values = np.log(values) + 1
        values *= weights[counts.terms]
        texts = len(counts.ends) - 1
        group = np.repeat(np.arange(texts), np.diff(counts.ends))
        kinds = 1
        if len(weights) > (words := len(self._terms["words"])) > 0:
            kinds = 2
            group = 2 * group + (counts.terms >= words)
        squares = np.bincount(group, values.astype(np.float64) ** 2, minlength=kinds * texts)
        scale = 1 / np.sqrt(kinds * np.where(squares == 0, 1, squares))
        scaled: np.ndarray = values * scale[group].astype(np.float32)
        return scaled

    def _ngrams(self, batch: str, kinds: Iterable[str]) -> dict[str, Ngrams]:
        parts = list(pieces(batch))
        found = {"words": word_ngrams(parts, self.config.max_ngram)}
        if "characters" in kinds:
            found["characters"] = character_ngrams(parts, self.config.characters or 0)
        return found

    def _count(self, texts: int, batch: str) -> TermValues:
        """Count the terms of spaced texts."""
        keys, first = [], 0  # the number of the text in the upper half of the bits, that of the term in the lower one
        for kind, ngrams in self._ngrams(batch, self._terms).items():
            places, known = self._terms[kind].find(ngrams.hashes)
            keys.append((ngrams.texts[known] << 32) + (first + places))
            first += len(self._terms[kind])
        distinct, occurrences = np.unique(np.concatenate(keys), return_counts=True)
        ends = np.searchsorted(distinct, np.arange(texts + 1) << 32)
        return TermValues(ends, distinct & 0xFFFFFFFF, occurrences)

    @property
    def longest_text(self) -> None:
        """None: no text is truncated."""
        return

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Number of words, marks and emoji in each text, int64 (texts,)."""
        return np.array([len(tokens(text)) for text in texts], np.int64)

    def unsuitable(self, train: LabelledTexts) -> None:
        """None: the level learns its words and characters from the texts."""

    def resolved(self, rows: int) -> TfidfConfig:
        """The config as it is: whether characters are counted is chosen in `fit`, by the texts."""
        return self.config

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words, marks and emoji."""
        return tokens(text)

    def score(self, texts: Sequence[str]) -> Scored:
        """The class probabilities of texts, of which none is truncated."""
        run = self._model.logits if self.exported is None else self._exported_logits
        logits = []
        for size, batch in batches(texts):
            counts = self._count(size, batch)
            values = self._values(counts, self._term_weights)
            logits.append(run(counts.ends, counts.terms, values))
        return Scored(softmax(np.concatenate(logits)), truncated=0)

    def graph(self) -> "ModelProto":
        """The regression as ONNX."""
        import_extra("onnx", "export")
        from textladder.networks.onnx_graphs import linear_graph

        model = self._model.with_all_columns()
        return linear_graph(model.weights, model.bias, self.classes)

    def _exported_logits(self, ends: np.ndarray, terms: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The logits of texts, one after the other, by the exported network, float32 (texts, classes)."""
        assert self.exported is not None
        each = []
        for start, stop in pairwise(ends.tolist()):
            of_text = (terms[start:stop], values[start:stop])
            if start == stop:  # the network needs at least one term
                of_text = (np.zeros(1, np.int64), np.zeros(1, np.float32))
            each.append(self.exported.run(*(one[None] for one in of_text)))
        return np.concatenate(each)

    def contributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """What each word adds to the logit of a class over the mean of the others, as (start, stop, weight).

        With two classes these and the bias sum to the log-odds. The weight of a term is divided among its occurrences,
        and that of an occurrence among its characters.
        """
        normal, places = _spaced_with_places(text)
        counts = self._count(1, normal)
        added = np.zeros(len(self._term_weights))
        values = self._values(counts, self._term_weights)
        added[counts.terms] = self._model.contributions(counts.terms, values, label)
        is_space = np.frombuffer(normal.encode("utf-32-le"), np.uint32) == ord(" ")
        letters = np.concatenate([[0], np.cumsum(~is_space)])  # before each place
        rises = np.zeros(len(normal) + 1)
        first = 0
        for kind, found in self._ngrams(normal, self._terms).items():
            term, known = self._terms[kind].find(found.hashes)
            starts, stops = found.starts[known], found.stops[known]
            occurrences = np.bincount(term, minlength=len(self._terms[kind]))[term]
            share = added[first + term] / occurrences / (letters[stops] - letters[starts])
            np.add.at(rises, starts, share)
            np.add.at(rises, stops, -share)
            first += len(self._terms[kind])
        of_letters = np.where(is_space, 0, np.cumsum(rises)[:-1])
        sums = np.concatenate([[0], np.cumsum(of_letters)])
        return [
            (places[start], places[stop - 1] + 1, float(sums[stop] - sums[start]))
            for start, stop in (found.span() for found in TOKEN.finditer(normal))
        ]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`: the terms as hashes, their weights, and the regression."""
        from safetensors.numpy import save_file

        hashes = {f"{kind}_hashes": terms.hashes for kind, terms in self._terms.items()}
        save_file({**hashes, "term_weights": self._term_weights, **self._model.tensors()}, folder / MODEL_FILE)

    @classmethod
    def load(
        cls, bundle: Bundle, config: TfidfConfig, classes: int, exported: ExportedNetwork | None = None
    ) -> "TfidfLevel":
        """Read a bundle's file and check that its shapes agree with each other and with the labels."""
        level = cls(config, classes)
        level.exported = exported
        tensors = bundle.read_tensors(MODEL_FILE)
        if "words_hashes" not in tensors:
            raise BundleError(f"{bundle.folder}: {MODEL_FILE} has no words_hashes.")
        hashes = {kind: tensors[name] for kind in KINDS if (name := f"{kind}_hashes") in tensors}
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
        level._terms = {kind: Terms(one) for kind, one in hashes.items()}
        level._term_weights = tensors["term_weights"]
        level._model = LinearModel.from_tensors(tensors)
        return level


def term_weights(having: np.ndarray, texts: np.ndarray, class_ratio: float) -> np.ndarray:
    """The weight of each term: its inverse document frequency times how much the classes differ in it.

    Classes differ by the logarithm of the share of their texts that have the term, as in naive Bayes (Wang & Manning
    2012, "Baselines and bigrams", section 2). With two classes the difference is their log-count ratio, with more it
    is twice the standard deviation over the classes.

    Args:
        having: how many texts of each class have each term, int64 (classes, terms).
        texts: how many texts each class has, int64 (classes,).
        class_ratio: times the difference, plus 1; 0 for the inverse document frequency alone.

    Returns:
        float32 (terms,).
    """
    weights = np.log((1 + texts.sum()) / (1 + having.sum(axis=0))) + 1
    if class_ratio:
        weights *= 1 + class_ratio * 2 * np.log((having + 1) / (texts + 2)[:, None]).std(axis=0)
    found: np.ndarray = weights.astype(np.float32)
    return found


def _spaced_with_places(text: str) -> tuple[str, list[int]]:
    """The result of `spaced`, and for each of its characters where it is in the text."""
    lower = text.lower()
    origins: Sequence[int] = range(len(text))
    if len(lower) != len(text):  # lower-casing makes two of some
        origins = [index for index, letter in enumerate(text) for _ in letter.lower()]
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
