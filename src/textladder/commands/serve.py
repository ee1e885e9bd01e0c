"""`textladder serve`: bundles over HTTP."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textladder.commands.command import Command, print_json, print_wrapped, terminal_monitor
from textladder.errors import ConfigError, import_extra
from textladder.flags import FORM_HELP, Parser
from textladder.progress import Monitor

if TYPE_CHECKING:
    from textladder.classifier import TextClassifier

LIBRARIES = ("fastapi", "fastapi_swagger", "prometheus_client", "uvicorn")


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add the bundles, where to listen, and the limits."""
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+", help="bundles to serve, each named after its level")
    parser.add_argument("--form", metavar="NAME", help=FORM_HELP)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="interface to listen on [default: 127.0.0.1, this machine only]",
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port to listen on; 0 for any free one [default: 8000]"
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help="file with the bearer token that clients must send [default: no token]"
    )
    parser.add_argument(
        "--access-log", action="store_true", help="write a line of JSON for each request to standard error"
    )
    group = parser.add_argument_group("limits of a request")
    for flag, default, help in (
        ("--max-body", 1_000_000, "maximum bytes in a request body, else status 413"),
        ("--max-texts", 256, "maximum texts in a request, else status 422"),
        ("--max-characters", 20_000, "maximum characters in a text, else status 400"),
        ("--max-queue", 64, "maximum texts waiting for a model, else status 503"),
        ("--max-seconds", 60, "maximum seconds until an answer, else status 503"),
    ):
        group.add_argument(flag, type=int, default=default, metavar="N", help=f"{help} [default: {default}]")


def run(options: argparse.Namespace) -> None:
    """Serve until interrupted."""
    for library in LIBRARIES:
        import_extra(library, "serve")
    from textladder.serving.limits import Limits
    from textladder.serving.server import serve

    def ready(address: str, classifiers: dict[str, "TextClassifier"]) -> None:
        models = {name: {"level": one.level, "form": one.form} for name, one in classifiers.items()}
        if options.json:
            print_json({"address": address, "models": models})
        else:
            named = ", ".join(f"{name} ({one.form})" for name, one in classifiers.items())
            print_wrapped(f"Serving {named} at {address}, with a page to try it there and /docs. Press Ctrl-C to stop.")
        sys.stdout.flush()

    monitor = terminal_monitor()
    serve(
        options.bundles,
        host=options.host,
        port=options.port,
        form=options.form,
        limits=Limits(
            options.max_body, options.max_texts, options.max_characters, options.max_queue, options.max_seconds
        ),
        token=_read_token(options.token_file, monitor),
        access_log=options.access_log,
        monitor=monitor,
        ready=ready,
    )


def _read_token(file: str | None, monitor: Monitor) -> str | None:
    """The first line of a file; it is said if others than its owner may read it."""
    if file is None:
        return None
    try:
        if os.name == "posix" and os.stat(file).st_mode & 0o044:
            monitor.say(f"{file} can be read by other users of this machine; restrict it with chmod 600.")
        token = (Path(file).read_text(encoding="utf-8").splitlines() or [""])[0].strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: the token cannot be read ({error}).") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{file}: the first line must be a token of printable ASCII characters without spaces.")
    return token


COMMAND = Command("serve bundles over HTTP, with a page to try them", add_flags, run)
