"""The bundle's format on disk: a folder with `textladder.json`, the manifest, and the files that it lists.

`write_bundle` writes a folder completely or not at all. `read_bundle` checks everything before it is used: the format,
every file's digest and the manifest's own. Levels write and read their own files inside; none is a pickle. Digests
detect damage and mix-ups, but not an attacker, who can rewrite the manifest too; what an attacker could put there
(paths, shapes, labels) is checked separately.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from textladder.atomic_files import atomic_folder, part_path, tidy
from textladder.errors import BundleError

MANIFEST = "textladder.json"
FORMAT = 1
MOST_MANIFEST_BYTES = 64 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kind:
    """What a folder with a manifest holds.

    Attributes:
        name: what it is called in the manifest and in messages.
        fields: fields that the manifest must have besides the format, files and digests, with their types.
        optional: fields that it may have.
    """

    name: str
    fields: Mapping[str, type]
    optional: Mapping[str, type] = field(default_factory=dict)


CLASSIFIER = Kind(
    "bundle",
    {
        "level": str,
        "preset": str,
        "labels": list,
        "label_names": list,
        "text_columns": list,
        "label_column": str,
        "config": dict,
        "seed": int,
        "metrics": dict,
        "versions": dict,
        "data": dict,
    },
    {"exports": dict, "label_type": str},
)
LANGUAGE_MODEL = Kind(
    "language model", {"config": dict, "seed": int, "metrics": dict, "versions": dict, "corpora": list}
)
CHECKPOINT = Kind("checkpoint", {"run": str, "seconds": float, "state": dict})


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest and files have been checked.

    Attributes:
        folder: its path.
        manifest: the content of `textladder.json`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, checked against the digest again as they are read.

        Raises:
            BundleError: the file is not listed, or has changed.
        """
        listed = self.manifest["files"]
        if name not in listed:
            raise BundleError(f"{self.folder}: the bundle has no {name}, which this level needs.")
        return _checked_bytes(self.folder, name, listed[name])

    def read_json(self, name: str) -> Any:
        """The content of a listed JSON file.

        Raises:
            BundleError: the file is not listed, has changed, or is not JSON.
        """
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.folder / name}: this is not valid JSON ({error}).") from None

    def read_tensors(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a listed safetensors file.

        Raises:
            BundleError: the file is not listed, has changed, is not a safetensors file, or holds numbers that are not
                finite.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(self.read(name))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{self.folder / name}: this is not a safetensors file ({error}).") from None
        for key, value in tensors.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise BundleError(f"{self.folder / name}: {key[:80]!r} holds numbers that are not finite.")
        return tensors


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Check that a bundle can be written to a path, before any work is done.

    Args:
        path: the folder to write.
        overwrite: whether an existing bundle may be replaced.

    Returns:
        The path.

    Raises:
        BundleError: the path exists and may not be replaced, or the folder above is not writable.
    """
    path = Path(path)
    above = path
    try:
        if path.is_symlink() or path.exists():
            if not overwrite:
                tidy(path)
                raise BundleError(f"{path} exists; pass overwrite=True to replace it, or choose another path.")
            if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
                raise BundleError(f"{path} exists but is not a bundle; not replaced. Choose another path.")
        parent = path.absolute().parent
        above = next(folder for folder in (parent, *parent.parents) if folder.exists())
        *missing, name = path.absolute().relative_to(above).parts
        for tried in (*missing, part_path(Path(name)).name):
            (above / tried).mkdir()
            (above / tried).rmdir()
    except OSError as error:
        raise BundleError(f"{path}: cannot write to {above} ({error.strerror or error}).") from None
    return path


def write_bundle(
    path: str | Path,
    manifest: Mapping[str, Any],
    write_files: Callable[[Path], None],
    *,
    kind: Kind = CLASSIFIER,
    overwrite: bool = False,
) -> Path:
    """Write a folder beside its final path, then rename it.

    Args:
        path: the folder to write.
        manifest: the fields that its kind has.
        write_files: writes the other files into the folder that it is given.
        kind: what the folder holds.
        overwrite: replace an existing bundle.

    Returns:
        The path.

    Raises:
        BundleError: the path exists and may not be replaced, or the disk is full or not writable.
    """
    from safetensors import SafetensorError

    path = check_output(path, overwrite)
    if path.is_symlink():  # what it points to is replaced, and not the link
        path = path.resolve()
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(path) as part:
            write_files(part)
            fields = {name: manifest[name] for name in kind.fields}
            fields |= {name: manifest[name] for name in kind.optional if name in manifest}
            content = {"format": FORMAT, "kind": kind.name, **fields, "files": _digests(part)}
            content["sha256"] = _own_digest(content)
            (part / MANIFEST).write_bytes(_canonical(content))
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: the {kind.name} could not be written ({reason}); nothing was kept.") from None
    return path


def rewrite_bundle(
    bundle: Bundle,
    path: str | Path,
    changes: Mapping[str, Any],
    write_files: Callable[[Path], None],
    *,
    without: Collection[str] = (),
    overwrite: bool = False,
) -> Path:
    """Copy a bundle with changes, in place or elsewhere, completely or not at all.

    Args:
        bundle: the bundle to copy.
        path: the folder to write; the bundle's own folder, with `overwrite`, to change it in place.
        changes: new or changed fields of the manifest.
        write_files: writes the new files into the folder that it is given.
        without: files to leave out.
        overwrite: replace an existing bundle.

    Returns:
        The path.

    Raises:
        BundleError: as for `write_bundle`, or a file of the bundle has changed.
    """

    def write(part: Path) -> None:
        for name in bundle.manifest["files"]:
            if name not in without:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(bundle.read(name))
        write_files(part)

    return write_bundle(path, {**bundle.manifest, **changes}, write, overwrite=overwrite)


def read_consistently(path: str | Path, read: Callable[[], Result]) -> Result:
    """Read a folder that another process may be replacing: once more, if it was replaced meanwhile.

    Args:
        path: the folder.
        read: reads it.

    Raises:
        BundleError: as `read` raises it, of a folder that stayed the same.
    """
    while True:
        before = _identity(Path(path))
        try:
            return read()
        except BundleError:
            if _identity(Path(path)) == before:
                raise


def read_bundle(path: str | Path, kind: Kind = CLASSIFIER) -> Bundle:
    """Check a bundle, or a folder of another kind.

    Args:
        path: the folder.
        kind: what it must hold.

    Raises:
        BundleError: it is missing, damaged, altered, newer than this textladder, or refers to files outside its folder.
    """
    return read_consistently(path, lambda: _read_bundle(Path(path), kind))


def _read_bundle(folder: Path, kind: Kind) -> Bundle:
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such {kind.name}.")
    try:
        raw = _plain_bytes(folder / MANIFEST, MOST_MANIFEST_BYTES)
        manifest = json.loads(raw)
    except FileNotFoundError:
        raise BundleError(f"{folder}: this is not a {kind.name}: it has no {MANIFEST}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST}: the manifest cannot be read ({error}).") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise BundleError(f"{folder / MANIFEST}: this is not a textladder manifest.")
    if manifest["format"] > FORMAT:
        raise BundleError(
            f"{folder}: the {kind.name} has format {manifest['format']}, but this textladder reads up to {FORMAT}; "
            "install a newer textladder."
        )
    if manifest["format"] < 1:
        raise BundleError(f"{folder}: unknown bundle format {manifest['format']}.")
    # The bytes must be exactly those that would be written, so that not even a space can change unnoticed.
    if manifest.get("sha256") != _own_digest(manifest) or raw != _canonical(manifest):
        raise BundleError(f"{folder / MANIFEST}: the manifest was altered or damaged (its digest does not match).")
    found = manifest.get("kind", CLASSIFIER.name)
    if found != kind.name:
        raise BundleError(f"{folder}: expected a {kind.name}, found a {str(found)[:40]}.")
    _check_fields(folder, manifest, kind)
    for name, digest in manifest["files"].items():
        _checked_bytes(folder, name, digest)
    return Bundle(folder, manifest)


def _check_fields(folder: Path, manifest: Mapping[str, Any], kind: Kind) -> None:
    for name, wanted in {**kind.fields, "files": dict}.items():
        if not isinstance(manifest.get(name), wanted):
            raise BundleError(f"{folder / MANIFEST}: the manifest's {name!r} is missing or has the wrong type.")
    for name, wanted in kind.optional.items():
        if not isinstance(manifest.get(name, wanted()), wanted):
            raise BundleError(f"{folder / MANIFEST}: the manifest's {name!r} has the wrong type.")
    if kind is not CLASSIFIER:
        return
    labels, shown = manifest["labels"], manifest["label_names"]
    for values in (labels, shown, manifest["text_columns"]):
        if not all(isinstance(value, str) for value in values):
            raise BundleError(f"{folder / MANIFEST}: labels and columns must be strings.")
    if len(set(labels)) != len(labels) or len(labels) < 2 or len(shown) != len(labels):
        raise BundleError(f"{folder / MANIFEST}: there must be at least two different labels, each with a name.")


def _checked_bytes(folder: Path, name: str, digest: object) -> bytes:
    path = folder / name
    parts = Path(name).parts
    links = any((folder / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts)))
    if not parts or Path(name).is_absolute() or ".." in parts or links or path.is_symlink():
        raise BundleError(f"{folder}: the manifest lists {name!r}, which leaves the bundle's folder.")
    try:
        data = _plain_bytes(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: this file of the bundle is missing.") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: this file of the bundle cannot be read ({error}).") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{path}: the file was altered, damaged or truncated (its digest does not match).")
    return data


def _plain_bytes(path: Path, most: int | None = None) -> bytes:
    """The bytes of a file that is neither a link nor a device, at most so many.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else, or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a plain file")
        if found.st_size > (_memory() if most is None else most):  # a file of holes takes no disk
            raise ValueError(f"it has {found.st_size:,} bytes")
        return stream.read()


def _memory() -> int:
    """Bytes of this machine's memory, or more than any file has where that is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def _identity(folder: Path) -> tuple[int, int] | None:
    """What differs between a folder and one that replaced it; None if there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({name: value for name, value in manifest.items() if name != "sha256"})).hexdigest()


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
