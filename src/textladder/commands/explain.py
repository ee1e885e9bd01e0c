"""`textladder explain`: which words influenced a prediction most."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textladder.commands.command import Command, label_and_name, print_json, print_wrapped, show, terminal_monitor
from textladder.errors import ConfigError
from textladder.flags import Parser, add_bundle, add_overwrite
from textladder.wording import CONTROLS_IN_LINES

if TYPE_CHECKING:
    from textladder.explain import Explanation


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add BUNDLE, the text, and the page to write."""
    add_bundle(parser)
    parser.add_argument("text", metavar="TEXT", help="the text whose prediction to explain")
    parser.add_argument("--html", metavar="FILE", help="also write an HTML page with the words shaded")
    add_overwrite(parser, "the page")


def run(options: argparse.Namespace) -> None:
    """Explain, and print the shaded text and its strongest words.

    Raises:
        ConfigError: the page exists.
    """
    from textladder.classifier import TextClassifier
    from textladder.explain import explain_text

    page = Path(options.html) if options.html else None
    if page is not None and page.exists() and not options.overwrite:
        raise ConfigError(f"{page} exists; pass --overwrite to replace it, or choose another path.")
    classifier = TextClassifier.load(options.bundle, form=options.form)
    found = explain_text(classifier, options.text, monitor=terminal_monitor())
    if page is not None:
        found.write_page(page)
    if options.json:
        print_json(found.as_dict())
        return
    prediction = found.prediction
    show(f"{label_and_name(prediction.label, prediction.name)} {prediction.probability:.1%} ({classifier.level})")
    _print_shaded(found)
    for name, sign in (("for it", 1), ("against it", -1)):
        words = [f"{found.text[word.start : word.stop]} {word.weight:+.2f}" for word in found.strongest(8, sign)]
        print_wrapped(f"{name + ':':<12}{', '.join(words) or '-'}", indent=" " * 12, first="")
    if page is not None:
        show(f"Page: {page}")


def _print_shaded(found: "Explanation") -> None:
    """Print the text; in a terminal, words that support the prediction are green, those that oppose it red."""
    from rich.console import Console
    from rich.text import Text

    shaded = Text(CONTROLS_IN_LINES.sub("\N{REPLACEMENT CHARACTER}", found.text))  # one for one, as the words count
    for word in found.words:
        share = found.shade(word)
        if abs(share) >= 0.1:
            strong = "bold " if abs(share) >= 0.5 else ""
            shaded.stylize(f"{strong}{'green' if share > 0 else 'red'}", word.start, word.stop)
    Console(highlight=False).print(shaded)


COMMAND = Command("show which words influenced a prediction most", add_flags, run)
