"""Predicts every row of several files: `textladder predict --input FOLDER|'PATTERN' --output FOLDER`.

Each file is predicted as by `predict_file`, into a file of the same name. Until all of them are there, a hidden file in
the folder, the record, says which predictions they belong to and which are finished, so that a run that was killed goes
on with the others.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textladder.atomic_files import tidy, write_text
from textladder.classifier import TextClassifier
from textladder.data.file_groups import matching_files, part_files
from textladder.data.row_files import output_format
from textladder.errors import ConfigError, DataError
from textladder.predict_file import check_part, predict_file
from textladder.progress import Monitor


def several_files(source: str | Path) -> list[Path] | None:
    """The files that a folder has or that a pattern such as `in/*.csv` stands for; None if it is a single file.

    Raises:
        DataError: there is none.
    """
    is_folder = os.path.isdir(source)  # unlike those of pathlib, these accept a name that no file can have
    if not is_folder and (os.path.exists(source) or not any(mark in str(source) for mark in "*?[")):
        return None
    try:
        files = part_files(Path(source)) if is_folder else matching_files(str(source))
    except OSError as error:
        raise DataError(f"{source}: the folder cannot be read ({error.strerror or error}).") from None
    if not files:
        raise DataError(f"{source}: no files with rows were found.")
    return files


def predict_folder(
    classifier: TextClassifier,
    sources: Sequence[Path],
    folder: str | Path,
    *,
    overwrite: bool = False,
    monitor: Monitor | None = None,
    part: tuple[int, int] = (1, 1),
    **options: Any,
) -> int:
    """Predict every row of several files.

    Args:
        classifier: a fitted classifier.
        sources: the files.
        folder: where the files are written, under their names from the folder on that all sources are in.
        overwrite: replace existing files, and start over instead of resuming.
        monitor: receives progress.
        part: which part of the files to predict, from 1, and in how many parts they are divided.
        options: as of `predict_file`.

    Returns:
        How many rows are in the files that were written by this call.

    Raises:
        DataError: a file cannot be read or written, or exists.
        ConfigError: a name ends in no format that can be written, or what is in the folder belongs to other
            predictions.
    """
    folder, monitor = Path(folder), monitor or Monitor()
    check_part(part)
    number, parts = part
    if not sources:
        raise DataError("There are no files to predict.")
    inside = Path(os.path.commonpath([path.absolute().parent for path in sources]))
    names = [path.absolute().relative_to(inside).as_posix() for path in sources]
    places = range(len(sources) * (number - 1) // parts, len(sources) * number // parts)
    for name in names:
        output_format(folder / name)
    for both in {path.resolve() for path in sources} & {(folder / name).resolve() for name in names}:
        raise ConfigError(f"{both} is one of the files to read; choose another folder.")
    settings = {name: value for name, value in options.items() if name != "engine"}
    about = json.dumps([classifier.digest, classifier.form, names, settings, parts])
    record = _Record(folder, number, about, overwrite=overwrite, lasting=classifier.digest is not None)
    for place in places:
        record.check(sources[place], folder / names[place])
    rows = 0
    for done, place in enumerate(places, start=1):
        source, target = sources[place], folder / names[place]
        if record.is_finished(target):
            tidy(target, target.with_name(f"{target.name}.partial"))
            monitor.say(f"{target} is finished already.")
            continue
        monitor.begin(f"{source.name} ({done} of {len(places)})")
        state = _state(source)
        record.begin(source, target)
        rows += predict_file(classifier, source, target, overwrite=overwrite, monitor=monitor, **options)
        record.finish(target, state)
    record.end()
    return rows


class _Record:
    """Which outputs of which predictions are finished; the parts of one run have a record each, in the same folder.

    Args:
        folder: where the outputs are.
        part: the number of the part.
        about: what the predictions belong to.
        overwrite: start over.
        lasting: whether the predictions can be known again; those of a classifier that was not saved cannot.
    """

    def __init__(self, folder: Path, part: int, about: str, *, overwrite: bool, lasting: bool) -> None:
        """Read the records in the folder.

        Raises:
            ConfigError: the folder holds unfinished predictions that are others.
        """
        self.folder, self.about, self.overwrite = folder, about, overwrite
        self._finished: dict[str, Any] = {}  # by output, the state of its source and its own
        # the output that is being written, the state of its source, and that of what it replaces
        self._current: Any = None
        self._path = folder / f".predictions-{part}.json"
        for path in sorted(folder.glob(".predictions-*.json")) if folder.is_dir() else ():
            found = self._read(path)
            if overwrite:
                if found["about"] != about or path == self._path:
                    path.unlink(missing_ok=True)
            elif found["about"] != about and found["finished"]:
                raise ConfigError(
                    f"{folder} holds unfinished predictions of other files, by another bundle or with other settings; "
                    "pass overwrite=True to start over, or choose another folder."
                )
            elif path == self._path and found["about"] == about and lasting:
                self._finished = found["finished"]

    def _read(self, path: Path) -> dict[str, Any]:
        """The content of a record, with what was finished as its process was killed."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            finished, about = dict(found["finished"]), str(found["about"])
            if found["current"] is not None:
                target, source, before = found["current"]
                if (now := _state(self.folder / target)) is not None and now != before:
                    finished[target] = [source, now]
        except (OSError, ValueError, TypeError, KeyError):
            return {"about": "", "finished": {"": None}}
        return {"about": about, "finished": finished}

    def check(self, source: Path, target: Path) -> None:
        """Check that an output is finished, or can be written.

        Raises:
            DataError: there is a file that is not overwritten.
            ConfigError: its source has changed since.
        """
        if self.overwrite or not target.exists():
            return
        if not self.is_finished(target):
            raise DataError(f"{target} exists; pass overwrite=True to replace it, or choose another folder.")
        if self._finished[self._name(target)][0] != _state(source):
            raise ConfigError(f"{source} has changed since {target} was written; pass overwrite=True to start over.")

    def is_finished(self, target: Path) -> bool:
        """Whether an output is as it was when it was finished."""
        found = self._finished.get(self._name(target))
        return found is not None and found[1] == _state(target)

    def begin(self, source: Path, target: Path) -> None:
        """Note which output is written now.

        Raises:
            DataError: the folder cannot be made.
        """
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder}: the folder could not be made ({error.strerror or error}).") from None
        self._current = [self._name(target), _state(source), _state(target)]
        self._write()

    def finish(self, target: Path, source_state: list[int] | None) -> None:
        """Note that an output is there."""
        self._finished[self._name(target)], self._current = [source_state, _state(target)], None
        self._write()

    def end(self) -> None:
        """Remove the record: all outputs are there."""
        if self.folder.is_dir():
            self._path.unlink(missing_ok=True)

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()

    def _write(self) -> None:
        content = {"about": self.about, "finished": self._finished, "current": self._current}
        write_text(self._path, json.dumps(content))


def _state(path: Path) -> list[int] | None:
    """The size and the time of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
