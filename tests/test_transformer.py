"""The level `transformer`: what only it promises."""

import http.server
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import SENTENCES
from textladder import TextClassifier, TextladderError, read_texts
from textladder.bundle import read_bundle, write_bundle
from textladder.encoders import check_reading
from textladder.errors import BundleError, ConfigError, PretrainedError
from textladder.levels.transformer import MOST_EPOCHS, STEPS_PER_CLASS, TransformerConfig, TransformerLevel
from textladder.progress import Monitor
from textladder.training import callbacks

TEXTS = [text for _, text in SENTENCES]
Encoders = Callable[[str], Path]
Fit = Callable[[str], Any]
Settings = Callable[[str], dict[str, Any]]


class Listening(Monitor):
    """Keeps the sentences that are reported."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture
def data(sentences_file: Path) -> Any:
    return read_texts(sentences_file, test=sentences_file, valid=0)


@pytest.mark.parametrize("case", ["transformer", "transformer/bert"])
def test_the_standard_library_opens_the_bundle(case: str, fitted: Fit, tmp_path: Path) -> None:
    import transformers

    classifier = fitted(case)
    bundle = classifier.save(tmp_path / "bundle")
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bundle)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.label2id == {"bad": 0, "good": 1}
    pipeline = transformers.pipeline("text-classification", model=str(bundle), device="cpu")
    long = "good strong kettle " * 40
    found = pipeline([*TEXTS, long], truncation=True)
    ours = classifier.predictions(TEXTS)
    assert [one["label"] for one in found[:16]] == [one.label for one in ours]
    assert np.allclose([one["score"] for one in found[:16]], [one.probability for one in ours], atol=1e-5)
    assert len(pipeline.tokenizer(long, truncation=True)["input_ids"]) == 48
    assert len(pipeline.tokenizer("a")["input_ids"]) == 3  # the fixed padding of the encoder's file is gone


def test_names_of_labels_reach_the_bundle(tmp_path: Path, tiny_settings: Settings) -> None:
    path = tmp_path / "train.csv"
    path.write_text("".join(f'"{1 + (label == "good")}","title","{text}"\n' for label, text in SENTENCES))
    data = read_texts(path, test=path, valid=0)
    classifier = TextClassifier("transformer", **tiny_settings("transformer") | {"epochs": 1}).fit(data)
    bundle = classifier.save(tmp_path / "bundle")
    assert json.loads((bundle / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}
    assert TextClassifier.load(bundle).labels == ("1", "2")


def test_how_many_texts_lose_tokens_is_always_said(data: Any, tiny_settings: Settings) -> None:
    for long_text, cut, windowed, sentence in (
        ("head", 16, 0, "Truncated 16 of 16 training texts to 5 tokens (head is kept)."),
        ("head-tail", 16, 0, "Truncated 16 of 16 training texts to 5 tokens (head-tail is kept)."),
        ("windows", 0, 16, "Split 16 of 16 training texts into windows of 5 tokens; truncated 0 of them in training."),
    ):
        monitor = Listening()
        settings = tiny_settings("transformer") | {"max_tokens": 5, "epochs": 1, "long_text": long_text}
        classifier = TextClassifier("transformer", **settings).fit(data, monitor=monitor)
        assert (classifier.record["texts_truncated"], classifier.record["texts_windowed"]) == (cut, windowed)
        assert monitor.sentences.count(sentence) == 1
        assert classifier.score([*TEXTS, "a"]).truncated == cut
    none_cut = Listening()
    TextClassifier("transformer", **tiny_settings("transformer") | {"epochs": 1}).fit(data, monitor=none_cut)
    assert any(sentence.startswith("Truncated 0 of 16 training texts to ") for sentence in none_cut.sentences)


def test_characters_that_the_encoder_does_not_know_are_said(encoders: Encoders, tiny_settings: Settings) -> None:
    rows = pd.DataFrame({"label": ["good", "bad"] * 8, "text": ["味道很好 good", "味道很差 bad"] * 8})
    monitor = Listening()
    classifier = TextClassifier("transformer", **tiny_settings("transformer") | {"epochs": 1})
    classifier.fit(read_texts(rows, test=rows, valid=0), monitor=monitor)
    assert classifier.record["unknown_characters"] == pytest.approx(8 / 15)
    assert sum("no word pieces for 53% of the characters" in sentence for sentence in monitor.sentences) == 1
    assert [sentence in monitor.sentences for sentence in classifier.record["warnings"]] == [True]


def test_epochs_and_batches_go_by_rows_and_classes() -> None:
    def resolved(rows: int, classes: int, **settings: Any) -> tuple[int | None, int | None]:
        config = TransformerLevel(TransformerConfig(**settings), classes).resolved(rows)
        return config.epochs, config.batch_size

    assert resolved(9_000, 2) == (3, 32)
    assert resolved(9_000, 77) == (math.ceil(STEPS_PER_CLASS * 77 / math.ceil(9_000 / 32)), 32)
    assert resolved(90, 4) == (17, 8)  # 200 steps
    assert resolved(40, 4) == (MOST_EPOCHS, 8)
    assert resolved(500, 4)[1] == 16
    assert resolved(90, 4, epochs=2, batch_size=5) == (2, 5)


def test_the_head_is_trained_at_its_own_rate(data: Any, tiny_settings: Settings) -> None:
    found = []
    for factor in (1.0, 10.0):
        settings = tiny_settings("transformer") | {"epochs": 1, "head_factor": factor}
        found.append(TextClassifier("transformer", **settings).fit(data).predict_proba(TEXTS))
    assert not np.allclose(*found, atol=1e-3)


def test_windows_average_their_logits(data: Any, tiny_settings: Settings) -> None:
    settings = tiny_settings("transformer") | {"max_tokens": 6, "epochs": 3, "long_text": "windows"}
    classifier = TextClassifier("transformer", **settings).fit(data)
    text = "a good strong kettle broke on the second"  # eight words: two windows of four
    halves = classifier.predict_proba(["a good strong kettle", "broke on the second"])
    logits = np.log(halves)
    logits = (logits - logits[:, :1]).mean(axis=0)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(classifier.predict_proba([text])[0], expected, atol=1e-5)


def test_frozen_epochs_leave_the_encoder_and_compute_it_once(
    data: Any, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textladder.networks.encoder import EncoderClassifier

    computed = []
    states = EncoderClassifier.states
    monkeypatch.setattr(
        EncoderClassifier, "states", lambda self, ids: (computed.append(len(ids)), states(self, ids))[1]
    )
    settings = tiny_settings("transformer/bert") | {"frozen_epochs": 4, "epochs": 0}
    classifier = TextClassifier("transformer", **settings)
    classifier.prepare(data)
    before = {name: value.clone() for name, value in classifier._fitted.encoder.network.state_dict().items()}
    classifier.fit(data)
    after = classifier._fitted.encoder.network.state_dict()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed == {name for name in after if "pooler" in name or "model.classifier" in name}
    assert sum(computed) <= 16 + 4  # once, and one run to see what the head needs
    assert [(one["stage"], one["trainable"]) for one in classifier.history] == [("head", "head")] * 4
    losses = [one["train_loss"] for one in classifier.history]
    assert losses[-1] < losses[0]
    both = TextClassifier("transformer", **settings | {"epochs": 2}).fit(data)
    assert [one["trainable"] for one in both.history] == ["head"] * 4 + ["all"] * 2


def test_the_presets() -> None:
    tutorial = TextClassifier("transformer", preset="tutorial").config
    assert (tutorial.max_tokens, tutorial.batch_size, tutorial.learning_rate, tutorial.epochs) == (512, 8, 3e-4, 3)
    assert tutorial.fixed_length
    default = TextClassifier("transformer").config
    assert default.encoder == "distilbert-base-uncased"
    assert TransformerLevel.learning_rates == (1e-5, 2e-4)


def test_the_tutorials_batches(data: Any, encoders: Encoders) -> None:
    settings = {"encoder": str(encoders("distilbert")), "max_tokens": 64}
    classifier = TextClassifier("transformer", preset="tutorial", **settings).prepare(data)
    assert [tuple(ids.shape) for ids, _ in classifier.learner.dls.train] == [(8, 64), (8, 64)]


def test_the_finder_is_held_to_the_levels_range(sentences_file: Path, encoders: Encoders, run: Any) -> None:
    words = ("lr-find", sentences_file, "--level", "transformer", "--encoder", encoders("bert"), "--max-tokens", 32)
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["range"] == [1e-5, 2e-4]
    assert 1e-5 <= found["learning_rate"] <= 2e-4


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"encoder": "./nowhere"}, PretrainedError, "no such encoder folder"),
        ({"encoder": ""}, PretrainedError, "no such encoder folder"),
        ({"encoder": "EMPTY"}, PretrainedError, "no config.json"),
        ({"encoder": "BROKEN"}, PretrainedError, "cannot be used"),
        ({"encoder": "NO WEIGHTS"}, PretrainedError, "cannot be used"),
        ({"encoder": "CODE"}, PretrainedError, "cannot be used"),
        ({"max_tokens": 100}, ConfigError, "cannot read 100 tokens at a time: lower max_tokens"),
        ({"epochs": 0}, ConfigError, "cannot both be 0"),
        ({"long_text": "tail"}, ConfigError, "Available: head, head-tail, windows"),
        ({"encoder": "distilbert-base-uncased"}, PretrainedError, "without a network, set 'encoder' to a folder"),
    ],
)
def test_what_cannot_be(
    settings: dict[str, Any],
    error: type[TextladderError],
    match: str,
    data: Any,
    tmp_path: Path,
    encoders: Encoders,
    tiny_settings: Settings,
) -> None:
    wanted = settings.get("encoder")
    good = encoders("distilbert")
    if wanted in ("EMPTY", "BROKEN", "NO WEIGHTS", "CODE"):
        for file in good.iterdir() if wanted != "EMPTY" else ():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        if wanted == "BROKEN":
            (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
        elif wanted == "NO WEIGHTS":
            (tmp_path / "model.safetensors").unlink()
            (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")  # a pickle is not read
        elif wanted == "CODE":
            config = json.loads((good / "config.json").read_text())
            config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
            (tmp_path / "config.json").write_text(json.dumps(config))
            (tmp_path / "own.py").write_text("raise SystemExit('ran')")
        settings = {"encoder": str(tmp_path)}
    with pytest.raises(error, match=match) as caught:
        TextClassifier("transformer", **tiny_settings("transformer") | settings).fit(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("no tokenizer", "no fast tokenizer"),
        ("more layers", "16 of the encoder's weights are missing"),
        ("other names", "of the encoder's weights are missing"),
        ("more words", "but the encoder has vectors for only"),
    ],
)
def test_an_encoder_whose_files_lack_a_part_is_not_filled_up_at_random(
    wrong: str, match: str, data: Any, tmp_path: Path, encoders: Encoders, tiny_settings: Settings
) -> None:
    from safetensors.numpy import load_file, save_file

    for file in encoders("distilbert").iterdir():
        if wrong != "no tokenizer" or "token" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if wrong == "more layers":
        edit("config.json", n_layers=3)(tmp_path)
    elif wrong == "other names":
        weights = load_file(tmp_path / "model.safetensors")
        save_file({f"0.auto_model.{name}": value for name, value in weights.items()}, tmp_path / "model.safetensors")
    elif wrong == "more words":
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        tokenizer.add_tokens(["zwanzig"])
        tokenizer.save_pretrained(tmp_path)
    with pytest.raises(PretrainedError, match=match):
        TextClassifier("transformer", **tiny_settings("transformer") | {"encoder": str(tmp_path)}).fit(data)


def test_another_kind_of_problem_does_not_survive(
    data: Any, tmp_path: Path, encoders: Encoders, tiny_settings: Settings
) -> None:
    for file in encoders("distilbert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit("config.json", problem_type="multi_label_classification")(tmp_path)
    settings = tiny_settings("transformer") | {"encoder": str(tmp_path), "epochs": 1}
    bundle = TextClassifier("transformer", **settings).fit(data).save(tmp_path / "bundle")
    assert json.loads((bundle / "config.json").read_text())["problem_type"] == "single_label_classification"


def test_the_best_validation_of_the_frozen_epochs_is_kept(
    sentences_file: Path, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that ruins the network does not win: its validations are held against those of the stage before."""
    monkeypatch.setattr(TransformerLevel, "learning_rates", (1e-5, 1.0))
    monkeypatch.setattr(callbacks, "standard_error", lambda score, rows: -1.0)  # eight rows tell nothing apart
    data = read_texts(sentences_file, test=sentences_file, valid=0.5)
    settings = tiny_settings("transformer") | {"frozen_epochs": 20, "frozen_learning_rate": 0.01}
    classifier = TextClassifier("transformer", **settings | {"epochs": 2, "learning_rate": 1.0}).fit(data)
    head = [entry for entry in classifier.history if entry["stage"] == "head"]
    tuned = [entry for entry in classifier.history if entry["stage"] == "fine-tuning"]

    def score(entry: dict[str, Any]) -> tuple[float, float]:
        return entry["valid_accuracy"] + entry["valid_macro_f1"], -entry["valid_loss"]

    assert max(map(score, head)) > max(map(score, tuned))
    with classifier.learner.no_bar(), classifier.learner.no_logging():
        loss, accuracy, macro_f1 = classifier.learner.validate()
    best = max(head, key=score)
    assert accuracy == pytest.approx(best["valid_accuracy"])
    assert macro_f1 == pytest.approx(best["valid_macro_f1"])
    assert loss == pytest.approx(best["valid_loss"], rel=1e-4)


def test_no_look_takes_more_than_a_batch_of_windows(
    sentences_file: Path, tmp_path: Path, tiny_settings: Settings
) -> None:
    path = tmp_path / "long.csv"
    path.write_text(sentences_file.read_text() + "good," + "kettle " * 5000 + "\nbad," + "waste " * 5000 + "\n")
    data = read_texts(path, test=path, valid=0.5)
    settings = tiny_settings("transformer") | {"long_text": "windows", "max_tokens": 16, "batch_tokens": 64}
    for extra in ({}, {"batch_size": 4}):
        learner = TextClassifier("transformer", **settings | extra).prepare(data).learner
        assert max(ids.numel() for ids, *_ in learner.dls.train) <= 64
        assert max(ids.numel() for ids, *_ in learner.dls.valid) <= 4096


def test_a_step_is_made_in_every_epoch(data: Any, tiny_settings: Settings) -> None:
    settings = tiny_settings("transformer") | {"batch_size": 4, "accumulate": 1000, "epochs": 3}
    losses = [entry["train_loss"] for entry in TextClassifier("transformer", **settings).fit(data).history]
    assert len(set(losses)) == 3


def test_a_failure_takes_the_bar_away(data: Any) -> None:
    class Bar(Monitor):
        shown = False

        def start(self, name: str, steps: int | None) -> None:
            self.shown = True

        def stop(self) -> None:
            self.shown = False

    bar = Bar()
    with pytest.raises(PretrainedError):
        TextClassifier("transformer", encoder="./nowhere").fit(data, monitor=bar)
    assert not bar.shown


def test_a_full_disk_is_one_sentence(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(type(fitted("transformer")._fitted.encoder.network.model), "save_pretrained", full)
    with pytest.raises(BundleError, match="No space left on device"):
        fitted("transformer").save(tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_network_that_reads_its_padding_is_refused(fitted: Fit) -> None:
    from torch import Tensor, nn

    class Reads(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids.float().mean(dim=1, keepdim=True)

    with pytest.raises(ConfigError, match="does not mask its padding"):
        check_reading("tiny", Reads(), fitted("transformer")._fitted.encoder.pieces, 64)


def atomic_row_writer(bundle: Path, target: Path, change: Callable[[Path], None]) -> Path:
    """A bundle whose files were changed and whose digests fit again, as a forger would do."""
    manifest = dict(read_bundle(bundle).manifest)
    files = list(manifest["files"])

    def write(folder: Path) -> None:
        for name in files:
            (folder / name).write_bytes((bundle / name).read_bytes())
        change(folder)

    fields = {name: value for name, value in manifest.items() if name not in ("format", "files", "sha256")}
    return write_bundle(target, fields, write)


def edit(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | values))

    return change


@pytest.mark.parametrize(
    "change",
    [
        edit("config.json", id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2}),
        edit("config.json", n_layers=3),
        edit("config.json", n_layers=1),
        edit("config.json", dim=64),
        edit("config.json", pad_token_id=None),
        edit("config.json", model_type="nothing"),
        edit("config.json", model_type="own", auto_map={"AutoConfig": "own.Own"}),
        edit("tokenizer.json", model={"type": "WordLevel", "vocab": {}, "unk_token": "x"}),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 64),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").unlink(),
    ],
)
def test_a_bundle_that_does_not_fit_together_is_refused(
    change: Callable[[Path], None], fitted: Fit, tmp_path: Path
) -> None:
    bundle = fitted("transformer").save(tmp_path / "good")
    forged = atomic_row_writer(bundle, tmp_path / "forged", change)
    with pytest.raises(BundleError) as caught:
        TextClassifier.load(forged)
    assert "\n" not in str(caught.value)
    assert TextClassifier.load(bundle).predict(["good"])


def test_a_loaded_bundle_can_be_saved_again(fitted: Fit, tmp_path: Path) -> None:
    bundle = fitted("transformer").save(tmp_path / "one")
    again = TextClassifier.load(bundle).save(tmp_path / "two")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }
    assert oct((again / "model.safetensors").stat().st_mode)[-3:] == "644"


def test_a_bundle_is_an_encoder_for_another_task(fitted: Fit, tmp_path: Path, tiny_settings: Settings) -> None:
    bundle = fitted("transformer").save(tmp_path / "bundle")
    path = tmp_path / "three.csv"
    path.write_text(
        "label,text\n" + "".join(f"{'abc'[n % 3]},{text}\n" for n, text in enumerate(t.replace(",", "") for t in TEXTS))
    )
    three = read_texts(path, test=path, valid=0)
    settings = tiny_settings("transformer") | {"encoder": str(bundle), "epochs": 1}
    assert TextClassifier("transformer", **settings).fit(three).predict_proba(["a"]).shape == (1, 3)


@pytest.fixture
def hub(encoders: Encoders) -> Iterator[tuple[str, list[str]]]:
    """A server on the loopback interface that speaks as much of the Hub's interface as a download needs."""
    folder, asked = encoders("distilbert"), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            path = folder / self.path.rsplit("/", 1)[-1]
            if "/tree/" in self.path:
                content = b"[]"
            elif self.path in ("/", "/api/models/owner/tiny"):
                content = json.dumps({"id": "owner/tiny", "sha": "0" * 40, "siblings": []}).encode()
            elif self.path.startswith("/owner/tiny/resolve/") and path.is_file():
                content = path.read_bytes()
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hash(content) & 0xFFFFFFFF:x}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815, the library's name for it

        def log_message(self, *words: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.network
def test_an_encoder_is_fetched_from_the_hub_once(
    hub: tuple[str, list[str]], tmp_path: Path, sentences_file: Path
) -> None:
    """In processes of their own, because the Hub's address is read when its library is imported."""
    import os

    address, asked = hub
    script = (
        "import sys; from textladder import TextClassifier, read_texts\n"
        "data = read_texts(sys.argv[1], test=sys.argv[1], valid=0)\n"
        "for name in sys.argv[2:]:\n"
        "    c = TextClassifier('transformer', encoder=name, max_tokens=16, epochs=1)\n"
        "    try: c.prepare(data); print(c.tokenize('a good kettle'))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub")}

    def fetch(*names: str) -> str:
        words = [sys.executable, "-c", script, str(sentences_file), *names]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=True)
        assert not done.stderr.strip(), done.stderr
        return done.stdout

    assert "['a', 'good', 'kettle']" in fetch("owner/tiny")
    assert any(line.startswith("GET") and line.endswith("model.safetensors") for line in asked)
    asked.clear()
    printed = fetch("owner/tiny", "owner/other")
    assert "['a', 'good', 'kettle']" in printed
    assert not [line for line in asked if "owner/tiny" in line]  # the cache was enough
    assert "PretrainedError Encoder 'owner/other' was not found as a folder" in printed


@pytest.mark.realdata
@pytest.mark.slow
def test_minilm_on_real_rows(shared: Path, tmp_path: Path, run: Any) -> None:
    """Few rows and one short pass: far above chance, long texts reported."""
    folder = shared / "amazon_polarity"
    first = tmp_path / "test.csv"
    first.write_text("".join((folder / "test.csv").read_text().splitlines(keepends=True)[:150]))
    encoder = ("--encoder", "all-MiniLM-L6-v2", "--max-tokens", 64, "--long-text", "head-tail")
    words = ("--level", "transformer", "--rows", 400, *encoder)
    done = run("train", folder / "train.csv", "--test", first, *words, "--epochs", 2, "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["test"]["accuracy"] > 0.78
    assert result["texts_truncated"] > 0
    assert "training texts to 64 tokens" in done.stderr
    assert "to the level's token limit" in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "chosen"),
    [(3, 15, "windows"), (0, 0, "head-tail"), (22, 0, "head-tail"), (60, 0, "head-tail")],
)
def test_validation_rows_decide_how_long_texts_are_read(
    before: int, after: int, chosen: str, data: Any, tmp_path: Path, tiny_settings: Settings
) -> None:
    """What is said in the middle of a text is in a window, and neither in its head nor in its tail."""
    rows = [(label, "x " * before + text + " x" * after) for label, text in SENTENCES[::2]]
    frame = pd.DataFrame(rows, columns=["label", "text"])
    long = read_texts(frame, test=frame, valid=0)
    monitor = Listening()
    classifier = TextClassifier("transformer", **tiny_settings("transformer") | {"max_tokens": 14})
    classifier.fit(replace(data, valid=long.train), monitor=monitor)
    assert classifier.config.long_text == chosen
    said = [sentence for sentence in monitor.sentences if "long validation text" in sentence]
    assert len(said) == (before + after > 0)
    ending = "in windows from now on." if chosen == "windows" else "by head and tail from now on."
    if before == 60:
        ending = "would take more time in windows than an epoch."
    assert all(sentence.endswith(ending) for sentence in said)
    saved = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert np.array_equal(saved.predict_proba([rows[0][1]]), classifier.predict_proba([rows[0][1]]))
    with classifier.learner.no_bar(), classifier.learner.no_logging():
        found, _ = classifier.learner.get_preds()
    assert np.abs(found.numpy() - classifier.predict_proba(long.train)).max() < 1e-5
