"""What stands before every request: the token, the declared size of its body, and the measuring."""

import hmac
import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textladder.errors import ConfigError

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TEXTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Limits:
    """What a service takes.

    Attributes:
        body: bytes of a request.
        texts: texts of a request.
        characters: characters of a text.
        waiting: texts that may wait for each classifier; a request of more is taken when nothing waits.
    """

    body: int = 1_000_000
    texts: int = 256
    characters: int = 20_000
    waiting: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"The limit on {name} must be 1 or more; received {value}.")


class Refused(Exception):  # noqa: N818, it is no error but an answer
    """A request that is not answered as it wished.

    Args:
        status: of HTTP.
        error: a name for programs.
        message: a sentence for people.
        headers: of the answer.
    """

    def __init__(self, status: int, error: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.error, self.message, self.headers = status, error, message, headers

    def response(self) -> JSONResponse:
        """The answer that says so."""
        return JSONResponse({"error": self.error, "message": self.message}, self.status, self.headers)


def body_too_large(limit: int) -> Refused:
    """The answer to a body that is too large."""
    return Refused(413, "body_too_large", f"A request may have {limit:,} bytes.")


class Metrics:
    """What is counted, for Prometheus; one for each service, so that several can be in a process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter("textladder_requests", "Answers", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "textladder_request_seconds", "From a request to its answer", ["path"], buckets=SECONDS, registry=registry
        )
        self.texts = Counter("textladder_texts", "Texts predicted", ["model"], registry=registry)
        self.texts_truncated = Gauge(
            "textladder_texts_cut", "Texts too long for the level", ["model"], registry=registry
        )
        self.refused = Counter("textladder_refused", "Requests that found the queue full", ["model"], registry=registry)
        self.waiting = Gauge("textladder_waiting_texts", "Texts that wait now", ["model"], registry=registry)
        self.batches = Histogram(
            "textladder_batch_texts", "Texts of a batch", ["model"], buckets=TEXTS, registry=registry
        )
        self.batch_seconds = Histogram(
            "textladder_batch_seconds", "A batch's computing", ["model"], buckets=SECONDS, registry=registry
        )


class Guard:
    """Lets requests through to an application.

    Args:
        app: the application.
        metrics: where answers are counted.
        paths: the paths that there are; others are counted as one.
        open_paths: those that need no token.
        body: bytes that a request may declare.
        token: what must be shown; None where nothing must.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, paths: set[str], open_paths: set[str], body: int, token: str | None
    ) -> None:
        self.app, self.metrics, self.paths, self.open_paths = app, metrics, paths, open_paths
        self.body, self._token = body, None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, path = time.perf_counter(), scope["path"] if scope["path"] in self.paths else "other"
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            refused = self._refused(scope["path"], Headers(scope=scope))
            await (refused.response() if refused else self.app)(scope, receive, noting)
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    def _refused(self, path: str, headers: Headers) -> Refused | None:
        if self._token is not None and path not in self.open_paths:
            kind, _, shown = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(shown.strip().encode("utf-8", "replace"), self._token)
            if kind.lower() != "bearer" or not right:
                message = "This needs the header Authorization: Bearer TOKEN."
                return Refused(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        size = headers.get("content-length", "0")
        if size.isdigit() and len(size) < 20 and int(size) <= self.body:
            return None
        return body_too_large(self.body)
