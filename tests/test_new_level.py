"""A new level is one file and one row in `LEVELS`: commands, Python and site know it from there."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from textladder import TextClassifier, read_texts
from textladder.bundle import Bundle
from textladder.cli import main
from textladder.data.labelled_texts import LabelledTexts
from textladder.levels import LEVELS
from textladder.levels.base import FitReport, Preset, Scored
from textladder.settings import setting


@dataclass(frozen=True)
class ToyConfig:
    weight: float = setting(2.0, "how much one word counts", low=0.5, high=8)
    encoder: str = setting("toy", "a name that nothing reads", shared=True)
    toy_words: int = setting(3, "words read of a text", low=1, shared=True)


class ToyLevel:
    """The class whose words a text has more of."""

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "words seen in one class only"
    libraries: ClassVar[tuple[str, ...]] = ()
    config_type: ClassVar[type] = ToyConfig
    network_files: ClassVar[tuple[str, ...]] = ()
    network_inputs: ClassVar[tuple[str, ...]] = ()
    batch_cores: ClassVar[int | None] = 1
    presets: ClassVar[Mapping[str, Preset]] = {"default": Preset("as it is"), "loud": Preset("louder", {"weight": 8.0})}

    longest_text: int | None = None

    def __init__(self, config: ToyConfig, classes: int) -> None:
        self.config, self.classes = config, classes
        self.words: list[list[str]] = [[] for _ in range(classes)]

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(self.tokenize(text)) for text in texts], np.int64)

    def unsuitable(self, train: LabelledTexts) -> None:
        return None

    def resolved(self, rows: int) -> ToyConfig:
        return self.config

    def tokenize(self, text: str) -> list[str]:
        return text.split()

    def fit(self, train: Any, valid: Any, *, seed: int, monitor: Any) -> FitReport:
        for text, label in zip(train, train.label_ids, strict=True):
            self.words[int(label)] += self.tokenize(text)
        return FitReport(parameters=sum(map(len, self.words)))

    def score(self, texts: Sequence[str]) -> Scored:
        counts = [[sum(word in words for word in self.tokenize(text)) for words in self.words] for text in texts]
        scores = np.exp(self.config.weight * np.array(counts, np.float32))
        return Scored((scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), truncated=0)

    def save(self, folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(self.words), encoding="utf-8")

    @classmethod
    def load(cls, bundle: Bundle, config: ToyConfig, classes: int, exported: Any = None) -> "ToyLevel":
        level = cls(config, classes)
        level.words = bundle.read_json("words.json")
        return level


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toy_level", sys.modules[__name__])
    monkeypatch.setitem(LEVELS, "toy", "toy_level:ToyLevel")


def help_of(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="^0$"):
        main([*words, "--help"])
    return capsys.readouterr().out


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["levels", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["levels"][-1] == {
        "level": "toy",
        "summary": ToyLevel.summary,
        "presets": {"default": "as it is", "loud": "louder"},
    }
    assert main(["train", "x.csv", "--level", "ty", "--out", "b"]) == 2
    assert "transformer, toy. Did you mean 'toy'?" in capsys.readouterr().err


def test_its_settings_have_flags(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = help_of("train", "--level", "toy", capsys=capsys, monkeypatch=monkeypatch)
    assert "--weight X" in shown
    assert "how much one word counts [from 0.5 to 8; default: 2]" in shown
    for command in ("compare", "audit"):
        shown = help_of(command, capsys=capsys, monkeypatch=monkeypatch)
        assert "toy: words read of a text [at least 1; default: 3]" in shown
        assert (
            "; toy: a name that nothing reads [default: toy]" in shown
        )  # beside the transformer's setting of that name
        assert "--weight" not in shown


def test_the_commands_run_it(sentences_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    words = ["train", str(sentences_file), "--test", str(sentences_file), "--level", "toy", "--preset", "loud"]
    assert main([*words, "--toy-words", "5", "--out", str(bundle), "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert (trained["level"], trained["preset"], trained["epochs"]) == ("toy", "loud", [])
    assert dataclasses.asdict(TextClassifier.load(bundle).config) == {"weight": 8.0, "encoder": "toy", "toy_words": 5}
    assert main(["predict", str(bundle), "broke", "a lovely kettle", "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)["predictions"]
    assert [one["label"] for one in predicted] == ["bad", "good"]
    assert main(["audit", str(sentences_file), "--levels", "toy", "--toy-words", "4", "--json"]) == 0
    assert [one["level"] for one in json.loads(capsys.readouterr().out)["tokens"]] == ["toy"]
    assert main(["audit", str(sentences_file), "--levels", "tfidf", "--toy-words", "4"]) == 2
    assert "--toy-words is a setting of toy, which is not among the levels tfidf." in capsys.readouterr().err


def test_it_is_a_classifier(sentences_file: Path, tmp_path: Path) -> None:
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    classifier = TextClassifier("toy", weight=4.0).fit(data)
    assert classifier.evaluate(data.test).accuracy == 1
    again = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert (again.predict_proba(list(data.test)) == classifier.predict_proba(list(data.test))).all()


def test_the_site_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a page of its own the list has its settings; with one, the list and the contents link to it."""
    sphinx = pytest.importorskip("sphinx.cmd.build")
    docs = Path(__file__).parents[1] / "docs"
    monkeypatch.syspath_prepend(str(docs))
    source = tmp_path / "docs"
    (source / "levels").mkdir(parents=True)
    conf = "extensions = ['myst_parser', 'level_settings']\nroot_doc = 'levels/index'\nhtml_theme = 'basic'\n"
    (source / "conf.py").write_text(conf)
    (source / "levels" / "index.md").write_text((docs / "levels" / "index.md").read_text(encoding="utf-8"))
    for name in LEVELS:
        if name != "toy":
            (source / "levels" / f"{name}.md").write_text(f"# {name}\n\n```{{level-settings}} {name}\n```\n")
    for page in (None, source / "levels" / "toy.md"):
        if page:
            page.write_text("# Toy\n")
        out = tmp_path / f"html-{page is not None}"
        assert sphinx.build_main(["-q", "-W", "-E", "-b", "html", str(source), str(out)]) == 0
        html = (out / "levels" / "index.html").read_text(encoding="utf-8").partition('role="main"')[2]
        assert ToyLevel.summary in html
        assert ("how much one word counts" in html) == (page is None)
        assert ('href="toy.html"' in html) == (page is not None)
        places = [html.index(f'href="{name}.html"') for name in LEVELS if name != "toy"]
        assert places == sorted(places)
