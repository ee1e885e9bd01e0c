"""Engines run functions in other processes.

What is submitted, in which order results are used and what survives a crash is decided by the caller; an engine only
finds a place to compute.
"""

from textladder.engines.base import Engine, EngineError
from textladder.errors import ConfigError, unknown_name

ENGINES = ("local",)

__all__ = ["ENGINES", "Engine", "EngineError", "open_engine"]


def open_engine(name: str, workers: int | None = None) -> Engine:
    """Make an engine.

    Args:
        name: one of ENGINES.
        workers: how many processes it has; None for one for each core.

    Raises:
        ConfigError: there is no such engine, or no such number of processes.
    """
    if name not in ENGINES:
        raise ConfigError(unknown_name("engine", name, ENGINES))
    from textladder.engines.local import LocalEngine

    return LocalEngine(workers)
