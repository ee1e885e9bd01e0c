"""The endpoints: what can be requested and what is returned."""

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from textladder.classifier import TextClassifier
from textladder.explain import Explanation
from textladder.serving.limits import Refused
from textladder.serving.schemas import Explained, Health, Model, Models, Predictions, Refusal
from textladder.serving.service import Service

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in {
        400: "the body is not JSON, or a text is too long",
        404: "unknown model",
        413: "the body is too large",
        422: "the request is invalid, or has too many texts",
        503: "the queue is full, the service is shutting down, or there was no answer in time",
    }.items()
}


NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SWAGGER = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
NO_CACHE = {"Cache-Control": "no-cache"}


def add_model_routes(app: FastAPI, service: Service) -> None:
    """Add `/predict` and `/explain`; the limits are part of their schemas."""
    limits = service.limits
    Text = Annotated[str, Field(json_schema_extra={"maxLength": limits.characters})]  # noqa: N806
    Texts = Annotated[list[Text], Field(min_length=1, json_schema_extra={"maxItems": limits.texts})]  # noqa: N806
    default = next(iter(service.classifiers))
    Name = Annotated[str | None, Field(description="name of a model (default: the first)", examples=[default])]  # noqa: N806

    class PredictRequest(BaseModel):
        """One text or a list of texts."""

        model_config = ConfigDict(extra="forbid")
        text: Annotated[Text | Texts, Field(examples=["A good strong kettle."])]
        model: Name = None

    class ExplainRequest(BaseModel):
        """One text."""

        model_config = ConfigDict(extra="forbid")
        text: Annotated[Text, Field(examples=["A good strong kettle."])]
        model: Name = None

    @app.post("/predict", response_model=Predictions, responses=REFUSALS, summary="Predict the labels of texts")
    async def predict(body: PredictRequest) -> Response:
        name, texts = service.resolve(body.model), [body.text] if isinstance(body.text, str) else body.text
        limits.check(texts)
        rows, seconds = await service.probabilities(name, texts)
        predictions = [vars(service.classifiers[name].prediction(row)) for row in rows]
        return JSONResponse({**_answer(service, name, seconds), "predictions": predictions})

    @app.post("/explain", response_model=Explained, responses=REFUSALS, summary="Explain the prediction for a text")
    async def explain(body: ExplainRequest, request: Request) -> Response:
        name = service.resolve(body.model)
        limits.check([body.text])
        found, seconds = await service.explanation(name, body.text, request.is_disconnected)
        # thousands of words take a while to write, during which the event loop would answer nobody
        content = await service.call(name, _explained, _answer(service, name, seconds), found)
        return Response(content, media_type="application/json")


def add_status_routes(app: FastAPI, service: Service) -> None:
    """Add `/models`, `/health` and `/metrics`."""

    @app.get("/models", summary="List the models")
    async def models() -> Models:
        return Models(models=[_described(name, classifier) for name, classifier in service.classifiers.items()])

    @app.get("/health/live", summary="Check that the service is up")
    @app.get("/health", summary="Check that the service is up")
    async def health() -> Health:
        return Health(status="ok")

    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": Refusal, "description": "why it would not be"}}

    @app.get("/health/ready", responses=not_ready, summary="Check that a request would be answered now")
    async def ready() -> Health:
        if reason := service.not_ready():
            raise Refused(503, "not_ready", reason)
        return Health(status="ok")

    @app.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
    async def figures() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def add_page(app: FastAPI) -> None:
    """Add the page at `/`."""
    page = files("textladder.serving").joinpath("page.html").read_text(encoding="utf-8")
    allowed = {tag: _hashes(page, tag) for tag in ("script", "style")}
    policy = f"script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; img-src data:"

    @app.get("/", include_in_schema=False)
    async def page_of_models() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": f"{policy}; {NOTHING_ELSE}", **NO_CACHE})


def add_reference(app: FastAPI) -> None:
    """Add the API reference at `/docs`; what it loads is relative to it, whatever host a request names."""
    shown = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{app.title}: API reference",
        swagger_js_url="swagger/swagger-ui-bundle.js",
        swagger_css_url="swagger/swagger-ui.css",
        swagger_favicon_url="swagger/favicon-32x32.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )
    page = bytes(shown.body).decode()
    policy = (
        f"script-src 'self' {_hashes(page, 'script')}; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data:"
    )

    @app.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": f"{policy}; {NOTHING_ELSE}", **NO_CACHE})

    @app.get("/swagger/{name}", include_in_schema=False)
    async def part_of_reference(name: str) -> Response:
        if name not in SWAGGER:
            raise HTTPException(404)
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(content, media_type=SWAGGER[name])


def _answer(service: Service, name: str, seconds: float) -> dict[str, Any]:
    classifier = service.classifiers[name]
    return {"model": name, "level": classifier.level, "form": classifier.form, "milliseconds": 1000 * seconds}


def _explained(answer: dict[str, Any], found: Explanation) -> bytes:
    """The JSON of an explanation, word by word: the library holds Python's lock for as long as it writes."""
    content = {**answer, **found.as_dict()}
    words = ",".join(_json(word) for word in content.pop("words"))
    return f'{_json(content)[:-1]},"words":[{words}]}}'.encode()


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _described(name: str, classifier: TextClassifier) -> Model:
    return Model(
        model=name,
        level=classifier.level,
        form=classifier.form,
        labels=list(classifier.labels),
        label_names=list(classifier.label_names),
        valid=classifier.record.get("valid"),
        test=classifier.record.get("test"),
    )


def _hashes(page: str, tag: str) -> str:
    """The scripts or styles that a page contains, as its content security policy allows them."""
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside)
    return " ".join(f"'sha256-{one}'" for one in hashes)
