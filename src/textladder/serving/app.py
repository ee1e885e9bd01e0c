"""The application, assembled from the endpoints, the middleware and the handlers of errors.

Every refusal has the form `{"error": name, "message": sentence}`, and a status of its own.
"""

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from textladder import __version__
from textladder.classifier import TextClassifier
from textladder.errors import TextladderError
from textladder.serving.guard import Guard
from textladder.serving.limits import Limits, Refused, body_too_large
from textladder.serving.measuring import Measuring
from textladder.serving.routes import SWAGGER, add_model_routes, add_page, add_reference, add_status_routes
from textladder.serving.schemas import Refusal
from textladder.serving.service import Service

OPEN_PATHS = {"/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json"}
OPEN_PATHS |= {f"/swagger/{name}" for name in SWAGGER}
LOG = logging.getLogger("textladder")


def create_app(
    classifiers: Mapping[str, TextClassifier],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: Sequence[str] = ("*",),
    executor: Executor | None = None,
    access_log: bool = False,
) -> FastAPI:
    """The application, for `server.serve` or any other ASGI server.

    Args:
        classifiers: fitted classifiers by name; the first one is the default.
        limits: what is accepted.
        token: the bearer token that requests must send; None if none is required.
        hosts: values of the `Host` header that are accepted. On the loopback interface, restricting them to the
            machine's own names keeps pages of other sites from sending requests to the service.
        executor: runs the predictions in one thread, so that batches do not compete for the cores; preferably the one
            that loaded the classifiers. By default the application creates its own.
        access_log: log each request as a line of JSON, at the level INFO of the logger `textladder.access`, without its
            texts.

    Its `state.service` is what answers the requests, a `service.Service`.
    """
    service = Service(classifiers, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running(executor):
            yield

    app = FastAPI(
        title="textladder",
        version=__version__,
        summary="Predicted labels for texts, and the words that explain them.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={401: {"model": Refusal}} if token else {},
    )
    app.state.service = service
    add_model_routes(app, service)
    add_status_routes(app, service)
    add_page(app)
    add_reference(app)
    _answer_errors(app, service.limits)
    _add_middleware(app, service, token, hosts, access_log)
    return app


def _add_middleware(app: FastAPI, service: Service, token: str | None, hosts: Sequence[str], access_log: bool) -> None:
    """Add the middleware from the inside out: the last one added handles a request first."""
    body, paths = service.limits.body, {route.path for route in app.routes if hasattr(route, "path")}
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=body)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Guard, open_paths=OPEN_PATHS, body=body, token=token)
    app.add_middleware(Measuring, metrics=service.metrics, paths=paths, access_log=access_log)


def _answer_errors(app: FastAPI, limits: Limits) -> None:
    """Answer every error in the one form, without exposing internals."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return Refused(422, "invalid_request", _sentence(error.errors())).response()

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 413:
            return body_too_large(limits.body).response()
        name = re.sub(r"\W+", "_", str(error.detail)).lower()
        return Refused(error.status_code, name, f"{error.detail}.", dict(error.headers or {})).response()

    @app.exception_handler(TextladderError)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        LOG.error("request to %s failed", request.url.path, exc_info=error)
        return Refused(500, "failed", "The request failed; the service's log says why.").response()


def _sentence(errors: Sequence[Any]) -> str:
    """What is wrong with a body, without repeating any of it."""
    places = {error["loc"][1] for error in errors if len(error["loc"]) > 1 and error["type"] != "json_invalid"}
    if unknown := [error for error in errors if error["type"] == "extra_forbidden"]:
        return f"Unknown field {str(unknown[0]['loc'][-1])[:40]!a}. Available: text, model."
    if "text" in places:
        return "The field text must be a string, or for /predict also a list of one or more strings."
    if "model" in places:
        return "The field model must be a string."
    return "The body must be a JSON object, sent as application/json."
