"""Which versions of itself and of the libraries that matter a result was made with."""

import platform
from importlib import metadata

RECORDED = ("textladder", "numpy", "scikit-learn", "torch", "fastai", "transformers", "tokenizers", "spacy")


def versions() -> dict[str, str]:
    """Python's and those of the recorded libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
