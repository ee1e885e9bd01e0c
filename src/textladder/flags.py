"""The flags of the command `textladder`, and what they say about settings.

Nothing is done here: `cli.py` takes the parsed flags. Nothing heavy is imported, so that `--help` is quick.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from textladder import __version__
from textladder.errors import ConfigError, unknown_name
from textladder.settings import setting_help

SEEDS_HELP = "3 where a fit takes under 2 minutes, else 1; 1 with --time-budget"
DATA_HELP = "a .csv, .tsv, .jsonl or .parquet file (or .gz of it), amazon-polarity, sample, or a Hub data set"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and which flag was perhaps meant."""

    def error(self, message: str) -> NoReturn:
        known = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            words = message.removeprefix("unrecognized arguments: ").split()
            flag = next((word for word in words if word.startswith("-")), words[0])
            message = unknown_name("flag" if flag.startswith("-") else "argument", flag.split("=")[0], sorted(known))
        raise ConfigError(f"{message.rstrip('.')}." if not message.endswith("?") else message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            command = getattr(parsed, "parser", self)
            command.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The flags of a command line; `command` is the command's name.

    Raises:
        ConfigError: a command or a flag that there is not, or one that lacks its value.
    """
    parser = _Parser(
        prog="textladder",
        description="How far up the ladder of text classifiers is worth climbing, on your own labelled texts.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"textladder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, parser_class=_Parser)
    # argparse would list the names as "invalid choice"; here a wrong one gets its near misses
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise ConfigError(unknown_name("command", words[0], list(COMMANDS)))
    for name, (help, add_flags) in COMMANDS.items():
        command: _Parser = commands.add_parser(
            name,
            help=help,
            description=f"{help.capitalize()}.",
            usage=f"textladder {name} [FLAGS] ..." if name in MANY_FLAGS else None,
            allow_abbrev=False,
        )
        command.set_defaults(parser=command)
        if words[:1] == [name]:  # the flags of settings are read from the levels, which takes time
            add_flags(command, words)
        command.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parsed: argparse.Namespace = parser.parse_args(words)
    return parsed


def _compare(parser: _Parser, words: Sequence[str]) -> None:
    _add_data(parser)
    parser.add_argument(
        "--levels", type=split_names, metavar="A,B", help="which levels (default: all that can be trained here)"
    )
    parser.add_argument("--out", default="runs/compare", metavar="RUN", help="folder (default runs/compare)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew instead of going on where RUN was left")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"train each level N times (default {SEEDS_HELP})")
    parser.add_argument("--learning-curve", action="store_true", help="also train on 1/8, 1/4 and 1/2 of the rows")
    parser.add_argument("--time-budget", type=_duration, metavar="30m", help="time that fits may take in all (s, m, h)")
    parser.add_argument("--fix", metavar="NAME", help="drop-leaks: leave out training rows that are test rows too")
    terms = parser.add_argument_group("your terms")
    terms.add_argument(
        "--worth", type=float, default=1.0, metavar="X", help="points a dearer level must gain (default 1)"
    )
    terms.add_argument("--max-latency-ms", type=float, metavar="X", help="one text may take so long (median)")
    terms.add_argument("--max-size-mb", type=float, metavar="X", help="the bundle may be so large")
    terms.add_argument("--max-fit-minutes", type=float, metavar="X", help="a training may take so long")
    _add_shared_settings(parser)


def _train(parser: _Parser, words: Sequence[str]) -> None:
    _add_data(parser)
    _add_level_flags(parser, words)
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder to write the bundle to")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")


def _evaluate(parser: _Parser, words: Sequence[str]) -> None:
    _add_bundle(parser)
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    _add_column_flags(parser)


def _predict(parser: _Parser, words: Sequence[str]) -> None:
    _add_bundle(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*")
    parser.add_argument("--input", metavar="FILE", help="predict every row of this file")
    parser.add_argument("--output", metavar="FILE", help="where to write the rows with their predictions")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    parser.add_argument(
        "--text", type=split_names, metavar="A,B", help="the text columns (default: the ones learnt from)"
    )
    _add_file_flags(parser)


def _explain(parser: _Parser, words: Sequence[str]) -> None:
    _add_bundle(parser)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--html", metavar="FILE", help="also write a page with the words shaded")
    parser.add_argument("--overwrite", action="store_true", help="replace a page that is there")


def _export(parser: _Parser, words: Sequence[str]) -> None:
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="texts that both forms must answer alike (labels are used if there)",
    )
    parser.add_argument("--first", type=int, default=10_000, metavar="N", help="so many of them (default 10000)")
    parser.add_argument("--format", default="onnx", choices=("onnx",), help="what to export to (default: onnx)")
    parser.add_argument("--quantize", metavar="NAME", help="int8: smaller and faster, and nearly as accurate")
    parser.add_argument("--out", metavar="FOLDER", help="a bundle of the exported form alone (default: into BUNDLE)")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    _add_column_flags(parser)


def _serve(parser: _Parser, words: Sequence[str]) -> None:
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+", help="each is a model, named after its level")
    parser.add_argument(
        "--form", metavar="NAME", help="original, onnx-float32 or onnx-int8 (default: the fastest there)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="interface (default 127.0.0.1: this machine)"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default 8000; 0 takes a free one")
    parser.add_argument("--token-file", metavar="FILE", help="its line must be shown: Authorization: Bearer TOKEN")
    group = parser.add_argument_group("limits, each with a status of its own when it is passed")
    group.add_argument(
        "--max-body", type=int, default=1_000_000, metavar="N", help="bytes of a request (default 1000000: 413)"
    )
    group.add_argument("--max-texts", type=int, default=256, metavar="N", help="texts of a request (default 256: 422)")
    group.add_argument("--max-characters", type=int, default=20_000, metavar="N", help="of a text (default 20000: 400)")
    group.add_argument(
        "--max-queue", type=int, default=64, metavar="N", help="texts that may wait for a model (default 64: 503)"
    )


def _audit(parser: _Parser, words: Sequence[str]) -> None:
    _add_data(parser)
    parser.add_argument("--levels", type=split_names, metavar="A,B", help="whose tokens are counted (default: all)")
    parser.add_argument("--fix", metavar="NAME", help="drop-leaks: write DATA without the rows that are test rows too")
    parser.add_argument("--output", metavar="FILE", help="where --fix writes the rows, in DATA's form")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    _add_shared_settings(parser)


def _lr_find(parser: _Parser, words: Sequence[str]) -> None:
    _add_data(parser)
    _add_level_flags(parser, words)
    parser.add_argument("--plot", metavar="FILE", help="draw the curve as a .png, .svg or .pdf")


def _pretrain(parser: _Parser, words: Sequence[str]) -> None:
    parser.add_argument("corpora", metavar="CORPUS", nargs="+", help="a text file, one document a line (or .gz of it)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write the language model to")
    parser.add_argument("--overwrite", action="store_true", help="replace a language model that is there")
    parser.add_argument("--config", metavar="FILE", help="settings from a TOML file; flags come before it")
    parser.add_argument("--seed", type=int, metavar="N", help="of every draw (default 0)")
    from textladder.training.pretraining import PretrainingConfig

    _add_settings(parser.add_argument_group("sizes and settings"), PretrainingConfig)


def _levels(parser: _Parser, words: Sequence[str]) -> None:
    pass


# what each command is for, and who gives it its flags
COMMANDS: dict[str, tuple[str, Callable[[_Parser, Sequence[str]], None]]] = {
    "compare": ("train several levels on the same rows and say which is worth it", _compare),
    "train": ("train one level and save it as a bundle", _train),
    "evaluate": ("measure a bundle on labelled texts", _evaluate),
    "predict": ("label texts, or every row of a file", _predict),
    "explain": ("say which words carried a prediction", _explain),
    "export": ("put a network into ONNX, if it answers as before", _export),
    "serve": ("answer requests with bundles, and show a page to try them", _serve),
    "audit": ("say what is wrong with labelled texts before training on them", _audit),
    "lr-find": ("try rising learning rates and suggest one", _lr_find),
    "pretrain": ("train a language model from texts without labels", _pretrain),
    "levels": ("list the levels and their presets", _levels),
}
MANY_FLAGS = ("compare", "train", "audit", "lr-find", "pretrain")  # whose usage would be longer than their help


def _add_bundle(parser: _Parser) -> None:
    """BUNDLE, and which form of it is asked."""
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument(
        "--form", metavar="NAME", help="original, onnx-float32 or onnx-int8 (default: the fastest there)"
    )


def _add_data(parser: _Parser) -> None:
    """DATA, and the flags that say which of its rows and columns are read."""
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    _add_split_flags(parser)
    _add_column_flags(parser)


def _add_column_flags(parser: _Parser) -> None:
    group = parser.add_argument_group("what is read (found by itself, and said)")
    group.add_argument("--text", type=split_names, metavar="A,B", help="text columns, joined with a space")
    group.add_argument("--label", metavar="NAME", help="label column")
    _add_file_flags(group)
    group.add_argument("--drop-missing", action="store_true", help="leave out rows without a label")


def _add_file_flags(group: Any) -> None:
    group.add_argument(
        "--columns", type=split_names, metavar="A,B,C", help="names for the columns of a file without a header"
    )
    group.add_argument("--file-encoding", default="utf-8", metavar="NAME", help="how the file is encoded")


def _add_split_flags(parser: _Parser) -> None:
    group = parser.add_argument_group("which rows")
    group.add_argument("--test", metavar="FILE", help="held-out rows (default: a stratified 20%% of DATA)")
    group.add_argument("--rows", type=int, metavar="N", help="take a seeded, stratified N of DATA's rows")
    group.add_argument("--first", type=int, metavar="N", help="take DATA's first N rows")
    group.add_argument("--seed", type=int, metavar="N", help="of every choice and draw (default 0)")


def _add_level_flags(parser: _Parser, words: Sequence[str]) -> None:
    """The flags of the settings of the level that is named on the command line."""
    name = _flag_value(words, "--level")
    parser.add_argument("--level", required=True, metavar="LEVEL", help="see textladder levels")
    parser.add_argument("--preset", metavar="NAME", help="settings that belong together (default: default)")
    parser.add_argument("--config", metavar="FILE", help="settings from a TOML file; flags come before it")
    if name is None:
        parser.epilog = f"Settings of a level: textladder {parser.prog.split()[-1]} --level LEVEL --help"
        return
    from textladder.levels import find_level

    _add_settings(parser.add_argument_group(f"settings of {name}"), find_level(name).config_type)


def _add_shared_settings(parser: _Parser) -> None:
    """Flags of the settings marked as shared; each goes to the levels that have it."""
    from textladder.levels import find_level

    group = parser.add_argument_group("settings of levels (more of them as tables [LEVEL] of --config)")
    group.add_argument("--config", metavar="FILE", help="settings from a TOML file, a table for each level")
    for name, levels in shared_settings().items():
        kind = get_type_hints(find_level(next(iter(levels))).config_type)[name]
        helps = [setting_help(item) for item in levels.values()]
        if len(set(helps)) == 1:
            help = f"{', '.join(levels)}: {helps[0]}"
        else:
            help = "; ".join(f"{level}: {one}" for level, one in zip(levels, helps, strict=True))
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=_converter(kind),
            metavar=_metavar(kind),
            dest=f"setting_{name}",
            help=help.replace("%", "%%"),
        )


def shared_settings() -> dict[str, dict[str, "dataclasses.Field[Any]"]]:
    """The settings that have a flag where several levels run: by name, the field of each level that has it."""
    from textladder.levels import LEVELS, find_level

    found: dict[str, dict[str, dataclasses.Field[Any]]] = {}
    for level in LEVELS:
        for item in dataclasses.fields(find_level(level).config_type):
            if item.metadata["shared"]:
                found.setdefault(item.name, {})[level] = item
    return found


def _add_settings(group: Any, config_type: type) -> None:
    """A flag for each field of a config; those that all neural levels share come last."""
    from textladder.levels.base import TrainingConfig

    kinds = get_type_hints(config_type)
    shared = {item.name for item in dataclasses.fields(TrainingConfig)}
    for item in sorted(dataclasses.fields(config_type), key=lambda item: item.name in shared):
        kind = kinds[item.name]
        flag = "--" + item.name.replace("_", "-")
        help = setting_help(item).replace("%", "%%")
        options: dict[str, Any] = {"dest": f"setting_{item.name}", "default": None, "help": help}
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        else:
            group.add_argument(flag, type=_converter(kind), metavar=_metavar(kind), **options)


def _duration(words: str) -> float:
    """Seconds from `90s`, `30m` or `2h`."""
    number, unit = words[:-1], words[-1:]
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"a time such as 90s, 30m or 2h is needed; received {words!r}") from None
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"a time must be above 0; received {words!r}")
    return seconds


def _converter(kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return split_names
    if get_origin(kind) is UnionType:
        return next(one for one in get_args(kind) if one is not type(None))
    return kind


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(_converter(kind), "A,B" if get_origin(kind) is tuple else "NAME")


def split_names(words: str) -> list[str]:
    """Names between commas.

    >>> split_names("title, text,")
    ['title', 'text']
    """
    return [word.strip() for word in words.split(",") if word.strip()]


def _flag_value(words: Sequence[str], flag: str) -> str | None:
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


def settings_of(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """What the settings file and then the flags say, and the seed."""
    from textladder.settings import read_config_file

    settings = read_config_file(options.config) if options.config else {}
    seed = settings.pop("seed", 0)
    flags = {
        name.removeprefix("setting_"): value for name, value in vars(options).items() if name.startswith("setting_")
    }
    settings.update({name: value for name, value in flags.items() if value is not None})
    return settings, seed if options.seed is None else options.seed


def level_settings_of(
    options: argparse.Namespace, levels: Sequence[str] | None
) -> tuple[dict[str, dict[str, Any]], int]:
    """Settings of each level, from the settings file's tables and then the flags, and the seed."""
    from textladder.levels import LEVELS, find_level

    given, seed = settings_of(options)
    named = list(LEVELS) if levels is None else levels
    for name in named:
        find_level(name)
    shared = shared_settings()
    flags = {name: given.pop(name) for name in shared if getattr(options, f"setting_{name}") is not None}
    if plain := [name for name, value in given.items() if not isinstance(value, dict)]:
        raise ConfigError(
            f"{options.config}: setting {plain[0]!r} stands outside the tables of levels, such as [lstm]."
        )
    settings: dict[str, dict[str, Any]] = {name: dict(table) for name, table in given.items()}
    for name, value in flags.items():
        knowing = [level for level in shared[name] if level in named]
        if not knowing:
            flag, level = "--" + name.replace("_", "-"), next(iter(shared[name]))
            raise ConfigError(f"{flag} is for {level}, which is not among the levels {', '.join(named)}.")
        for level in knowing:
            settings.setdefault(level, {})[name] = value
    return settings, seed
