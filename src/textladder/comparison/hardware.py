"""The machine that figures were measured on, and how much of its memory this process has used."""

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from textladder.cores import available_cores

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # the instruction sets that change training times most


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in gigabytes and operating system, as far as the system reports them."""
    found: dict[str, Any] = {"processor": platform.processor() or platform.machine(), "system": platform.system()}
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        found["processor"] = facts.get("model name", found["processor"])
        flags = set(facts.get("flags", "").split())
        found["cpu_features"] = [name for name in CPU_FEATURES if name in flags]
    found["cores"] = available_cores()
    with suppress(ValueError, OSError, AttributeError):
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return found


def peak_memory_mb() -> float | None:
    """The most memory this process has held so far, in megabytes; None if the system does not report it."""
    with suppress(OSError):  # Linux, where getrusage would count the parent's memory too
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
