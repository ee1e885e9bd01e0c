"""Checkpoints of a training run: weights, the optimizer's moments and the record, written completely or not at all.

A run restored from one continues with the same numbers as if it had never stopped, provided that its callbacks
make an epoch depend on its number alone (`callbacks.Resumable`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastai.learner import Learner

from textladder.bundle import CHECKPOINT, read_bundle, write_bundle
from textladder.errors import BundleError, ConfigError
from textladder.training.callbacks import History

STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        parts: finished parts of the training.
        seconds: how long they took.
    """

    parts: int = 0
    seconds: float = 0.0


def write_checkpoint(path: Path, learner: Learner, history: History, *, run: str, progress: Progress) -> None:
    """Write the checkpoint of a run, replacing the previous one.

    Args:
        path: the folder.
        learner: its model and its optimizer's moments.
        history: the record and the best weights.
        run: what identifies the run: its data, settings and seed.
        progress: how far it has come.
    """
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value for name, value in learner.model.state_dict().items()}
    for number, moments in learner.opt.state_dict()["state"].items():
        tensors |= {f"moments.{number}.{name}": value for name, value in moments.items()}
    tensors |= {f"best.{name}": value for name, value in (history.best_weights or {}).items()}

    def write(folder: Path) -> None:
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / STATE_FILE)

    manifest = {"run": run, "parts": progress.parts, "seconds": progress.seconds, **history.state()}
    write_bundle(path, manifest, write, kind=CHECKPOINT, overwrite=True)


def restore_checkpoint(path: Path, learner: Learner, history: History, *, run: str) -> Progress:
    """Restore a run from its checkpoint.

    Args:
        path: the folder.
        learner: with the same model and optimizer; they are overwritten.
        history: is overwritten too.
        run: what identifies the run.

    Raises:
        BundleError: the checkpoint is damaged.
        ConfigError: it belongs to another run.
    """
    advice = "pass overwrite=True to start over, or delete it"
    try:
        checkpoint = read_bundle(path, CHECKPOINT)
    except BundleError as error:
        raise BundleError(f"{error} It cannot be resumed; {advice}.") from None
    if checkpoint.manifest["run"] != run:
        raise ConfigError(f"{path} belongs to a run with different documents, settings or seed; {advice}.")
    tensors: dict[str, dict[str, Any]] = {"model": {}, "moments": {}, "best": {}}
    for name, value in checkpoint.read_tensors(STATE_FILE).items():
        kind, _, rest = name.partition(".")
        tensors[kind][rest] = torch.from_numpy(value)
    learner.model.load_state_dict(tensors["model"])
    moments: dict[int, dict[str, Any]] = {}
    for name, value in tensors["moments"].items():
        number, _, kind = name.partition(".")
        moments.setdefault(int(number), {})[kind] = value
    learner.opt.load_state_dict({**learner.opt.state_dict(), "state": moments})
    parts: int = checkpoint.manifest["parts"]
    history.restore(checkpoint.manifest, tensors["best"] or None, finished_epochs=parts)
    return Progress(parts, checkpoint.manifest["seconds"])
