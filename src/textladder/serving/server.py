"""Loads bundles and serves them until it is stopped."""

import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from textladder.classifier import TextClassifier
from textladder.errors import ConfigError
from textladder.progress import Monitor
from textladder.serving.app import create_app
from textladder.serving.connections import Connection
from textladder.serving.limits import Limits
from textladder.serving.measuring import ACCESS

MAX_CONNECTIONS = 1000  # then those without a request are closed; each is an open file
SPARE_FILES = 100  # open files for everything else
WAITING_SECONDS, SHUTDOWN_SECONDS = 6, 9  # from the signal until what still waits is refused, and until the end
# How long a thread of Python may keep another one waiting, by default 5 ms: a single text waits some twenty times.
SWITCH_SECONDS = 0.0001
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LOG = logging.getLogger("textladder")


def serve(
    bundles: Iterable[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    form: str | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    access_log: bool = False,
    monitor: Monitor | None = None,
    ready: Callable[[str, dict[str, TextClassifier]], None] = lambda address, classifiers: None,
) -> None:
    """Serve bundles until SIGINT or SIGTERM; requests accepted by then are answered first, in ten seconds at most.

    Args:
        bundles: one or more; a model is named after its level, a second one of the same level is `lstm-2`.
        host: the interface to listen on; by default only the loopback interface.
        port: 0 for any free port.
        form: which form of the bundles predicts; by default the fastest.
        limits: what is accepted.
        token: the bearer token that requests must send; None if none is required.
        access_log: write a line of JSON for each request to standard error, without its texts.
        monitor: receives warnings.
        ready: called with the address and the classifiers once requests are answered.

    Raises:
        ConfigError: the host or port cannot be listened on, or a bundle has no such form.
        BundleError: a bundle cannot be read.
    """
    monitor = monitor or Monitor()
    # The thread that loads the classifiers also predicts with them. If another thread loaded them, the torch worker
    # threads of the two would outnumber the cores; they would then sleep between operators and wake up late, and a
    # short text would take 8 ms instead of 5.
    with (
        contextlib.closing(_listener(host, port)) as listener,
        _one_thread() as executor,
        _logging_to_stderr(),
    ):
        classifiers = executor.submit(load_models, bundles, form).result()
        loopback = host in LOOPBACK
        if not loopback and token is None:
            monitor.say(f"{host} can be reached from other machines, and no token is required (see --token-file).")
        hosts = (*LOOPBACK, "[::1]") if loopback else ("*",)
        app = create_app(classifiers, limits=limits, token=token, hosts=hosts, executor=executor, access_log=access_log)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="on",
            http=_limited_connections(), timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )  # fmt: skip
        # uvicorn raises the signal again after it has stopped
        with _short_pauses(), contextlib.suppress(KeyboardInterrupt):
            _Server(config, lambda: ready(address, classifiers), app.state.service.stop).run(sockets=[listener])


def load_models(bundles: Iterable[str | Path], form: str | None = None) -> dict[str, TextClassifier]:
    """Load classifiers by name, each warmed up by a first prediction.

    Args:
        bundles: folders of bundles.
        form: which form predicts; by default the fastest.

    Raises:
        BundleError: a bundle cannot be read.
        ConfigError: a bundle has no such form.
    """
    found: dict[str, TextClassifier] = {}
    for bundle in bundles:
        classifier = TextClassifier.load(bundle, form=form)
        classifier.predict_proba(["a first text", "and a second one"])
        number = sum(one.level == classifier.level for one in found.values()) + 1
        found[classifier.level if number == 1 else f"{classifier.level}-{number}"] = classifier
    return found


def _limited_connections() -> type[Connection]:
    """The connections of one service: as many as this process may open, with a list of silent ones of their own."""
    most = MAX_CONNECTIONS
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_CONNECTIONS + SPARE_FILES
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        soft = max(allowed, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        most = max(1, min(most, soft - SPARE_FILES))
    return type("LimitedConnection", (Connection,), {"most": most, "silent": {}})


@contextlib.contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that is waited for at the end, but not if an interrupt came while it loads."""
    executor = ThreadPoolExecutor(1, "textladder")
    wait = False
    try:
        yield executor
        wait = True
    finally:
        executor.shutdown(wait=wait, cancel_futures=True)


@contextlib.contextmanager
def _short_pauses() -> Iterator[None]:
    """Let no thread of Python keep the others waiting for long.

    The garbage collector passes over what is there now, the classifiers and the libraries; else it may stop everything
    for a tenth of a second.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Write textladder's log to standard error, unless the caller has configured logging."""
    if LOG.hasHandlers():
        yield
        return
    handlers = {LOG: "%(levelname)s: %(message)s", ACCESS: "%(message)s"}
    before = ACCESS.level, ACCESS.propagate
    ACCESS.setLevel(logging.INFO)
    ACCESS.propagate = False
    added = []
    for log, form in handlers.items():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(form))
        log.addHandler(handler)
        added.append((log, handler))
    try:
        yield
    finally:
        ACCESS.setLevel(before[0])
        ACCESS.propagate = before[1]
        for log, handler in added:
            log.removeHandler(handler)


class _Server(uvicorn.Server):
    """Calls back once it is listening, and tells the service when it is to stop."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stop: Callable[[float], None]) -> None:
        super().__init__(config)
        self._ready, self._stop = ready, stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, and stop."""
        self._stop(WAITING_SECONDS)
        await super().shutdown(sockets=sockets)


def _listener(host: str, port: int) -> socket.socket:
    """A socket bound to the address before any bundle is loaded, so that a port in use is noticed at once."""
    if not 0 <= port < 2**16:
        raise ConfigError(f"The port must be from 0 to 65535; received {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"Cannot listen on {host}:{port} ({reason}); choose another host or port.") from None
    return listener
