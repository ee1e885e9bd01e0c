"""Flags of settings, generated from the fields of configs, and the settings that a command line gives.

Levels are imported here only for the commands that show or take their settings.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from textladder.errors import ConfigError
from textladder.flags import Parser, split_names
from textladder.settings import setting_help
from textladder.wording import listed

PREFIX = "setting_"  # of a setting's name among the parsed options


def add_level_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add LEVEL, its preset, and the flags for the settings of the level that the command line names."""
    from textladder.levels import LEVELS, find_level

    name = _flag_value(words, "--level")
    level = None if name is None else find_level(name)
    presets = "default: default" if level is None else f"{listed(list(level.presets), 'or')}; default: default"
    parser.add_argument(
        "--level", required=True, metavar="LEVEL", help=f"level to train [{listed(list(LEVELS), 'or')}]"
    )
    parser.add_argument("--preset", metavar="NAME", help=f"a named set of settings [{presets}]")
    add_config_flag(parser)
    if level is None:
        parser.epilog = f"Settings and presets of a level: textladder {parser.prog.split()[-1]} --level LEVEL --help"
    else:
        add_settings(parser.add_argument_group(f"settings of {name}"), level.config_type)


def add_config_flag(group: Any, tables: str = "") -> None:
    """Add the flag for a file of settings."""
    help = f"settings from a TOML file{tables}; command-line flags override it"
    group.add_argument("--config", metavar="FILE", help=help)


def add_shared_settings(parser: Parser) -> None:
    """Add the flags for shared settings; each applies to the levels that have it."""
    from textladder.levels import find_level

    group = parser.add_argument_group("settings of the levels (--config can set all others)")
    add_config_flag(group, " with a table for each level, such as [lstm]")
    for name, levels in shared_settings().items():
        kind = get_type_hints(find_level(next(iter(levels))).config_type)[name]
        helps = [setting_help(item) for item in levels.values()]
        if len(set(helps)) == 1:
            help = f"{', '.join(levels)}: {helps[0]}"
        else:
            help = "; ".join(f"{level}: {one}" for level, one in zip(levels, helps, strict=True))
        _add_setting(group, name, kind, help)


def add_settings(group: Any, config_type: type) -> None:
    """Add a flag for each field of a config; those that all neural levels share come last."""
    from textladder.levels.base import TrainingConfig

    kinds = get_type_hints(config_type)
    of_training = {item.name for item in dataclasses.fields(TrainingConfig)}
    for item in sorted(dataclasses.fields(config_type), key=lambda item: item.name in of_training):
        _add_setting(group, item.name, kinds[item.name], setting_help(item))


def shared_settings() -> dict[str, dict[str, "dataclasses.Field[Any]"]]:
    """The settings that have a flag in `compare` and `audit`: by name, the field of each level that has them."""
    from textladder.levels import LEVELS, find_level

    found: dict[str, dict[str, dataclasses.Field[Any]]] = {}
    for level in LEVELS:
        for item in dataclasses.fields(find_level(level).config_type):
            if item.metadata["shared"]:
                found.setdefault(item.name, {})[level] = item
    return found


def settings_of(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The settings of the settings file, overridden by flags, and the seed.

    Raises:
        ConfigError: the settings file cannot be read, or the seed is not a whole number.
    """
    from textladder.settings import checked_seed, read_config_file

    settings = read_config_file(options.config) if options.config else {}
    seed = settings.pop("seed", 0)
    flags = {name.removeprefix(PREFIX): value for name, value in vars(options).items() if name.startswith(PREFIX)}
    settings.update({name: value for name, value in flags.items() if value is not None})
    return settings, checked_seed(seed if options.seed is None else options.seed)


def level_settings_of(
    options: argparse.Namespace, levels: Sequence[str] | None
) -> tuple[dict[str, dict[str, Any]], int]:
    """The settings of each level, from the settings file's tables overridden by flags, and the seed.

    Args:
        options: the parsed flags.
        levels: the levels that will run; None for all.

    Raises:
        ConfigError: an unknown level, a setting outside the tables, or a flag that none of the levels has.
    """
    from textladder.levels import LEVELS, find_level

    given, seed = settings_of(options)
    named = list(LEVELS) if levels is None else levels
    for name in named:
        find_level(name)
    shared = shared_settings()
    flags = {name: given.pop(name) for name in shared if getattr(options, PREFIX + name) is not None}
    if plain := [name for name, value in given.items() if not isinstance(value, dict)]:
        raise ConfigError(f"{options.config}: setting {plain[0]!r} must be in the table of a level, such as [lstm].")
    settings: dict[str, dict[str, Any]] = {name: dict(table) for name, table in given.items()}
    for name, value in flags.items():
        having = [level for level in shared[name] if level in named]
        if not having:
            raise ConfigError(
                f"{_flag(name)} is a setting of {next(iter(shared[name]))}, which is not among the levels "
                f"{', '.join(named)}."
            )
        for level in having:
            settings.setdefault(level, {})[name] = value
    return settings, seed


def _add_setting(group: Any, name: str, kind: Any, help: str) -> None:
    """Add one flag; its default is None, so that only flags that were given override the settings file."""
    options: dict[str, Any] = {"dest": PREFIX + name, "default": None, "help": help.replace("%", "%%")}
    if kind is bool:
        group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, **options)
    else:
        group.add_argument(_flag(name), type=_converter(kind), metavar=_metavar(kind), **options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _converter(kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return split_names
    if get_origin(kind) is UnionType:
        return next(one for one in get_args(kind) if one is not type(None))
    return kind


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(_converter(kind), "A,B" if get_origin(kind) is tuple else "NAME")


def _flag_value(words: Sequence[str], flag: str) -> str | None:
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None
