"""What a comparison is to train: levels, presets, settings and seeds, checked before any work is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from textladder.comparison.worker import Job
from textladder.data.labelled_texts import TextData
from textladder.errors import ConfigError
from textladder.levels import LEVELS, find_level
from textladder.levels.base import is_neural, make_config
from textladder.settings import checked_seed
from textladder.target_metric import ACCURACY, TargetMetric, find_metric

FEW_ROWS, FOLDS = 3_000, 5  # with fewer rows, every row is a test row once, in one of so many folds


@dataclass
class Plan:
    """The levels of a comparison with their settings and seeds.

    Attributes:
        data: the rows.
        requested: names of the levels that the user asked for; None for every level that can be trained.
        requested_settings: of a level, by its name; `preset` among them.
        seeds: number of training runs per level; None to decide by how long a fit takes.
        requested_folds: number of folds, 1 for one split; None to decide by the number of rows.
        seed: the first seed.
        learning_curve: whether levels are also trained on parts of the rows.
        time_budget: seconds for all fits; None for no limit.
        metric_name: the metric that training, gains and verdict go by; None for accuracy, and for training the mean of
            accuracy and macro F1.
        levels: names of the levels, from the lowest.
        presets: preset of each level.
        settings: settings of each level that differ from its preset.
        metric: the metric.
        folds: number of folds; 1 for one split.

    Raises:
        ConfigError: an unknown level, preset or setting, or a value out of its range.
    """

    data: TextData
    requested: Sequence[str] | None
    requested_settings: Mapping[str, Mapping[str, Any]]
    seeds: int | None
    requested_folds: int | None
    seed: int
    learning_curve: bool
    time_budget: float | None
    metric_name: str | None = None
    levels: list[str] = field(init=False)
    presets: dict[str, str] = field(init=False)
    settings: dict[str, dict[str, Any]] = field(init=False)
    metric: TargetMetric = field(init=False)
    folds: int = field(init=False)

    def __post_init__(self) -> None:
        requested = list(LEVELS) if self.requested is None else list(self.requested)
        for name in (*requested, *self.requested_settings):
            find_level(name)
        if not requested:
            raise ConfigError("There are no levels to compare; name at least one.")
        self.levels = [name for name in LEVELS if name in requested]
        if stray := [name for name in self.requested_settings if name not in self.levels]:
            raise ConfigError(f"There are settings for {stray[0]!r}, which is not among the levels to compare.")
        if self.seeds is not None and self.seeds < 1:
            raise ConfigError(f"The number of seeds must be at least 1; received {self.seeds}.")
        checked_seed(self.seed)
        self._check_folds()
        self.metric = find_metric(self.metric_name or ACCURACY, self.data.labels, self.data.label_names)
        self._check_metric()
        self.presets, self.settings = {}, {}
        for name in self.levels:
            requested_settings = self.requested_settings.get(name, {})
            settings = {
                key: str(value) if isinstance(value, Path) else value for key, value in requested_settings.items()
            }
            self.presets[name] = settings.pop("preset", "default")
            if self.metric_name is not None and any(
                item.name == "metric" for item in fields(find_level(name).config_type)
            ):
                settings.setdefault("metric", self.metric_name)
            self.settings[name] = settings
            _check_plain(name, settings)
            # raises if the settings contradict each other or the classes
            find_level(name)(self.config(name), len(self.data.labels))

    def _check_folds(self) -> None:
        if self.requested_folds is None:
            data = self.data
            rows = len(data.train) + len(data.test) + (0 if data.valid is None else len(data.valid))
            held_out = data.test.table is data.train.table  # and no test rows that the user chose
            few = held_out and rows < FEW_ROWS and self.seeds is None and self.time_budget is None
            self.folds = FOLDS if few else 1
            return
        self.folds = self.requested_folds
        if self.folds < 1:
            raise ConfigError(f"The number of folds must be at least 1; received {self.folds}.")
        if self.folds > 1 and self.seeds is not None:
            raise ConfigError("Each fold is trained once, with a seed of its own; give seeds or folds, not both.")

    def _check_metric(self) -> None:
        """Refuse a metric of one label that is in no test row; with folds, every row is one."""
        label_id = self.metric.label_id
        if self.folds == 1 and label_id is not None and label_id not in self.data.test.label_ids:
            raise ConfigError(
                f"There is no test row with the label {self.data.labels[label_id]!r}, so {self.metric.title} cannot be "
                "measured."
            )

    def config(self, level: str) -> Any:
        """The config of a level, by its name."""
        return make_config(find_level(level), self.presets[level], self.settings[level])

    def first_neural(self, folder: Path, overwrite: bool) -> str | None:
        """The first neural level that has yet to be trained.

        Args:
            folder: the comparison's folder.
            overwrite: whether the training runs in the folder will be replaced.

        Returns:
            The level's name; None if there is no neural level, or the folder holds a training run of the first.
        """
        neural = [name for name in self.levels if is_neural(find_level(name))]
        trained = not overwrite and any(next(folder.glob(f"{name}-*"), None) for name in neural[:1])
        return neural[0] if neural and not trained else None

    def job(
        self,
        kind: str,
        level: str,
        shared_rows: str,
        *,
        seed: int | None = None,
        train_rows: int = 0,
        fold: int | None = None,
        predict_test: bool = True,
    ) -> Job:
        """A job on a level.

        Args:
            kind: as in `Job`.
            level: the level's name.
            shared_rows: the folder of the rows.
            seed: of the training; by default the first.
            train_rows: number of training rows to use; 0 for all.
            fold: as in `Job`.
            predict_test: as in `Job`.
        """
        seed = self.seed if seed is None else seed
        preset, settings = self.presets[level], self.settings[level]
        return Job(kind, shared_rows, "", level, preset, settings, seed, train_rows, fold, predict_test)


def _check_plain(level: str, settings: Mapping[str, Any]) -> None:
    """Refuse functions, which a level's settings allow in Python but another process cannot be given."""
    for name, value in settings.items():
        if any(map(callable, value if isinstance(value, (list, tuple)) else (value,))):
            raise ConfigError(
                f"Setting {name!r} of {level} holds a function, which the process that trains it cannot be given."
            )
