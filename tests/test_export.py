"""Exported forms: the same predictions without torch, a gate that damage does not pass, a bundle that stays intact."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from conftest import SENTENCES, TINY, level_of
from textladder import TextClassifier, export_bundle
from textladder.bundle import MANIFEST, _canonical, _own_digest, read_bundle
from textladder.cli import main
from textladder.errors import BundleError, ConfigError, DataError, ExportError, MissingExtraError, TextladderError
from textladder.export import Gate, _quiet, bundle_megabytes, export_smallest, quantized
from textladder.networks.awd_classifier import AWDClassifier
from textladder.networks.awd_lstm import AWDLSTM
from textladder.networks.cpu_kernels import use_onednn_linear
from textladder.networks.encoder import EncoderClassifier
from textladder.networks.lstm import CELLS, POOLINGS, LSTMClassifier
from textladder.networks.onnx_builder import GraphBuilder
from textladder.networks.onnx_graphs import awd_graph, encoder_graph, lstm_graph
from textladder.networks.onnx_rewrites import keep_first_state
from textladder.onnx_scorer import FLOAT32, INT8, ExportedNetwork

Fit = Callable[[str], Any]
TEXTS = [
    *(text for _, text in SENTENCES),
    "",
    "a",
    "The zip TORE at once!!! (really) ...",
    "a good strong kettle, " * 40,
    "half \ud800 pair <pad> [PAD] xxpad",
]


@pytest.fixture(params=list(TINY))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bundle(case: str, fitted: Fit, tmp_path: Path) -> Path:
    saved: Path = fitted(case).save(tmp_path / "bundle")
    return saved


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_float32_answers_the_same_where_there_is_no_torch(bundle: Path, case: str) -> None:
    found = export_bundle(bundle, TEXTS)
    assert found.form == FLOAT32
    assert found.gate.largest_difference <= 1e-5
    assert found.gate.labels_changed == 0
    assert found.gate.accuracy is None
    expected = TextClassifier.load(bundle, form="original").predict_proba(TEXTS)
    script = (
        "import json, sys\n"
        "for name in ('torch', 'fastai', 'transformers', 'spacy', 'sklearn', 'onnx'): sys.modules[name] = None\n"
        "from textladder import TextClassifier\n"
        f"one = TextClassifier.load(sys.argv[1], form={FLOAT32!r})\n"
        "texts = json.load(sys.stdin)\n"
        "alone = [one.predict_proba([text])[0].tolist() for text in texts]\n"
        "print(json.dumps([one.predict_proba(texts).tolist(), alone]))"
    )
    command = [sys.executable, "-c", script, str(bundle)]
    done = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for probabilities in json.loads(done.stdout):
        assert np.abs(np.array(probabilities) - expected).max() < 1e-5


def test_int8_is_kept_beside_float32_and_the_original(bundle: Path, case: str, fitted: Fit) -> None:
    export_bundle(bundle, TEXTS)
    kept = content(bundle)
    found = export_bundle(bundle, TEXTS, quantize="int8")
    assert found.form == INT8
    assert found.megabytes < 1.1 * len(kept[f"exports/{FLOAT32}.onnx"]) / 1e6
    after = content(bundle)
    assert {name: after[name] for name in kept if name != MANIFEST} == {
        name: kept[name] for name in kept if name != MANIFEST
    }
    exports = read_bundle(bundle).manifest["exports"]
    assert set(exports) == {FLOAT32, INT8}
    assert exports[INT8]["gate"]["rows"] == len(TEXTS)
    for form in ("original", FLOAT32, INT8):
        classifier = TextClassifier.load(bundle, form=form)
        assert classifier.form == form
        alone = np.concatenate([classifier.predict_proba([text]) for text in TEXTS])
        assert np.abs(classifier.predict_proba(TEXTS) - alone).max() < 1e-5
        assert classifier.predict(TEXTS[:16]) == fitted(case).predict(TEXTS[:16])
        assert classifier.tokenize("a kettle!") == fitted(case).tokenize("a kettle!")
    again = TextClassifier.load(bundle, form="original").save(bundle.with_name("again"))
    assert {name for name in content(again) if name.startswith("exports")} == set()


def test_a_bundle_of_the_exported_form_alone(bundle: Path, case: str, tmp_path: Path) -> None:
    export_bundle(bundle, TEXTS)
    before = content(bundle)
    found = export_bundle(bundle, TEXTS, out=tmp_path / "lean")
    assert content(bundle) == before
    assert found.bundle == tmp_path / "lean"
    lean = TextClassifier.load(tmp_path / "lean")
    assert np.abs(lean.predict_proba(TEXTS) - TextClassifier.load(bundle).predict_proba(TEXTS)).max() < 1e-5
    if level_of(case) == "tfidf":  # has no other network than its arrays
        return
    assert "model.safetensors" not in content(tmp_path / "lean")
    assert lean.form == FLOAT32
    with pytest.raises(ConfigError, match=f"Unknown form 'original'. Available: {FLOAT32}"):
        TextClassifier.load(tmp_path / "lean", form="original")
    with pytest.raises(TextladderError, match="exported form"):
        lean.save(tmp_path / "other")
    with pytest.raises(TextladderError, match="exported form"):
        lean.graph()
    with pytest.raises(ConfigError, match="is the bundle itself"):
        export_bundle(bundle, TEXTS, out=bundle / ".." / "bundle", overwrite=True)


def test_the_smallest_form_that_passes(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    before = content(bundle)
    with monkeypatch.context() as patched:
        patched.setattr("textladder.export.MAX_DIFFERENCE", -1.0)
        found, refusal = export_smallest(bundle, TEXTS)
        assert found is None
        assert refusal.startswith(f"{FLOAT32} was refused: a probability differs by")
        assert content(bundle) == before
    with monkeypatch.context() as patched:
        patched.setattr("textladder.export.MAX_LOSS", -1.0)
        found, refusal = export_smallest(bundle, TEXTS)
        assert found is not None
        assert found.form == FLOAT32
        assert refusal.startswith(f"{INT8} was refused: the label of 0 of {len(TEXTS)} texts changed")
        assert "unchanged" not in refusal
        assert list(read_bundle(bundle).manifest["exports"]) == [FLOAT32]
    found, refusal = export_smallest(bundle, TEXTS)
    assert found is not None
    assert (found.form, refusal) == (INT8, "")
    exported = read_bundle(bundle)
    assert list(exported.manifest["exports"]) == [FLOAT32, INT8]
    for form in (FLOAT32, INT8):
        lean = export_bundle(bundle, TEXTS, quantize="int8" if form == INT8 else None, out=tmp_path / form).bundle
        size = sum(map(len, content(lean).values())) / 1e6
        assert bundle_megabytes(exported, form) == pytest.approx(size, rel=0.05)  # the manifests differ
    assert bundle_megabytes(exported, "original") == pytest.approx(sum(map(len, before.values())) / 1e6, rel=0.05)


def test_a_link_to_a_bundle_stays_one(fitted: Fit, tmp_path: Path) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    (tmp_path / "link").symlink_to(bundle)
    assert export_bundle(tmp_path / "link", TEXTS).bundle == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert FLOAT32 in read_bundle(bundle).manifest["exports"]


def test_the_fastest_form_that_can_be_run_is_taken(
    fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    export_bundle(bundle, TEXTS)
    export_bundle(bundle, TEXTS, quantize="int8")
    for speeds, form in (((2.0, 1.0, 3.0), INT8), ((1.0, 2.0, 3.0), FLOAT32), ((2.0, 2.0, 1.0), "original")):
        manifest = json.loads((bundle / MANIFEST).read_text())
        for name, milliseconds in zip((FLOAT32, INT8), speeds[:2], strict=True):
            manifest["exports"][name] |= {"milliseconds": milliseconds, "original_milliseconds": speeds[2]}
        forge(bundle, manifest)
        assert TextClassifier.load(bundle).form == form
    monkeypatch.setattr("textladder.classifier.missing_library", lambda modules: "torch")
    assert TextClassifier.load(bundle).form == FLOAT32  # the first of equals, where torch is not installed


def forge(bundle: Path, manifest: dict[str, Any]) -> None:
    manifest["sha256"] = _own_digest(manifest)
    (bundle / MANIFEST).write_bytes(_canonical(manifest))


MULTIPLIED = ("LSTM", "MatMul", "Gemm", "Attention")


def scaled(graph: Any, share: float) -> Any:
    """The graph with its largest weight matrix scaled, word vectors (which a norm may come after) left alone."""
    looked_up = {name for node in graph.graph.node if node.op_type not in MULTIPLIED for name in node.input}
    matrices = [one for one in graph.graph.initializer if one.name not in looked_up] or graph.graph.initializer
    largest = max(matrices, key=lambda one: numpy_helper.to_array(one).size)
    damaged = (numpy_helper.to_array(largest) * share).astype(np.float32)
    largest.CopyFrom(numpy_helper.from_array(damaged, largest.name))
    return graph


def without_bias(graph: Any) -> Any:
    """The graph with no number where the logits' bias was."""
    bias = next(one for one in graph.graph.initializer if list(one.dims) == [2])
    bias.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), bias.name))
    return graph


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_damaged_export_is_refused(
    bundle: Path, case: str, quantize: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(bundle)
    level = type(TextClassifier.load(bundle)._fitted)
    whole = level.graph
    monkeypatch.setattr(level, "graph", lambda self: scaled(whole(self), 1.1))
    with pytest.raises(
        ExportError, match=f"{FLOAT32} was refused: a probability differs by .* more than the allowed 0.0001"
    ):
        export_bundle(bundle, TEXTS, quantize=quantize)
    assert content(bundle) == before


def test_an_int8_form_that_loses_is_refused(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    before = content(bundle)
    untrained = LSTMClassifier(*fitted("lstm")._fitted.network.embedding.weight.shape, 2)
    monkeypatch.setattr("textladder.export.quantized", lambda graph: lstm_graph(untrained, 2).SerializeToString())
    with pytest.raises(ExportError, match=f"{INT8} was refused: the label of"):
        export_bundle(bundle, TEXTS, quantize="int8")
    monkeypatch.setattr("textladder.export.quantized", lambda graph: without_bias(graph).SerializeToString())
    with pytest.raises(ExportError, match="it produced NaN or infinity"):
        export_bundle(bundle, TEXTS, quantize="int8")
    assert content(bundle) == before


@pytest.mark.parametrize(
    ("gate", "quantized", "refused"),
    [
        (Gate(2000, 9e-5, 1), False, None),
        (Gate(2000, 2e-4, 0), False, "a probability differs by 0.0002, more than the allowed 0.0001"),
        (Gate(2000, 0.3, 10), True, None),
        (Gate(2000, 0.3, 11), True, "the label of 11 of 2,000 texts changed, more than the allowed 0.5%"),
        (Gate(2000, 0.3, 30, 0.926, 0.930, 0.2), True, None),
        (Gate(2000, 0.3, 30, 0.940, 0.930, 0.001), True, None),
        (Gate(2000, 0.3, 30, 0.924, 0.930, 0.2), True, "it loses 0.6 points of accuracy, more than the allowed 0.5"),
        (
            Gate(2000, 0.3, 8, 0.926, 0.930, 0.01),
            True,
            "it loses 0.40 points of accuracy, which is significant (p = 0.010)",
        ),
    ],
)
def test_the_gates_terms(gate: Gate, quantized: bool, refused: str | None) -> None:
    assert gate.refusal(quantized) == refused


def test_the_gates_sentence() -> None:
    assert Gate(1, 2e-6, 1).sentence() == "on 1 text probabilities differ by at most 2e-06 and 1 label changed."
    assert Gate(2000, 0.3, 8, 0.93, 0.931, 0.5).sentence() == (
        "on 2,000 texts probabilities differ by at most 0.3 and 8 labels changed; accuracy is 0.930, the original's "
        "0.931 (p = 0.5)."
    )


@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR])
def test_logging_is_disabled_as_much_as_before(level: int) -> None:
    logging.disable(level)
    try:
        with _quiet():
            assert logging.root.manager.disable >= max(level, logging.WARNING)
        assert logging.root.manager.disable == level
    finally:
        logging.disable(logging.NOTSET)


def test_the_gate_counts_as_evaluate_does(fitted: Fit, sentences_file: Path, tmp_path: Path) -> None:
    from textladder.data.labelled_texts import read_perhaps_labelled

    bundle = fitted("lstm").save(tmp_path / "bundle")
    rows = read_perhaps_labelled(sentences_file, ("bad", "good"), text=["text"], label="label", first=12)
    assert len(rows) == 12
    gate = export_bundle(bundle, rows).gate
    assert gate.original_accuracy == TextClassifier.load(bundle, form="original").evaluate(rows).accuracy
    assert gate.accuracy == TextClassifier.load(bundle, form=FLOAT32).evaluate(rows).accuracy
    assert gate.p_value == 1
    texts = tmp_path / "texts.csv"
    texts.write_text("text,other\nfine,1\n,2\nbad,3\n")
    assert read_perhaps_labelled(texts, ("bad", "good"), text=["text"], label="label") == ["fine", "", "bad"]


def test_nothing_to_compare_on(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    with pytest.raises(DataError, match="no texts"):
        export_bundle(bundle, [])
    with pytest.raises(ConfigError, match="Unknown quantization 'int4'. Available: int8"):
        export_bundle(bundle, TEXTS, quantize="int4")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'textladder\[export\]'"):
        export_bundle(bundle, TEXTS)


@pytest.mark.parametrize("broken", [b"", b"no graph", "other inputs", "other classes"])
def test_a_network_that_does_not_fit_is_refused(broken: bytes | str, fitted: Fit, tmp_path: Path) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    export_bundle(bundle, TEXTS)
    file = bundle / "exports" / f"{FLOAT32}.onnx"
    graph = onnx.load(file)
    if broken == "other inputs":
        graph.graph.input[0].name = "words"
        for node in graph.graph.node:
            node.input[:] = ["words" if name == "ids" else name for name in node.input]
    if broken == "other classes":
        graph = lstm_graph(LSTMClassifier(9, 4, 3), 3)
    file.write_bytes(broken if isinstance(broken, bytes) else graph.SerializeToString())
    with pytest.raises(BundleError, match="altered, damaged or truncated"):
        TextClassifier.load(bundle, form=FLOAT32)
    manifest = json.loads((bundle / MANIFEST).read_text())
    import hashlib

    manifest["files"][f"exports/{FLOAT32}.onnx"] = hashlib.sha256(file.read_bytes()).hexdigest()
    forge(bundle, manifest)
    with pytest.raises(BundleError, match="exported network"):
        TextClassifier.load(bundle, form=FLOAT32)


@pytest.mark.parametrize("exports", [[], {"x": 1}, {"x": {"file": 3}}, {"x": {"file": "../../x", "milliseconds": "a"}}])
def test_forged_exports(exports: Any, fitted: Fit, tmp_path: Path) -> None:
    bundle = fitted("tfidf").save(tmp_path / "bundle")
    forge(bundle, json.loads((bundle / MANIFEST).read_text()) | {"exports": exports})
    with pytest.raises(BundleError):
        TextClassifier.load(bundle)


def test_a_word_that_the_network_does_not_know_is_an_error() -> None:
    network = ExportedNetwork(lstm_graph(LSTMClassifier(9, 4, 2), 2).SerializeToString(), ("ids",), 2)
    with pytest.raises(BundleError, match="failed on a batch"):
        network.run(np.array([[3, 9]]))


@pytest.mark.parametrize(("level", "cores"), [("lstm", 1), ("ulmfit", 3), ("transformer", 3)])
def test_an_exported_network_takes_the_cores_that_make_it_faster(
    level: str, cores: int, fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = fitted(level).save(tmp_path / "bundle")
    export_bundle(bundle, TEXTS)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    network = TextClassifier.load(bundle, form=FLOAT32)._fitted.exported
    assert network._session.get_session_options().intra_op_num_threads == cores
    assert (network._on_one_core is network._session) == (cores == 1)


def test_threads_of_onnx_runtime_do_not_hold_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    content = lstm_graph(LSTMClassifier(9, 4, 2), 2).SerializeToString()
    for cores, expected in ((None, 3), (1, 1)):
        options = ExportedNetwork(content, ("ids",), 2, cores=cores)._session.get_session_options()
        assert options.intra_op_num_threads == expected
        assert int(options.get_session_config_entry("session.intra_op.spin_duration_us")) <= 100


POOLED = [*((name,) for name in POOLINGS), POOLINGS, ("attention", "mean")]


@pytest.mark.parametrize("pooling", POOLED, ids="-".join)
@pytest.mark.parametrize(("layers", "bidirectional", "more"), [(1, True, False), (2, True, True), (2, False, False)])
@pytest.mark.parametrize("cell", list(CELLS))
def test_every_form_of_the_lstm(
    cell: str, pooling: tuple[str, ...], layers: int, bidirectional: bool, more: bool
) -> None:
    torch.manual_seed(0)
    sizes = {"cell": cell, "hidden_size": 5, "layers": layers, "bidirectional": bidirectional, "head_size": 6 * more}
    network = LSTMClassifier(30, 7, 3, pooling=pooling, pool_embeddings=more, **sizes).eval()
    graph = lstm_graph(network, 3)
    onnx.checker.check_model(graph, full_check=True)
    check(network, graph, pad_id=network.pad_id)


@pytest.mark.parametrize("pooling", ["layers", "concat"])
@pytest.mark.parametrize("backward", [0, 6])
def test_every_form_of_the_awd_lstm(pooling: str, backward: int) -> None:
    torch.manual_seed(0)
    encoder = AWDLSTM(30, dimension=7, hidden_size=9, layers=3, backward_size=backward)
    network = AWDClassifier(encoder, 3, pooling=pooling)
    if pooling == "concat":  # norms that have seen something
        network(torch.randint(2, 30, (16, 6)))
    graph = awd_graph(network.eval(), 3)
    onnx.checker.check_model(graph, full_check=True)
    check(network, graph, pad_id=encoder.pad_id)


@pytest.mark.parametrize(("kind", "first_only"), [("distilbert", True), ("bert", True), ("modernbert", False)])
def test_an_encoders_quicker_graph(
    kind: str, first_only: bool, encoders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoders(kind))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    use_onednn_linear(model)
    network = EncoderClassifier(model, 0).eval()
    for parameter in network.parameters():  # norms too: those of a new encoder change nothing
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():  # where it predicts with what is no operator of ONNX
        graph = encoder_graph(network)
    operators = [node.op_type for node in graph.graph.node]
    assert not {"LayerNormalization", "SkipLayerNormalization"} & set(operators)
    behind = operators[len(operators) - operators[::-1].index("Attention") :] if first_only else operators
    assert (behind[:3] == ["Slice", "MatMul", "Slice"]) is first_only
    check(network, graph, pad_id=0, classes=2)


@pytest.mark.parametrize("operator", ["Add", "MatMul"])
def test_states_that_may_be_needed_are_computed(operator: str) -> None:
    """What two arrays are made of, of which either may lie otherwise than states do, stays as it is."""
    graph = GraphBuilder()
    together = graph.add(operator, graph.add("Cast", "ids", to=onnx.TensorProto.FLOAT), graph.constant(np.eye(3)[None]))
    table = graph.add(operator, together, graph.add("Cast", "table", to=onnx.TensorProto.FLOAT))
    first = graph.add("Gather", table, graph.constant(0), axis=1)
    inputs = [("ids", onnx.TensorProto.INT64, ("b", "3", "3")), ("table", onnx.TensorProto.INT64, ("3", "3"))]
    whole = graph.model(inputs, first, 3)
    before = whole.SerializeToString()
    keep_first_state(whole)
    assert whole.SerializeToString() == before


def check(network: torch.nn.Module, graph: Any, pad_id: int, *, classes: int = 3) -> None:
    """A graph gives what the network gives, for any length, however far texts are padded."""
    exported = ExportedNetwork(graph.SerializeToString(), ("ids",), classes)
    for longest in (1, 2, 9):
        ids = torch.randint(2, 30, (4, longest + 2))
        for row, length in enumerate((longest, 1, longest + 2, max(1, longest - 1))):
            ids[row, length:] = pad_id
        with torch.inference_mode():
            assert np.abs(exported.run(ids.numpy()) - network(ids).numpy()).max() < 1e-5


def test_int8_is_smaller_and_near() -> None:
    torch.manual_seed(0)
    network = LSTMClassifier(2000, 50, 2, pooling=("mean", "max")).eval()
    graph = lstm_graph(network, 2)
    whole, small = graph.SerializeToString(), quantized(graph)
    assert len(small) < 0.35 * len(whole)
    ids = np.random.default_rng(0).integers(2, 2000, (8, 40))
    one, other = (ExportedNetwork(content, ("ids",), 2).run(ids) for content in (whole, small))
    assert 0 < np.abs(one - other).max() < 0.1


def test_the_command(fitted: Fit, sentences_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    words = ["export", str(bundle), "--data", str(sentences_file)]
    assert main([*words, "--quantize", "int8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["form"], printed["bundle"], printed["gate"]["rows"]) == (INT8, str(bundle), 16)
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "onnx-float32 passed: on 16 texts" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    assert main(["predict", str(bundle), "a good kettle", "--form", INT8]) == 0
    assert main(["evaluate", str(bundle), str(sentences_file), "--form", FLOAT32]) == 0
    assert "lstm (onnx-float32) on 16 rows" in capsys.readouterr().out
    for wrong, message in (
        (["predict", str(bundle), "a", "--form", "int9"], "Unknown form 'int9'. Available: original, onnx-"),
        ([*words, "--first", "0"], "--first must be 1 or more"),
        ([*words, "--text", "nothing"], "nothing"),
        ([*words, "--out", str(bundle), "--overwrite"], "is the bundle itself"),
        (["export", str(tmp_path / "none"), "--data", "sample"], "no such bundle"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err


def test_nothing_is_half_written(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = fitted("lstm").save(tmp_path / "bundle")
    before = content(bundle)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("textladder.atomic_files._put_in_place", full)
    with pytest.raises(BundleError, match="nothing was kept"):
        export_bundle(bundle, TEXTS)
    assert content(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
@pytest.mark.realdata
def test_real_rows(shared: Path, fitted: Fit, tmp_path: Path) -> None:
    from textladder.data.labelled_texts import read_labelled, read_texts

    data = read_texts(shared / "amazon_polarity" / "train.csv", first=600)
    bundle = TextClassifier("lstm", epochs=1).fit(data).save(tmp_path / "bundle")
    rows = read_labelled(shared / "amazon_polarity" / "test.csv", data.labels, text=["title", "text"], label="label")
    rows = replace(rows, rows=rows.rows[:500])
    assert export_bundle(bundle, rows).gate.largest_difference < 1e-5
    lean = shutil.copytree(bundle, tmp_path / "copy")
    assert np.array_equal(
        TextClassifier.load(lean, form=FLOAT32).predict_proba(rows),
        TextClassifier.load(bundle, form=FLOAT32).predict_proba(rows),
    )
