"""The command `textladder`: one short function for each sub-command.

What `flags.py` has parsed is turned into arguments of the public pieces, results into lines for people or one JSON
object. Nothing heavy is imported before a command needs it. A user's mistake is one sentence on standard error and exit
status 2.
"""

import argparse
import contextlib
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
from typing import TYPE_CHECKING, Any, NoReturn

from textladder.errors import ConfigError, TextladderError, unknown_name
from textladder.flags import level_settings_of, parse, settings_of

if TYPE_CHECKING:
    from textladder.classifier import Prediction, TextClassifier
    from textladder.data.labelled_texts import TextData
    from textladder.explain import Explanation
    from textladder.progress import Monitor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status: 0, 2 for a user's mistake, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # so that being told to stop cleans up as Ctrl-C does
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and is not ignored
            signal.signal(signal.SIGINT, _interrupt)
    try:
        options = parse(words)
        options.words = words
        COMMANDS[options.command](options)
        sys.stdout.flush()
    except TextladderError as error:
        return fail(error)
    except KeyboardInterrupt:
        out = getattr(options, "out", None) or getattr(options, "output", None)
        kept = f"nothing was written to {out}, which is as it was before" if out else "nothing was written"
        command = getattr(options, "command", None)
        if command == "compare":
            anew = " without --overwrite" if options.overwrite else ""
            kept = f"every training that was finished is kept in {out}; the same command{anew} goes on from there"
        if command == "predict" and Path(f"{out}.partial").exists():
            kept = f"what was predicted is kept in {out}.partial; the same command goes on from there"
        if command == "pretrain" and Path(f"{out}.partial").exists():
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


class _Interrupted(KeyboardInterrupt):
    """Not KeyboardInterrupt itself, after which Python may end by SIGINT although it was caught.

    It does so under `python -m` where code that was made from a string was interrupted, as imports make dataclasses.
    """


def _interrupt(number: int, frame: object) -> NoReturn:
    raise _Interrupted


def _monitor() -> "Monitor":
    from textladder.progress import monitor_for_terminal

    return monitor_for_terminal()


def _print_json(result: dict[str, Any]) -> None:
    print(json.dumps(result, ensure_ascii=False))


def _classifier(options: argparse.Namespace) -> "TextClassifier":
    """The classifier that the flags, the settings file and the preset ask for."""
    from textladder.classifier import TextClassifier

    settings, seed = settings_of(options)
    preset = settings.pop("preset", "default")
    return TextClassifier(options.level, preset=options.preset or preset, seed=seed, **settings)


def _read(options: argparse.Namespace, classifier: "TextClassifier", monitor: "Monitor") -> "TextData":
    from textladder.levels import find_level

    return _read_rows(
        options, classifier.seed, monitor, dict(find_level(classifier.level).presets[classifier.preset].read)
    )


def _read_rows(
    options: argparse.Namespace, seed: int, monitor: "Monitor", reading: dict[str, Any] | None = None
) -> "TextData":
    """The rows that the flags ask for; `reading` is what belongs to a preset."""
    from textladder.data.labelled_texts import read_texts

    reading = reading or {}
    if options.text:
        reading["text"] = options.text
    data = read_texts(
        options.data,
        test=options.test,
        label=options.label,
        columns=options.columns or None,
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
    settings, seed = level_settings_of(options, options.levels)
    terms = Terms(options.worth, options.max_latency_ms, options.max_size_mb, options.max_fit_minutes)
    found = compare(
        _read_rows(options, seed, monitor),
        options.levels,
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
    from textladder.data.row_rewriting import without_rows
    from textladder.levels import LEVELS

    if options.fix is not None and options.fix not in FIXES:
        raise ConfigError(unknown_name("fix", options.fix, FIXES))
    if (options.fix is None) != (options.output is None) or (options.fix and not options.test):
        raise ConfigError(
            "--fix drop-leaks needs --output FILE and --test FILE; without a test file use it in compare."
        )
    if options.fix and (options.rows or options.first):
        raise ConfigError("--fix drop-leaks writes all of DATA, so --rows and --first have no place beside it.")
    monitor = _monitor()
    settings, seed = level_settings_of(options, options.levels)
    data = _read_rows(options, seed, monitor)
    found = audit_texts(data, levels=options.levels or tuple(LEVELS), settings=settings, seed=seed, monitor=monitor)
    numbers = found.as_dict()
    if options.output:
        numbers["rows_written"] = without_rows(
            options.data,
            options.output,
            {row for row, _, _ in found.leaks},
            label=data.label_column,
            columns=options.columns or None,
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
    cut = classifier.texts_truncated
    record["test"] = classifier.evaluate(data.test).as_dict()
    _say_cut(classifier.texts_truncated - cut, len(data.test), monitor)
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
    from textladder.data.labelled_texts import read_labelled
    from textladder.metrics import accuracy_sentence

    classifier = TextClassifier.load(options.bundle, form=options.form)
    rows = read_labelled(
        options.data,
        classifier.labels,
        text=options.text or list(classifier.text_columns),
        label=options.label or classifier.label_column,
        columns=options.columns or None,
        file_encoding=options.file_encoding,
        drop_missing=options.drop_missing,
    )
    begun = time.perf_counter()
    found = classifier.evaluate(rows)
    speed = len(rows) / (time.perf_counter() - begun)
    _say_cut(classifier.texts_truncated, len(rows), _monitor())
    numbers = found.as_dict()
    if options.json:
        _print_json({**numbers, "rows": found.rows, "rows_per_second": speed})
        return
    form = "" if classifier.form == "original" else f" ({classifier.form})"
    print(f"{classifier.level}{form} on {found.rows:,} rows ({speed:,.0f} a second):")
    print(f"accuracy {accuracy_sentence(numbers)},")
    print(f"macro F1 {found.macro_f1:.3f}, log loss {found.log_loss:.3f}, calibration error {found.ece:.3f}.")


def _predict(options: argparse.Namespace) -> None:
    from textladder.classifier import TextClassifier

    if bool(options.texts) == bool(options.input) or bool(options.input) != bool(options.output):
        raise ConfigError("Give either texts, or --input FILE with --output FILE.")
    classifier = TextClassifier.load(options.bundle, form=options.form)
    if options.input:
        from textladder.predict_file import predict_file

        rows = predict_file(
            classifier,
            options.input,
            options.output,
            text=options.text or None,
            columns=options.columns or None,
            file_encoding=options.file_encoding,
            overwrite=options.overwrite,
            monitor=_monitor(),
        )
        _say_cut(classifier.texts_truncated, rows, _monitor())
        if options.json:
            _print_json({"rows": rows, "output": options.output})
        else:
            print(f"{rows:,} rows predicted, written to {options.output}.")
        return
    found = classifier.predictions(options.texts)
    _say_cut(classifier.texts_truncated, len(options.texts), _monitor())
    if options.json:
        _print_json({"predictions": [vars(one) for one in found]})
        return
    for text, one in zip(options.texts, found, strict=True):
        line = " ".join(text.split())
        print(f"{_label(one):<14} {one.probability:6.1%}  {line[:56] + '...' if len(line) > 56 else line}")


def _label(prediction: "Prediction") -> str:
    return prediction.label if prediction.name == prediction.label else f"{prediction.label} {prediction.name}"


def _explain(options: argparse.Namespace) -> None:
    from textladder.classifier import TextClassifier
    from textladder.explain import explain_text

    page = Path(options.html) if options.html else None
    if page is not None and page.exists() and not options.overwrite:
        raise ConfigError(f"{page} exists; say --overwrite to replace it, or give another place.")
    monitor = _monitor()
    classifier = TextClassifier.load(options.bundle, form=options.form)
    found = explain_text(classifier, options.text, monitor=monitor)
    _say_cut(min(1, classifier.texts_truncated), 1, monitor)
    if page is not None:
        found.write_page(page)
    if options.json:
        _print_json(found.as_dict())
        return
    prediction = found.prediction
    print(f"{_label(prediction)} {prediction.probability:.1%} ({classifier.level})")
    _print_shaded(found)
    for name, sign in (("for it", 1), ("against it", -1)):
        words = [f"{found.text[word.start : word.stop]} {word.weight:+.2f}" for word in found.strongest(8, sign)]
        print(textwrap.fill(f"{name + ':':<12}{', '.join(words) or '-'}", 80, subsequent_indent=" " * 12))
    if page is not None:
        print(f"Page: {page}")


def _print_shaded(found: "Explanation") -> None:
    """The text, its words coloured where a person watches: green for the prediction, red against it."""
    from rich.console import Console
    from rich.text import Text

    shaded = Text(found.text)
    for word in found.words:
        share = found.shade(word)
        if abs(share) >= 0.1:
            strong = "bold " if abs(share) >= 0.5 else ""
            shaded.stylize(f"{strong}{'green' if share > 0 else 'red'}", word.start, word.stop)
    Console(highlight=False).print(shaded)


def _export(options: argparse.Namespace) -> None:
    from textladder.bundle import read_bundle
    from textladder.data.labelled_texts import read_perhaps_labelled
    from textladder.export import export_bundle

    about = read_bundle(options.bundle).manifest
    if options.first < 1:
        raise ConfigError(f"--first must be 1 or more; received {options.first}.")
    texts = read_perhaps_labelled(
        options.data,
        about["labels"],
        text=options.text or about["text_columns"],
        label=options.label or about["label_column"],
        columns=options.columns or None,
        file_encoding=options.file_encoding,
        drop_missing=options.drop_missing,
        first=options.first,
    )
    found = export_bundle(
        options.bundle,
        texts,
        quantize=options.quantize,
        out=options.out,
        overwrite=options.overwrite,
        monitor=_monitor(),
    )
    if options.json:
        _print_json(found.as_dict())
        return
    print(textwrap.fill(f"{found.form} passed: {found.gate.sentence()}", 80))
    print(f"One text: {found.milliseconds:.1f} ms, {found.original_milliseconds:.1f} ms for the original.")
    print(f'Saved in {found.bundle} ({found.megabytes:.1f} MB). Try: textladder predict {found.bundle} "a text"')


def _serve(options: argparse.Namespace) -> None:
    from textladder.errors import import_extra

    for library in ("fastapi", "fastapi_swagger", "prometheus_client", "uvicorn"):
        import_extra(library, "serve")
    from textladder.serving.limits import Limits
    from textladder.serving.server import serve

    def ready(address: str, classifiers: dict[str, "TextClassifier"]) -> None:
        models = {name: {"level": one.level, "form": one.form} for name, one in classifiers.items()}
        if options.json:
            _print_json({"address": address, "models": models})
        else:
            named = ", ".join(f"{name} ({one.form})" for name, one in classifiers.items())
            print(textwrap.fill(f"Serving {named} at {address}, with a page there and /docs. Ctrl-C stops.", 80))
        sys.stdout.flush()

    serve(
        options.bundles,
        host=options.host,
        port=options.port,
        form=options.form,
        limits=Limits(options.max_body, options.max_texts, options.max_characters, options.max_queue),
        token=_token(options.token_file),
        monitor=_monitor(),
        ready=ready,
    )


def _token(file: str | None) -> str | None:
    """The first line of a file that only its owner needs to read."""
    if file is None:
        return None
    try:
        token = (Path(file).read_text(encoding="utf-8").splitlines() or [""])[0].strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: the token cannot be read ({error}).") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{file}: the first line must be a token of printable ASCII characters without blanks.")
    return token


def _lr_find(options: argparse.Namespace) -> None:
    from textladder.levels import find_level

    monitor = _monitor()
    classifier = _classifier(options)
    if not hasattr(find_level(classifier.level), "prepare"):
        raise ConfigError(f"Level {classifier.level!r} is not trained by fastai, so it has no learning rate to find.")
    data = _read(options, classifier, monitor)
    classifier.prepare(data, monitor=monitor)
    from textladder.training.lr_plot import plot_learning_rates
    from textladder.training.stages import find_learning_rate, seeded

    lowest, highest = find_level(classifier.level).learning_rates  # type: ignore[attr-defined]
    with seeded(classifier.seed):
        curve = find_learning_rate(classifier.learner, lowest, highest)
    if options.plot:
        plot_learning_rates(curve, Path(options.plot))
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


def _pretrain(options: argparse.Namespace) -> None:
    from textladder.training.pretraining import pretrain

    settings, seed = settings_of(options)
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


COMMANDS = {
    "compare": _compare,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "explain": _explain,
    "export": _export,
    "serve": _serve,
    "audit": _audit,
    "lr-find": _lr_find,
    "pretrain": _pretrain,
    "levels": _levels,
}

with contextlib.suppress(AttributeError):  # a pipe in another encoding must not break an answer
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
