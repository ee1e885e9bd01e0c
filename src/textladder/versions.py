"""The versions of Python, textladder and its main libraries, recorded with every result."""

import platform
from importlib import metadata

RECORDED = ("textladder", "numpy", "scikit-learn", "torch", "fastai", "transformers", "tokenizers", "spacy")


def versions() -> dict[str, str]:
    """Versions by name: Python's, and those of the recorded libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
