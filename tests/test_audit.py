"""What an audit finds, against problems that were planted."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textladder import TextladderError, audit_texts, near_duplicates, read_texts
from textladder.audit import Audit, TokenCounts, drop_leaks
from textladder.cli import main
from textladder.data.labelled_texts import TextData
from textladder.errors import DataError
from textladder.near_duplicates import TextIndex
from textladder.progress import Monitor
from textladder.text.plain_words import word_hashes, words_of

WORDS = [a + b for a in ("ba", "co", "di", "fu", "ge", "ha", "ki", "lo") for b in ("ran", "sel", "tim", "vor", "wug")]


def sentences(rows: int, seed: int, words: int = 25) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)).capitalize() + "." for _ in range(rows)]


def shouted(text: str) -> str:
    """The same words with another case and other punctuation."""
    return "  " + text.upper().replace(" ", ", ", 3) + " !!"


def frame(texts: list[str], seed: int = 0) -> pd.DataFrame:
    labels = np.random.default_rng(seed).choice(["bad", "good"], len(texts))
    return pd.DataFrame({"label": labels, "text": texts})


def audited(train: pd.DataFrame, test: pd.DataFrame, **options: Any) -> tuple[TextData, Audit]:
    data = read_texts(train, test=test)
    return data, audit_texts(data, levels=options.pop("levels", ["tfidf"]), **options)


def test_a_planted_leak_is_found_and_dropped() -> None:
    test = frame(sentences(200, 1), 1)
    copied = [text if index % 2 else shouted(text) for index, text in enumerate(test["text"][:40])]
    train = frame(sentences(600, 2) + copied, 2)
    data, found = audited(train, test)
    rows = {row: (test_row, similarity) for row, test_row, similarity in found.leaks}
    assert rows == {600 + row: (row, 1.0) for row in range(40)}
    assert found.leaking_test_rows == 40
    assert found.findings()[0] == (
        "40 training or validation rows leak into the test rows: the same text is in both. 40 of 200 test rows may "
        "have been memorised; --fix drop-leaks (in Python fix='drop-leaks') removes the training or validation rows."
    )
    kept = drop_leaks(data, found)
    assert kept.valid is not None
    assert data.valid is not None
    assert len(kept.train) + len(kept.valid) == len(data.train) + len(data.valid) - 40
    assert not audit_texts(kept, levels=["tfidf"]).leaks
    assert kept.test is data.test


def test_repeated_test_rows_that_leak_are_all_counted() -> None:
    test = frame([sentences(1, 1)[0]] * 10 + sentences(10, 2), 1)
    data, found = audited(frame(sentences(100, 3) + [shouted(test["text"][0])], 2), test)
    assert len(found.leaks) == 1
    assert found.leaking_test_rows == 10
    with pytest.raises(DataError, match="no row of class 'bad' is left"):
        drop_leaks(*audited(test, test))
    everything = audit_texts(data, levels=["tfidf"], settings={"tfidf": {"preset": "default"}})
    assert everything.leaks == found.leaks


def test_nearly_the_same_text_is_found_and_a_similar_one_is_not() -> None:
    test = frame(sentences(50, 1, words=60), 1)
    near = [text.replace(text.split()[20], "changed", 1) for text in test["text"][:10]]
    apart = [" ".join(reversed(text.split())) for text in test["text"][10:30]]  # the same words in another order
    _, found = audited(frame(sentences(300, 2) + near + apart, 2), test)
    assert [(row, test_row) for row, test_row, _ in found.leaks] == [(300 + row, row) for row in range(10)]
    assert all(0.8 <= similarity < 1 for *_, similarity in found.leaks)
    assert "(10 of them with a few words changed)" in found.findings()[0]


def test_contradictions_duplicates_and_empty_texts() -> None:
    texts = sentences(300, 3)
    train = frame(texts, 3)
    opposite = train.iloc[:20].assign(label=lambda rows: rows["label"].map({"bad": "good", "good": "bad"}))
    same = train.iloc[20:25]
    blank = pd.DataFrame({"label": ["bad", "good"], "text": ["", "..."]})
    data, found = audited(pd.concat([train, opposite, same, blank], ignore_index=True), frame(sentences(50, 4), 4))
    assert sorted(sorted(row for _, row in group) for group in found.contradictions) == [
        [row, 300 + row] for row in range(20)
    ]
    assert found.duplicates == {"exact": 25, "same_words": 0, "near": 0}
    assert found.test_duplicates == {"exact": 0, "same_words": 0, "near": 0}
    assert sorted(row for _, row in found.empty) == [325, 326]
    words = " ".join(found.findings())
    assert "20 texts have more than one label (40 rows)" in words
    assert "2 texts contain no words" in words
    assert "25 of 327 training or validation rows repeat another one: 25 exactly" in words
    assert sum(found.classes.values()) == len(data.train) + len(data.test) + (len(data.valid) if data.valid else 0)


def test_a_template_of_many_rows_stays_fast() -> None:
    texts = [f"{sentences(1, 5, words=40)[0]} number {n}" for n in range(3000)]
    _, found = audited(frame(texts, 5), frame(sentences(20, 6), 6))
    assert found.duplicates["near"] == 2999


def test_findings_count_with_grammar() -> None:
    test = frame(sentences(50, 1), 1)
    train = frame(sentences(300, 2) + [shouted(test["text"][0])], 2)
    _, found = audited(train, test)
    assert found.findings()[0].startswith("1 training or validation row leaks into the test rows")
    train = frame(sentences(300, 2), 2)
    blank = pd.DataFrame({"label": ["bad"], "text": ["..."]})
    _, found = audited(pd.concat([train, train.iloc[:1], blank], ignore_index=True), test)
    words = " ".join(found.findings())
    assert "1 of 302 training or validation rows repeats another one: 1 exactly" in words
    assert "1 text contains no words." in words


def test_balance_and_identifiers() -> None:
    texts = sentences(1000, 7)
    rare = pd.DataFrame({"label": ["common"] * 970 + ["rare"] * 30, "text": texts})
    _, found = audited(rare, rare.iloc[960:990])
    assert any(one.startswith("The classes are imbalanced: 4.9% of the rows are 'rare'") for one in found.findings())
    numbers = pd.DataFrame({"label": [f"c{n // 3}" for n in range(300)], "text": texts[:300]})
    _, found = audited(numbers, numbers.iloc[:30])
    assert found.looks_like_ids
    assert any("looks like an identifier" in one for one in found.findings())


def test_what_levels_would_truncate() -> None:
    train = frame([*sentences(100, 8), "one two " * 250, "one two " * 350], 8)
    settings = {"transformer": {"encoder": "nowhere/at-all", "max_tokens": 16}}
    _, found = audited(
        train, frame(sentences(20, 9), 9), levels=["tfidf", "lstm", "ulmfit", "transformer"], settings=settings
    )
    tfidf, lstm, ulmfit, transformer = found.tokens
    assert tfidf == TokenCounts("tfidf", 26.0, 700, None, 0, 122)
    assert (lstm.longest, lstm.limit, lstm.truncated) == (700, 400, 2)
    assert (ulmfit.limit, ulmfit.truncated) == (600, 1)
    assert transformer.unknown == "The tokenizer of 'nowhere/at-all' is not on this machine yet."
    assert any(
        one.startswith("lstm would truncate 2 of 122 texts, those longer than 400 tokens") for one in found.findings()
    )


def test_tokens_of_a_local_encoder_are_counted(encoders: Any) -> None:
    settings = {"transformer": {"encoder": str(encoders("bert")), "max_tokens": 5}}
    _, found = audited(frame(sentences(20, 1)), frame(sentences(9, 2)), levels=["transformer"], settings=settings)
    assert found.tokens[0].truncated == 29
    assert found.tokens[0].unknown is None


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test, train, out = tmp_path / "test.csv", tmp_path / "train.csv", tmp_path / "out.csv"
    rows = frame(sentences(100, 10), 10)
    rows.to_csv(test, index=False)
    mixed = pd.concat([frame(sentences(50, 11), 11), rows.iloc[:10], frame(sentences(50, 12), 12)], ignore_index=True)
    mixed.insert(1, "id", range(110))
    mixed.to_csv(train, index=False)
    assert main(["audit", str(train), "--test", str(test), "--levels", "tfidf", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["row"] for one in found["leaks"]] == list(range(50, 60))
    assert found["leaking_test_rows"] == 10
    assert found["findings"]
    flags = ["--test", str(test), "--levels", "tfidf", "--fix", "drop-leaks", "--output", str(out)]
    assert main(["audit", str(train), *flags]) == 0
    printed = capsys.readouterr().out
    assert "100 rows without leaks written" in printed
    assert max(map(len, printed.splitlines())) <= 80 + len(str(out))
    with out.open(newline="") as stream:
        left = list(csv.reader(stream))
    assert left[0] == ["label", "id", "text"]
    assert [int(row[1]) for row in left[1:]] == [*range(50), *range(60, 110)]
    for words, message in (
        (["audit", str(train), *flags], "exists; pass --overwrite to replace it"),
        (["audit", str(train), "--fix", "drop-leaks"], "needs --output FILE and --test FILE"),
        (["audit", str(train), "--fix", "everything"], "Unknown fix 'everything'"),
        (["audit", str(train), "--levels", "lsmt"], "Did you mean 'lstm'?"),
        (["audit", str(train), "--levels", "tfidf", "--encoder", "x"], "--encoder is a setting of transformer"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_rows_without_a_label_are_kept_by_the_fix(tmp_path: Path) -> None:
    rows = frame(sentences(40, 13), 13)
    rows.to_json(tmp_path / "test.jsonl", orient="records", lines=True)
    train = pd.concat([frame(sentences(20, 14), 14), rows.iloc[:5]], ignore_index=True)
    train.loc[3, "label"] = None
    train.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    out = tmp_path / "out.jsonl"
    flags = ["--test", str(tmp_path / "test.jsonl"), "--levels", "tfidf", "--drop-missing"]
    words = ["audit", str(tmp_path / "train.jsonl"), *flags, "--fix", "drop-leaks", "--output", str(out)]
    assert main(words) == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == train["text"].tolist()[:20]


@pytest.mark.realdata
def test_planted_leaks_and_contradictions_among_amazon_rows(shared: Path) -> None:
    names = ["label", "title", "text"]
    train = pd.read_csv(shared / "amazon_polarity/train.csv", header=None, names=names, keep_default_na=False)
    test = pd.read_csv(shared / "amazon_polarity/test.csv", header=None, names=names, keep_default_na=False)
    clean = audit_texts(read_texts(train, test=test), levels=["tfidf"])
    assert len(clean.leaks) <= 0.01 * len(train)
    repeated = clean.duplicates["near"] + clean.duplicates["same_words"]
    assert repeated <= 0.01 * len(train)
    leaked = test.sample(100, random_state=0)
    leaked.iloc[:50, 2] = [shouted(text) for text in leaked["text"][:50]]
    leaked.iloc[:50, 1] = leaked["title"][:50].str.upper()
    opposite = train.sample(40, random_state=1).assign(label=lambda rows: 3 - rows["label"])
    planted = pd.concat([train, leaked, opposite], ignore_index=True)
    found = audit_texts(read_texts(planted, test=test), levels=["tfidf"])
    ours = {row for row, *_ in found.leaks}
    assert len(ours & set(range(len(train), len(train) + 100))) >= 95
    assert len(ours - set(range(len(train), len(train) + 100))) <= 0.01 * len(train)
    rows = {row for group in found.contradictions for _, row in group}
    assert len(rows & set(range(len(train) + 100, len(planted)))) >= 38


def test_a_level_without_its_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import textladder.text.fastai_words as fastai_words

    def missing() -> None:
        raise TextladderError("This needs spacy.")

    monkeypatch.setattr(fastai_words, "spacy_rules", missing)
    _, found = audited(frame(sentences(20, 1)), frame(sentences(9, 2)), levels=["ulmfit"])
    assert found.tokens[0].unknown == "This needs spacy."
    assert any("ulmfit: truncation could not be checked. This needs spacy." in one for one in found.findings())


WORD = st.sampled_from(["a", "B", "straße", "मन", "没", "😀", ":-)", "it's", "...", "(8", "<3", "🇩🇪", "8)", "x" * 40])


@given(st.lists(st.lists(WORD, max_size=12).map(" ".join), min_size=1, max_size=6))
def test_hashes_of_words_are_equal_where_words_are(texts: list[str]) -> None:
    hashes, ends = word_hashes(texts)
    words = [word for text in texts for word in words_of(text)]
    assert ends.tolist() == np.cumsum([0, *(len(words_of(text)) for text in texts)]).tolist()
    assert len(set(zip(words, hashes.tolist(), strict=True))) == len(set(words)) == len(set(hashes.tolist()))


def test_words_of_an_endless_text() -> None:
    text = " ".join(f"Word{number}!" for number in range(20_000))
    assert words_of(text) == [f"word{number}" for number in range(20_000)]
    hashes, ends = word_hashes(["Word7", text, ""])
    assert ends.tolist() == [0, 1, 20_001, 20_001]
    assert hashes[0] == hashes[8]


def test_texts_that_share_a_band_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_band_keys", lambda _, sizes: np.zeros((12, len(sizes)), np.uint32))
    monkeypatch.setattr(near_duplicates, "COMPARED_AT_ONCE", 100)
    long = sentences(4, 1, words=60)
    changed = [text.replace(text.split()[20], "changed", 1) for text in long]
    test, train = frame([long[0], long[1], changed[1]]), frame([changed[0], long[2], changed[2], long[3], changed[0]])
    data = read_texts(train, test=test, valid=0)
    index = TextIndex({"train": data.train, "test": data.test}, Monitor())
    near = index.near_pairs()
    # with the first text, and with the one before where that is another text; test rows come first
    assert list(zip(near.ones.tolist(), near.others.tolist(), strict=True)) == [(0, 3), (1, 2), (4, 5)]
    triples = [
        set(zip(*(words_of(text)[start:] for start in range(3)), strict=False)) for text in (long[0], changed[0])
    ]
    assert near.similarities[0] == len(triples[0] & triples[1]) / len(triples[0] | triples[1])
    assert index.groups().tolist() == [0, 1, 1, 0, 2, 2, 3, 0]
    assert index.leaks(near) == ([(0, 0, near.similarities[0]), (4, 0, near.similarities[0])], 1)
    assert index.count_duplicates(["train"], near) == {"exact": 1, "same_words": 0, "near": 1}
    assert index.count_duplicates(["test"], near) == {"exact": 0, "same_words": 0, "near": 1}


def test_the_first_training_text_of_a_band_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_band_keys", lambda _, sizes: np.zeros((12, len(sizes)), np.uint32))
    tested, trained, between, other = sentences(4, 1, words=60)
    changed = trained.replace(trained.split()[20], "changed", 1)
    train = pd.DataFrame({"label": ["bad", "good"] * 2, "text": [trained, between, changed, other]})
    data = read_texts(train, test=frame([tested]), valid=0)
    near = TextIndex({"train": data.train, "test": data.test}, Monitor()).near_pairs()
    assert list(zip(near.ones.tolist(), near.others.tolist(), strict=True)) == [(1, 3)]


def test_a_leak_names_the_nearest_test_row() -> None:
    train = pd.DataFrame({"label": ["bad", "good"] * 2, "text": sentences(4, 1)})
    data = read_texts(train, test=frame(sentences(3, 2)), valid=0)
    index = TextIndex({"train": data.train, "test": data.test}, Monitor())
    ones, others = np.array([0, 1, 1, 2]), np.array([4, 4, 5, 5])
    near = near_duplicates.NearPairs(ones, others, np.array([0.85, 0.95, 0.9, 0.9]))
    assert index.leaks(near) == ([(1, 1, 0.95), (2, 1, 0.9)], 1)


def test_an_emoticon_stands_alone() -> None:
    assert words_of("lamp:) (x) :) a8)") == ["lamp", "x", ":)", "a8"]


def test_most_texts_that_are_nearly_the_same_are_found() -> None:
    rng = random.Random(0)
    texts = sentences(300, 1, words=80)
    for text in texts[:300]:
        words = text.split()
        for place in rng.sample(range(80), 2):
            words[place] = "changed"
        texts.append(" ".join(words))
    data = read_texts(frame(texts), test=frame(sentences(10, 2)), valid=0)
    near = TextIndex({"train": data.train, "test": data.test}, Monitor()).near_pairs()
    found = set(zip(near.ones.tolist(), near.others.tolist(), strict=True))
    assert found <= {(10 + row, 310 + row) for row in range(300)}
    assert len(found) >= 290
