"""Hashes of n-grams, against n-grams that are cut out one by one; the level `tfidf` on texts in any language."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textladder import TextClassifier, explain_text
from textladder.levels.tfidf import _spaced_with_places, term_weights
from textladder.text.ngrams import (
    LONGEST_PIECE,
    TOKEN,
    Ngrams,
    Terms,
    batches,
    character_ngrams,
    pieces,
    spaced,
    tokens,
    word_ngrams,
)

TEXTS = st.text(
    st.sampled_from("abcC ΣİßÉ\u0301क\u093f这👍🏽.!:)\n\t")
    | st.sampled_from("ก\u0e33👩\u200d\ufe0f🇩🇪\u0600\u302e한\u1100\u1161©"),
    max_size=60,
)


def cut_out(ngrams: Ngrams, text: str) -> list[tuple[int, str]]:
    """Each hash with what it stands for."""
    return [
        (hash_, text[start:stop])
        for hash_, start, stop, _ in zip(*map(np.ndarray.tolist, vars(ngrams).values()), strict=True)
    ]


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(deadline=None)
def test_characters(texts: list[str]) -> None:
    by_hash: dict[int, str] = {}
    by_ngram: dict[str, int] = {}
    for text in map(spaced, texts):
        found = cut_out(character_ngrams(list(pieces(text)), 4), text)
        stops = [
            (start, stop) for start in range(len(text)) for stop in range(start + 1, min(start + 4, len(text)) + 1)
        ]
        expected = [text[start:stop] for start, stop in stops]
        assert [ngram for _, ngram in found] == [one for one in expected if " " not in one[1:-1] and one != " "]
        for hash_, ngram in found:
            assert by_hash.setdefault(hash_, ngram) == ngram
            assert by_ngram.setdefault(ngram, hash_) == hash_


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(deadline=None)
def test_words(texts: list[str]) -> None:
    by_hash: dict[int, tuple[str, ...]] = {}
    by_ngram: dict[tuple[str, ...], int] = {}
    for text in map(spaced, texts):
        words = TOKEN.findall(text)
        expected = [tuple(words[n : n + size]) for size in range(1, 4) for n in range(len(words) - size + 1)]
        found = cut_out(word_ngrams(list(pieces(text)), 3), text)
        assert len(found) == len(expected)
        for (hash_, ngram), own in zip(found, expected, strict=True):
            assert ngram.replace(" ", "") == "".join(own)
            assert by_hash.setdefault(hash_, own) == own
            assert by_ngram.setdefault(own, hash_) == hash_


@given(st.lists(TEXTS, max_size=6))
@settings(deadline=None)
def test_texts_together_have_the_ngrams_of_each(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textladder.text.ngrams.LONGEST_PIECE", 64)  # several batches
        found = list(batches(texts))
        assert sum(size for size, _ in found) == len(texts)
        assert all(len(batch) <= 64 or size == 1 for size, batch in found)
        of_texts = [spaced(text) for text in texts]
        for size, batch in found:
            here, of_texts = of_texts[:size], of_texts[size:]
            for ngrams_of in (word_ngrams, character_ngrams):
                together = ngrams_of(list(pieces(batch)), 3)
                for number, text in enumerate(here):
                    alone = ngrams_of(list(pieces(text)), 3)
                    assert sorted(together.hashes[together.texts == number]) == sorted(alone.hashes)


@given(st.lists(st.integers(0, 2**64 - 1), unique=True), st.lists(st.integers(0, 2**64 - 1)))
@example([2**64 - 1, 0, 1, 2], [2**64 - 1, 3])
def test_terms_are_found(known: list[int], others: list[int]) -> None:
    hashes = np.array(sorted(known), np.uint64)
    wanted = np.array(others + known, np.uint64)
    places, found = Terms(hashes).find(wanted)
    assert found.tolist() == np.isin(wanted, hashes).tolist()
    assert (hashes[places] == wanted[found]).all()


def test_a_word_is_no_character_ngram() -> None:
    text = spaced("it is it")
    parts = list(pieces(text))
    words, characters = word_ngrams(parts, 2), character_ngrams(parts, 5)
    assert not set(words.hashes.tolist()) & set(characters.hashes.tolist())
    assert len(set(words.hashes.tolist())) == 4  # it, is, it is, is it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's GOOD :-)", ["it", "'", "s", "good", ":", "-", ")"]),
        ("👍🏽 👨‍👩‍👧🇩🇪", ["👍🏽", "👨‍👩‍👧", "🇩🇪"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("这把椅子 ดีมาก", ["这", "把", "椅", "子", "ดี", "ม", "า", "ก"]),
        ("\u0600 12 ひらがな カタカナ 한국어", ["\u0600", "12", "ひ", "ら", "が", "な", "カタカナ", "한국어"]),
        ("cafe\u0301", ["cafe\u0301"]),
        (" \n", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize("word", ["a", "ab " * 50_000, "这" * 150_000])
def test_texts_of_any_length(word: str) -> None:
    text = spaced(word)
    parts = list(pieces(text))
    assert (len(parts) > 1) == (len(text) > LONGEST_PIECE)
    ngrams = character_ngrams(parts, 3)
    assert ngrams.stops.max() == len(text)
    assert len(np.unique(ngrams.hashes)) < 20
    words = word_ngrams(parts, 2)
    assert len(words.hashes) >= 1
    assert (len(text) > LONGEST_PIECE) == (len(word) > 1)


@given(TEXTS)
@settings(deadline=None)
def test_places_in_the_text(text: str) -> None:
    normal, places = _spaced_with_places(text)
    assert normal == spaced(text)
    assert places == sorted(places)
    for found in TOKEN.finditer(normal):
        original = text[places[found.start()] : places[found.end() - 1] + 1]
        assert original == original.strip() != ""


LANGUAGES = {
    "chinese": ("这把椅子真的垃圾送货很快编号{}", "这顶帐篷真的不错放在厨房里编号{}"),
    "thai": ("สินค้าไม่ดีเลย{}", "สินค้าดีมากชอบ{}"),
    "hindi": ("यह दिन खराब है {}", "यह दिन अच्छा है {}"),
    "emoji": ("the lamp {} 👎", "the lamp {} 👍"),
    "emoticons": ("the lamp {} :(", "the lamp {} :)"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_any_language_is_learnt_and_explained(language: str) -> None:
    bad, good = LANGUAGES[language]
    rows = [(label, text.format(number)) for number in range(40) for label, text in (("bad", bad), ("good", good))]
    classifier = TextClassifier("tfidf").fit(pd.DataFrame(rows, columns=["label", "text"]))
    assert classifier.data is not None
    assert classifier.evaluate(classifier.data.test).accuracy == 1
    explanation = explain_text(classifier, good.format("77"))
    log_odds = np.log(explanation.prediction.probability / (1 - explanation.prediction.probability))
    bias = float(classifier._fitted._model.bias[0])
    assert explanation.exact
    assert sum(word.weight for word in explanation.words) + bias == pytest.approx(log_odds, abs=1e-5)


def test_words_alone() -> None:
    rows = [("a", "good lamp"), ("b", "bad lamp")] * 20
    data = pd.DataFrame(rows, columns=["label", "text"])
    classifier = TextClassifier("tfidf", characters=0, max_ngram=1).fit(data)
    assert classifier.record["terms"] == 3
    assert classifier.predict(["good", "bad"]) == ["a", "b"]


def test_the_number_of_terms_is_bounded() -> None:
    rows = [("ab"[number % 2], f"{'good' if number % 2 else 'bad'} lamp, number {number}") for number in range(100)]
    classifier = TextClassifier("tfidf", max_terms=50).fit(pd.DataFrame(rows, columns=["label", "text"]))
    assert 50 < classifier.record["terms"] <= 100  # 50 of each kind
    assert classifier.predict(["good lamp", "bad lamp"]) == ["b", "a"]


def test_weights_of_terms() -> None:
    having, texts = np.array([[2, 2, 1], [2, 0, 1]]), np.array([2, 2])
    idf = np.log(5 / (1 + np.array([4, 2, 2]))) + 1
    assert term_weights(having, texts, 0.0) == pytest.approx(idf)
    # texts with the term and one more, of the texts of the class and two more
    ratios = np.abs(np.log(np.array([3, 3, 2]) / 4) - np.log(np.array([3, 1, 2]) / 4))
    assert term_weights(having, texts, 1.0) == pytest.approx(idf * (1 + ratios), abs=1e-6)
    assert term_weights(having, texts, 0.5) == pytest.approx(idf * (1 + ratios / 2), abs=1e-6)
    three = term_weights(np.array([[1, 1, 0], [1, 1, 1], [2, 0, 1]]), np.array([1, 1, 2]), 1.0)
    shares = np.log(np.array([[2, 2, 1], [2, 2, 2], [3, 1, 2]]) / np.array([[3], [3], [4]]))
    assert three == pytest.approx(idf * (1 + 2 * shares.std(axis=0)), abs=1e-6)


def test_texts_that_tell_nothing() -> None:
    rows = [("ab"[number % 2], "the same words") for number in range(40)]
    classifier = TextClassifier("tfidf").fit(pd.DataFrame(rows, columns=["label", "text"]))
    assert classifier.predict_proba(["the same words", "", "other"]) == pytest.approx(0.5, abs=1e-3)
