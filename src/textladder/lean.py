"""An exported network, run by ONNX Runtime: what predicts where there is no torch.

Stands beside `batching`: to the rest it is a scorer like another, arrays in and logits out.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from textladder.errors import BundleError

# A larger batch is slower: what lies between the layers leaves the caches. Rows a second of Amazon reviews, two cores,
# 1,024 beside 32,768 tokens: lstm 1,860 and 860, ulmfit 89 and 38, transformer 50 and 18 (float32, ONNX).
BATCH_TOKENS = 1024
FLOAT32, INT8 = "onnx-float32", "onnx-int8"  # the exported forms


class ExportedNetwork:
    """Token numbers to logits, float32 (sequences, classes).

    Args:
        content: the ONNX file.
        inputs: the names of the arrays that it takes, in their order.
        classes: how many classes there must be.
        alone: as of `batching.Scorer`. What is made int8 as it comes has one scale for all that comes together, so that
            a text's answer would depend on its batch.

    Raises:
        BundleError: it is no network, or one of other inputs or classes.
    """

    def __init__(self, content: bytes, inputs: tuple[str, ...], classes: int, *, alone: bool = False) -> None:
        self.inputs, self.alone, self._content = inputs, alone, content
        self.batch_tokens = BATCH_TOKENS
        self._session = _session(content, threads())
        taken = tuple(one.name for one in self._session.get_inputs())
        shapes = {one.name: one.shape for one in self._session.get_outputs()}
        if set(taken) != set(inputs) or len(shapes.get("logits", [])) != 2 or shapes["logits"][1] != classes:
            raise BundleError(f"The exported network takes {taken} and gives {shapes}, which does not fit.")

    def run(self, *arrays: np.ndarray) -> np.ndarray:
        """The logits of one batch.

        Raises:
            BundleError: it does not take them, so it is not this text side's.
        """
        return self._run(self._session, arrays)

    def score(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The logits of batch after batch; of several side by side, each on a core."""
        several = list(batches)
        if len(several) == 1 or threads() == 1:
            return [self.run(ids) for ids in several]
        return side_by_side(lambda ids: self._run(self._on_one_core, (ids,)), several, threads())

    @cached_property
    def _on_one_core(self) -> Any:
        return _session(self._content, 1)

    def _run(self, session: Any, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        try:
            logits: np.ndarray = session.run(["logits"], dict(zip(self.inputs, arrays, strict=True)))[0]
        except Exception as error:  # the library's errors have no common base
            raise BundleError(f"The exported network failed on a batch ({_first_line(error)}).") from None
        return logits


def _session(content: bytes, cores: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.log_severity_level = 3  # errors; what it warns of, nobody here can mend
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors have no common base
        raise BundleError(f"The exported network cannot be read ({_first_line(error)}).") from None


def side_by_side(
    score: Callable[[np.ndarray], np.ndarray],
    batches: Sequence[np.ndarray],
    cores: int,
    begin: Callable[[], None] = lambda: None,
) -> list[np.ndarray]:
    """The logits of each batch, as many at a time as there are cores.

    Args:
        score: the logits of a batch, computed on one core.
        batches: of any sizes; the largest are begun with, so that at the end no core waits for long.
        cores: how many.
        begin: is called in each thread before it computes.
    """
    order = sorted(range(len(batches)), key=lambda place: -batches[place].size)
    with ThreadPoolExecutor(cores, initializer=begin) as pool:
        found = dict(zip(order, pool.map(score, (batches[place] for place in order)), strict=True))
    return [found[place] for place in range(len(batches))]


def threads() -> int:
    """As many as this process may use; OMP_NUM_THREADS, which torch obeys, says it here too."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
