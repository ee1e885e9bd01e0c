"""The Prometheus metrics, and the middleware that measures every request."""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TEXTS = (1, 2, 4, 8, 16, 32)
ACCESS = logging.getLogger("textladder.access")


class Metrics:
    """The metrics of one service, in a registry of their own, so that a process can run several services."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter("textladder_requests", "Responses", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "textladder_request_seconds", "Latency of a request", ["path"], buckets=SECONDS, registry=registry
        )
        self.texts = Counter("textladder_texts", "Texts predicted", ["model"], registry=registry)
        self.texts_truncated = Counter("textladder_texts_truncated", "Texts truncated", ["model"], registry=registry)
        self.refused = Counter(
            "textladder_refused", "Requests refused because the queue was full", ["model"], registry=registry
        )
        self.waiting = Gauge("textladder_waiting_texts", "Texts in the queue", ["model"], registry=registry)
        self.batches = Histogram(
            "textladder_batch_texts", "Texts in a batch", ["model"], buckets=TEXTS, registry=registry
        )
        self.batch_seconds = Histogram(
            "textladder_batch_seconds", "Computation of a batch", ["model"], buckets=SECONDS, registry=registry
        )

    def batch_observer(self, name: str) -> Callable[[int, int, float], None]:
        """A function to call after each batch of a model: with its texts, the truncated ones of them, its seconds."""
        texts, truncated = self.texts.labels(name), self.texts_truncated.labels(name)
        sizes, seconds = self.batches.labels(name), self.batch_seconds.labels(name)

        def observe(size: int, texts_truncated: int, duration: float) -> None:
            texts.inc(size)
            truncated.inc(texts_truncated)
            sizes.observe(size)
            seconds.observe(duration)

        return observe


class Measuring:
    """Middleware that counts and times every request.

    Args:
        app: the application that it wraps.
        metrics: where requests are counted.
        paths: the paths of the application; all others are counted, and logged, as `other`.
        access_log: log a line of JSON for each request.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: set[str], access_log: bool) -> None:
        self.app, self.metrics, self.paths, self.access_log = app, metrics, paths, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, path = time.perf_counter(), scope["path"] if scope["path"] in self.paths else "other"
        status, size = 500, 0

        async def noting_status(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, noting_status)
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            seconds = time.perf_counter() - begun
            self.metrics.seconds.labels(path).observe(seconds)
            if self.access_log:
                client = scope.get("client")
                line = {
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "client": client[0] if client else None,
                    "method": scope["method"],
                    "path": path,
                    "status": status,
                    "milliseconds": round(1000 * seconds, 3),
                    "bytes": size,
                }
                ACCESS.info("%s", json.dumps(line))
