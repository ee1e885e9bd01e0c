"""How many cores this process may use, and work spread over them.

The one place that counts cores; everything that starts threads or processes asks here.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# A larger batch is slower: what lies between the layers leaves the caches. Rows per second of Amazon reviews, two
# cores, 1,024 tokens and 32,768: lstm 1,860 and 860, ulmfit 89 and 38, transformer 50 and 18 (float32, ONNX).
BATCH_TOKENS = 1024
THREADS = "OMP_NUM_THREADS"  # which torch obeys
LOWEST_PRIORITY = 19
_thread = threading.local()


def available_cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS, which torch obeys, overrides them here too."""
    chosen = os.environ.get(THREADS, "")
    if chosen.isdigit() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def enter_background() -> None:
    """Let this thread, and those that it starts, compute only where cores would be idle otherwise.

    Each of its batches is computed on one core, because a library's threads are shared with the other threads of the
    process and would compute with their priority. The priority of a thread can be lowered on Linux only.
    """
    _thread.background = True
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)


def in_background() -> bool:
    """Whether this thread has called `enter_background`."""
    return getattr(_thread, "background", False)


def threads_environment(threads: int) -> dict[str, str]:
    """The environment variables of a process whose torch and ONNX Runtime are to use that many threads."""
    return {THREADS: str(threads)}


def map_over_cores(
    score: Callable[[np.ndarray], np.ndarray],
    batches: Sequence[np.ndarray],
    cores: int,
    initializer: Callable[[], None] = lambda: None,
) -> list[np.ndarray]:
    """The logits of each batch, as many batches at a time as there are cores.

    Args:
        score: the logits of one batch, computed on one core.
        batches: of any sizes; the largest go first, so that no core is idle for long at the end.
        cores: how many threads.
        initializer: called once in each thread.

    Returns:
        One array per batch, in the order of `batches`.
    """
    order = sorted(range(len(batches)), key=lambda index: -batches[index].size)
    with ThreadPoolExecutor(cores, initializer=initializer) as pool:
        found = dict(zip(order, pool.map(score, (batches[index] for index in order)), strict=True))
    return [found[index] for index in range(len(batches))]
