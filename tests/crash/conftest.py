"""What the commands that are killed, and those on small disks, work with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def place(
    tmp_path: Path, fitted: Callable[[str], Any], sentences_file: Path, vectors_file: Path, corpus_file: Path
) -> Path:
    """A folder with labelled texts, vectors, texts without labels, and a bundle."""
    folder = tmp_path / "start"
    folder.mkdir()
    for source, name in ((sentences_file, "data.csv"), (vectors_file, "vectors.txt"), (corpus_file, "corpus.txt")):
        (folder / name).write_bytes(source.read_bytes())
    fitted("tfidf").save(folder / "bundle")
    return folder


@pytest.fixture
def place_with_models(place: Path, language_model: Path, encoders: Callable[[str], Path]) -> Path:
    """The same with a language model and an encoder."""
    shutil.copytree(language_model, place / "model")
    shutil.copytree(encoders("bert"), place / "encoder")
    return place
