"""Loads bundles and answers until it is told to stop."""

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from textladder.classifier import TextClassifier
from textladder.errors import ConfigError
from textladder.progress import Monitor
from textladder.serving.app import create_app
from textladder.serving.guard import Limits

MOST_CONNECTIONS = 1000  # more are told 503 by the server, before anything is read
SECONDS_TO_STOP = 30  # for what was taken; then the rest is given up
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    bundles: Iterable[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    form: str | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    monitor: Monitor | None = None,
    ready: Callable[[str, dict[str, TextClassifier]], None] = lambda address, classifiers: None,
) -> None:
    """Answer requests until SIGINT or SIGTERM; what was taken by then is answered first.

    Args:
        bundles: each is a model, named after its level; a second one of a level is `lstm-2`.
        host: the interface; beyond loopback only if this says so.
        port: 0 takes any that is free.
        form: which form of the bundles predicts; the fastest unless given.
        limits: what is taken.
        token: what requests must show.
        monitor: is told of what a person should know.
        ready: is called with the address and the classifiers when requests are answered.

    Raises:
        ConfigError: the place to listen cannot be had.
        BundleError: a bundle cannot be read.
    """
    monitor = monitor or Monitor()
    # One thread loads the classifiers and predicts with them. If another had loaded them, torch's helpers of both would
    # be more than there are cores; they then sleep between two operators and wake late: 8 ms for a short text, not 5.
    with contextlib.closing(_listener(host, port)) as listener, ThreadPoolExecutor(1, "textladder") as executor:
        classifiers = executor.submit(load_models, bundles, form).result()
        loopback = host in LOOPBACK
        if not loopback and token is None:
            monitor.say(f"{host} can be reached from other machines, and no token is asked for (--token-file).")
        app = create_app(
            classifiers,
            limits=limits,
            token=token,
            hosts=(*LOOPBACK, "[::1]") if loopback else ("*",),
            executor=executor,
        )
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        logging.basicConfig(format="%(levelname)s: %(message)s")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="on",
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=SECONDS_TO_STOP,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands on the signal that it stopped for
            _Server(config, lambda: ready(address, classifiers)).run(sockets=[listener])


def load_models(bundles: Iterable[str | Path], form: str | None = None) -> dict[str, TextClassifier]:
    """Classifiers by name, each warm from a first prediction.

    Raises:
        BundleError: a bundle cannot be read.
        ConfigError: it has no such form.
    """
    found: dict[str, TextClassifier] = {}
    for bundle in bundles:
        classifier = TextClassifier.load(bundle, form=form)
        classifier.predict_proba(["a first text", "and one beside it"])
        number = sum(one.level == classifier.level for one in found.values()) + 1
        found[classifier.level if number == 1 else f"{classifier.level}-{number}"] = classifier
    return found


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()


def _listener(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ConfigError(f"The port must be from 0 to 65535; received {port}.")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{host}:{port} cannot be listened at ({reason}); --host and --port say where.") from None
    return listener
