"""fastai's words against fastai's own rules and tokenizer, one text at a time and many at once."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textladder.errors import BundleError
from textladder.text.fastai_words import (
    SPECIAL_TOKENS,
    _Processes,
    _Splitter,
    fastai_words,
    spacy_rules,
    spacy_tokenizer,
    tokenize_words,
)
from textladder.text.tokenizer import combine, in_batches
from textladder.text.word_rules import WordRules

STRANGE = (
    "a a a b b b",
    "HELLO HELLO HELLO!",
    "  A B  C ",
    "cool!!!! …. ... x",
    "\n\nHi\n \nyou \n",
    "I can't... don't DON'T (:-) :) :( ;) e.g. i.e. U.S.A. 8am 5km 10:30pm",
    "na na na na, batman",
    "http://x.com/a?b=c#d foo@bar.com",
    "naïve CAFÉ É Éa ÀB",
    "the the the",
    "xxbos xxpad xxunk XXBOS",
    "tab\tx\xa0y\u3000z",
    "a  \n  b",
    "İstanbul ΣΑΣ Σ",
    "'em 'tis cause y'all",
    "$5 £3 50% C++ C# #1 a/b <unk> &amp; &lt;b&gt; <br />x",
    "\r\n x \r y",
    "lol lol lol\nlol lol",
    "x" * 500,
    "",
    " ",
)


@pytest.fixture(scope="module")
def fastai_tokens() -> Callable[[list[str]], list[list[str]]]:
    """fastai's own tokens, from its default rules and spaCy."""
    from fastai.text.core import SpacyTokenizer, TokenizeWithRules

    tokenizer: Any = TokenizeWithRules(SpacyTokenizer("en"))
    return lambda texts: [list(tokens) for tokens in tokenizer(texts)]


def test_special_tokens_are_fastais() -> None:
    from fastai.text.core import defaults

    assert list(SPECIAL_TOKENS) == defaults.text_spec_tok


def test_strange_texts_are_split_as_by_fastai(fastai_tokens: Callable[[list[str]], list[list[str]]]) -> None:
    assert [fastai_words(text) for text in STRANGE] == fastai_tokens(list(STRANGE))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["Good", "BAD", "I", "can't", "...", "!!!!", "\n", " ", "a/b", "xxmaj", ":-)", "é", "U.S.", "10%", "the", "\t", "'s", "https://a.b/c"]), max_size=12), st.sampled_from(["", " "]))  # fmt: skip  # noqa: E501
def test_any_text_is_split_as_by_fastai(
    fastai_tokens: Callable[[list[str]], list[list[str]]], pieces: list[str], between: str
) -> None:
    text = between.join(pieces)
    assert [fastai_words(text)] == fastai_tokens([text])


@pytest.mark.slow
@pytest.mark.realdata
def test_real_texts_are_split_as_by_fastai(shared: Path, fastai_tokens: Callable[[list[str]], list[list[str]]]) -> None:
    with gzip.open(shared / "imdb" / "unlabelled.txt.gz", "rt", encoding="utf-8") as stream:
        texts = [line for number, line in enumerate(stream) if number % 97 == 0]
    lines = (shared / "wikitext-2").glob("*valid*")
    texts += next(iter(lines)).read_text(encoding="utf-8").splitlines()[::7]
    expected = fastai_tokens(texts)
    assert [fastai_words(text) for text in texts] == expected
    many = tokenize_words(texts)
    for number, tokens in enumerate(expected):
        ids = many.ids[many.offsets[number] : many.offsets[number + 1]]
        assert [many.tokens[i] for i in ids] == tokens


def test_many_at_once_are_the_same() -> None:
    many = tokenize_words(STRANGE)
    for number, text in enumerate(STRANGE):
        ids = many.ids[many.offsets[number] : many.offsets[number + 1]]
        assert [many.tokens[i] for i in ids] == fastai_words(text)
    assert len(set(many.tokens)) == len(many.tokens)


def test_several_processes_are_the_same_as_one() -> None:
    texts = [f"{text} {number % 7}" for number, text in enumerate(STRANGE * 210)]
    one = combine(map(_Splitter(spacy_rules()), in_batches(texts, 512)))
    several = tokenize_words(texts)  # enough of them for several processes
    assert one.tokens == several.tokens
    assert np.array_equal(one.ids, several.ids)
    assert np.array_equal(one.offsets, several.offsets)


def test_a_process_that_exits_is_an_error() -> None:
    with _Processes(1, spacy_rules()) as processes:
        processes.all[0].kill()
        processes.all[0].wait()
        with pytest.raises(RuntimeError, match="exited unexpectedly"):
            processes.split(["a text"])


def test_nothing_is_imported_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the working folder was imported from')\n")
    monkeypatch.chdir(tmp_path)
    with _Processes(1, spacy_rules()) as processes:
        assert processes.split(["a text"])[0] == ["xxbos", "a", "text"]


@pytest.mark.parametrize("executable", [sys.executable, "", shutil.which("false")])
def test_the_rules_are_the_same_in_every_process(executable: str) -> None:
    """Where neither spaCy nor torch is imported, neither gets imported, unless no other process can be started."""
    script = (
        "import json, sys\n"
        "from textladder.text.fastai_words import spacy_rules\n"
        f"sys.executable = {executable!r}\n"
        "rules = spacy_rules().as_json()\n"
        f"assert ('spacy' in sys.modules) == ('torch' in sys.modules) == {executable != sys.executable}\n"
        "print(json.dumps(rules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rules = WordRules.from_spacy(spacy_tokenizer(), unspaced=True).as_json()
    assert json.loads(done.stdout) == rules
    assert list(json.loads(done.stdout)["special_cases"]) == list(rules["special_cases"])


def test_scripts_that_do_not_separate_their_words() -> None:
    assert fastai_words("味道很好, Very快！") == ["xxbos", "味", "道", "很", "好", ",", "xxmaj", "very", "快", "！"]
    assert fastai_words("ดีมาก") == ["xxbos", "ดี", "ม", "า", "ก"]
    assert fastai_words("한국어 слова") == ["xxbos", "한국어", "слова"]
    rules = spacy_rules().as_json()
    earlier = {name: rules[name] for name in ("patterns", "special_cases")}  # as in bundles of earlier versions
    assert fastai_words("味道 ok", WordRules.from_json(earlier)) == ["xxbos", "味道", "ok"]
    with pytest.raises(BundleError, match="neither true nor false"):
        WordRules.from_json({**rules, "unspaced": 1})


def test_joined_and_taken() -> None:
    first, second = tokenize_words(["a b", "c"]), tokenize_words(["b d"])
    both = first.joined(second)
    words = [
        [both.tokens[i] for i in both.ids[start:stop]]
        for start, stop in zip(both.offsets, both.offsets[1:], strict=False)
    ]
    assert words == [["xxbos", "a", "b"], ["xxbos", "c"], ["xxbos", "b", "d"]]
    assert [both.tokens[i] for i in both.take([2]).ids] == ["xxbos", "b", "d"]
