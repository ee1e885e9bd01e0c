"""Every promise of a level, on every level."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SENTENCES, TINY, level_of
from textladder import TextClassifier, TextladderError, read_texts
from textladder.levels import LEVELS, find_level
from textladder.levels.base import make_config

TEXTS = [text for _, text in SENTENCES]
Fit = Callable[[str], Any]
Settings = Callable[[str], dict[str, Any]]


def test_every_level_is_tested() -> None:
    assert list(dict.fromkeys(map(level_of, TINY))) == list(LEVELS)


@pytest.fixture(params=list(TINY))
def level(request: pytest.FixtureRequest) -> str:
    """A key of `TINY`: a level, or one of its variants."""
    return str(request.param)


def test_overfits_sixteen_sentences(level: str, fitted: Fit) -> None:
    assert fitted(level).predict(TEXTS) == [label for label, _ in SENTENCES]


def test_same_seed_same_numbers(level: str, fitted: Fit, sentences_file: Path, tiny_settings: Settings) -> None:
    np.random.default_rng().random()  # the caller's own draws play no part
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    again = TextClassifier(level_of(level), **tiny_settings(level)).fit(data)
    assert np.array_equal(again.predict_proba(TEXTS), fitted(level).predict_proba(TEXTS))


def test_training_leaves_the_callers_random_state(level: str, sentences_file: Path, tiny_settings: Settings) -> None:
    np.random.seed(3)
    expected = np.random.RandomState(3).random()
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    TextClassifier(level_of(level), **tiny_settings(level)).fit(data)
    assert np.random.random() == expected


def test_probabilities_sum_to_one_in_label_order(level: str, fitted: Fit) -> None:
    classifier = fitted(level)
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (16, 2)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert classifier.labels == ("bad", "good")
    one = classifier.predictions(TEXTS[:1])[0]
    assert list(one.probabilities) == ["bad", "good"]
    assert one.label == "good"
    assert one.probability == one.probabilities["good"] == pytest.approx(float(probabilities[0, 1]))


def test_order_batches_and_padding_change_nothing(level: str, fitted: Fit) -> None:
    classifier = fitted(level)
    texts = TEXTS + ["good " * 150, "x", "bad " * 30, "waste"]
    together = classifier.predict_proba(texts)
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    backwards = classifier.predict_proba(texts[::-1])[::-1]
    assert np.abs(together - backwards).max() < 1e-5
    many = classifier.predict_proba(texts * 300)  # several batches, and another way to tokenize
    assert np.abs(many.reshape(300, len(texts), 2) - together).max() < 1e-5


@pytest.mark.parametrize("text", ["", "   \n", "zxqv wvut qqq", "<pad> <unk> <pad>", "\ud83d half", "\x00", "é" * 50])
def test_strange_texts(level: str, fitted: Fit, text: str) -> None:
    probabilities = fitted(level).predict_proba([text, "good"])
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("level", "cores"), [("lstm", 1), ("ulmfit", 2), ("transformer", 2)])
def test_one_text_takes_the_cores_that_make_it_faster(
    level: str, cores: int, fitted: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from textladder.scoring import NetworkScorer

    classifier, compute, seen, chosen = fitted(level), NetworkScorer._logits, [], torch.get_num_threads()
    monkeypatch.setattr(NetworkScorer, "_logits", lambda *of: seen.append(torch.get_num_threads()) or compute(*of))
    torch.set_num_threads(2)
    try:
        classifier.predict_proba(TEXTS[:1])
    finally:
        torch.set_num_threads(chosen)
    assert seen == [cores]


def test_a_very_long_text(level: str, fitted: Fit) -> None:
    assert np.isfinite(fitted(level).predict_proba(["kettle broke " * 100_000])).all()


def test_no_texts_and_wrong_texts(level: str, fitted: Fit) -> None:
    assert fitted(level).predict_proba([]).shape == (0, 2)
    for wrong in (["fine", None], "one string", [3]):
        with pytest.raises(TextladderError, match="Texts must be"):
            fitted(level).predict_proba(wrong)


def test_saved_and_loaded_in_a_fresh_process(level: str, fitted: Fit, tmp_path: Path) -> None:
    classifier = fitted(level)
    bundle = classifier.save(tmp_path / "bundle")
    heavy = {"fastai", "sklearn", "pandas"} | ({"transformers"} if level_of(level) != "transformer" else set())
    script = (
        "import json, sys; from textladder import TextClassifier;"
        "found = TextClassifier.load(sys.argv[1]).predict_proba(json.load(sys.stdin)).tolist();"
        f"assert not {heavy} & set(sys.modules), 'heavy';"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.array(json.loads(done.stdout), np.float32), classifier.predict_proba(TEXTS))
    loaded = TextClassifier.load(bundle)
    assert loaded.config == classifier.config
    assert loaded.record["fit_seconds"] == classifier.record["fit_seconds"]
    assert loaded.text_columns == ("text",)


def test_no_text_of_the_user_is_kept(level: str, fitted: Fit, tmp_path: Path) -> None:
    bundle = fitted(level).save(tmp_path / "bundle")
    for file in bundle.iterdir():
        assert b"fits perfectly, warm" not in file.read_bytes()


def test_three_classes(level: str, tmp_path: Path, tiny_settings: Settings) -> None:
    rows = [
        (word, f"{word} {other} thing") for word in ("red", "green", "blue") for other in ("big", "small", "old", "new")
    ]
    path = tmp_path / "colours.csv"
    path.write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in rows))
    data = read_texts(path, test=path, valid=0)
    classifier = TextClassifier(level_of(level), **tiny_settings(level)).fit(data)
    assert classifier.labels == ("blue", "green", "red")
    assert classifier.predict([text for _, text in rows]) == [label for label, _ in rows]
    loaded = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert np.array_equal(loaded.predict_proba(["red thing"]), classifier.predict_proba(["red thing"]))


def test_class_weights_help_the_rare_class(level: str, tmp_path: Path, tiny_settings: Settings) -> None:
    rng = np.random.default_rng(0)
    rows = [("common", " ".join(rng.choice(["a", "b", "c", "d"], 4))) for _ in range(190)]
    rows += [("rare", " ".join(rng.choice(["a", "b", "c", "d", "e"], 4))) for _ in range(10)]
    path = tmp_path / "rare.csv"
    path.write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in rows))
    data = read_texts(path, test=path, valid=0)
    # few enough not to learn the rows by heart
    few: dict[str, dict[str, Any]] = {
        "tfidf": {},
        "ulmfit": {"epochs": 0, "gradual": False, "frozen_epochs": 5},
        "transformer": {"epochs": 1},
        "transformer/bert": {"epochs": 1},
    }
    settings = tiny_settings(level) | few.get(level, {"epochs": 5})
    shares = [
        TextClassifier(level_of(level), class_weights=weights, **settings).fit(data).predict_proba(["a b c e"])[0, 1]
        for weights in ("none", "balanced")
    ]
    odds = [np.log(share / (1 - share)) for share in shares]
    assert odds[1] > odds[0] + 0.5


def test_which_texts_are_truncated_is_known_beforehand(
    level: str, fitted: Fit, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    level_type = find_level(level_of(level))
    untrained = level_type(make_config(level_type, "default", tiny_settings(level)), 2)
    texts = [*TEXTS, "", "a kettle that broke " * 400]
    counts, limit, classifier = untrained.token_counts(texts), untrained.longest_text, fitted(level)
    assert counts.shape == (18,)
    assert counts[16] <= counts[:16].min()
    assert counts[17] >= 1600
    scored = classifier.score(texts)
    assert scored.truncated == (0 if limit is None else (counts > limit).sum())
    assert np.array_equal(scored.probabilities, classifier.predict_proba(texts))
    assert classifier.score([]).truncated == 0
    monkeypatch.setattr("textladder.classifier.TEXTS_AT_ONCE", 7)
    assert classifier.score(text for text in [*texts, texts[-1]]).truncated == 2 * scored.truncated


def test_what_depends_on_the_rows_can_be_written_out(
    level: str, fitted: Fit, sentences_file: Path, tiny_settings: Settings
) -> None:
    level_type = find_level(level_of(level))
    resolved = level_type(make_config(level_type, "default", tiny_settings(level)), 2).resolved(len(TEXTS))
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    again = TextClassifier(level_of(level), **asdict(resolved)).fit(data)
    assert np.array_equal(again.predict_proba(TEXTS), fitted(level).predict_proba(TEXTS))


def test_a_classifier_that_learned_nothing(level: str) -> None:
    classifier = TextClassifier(level_of(level))
    for call in (
        lambda: classifier.predict(["a"]),
        lambda: classifier.save("nowhere"),
        lambda: classifier.learner,
    ):
        with pytest.raises(TextladderError):
            call()


def test_pieces(level: str, fitted: Fit) -> None:
    assert fitted(level).tokenize("A Good kettle!")[-2:] == ["kettle", "!"]
