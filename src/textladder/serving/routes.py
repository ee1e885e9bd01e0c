"""The endpoints: what can be requested and what is returned."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from textladder.classifier import TextClassifier
from textladder.serving.schemas import Explained, Health, Model, Models, Predictions, Refusal
from textladder.serving.service import Service

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in {
        400: "the body is not JSON, or a text is too long",
        404: "unknown model",
        413: "the body is too large",
        422: "the request is invalid, or has too many texts",
        503: "the queue is full, or the service is shutting down",
    }.items()
}


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
        return JSONResponse({**_answer(service, name, seconds), **found.as_dict()})


def add_status_routes(app: FastAPI, service: Service) -> None:
    """Add `/models`, `/health` and `/metrics`."""

    @app.get("/models", summary="List the models")
    async def models() -> Models:
        return Models(models=[_described(name, classifier) for name, classifier in service.classifiers.items()])

    @app.get("/health", summary="Check that the service is up")
    async def health() -> Health:
        return Health(status="ok")

    @app.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
    async def figures() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def add_page(app: FastAPI) -> None:
    """Add the page at `/`."""
    page, policy = _page()

    @app.get("/", include_in_schema=False)
    async def page_of_models() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})


def _answer(service: Service, name: str, seconds: float) -> dict[str, Any]:
    classifier = service.classifiers[name]
    return {"model": name, "level": classifier.level, "form": classifier.form, "milliseconds": 1000 * seconds}


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


def _page() -> tuple[str, str]:
    """The page, and the policy that restricts it to its own script and style and to requests to this service."""
    page = files("textladder.serving").joinpath("page.html").read_text(encoding="utf-8")
    allowed = {}
    for tag in ("script", "style"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside)
        allowed[tag] = " ".join(f"'sha256-{one}'" for one in hashes)
    return page, (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
