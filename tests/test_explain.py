"""Explanations: by occlusion, by coefficients where the level is linear, and as they are shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import TINY
from textladder import TextClassifier, explain_text, read_texts
from textladder.cli import main
from textladder.errors import ConfigError, DataError
from textladder.explain import WORD, without
from textladder.text.ngrams import spaced

TEXT = "The zip TORE at once, a waste; I can't recommend it!!"


def log_odds(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


@pytest.mark.parametrize("case", [case for case in TINY if case != "tfidf"])
def test_a_word_is_worth_what_its_absence_costs(case: str, fitted: Callable[[str], Any]) -> None:
    classifier = fitted(case)
    found = explain_text(classifier, TEXT)
    assert not found.exact
    assert found.prediction == classifier.predictions([TEXT])[0]
    words = [TEXT[word.start : word.stop] for word in found.words]
    assert words == ["The", "zip", "TORE", "at", "once", "a", "waste", "I", "can't", "recommend", "it", "!!"]
    for word in found.words[::3]:
        left = classifier.predictions([without(TEXT, [(word.start, word.stop)])])[0]
        cost = log_odds(found.prediction.probability) - log_odds(left.probabilities[found.prediction.label])
        assert word.weight == pytest.approx(cost, abs=1e-3)
    assert found.strongest(2) == sorted(found.words, key=lambda word: -word.weight)[:2]


@pytest.mark.parametrize("text", [TEXT, "", "İt is a WASTE, İstanbul: a waste of money"])
def test_two_labels_of_tfidf_sum_up_to_the_log_odds(text: str, fitted: Callable[[str], Any]) -> None:
    classifier = fitted("tfidf")
    found = explain_text(classifier, text)
    bias = float(classifier._fitted._model.bias[0]) * (1 if found.prediction.label == classifier.labels[1] else -1)
    total = bias + sum(word.weight for word in found.words)
    assert total == pytest.approx(log_odds(found.prediction.probability), abs=1e-4)


def test_a_telling_word_of_tfidf_is_named(fitted: Callable[[str], Any]) -> None:
    found = explain_text(fitted("tfidf"), TEXT)
    assert found.exact
    waste = next(word for word in found.words if TEXT[word.start : word.stop] == "waste")
    assert found.prediction.label == "bad"
    assert waste in found.strongest(4)


def test_many_labels_of_tfidf_are_held_against_the_mean_of_the_others() -> None:
    rows = pd.DataFrame({"label": list("abc") * 8, "text": ["red rose red", "blue sea", "green leaf"] * 8})
    classifier = TextClassifier("tfidf").fit(read_texts(rows, valid=0))
    found = explain_text(classifier, "a red leaf, red")
    level = classifier._fitted
    counts = level._count(1, spaced(found.text))
    (logits,) = level._model.logits(counts.ends, counts.terms, level._values(counts, level._term_weights))
    scores, label = logits - level._model.bias, classifier.labels.index(found.prediction.label)
    total = scores[label] - np.delete(scores, label).mean()
    assert sum(word.weight for word in found.words) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("text", ["", "   ", "...", "日本語の文", "İstanbul naïve", "half \ud800 pair", "<b>bold</b>"])
@pytest.mark.parametrize("case", ["tfidf", "lstm"])
def test_any_text(case: str, text: str, fitted: Callable[[str], Any], tmp_path: Path) -> None:
    found = explain_text(fitted(case), text)
    assert all(0 <= word.start < word.stop <= len(text) for word in found.words)
    assert [word.start for word in found.words] == sorted(word.start for word in found.words)
    json.dumps(found.as_dict(), ensure_ascii=False).encode()
    page = found.write_page(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>" not in page


def test_what_is_a_word() -> None:
    assert WORD.findall("It's well-made: 4 stars!!! 漢字 :-) … don’t 😀") == [
        "It's", "well-made", "4", "stars", "!!!", "漢", "字", "…", "don’t", "😀",
    ]  # fmt: skip


def test_a_space_goes_with_a_word_only_where_two_would_meet() -> None:
    assert without("a b c", [(0, 1), (4, 5)]) == "b "
    assert without("is (not) bad", [(4, 7)]) == "is () bad"
    assert without("is (not bad)", [(4, 7)]) == "is ( bad)"  # "(bad)" would join what was apart
    assert without("so-so, not bad", [(0, 5)]) == ", not bad"
    assert without("well-made\nkettle", [(0, 9)]) == "kettle"
    assert without('"good" kettle', [(1, 5)]) == '"" kettle'


def test_the_command(fitted: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, page = fitted("lstm").save(tmp_path / "bundle"), tmp_path / "page.html"
    words = ["explain", str(bundle), f"{TEXT} <script>"]
    assert main([*words, "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "for it:" in printed
    assert "&lt;</span>" in page.read_text()
    assert main([*words, "--html", str(page)]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"text", "label", "name", "probability", "probabilities", "exact", "words"}
    assert printed["words"][0] == {"word": "The", "start": 0, "stop": 3, "weight": printed["words"][0]["weight"]}
    with pytest.raises(DataError, match="Texts must be strings"):
        explain_text(fitted("lstm"), 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="could not be written"):
        explain_text(fitted("lstm"), TEXT).write_page(tmp_path / "nowhere" / "page.html")
