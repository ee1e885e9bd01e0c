"""Settings as fields of frozen dataclasses: each with its help, its choices and its bounds.

The help is written once and feeds the command line and the docs. Values come from flags, TOML files and Python.
"""

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from textladder.errors import ConfigError, unknown_name

Config = TypeVar("Config")


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A config field with its help and its bounds."""
    return field(default=default, metadata={"help": help, "choices": tuple(choices), "low": low, "high": high})


def checked(config_type: type[Config], values: Mapping[str, Any], kind: str = "setting") -> Config:
    """A config of some values and defaults.

    Raises:
        ConfigError: an unknown setting (called by this kind), or a value of the wrong type or out of its range.
    """
    fields = {item.name: item for item in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise ConfigError(unknown_name(kind, name, fields))
    kinds = get_type_hints(config_type)
    return config_type(**{name: _checked(fields[name], kinds[name], value) for name, value in values.items()})


def _checked(item: "dataclasses.Field[Any]", kind: Any, value: Any) -> Any:
    """A value of the field's kind within its bounds."""
    kinds = get_args(kind) or (kind,)
    if get_origin(kind) is tuple:
        kinds, value = (tuple,), tuple(value) if isinstance(value, (list, tuple)) else value
    elif float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, Path) and str in kinds:
        value = str(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("nothing" if one is type(None) else one.__name__ for one in kinds)
        raise ConfigError(f"Setting {item.name!r} must be of type {names}; received {value!r}.")
    choices, low, high = (item.metadata.get(name) for name in ("choices", "low", "high"))
    for one in value if isinstance(value, tuple) else (value,):
        if choices and one not in choices:
            raise ConfigError(unknown_name(f"value of {item.name!r}:", str(one), choices))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not (-math.inf if low is None else low) <= value <= (math.inf if high is None else high):
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        raise ConfigError(f"Setting {item.name!r} must be {' and '.join(bounds) or 'a number'}; received {value}.")
    return value


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Settings from a TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        with Path(path).open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{path}: the settings cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not TOML ({error}).") from None
