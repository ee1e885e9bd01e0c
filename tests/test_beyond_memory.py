"""What does not fit into memory is computed in parts, with the same results."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from textladder import TextClassifier, read_texts, scratch_file
from textladder.errors import DataError
from textladder.levels import regression, tfidf
from textladder.levels.regression import SparseTexts, TermValues, fit_regression
from textladder.progress import Monitor
from textladder.scratch_file import ScratchFile, concatenated
from textladder.text import document_counts, vocabulary, wordpieces
from textladder.text.document_counts import DocumentCounts
from textladder.text.ngrams import Ngrams


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is kept in memory, so that everything larger than a few texts goes through files."""
    monkeypatch.setattr(document_counts, "MOST_IN_MEMORY", 1 << 9)
    monkeypatch.setattr(regression, "MOST_IN_MEMORY", 1 << 9)
    monkeypatch.setattr(regression, "CHUNK", 1 << 11)


def some_rows(classes: int, rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(200)])
    labels = rng.integers(classes, size=rows)
    texts = [" ".join(rng.choice(words[label * 20 :], 8)) for label in labels]
    return pd.DataFrame({"label": [f"class {label}" for label in labels], "text": texts})


def test_a_scratch_file_returns_what_it_was_given() -> None:
    file = ScratchFile()
    numbers, halves = np.arange(5, dtype=np.int32), np.arange(3, dtype=np.float32) / 2
    places = [file.append(numbers), file.append(halves)]
    assert file.read(places[0], 5, np.int32).tolist() == numbers.tolist()
    assert file.read(places[1] + 4, 2, np.float32).tolist() == [0.5, 1.0]
    file.write(places[0], numbers[::-1])
    assert file.read(places[0], 5, np.int32).tolist() == [4, 3, 2, 1, 0]
    assert file.read(places[1], 3, np.float32).tolist() == halves.tolist()
    assert file.read(places[1], 0, np.float32).tolist() == []
    with pytest.raises(ValueError, match="beyond the end"):
        file.read(places[1], 4, np.float32)


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match=r"No space left on device\); set TMPDIR to a folder with more room\."):
        ScratchFile()


@pytest.mark.parametrize("most_in_memory", [1 << 22, 100])
def test_texts_with_each_ngram_are_counted(most_in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_counts, "MOST_IN_MEMORY", most_in_memory)
    rng = np.random.default_rng(0)
    hashes_of = rng.integers(2**64, size=500, dtype=np.uint64)
    counts, expected, first = DocumentCounts(), Counter[int](), 0
    for _ in range(20):
        texts = np.sort(rng.integers(6, size=80))
        chosen = np.minimum(rng.geometric(0.01, size=80), 499)
        order = np.lexsort([texts])
        counts.add(Ngrams(hashes_of[chosen], np.zeros(80, np.int64), np.zeros(80, np.int64), texts[order]))
        pairs = set(zip(hashes_of[chosen].tolist(), (first + texts).tolist(), strict=True))
        expected.update(hash_ for hash_, _ in pairs)
        first += 6
    counts.add(Ngrams(hashes_of[:0], *(np.zeros(0, np.int64) for _ in range(3))))
    by_frequency = sorted(expected, key=lambda hash_: (-expected[hash_], hash_))
    for least, most in ((1, 10_000), (2, 10_000), (3, 40), (1, 7), (1_000, 5)):
        often = [hash_ for hash_ in by_frequency if expected[hash_] >= least][:most]
        assert counts.most_frequent(least, most).tolist() == sorted(often)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("balanced", [True, False])
def test_a_regression_in_chunks_is_that_in_memory(
    classes: int, balanced: bool, monkeypatch: pytest.MonkeyPatch, little_memory: None
) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(classes, size=400) * (rng.random(400) < 0.7)
    sparse = rng.random((400, 60)) * (rng.random((400, 60)) < 0.2)
    sparse[:, 0] += labels
    sparse[7] = 0  # a text without terms

    def fitted() -> regression.LinearModel:
        texts = SparseTexts(60)
        for start in range(0, 400, 50):
            rows, terms = np.nonzero(sparse[start : start + 50])
            ends = np.searchsorted(rows, np.arange(51))
            texts.add(TermValues(ends, terms, sparse[start : start + 50][rows, terms].astype(np.float32)))
        return fit_regression(texts, labels, classes, strength=3.0, balanced=balanced, seed=0, monitor=Monitor())

    in_chunks = fitted()
    monkeypatch.setattr(regression, "MOST_WEIGHTS", 1)  # one class at a time
    one_by_one = fitted()
    monkeypatch.setattr(regression, "MOST_IN_MEMORY", 1 << 25)
    monkeypatch.setattr(regression, "LIBLINEAR_TOLERANCE", 1e-5)
    in_memory = fitted()
    for chunks in (in_chunks, one_by_one):
        assert chunks.weights == pytest.approx(in_memory.weights, abs=2e-3)
        assert chunks.bias == pytest.approx(in_memory.bias, abs=2e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_tfidf_beyond_memory_predicts_the_same(
    classes: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(regression, "LIBLINEAR_TOLERANCE", 1e-5)
    data = read_texts(some_rows(classes))
    in_memory = TextClassifier("tfidf", metric="macro-f1").fit(data)
    request.getfixturevalue("little_memory")
    in_chunks = TextClassifier("tfidf", metric="macro-f1").fit(data)
    assert in_chunks.record["terms"] == in_memory.record["terms"]
    texts = list(data.test)
    assert in_chunks.predict(texts) == in_memory.predict(texts)
    assert in_chunks.predict_proba(texts) == pytest.approx(in_memory.predict_proba(texts), abs=2e-4)
    again = TextClassifier("tfidf", metric="macro-f1").fit(data)
    assert (again.predict_proba(texts) == in_chunks.predict_proba(texts)).all()


@pytest.mark.realdata
def test_tfidf_of_amazon_reviews_beyond_memory(shared: Path, request: pytest.FixtureRequest) -> None:
    folder = shared / "amazon_polarity"
    data = read_texts(folder / "train.csv", test=folder / "test.csv", test_first=2000)
    in_memory = TextClassifier("tfidf").fit(data)
    request.getfixturevalue("little_memory")
    request.getfixturevalue("monkeypatch").setattr(document_counts, "MOST_IN_MEMORY", 1 << 16)
    request.getfixturevalue("monkeypatch").setattr(regression, "CHUNK", 1 << 18)
    in_chunks = TextClassifier("tfidf").fit(data)
    texts = list(data.test)
    assert (in_chunks._fitted._terms["words"].hashes == in_memory._fitted._terms["words"].hashes).all()
    assert in_chunks.predict(texts) == in_memory.predict(texts)
    assert in_chunks.predict_proba(texts) == pytest.approx(in_memory.predict_proba(texts), abs=1e-3)


def test_arrays_that_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [np.arange(start, start + 50) for start in range(0, 500, 50)]
    in_memory = concatenated(parts, np.int32)
    monkeypatch.setattr(scratch_file, "MOST_IN_MEMORY", 250)
    mapped = concatenated(iter(parts), np.int32)
    assert mapped.base is not None
    assert not mapped.flags.writeable
    for found in (in_memory, mapped):
        assert found.dtype == np.int32
        assert found.tolist() == list(range(500))
    assert concatenated([], np.int32).tolist() == []


@pytest.mark.parametrize("level", ["lstm", "transformer"])
def test_networks_learn_the_same_from_mapped_ids(
    level: str, monkeypatch: pytest.MonkeyPatch, encoders: Any, vectors_file: Path
) -> None:
    options: dict[str, Any] = {
        "lstm": {"vectors": str(vectors_file)},
        "transformer": {"encoder": str(encoders("bert")), "long_text": "windows", "max_tokens": 8},
    }[level]
    data = read_texts(some_rows(2))
    in_memory = TextClassifier(level, epochs=1, **options).fit(data)
    monkeypatch.setattr(scratch_file, "MOST_IN_MEMORY", 1 << 8)
    monkeypatch.setattr(vocabulary, "TOKENS_AT_ONCE", 100)
    monkeypatch.setattr(wordpieces, "SEQUENCES_AT_ONCE", 7)
    mapped = TextClassifier(level, epochs=1, **options).fit(data)
    assert (mapped.predict_proba(list(data.test)) == in_memory.predict_proba(list(data.test))).all()


def test_the_vocabulary_is_bounded(vectors_file: Path) -> None:
    settings: dict[str, Any] = {"vectors": str(vectors_file), "min_vocabulary": 0, "epochs": 1}
    classifier = TextClassifier("lstm", max_vocabulary=30, **settings).fit(some_rows(2))
    assert classifier.record["vocabulary"] == 30
    assert classifier.record["unique_tokens"] > 100


def test_words_of_the_vectors_are_bounded_too(vectors_file: Path) -> None:
    words = [line.split()[0] for line in vectors_file.read_text().splitlines()]
    rows = [(f"class {number % 2}", " ".join(words[number % 4 :: 4][:6])) for number in range(40)]
    settings: dict[str, Any] = {"vectors": str(vectors_file), "tokenizer": "whitespace", "epochs": 1}
    data = pd.DataFrame(rows, columns=["label", "text"])
    assert TextClassifier("lstm", **settings).fit(data).record["vocabulary"] > 30
    assert TextClassifier("lstm", max_vocabulary=30, **settings).fit(data).record["vocabulary"] == 30


def test_a_bundle_is_bounded_by_fewer_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "MOST_BYTES", 2 * 40 * (8 + 4 + 4 * 4))  # hash, weight, and those of four classes
    assert TextClassifier("tfidf").fit(some_rows(4)).record["terms"] == 2 * 40
    assert TextClassifier("tfidf", max_terms=30).fit(some_rows(4)).record["terms"] == 2 * 30


def test_a_regression_that_has_not_settled_is_said(monkeypatch: pytest.MonkeyPatch, little_memory: None) -> None:
    said: list[str] = []
    monitor = Monitor()
    monkeypatch.setattr(monitor, "say", said.append)
    TextClassifier("tfidf").fit(read_texts(some_rows(2)), monitor=monitor)
    assert said == []
    monkeypatch.setattr(regression, "MOST_PASSES", 3)
    TextClassifier("tfidf").fit(read_texts(some_rows(2)), monitor=monitor)
    assert said == ["The regression had not settled after 3 passes over the texts."]
