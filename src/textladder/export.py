"""A trained network for ONNX Runtime, and the gate that it has to pass before it may predict.

    bundle -> its network as a graph -> (int8) -> the same texts through both -> recorded in the bundle, or refused

What `textladder export` does. A form that was refused leaves the bundle as it was.
"""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder.bundle import Bundle, check_output, read_bundle, rewrite_bundle
from textladder.classifier import TextClassifier
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import ConfigError, DataError, ExportError, import_extra, unknown_name
from textladder.levels import find_level
from textladder.onnx_scorer import FLOAT32, INT8
from textladder.progress import Monitor
from textladder.significance import mcnemar

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZATIONS = ("int8",)
MOST_DIFFERENCE = 1e-4  # of a probability, in float32
MOST_LOSS = 0.005  # of accuracy, in int8; without labels, of texts whose label changed
DETECTABLE_P = 0.05
WARM_UP_TEXTS, SINGLE_TEXTS, ROUNDS = 16, 128, 2


@dataclass(frozen=True)
class Gate:
    """An exported form beside the original, on the same texts.

    Attributes:
        rows: how many texts.
        largest_difference: of any probability.
        labels_changed: texts that got another label.
        accuracy: of the exported form; None where the texts have no labels.
        original_accuracy: of the original.
        p_value: of McNemar's exact test between the two.
    """

    rows: int
    largest_difference: float
    labels_changed: int
    accuracy: float | None = None
    original_accuracy: float | None = None
    p_value: float | None = None

    def refusal(self, quantized: bool) -> str | None:
        """Why the form may not be used; None if it may."""
        if not quantized:
            if self.largest_difference <= MOST_DIFFERENCE:
                return None
            return f"a probability differs by {self.largest_difference:.2g}, and {MOST_DIFFERENCE:g} is the most"
        if self.accuracy is None or self.original_accuracy is None or self.p_value is None:
            if self.labels_changed <= MOST_LOSS * self.rows:
                return None
            return f"{self.labels_changed:,} of {self.rows:,} texts got another label, and {MOST_LOSS:.1%} is the most"
        loss = self.original_accuracy - self.accuracy
        if loss > MOST_LOSS:
            return f"it loses {100 * loss:.1f} points of accuracy, and {100 * MOST_LOSS:g} is the most"
        if loss > 0 and self.p_value < DETECTABLE_P:
            return f"it loses {100 * loss:.2f} points of accuracy, detectably (p = {self.p_value:.3f})"
        return None

    def sentence(self) -> str:
        """The figures for people."""
        found = (
            f"on {self.rows:,} texts the largest difference of a probability is {self.largest_difference:.2g}, and "
            f"{self.labels_changed:,} got another label"
        )
        if self.accuracy is None:
            return f"{found}."
        accuracies = f"accuracy {self.accuracy:.3f}, the original's {self.original_accuracy:.3f}"
        return f"{found}; {accuracies} (p = {self.p_value:.2g})."


@dataclass(frozen=True)
class Export:
    """A form that passed its gate.

    Attributes:
        form: its name, `onnx-float32` or `onnx-int8`.
        bundle: the bundle that it is in.
        megabytes: size of its file.
        gate: how it did.
        milliseconds: median time of one text.
        original_milliseconds: of the original, measured beside it.
    """

    form: str
    bundle: Path
    megabytes: float
    gate: Gate
    milliseconds: float
    original_milliseconds: float

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as `export --json` has it."""
        return {**asdict(self), "bundle": str(self.bundle)}


def export_bundle(
    path: str | Path,
    texts: LabelledTexts | Sequence[str],
    *,
    quantize: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> Export:
    """Put an exported form of a bundle's network into the bundle.

    Args:
        path: the bundle.
        texts: what both forms are compared on; labelled ones also by accuracy.
        quantize: `int8` for whole numbers of eight bits, made from the float32 form, which must pass first.
        out: a new bundle with the exported form alone, without the original's weights; by default it goes into the
            bundle itself.
        overwrite: replace `out`.
        monitor: is told how far it is.

    Raises:
        ExportError: the form does not pass its gate; nothing was changed.
        ConfigError: an unknown quantization.
        DataError: there are no texts.
        MissingExtraError: a library is not installed.
    """
    monitor = monitor or Monitor()
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise ConfigError(unknown_name("quantization", quantize, QUANTIZATIONS))
    if not len(texts):
        raise DataError("There are no texts to compare the exported form with the original on.")
    if out is not None:
        if Path(out).resolve() == Path(path).resolve():
            raise ConfigError(f"{out} is the bundle itself, which would lose its own weights; give another place.")
        check_output(out, overwrite)
    import_extra("onnx", "export")
    bundle = read_bundle(Path(path).resolve())  # a link to a bundle stays one
    original = TextClassifier.from_bundle(bundle)
    try:
        monitor.start("writing the graph", None)
        graph = original.graph()
        form, network = FLOAT32, graph.SerializeToString()
        monitor.start("predicting with the original", None)
        expected = original.predict_proba(texts)
        gate, exported = _pass(bundle, texts, expected, form, network, monitor)
        if quantize is not None:
            monitor.start("turning weights into int8", None)
            form, network = INT8, quantized(graph)
            gate, exported = _pass(bundle, texts, expected, form, network, monitor)
        monitor.start("measuring one text at a time", None)
        milliseconds, original_milliseconds = _single_text(exported, original, texts)
    finally:
        monitor.stop()
    found = Export(form, Path(out or path), len(network) / 1e6, gate, milliseconds, original_milliseconds)
    _write(bundle, found, network, alone=out is not None, overwrite=overwrite)
    return found


def quantized(graph: "ModelProto") -> bytes:
    """A graph whose weights are int8, a scale for each column; what meets them is made int8 as it comes.

    Seven bits are used: the sums of eight overflow on processors without VNNI, which would then give other answers.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder, "int8.onnx")
        quantize_dynamic(
            graph,
            target,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of what fused operators give
        )
        return target.read_bytes()


def _pass(
    bundle: Bundle,
    texts: LabelledTexts | Sequence[str],
    expected: np.ndarray,
    form: str,
    network: bytes,
    monitor: Monitor,
) -> tuple[Gate, TextClassifier]:
    """Hold a form to the original's probabilities."""
    monitor.start(f"predicting with {form}", None)
    exported = TextClassifier.from_bundle(bundle, network, form)
    found = exported.predict_proba(texts)
    before, after = expected.argmax(axis=1), found.argmax(axis=1)
    scores: dict[str, float] = {}
    if isinstance(texts, LabelledTexts):
        right, base = after == texts.label_ids, before == texts.label_ids
        scores = {
            "accuracy": float(right.mean()),
            "original_accuracy": float(base.mean()),
            "p_value": mcnemar(right, base),
        }
    gate = Gate(len(texts), float(np.abs(found - expected).max()), int((before != after).sum()), **scores)
    refusal = gate.refusal(quantized=form != FLOAT32)
    if not np.isfinite(found).all():
        refusal = "it gives what is no number"
    if refusal is not None:
        raise ExportError(f"{form} was refused: {refusal}; {gate.sentence()} The bundle is as it was.")
    return gate, exported


def _single_text(
    exported: TextClassifier, original: TextClassifier, texts: LabelledTexts | Sequence[str]
) -> tuple[float, float]:
    """The median milliseconds of one text for either.

    Each is asked a round of texts and then the other, not text by text: the threads of one wait for more, spinning, and
    take the cores from the other.
    """
    first = next(texts.batches(SINGLE_TEXTS)) if isinstance(texts, LabelledTexts) else list(texts[:SINGLE_TEXTS])
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for classifier, times in zip((exported, original), seconds, strict=True):
            for text in first[:WARM_UP_TEXTS]:
                classifier.predict_proba([text])
            for text in first:
                begun = time.perf_counter()
                classifier.predict_proba([text])
                times.append(time.perf_counter() - begun)
    mine, other = (1000 * float(np.median(times)) for times in seconds)
    return mine, other


def _write(bundle: Bundle, found: Export, network: bytes, *, alone: bool, overwrite: bool) -> None:
    file = f"exports/{found.form}.onnx"
    record = {
        "file": file,
        "gate": asdict(found.gate),
        "milliseconds": found.milliseconds,
        "original_milliseconds": found.original_milliseconds,
        "versions": {name: version(name) for name in ("onnx", "onnxruntime")},
    }
    others: dict[str, Any] = dict(bundle.manifest.get("exports", {}))
    left_out = {file}
    if alone:
        left_out |= {*find_level(bundle.manifest["level"]).network_files, *(one["file"] for one in others.values())}
        others = {}

    def write(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(network)

    changes = {"exports": {**others, found.form: record}}
    place = found.bundle if alone else bundle.folder
    rewrite_bundle(bundle, place, changes, write, without=left_out, overwrite=overwrite or not alone)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings about graphs that it was not shown the types of."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
