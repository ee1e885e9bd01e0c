"""Language models from text files: what is written, resumed, refused and read back."""

import gzip
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import SENTENCES, Serve
from textladder.bundle import LANGUAGE_MODEL, read_bundle
from textladder.cli import main
from textladder.data.unlabelled import read_documents
from textladder.errors import BundleError, ConfigError, DataError, PretrainedError
from textladder.language_models import load_language_model
from textladder.text.fastai_words import SPECIAL_TOKENS
from textladder.training.pretraining import pretrain

TINY: dict[str, Any] = {
    "dimension": 16,
    "hidden_size": 24,
    "layers": 2,
    "batch_size": 8,
    "sequence_length": 16,
    "min_freq": 1,
}


def test_a_folder_is_whole_and_checked(language_model: Path) -> None:
    manifest = read_bundle(language_model, LANGUAGE_MODEL).manifest
    assert sorted(path.name for path in language_model.iterdir()) == [
        "model.safetensors",
        "textladder.json",
        "vocabulary.json",
    ]
    assert manifest["corpora"][0]["documents"] == 320
    assert manifest["metrics"]["perplexity"] > 1
    model = load_language_model(str(language_model))
    assert model.words[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)
    assert "kettle" in model.words
    assert model.sizes == {"dimension": 16, "hidden_size": 24, "layers": 2, "backward_size": 20}
    assert all(value.dtype == np.float32 for value in model.weights.values())
    assert not list(language_model.parent.glob("*.partial"))


def test_it_learns(corpus_file: Path, tmp_path: Path) -> None:
    metrics = pretrain([corpus_file], tmp_path / "model", **TINY, epochs=12, learning_rate=0.02, dropout=0.0)
    losses = [epoch["valid_loss"] for epoch in metrics["epochs"]]
    assert losses[-1] < 0.6 * losses[0]
    assert metrics["perplexity"] == pytest.approx(np.exp(min(losses)))


def test_validations_are_counted_in_tokens(corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (4, 8):
        metrics = pretrain([corpus_file], tmp_path / f"whole-{size}", **{**TINY, "batch_size": size}, epochs=1)
        assert len(metrics["epochs"]) == 1
    monkeypatch.setattr("textladder.training.pretraining.PART_TOKENS", metrics["tokens_per_epoch"] // 3)
    for size in (4, 8):
        metrics = pretrain([corpus_file], tmp_path / f"parts-{size}", **{**TINY, "batch_size": size}, epochs=1)
        assert [entry["epoch"] for entry in metrics["epochs"]] == [0.333, 0.667, 1]


def test_a_second_network_reads_from_right_to_left(corpus_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"epochs": 12, "learning_rate": 0.02, "dropout": 0.0}
    pretrain([corpus_file], tmp_path / "forward", **settings)
    added = settings | {"backward_of": str(tmp_path / "forward"), "max_vocabulary": 30, "hidden_size": 20, "epochs": 30}
    metrics = pretrain([corpus_file], tmp_path / "both", **added)
    losses = [epoch["valid_loss"] for epoch in metrics["epochs"]]
    assert losses[-1] < 0.9 * losses[0]
    forward, both = (load_language_model(str(tmp_path / name)) for name in ("forward", "both"))
    assert both.words == forward.words[:30]
    kept, _ = forward.weights_for(both.words)
    assert all(np.array_equal(both.weights[name], value) for name, value in kept.items())
    assert both.sizes == {**forward.sizes, "backward_size": 20}


def test_the_documents_of_a_file_are_held_out(corpus_file: Path, tmp_path: Path) -> None:
    (tmp_path / "held_out.txt").write_text("the kettle works\n\nzebra zebra\n")
    metrics = pretrain(
        [corpus_file], tmp_path / "model", **TINY, epochs=1, held_out_file=str(tmp_path / "held_out.txt")
    )
    assert metrics["held_out_tokens"] == 7  # each document begins with xxbos
    assert (
        metrics["tokens_per_epoch"] > pretrain([corpus_file], tmp_path / "other", **TINY, epochs=1)["tokens_per_epoch"]
    )
    assert "zebra" not in load_language_model(str(tmp_path / "model")).words
    loss = np.log(metrics["perplexity"])
    assert np.log(metrics["perplexity_per_written_word"]) == pytest.approx(loss)  # seven words and ends there as well
    corpora = read_bundle(tmp_path / "model", LANGUAGE_MODEL).manifest["corpora"]
    assert [one["name"] for one in corpora] == [corpus_file.name, "held_out.txt"]


def test_words_that_are_new_begin_from_the_mean(language_model: Path) -> None:
    model = load_language_model(str(language_model))
    words = [*SPECIAL_TOKENS, "kettle", "zebra"]
    weights, known = model.weights_for(words)
    assert known == len(SPECIAL_TOKENS) + 1
    vectors = model.weights["encoder.embedding.weight"]
    found = weights["encoder.embedding.weight"]
    assert np.array_equal(found[len(SPECIAL_TOKENS)], vectors[model.words.index("kettle")])
    assert np.allclose(found[-1], vectors.mean(axis=0), atol=1e-6)
    assert weights["bias"][-1] == pytest.approx(model.weights["bias"].mean(), abs=1e-5)


def test_a_killed_run_goes_on_to_the_same_end(corpus_file: Path, tmp_path: Path) -> None:
    settings = {**TINY, "epochs": 6}
    undisturbed = pretrain([corpus_file], tmp_path / "whole", **settings)
    script = (
        "import sys, time\n"
        "from textladder.training import checkpoints\n"
        "from textladder.training.pretraining import pretrain\n"
        "write = checkpoints.FitCheckpoint.write\n"
        "def slowly(*given):\n"
        "    write(*given)\n"
        "    print('kept', flush=True)\n"
        "    time.sleep(1)\n"
        "checkpoints.FitCheckpoint.write = slowly\n"
        "checkpoints.FitCheckpoint.is_due = lambda self, size, longest: not longest\n"
        f"pretrain([{str(corpus_file)!r}], {str(tmp_path / 'killed')!r}, **{settings!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for _ in range(3):
            assert run.stdout.readline() == "kept\n"
        run.send_signal(signal.SIGKILL)
    assert (tmp_path / "killed.partial").is_dir()
    assert not (tmp_path / "killed").exists()

    sentences: list[str] = []
    again = pretrain([corpus_file], tmp_path / "killed", monitor=listening(sentences), **settings)
    assert any("Resuming after 3 of 6" in sentence for sentence in sentences)
    assert len(again["epochs"]) == 6
    for loss in (
        "train_loss",
        "valid_loss",
    ):  # of every validation, because the kept weights may be those of an early one
        assert [entry[loss] for entry in again["epochs"]] == [entry[loss] for entry in undisturbed["epochs"]]
    whole, resumed = (load_language_model(str(tmp_path / name)) for name in ("whole", "killed"))
    assert whole.words == resumed.words
    for name, value in whole.weights.items():
        assert np.array_equal(value, resumed.weights[name]), name
    assert not (tmp_path / "killed.partial").exists()


def listening(sentences: list[str]) -> Any:
    from textladder.progress import Monitor

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            sentences.append(sentence)

    return Listening()


def test_the_checkpoint_of_another_run_is_not_resumed(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textladder.training import checkpoints

    write = checkpoints.FitCheckpoint.write

    def stop(*given: Any) -> None:
        write(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.FitCheckpoint, "write", stop)
    monkeypatch.setattr(checkpoints.FitCheckpoint, "is_due", lambda *given, **options: True)
    out = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        pretrain([corpus_file], out, **TINY)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="a training with other rows, settings or versions; pass fresh=True"):
        pretrain([corpus_file], out, **TINY, seed=1)
    (out.with_name("model.partial") / "part-1" / "state.safetensors").write_bytes(b"cut short")
    with pytest.raises(BundleError, match="pass fresh=True to start over"):
        pretrain([corpus_file], out, **TINY)
    pretrain([corpus_file], out, **TINY, fresh=True)
    assert read_bundle(out, LANGUAGE_MODEL)


def test_the_command(corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    out = tmp_path / "model"
    assert main(["pretrain", str(corpus_file), "--out", str(out), *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity"] > 1
    assert main(["pretrain", str(corpus_file), "--out", str(out), *flags]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["pretrain", str(corpus_file), "--out", str(out), *flags, "--overwrite"]) == 0
    assert "held-out tokens after 2 epochs of " in capsys.readouterr().out
    assert main(["pretrain", str(corpus_file), "--out", str(tmp_path / "x"), "--layers", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert main(["evaluate", str(out), "sample"]) == 2
    assert "expected a bundle, found a language model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no text"),
        (b" \n\n", "no text"),
        (b"good\n\xff\xfe bad\n", "line 2 is not UTF-8"),
        (b"a\0b\n", "zero byte"),
        (b"good\n" + b"a" * ((1 << 26) + 1), "line 2 has more than 67,108,864 bytes"),
    ],
)
def test_files_that_are_no_texts(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "corpus.txt").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        list(read_documents(tmp_path / "corpus.txt"))


def test_documents_of_plain_and_gzipped_files(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_bytes("\ufeffone\r\n\n two \nthree".encode())
    (tmp_path / "zipped.txt.gz").write_bytes(gzip.compress(b"one\n\ntwo\nthree\n"))
    for name in ("plain.txt", "zipped.txt.gz"):
        assert list(read_documents(tmp_path / name)) == ["one", "two", "three"]
    whole = (tmp_path / "zipped.txt.gz").read_bytes()
    (tmp_path / "cut.txt.gz").write_bytes(whole[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_documents(tmp_path / "cut.txt.gz"))
    with pytest.raises(DataError, match="No such file"):
        list(read_documents(tmp_path / "nowhere.txt"))


def test_one_document_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("only one\n")
    with pytest.raises(DataError, match="two documents"):
        pretrain([tmp_path / "corpus.txt"], tmp_path / "model", **TINY)


def fastai_archive(path: Path, *, words: Any = None, weights: Any = None) -> Path:
    """A small archive in the form of fastai's `wt103-fwd.tgz`."""
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
    from fastai.text.models.core import get_language_model

    known = sorted({word for _, text in SENTENCES for word in text.replace(",", " ,").split()})
    words = [*SPECIAL_TOKENS, *known] if words is None else words
    if weights is None:
        config = {**awd_lstm_lm_config, "emb_sz": 16, "n_hid": 24}
        weights = get_language_model(AWD_LSTM, max(2, len(words)), config).state_dict()
    weights_file, words_file = io.BytesIO(), io.BytesIO(pickle.dumps(words))
    torch.save(weights, weights_file)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("lstm_fwd.pth", weights_file), ("itos_wt103.pkl", words_file)):
            member = tarfile.TarInfo(f"wt103-fwd/{name}")
            member.size = len(content.getvalue())
            content.seek(0)
            archive.addfile(member, content)
    return path


def test_fastais_archive(tmp_path: Path) -> None:
    model = load_language_model(str(fastai_archive(tmp_path / "wt103-fwd.tgz")))
    assert model.sizes == {"dimension": 16, "hidden_size": 24, "layers": 3, "backward_size": 0}
    assert model.words[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)
    assert model.weights["encoder.embedding.weight"].shape == (len(model.words), 16)


class Hostile:
    """Unpickled as code that runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/textladder-was-here",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"words": [Hostile()]}, "cannot be read safely"),
        ({"words": {"a": 1}}, "is not a list of strings"),
        ({"words": ["a", 1]}, "is not a list of strings"),
        ({"words": ["a", "b"]}, "do not begin with xxunk"),
        (
            {
                "words": [*SPECIAL_TOKENS, "a"],
                "weights": {"0.encoder.weight": torch.zeros(9, 4), "1.decoder.bias": torch.zeros(9)},
            },
            "the weights are not those",
        ),
        ({"weights": {"0.encoder.weight": Hostile()}}, "weights cannot be read safely"),
        ({"weights": {"something": torch.zeros(2)}}, "not the weights of an AWD-LSTM"),
        ({"weights": [1, 2]}, "weights cannot be read safely"),
    ],
)
def test_hostile_archives(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = fastai_archive(tmp_path / "archive.tgz", **change)
    with pytest.raises(PretrainedError, match=sentence):
        load_language_model(str(path))
    assert not Path("/tmp/textladder-was-here").exists()


def test_archives_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "archive.tgz").write_bytes(b"no archive")
    with pytest.raises(PretrainedError, match="archive cannot be read"):
        load_language_model(str(tmp_path / "archive.tgz"))
    whole = fastai_archive(tmp_path / "whole.tgz").read_bytes()
    (tmp_path / "archive.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PretrainedError, match="cannot be read"):
        load_language_model(str(tmp_path / "archive.tgz"))
    with tarfile.open(tmp_path / "empty.tgz", "w:gz"):
        pass
    with pytest.raises(PretrainedError, match="holds one .pth file"):
        load_language_model(str(tmp_path / "empty.tgz"))


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match="Did you mean 'compact'"):
        load_language_model("compactt")
    with pytest.raises(PretrainedError, match="no such language model"):
        load_language_model(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="not a language model"):
        load_language_model(str(tmp_path / "empty"))


def test_a_forged_folder_is_refused(language_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from textladder.bundle import write_bundle

    manifest = read_bundle(language_model, LANGUAGE_MODEL).manifest

    def write(folder: Path) -> None:
        weights = load_file(language_model / "model.safetensors")
        weights["encoder.lstms.0.weight_hh_l0"] = weights["encoder.lstms.0.weight_hh_l0"][:, :-1]
        save_file(weights, folder / "model.safetensors")
        (folder / "vocabulary.json").write_bytes((language_model / "vocabulary.json").read_bytes())

    write_bundle(tmp_path / "forged", manifest, write, kind=LANGUAGE_MODEL)
    with pytest.raises(PretrainedError, match="the weights are not those"):
        load_language_model(str(tmp_path / "forged"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fastai leaves its settings file open
@pytest.mark.network
def test_wt103_is_fetched_by_fastais_downloader(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastai.data.external import URLs

    archive = fastai_archive(tmp_path / "archive.tgz").read_bytes()
    monkeypatch.setattr(URLs, "WT103_FWD", serve({"/wt103-fwd.tgz": archive}) + "/wt103-fwd.tgz")
    assert load_language_model("wt103").sizes["dimension"] == 16


def test_wt103_without_a_network_says_the_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastai.data.external import URLs

    monkeypatch.setattr(URLs, "WT103_FWD", "http://127.0.0.1:9/wt103-none.tgz")
    with pytest.raises(PretrainedError, match=r"wt103 could not be downloaded .*set.*language_model"):
        load_language_model("wt103")


def test_time_is_not_spent_on_what_is_wrong(tmp_path: Path) -> None:
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="Did you mean 'layers'"):
        pretrain(["nowhere.txt"], tmp_path / "x", layerss=2)
    assert time.perf_counter() - started < 1
