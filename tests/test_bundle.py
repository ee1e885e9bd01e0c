"""A bundle that is not exactly what was saved is refused."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from textladder import TextClassifier
from textladder.bundle import MANIFEST, _canonical, _own_digest, read_bundle
from textladder.errors import BundleError
from textladder.levels import LEVELS

Fit = Callable[[str], Any]


@pytest.fixture(params=list(LEVELS))
def bundle(request: pytest.FixtureRequest, fitted: Fit, tmp_path: Path) -> Path:
    path: Path = fitted(str(request.param)).save(tmp_path / "bundle")
    return path


def forge(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as somebody would who knows the format."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    manifest["sha256"] = _own_digest(manifest)
    (bundle / MANIFEST).write_bytes(_canonical(manifest))


def refused(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        TextClassifier.load(bundle)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_flipped_byte_is_seen(bundle: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted(bundle.iterdir()):
        data = file.read_bytes()
        places = rng.integers(0, len(data), 400 if file.name == MANIFEST else 40).tolist()
        for place in places:
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            with pytest.raises(BundleError):
                read_bundle(bundle)
        file.write_bytes(data)
    TextClassifier.load(bundle)


def test_missing_and_cut_files(bundle: Path, tmp_path: Path) -> None:
    for file in sorted(bundle.iterdir()):
        copy = tmp_path / "copy"
        shutil.copytree(bundle, copy)
        (copy / file.name).write_bytes(file.read_bytes()[:-7])
        refused(copy)
        (copy / file.name).unlink()
        assert file.name in refused(copy)
        shutil.rmtree(copy)


def test_a_newer_format(bundle: Path) -> None:
    forge(bundle, lambda manifest: manifest.update(format=2))
    assert "format 2" in refused(bundle)


def test_labels_that_do_not_match_the_head(bundle: Path) -> None:
    forge(bundle, lambda manifest: manifest.update(labels=["a", "b", "c"], label_names=["a", "b", "c"]))
    assert "labels" in refused(bundle)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname", "sub/../../outside.json", "link.json"])
def test_paths_that_leave_the_folder(bundle: Path, name: str) -> None:
    outside = bundle.parent / "outside.json"
    outside.write_text("[]")
    (bundle / "link.json").symlink_to(outside)
    digest = hashlib.sha256(b"[]").hexdigest()
    forge(bundle, lambda manifest: manifest["files"].update({name: digest}))
    assert "leaves the bundle's folder" in refused(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"level": "bert"},
        {"preset": "none"},
        {"config": {"nonsense": 1}},
        {"config": {"class_weights": "strange"}},
        {"labels": ["a", "a"]},
        {"labels": [1, 2]},
        {"label_names": ["one"]},
        {"seed": "x"},
        {"seed": -1},
        {"files": {}},
        {"text_columns": None},
    ],
)
def test_forged_manifests(bundle: Path, change: dict[str, Any]) -> None:
    forge(bundle, lambda manifest: manifest.update(change))
    refused(bundle)


@pytest.mark.parametrize("bundle", ["lstm"], indirect=True)  # test_transformer.py has its own
def test_forged_weights_and_words(bundle: Path) -> None:
    """Files that are valid by themselves but do not fit together."""
    words = json.loads((bundle / "vocabulary.json").read_text())
    for wrong in (words[:-1], [*words, 3], {"a": 1}, "text", [*words[:-1], words[2]]):
        (bundle / "vocabulary.json").write_text(json.dumps(wrong))
        digest = hashlib.sha256((bundle / "vocabulary.json").read_bytes()).hexdigest()
        forge(bundle, lambda manifest, digest=digest: manifest["files"].update({"vocabulary.json": digest}))
        refused(bundle)


def test_weights_that_are_not_finite(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    tensors = load_file(path)
    for wrong in (np.nan, np.inf):
        name = next(key for key, value in tensors.items() if value.dtype.kind == "f")
        changed = tensors[name].copy()
        changed.flat[-1] = wrong
        save_file({**tensors, name: changed}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        forge(bundle, lambda manifest, digest=digest: manifest["files"].update({path.name: digest}))
        assert "holds numbers that are not finite" in refused(bundle)


@pytest.mark.parametrize("kind", ["fifo", "link", "device", "folder"])
def test_what_is_no_plain_file(bundle: Path, tmp_path: Path, kind: str) -> None:
    for name in sorted(path.name for path in bundle.iterdir()):
        copy = tmp_path / f"copy-{name}"
        shutil.copytree(bundle, copy)
        (copy / name).unlink()
        if kind == "fifo":
            os.mkfifo(copy / name)
        elif kind == "link":
            (copy / name).symlink_to(bundle / name)
        elif kind == "device":
            (copy / name).symlink_to("/dev/zero")
        else:
            (copy / name).mkdir()
        refused(copy)


def test_a_file_of_holes_larger_than_the_memory(fitted: Fit, tmp_path: Path) -> None:
    bundle = fitted("tfidf").save(tmp_path / "bundle")
    with open(bundle / "model.safetensors", "r+b") as stream:
        stream.truncate(2**43)
    begun = time.monotonic()
    assert "it has 8,796,093,022,208 bytes" in refused(bundle)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("bundle", ["tfidf"], indirect=True)
def test_forged_hashes(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    tensors = load_file(path)
    hashes = tensors["words_hashes"]
    for wrong in (hashes[:-1], hashes[::-1].copy(), hashes.astype(np.int64), hashes[:, None]):
        save_file({**tensors, "words_hashes": wrong}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        forge(bundle, lambda manifest, digest=digest: manifest["files"].update({"model.safetensors": digest}))
        refused(bundle)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"format": "1"}', "{" * 5000, "\xff"])
def test_manifests_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content, encoding="latin-1")
    refused(tmp_path)


def test_no_bundle(tmp_path: Path) -> None:
    assert "no such bundle" in refused(tmp_path / "nowhere")
    assert f"has no {MANIFEST}" in refused(tmp_path)


def test_an_output_that_exists(bundle: Path, fitted: Fit) -> None:
    level = json.loads((bundle / MANIFEST).read_text())["level"]
    with pytest.raises(BundleError, match="overwrite=True"):
        fitted(level).save(bundle)
    fitted(level).save(bundle, overwrite=True)
    TextClassifier.load(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_what_is_no_bundle_is_never_replaced(fitted: Fit, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(BundleError, match="is not a bundle; not replaced"):
        fitted("tfidf").save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "words"


def test_a_full_disk_leaves_nothing(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    old = fitted("tfidf").save(tmp_path / "bundle")
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    for overwrite, name in ((True, "bundle"), (False, "other")):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            with pytest.raises(BundleError, match=r"No space left on device\); nothing was kept"):
                fitted("tfidf").save(tmp_path / name, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(fitted: Fit, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BundleError, match="cannot write to"):
        fitted("tfidf").save(tmp_path / "bundle")
    tmp_path.chmod(0o700)
