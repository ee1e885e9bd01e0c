"""Settings as fields of frozen dataclasses, each with its help, its choices and its bounds.

The help is written once, on the field; the command line and the docs are generated from it. Values come from flags,
TOML files and Python.
"""

import dataclasses
import math
import operator
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from textladder.errors import ConfigError, unknown_name
from textladder.wording import listed

Config = TypeVar("Config")


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    shared: bool = False,
    functions: bool = False,
) -> Any:
    """A config field with its help and its bounds.

    Args:
        default: the default value; None if the level works it out.
        help: what the setting does, for `--help` and the docs; if the default is None, also what that means.
        choices: the allowed values; empty if any value is allowed.
        low: the lowest value allowed.
        high: the highest value allowed.
        shared: give the setting a flag in `compare` and `audit` too, where several levels run.
        functions: in Python, also allow functions and modules in place of the choices.
    """
    metadata = {"help": help, "choices": tuple(choices), "low": low, "high": high, "shared": shared}
    metadata["functions"] = functions
    return field(default=default, metadata=metadata)


def limits_text(item: "dataclasses.Field[Any]") -> str:
    """A setting's choices or bounds in words; empty where any value is allowed.

    >>> limits_text(setting(0.2, "dropout", low=0, high=0.9))
    'from 0 to 0.9'
    >>> limits_text(setting("auto", "precision", choices=("auto", "float32")))
    'auto or float32'
    """
    choices, low, high = (item.metadata.get(name) for name in ("choices", "low", "high"))
    if choices:
        return listed(choices, "or")
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else ""


def value_text(value: Any) -> str:
    """A setting's value as a person would write it.

    >>> [value_text(value) for value in (True, ("mean", "max"), 5e-3, None)]
    ['yes', 'mean,max', '0.005', 'not set']
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def setting_help(item: "dataclasses.Field[Any]") -> str:
    """A setting's help with its choices or bounds and its default.

    >>> setting_help(setting(2, "count runs of up to this many words", low=1, high=5))
    'count runs of up to this many words [from 1 to 5; default: 2]'
    """
    help = str(item.metadata["help"])
    facts = [limits_text(item)]
    if item.default is not None or "default" not in help:
        facts.append(f"default: {value_text(item.default)}")
    noted = "; ".join(fact for fact in facts if fact)
    return f"{help} [{noted}]" if noted else help


def checked(config_type: type[Config], values: Mapping[str, Any], kind: str = "setting") -> Config:
    """A config of the given values, with defaults for the rest.

    Args:
        config_type: a dataclass of settings.
        values: by the fields' names.
        kind: what a setting is called in the error for an unknown one, such as `lstm setting`.

    Raises:
        ConfigError: an unknown setting, a value of the wrong type, or one out of bounds.
    """
    fields = {item.name: item for item in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise ConfigError(unknown_name(kind, name, fields))
    kinds = get_type_hints(config_type)
    return config_type(**{name: _checked(fields[name], kinds[name], value) for name, value in values.items()})


def _checked(item: "dataclasses.Field[Any]", kind: Any, value: Any) -> Any:
    """The value as the field's type, within its choices and bounds."""
    kinds = get_args(kind) or (kind,)
    if get_origin(kind) is tuple:
        if callable(value):
            value = (value,)
        kinds, value = (tuple,), tuple(value) if isinstance(value, (list, tuple)) else value
    elif float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, Path) and str in kinds:
        value = str(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("None" if one is type(None) else one.__name__ for one in kinds)
        raise ConfigError(f"Setting {item.name!r} must be of type {names}; received {value!r}.")
    choices, low, high = (item.metadata.get(name) for name in ("choices", "low", "high"))
    for one in value if isinstance(value, tuple) else (value,):
        if (
            choices
            and one is not None
            and one not in choices
            and not (callable(one) and item.metadata.get("functions"))
        ):
            raise ConfigError(unknown_name(f"value of {item.name!r}:", str(one), choices))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not (-math.inf if low is None else low) <= value <= (math.inf if high is None else high):
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        raise ConfigError(f"Setting {item.name!r} must be {' and '.join(bounds) or 'a number'}; received {value}.")
    return value


def checked_seed(seed: Any) -> int:
    """A seed as an int.

    Raises:
        ConfigError: it is not a whole number from 0 to 4294967295.
    """
    try:
        number = operator.index(seed)  # takes NumPy's integers too, and no fraction
    except TypeError:
        raise ConfigError(f"The seed must be a whole number; received {seed!r}.") from None
    if not 0 <= number < 2**32:
        raise ConfigError(f"The seed must be from 0 to 4294967295; received {seed}.")
    return number


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        with Path(path).open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{path}: the settings file cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not valid TOML ({error}).") from None
