"""The command `textladder`: one short function for each sub-command.

Flags are turned into arguments of the public pieces, results into lines for people or one JSON object. Nothing heavy
is imported before a command needs it. A user's mistake is one sentence on standard error and exit status 2.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shlex
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

from textladder import __version__
from textladder.errors import ConfigError, TextladderError, unknown_name

if TYPE_CHECKING:
    from textladder.classifier import TextClassifier
    from textladder.data import TextData
    from textladder.progress import Monitor

SEEDS_HELP = "3 where a fit takes under 2 minutes, else 1; 1 with --time-budget"
# which levels know a setting that has a flag in `compare` and `audit`: levels, type, metavar, help
SHARED_SETTINGS: dict[str, tuple[tuple[str, ...], type, str, str]] = {
    "vectors": (("lstm",), str, "NAME", "word vectors: a file in GloVe's text form, or a name"),
    "language_model": (("ulmfit",), str, "NAME", "pretrained language model"),
    "unlabelled": (("ulmfit",), str, "FILE", "fine-tune the language model on this file too"),
    "encoder": (("transformer",), str, "NAME", "a name on the Hugging Face Hub, a folder, or all-MiniLM-L6-v2"),
    "max_tokens": (("transformer",), int, "N", "read at most so many word pieces at a time"),
    "frozen_epochs": (("ulmfit", "transformer"), int, "N", "passes that train the head alone"),
}
DATA_HELP = "a .csv, .tsv, .jsonl or .parquet file (or .gz of it), amazon-polarity, sample, or a Hub data set"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status: 0, 2 for a user's mistake, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # so that being told to stop cleans up as Ctrl-C does
    try:
        options = _parser(words).parse_args(words)
        options.words = words
        options.run(options)
        sys.stdout.flush()
    except TextladderError as error:
        return fail(error)
    except KeyboardInterrupt:
        out = getattr(options, "out", None) or getattr(options, "output", None)
        kept = f"nothing was written to {out}, which is as it was before" if out else "nothing was written"
        if getattr(options, "run", None) is _compare:
            anew = " without --overwrite" if options.overwrite else ""
            kept = f"every training that was finished is kept in {out}; the same command{anew} goes on from there"
        if getattr(options, "run", None) is _pretrain and Path(f"{out}.partial").exists():
            kept = f"what was learnt is kept in {out}.partial; the same command goes on from there"
        print(f"\ntextladder: interrupted; {kept}.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def fail(error: TextladderError) -> int:
    """Say what is wrong and give the exit status of a user's mistake."""
    print(f"textladder: {error}", file=sys.stderr)
    return 2


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


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


def _parser(words: Sequence[str]) -> _Parser:
    parser = _Parser(
        prog="textladder",
        description="How far up the ladder of text classifiers is worth climbing, on your own labelled texts.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"textladder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, parser_class=_Parser)
    # argparse would list the names as "invalid choice"; here a wrong one gets its near misses
    names = ("compare", "train", "evaluate", "predict", "audit", "lr-find", "pretrain", "levels")
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in names and words and words[0] == command:
        raise ConfigError(unknown_name("command", command, names))
    level = _flag_value(words, "--level")

    compare = _add(commands, "compare", _compare, "train several levels on the same rows and say which is worth it")
    compare.add_argument("data", metavar="DATA", help=DATA_HELP)
    compare.add_argument("--levels", metavar="A,B", help="which levels (default: all that can be trained here)")
    compare.add_argument("--out", default="runs/compare", metavar="RUN", help="folder (default runs/compare)")
    compare.add_argument("--overwrite", action="store_true", help="begin anew instead of going on where RUN was left")
    compare.add_argument("--seeds", type=int, metavar="N", help=f"train each level N times (default {SEEDS_HELP})")
    compare.add_argument("--learning-curve", action="store_true", help="also train on 1/8, 1/4 and 1/2 of the rows")
    compare.add_argument(
        "--time-budget", type=_duration, metavar="30m", help="time that fits may take in all (s, m, h)"
    )
    compare.add_argument("--fix", metavar="NAME", help="drop-leaks: leave out training rows that are test rows too")
    terms = compare.add_argument_group("your terms")
    terms.add_argument(
        "--worth", type=float, default=1.0, metavar="X", help="points a dearer level must gain (default 1)"
    )
    terms.add_argument("--max-latency-ms", type=float, metavar="X", help="one text may take so long (median)")
    terms.add_argument("--max-size-mb", type=float, metavar="X", help="the bundle may be so large")
    terms.add_argument("--max-fit-minutes", type=float, metavar="X", help="a training may take so long")
    _add_split_flags(compare)
    _add_column_flags(compare)
    _add_shared_settings(compare)
    _add_json(compare)

    train = _add(commands, "train", _train, "train one level and save it as a bundle")
    train.add_argument("data", metavar="DATA", help=DATA_HELP)
    _add_level_flags(train, level)
    train.add_argument("--out", required=True, metavar="BUNDLE", help="folder to write the bundle to")
    train.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    _add_split_flags(train)
    _add_column_flags(train)
    _add_json(train)

    evaluate = _add(commands, "evaluate", _evaluate, "measure a bundle on labelled texts")
    evaluate.add_argument("bundle", metavar="BUNDLE")
    evaluate.add_argument("data", metavar="DATA", help=DATA_HELP)
    _add_column_flags(evaluate)
    _add_json(evaluate)

    predict = _add(commands, "predict", _predict, "label texts, or every row of a file")
    predict.add_argument("bundle", metavar="BUNDLE")
    predict.add_argument("texts", metavar="TEXT", nargs="*")
    predict.add_argument("--input", metavar="FILE", help="predict every row of this file")
    predict.add_argument("--output", metavar="FILE", help="where to write the rows with their predictions")
    predict.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    predict.add_argument("--text", metavar="A,B", help="the text columns (default: the ones learnt from)")
    predict.add_argument("--columns", metavar="A,B,C", help="names for the columns of a file without a header")
    predict.add_argument("--file-encoding", default="utf-8", metavar="NAME", help="how the file is encoded")
    _add_json(predict)

    audit = _add(commands, "audit", _audit, "say what is wrong with labelled texts before training on them")
    audit.add_argument("data", metavar="DATA", help=DATA_HELP)
    audit.add_argument("--levels", metavar="A,B", help="whose tokens are counted (default: all)")
    audit.add_argument("--fix", metavar="NAME", help="drop-leaks: write DATA without the rows that are test rows too")
    audit.add_argument("--output", metavar="FILE", help="where --fix writes the rows, in DATA's form")
    audit.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    _add_split_flags(audit)
    _add_column_flags(audit)
    _add_shared_settings(audit)
    _add_json(audit)

    find = _add(commands, "lr-find", _lr_find, "try rising learning rates and suggest one")
    find.add_argument("data", metavar="DATA", help=DATA_HELP)
    _add_level_flags(find, level)
    find.add_argument("--plot", metavar="FILE", help="draw the curve as a .png, .svg or .pdf")
    _add_split_flags(find)
    _add_column_flags(find)
    _add_json(find)

    pretrain = _add(commands, "pretrain", _pretrain, "train a language model from texts without labels")
    pretrain.add_argument(
        "corpora", metavar="CORPUS", nargs="+", help="a text file, one document a line (or .gz of it)"
    )
    pretrain.add_argument("--out", required=True, metavar="FOLDER", help="folder to write the language model to")
    pretrain.add_argument("--overwrite", action="store_true", help="replace a language model that is there")
    pretrain.add_argument("--config", metavar="FILE", help="settings from a TOML file; flags come before it")
    pretrain.add_argument("--seed", type=int, metavar="N", help="of every draw (default 0)")
    if command == "pretrain":
        from textladder.pretraining import PretrainingConfig

        _add_settings(pretrain.add_argument_group("sizes and settings"), PretrainingConfig)
    _add_json(pretrain)

    levels = _add(commands, "levels", _levels, "list the levels and their presets")
    _add_json(levels)
    return parser


def _add(commands: Any, name: str, run: Any, help: str) -> _Parser:
    usage = f"textladder {name} [FLAGS] ..." if name in ("compare", "train", "audit", "lr-find", "pretrain") else None
    description = help.capitalize() + "."
    parser: _Parser = commands.add_parser(name, help=help, description=description, usage=usage, allow_abbrev=False)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_json(parser: _Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _add_column_flags(parser: _Parser) -> None:
    group = parser.add_argument_group("what is read (found by itself, and said)")
    group.add_argument("--text", metavar="A,B", help="text columns, joined with a space")
    group.add_argument("--label", metavar="NAME", help="label column")
    group.add_argument("--columns", metavar="A,B,C", help="names for the columns of a file without a header")
    group.add_argument("--file-encoding", default="utf-8", metavar="NAME", help="how the file is encoded")
    group.add_argument("--drop-missing", action="store_true", help="leave out rows without a label")


def _add_split_flags(parser: _Parser) -> None:
    group = parser.add_argument_group("which rows")
    group.add_argument("--test", metavar="FILE", help="held-out rows (default: a stratified 20%% of DATA)")
    group.add_argument("--rows", type=int, metavar="N", help="take a seeded, stratified N of DATA's rows")
    group.add_argument("--first", type=int, metavar="N", help="take DATA's first N rows")
    group.add_argument("--seed", type=int, metavar="N", help="of every choice and draw (default 0)")


def _add_level_flags(parser: _Parser, name: str | None) -> None:
    """The flags of the settings of the level that is named on the command line."""
    parser.add_argument("--level", required=True, metavar="LEVEL", help="see textladder levels")
    parser.add_argument("--preset", metavar="NAME", help="settings that belong together (default: default)")
    parser.add_argument("--config", metavar="FILE", help="settings from a TOML file; flags come before it")
    if name is None:
        parser.epilog = f"Settings of a level: textladder {parser.prog.split()[-1]} --level LEVEL --help"
        return
    from textladder.levels import find_level

    _add_settings(parser.add_argument_group(f"settings of {name}"), find_level(name).config_type)


def _add_shared_settings(parser: _Parser) -> None:
    """The few settings that have a flag where several levels are at work; each goes to the levels that know it."""
    group = parser.add_argument_group("settings of levels (more of them as tables [LEVEL] of --config)")
    group.add_argument("--config", metavar="FILE", help="settings from a TOML file, a table for each level")
    for name, (levels, kind, metavar, help) in SHARED_SETTINGS.items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(
            flag, type=kind, metavar=metavar, dest=f"setting_{name}", help=f"{help} ({', '.join(levels)})"
        )


def _add_settings(group: Any, config_type: type) -> None:
    """A flag for each field of a config; those that all neural levels share come last."""
    from textladder.levels.base import TrainingConfig

    kinds = get_type_hints(config_type)
    shared = {item.name for item in dataclasses.fields(TrainingConfig)}
    for item in sorted(dataclasses.fields(config_type), key=lambda item: item.name in shared):
        kind = kinds[item.name]
        flag = "--" + item.name.replace("_", "-")
        shown = ",".join(item.default) if isinstance(item.default, tuple) else item.default
        help = item.metadata["help"].replace("%", "%%") + (f" (default {shown})" if shown is not None else "")
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
        return _split
    if get_origin(kind) is UnionType:
        return next(one for one in get_args(kind) if one is not type(None))
    return kind


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(_converter(kind), "A,B" if get_origin(kind) is tuple else "NAME")


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _flag_value(words: Sequence[str], flag: str) -> str | None:
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


def _monitor() -> "Monitor":
    from textladder.progress import monitor_for_terminal

    return monitor_for_terminal()


def _print_json(result: dict[str, Any]) -> None:
    print(json.dumps(result, ensure_ascii=False))


def _classifier(options: argparse.Namespace) -> "TextClassifier":
    """The classifier that the flags, the settings file and the preset ask for."""
    from textladder.classifier import TextClassifier

    settings, seed = _settings(options)
    preset = settings.pop("preset", "default")
    return TextClassifier(options.level, preset=options.preset or preset, seed=seed, **settings)


def _settings(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """What the settings file and then the flags say, and the seed."""
    from textladder.settings import read_config_file

    settings = read_config_file(options.config) if options.config else {}
    seed = settings.pop("seed", 0)
    flags = {
        name.removeprefix("setting_"): value for name, value in vars(options).items() if name.startswith("setting_")
    }
    settings.update({name: value for name, value in flags.items() if value is not None})
    return settings, seed if options.seed is None else options.seed


def _level_settings(options: argparse.Namespace, levels: Sequence[str] | None) -> tuple[dict[str, dict[str, Any]], int]:
    """Settings of each level, from the settings file's tables and then the flags, and the seed."""
    from textladder.levels import LEVELS, find_level

    given, seed = _settings(options)
    named = list(LEVELS) if levels is None else levels
    for name in named:
        find_level(name)
    flags = {name: given.pop(name) for name in SHARED_SETTINGS if getattr(options, f"setting_{name}") is not None}
    if plain := [name for name, value in given.items() if not isinstance(value, dict)]:
        raise ConfigError(
            f"{options.config}: setting {plain[0]!r} stands outside the tables of levels, such as [lstm]."
        )
    settings: dict[str, dict[str, Any]] = {name: dict(table) for name, table in given.items()}
    for name, value in flags.items():
        knowing = [level for level in SHARED_SETTINGS[name][0] if level in named]
        if not knowing:
            flag, level = "--" + name.replace("_", "-"), SHARED_SETTINGS[name][0][0]
            raise ConfigError(f"{flag} is for {level}, which is not among the levels {', '.join(named)}.")
        for level in knowing:
            settings.setdefault(level, {})[name] = value
    return settings, seed


def _read(options: argparse.Namespace, classifier: "TextClassifier", monitor: "Monitor") -> "TextData":
    from textladder.levels import find_level

    return _read_rows(
        options, classifier.seed, monitor, dict(find_level(classifier.level).presets[classifier.preset].read)
    )


def _read_rows(
    options: argparse.Namespace, seed: int, monitor: "Monitor", reading: dict[str, Any] | None = None
) -> "TextData":
    """The rows that the flags ask for; `reading` is what belongs to a preset."""
    from textladder.data import read_texts

    reading = reading or {}
    if options.text:
        reading["text"] = _split(options.text)
    data = read_texts(
        options.data,
        test=options.test,
        label=options.label,
        columns=_split(options.columns) if options.columns else None,
        file_encoding=options.file_encoding,
        rows=options.rows,
        first=options.first,
        drop_missing=options.drop_missing,
        seed=seed,
        **reading,
    )
    monitor.say(data.description)
    return data


def _compare(options: argparse.Namespace) -> None:
    from textladder.comparison.compare import compare
    from textladder.comparison.verdict import Terms

    monitor = _monitor()
    levels = _split(options.levels) if options.levels is not None else None
    settings, seed = _level_settings(options, levels)
    terms = Terms(options.worth, options.max_latency_ms, options.max_size_mb, options.max_fit_minutes)
    found = compare(
        _read_rows(options, seed, monitor),
        levels,
        settings=settings,
        terms=terms,
        seeds=options.seeds,
        seed=seed,
        learning_curve=options.learning_curve,
        time_budget=options.time_budget,
        fix=options.fix,
        out=options.out,
        overwrite=options.overwrite,
        command=shlex.join(["textladder", *options.words]),
        monitor=monitor,
    )
    if options.json:
        _print_json(found.as_dict())
        return
    if not found.levels:
        reasons = " ".join(f"{name}: {why}" for name, why in found.failed.items())
        raise TextladderError(f"No level could be trained. {reasons}")
    print(found.text_table())
    print(textwrap.fill(found.verdict, 80))
    print(f"Report: {options.out}/report.html")
    if found.recommended:
        print(f'Try: textladder predict {found[found.recommended].kept.bundle} "a text"')


def _audit(options: argparse.Namespace) -> None:
    from textladder.audit import audit_texts
    from textladder.comparison.compare import FIXES
    from textladder.levels import LEVELS
    from textladder.rewriting import without_rows

    if options.fix is not None and options.fix not in FIXES:
        raise ConfigError(unknown_name("fix", options.fix, FIXES))
    if (options.fix is None) != (options.output is None) or (options.fix and not options.test):
        raise ConfigError(
            "--fix drop-leaks needs --output FILE and --test FILE; without a test file use it in compare."
        )
    if options.fix and (options.rows or options.first):
        raise ConfigError("--fix drop-leaks writes all of DATA, so --rows and --first have no place beside it.")
    monitor = _monitor()
    levels = _split(options.levels) if options.levels is not None else None
    settings, seed = _level_settings(options, levels)
    data = _read_rows(options, seed, monitor)
    found = audit_texts(data, levels=levels or tuple(LEVELS), settings=settings, seed=seed, monitor=monitor)
    numbers = found.as_dict()
    if options.output:
        numbers["rows_written"] = without_rows(
            options.data,
            options.output,
            {row for row, _, _ in found.leaks},
            label=data.label_column,
            columns=_split(options.columns) if options.columns else None,
            file_encoding=options.file_encoding,
            overwrite=options.overwrite,
        )
    if options.json:
        _print_json(numbers)
        return
    for finding in found.findings():
        print(textwrap.fill(finding, 80, initial_indent="- ", subsequent_indent="  "))
    if options.output:
        print(f"{numbers['rows_written']:,} rows without leaks written to {options.output}.")


def _train(options: argparse.Namespace) -> None:
    from textladder.bundle import check_output

    monitor = _monitor()
    out = check_output(options.out, options.overwrite)
    classifier = _classifier(options)
    data = _read(options, classifier, monitor)
    classifier.fit(data, monitor=monitor)
    record = classifier.record
    record["test_rows"] = len(data.test)
    cut = classifier.texts_cut
    record["test"] = classifier.evaluate(data.test).as_dict()
    _say_cut(classifier.texts_cut - cut, len(data.test), monitor)
    classifier.save(out, overwrite=options.overwrite)
    result = {"level": classifier.level, "preset": classifier.preset, "bundle": str(out), **record}
    if options.json:
        _print_json(result)
        return
    print_epochs(record["epochs"])
    print_test(classifier, record)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    print(f'Saved to {out} ({size:.1f} MB). Try: textladder predict {out} "a text"')


def _say_cut(cut: int, texts: int, monitor: "Monitor") -> None:
    if cut:
        monitor.say(f"{cut:,} of {texts:,} texts are too long for this level and lost tokens.")


def print_epochs(epochs: Sequence[dict[str, Any]]) -> None:
    """The looks at the validation rows as a table; the stages by name where there are several."""
    several = len({row["stage"] for row in epochs}) > 1
    width = max((len(row["stage"]) for row in epochs), default=0) + 2 if several else 0
    if epochs:
        print(f"{'stage' if several else '':<{width}}epoch   train loss   valid loss   valid accuracy   seconds")
    for row in epochs:
        loss, accuracy = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("valid_loss", "valid_accuracy"))
        print(
            f"{row['stage'] if several else '':<{width}}{row['epoch']:5g}   {row['train_loss']:10.3f}   {loss:>10}   "
            f"{accuracy:>14}   {row['seconds']:7.1f}"
        )


def print_test(classifier: "TextClassifier", record: dict[str, Any]) -> None:
    """What was fitted and how it did on the held-out rows."""
    from textladder.metrics import accuracy_sentence

    test = record["test"]
    print(
        f"{classifier.level} ({classifier.preset}): {record['parameters']:,} parameters fitted to "
        f"{record['train_rows']:,} rows in {record['fit_seconds']:.1f} s."
    )
    print(f"Test accuracy {accuracy_sentence(test)} on {record['test_rows']:,} rows;")
    print(f"macro F1 {test['macro_f1']:.3f}, log loss {test['log_loss']:.3f}, calibration error {test['ece']:.3f}.")


def _evaluate(options: argparse.Namespace) -> None:
    from textladder.classifier import TextClassifier
    from textladder.data import read_labelled
    from textladder.metrics import accuracy_sentence

    classifier = TextClassifier.load(options.bundle)
    rows = read_labelled(
        options.data,
        classifier.labels,
        text=_split(options.text) if options.text else list(classifier.text_columns),
        label=options.label or classifier.label_column,
        columns=_split(options.columns) if options.columns else None,
        file_encoding=options.file_encoding,
        drop_missing=options.drop_missing,
    )
    begun = time.perf_counter()
    found = classifier.evaluate(rows)
    speed = len(rows) / (time.perf_counter() - begun)
    _say_cut(classifier.texts_cut, len(rows), _monitor())
    numbers = found.as_dict()
    if options.json:
        _print_json({**numbers, "rows": found.rows, "rows_per_second": speed})
        return
    print(f"{classifier.level} on {found.rows:,} rows ({speed:,.0f} a second):")
    print(f"accuracy {accuracy_sentence(numbers)},")
    print(f"macro F1 {found.macro_f1:.3f}, log loss {found.log_loss:.3f}, calibration error {found.ece:.3f}.")


def _predict(options: argparse.Namespace) -> None:
    from textladder.classifier import TextClassifier

    if bool(options.texts) == bool(options.input) or bool(options.input) != bool(options.output):
        raise ConfigError("Give either texts, or --input FILE with --output FILE.")
    classifier = TextClassifier.load(options.bundle)
    if options.input:
        from textladder.predicting import predict_file

        rows = predict_file(
            classifier,
            options.input,
            options.output,
            text=_split(options.text) if options.text else None,
            columns=_split(options.columns) if options.columns else None,
            file_encoding=options.file_encoding,
            overwrite=options.overwrite,
            monitor=_monitor(),
        )
        _say_cut(classifier.texts_cut, rows, _monitor())
        if options.json:
            _print_json({"rows": rows, "output": options.output})
        else:
            print(f"{rows:,} rows predicted, written to {options.output}.")
        return
    found = classifier.predictions(options.texts)
    _say_cut(classifier.texts_cut, len(options.texts), _monitor())
    if options.json:
        predictions = [
            {
                "label": one.label,
                "name": one.name,
                "probability": one.probability,
                "probabilities": one.probabilities,
            }
            for one in found
        ]
        _print_json({"predictions": predictions})
        return
    for text, one in zip(options.texts, found, strict=True):
        name = one.label if one.name == one.label else f"{one.label} {one.name}"
        line = " ".join(text.split())
        print(f"{name:<14} {one.probability:6.1%}  {line[:56] + '...' if len(line) > 56 else line}")


def _lr_find(options: argparse.Namespace) -> None:
    from textladder.levels import find_level

    monitor = _monitor()
    classifier = _classifier(options)
    if not hasattr(find_level(classifier.level), "prepare"):
        raise ConfigError(f"Level {classifier.level!r} is not trained by fastai, so it has no learning rate to find.")
    data = _read(options, classifier, monitor)
    classifier.prepare(data, monitor=monitor)
    from textladder.training import find_learning_rate, seeded

    lowest, highest = find_level(classifier.level).learning_rates  # type: ignore[attr-defined]
    with seeded(classifier.seed):
        curve = find_learning_rate(classifier.learner, lowest, highest)
    if options.plot:
        _plot(curve, Path(options.plot))
    if options.json:
        numbers = {"rates": curve.rates, "losses": curve.losses}
        found = {
            "suggested": curve.suggested,
            "learning_rate": curve.learning_rate,
            "range": [lowest, highest],
        }
        _print_json({"level": classifier.level, **found, **numbers})
        return
    for rate, loss in list(zip(curve.rates, curve.losses, strict=True))[::6]:
        print(f"{rate:8.1e}  {loss:8.3f}  {'#' * min(50, round(40 * loss / max(curve.losses[0], 1e-9)))}")
    print(curve.sentence())


def _plot(curve: Any, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(curve.rates, curve.losses, color="#2b6cb0")
    axes.axvspan(curve.lowest, curve.highest, color="#2b6cb0", alpha=0.1, label="sane for this level")
    axes.axvline(curve.suggested, color="#c05621", linestyle="--", label=f"suggested, {curve.suggested:.2g}")
    if curve.learning_rate != curve.suggested:
        axes.axvline(curve.learning_rate, color="#2f855a", label=f"held to {curve.learning_rate:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)", title="Learning-rate finder")
    axes.set_ylim(min(curve.losses) * 0.95, curve.losses[0] * 1.5)
    axes.legend(loc="upper left")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the plot could not be written ({error}).") from None
    finally:
        plt.close(figure)


def _pretrain(options: argparse.Namespace) -> None:
    from textladder.pretraining import pretrain

    settings, seed = _settings(options)
    found = pretrain(
        options.corpora, options.out, seed=seed, overwrite=options.overwrite, monitor=_monitor(), **settings
    )
    if options.json:
        _print_json({"language_model": options.out, **found})
        return
    print("epoch   train loss   held-out loss   perplexity   seconds")
    for row in found["epochs"]:
        looked = f"{row['valid_loss']:13.3f}   {math.exp(row['valid_loss']):10.1f}"
        print(f"{row['epoch']:5g}   {row['train_loss']:10.3f}   {looked}   {row['seconds']:7.1f}")
    print(
        f"Perplexity {found['perplexity']:.1f} on {found['held_out_words']:,} held-out words after "
        f"{found['passes']} passes over {found['words_per_pass']:,} ({found['parameters']:,} parameters); "
        f"{found['perplexity_per_written_word']:.1f} per word between blanks."
    )
    print(
        f"Saved to {options.out}. Try: textladder train DATA --level ulmfit --language-model {options.out} --out BUNDLE"
    )


def _levels(options: argparse.Namespace) -> None:
    from textladder.levels import LEVELS, find_level

    levels = {name: find_level(name) for name in LEVELS}
    if options.json:
        described = [
            {
                "level": name,
                "summary": level.summary,
                "presets": {preset: known.help for preset, known in level.presets.items()},
            }
            for name, level in levels.items()
        ]
        _print_json({"levels": described})
        return
    for name, level in levels.items():
        print(f"{name:<11} {level.summary}")
        for preset, known in level.presets.items():
            print(f"  --preset {preset:<9} {known.help}")


with contextlib.suppress(AttributeError):  # a pipe in another encoding must not break an answer
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
