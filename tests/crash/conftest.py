"""What the commands that are killed, and those on small disks, work with."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def place_with_models(place: Path, language_model: Path, encoders: Callable[[str], Path]) -> Path:
    """The same with a language model and an encoder."""
    shutil.copytree(language_model, place / "model")
    shutil.copytree(encoders("bert"), place / "encoder")
    return place
