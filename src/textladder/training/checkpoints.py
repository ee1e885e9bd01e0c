"""Checkpoints of a fit: everything that it takes to go on as if it had never stopped.

A fit is one run of stages or several (`stages.run_stages`), such as those of a language model in two directions and of
the classifier. Each has a folder with its weights, the optimizer's moments, gradients not used yet, random states, the
record, and the place in the order of the rows; written whole or not at all. On a CPU, with as many threads, a fit that
was killed and resumed ends with the same weights, bit for bit.
"""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from torch import Tensor, nn

from textladder.atomic_files import discard, sweep, tidy
from textladder.bundle import CHECKPOINT, MANIFEST, read_bundle, write_bundle
from textladder.errors import BundleError, ConfigError
from textladder.training.callbacks import History
from textladder.wording import short

STATE_FILE = "state.safetensors"
LONGEST = 300.0  # seconds between two checkpoints
COST = 50.0  # at the end of an epoch one is written if the time since the last is this many times what writing takes
BYTES_PER_SECOND = 2e8  # of writing, until it has been measured
ROOM = 10  # times the weights: two checkpoints with moments and the best weights, the bundle, and the one it replaces


class FitCheckpoint:
    """The checkpoints of one fit.

    Args:
        folder: where they are kept.
        about: what identifies the fit, as JSON: its rows, settings, seed and versions.
        fresh: delete what an earlier run kept, instead of resuming.
    """

    def __init__(self, folder: Path, about: Any, *, fresh: bool = False) -> None:
        """Find out whether there is anything to resume.

        Raises:
            ConfigError: the folder holds the checkpoints of another fit, or something else.
            BundleError: a checkpoint is damaged.
        """
        self.folder = folder
        sweep(folder)
        self.run = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        if folder.exists() and not holds_checkpoints(folder):
            raise ConfigError(f"{folder} is not a checkpoint; delete or rename it.")
        if fresh:
            self.remove()
        self.seconds = 0.0  # that the fit took in earlier processes
        self._parts = 0
        self._started = self._written = time.monotonic()
        self._cost: float | None = None
        for part in _visible(folder) if folder.exists() else ():
            if self._read(part).manifest["run"] != self.run:
                raise ConfigError(
                    f"{folder} belongs to a training with other rows, settings or versions; pass fresh=True to start "
                    "over, or delete it."
                )

    def next_part(self) -> "PartCheckpoint":
        """The checkpoint of the fit's next run of stages."""
        self._parts += 1
        return PartCheckpoint(self, self.folder / f"part-{self._parts}")

    def remove(self) -> None:
        """Delete the checkpoints."""
        discard(self.folder)

    @property
    def elapsed(self) -> float:
        """Seconds that the fit has taken, in earlier processes too."""
        return self.seconds + time.monotonic() - self._started

    def check_room(self, size: int) -> None:
        """Refuse to begin where neither a checkpoint nor the result could be written.

        Args:
            size: bytes of the weights.

        Raises:
            ConfigError: the disk is too full.
        """
        above = next(one for one in self.folder.absolute().parents if one.exists())
        free, needed = shutil.disk_usage(above).free, ROOM * size
        if free < needed:
            raise ConfigError(
                f"{above}: {short(free / 1e6)} MB are free, but checkpoints of this training and its result need "
                f"{short(needed / 1e6)} MB."
            )

    def is_due(self, size: int, *, longest: bool) -> bool:
        """Whether to write a checkpoint now.

        Args:
            size: bytes of the weights.
            longest: only if the last one was long ago; else also if writing takes little of the time since then.
        """
        passed = time.monotonic() - self._written
        cost = 4 * size / BYTES_PER_SECOND if self._cost is None else self._cost
        return passed >= LONGEST or (not longest and passed >= COST * cost)

    def write(self, path: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write the checkpoint of a part, replacing the previous one."""
        from safetensors.torch import save_file

        begun = time.monotonic()

        def write(folder: Path) -> None:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / STATE_FILE)

        manifest = {"run": self.run, "seconds": self.elapsed, "state": dict(state)}
        write_bundle(path, manifest, write, kind=CHECKPOINT, overwrite=True)
        self._written = time.monotonic()
        self._cost = self._written - begun

    def read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The state and the tensors of a part's checkpoint; None if there is none."""
        if not path.exists():
            return None
        found = self._read(path)
        self.seconds = max(self.seconds, found.manifest["seconds"])
        return found.manifest["state"], {
            name: torch.from_numpy(value.copy()) for name, value in found.read_tensors(STATE_FILE).items()
        }

    def _read(self, path: Path) -> Any:
        try:
            return read_bundle(path, CHECKPOINT)
        except BundleError as error:
            raise BundleError(f"{error} It cannot be resumed; pass fresh=True to start over, or delete it.") from None


class PartCheckpoint:
    """The checkpoint of one run of stages.

    Args:
        fit: of which it is a part.
        path: its folder.
    """

    def __init__(self, fit: FitCheckpoint, path: Path) -> None:
        self.fit, self.path = fit, path
        self._found = fit.read(path)

    @property
    def state(self) -> dict[str, Any] | None:
        """What an earlier process kept; None if it came not as far."""
        return None if self._found is None else self._found[0]

    def restore_weights(self, learner: Learner, history: History) -> None:
        """Set the weights, the optimizer's moments and the record of what was trained before."""
        assert self._found is not None
        state, tensors = self._found
        learner.model.load_state_dict(_with_prefix(tensors, "model."))
        if learner.opt is not None and state["moments"] is not None:
            moments = _unpacked(state["moments"], tensors)
            learner.opt.load_state_dict({**learner.opt.state_dict(), "state": moments})
        history.restore(state["history"], _with_prefix(tensors, "best.") or None)

    def restore_place(self, learner: Learner) -> None:
        """Go to the place in the order of the rows, with the random states there, and what was carried over to it."""
        assert self._found is not None
        state, tensors = self._found
        learner.dls.train.restore(state["place"])
        for name, parameter in learner.model.named_parameters():
            gradient = tensors.get(f"gradient.{name}")
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        for callback in learner.cbs:
            if hasattr(callback, "n_acc"):  # fastai's accumulation of gradients
                callback.count = state["accumulated"]
        if state["carried"] is not None:
            learner.model.carried = [tuple(pair) for pair in _unpacked(state["carried"], tensors)]
        _set_random_states(state["random"], tensors)
        self._found = None  # no longer needed, and several times as large as the weights

    def finish(self, learner: Learner, history: History) -> None:
        """Write the end of the run, if doing it again would take much longer than that."""
        if self.fit.is_due(weight_bytes(learner.model), longest=False):
            self.write(learner, history, finished=True)

    def write(self, learner: Learner, history: History, *, finished: bool, **position: Any) -> None:
        """Write where the run is.

        Args:
            learner: the Learner.
            history: its record.
            finished: whether the run is over.
            position: stage, epoch, batch and what else the loop counts.
        """
        tensors = {f"model.{name}": value for name, value in learner.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (history.best_weights or {}).items() if not finished}
        moments = None if learner.opt is None else _packed(learner.opt.state_dict()["state"], "moments", tensors)
        accumulated = next((one.count for one in learner.cbs if hasattr(one, "n_acc")), 0)
        if accumulated and not finished:
            tensors |= {
                f"gradient.{name}": one.grad for name, one in learner.model.named_parameters() if one.grad is not None
            }
        batch = position.get("batch", 0)
        carried = getattr(learner.model, "carried", None) if batch else None
        state = {
            **position,
            "finished": finished,
            "moments": moments,
            "history": history.state(),
            "accumulated": accumulated,
            "carried": None if carried is None else _packed(carried, "carried", tensors),
            "place": learner.dls.train.place(batch),
            "random": _random_states(tensors),
        }
        try:
            self.fit.write(self.path, state, tensors)
        except BundleError as error:  # the training is worth more than its checkpoint
            history.monitor.say(f"The training goes on without a new checkpoint. {error}")


class KeepCheckpoint(Callback):  # type: ignore[misc]
    """Writes checkpoints as a stage is trained, and resumes it from one.

    Args:
        part: the checkpoint.
        history: the record of the run.
        stage: the number of the stage.
        last: whether no other stage follows.
    """

    order = 90  # after everything else

    def __init__(self, part: PartCheckpoint, history: History, stage: int, *, last: bool) -> None:
        self.part, self.history, self.stage, self.last = part, history, stage, last
        state = part.state
        self._resumed = state if state is not None and state["stage"] == stage else None

    @property
    def first_epoch(self) -> int:
        """The epoch to begin with, from 0."""
        return 0 if self._resumed is None else int(self._resumed["epoch"])

    def before_fit(self) -> None:
        """What the record counts from epoch to epoch."""
        self._size = weight_bytes(self.model)
        self._skipped = 0
        if self._resumed is not None and (self._resumed["epoch"] or self._resumed["batch"]):
            self.history.restore_stage(self._resumed["of_stage"], self._resumed["epoch"])

    def before_train(self) -> None:
        """Go to the place where the training stopped, once."""
        state, self._resumed, self._skipped = self._resumed, None, 0
        if state is None:
            return
        self._skipped = state["batch"]
        if self._skipped:
            self.learn.pct_train, self.learn.train_iter = state["pct_train"], state["train_iter"]
            self.history.restore_epoch(state["of_epoch"], self._skipped)
        self.part.restore_place(self.learn)

    def after_batch(self) -> None:
        """Write within an epoch that takes long."""
        if self.training and self.part.fit.is_due(self._size, longest=True):
            batch = self._skipped + self.iter + 1
            if batch < self.n_iter:  # else the epoch's end is as near
                self._write(self.stage, self.epoch, batch)

    def after_epoch(self) -> None:
        """Write at the end of an epoch."""
        if self._resumed is not None or not self.part.fit.is_due(self._size, longest=False):  # an epoch that is skipped
            return
        if self.epoch + 1 < self.n_epoch:
            self._write(self.stage, self.epoch + 1, 0)
        elif not self.last:
            self._write(self.stage + 1, 0, 0)

    def _write(self, stage: int, epoch: int, batch: int) -> None:
        self.part.write(
            self.learn,
            self.history,
            finished=False,
            stage=stage,
            epoch=epoch,
            batch=batch,
            pct_train=float(self.pct_train),
            train_iter=int(self.train_iter),
            of_stage=self.history.of_stage(),
            of_epoch=self.history.of_epoch(),
        )


def weight_bytes(network: nn.Module) -> int:
    """The bytes of a network's weights."""
    return sum(one.numel() * one.element_size() for one in network.state_dict().values())


def holds_checkpoints(folder: Path) -> bool:
    """Whether a folder holds checkpoints and nothing else, so that it may be deleted."""
    return folder.is_dir() and all(one.match("part-*") and (one / MANIFEST).is_file() for one in _visible(folder))


def tidy_checkpoints(folder: Path, output: Path) -> None:
    """Delete checkpoints that are older than the output that came of them: their process was killed in between."""
    if output.exists() and holds_checkpoints(folder):
        tidy(output, folder)


def _visible(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if not one.name.startswith(".")]


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Some nested state as JSON; its tensors are added to others, under names that begin with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[key, _packed(one, f"{name}.{key}", tensors)] for key, one in value.items()]
        return {"items": items}
    if isinstance(value, (list, tuple)):
        return [_packed(one, f"{name}.{number}", tensors) for number, one in enumerate(value)]
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_packed` packed; tuples as lists."""
    if isinstance(value, Mapping):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _unpacked(one, tensors) for key, one in value["items"]}
    return [_unpacked(one, tensors) for one in value] if isinstance(value, list) else value


def _random_states(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The states of all generators that training draws from; the long ones are added to the tensors."""
    version, words, following = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    tensors |= {
        "random.torch": torch.get_rng_state(),
        "random.python": torch.tensor(words, dtype=torch.int64),
        "random.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
    }
    return {"python": [version, following], "numpy": [name, position, has_gauss, cached]}


def _set_random_states(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.torch"])
    version, following = state["python"]
    random.setstate((version, tuple(tensors["random.python"].tolist()), following))
    name, *rest = state["numpy"]
    np.random.set_state((name, tensors["random.numpy"].numpy().astype(np.uint32), *rest))
