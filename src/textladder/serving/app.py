"""What the service is asked for and what it answers.

Whatever is not answered as it was wished has one form, `{"error": name, "message": sentence}`, and a status of its own.
"""

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_swagger import patch_fastapi
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from textladder import __version__
from textladder.classifier import TextClassifier
from textladder.errors import TextladderError, unknown_name
from textladder.explain import Explanation, Occlusion, exact_explanation
from textladder.serving.guard import Guard, Limits, Metrics, Refused, body_too_large
from textladder.serving.queue import PredictionQueue, QueueClosed, QueueFull

NO_TOKEN = {"/", "/health", "/docs", "/openapi.json", "/swagger/swagger-ui-bundle.js", "/swagger/swagger-ui.css"}
NO_TOKEN |= {"/swagger/favicon-32x32.png"}
LOG = logging.getLogger("textladder")


class Refusal(BaseModel):
    """An answer that is not as wished."""

    error: str = Field(description="a name for programs", examples=["queue_full"])
    message: str = Field(description="a sentence for people")


class PredictionOut(BaseModel):
    """What a model says of one text."""

    label: str = Field(description="the most probable label, as it stands in the data")
    name: str = Field(description="what that label is called where people read it")
    probability: float = Field(description="of that label, 0 to 1")
    probabilities: dict[str, float] = Field(description="of every label")


class Answer(BaseModel):
    """What a model answers."""

    model: str
    level: str
    form: str = Field(description="which form of the network answered", examples=["onnx-int8"])
    milliseconds: float = Field(description="computing, of the batches that the texts were in, without waiting")


class Predictions(Answer):
    """Of each text, in the order of the texts."""

    predictions: list[PredictionOut]


class WordOut(BaseModel):
    """A word of the text."""

    word: str
    start: int = Field(description="its first character's place in the text, in code points")
    stop: int = Field(description="the place behind its last one")
    weight: float = Field(description="how much the label's log-odds would fall without it")


class Explained(Answer, PredictionOut):
    """A prediction and the words that carried it."""

    text: str = Field(description="the text as it was read")
    exact: bool = Field(description="the weights are coefficients; else each is a prediction without the word")
    words: list[WordOut]


class Model(BaseModel):
    """A model that is served."""

    model: str
    level: str
    form: str
    labels: list[str]
    label_names: list[str]
    valid: dict[str, Any] | None = Field(description="its figures on the validation rows")
    test: dict[str, Any] | None = Field(description="its figures on the test rows, where they were taken")


class Models(BaseModel):
    """The models, the one that answers unless another is named first."""

    models: list[Model]


class Health(BaseModel):
    """Whether the service answers."""

    status: str = Field(examples=["ok"])


def create_app(
    classifiers: Mapping[str, TextClassifier],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: Sequence[str] = ("*",),
    executor: Executor | None = None,
) -> FastAPI:
    """The application, for `server.serve` or any other server of ASGI.

    Args:
        classifiers: fitted ones by name; the first answers where a request names none.
        limits: what it takes.
        token: what a request must show to be answered.
        hosts: the names under which the service may be asked (`Host`); on the loopback interface its own alone, so that
            no page of another site can ask it.
        executor: where they predict, of one thread, so that they take turns and each batch has the machine to itself.
            Best the one that loaded them; by default one of the application's own.
    """
    limits, metrics = limits or Limits(), Metrics()
    queues: dict[str, PredictionQueue] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(1) if executor is None else nullcontext(executor) as thread:
            for name, classifier in classifiers.items():
                observe = _observer(metrics, name, classifier)
                queues[name] = queue = PredictionQueue(classifier, thread, waiting=limits.waiting, observe=observe)
                metrics.waiting.labels(name).set_function(partial(getattr, queue, "waiting"))
            open_queues = list(queues.values())
            tasks = [asyncio.create_task(queue.run()) for queue in open_queues]
            yield
            for queue in open_queues:
                queue.close()
            await asyncio.gather(*tasks)

    app = FastAPI(
        title="textladder",
        version=__version__,
        summary="Labels for texts, and the words that carried them.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={401: {"model": Refusal}} if token else {},
    )

    def queue_of(name: str | None) -> tuple[str, PredictionQueue]:
        name = next(iter(queues)) if name is None else name
        if name not in queues:
            raise Refused(404, "unknown_model", unknown_name("model", name[:100], queues))
        return name, queues[name]

    def checked(texts: list[str]) -> list[str]:
        if len(texts) > limits.texts:
            raise Refused(422, "too_many_texts", f"A request may have {limits.texts:,} texts; it has {len(texts):,}.")
        if (longest := max(map(len, texts))) > limits.characters:
            message = f"A text may have {limits.characters:,} characters; one has {longest:,}."
            raise Refused(400, "text_too_long", message)
        return texts

    async def asked(
        name: str, queue: PredictionQueue, texts: list[str], *, admitted: bool = False
    ) -> tuple[np.ndarray, float]:
        try:
            return await queue.probabilities(texts, admitted=admitted)
        except QueueFull:
            metrics.refused.labels(name).inc()
            message = f"{queue.waiting:,} texts wait for {name}; ask again in a moment."
            raise Refused(503, "queue_full", message, {"Retry-After": "1"}) from None
        except QueueClosed:
            raise Refused(503, "stopping", "The service is stopping.") from None

    Text = Annotated[str, Field(json_schema_extra={"maxLength": limits.characters})]  # noqa: N806
    Texts = Annotated[list[Text], Field(min_length=1, json_schema_extra={"maxItems": limits.texts})]  # noqa: N806
    Name = Annotated[  # noqa: N806
        str | None, Field(description="which model (the first unless named)", examples=[next(iter(classifiers))])
    ]

    class PredictRequest(BaseModel):
        """One text or many."""

        model_config = ConfigDict(extra="forbid")
        text: Annotated[Text | Texts, Field(examples=["A good strong kettle."])]
        model: Name = None

    class ExplainRequest(BaseModel):
        """One text."""

        model_config = ConfigDict(extra="forbid")
        text: Annotated[Text, Field(examples=["A good strong kettle."])]
        model: Name = None

    refusals = {
        400: "no JSON, or a text that is too long",
        404: "no such model",
        413: "the body is too large",
        422: "not what is asked for, or too many texts",
        503: "the queue is full, or the service is stopping",
    }
    documented: dict[int | str, dict[str, Any]] = {
        status: {"model": Refusal, "description": description} for status, description in refusals.items()
    }

    @app.post("/predict", response_model=Predictions, responses=documented, summary="Label one text or many")
    async def predict(body: PredictRequest) -> Response:
        name, queue = queue_of(body.model)
        texts = checked([body.text] if isinstance(body.text, str) else body.text)
        rows, seconds = await asked(name, queue, texts)
        found = [vars(queue.classifier.prediction(row)) for row in rows]
        return JSONResponse({**_answer(name, queue, seconds), "predictions": found})

    @app.post("/explain", response_model=Explained, responses=documented, summary="Say which words carried a label")
    async def explain(body: ExplainRequest, request: Request) -> Response:
        name, queue = queue_of(body.model)
        (text,) = checked([body.text])
        found, seconds = await _explanation(name, queue, text, request)
        return JSONResponse({**_answer(name, queue, seconds), **found.as_dict()})

    async def _explanation(name: str, queue: PredictionQueue, text: str, request: Request) -> tuple[Explanation, float]:
        classifier, occlusion = queue.classifier, Occlusion(text)
        parts = iter(()) if classifier.linear else occlusion.parts()
        rows, seconds = await asked(name, queue, [text, *next(parts, [])])
        prediction = classifier.prediction(rows[0])
        if classifier.linear:
            exact: Explanation = await queue.call(exact_explanation, classifier, text, prediction)
            return exact, seconds
        label = classifier.labels.index(prediction.label)
        probabilities: list[float] = rows[1:, label].tolist()
        for part in parts:
            if await request.is_disconnected():
                raise Refused(400, "gone", "Nobody waits for the answer.")
            rows, more = await asked(name, queue, part, admitted=True)
            probabilities += rows[:, label].tolist()
            seconds += more
        return occlusion.explanation(prediction, probabilities), seconds

    @app.get("/models", summary="The models that are served")
    async def models() -> Models:
        return Models(models=[_described(name, classifier) for name, classifier in classifiers.items()])

    @app.get("/health", summary="Whether the service answers")
    async def health() -> Health:
        return Health(status="ok")

    @app.get("/metrics", response_class=Response, summary="Figures for Prometheus")
    async def figures() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    page, policy = _page()

    @app.get("/", include_in_schema=False)
    async def page_of_models() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})

    patch_fastapi(app, redirect_from_root_to_docs=False)
    _answer_errors(app, limits)
    paths = {route.path for route in app.routes if hasattr(route, "path")}
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=limits.body)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Guard, metrics=metrics, paths=paths, open_paths=NO_TOKEN, body=limits.body, token=token)
    return app


def _answer_errors(app: FastAPI, limits: Limits) -> None:
    """Whatever goes wrong is answered in the one form, and nothing of the inside is shown."""

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
        LOG.error("a request to %s failed", request.url.path, exc_info=error)
        return Refused(500, "failed", "This could not be answered; the service's log says why.").response()


def _sentence(errors: Sequence[Any]) -> str:
    """What is wrong with a body, without showing any of it."""
    places = {error["loc"][1] for error in errors if len(error["loc"]) > 1 and error["type"] != "json_invalid"}
    if unknown := [error for error in errors if error["type"] == "extra_forbidden"]:
        return f"There is no field {str(unknown[0]['loc'][-1])[:40]!a}; the fields are text and model."
    if "text" in places:
        return "The field text must be a string, or where many are answered a list of one or more strings."
    if "model" in places:
        return "The field model must be a string."
    return "The body must be a JSON object, said to be application/json."


def _observer(metrics: Metrics, name: str, classifier: TextClassifier) -> Any:
    """Counts what a queue predicted."""
    texts, cut = metrics.texts.labels(name), metrics.texts_truncated.labels(name)
    sizes, times = metrics.batches.labels(name), metrics.batch_seconds.labels(name)

    def observe(number: int, seconds: float) -> None:
        texts.inc(number)
        cut.set(classifier.texts_truncated)
        sizes.observe(number)
        times.observe(seconds)

    return observe


def _answer(name: str, queue: PredictionQueue, seconds: float) -> dict[str, Any]:
    classifier = queue.classifier
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
    """The page, and the policy that lets it run what is in it and ask this service, and nothing else."""
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
