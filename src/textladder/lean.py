"""An exported network, run by ONNX Runtime: what predicts where there is no torch.

Stands beside `batching`: to the rest it is a scorer like another, arrays in and logits out.
"""

import os

import numpy as np

from textladder.errors import BundleError


class ExportedNetwork:
    """Token numbers to logits, float32 (sequences, classes).

    Args:
        content: the ONNX file.
        inputs: the names of the arrays that it takes, in their order.
        classes: how many classes there must be.

    Raises:
        BundleError: it is no network, or one of other inputs or classes.
    """

    def __init__(self, content: bytes, inputs: tuple[str, ...], classes: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3  # errors; what it warns of, nobody here can mend
        self.inputs = inputs
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's errors have no common base
            raise BundleError(f"The exported network cannot be read ({_first_line(error)}).") from None
        taken = tuple(one.name for one in self._session.get_inputs())
        shapes = {one.name: one.shape for one in self._session.get_outputs()}
        if set(taken) != set(inputs) or len(shapes.get("logits", [])) != 2 or shapes["logits"][1] != classes:
            raise BundleError(f"The exported network takes {taken} and gives {shapes}, which does not fit.")

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The logits.

        Raises:
            BundleError: it does not take them, so it is not this text side's.
        """
        try:
            logits: np.ndarray = self._session.run(["logits"], dict(zip(self.inputs, arrays, strict=True)))[0]
        except Exception as error:  # the library's errors have no common base
            raise BundleError(f"The exported network failed on a batch ({_first_line(error)}).") from None
        return logits


def threads() -> int:
    """As many as this process may use; OMP_NUM_THREADS, which torch obeys, says it here too."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
