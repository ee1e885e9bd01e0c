"""An exported network, run by ONNX Runtime, which predicts without torch.

To the rest of the program it is just another `scoring.Scorer`: arrays in, logits out.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from textladder.cores import BATCH_TOKENS, available_cores, in_background, map_over_cores
from textladder.errors import BundleError, first_line
from textladder.onnx_check import check_onnx

FLOAT32, INT8 = "onnx-float32", "onnx-int8"  # names of the exported forms


class ExportedNetwork:
    """An exported network, from arrays to logits, float32 (sequences, classes).

    Args:
        content: the content of the ONNX file.
        inputs: names of the arrays that it takes, in order.
        classes: the expected number of classes.
        cores: cores for one batch; None for all.
        one_by_one: as in `scoring.Scorer`. Dynamic int8 quantization uses one scale for a whole batch, so a text's
            prediction would depend on the others of its batch.

    Raises:
        BundleError: the content is not a network, holds what `onnx_check` refuses, or has other inputs or classes.
    """

    def __init__(
        self,
        content: bytes,
        inputs: tuple[str, ...],
        classes: int,
        *,
        cores: int | None = None,
        one_by_one: bool = False,
    ) -> None:
        self.inputs, self.one_by_one, self._content = inputs, one_by_one, content
        self.batch_tokens = BATCH_TOKENS
        self._cores = cores or available_cores()
        check_onnx(content)
        self._session = _session(content, self._cores)
        taken = tuple(one.name for one in self._session.get_inputs())
        shapes = {one.name: one.shape for one in self._session.get_outputs()}
        if set(taken) != set(inputs) or len(shapes.get("logits", [])) != 2 or shapes["logits"][1] != classes:
            raise BundleError(
                f"The exported network takes {', '.join(taken)} and returns {shapes}; expected {', '.join(inputs)} and "
                f"{classes} logits. Export it again."
            )

    def run(self, *arrays: np.ndarray) -> np.ndarray:
        """The logits of one batch.

        Raises:
            BundleError: the network fails on these arrays, so it does not belong to the level's tokenizer.
        """
        return self._run(self._session, arrays)

    def score(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The logits of each batch; several batches are computed in parallel, one per core."""
        several = list(batches)
        if available_cores() == 1 or (len(several) == 1 and not in_background()):
            return [self.run(ids) for ids in several]
        return map_over_cores(lambda ids: self._run(self._on_one_core, (ids,)), several, available_cores())

    @cached_property
    def _on_one_core(self) -> Any:
        return self._session if self._cores == 1 else _session(self._content, 1)

    def _run(self, session: Any, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        try:
            logits: np.ndarray = session.run(["logits"], dict(zip(self.inputs, arrays, strict=True)))[0]
        except Exception as error:  # the library's errors have no common base
            raise BundleError(f"The exported network failed on a batch ({first_line(error)}).") from None
        return logits


def _session(content: bytes, cores: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    # Microseconds that a thread without work keeps its core busy. By default it is milliseconds, which a thread with
    # work waits for if other processes are busy too: ulmfit took 3 times as long beside them, and takes 2.2 times.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    options.log_severity_level = 3  # errors only; nobody can act on its warnings
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors have no common base
        raise BundleError(f"The exported network cannot be read ({first_line(error)}).") from None
