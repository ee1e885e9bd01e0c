"""What machine a figure was measured on."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from textladder.cores import available_cores


def hardware() -> dict[str, Any]:
    """Processor, cores that may be used, memory in gigabytes and operating system, as far as they can be told."""
    found: dict[str, Any] = {"processor": platform.processor() or platform.machine(), "system": platform.system()}
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        found["processor"] = facts.get("model name", found["processor"])
        flags = set(facts.get("flags", "").split())
        found["vectors"] = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    found["cores"] = available_cores()
    with suppress(ValueError, OSError, AttributeError):
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return found
