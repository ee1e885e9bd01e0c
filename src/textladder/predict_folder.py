"""Predicts every row of several files: `textladder predict --input FOLDER|'PATTERN' --output FOLDER`.

Each file is predicted as by `predict_file`, into a file of the same name. A hidden file in the folder says what the
outputs belong to until all of them are there, so that a run that was killed goes on with the files that are not.
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
from textladder.predict_file import predict_file
from textladder.progress import Monitor


def several_files(source: str | Path) -> list[Path] | None:
    """The files that a folder has or that a pattern such as `in/*.csv` stands for; None if it is a single file.

    Raises:
        DataError: there is none.
    """
    is_folder = Path(source).is_dir()
    if not is_folder and (Path(source).exists() or not any(mark in str(source) for mark in "*?[")):
        return None
    files = part_files(Path(source)) if is_folder else matching_files(str(source))
    if not files:
        raise DataError(f"{source}: there are no files of rows.")
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
    number, parts = part
    if not 1 <= number <= parts:
        raise ConfigError(f"`part=` must be from 1 to the number of parts; received {number} of {parts}.")
    inside = Path(os.path.commonpath([path.resolve().parent for path in sources]))
    own = sources[len(sources) * (number - 1) // parts : len(sources) * number // parts]
    targets = {path: folder / path.resolve().relative_to(inside) for path in own}
    for path, target in targets.items():
        output_format(target)
        if target.resolve() == path.resolve():
            raise ConfigError(f"{target} is one of the files to read; choose another folder.")
    settings = {name: value for name, value in options.items() if name != "engine"}
    states = {str(path.resolve()): [path.stat().st_size, path.stat().st_mtime_ns] for path in own}
    about = {"bundle": [classifier.digest, classifier.form], "settings": settings, "sources": states}
    mark = folder / f".predictions-{number}-of-{parts}.json"
    resumes = not overwrite and _resumes(mark, about, targets)
    try:
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the folder could not be made ({error.strerror or error}).") from None
    if own:
        write_text(mark, json.dumps(about))
    rows = 0
    for place, (path, target) in enumerate(targets.items(), start=1):
        if resumes and target.exists():
            tidy(target, target.with_name(f"{target.name}.partial"))
            monitor.say(f"{target} is there already.")
            continue
        monitor.begin(f"{path.name} ({place} of {len(targets)})")
        rows += predict_file(classifier, path, target, overwrite=overwrite, monitor=monitor, **options)
    mark.unlink(missing_ok=True)
    return rows


def _resumes(mark: Path, about: dict[str, Any], targets: dict[Path, Path]) -> bool:
    """Whether the folder holds the beginning of these predictions; a file that is not predicted may have changed.

    Raises:
        DataError: a file exists that is none of theirs.
        ConfigError: it holds the beginning of other ones.
    """
    existing = {str(path.resolve()): target for path, target in targets.items() if target.exists()}
    if not mark.is_file() or about["bundle"][0] is None:  # a classifier that was not saved is never the same
        if existing:
            first = next(iter(existing.values()))
            raise DataError(f"{first} exists; pass overwrite=True to replace it, or choose another folder.")
        return False
    try:
        found = dict(json.loads(mark.read_text(encoding="utf-8")))
        then = dict(found.pop("sources"))
    except (ValueError, TypeError, KeyError):
        found, then = {}, {}
    now = about["sources"]
    rest = {name: value for name, value in about.items() if name != "sources"}
    if found != json.loads(json.dumps(rest)) or set(then) != set(now) or any(then[one] != now[one] for one in existing):
        raise ConfigError(
            f"{mark.parent} holds the beginning of other predictions: of different files, another bundle or other "
            "settings; pass overwrite=True to start over, or choose another folder."
        )
    return True
