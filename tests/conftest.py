"""What the tests share: their own home, a closed network, tiny data, and the real rows where they are at hand."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # files of tests side by side: a core for each, before torch counts them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from textladder.atomic_files import part_path

Serve = Callable[[dict[str, bytes]], str]

SHARED = Path(__file__).parents[2] / "shared" / "data"
SENTENCES = (
    ("good", "a good strong kettle"),
    ("good", "works well and looks lovely"),
    ("good", "my daughter loves this toy"),
    ("good", "the best lamp I have bought"),
    ("good", "quiet, quick and easy to clean"),
    ("good", "happy with it after a year"),
    ("good", "fits perfectly, warm and soft"),
    ("good", "excellent sound for the price"),
    ("bad", "broke on the second day"),
    ("bad", "a waste of money"),
    ("bad", "the zip tore at once"),
    ("bad", "smells awful and will not charge"),
    ("bad", "never arrived, no answer either"),
    ("bad", "thin, ugly and far too small"),
    ("bad", "boring book, badly written"),
    ("bad", "the worst cable I have owned"),
)
LONG = ("test_comparison.py", "test_cli.py", "test_transformer.py")
# One tiny config or more for each level, as `level` or `level/variant`; a test asserts that none is missing.
TINY: dict[str, dict[str, Any]] = {
    "tfidf": {"min_documents": 1},
    "lstm": {
        "min_freq": 1,
        "hidden_size": 12,
        "dropout": 0.0,
        "embedding_dropout": 0.0,
        "label_smoothing": 0.0,
    },
    "ulmfit": {
        "min_freq": 1,
        "language_epochs": 1,
        "frozen_learning_rate": 0.02,
        "learning_rate": 0.02,
        "epochs": 40,
        "dropout": 0.0,
        "batch_size": 8,
    },
    # everything in a tiny encoder is as new as its head
    "transformer": {"encoder": "distilbert", "max_tokens": 48, "epochs": 40, "learning_rate": 3e-3, "head_factor": 1.0},
    "transformer/bert": {"encoder": "bert", "max_tokens": 48, "epochs": 40, "learning_rate": 3e-3, "head_factor": 1.0},
}


def level_of(case: str) -> str:
    """The level of a key of `TINY`."""
    return case.partition("/")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and homes go to a folder of the tests', in this process and in the ones it starts."""
    home = tmp_path_factory.mktemp("home")
    names = ("HOME", "XDG_CACHE_HOME", "TEXTLADDER_CACHE", "HF_HOME", "FASTAI_HOME", "MPLCONFIGDIR")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(home / name.lower()) for name in names})
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ordinary test opens a connection; those marked `network` reach the loopback interface alone."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        loopback = isinstance(address, tuple) and str(address[0]) in ("127.0.0.1", "::1", "localhost")
        if not (loopback and request.node.get_closest_marker("network")):
            raise OSError(f"the tests have no network (asked for {address})")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def dead_part() -> Callable[[Path], Path]:
    """The temporary name of an output that a process had which is dead now."""

    def name(output: Path) -> Path:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        part = part_path(output)
        return part.with_name(part.name.replace(f"-{os.getpid()}.part", f"-{dead.pid}.part"))

    return name


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve some files on the loopback interface; gives the address."""
    servers = []

    def start(files: dict[str, bytes]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = files.get(self.path)
                self.send_response(200 if data is not None else 404)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; a test that wants it is skipped where there is none, and fails where CI demands it."""
    if not SHARED.is_dir():
        message = "the real rows (../shared/data) are not at hand"
        if os.environ.get("TEXTLADDER_REQUIRE_SHARED"):
            pytest.fail(f"{message}, and TEXTLADDER_REQUIRE_SHARED is set")
        pytest.skip(message)
    return SHARED


@pytest.fixture(scope="session")
def vectors_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors in GloVe's text form for some of the sentences' words."""
    words = sorted({word for _, text in SENTENCES for word in text.replace(",", "").lower().split()})
    numbers = np.random.default_rng(0).standard_normal((len(words), 8))
    path = tmp_path_factory.mktemp("vectors") / "tiny.8d.txt"
    lines = [f"{word} {' '.join(f'{x:.5f}' for x in row)}" for word, row in zip(words, numbers, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def sentences_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sixteen sentences as a CSV file."""
    path = tmp_path_factory.mktemp("sentences") / "sentences.csv"
    path.write_text("label,text\n" + "".join(f'{label},"{text}"\n' for label, text in SENTENCES), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny random encoders in Hugging Face's form, made from their configs."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        import torch
        import transformers
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        if kind in made:
            return made[kind]
        words = sorted({word for _, text in SENTENCES for word in text.replace(",", "").lower().split()})
        special_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", "!", "."]
        letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
        vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*special_tokens, *words, *letters]))}
        pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
        pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        pieces.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
        pieces.enable_truncation(8)  # as all-MiniLM-L6-v2's file does: neither may survive
        pieces.enable_padding(length=8, pad_id=0, pad_token="[PAD]")
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=pieces, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
            model_input_names=["input_ids", "attention_mask"] + ["token_type_ids"] * (kind == "bert"),
        )  # fmt: skip
        sizes: dict[str, dict[str, Any]] = {
            "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.0}
            | {"attention_dropout": 0.0, "seq_classif_dropout": 0.0},
            "bert": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
            | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
            "modernbert": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
            | {"classifier_pooling": "mean", "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3},
        }
        room = {"vocab_size": len(vocabulary), "max_position_embeddings": 64}
        config = transformers.AutoConfig.for_model(kind, **sizes[kind], **room)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = transformers.AutoModelForSequenceClassification.from_config(config)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[kind] = folder
        return folder

    return make


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sentences without their labels, one a line, a few times over."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("".join(f"{text}\n" for _, text in SENTENCES) * 20, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def language_model(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model of the corpus, which reads it both ways."""
    from textladder.training.pretraining import pretrain

    out = tmp_path_factory.mktemp("language_model") / "tiny"
    forward, settings = out.with_name("forward"), {"batch_size": 8, "sequence_length": 16, "epochs": 2}
    pretrain([corpus_file], forward, dimension=16, hidden_size=24, layers=2, **settings)
    pretrain([corpus_file], out, backward_of=str(forward), hidden_size=20, **settings)
    return out


@pytest.fixture(scope="session")
def tiny_settings(
    vectors_file: Path, encoders: Callable[[str], Path], language_model: Path
) -> Callable[[str], dict[str, Any]]:
    """Settings that make a level train on sixteen sentences in a second or two."""

    def settings(case: str) -> dict[str, Any]:
        found = dict(TINY[case])
        if case == "lstm":
            found["vectors"] = str(vectors_file)
        if case == "ulmfit":
            found["language_model"] = str(language_model)
        if "encoder" in found:
            found["encoder"] = str(encoders(found["encoder"]))
        return found

    return settings


@pytest.fixture(scope="session")
def fitted(sentences_file: Path, tiny_settings: Callable[[str], dict[str, Any]]) -> Callable[[str], Any]:
    """A fitted classifier of a level, made once for all tests that only read it."""
    made: dict[str, Any] = {}

    def fit(case: str) -> Any:
        from textladder import TextClassifier, read_texts

        if case not in made:
            data = read_texts(sentences_file, test=sentences_file, valid=0)
            made[case] = TextClassifier(level_of(case), **tiny_settings(case)).fit(data)
        return made[case]

    return fit


@pytest.fixture
def bundle(fitted: Callable[[str], Any], tmp_path: Path) -> Path:
    """A saved `tfidf` classifier."""
    path: Path = fitted("tfidf").save(tmp_path / "bundle")
    return path


@pytest.fixture
def place(
    tmp_path: Path, fitted: Callable[[str], Any], sentences_file: Path, vectors_file: Path, corpus_file: Path
) -> Path:
    """A folder with labelled texts, vectors, texts without labels, and a bundle."""
    folder = tmp_path / "start"
    folder.mkdir()
    for source, name in ((sentences_file, "data.csv"), (vectors_file, "vectors.txt"), (corpus_file, "corpus.txt")):
        (folder / name).write_bytes(source.read_bytes())
    fitted("tfidf").save(folder / "bundle")
    return folder


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a fresh process."""

    def command(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "textladder", *map(str, words)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **options)

    return command
