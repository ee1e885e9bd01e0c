"""The forms of a trained level that are measured: the original and, if one passes the gate, an exported one.

What was found is kept beside the training in a file of its own, so that other threads, or forms that were not asked for
before, need no new training.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from textladder.atomic_files import write_text
from textladder.classifier import ORIGINAL
from textladder.cores import available_cores
from textladder.errors import ConfigError, missing_library, not_installed, unknown_name

DEPLOYABLE = "deployable"
FORMS = (DEPLOYABLE, ORIGINAL)
MEASURED_FORMS = "forms.json"


@dataclass(frozen=True)
class Measuring:
    """How trained levels are measured.

    Attributes:
        forms: `deployable` to export levels and judge them by the fastest form that passed the gate, or `original`.
        threads: for predictions; None for as many as this process would use.
        price_per_hour: of the machine, in any currency; None if it is not known.

    Raises:
        ConfigError: a value is out of its range.
    """

    forms: str = DEPLOYABLE
    threads: int | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.forms not in FORMS:
            raise ConfigError(unknown_name("form", str(self.forms), FORMS))
        most = os.cpu_count() or 1
        if self.threads is not None and (type(self.threads) is not int or not 1 <= self.threads <= most):
            raise ConfigError(
                f"The number of threads must be from 1 to {most}, the cores of this machine; received {self.threads}."
            )
        price = self.price_per_hour
        if price is not None and not (
            isinstance(price, (int, float)) and not isinstance(price, bool) and math.isfinite(price) and price > 0
        ):
            raise ConfigError(f"The price per hour must be a number above 0; received {price}.")

    @property
    def threads_used(self) -> int:
        """The number of threads for predictions."""
        return self.threads or available_cores()

    @property
    def unavailable(self) -> str | None:
        """Why no level can be exported here; None if they can be."""
        library = missing_library(["onnx"])
        return None if library is None else not_installed(library, "export")


@dataclass
class MeasuredForms:
    """What was measured of a training's forms so far.

    Attributes:
        threads: the number of threads.
        figures: latency, throughput, memory, size and latency by length of each form that was measured.
        fastest: the form that predicts fastest; None if the training was not exported yet.
        refusal: why an exported form is not used; None if none was refused.
        predictions: digest of the predictions of each exported form.
    """

    threads: int
    figures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    fastest: str | None = None
    refusal: str | None = None
    predictions: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, threads: int) -> "MeasuredForms":
        """What is known of a training; nothing if it was measured with another number of threads."""
        with suppress(OSError, ValueError, TypeError):
            found = cls(**json.loads((folder / MEASURED_FORMS).read_text(encoding="utf-8")))
            if found.threads == threads:
                return found
        return cls(threads)

    def write(self, folder: Path) -> None:
        """Keep it in the training's folder."""
        write_text(folder / MEASURED_FORMS, json.dumps(asdict(self), ensure_ascii=False))
