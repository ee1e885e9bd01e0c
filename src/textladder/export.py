"""Export a trained network to ONNX, after checking that its predictions match the original's.

    bundle -> its network as a graph -> (int8) -> the same texts through both -> recorded in the bundle, or refused

What `textladder export` does. If the check, the gate, fails, the bundle is left unchanged.
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

from textladder.bundle import MANIFEST, Bundle, check_output, read_bundle, rewrite_bundle
from textladder.classifier import ORIGINAL, TextClassifier
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import ConfigError, DataError, ExportError, import_extra, unknown_name
from textladder.levels import find_level
from textladder.onnx_scorer import FLOAT32, INT8
from textladder.progress import Monitor
from textladder.significance import permutation_test
from textladder.wording import counted

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZATIONS = ("int8",)
MAX_DIFFERENCE = 1e-4  # of a probability, for float32
MAX_LOSS = 0.005  # of accuracy, for int8; without labels, the share of texts whose label changes
SIGNIFICANCE = 0.05  # a p-value below this counts as a detected loss
SINGLE_TEXTS, ROUNDS, BLOCK, WARM_UP_TEXTS = 128, 2, 16, 2
CHOICE_TEXTS, CHOICE_SECONDS = 32, 2.0  # enough to see which form is faster, if that is all that is asked
Texts = LabelledTexts | Sequence[str]


@dataclass(frozen=True)
class Gate:
    """An exported form compared with the original on the same texts.

    Attributes:
        rows: number of texts.
        largest_difference: the largest difference between two probabilities.
        labels_changed: number of texts with a different predicted label.
        accuracy: of the exported form; None if the texts have no labels.
        original_accuracy: of the original.
        p_value: of McNemar's test between the two.
    """

    rows: int
    largest_difference: float
    labels_changed: int
    accuracy: float | None = None
    original_accuracy: float | None = None
    p_value: float | None = None

    def refusal(self, quantized: bool) -> str | None:
        """Why the form must not be used; None if it may be."""
        if not quantized:
            if self.largest_difference <= MAX_DIFFERENCE:
                return None
            return f"a probability differs by {self.largest_difference:.2g}, more than the allowed {MAX_DIFFERENCE:g}"
        if self.accuracy is None or self.original_accuracy is None or self.p_value is None:
            if self.labels_changed <= MAX_LOSS * self.rows:
                return None
            changed = f"the label of {self.labels_changed:,} of {counted(self.rows, 'text')} changed"
            return f"{changed}, more than the allowed {MAX_LOSS:.1%}"
        loss = self.original_accuracy - self.accuracy
        if loss > MAX_LOSS:
            return f"it loses {100 * loss:.1f} points of accuracy, more than the allowed {100 * MAX_LOSS:g}"
        if loss > 0 and self.p_value < SIGNIFICANCE:
            return f"it loses {100 * loss:.2f} points of accuracy, which is significant (p = {self.p_value:.3f})"
        return None

    def sentence(self) -> str:
        """The comparison as a sentence."""
        changed = f"{self.labels_changed:,} {'label' if self.labels_changed == 1 else 'labels'} changed"
        difference = f"probabilities differ by at most {self.largest_difference:.2g}"
        found = f"on {counted(self.rows, 'text')} {difference} and {changed}"
        if self.accuracy is None:
            return f"{found}."
        accuracies = f"accuracy is {self.accuracy:.3f}, the original's {self.original_accuracy:.3f}"
        return f"{found}; {accuracies} (p = {self.p_value:.2g})."


@dataclass(frozen=True)
class Export:
    """An exported form that passed the gate.

    Attributes:
        form: `onnx-float32` or `onnx-int8`.
        bundle: the bundle that contains it.
        megabytes: size of its file.
        gate: the comparison with the original.
        milliseconds: median latency of one text, each the fastest of two rounds.
        original_milliseconds: the same of the original, measured in the same run.
    """

    form: str
    bundle: Path
    megabytes: float
    gate: Gate
    milliseconds: float
    original_milliseconds: float

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as in `export --json`."""
        return {**asdict(self), "bundle": str(self.bundle)}


def export_bundle(
    path: str | Path,
    texts: Texts,
    *,
    quantize: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> Export:
    """Export a bundle's network to ONNX, if its predictions match the original's.

    Args:
        path: the bundle.
        texts: what the two are compared on; labelled texts are also compared by accuracy.
        quantize: `int8` for 8-bit integer weights, made from the float32 form, which must pass first.
        out: a new bundle with the exported form and without the original weights; by default the exported form is added
            to the bundle itself.
        overwrite: replace `out`.
        monitor: receives progress.

    Raises:
        ExportError: the predictions do not match; nothing was changed.
        ConfigError: an unknown quantization, or `out` is the bundle itself.
        DataError: there are no texts.
        BundleError: the bundle cannot be read, or `out` cannot be written.
        MissingExtraError: a library is not installed.
    """
    monitor = monitor or Monitor()
    _check_arguments(path, texts, quantize, out, overwrite)
    import_extra("onnx", "export")
    bundle = read_bundle(Path(path).resolve())  # a link to a bundle stays a link
    original = TextClassifier.from_bundle(bundle)
    try:
        *_, last = _passing_forms(bundle, original, texts, quantize, monitor)
        found = _with_latencies(last, original, texts, Path(out or path), monitor, SINGLE_TEXTS)
    except ExportError as error:
        raise ExportError(f"{error} The bundle is unchanged.") from None
    finally:
        monitor.stop()
    _write(bundle, found, last.network, standalone=out is not None, overwrite=overwrite)
    return found


def export_smallest(path: str | Path, texts: Texts, *, monitor: Monitor | None = None) -> tuple[Export | None, str]:
    """Add to a bundle the smallest form whose predictions match the original's: int8, or else float32.

    Its latency is measured on fewer texts.

    Args:
        path: the bundle.
        texts: as for `export_bundle`.
        monitor: receives progress.

    Returns:
        The form, None if none passes; and why one was refused, empty if none was.

    Raises:
        TextladderError: as for `export_bundle`.
    """
    monitor = monitor or Monitor()
    _check_arguments(path, texts, None, None, overwrite=False)
    import_extra("onnx", "export")
    bundle = read_bundle(path)
    original = TextClassifier.from_bundle(bundle)
    passed, refusal = None, ""
    try:
        try:
            for form in _passing_forms(bundle, original, texts, "int8", monitor):
                passed = form
        except ExportError as error:
            refusal = str(error)
        if passed is None:
            return None, refusal
        found = _with_latencies(passed, original, texts, Path(path), monitor, CHOICE_TEXTS, CHOICE_SECONDS)
    finally:
        monitor.stop()
    _write(bundle, found, passed.network, standalone=False, overwrite=False)
    return found, refusal


def bundle_megabytes(bundle: Bundle, form: str) -> float:
    """The size of a bundle with one of its forms alone, in megabytes."""
    exports = {name: one["file"] for name, one in bundle.manifest.get("exports", {}).items()}
    left_out = {file for name, file in exports.items() if name != form}
    if form != ORIGINAL:
        left_out |= set(find_level(bundle.manifest["level"]).network_files)
    files = (bundle.folder / name for name in (*bundle.manifest["files"], MANIFEST) if name not in left_out)
    size: int = sum(file.stat().st_size for file in files)
    return size / 1e6


def quantized(graph: "ModelProto") -> bytes:
    """A graph with int8 weights, one scale per column, and activations quantized as they come.

    The weights have 7 bits: with 8, sums overflow on processors without VNNI, which would then predict differently.
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
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # the outputs of fused operators
        )
        return target.read_bytes()


def _check_arguments(
    path: str | Path, texts: Texts, quantize: str | None, out: str | Path | None, overwrite: bool
) -> None:
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise ConfigError(unknown_name("quantization", quantize, QUANTIZATIONS))
    if not len(texts):
        raise DataError("There are no texts to compare the exported form with the original on.")
    if out is not None:
        if Path(out).resolve() == Path(path).resolve():
            raise ConfigError(
                f"{out} is the bundle itself, which would lose its original weights; choose another path."
            )
        check_output(out, overwrite)


@dataclass(frozen=True)
class _Passed:
    """A form that passed the gate, not yet written.

    Attributes:
        form: its name.
        network: the content of the ONNX file.
        gate: the comparison with the original.
        classifier: predicts with it.
    """

    form: str
    network: bytes
    gate: Gate
    classifier: TextClassifier


def _passing_forms(
    bundle: Bundle, original: TextClassifier, texts: Texts, quantize: str | None, monitor: Monitor
) -> Iterator[_Passed]:
    """The forms that pass, float32 first.

    Raises:
        ExportError: one of them does not pass, so that there are no further ones.
    """
    monitor.start("writing the graph", None)
    graph = original.graph()
    monitor.start("predicting with the original", None)
    expected = original.predict_proba(texts)
    monitor.start(f"predicting with {FLOAT32}", None)
    yield _passed(bundle, texts, expected, FLOAT32, graph.SerializeToString())
    if quantize is not None:
        monitor.start("quantizing the weights to int8", None)
        network = quantized(graph)
        monitor.start(f"predicting with {INT8}", None)
        yield _passed(bundle, texts, expected, INT8, network)


def _passed(bundle: Bundle, texts: Texts, expected: np.ndarray, form: str, network: bytes) -> _Passed:
    """Compare an exported form with the original's probabilities, and return it if it passes."""
    exported = TextClassifier.from_bundle(bundle, network, form)
    found = exported.predict_proba(texts)
    before, after = expected.argmax(axis=1), found.argmax(axis=1)
    scores: dict[str, float] = {}
    if isinstance(texts, LabelledTexts):
        correct, original_correct = after == texts.label_ids, before == texts.label_ids
        scores = {
            "accuracy": float(correct.mean()),
            "original_accuracy": float(original_correct.mean()),
            "p_value": permutation_test(correct.astype(float) - original_correct),
        }
    gate = Gate(len(texts), float(np.abs(found - expected).max()), int((before != after).sum()), **scores)
    refusal = gate.refusal(quantized=form != FLOAT32)
    if not np.isfinite(found).all():
        refusal = "it produced NaN or infinity"
    if refusal is not None:
        raise ExportError(f"{form} was refused: {refusal}; {gate.sentence()}")
    return _Passed(form, network, gate, exported)


def _with_latencies(
    passed: _Passed,
    original: TextClassifier,
    texts: Texts,
    place: Path,
    monitor: Monitor,
    number: int,
    seconds: float = 0.0,
) -> Export:
    """Measure a form that passed, before it is written to the bundle at `place`."""
    monitor.start("measuring the latency of one text", None)
    milliseconds, original_milliseconds = _latencies(passed.classifier, original, texts, number, seconds)
    megabytes = len(passed.network) / 1e6
    return Export(passed.form, place, megabytes, passed.gate, milliseconds, original_milliseconds)


def _latencies(
    exported: TextClassifier, original: TextClassifier, texts: Texts, number: int, seconds: float
) -> tuple[float, float]:
    """The median milliseconds of one text for the exported form and for the original.

    They take turns block by block, so that whatever else the machine does slows both down; not text by text, because
    the threads of one keep spinning for a while when they are done, which takes the cores from the other. Of each text,
    the fastest round counts: beside busy processes, a form that takes half as long as the other had seemed the slower
    one by the medians of all rounds.

    Args:
        exported: predicts with the exported form.
        original: predicts with the original.
        texts: the first of them are predicted, in two rounds or more.
        number: how many.
        seconds: how long there are further rounds.
    """
    first = next(texts.batches(number)) if isinstance(texts, LabelledTexts) else list(texts[:number])
    fastest = np.full((2, len(first)), np.inf)
    begun, rounds = time.perf_counter(), 0
    while rounds < ROUNDS or time.perf_counter() - begun < seconds:
        rounds += 1
        for start in range(0, len(first), BLOCK):
            block = first[start : start + BLOCK]
            for classifier, times in zip((exported, original), fastest, strict=True):
                for text in block[:WARM_UP_TEXTS]:
                    classifier.predict_proba([text])
                for place, text in enumerate(block, start):
                    started = time.perf_counter()
                    classifier.predict_proba([text])
                    times[place] = min(times[place], time.perf_counter() - started)
    exported_median, original_median = (1000 * np.median(fastest, axis=1)).tolist()
    return exported_median, original_median


def _write(bundle: Bundle, found: Export, network: bytes, *, standalone: bool, overwrite: bool) -> None:
    """Add the exported form to the bundle, or write a standalone bundle without the original weights."""
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
    if standalone:
        left_out |= {*find_level(bundle.manifest["level"]).network_files, *(one["file"] for one in others.values())}
        others = {}

    def write(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(network)

    changes = {"exports": {**others, found.form: record}}
    place = found.bundle if standalone else bundle.folder
    rewrite_bundle(bundle, place, changes, write, without=left_out, overwrite=overwrite or not standalone)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's warnings about types in the graph that it cannot infer."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
