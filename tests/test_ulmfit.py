"""The level `ulmfit`: its three stages, what is frozen, what it reads and writes."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SENTENCES
from textladder import TextClassifier, TextData, read_texts
from textladder.bundle import LANGUAGE_MODEL, read_bundle, write_bundle
from textladder.cli import main
from textladder.errors import BundleError, ConfigError, DataError
from textladder.language_models import PretrainedLanguageModel, load_language_model
from textladder.levels.ulmfit import (
    MOST_EPOCHS,
    MOST_EPOCHS_OF_MANY_CLASSES,
    MOST_EPOCHS_OF_TWO_CLASSES,
    STEPS,
    STEPS_OF_TWO_CLASSES,
    STEPS_PER_CLASS,
    UlmfitConfig,
    UlmfitLevel,
    _unknown_share,
)
from textladder.progress import Monitor
from textladder.text.fastai_words import SPECIAL_TOKENS, tokenize_words

TEXTS = [text for _, text in SENTENCES]
Fit = Callable[[str], Any]
Settings = Callable[[str], dict[str, Any]]


@pytest.fixture
def data(sentences_file: Path) -> TextData:
    return read_texts(sentences_file, test=sentences_file, valid=0)


@pytest.fixture
def data_with_valid(tmp_path: Path) -> TextData:
    path = tmp_path / "rows.csv"
    path.write_text("label,text\n" + "".join(f'{label},"{text}"\n' for label, text in SENTENCES * 4))
    return read_texts(path, test=path, valid=0.25)


class Listening(Monitor):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_three_stages_are_shown(data_with_valid: TextData, tiny_settings: Settings) -> None:
    settings = tiny_settings("ulmfit") | {"epochs": 1, "language_epochs": 40, "language_dropout": 0.0}
    settings |= {"frozen_epochs": 1, "gradual": True}
    settings["language_learning_rate"] = 0.05
    listening = Listening()
    classifier = TextClassifier("ulmfit", **settings).fit(data_with_valid, monitor=listening)
    stages = [(entry["stage"], entry["trainable"]) for entry in classifier.history]
    read = [("language model", "all")] * 40 + [("backward model", 2)] * 40
    assert stages == [*read, ("head", "head"), ("1 of 2 layers", 2), ("classifier", "all")]
    assert all(entry["rows"] == 48 for entry in classifier.history)
    record = classifier.record
    assert record["perplexity"] < record["perplexity_before"] / 2
    assert record["backward_perplexity"] < record["backward_perplexity_before"]
    assert sum("Perplexity of the validation texts" in sentence for sentence in listening.sentences) == 2
    assert [entry["valid_accuracy"] is None for entry in classifier.history] == [True] * 80 + [False] * 3


def test_more_texts_are_read(data: TextData, tiny_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("a zebra crossing\na zebra again\n")
    settings = tiny_settings("ulmfit") | {"epochs": 1}
    with_more = TextClassifier("ulmfit", **settings, unlabelled=str(tmp_path / "more.txt")).fit(data)
    without = TextClassifier("ulmfit", **settings).fit(data)
    assert "zebra" in with_more._fitted.vocabulary.tokens
    assert "zebra" not in without._fitted.vocabulary.tokens
    assert with_more.history[0]["rows"] == 18
    with pytest.raises(DataError, match="No such file"):
        TextClassifier("ulmfit", **settings, unlabelled=str(tmp_path / "nowhere.txt")).fit(data)


def test_pretrained_words_that_the_texts_lack_are_kept(fitted: Fit, language_model: Path) -> None:
    tokens = fitted("ulmfit")._fitted.vocabulary.tokens
    assert tokens[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)
    assert set(load_language_model(str(language_model)).words) <= set(tokens)


def test_random_weights_to_compare_with(data: TextData, tiny_settings: Settings) -> None:
    settings = tiny_settings("ulmfit") | {"language_model": "random", "language_epochs": 0}
    classifiers = [TextClassifier("ulmfit", seed=seed, **settings).prepare(data) for seed in (0, 0, 1)]
    level = classifiers[0]._fitted
    assert "kettle" in level.vocabulary.tokens
    assert len(level.vocabulary) < 100  # of the texts alone
    vectors = [one._fitted.network.encoder.embedding.weight for one in classifiers]
    assert vectors[0].equal(vectors[1])
    assert not vectors[0].equal(vectors[2])
    assert vectors[0].detach().unique(dim=0).shape == vectors[0].shape
    assert level.network.encoder.lstms.widths == [256, 512, 512, 256]


@pytest.mark.parametrize("unfrozen", [0, 1])
def test_frozen_layers_stay_as_they_are_and_are_computed_once(
    data: TextData, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch, unfrozen: int
) -> None:
    from textladder.networks.awd_classifier import AWDTop

    computed: list[int] = []
    below = AWDTop.below

    def counting(self: AWDTop, ids: Any) -> Any:
        computed.append(len(ids))
        return below(self, ids)

    monkeypatch.setattr(AWDTop, "below", counting)
    settings = tiny_settings("ulmfit") | {"epochs": 0, "language_epochs": 0, "frozen_epochs": 5}
    classifier = TextClassifier("ulmfit", **settings | {"gradual": bool(unfrozen)})
    classifier.prepare(data)
    before = {name: value.clone() for name, value in classifier._fitted.network.state_dict().items()}
    classifier.fit(data)
    after = classifier._fitted.network.state_dict()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    trained = ["head.", *["encoder.lstms.1.", "encoder.backward_lstms.1."] * unfrozen]
    assert changed == {name for name in after if name.startswith(tuple(trained))}
    assert sum(computed) == 16


def test_no_stage_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot both be 0"):
        TextClassifier("ulmfit", epochs=0, frozen_epochs=0, gradual=False).fit(read_texts("sample"))


def test_epochs_go_by_rows_and_classes() -> None:
    def resolved(rows: int, classes: int, **settings: Any) -> tuple[int | None, int | None]:
        config = UlmfitLevel(UlmfitConfig(**settings), classes).resolved(rows)
        return config.frozen_epochs, config.epochs

    assert resolved(9_000, 2) == (2, 3)
    assert resolved(9_000, 77) == (2, math.ceil(STEPS_PER_CLASS * 77 / math.ceil(9_000 / 32)))
    assert resolved(4_000, 2) == (2, math.ceil(STEPS_OF_TWO_CLASSES / math.ceil(4_000 / 32)))
    assert resolved(5_400, 4) == (2, math.ceil(STEPS / math.ceil(5_400 / 32)))
    assert resolved(90, 2) == (20, MOST_EPOCHS_OF_TWO_CLASSES)
    assert resolved(90, 4) == (20, MOST_EPOCHS)
    assert resolved(616, 77) == (12, MOST_EPOCHS_OF_MANY_CLASSES)
    assert resolved(90, 4, epochs=2, frozen_epochs=0) == (0, 2)


def test_long_texts_are_truncated_and_counted(data: TextData, tiny_settings: Settings) -> None:
    settings = tiny_settings("ulmfit") | {"epochs": 1, "max_tokens": 6}
    listening = Listening()
    classifier = TextClassifier("ulmfit", **settings).fit(data, monitor=listening)
    truncated = [sentence for sentence in listening.sentences if sentence.startswith("Truncated")]
    assert len(truncated) == 1
    assert truncated[0].endswith(" of 16 training texts to 6 tokens.")
    assert classifier.score(["one two three four five", "one two three four five six"]).truncated == 1


def test_predicting_needs_no_fastai(fitted: Fit, tmp_path: Path) -> None:
    fitted("ulmfit").save(tmp_path / "bundle")
    script = (
        "import sys\n"
        "from textladder import TextClassifier\n"
        f"print(TextClassifier.load({str(tmp_path / 'bundle')!r}).predict({TEXTS[:2]!r}))\n"
        "assert not {'fastai', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([label for label, _ in SENTENCES[:2]])


def forged(bundle: Path, target: Path, change: Callable[[Path], None]) -> Path:
    """A bundle whose files were changed and whose digests fit again."""
    manifest = read_bundle(bundle).manifest

    def write(folder: Path) -> None:
        for name in manifest["files"]:
            (folder / name).write_bytes((bundle / name).read_bytes())
        change(folder)

    return write_bundle(target, manifest, write)


def fewer_words(folder: Path) -> None:
    tokens = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(tokens[:-1]))


def other_special_tokens(folder: Path) -> None:
    tokens = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(tokens[1:] + tokens[:1]))


def no_words(folder: Path) -> None:
    (folder / "vocabulary.json").write_text("{}")


def narrower(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["encoder.lstms.1.weight_hh_l0"] = np.ascontiguousarray(weights["encoder.lstms.1.weight_hh_l0"][:, 1:])
    save_file(weights, folder / "model.safetensors")


def no_body(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if name.startswith("head.")}, folder / "model.safetensors"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (fewer_words, "do not fit"),
        (other_special_tokens, "must begin with xxunk and xxpad"),
        (no_words, "not a list of tokens"),
        (narrower, "do not fit"),
        (no_body, "do not fit"),
    ],
)
def test_bundles_that_do_not_fit_together(
    fitted: Fit, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    bundle = fitted("ulmfit").save(tmp_path / "bundle")
    with pytest.raises(BundleError, match=sentence):
        TextClassifier.load(forged(bundle, tmp_path / "forged", change))


def test_the_tutorials_preset(data: TextData, language_model: Path) -> None:
    classifier = TextClassifier("ulmfit", preset="tutorial", language_model=str(language_model)).fit(data)
    assert [entry["stage"] for entry in classifier.history] == ["head"] + ["classifier"] * 5
    assert "perplexity" not in classifier.record


def test_the_command(
    sentences_file: Path, language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(sentences_file), "--test", str(sentences_file), "--level", "ulmfit", "--epochs", "1"]
    command += ["--language-model", str(language_model), "--out", str(tmp_path / "bundle")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "language model" in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if "Saved" not in line)
    assert main([*command, "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["language_model"] == str(language_model)
    assert main([*command[:-3], "compactt", "--out", str(tmp_path / "x")]) == 2
    assert "Did you mean 'compact'" in capsys.readouterr().err


def test_the_bundled_language_model() -> None:
    model = load_language_model("compact")
    folder = Path(sys.modules["textladder"].__file__ or "").parent / "compact"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 24e6
    manifest = read_bundle(folder, LANGUAGE_MODEL).manifest
    assert manifest["corpora"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{manifest['metrics']['perplexity']:.1f}" in card
    assert len(model.words) == len(set(model.words)) > 15_000


def test_few_rows_of_a_class_are_said(tiny_settings: Settings) -> None:
    for rows, few in ((39, True), (40, False)):
        listening = Listening()
        texts, labels = [text for _, text in SENTENCES], [label for label, _ in SENTENCES]
        data = read_texts(((texts * 3)[:rows], (labels * 3)[:rows]), test=(texts, labels), valid=0)
        settings = tiny_settings("ulmfit") | {"epochs": 0, "language_epochs": 0, "frozen_epochs": 1}
        found = TextClassifier("ulmfit", **settings).fit(data, monitor=listening).record["warnings"]
        assert [sentence in listening.sentences for sentence in found] == [True] * few
        assert all(sentence.startswith(f"{rows} training rows for 2 classes are few") for sentence in found)


def test_words_that_the_language_model_does_not_know_are_counted() -> None:
    model = PretrainedLanguageModel([*SPECIAL_TOKENS, "a", "good"], {})
    assert _unknown_share(tokenize_words(["A good good kettle", "kettle"]), model) == pytest.approx(2 / 5)
    assert _unknown_share(tokenize_words([""]), model) == 0


def test_a_language_model_of_another_language(
    tmp_path: Path, language_model: Path, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(first: str, second: str) -> TextData:
        return read_texts(([first, second] * 8, ["a", "b"] * 8), test=([first, second], ["a", "b"]), valid=0)

    def unsuitable(data: TextData, **settings: Any) -> str:
        return str(UlmfitLevel(UlmfitConfig(**settings), classes=2).unsuitable(data.train))

    english, chinese = rows("this is a good kettle", "it broke on the second day"), rows("味道很好", "味道很差")
    more = tmp_path / "more.txt"
    more.write_text("这道菜的味道真的很好，下次还会再来\n" * 4)
    assert unsuitable(english) == unsuitable(chinese, language_model="random") == "None"
    assert "compact does not know 100% of the words of these texts, and 80 tokens are few" in unsuitable(chinese)
    assert "and 165 tokens are few" in unsuitable(chinese, unlabelled=str(more))  # 17 characters four times more
    assert unsuitable(chinese, language_model="compact").startswith("The language model compact does not know 100%")
    monkeypatch.setattr("textladder.levels.ulmfit.ENOUGH_TOKENS", 80)
    assert unsuitable(chinese) == "None"
    assert unsuitable(chinese, language_model="compact") != "None"  # not the level's own choice
    assert unsuitable(chinese, language_epochs=0) != "None"  # nothing would be trained on the texts

    settings = tiny_settings("ulmfit") | {"language_model": None, "language_epochs": None, "max_tokens": 20}
    listening = Listening()
    classifier = TextClassifier("ulmfit", **settings).fit(chinese, monitor=listening)
    sentence = "The language model compact does not know 100% of the words of these texts, so one is trained on them"
    assert [one.startswith(sentence) and one in listening.sentences for one in classifier.record["warnings"][:1]]
    assert classifier.record["language_model"] == classifier.config.language_model == "random"
    assert classifier.record["unknown_words"] == 1
    assert "Language model: random weights, 14 words." in listening.sentences
    assert len([entry for entry in classifier.history if entry["stage"] == "language model"]) == 8
    assert classifier.tokenize("味道") == ["xxbos", "味", "道"]
    loaded = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert np.array_equal(loaded.predict_proba(["味道很好"]), classifier.predict_proba(["味道很好"]))
    named = TextClassifier("ulmfit", **settings | {"language_model": str(language_model)}).fit(chinese)
    assert named.config.language_model == str(language_model)
    assert "does not know 100% of the words of these texts: name one" in named.record["warnings"][0]
