"""Bundles that somebody forged who knows the format: every digest is right, and something inside is not.

Each is refused in one sentence or predicts as any other, in seconds and without much memory.
"""

import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from textladder import TextClassifier
from textladder.bundle import MANIFEST, _canonical, _digests, _own_digest
from textladder.errors import BundleError, ConfigError
from textladder.levels import LEVELS
from textladder.onnx_check import check_onnx

Forgery = tuple[str, Callable[[Path], None], bool]  # what is forged, how, and whether it must be refused
EXTREMES: list[Any] = [0, -1, 10**6, 10**12, 0.5, "x", [], {}, None, True]
SECONDS, GIBIBYTE = 5.0, 2**20  # in units of 1,024 bytes
TEXTS = ["a good strong kettle", "", "broke on the second day " * 30]


def seal(bundle: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Change a manifest, and give all digests their right values."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    present = _digests(bundle)
    manifest["files"] = {name: present.get(name, digest) for name, digest in manifest["files"].items()}
    manifest["sha256"] = _own_digest(manifest)
    (bundle / MANIFEST).write_bytes(_canonical(manifest))


def config_forgeries(bundle: Path) -> Iterator[Forgery]:
    config = json.loads((bundle / MANIFEST).read_text())["config"]
    for name in config:
        for value in EXTREMES:

            def forge(folder: Path, name: str = name, value: Any = value) -> None:
                seal(folder, lambda manifest: manifest["config"].update({name: value}))

            yield f"config {name}={value!r}", forge, False
    for value in ([], ["x"], ["bad", "good", "third"], ["bad", "bad"], 5, None):

        def forge_labels(folder: Path, value: Any = value) -> None:
            seal(folder, lambda manifest: manifest.update(labels=value, label_names=value))

        yield f"labels {value!r}", forge_labels, True


def tensor_forgeries(bundle: Path) -> Iterator[Forgery]:
    for file in sorted(bundle.glob("*.safetensors")):
        tensors = load_file(file)
        for name, value in sorted(tensors.items())[:6]:
            changes: dict[str, dict[str, np.ndarray]] = {
                "missing": {},
                "renamed": {f"{name}.x": value},
                "longer": {name: np.concatenate([value, value[:1]])} if value.ndim else {},
                "flat": {name: np.ascontiguousarray(value).reshape(1, -1)},
                "empty": {name: value[:0]} if value.ndim else {},
                "wide": {name: np.zeros((1, 200_000), value.dtype)},
                "strange": {name: value, "another": np.zeros(3, np.float32)},
            }
            if value.dtype.kind == "f":
                changes["infinite"] = {name: np.full_like(value, np.inf)}
            for kind, change in changes.items():

                def forge(
                    folder: Path, name: str = name, change: dict[str, np.ndarray] = change, file: str = file.name
                ) -> None:
                    content = {key: value for key, value in load_file(folder / file).items() if key != name}
                    save_file({**content, **change}, folder / file)
                    seal(folder)

                yield f"{file.name} {name} {kind}", forge, kind == "infinite"


def json_forgeries(bundle: Path) -> Iterator[Forgery]:
    deep = "[" * 100_000 + "]" * 100_000
    for file in sorted(one for one in bundle.glob("*.json") if one.name != MANIFEST):
        contents = {"a number": "5", "deep": deep, "nothing": "", "an object": "{}", "null": "null"}
        if file.name == "vocabulary.json":
            tokens = json.loads(file.read_text())
            contents |= {
                "repeated": json.dumps([*tokens, tokens[-1]]),
                "shorter": json.dumps(tokens[:-1]),
                "numbers": json.dumps([1, 2, 3]),
            }
        for kind, content in contents.items():
            if file.name == "tokenizer_config.json":
                continue  # our own reading does not need it

            def forge(folder: Path, content: str = content, name: str = file.name) -> None:
                (folder / name).write_text(content)
                seal(folder)

            yield f"{file.name} {kind}", forge, file.name != "config.json" or kind != "an object"
        if file.name not in ("config.json", "tokenizer.json"):
            continue
        for place, value in numbers_in(json.loads(file.read_text())):
            for forged in (10**6, 10**12):

                def forge_number(
                    folder: Path, place: tuple[Any, ...] = place, forged: int = forged, name: str = file.name
                ) -> None:
                    content = json.loads((folder / name).read_text())
                    inner = content
                    for key in place[:-1]:
                        inner = inner[key]
                    inner[place[-1]] = forged
                    (folder / name).write_text(json.dumps(content))
                    seal(folder)

                yield f"{file.name} {place} {value} to {forged}", forge_number, False
    if (bundle / "config.json").exists():

        def forge_code(folder: Path) -> None:
            content = json.loads((folder / "config.json").read_text())
            content |= {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
            (folder / "config.json").write_text(json.dumps(content))
            (folder / "evil.py").write_text("raise SystemExit('run')")
            seal(folder, lambda manifest: manifest["files"].update({"evil.py": ""}))

        yield "code of its own", forge_code, True


def numbers_in(content: Any, place: tuple[Any, ...] = (), most: int = 3) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Where numbers stand in a JSON document; in a long list or object, the first ones."""
    if isinstance(content, bool):
        return
    if isinstance(content, int):
        yield place, content
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    of_sizes = isinstance(content, dict) and len(content) < 60
    for number, (key, value) in enumerate(items):
        if number < most or of_sizes:
            yield from numbers_in(value, (*place, key), most)


@pytest.mark.parametrize("level", list(LEVELS))
def test_a_forged_bundle_is_refused_in_a_sentence(fitted: Callable[[str], Any], tmp_path: Path, level: str) -> None:
    original = fitted(level).save(tmp_path / "original")
    forgeries = [*config_forgeries(original), *tensor_forgeries(original), *json_forgeries(original)]
    refused = 0
    for number, (kind, forge, must_be_refused) in enumerate(forgeries):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in original.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        forge(folder)
        begun, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            found = TextClassifier.load(folder).predict_proba(TEXTS)
        except (BundleError, ConfigError) as error:
            refused, found = refused + 1, str(error)
        if isinstance(found, str):
            assert "\n" not in found, kind
            assert len(found) < 600, kind
        else:
            assert not must_be_refused, kind
            assert np.isfinite(found).all(), kind
        assert time.monotonic() - begun < SECONDS, kind
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < GIBIBYTE, kind
        for file in folder.iterdir():
            file.unlink()
    print(f"{len(forgeries)} forgeries, {refused} refused")
    assert len(forgeries) > 60
    assert refused > len(forgeries) / 4


def graph(*nodes: Any, tensors: Any = (), outputs: int = 2, **more: Any) -> bytes:
    """An ONNX file with these nodes between `ids` and `logits`."""
    from onnx import TensorProto, helper

    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["sequences", "time"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["sequences", outputs])
    made = helper.make_graph(list(nodes), "forged", [ids], [logits], list(tensors))
    content: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], **more).SerializeToString()
    return content


def test_a_forged_graph_is_refused() -> None:
    from onnx import TensorProto, helper

    plain = helper.make_node("Cast", ["ids"], ["logits"], to=TensorProto.FLOAT)
    check_onnx(graph(plain))
    inner = helper.make_graph([plain], "inner", [], [])
    outside = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    huge = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    huge.dims[0] = 10**12
    negative = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    negative.dims[0] = -1
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [10**6, 10**6])
    raw_shape = helper.make_tensor("shape", TensorProto.INT64, [2], np.array([10**6, 10**6]).tobytes(), raw=True)
    deep = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    deep.dims[:] = [2**62] * 1000  # a product that Python does not even print
    odd = helper.make_tensor("weights", TensorProto.INT64, [2], bytes(16), raw=True)
    odd.raw_data = bytes(17)
    values, places = (helper.make_tensor(name, kind, [1], [1]) for name, kind in (("v", 1), ("p", TensorProto.INT64)))
    sparse = [helper.make_sparse_tensor(values, places, [10**12])]
    function = helper.make_function("own", "f", ["x"], ["y"], [plain], [helper.make_opsetid("", 17)])
    for sentence, content in {
        "holds the operator 'Loop'": graph(helper.make_node("Loop", ["a", "b"], ["logits"], body=inner)),
        "holds the operator 'If'": graph(helper.make_node("If", ["a"], ["logits"], then_branch=inner)),
        "holds the operator 'RandomNormal'": graph(helper.make_node("RandomNormal", [], ["logits"], shape=[9])),
        "holds the operator 'Cast'": graph(helper.make_node("Cast", ["ids"], ["logits"], domain="evil")),
        "holds a graph inside of 'Cast'": graph(helper.make_node("Cast", ["ids"], ["logits"], body=inner)),
        "reads its weights from another file": graph(plain, tensors=[outside]),
        "has a tensor of 1,000,000,000,000 numbers, of which it holds 1": graph(plain, tensors=[huge]),
        "has a tensor of the shape \\[-1\\]": graph(plain, tensors=[negative]),
        "has a tensor of the shape \\[4611686018427387904, ": graph(plain, tensors=[deep]),
        "has a tensor of 2 numbers, of which it holds 2.125": graph(plain, tensors=[odd]),
        "holds a sparse tensor": graph(helper.make_node("Constant", [], ["c"], sparse_values=sparse)),
        "may make an array of 1,000,000,000,000 numbers": graph(plain, tensors=[shape]),
        "may make an array of 1,000,000,000,000 numbers.": graph(
            plain, helper.make_node("Constant", [], ["c"], value=raw_shape)
        ),
        "holds functions": graph(plain, functions=[function]),
        "cannot be read": b"\xff" * 40,
    }.items():
        with pytest.raises(BundleError, match=sentence):
            check_onnx(content)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_graph_with_other_columns_is_refused(outputs: int) -> None:
    from onnx import TensorProto, helper

    from textladder.onnx_scorer import ExportedNetwork

    plain = helper.make_node("Cast", ["ids"], ["logits"], to=TensorProto.FLOAT)
    with pytest.raises(BundleError, match="expected ids and 2 logits"):
        ExportedNetwork(graph(plain, outputs=outputs), ("ids",), 2)
