"""The middleware in front of every request: it checks the token and the declared size of the body."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textladder.serving.limits import Refused, body_too_large


class Guard:
    """Middleware that refuses requests without the token or with too large a body.

    Args:
        app: the application that it wraps.
        open_paths: paths that need no token.
        body: maximum bytes of a body.
        token: the bearer token that requests must send; None if none is required.
    """

    def __init__(self, app: ASGIApp, *, open_paths: set[str], body: int, token: str | None) -> None:
        self.app, self.open_paths, self.body = app, open_paths, body
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def without_sniffing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            await send(message)

        refused = self._refused(scope["path"], Headers(scope=scope))
        await (refused.response() if refused else self.app)(scope, receive, without_sniffing)

    def _refused(self, path: str, headers: Headers) -> Refused | None:
        if self._token is not None and path not in self.open_paths:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            correct = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
            if scheme.lower() != "bearer" or not correct:
                message = "The header Authorization: Bearer TOKEN is required."
                return Refused(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        size = headers.get("content-length", "0")
        if size.isdigit() and len(size) < 20 and int(size) <= self.body:
            return None
        return body_too_large(self.body)
