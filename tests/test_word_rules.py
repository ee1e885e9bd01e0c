"""A spaCy tokenizer's rules in plain Python, against spaCy itself; what is not a set of rules is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textladder.errors import BundleError
from textladder.text.fastai_words import _chunks, spacy_rules, spacy_tokenizer
from textladder.text.word_rules import WordRules

PIECES = (
    ":-)", ":)", "(", ")", "can't", "cannot", "gonna", "'s", "'", '"', "...", "…", "-", "--", "—", "a", "b", "U.S.",
    "e.g.", "10", "km", "$", "%", ",", ".", "!", "?", "<", ">", "/", "@", "#", "http://a.b", "x@y.z", "é", "漢", "😀",
    "8am", "o'clock", "xxmaj", "C++", "*", "&", "_", "^", "=", "ma'am", "y'all", "\\", "’", "n’t", "I", "'em", "d.",
    "^_^", "(*_*)",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return spacy_tokenizer()


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
def test_any_piece_is_split_as_by_spacy(tokenizer: Any, piece: str) -> None:
    if not any(letter.isspace() for letter in piece):
        assert spacy_rules().split(piece) == [token.text for token in tokenizer(piece)]


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), max_size=12))
def test_any_letters_are_split_as_by_spacy(tokenizer: Any, piece: str) -> None:
    assert spacy_rules().split(piece) == [token.text for token in tokenizer(piece)]


@pytest.mark.parametrize("white", ["\n", "\n\n", "\t", "\n \n", "\r\n"])
def test_white_space_alone(tokenizer: Any, white: str) -> None:
    assert spacy_rules().split(white) == [token.text for token in tokenizer(white)]


def test_every_special_case(tokenizer: Any) -> None:
    rules = spacy_rules()
    for piece in rules.special_cases:
        if not any(map(str.isspace, piece)):
            for around in (piece, f"({piece}", f"{piece},", f"a{piece}", f"{piece}{piece}", f"x-{piece}!"):
                assert rules.split(around) == [token.text for token in tokenizer(around)], around


@pytest.mark.realdata
def test_real_pieces(shared: Path, tokenizer: Any) -> None:
    pieces = set()
    with gzip.open(shared / "imdb" / "unlabelled.txt.gz", "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            if number % 50 == 0:
                pieces.update(_chunks(line))
    rules = WordRules.from_json(json.loads(json.dumps(spacy_rules().as_json())))
    for piece in pieces:
        assert rules.split(piece) == [token.text for token in tokenizer(piece)]


GOOD = {"patterns": dict.fromkeys(("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")), "special_cases": {}}  # fmt: skip  # noqa: E501


def test_rules_without_patterns() -> None:
    assert WordRules.from_json(GOOD).split("a-b!") == ["a-b!"]


@pytest.mark.parametrize(
    "kept",
    [
        None,
        [],
        {},
        {"patterns": {}, "special_cases": {}},
        {**GOOD, "patterns": {**GOOD["patterns"], "url_match": "("}},  # type: ignore[dict-item]
        {**GOOD, "patterns": {**GOOD["patterns"], "url_match": 3.5}},  # type: ignore[dict-item]
        {**GOOD, "special_cases": {"can't": ["can", "not"]}},
        {**GOOD, "special_cases": {"a": [3]}},
        {**GOOD, "special_cases": {"": [""]}},
        {**GOOD, "special_cases": ["a"]},
    ],
)
def test_invalid_rules_are_refused(kept: Any) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        WordRules.from_json(kept)
