"""uvicorn's connections, with limits of size and time on what is read, so that nobody holds the service up.

A connection on which no complete request arrives is closed after its deadline or, when there are too many connections,
as soon as a new one needs its place.
"""

import asyncio
import json
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES, HEAD_FIELDS = 16_384, 100
HEAD_SECONDS, BODY_SECONDS = (
    10.0,
    30.0,
)  # from the first byte to the last; idle ones are closed after uvicorn's 5 seconds
PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Connection(HttpToolsProtocol):
    """A connection of a client.

    Attributes:
        most: number of connections beyond which those without a request are closed, the oldest first.
        silent: connections on which no request is being answered or read whole, the oldest first.
    """

    most: ClassVar[int] = 1000
    silent: ClassVar[dict["Connection", None]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of a request."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._refused, self._whole = False, True  # whether the last request has arrived to its end
        if len(self.connections) > self.most and self.silent:
            next(iter(self.silent)).transport.close()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless the head is too long already."""
        if self._refused:
            return
        if self._head_bytes is None and self._whole and self.cycle is not None and self.cycle.response_complete:
            self._wait_for_head()
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes is not None and self._head_bytes > HEAD_BYTES:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Wait for the body, and let the application answer."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES or len(self.headers) > HEAD_FIELDS:
            self._refuse_head()
            return
        self._stop_waiting()
        self._whole = False
        self._wait(BODY_SECONDS, f"The body did not arrive within {BODY_SECONDS:g} seconds.")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._refused:
            return
        self._whole = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Idle again."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self.silent[self] = None

    def send_400_response(self, msg: str) -> None:
        """As every refusal, in JSON."""
        self._refuse(400, "invalid_request", msg)

    def _wait_for_head(self) -> None:
        self._head_bytes: int | None = 0
        self.silent[self] = None
        self._wait(HEAD_SECONDS, f"The head of the request did not arrive within {HEAD_SECONDS:g} seconds.")

    def _wait(self, seconds: float, message: str) -> None:
        self._deadline = self.loop.call_later(seconds, self._refuse, 408, "timeout", message)

    def _stop_waiting(self) -> None:
        """The head has arrived, or the connection is gone."""
        self._head_bytes = None
        self.silent.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse_head(self) -> None:
        message = f"The head of a request may have at most {HEAD_BYTES:,} bytes and {HEAD_FIELDS} fields."
        self._refuse(431, "head_too_large", message)

    def _refuse(self, status: int, error: str, message: str) -> None:
        """Answer without the application, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_waiting()
        if self._whole or not self.cycle.response_started:  # else what arrives has its answer already
            body = json.dumps({"error": error, "message": message}).encode()
            head = [f"HTTP/1.1 {status} {PHRASES[status]}", "content-type: application/json"]
            head += [f"content-length: {len(body)}", "connection: close", "x-content-type-options: nosniff"]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        if self.cycle is not None and not self.cycle.response_complete:  # its body will not come
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
