"""The middleware in front of every request: token, declared size of the body, headers for browsers, HEAD."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textladder.serving.limits import Refused, body_too_large

# What a browser is told with every answer: do not guess types, show it in no frame, name it to no other site.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Middleware that refuses requests without the token or with too large a body, and answers HEAD as GET.

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

        head = scope["method"] == "HEAD"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            elif head:
                message = {**message, "body": b""}
            await send(message)

        refused = self._refused(scope["path"], Headers(scope=scope))
        inner = {**scope, "method": "GET"} if head else scope
        await (refused.response() if refused else self.app)(inner, receive, guarded)

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
