"""A training that was killed anywhere and resumed ends as if it had never stopped, bit for bit."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from textladder import TextClassifier, read_texts
from textladder.cli import main
from textladder.data.labelled_texts import TextData
from textladder.errors import BundleError, ConfigError
from textladder.progress import Monitor

Settings = Callable[[str], dict[str, Any]]
# what has state of its own: gradients that are summed over batches, cached states of frozen layers, gradual unfreezing,
# the finder's passes, the first pass's order, several validations, a stateful language model in two directions
CASES: dict[str, dict[str, Any]] = {
    "lstm": {"epochs": 4, "dropout": 0.3, "embedding_dropout": 0.2, "validations_per_epoch": 2, "find_rate": True},
    "lstm/adam": {"epochs": 3, "dropout": 0.3, "optimizer": "adam", "patience": 1},
    "ulmfit": {"epochs": 2, "frozen_epochs": 3, "language_epochs": 2, "dropout": 1.0, "language_batch_size": 2},
    "ulmfit/gradual": {"epochs": 1, "frozen_epochs": 1, "gradual": True, "dropout": 1.0, "keep_best": True},
    "transformer": {"epochs": 3, "frozen_epochs": 2, "accumulate": 3, "batch_size": 2},
    "transformer/windows": {"epochs": 6, "max_tokens": 8, "long_text": "windows", "keep_best": True},
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TextData:
    words = ["kettle", "lamp", "toy", "book", "cable", "zip", "sound", "price"]
    rows = [
        (
            ("good", "bad")[n % 2],
            f"{'a lovely strong' if n % 2 == 0 else 'an awful weak'} {words[n % 8]} " * (1 + n % 5),
        )
        for n in range(48)
    ]
    texts, labels = [text for _, text in rows], [label for label, _ in rows]
    return read_texts((texts, labels), valid=0.25)


def make(case: str, settings: Settings) -> TextClassifier:
    level = case.partition("/")[0]
    return TextClassifier(level, seed=3, **{**settings(level), "precision": "float32", **CASES[case]})


def outcome(classifier: TextClassifier, data: TextData) -> tuple[str, str, list[dict[str, Any]], dict[str, Any]]:
    """Weights and predictions to the byte, and the record but for times."""
    digest = hashlib.sha256()
    for name, value in sorted(classifier.learner.model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    epochs = [{key: value for key, value in one.items() if "seconds" not in key} for one in classifier.record["epochs"]]
    facts = {key: value for key, value in classifier.record.items() if key not in ("epochs", "fit_seconds")}
    predictions = hashlib.sha256(classifier.predict_proba(data.test).tobytes()).hexdigest()
    return digest.hexdigest(), predictions, epochs, facts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("every", [3, 10])
def test_resumed_equals_undisturbed(
    case: str, every: int, data: TextData, tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints at every batch; killed after each so many of them, until it ends."""
    from textladder.training import checkpoints

    undisturbed = outcome(make(case, tiny_settings).fit(data), data)
    write = checkpoints.FitCheckpoint.write
    written = 0

    def killed(self: Any, path: Path, state: Any, tensors: Any) -> None:
        nonlocal written
        write(self, path, state, tensors)
        written += 1
        if written % every == 0:
            raise Killed

    monkeypatch.setattr(checkpoints.FitCheckpoint, "is_due", lambda *args, **options: True)
    monkeypatch.setattr(checkpoints.FitCheckpoint, "write", killed)
    kills = 0
    while True:
        classifier = make(case, tiny_settings)
        try:
            classifier.fit(data, checkpoint=tmp_path / "kept")
            break
        except Killed:
            kills += 1
            assert kills < 500
    assert kills
    assert outcome(classifier, data) == undisturbed


def test_checkpoints_of_another_fit_are_refused(data: TextData, tiny_settings: Settings, tmp_path: Path) -> None:
    from textladder.training import checkpoints

    folder, settings = tmp_path / "kept", tiny_settings("lstm")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints.FitCheckpoint, "is_due", lambda *args, **options: True)
        TextClassifier("lstm", epochs=2, **settings).fit(data, checkpoint=folder)
    assert folder.is_dir()
    message = "belongs to a training with other rows, settings or versions; pass fresh=True to start over, or delete it"
    with pytest.raises(ConfigError, match=message):
        TextClassifier("lstm", epochs=3, **settings).fit(data, checkpoint=folder)
    (folder / "part-1" / "state.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="cannot be resumed; pass fresh=True to start over, or delete it"):
        TextClassifier("lstm", epochs=2, **settings).fit(data, checkpoint=folder)
    TextClassifier("lstm", epochs=3, **settings).fit(data, checkpoint=folder, fresh=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(ConfigError, match="thesis is not a checkpoint; delete or rename it"):
        TextClassifier("lstm", epochs=3, **settings).fit(data, checkpoint=tmp_path / "thesis")
    with pytest.raises(ConfigError, match="thesis is not a checkpoint; delete or rename it"):
        TextClassifier("lstm", epochs=3, **settings).fit(data, checkpoint=tmp_path / "thesis", fresh=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "words"


def test_what_is_resumed_is_said(data: TextData, tiny_settings: Settings, tmp_path: Path) -> None:
    from textladder.training import checkpoints

    class Listening(Monitor):
        def __init__(self) -> None:
            self.sentences: list[str] = []

        def say(self, sentence: str) -> None:
            self.sentences.append(sentence)

    write = checkpoints.FitCheckpoint.write

    def killed(self: Any, path: Path, state: Any, tensors: Any) -> None:
        write(self, path, state, tensors)
        if state["epoch"] == 2:
            raise Killed

    monitor = Listening()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints.FitCheckpoint, "is_due", lambda *args, longest, **options: not longest)
        patched.setattr(checkpoints.FitCheckpoint, "write", killed)
        with pytest.raises(Killed):
            TextClassifier("lstm", epochs=4, **tiny_settings("lstm")).fit(data, checkpoint=tmp_path / "kept")
        before = [one.name for one in (tmp_path / "kept").iterdir()]
        assert before == ["part-1"]
    TextClassifier("lstm", epochs=4, **tiny_settings("lstm")).fit(data, checkpoint=tmp_path / "kept", monitor=monitor)
    assert "Resuming lstm in epoch 3 of 4." in monitor.sentences


def test_a_full_disk_does_not_end_the_training(
    data: TextData, tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textladder.training import checkpoints

    def full(*given: Any, **options: Any) -> None:
        raise BundleError("kept: the checkpoint could not be written (No space left on device).")

    class Listening(Monitor):
        said: ClassVar[list[str]] = []

        def say(self, sentence: str) -> None:
            self.said.append(sentence)

    settings = tiny_settings("lstm")
    undisturbed = outcome(TextClassifier("lstm", epochs=2, **settings).fit(data), data)
    monkeypatch.setattr(checkpoints, "write_bundle", full)
    monkeypatch.setattr(checkpoints.FitCheckpoint, "is_due", lambda *args, **options: True)
    classifier = TextClassifier("lstm", epochs=2, **settings).fit(data, checkpoint=tmp_path / "k", monitor=Listening())
    assert outcome(classifier, data) == undisturbed
    assert any(one.startswith("The training goes on without a new checkpoint. kept: ") for one in Listening.said)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        ConfigError, match=r"0.001 MB are free, but checkpoints of this training and its result need .* MB"
    ):
        TextClassifier("lstm", epochs=2, **settings).fit(data, checkpoint=tmp_path / "k")


def test_the_command_deletes_nobody_elses_folder(
    sentences_file: Path, vectors_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    (tmp_path / "bundle.partial").mkdir()
    (tmp_path / "bundle.partial" / "chapter.txt").write_text("words")
    assert main(["train", str(sentences_file), "--level", "tfidf", "--out", str(out)]) == 0
    lstm = ["train", str(sentences_file), "--level", "lstm", "--vectors", str(vectors_file), "--out", str(out)]
    for more in ([], ["--fresh"]):
        assert main([*lstm, "--overwrite", *more]) == 2
        assert "bundle.partial is not a checkpoint; delete or rename it." in capsys.readouterr().err
    assert (tmp_path / "bundle.partial" / "chapter.txt").read_text() == "words"
