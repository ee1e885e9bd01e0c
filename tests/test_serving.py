"""The service: its answers, its refusals, and that every request it accepts is answered."""

import asyncio
import base64
import gc
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from conftest import SENTENCES
from textladder import TextClassifier, read_texts
from textladder.cores import enter_background, in_background
from textladder.errors import ConfigError, DataError
from textladder.explain import explain_text
from textladder.levels.base import Scored
from textladder.progress import Monitor
from textladder.serving.app import create_app
from textladder.serving.limits import Limits, Refused
from textladder.serving.queue import GIVE_WAY_SECONDS, PredictionQueue, QueueClosed, QueueFull
from textladder.serving.server import load_models, serve
from textladder.serving.service import Service

TEXTS = ["a good strong kettle", "broke on the second day", "", "ok " * 40 + "\x00 😀 <script>"]
JSON = {"Content-Type": "application/json"}
LIMITS = Limits(body=5000, texts=4, characters=300, waiting=8)


class Panic(BaseException):
    """As Rust's tokenizers raise it."""


class Slow:
    """A classifier that answers when it is let: a text's probability is its length."""

    labels, label_names, level, form, linear = ("0", "1"), ("no", "yes"), "slow", "original", False

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started = threading.Event()
        self.batches: list[list[str]] = []
        self.record: dict[str, Any] = {}

    def score(self, texts: list[str]) -> Scored:
        self.batches.append(list(texts))
        self.started.set()
        assert self.go.wait(15)
        if "poison" in texts:
            raise DataError("secret: this text cannot be read")
        if "panic" in texts:
            raise Panic("secret: index out of bounds")
        probabilities = np.array([[1 - len(text) / 100, len(text) / 100] for text in texts], np.float32)
        return Scored(probabilities, truncated=sum(len(text) > 50 for text in texts))

    def prediction(self, row: np.ndarray) -> Any:
        from textladder import Prediction

        return Prediction("1", "yes", float(row[1]), {"0": float(row[0]), "1": float(row[1])})


@pytest.fixture(scope="module")
def client(fitted: Callable[[str], Any]) -> Iterator[TestClient]:
    with TestClient(create_app({name: fitted(name) for name in ("tfidf", "lstm")}, limits=LIMITS)) as client:
        yield client


@pytest.mark.parametrize("level", ["tfidf", "lstm"])
def test_texts_are_predicted_as_by_the_classifier(client: TestClient, fitted: Callable[[str], Any], level: str) -> None:
    expected = fitted(level).predictions(TEXTS)
    answer = client.post("/predict", json={"text": TEXTS, "model": level})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["model"], found["level"], found["form"]) == (level, level, "original")
    assert found["milliseconds"] > 0
    assert [(one["label"], one["name"]) for one in found["predictions"]] == [(one.label, one.name) for one in expected]
    assert client.post("/predict", content=b'{"text": "half a \\ud83d pair"}', headers=JSON).is_success
    for one, other in zip(found["predictions"], expected, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-5)
    (alone,) = client.post("/predict", json={"text": TEXTS[0], "model": level}).json()["predictions"]
    assert alone["probability"] == pytest.approx(expected[0].probability, abs=1e-5)


@pytest.mark.parametrize("level", ["tfidf", "lstm"])
@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[3], ""])
def test_a_text_is_explained_as_by_the_classifier(
    client: TestClient, fitted: Callable[[str], Any], level: str, text: str
) -> None:
    expected = explain_text(fitted(level), text).as_dict()
    found = client.post("/explain", json={"text": text, "model": level}).json()
    assert [one["weight"] for one in found.pop("words")] == pytest.approx(
        [one["weight"] for one in expected.pop("words")], abs=1e-4
    )
    assert found.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-5)
    assert found.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-5)
    assert {name: found[name] for name in expected} == expected


def test_what_the_service_reports(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    models = client.get("/models").json()["models"]
    assert [(one["model"], one["labels"]) for one in models] == [("tfidf", ["bad", "good"]), ("lstm", ["bad", "good"])]
    assert client.post("/predict", json={"text": "a"}).json()["model"] == "tfidf"  # the first one
    counted = client.get("/metrics").text
    assert 'textladder_requests_total{path="/predict",status="200"}' in counted
    assert 'textladder_texts_total{model="tfidf"}' in counted
    assert "process_resident_memory_bytes" in counted
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/predict", "/explain", "/models", "/health", "/health/live", "/health/ready", "/metrics"}
    assert {"200", "400", "404", "413", "422", "503"} <= set(paths["/predict"]["post"]["responses"])
    for path in ("/", "/docs"):  # nothing is fetched from elsewhere
        page = client.get(path)
        assert page.status_code == 200
        assert "//" not in page.text.replace("http://testserver/", "").replace("; // ", "").replace(";  // ", "")
    assert "default-src 'none'" in client.get("/").headers["content-security-policy"]


def test_truncated_texts_are_counted() -> None:
    slow = Slow()
    slow.go.set()
    with TestClient(create_app({"slow": slow})) as client:  # type: ignore[dict-item]
        for _ in range(2):
            assert client.post("/predict", json={"text": ["short", "x" * 60, "y" * 70]}).is_success
        assert 'textladder_texts_truncated_total{model="slow"} 4.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"text": ["a"] * 5}, 422, "too_many_texts"),
        ({"text": "a" * 301}, 400, "text_too_long"),
        ({"text": ["a", "a" * 301]}, 400, "text_too_long"),
        ({"text": "a" * 5000}, 413, "body_too_large"),
        ({"text": "a", "model": "no\ud800ne" * 100}, 404, "unknown_model"),
        ({"text": "a", "model": "none"}, 404, "unknown_model"),
        ({"text": []}, 422, "invalid_request"),
        ({"text": ["a", 1]}, 422, "invalid_request"),
        ({"text": None}, 422, "invalid_request"),
        ({"texts": ["secret"]}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
        ("secret", 422, "invalid_request"),
    ],
)
def test_each_refusal_has_a_status_and_a_sentence(client: TestClient, body: Any, status: int, error: str) -> None:
    answer = client.post("/predict", content=json.dumps(body), headers=JSON)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}
    assert answer.json()["error"] == error
    assert "secret" not in answer.text
    assert answer.json()["message"].endswith((".", "?"))


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/predict", {"text": ["a"] * 5}, "A request may contain at most 4 texts; received 5."),
        ("/predict", {"text": "a" * 301}, "A text may have at most 300 characters; received 301."),
        ("/predict", {"text": "a" * 5000}, "A request body may have at most 5,000 bytes."),
        ("/predict", {"texts": "a"}, "Unknown field 'texts'. Available: text, model."),
        ("/explain", {"text": ["a"]}, "The field text must be a string, or for /predict also a list of one or more"),
        ("/explain", {"text": "a", "model": 1}, "The field model must be a string."),
        ("/explain", [], "The body must be a JSON object, sent as application/json."),
    ],
)
def test_a_refusal_says_what_is_allowed(client: TestClient, path: str, body: Any, message: str) -> None:
    assert client.post(path, json=body).json()["message"].startswith(message)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 4000, b'{"text": NaN}'])
def test_what_is_no_request(client: TestClient, content: bytes) -> None:
    answer = client.post("/explain", content=content, headers=JSON)
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"error", "message"}
    assert client.post("/explain", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"}).status_code == 422
    assert client.post("/predict", content=iter([b" " * 3000] * 2)).status_code == 413  # of a length that is not told
    assert client.get("/predict").json()["error"] == "method_not_allowed"
    assert client.get("/../secret").json()["error"] == "not_found"


def test_a_token_is_required(fitted: Callable[[str], Any]) -> None:
    with TestClient(create_app({"tfidf": fitted("tfidf")}, token="open-sesame"), raise_server_exceptions=False) as one:
        for path in ("/models", "/metrics"):
            answer = one.get(path)
            assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for shown in (
            "Bearer no",
            "open-sesame",
            "Basic open-sesame",
            "Bearer",
            "Bearer open-sesamé".encode("latin-1"),
        ):
            assert one.post("/predict", json={"text": "a"}, headers={"Authorization": shown}).status_code == 401
        for path in ("/", "/health", "/health/live", "/health/ready", "/docs"):
            assert one.get(path).status_code == 200
        assert one.post("/predict", json={"text": "a"}, headers={"Authorization": "Bearer open-sesame"}).is_success


def test_a_page_of_another_site_cannot_ask(fitted: Callable[[str], Any]) -> None:
    app = create_app({"tfidf": fitted("tfidf")}, hosts=("127.0.0.1", "localhost"))
    with TestClient(app, base_url="http://127.0.0.1:8000") as one:
        assert one.get("/models").is_success
        assert one.get("/models", headers={"Host": "localhost:9"}).is_success
        assert one.get("/models", headers={"Host": "evil.example"}).status_code == 400
        assert (
            "access-control-allow-origin" not in one.get("/models", headers={"Origin": "http://evil.example"}).headers
        )


def test_what_arrives_while_a_batch_is_computed_is_the_next_batch() -> None:
    slow = Slow()
    with (
        TestClient(create_app({"slow": slow}, limits=LIMITS)) as client,  # type: ignore[dict-item]
        ThreadPoolExecutor(16) as pool,
    ):
        first = pool.submit(client.post, "/predict", json={"text": "x"})
        assert slow.started.wait(10)
        others = [pool.submit(client.post, "/predict", json={"text": "x" * size}) for size in range(2, 10)]
        until = time.monotonic() + 10
        while 'textladder_waiting_texts{model="slow"} 8.0' not in client.get("/metrics").text:
            assert time.monotonic() < until
        shed = pool.submit(client.post, "/predict", json={"text": "x"}).result(5)
        assert (shed.status_code, shed.json()["error"], shed.headers["Retry-After"]) == (503, "queue_full", "1")
        assert client.get("/health").is_success
        slow.go.set()
        for size, answer in enumerate([first, *others], 1):
            (found,) = answer.result(10).json()["predictions"]
            assert found["probability"] == pytest.approx(size / 100)
        assert [len(batch) for batch in slow.batches] == [1, 8]
        assert client.post("/predict", json={"text": "x"}).is_success  # it takes again
        assert 'textladder_refused_total{model="slow"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("poisonous", ["poison", "panic"])
def test_one_text_that_fails_does_no_harm_to_the_others(poisonous: str, caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    app = create_app({"slow": slow})  # type: ignore[dict-item]
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(4) as pool:
        pool.submit(client.post, "/predict", json={"text": "x"})
        assert slow.started.wait(10)
        answers = [pool.submit(client.post, "/predict", json={"text": text}) for text in (poisonous, "x", "xx")]
        while 'textladder_waiting_texts{model="slow"} 3.0' not in client.get("/metrics").text:
            time.sleep(0.01)
        slow.go.set()
        poison, *others = (answer.result(10) for answer in answers)
        assert [one.status_code for one in others] == [200, 200]
        assert (poison.status_code, poison.json()["error"]) == (500, "failed")
        assert "secret" not in poison.text
    assert "secret" in caplog.text  # where the service's owner looks


def test_the_queue() -> None:
    async def lived(slow: Slow) -> None:
        with ThreadPoolExecutor(1) as executor:
            queue = PredictionQueue(slow, executor, max_waiting=4, batch_size=3)  # type: ignore[arg-type]
            running = asyncio.create_task(queue.run())
            large = asyncio.create_task(queue.probabilities(["x" * size for size in range(8)]))  # nothing waits: taken
            given_up = asyncio.create_task(queue.probabilities(["given up"], admitted=True))
            await asyncio.sleep(0.1)
            with pytest.raises(QueueFull):
                await asyncio.wait_for(queue.probabilities(["x"]), 5)
            given_up.cancel()
            await asyncio.sleep(0)
            slow.go.set()
            rows, seconds = await large
            assert rows[:, 1].tolist() == pytest.approx([size / 100 for size in range(8)])
            assert seconds > 0
            last = asyncio.create_task(queue.probabilities(["last"]))
            await asyncio.sleep(0)
            queue.close()
            with pytest.raises(QueueClosed):
                await asyncio.wait_for(queue.probabilities(["x"]), 5)
            assert (await last)[0].shape == (1, 2)  # what was taken is answered
            await asyncio.wait_for(running, 10)
            assert queue.waiting == 0

    slow = Slow()
    asyncio.run(lived(slow))
    assert [len(batch) for batch in slow.batches] == [3, 3, 2, 1]
    assert all("given up" not in batch for batch in slow.batches)


def test_a_batch_gives_way_to_others_for_a_moment() -> None:
    async def lived(slow: Slow) -> tuple[float, int]:
        others = True
        with ThreadPoolExecutor(1) as executor:
            queue = PredictionQueue(slow, executor, give_way=lambda: others)  # type: ignore[arg-type]
            running = asyncio.create_task(queue.run())
            started = time.monotonic()
            await asyncio.wait_for(queue.probabilities(["x"]), 5)  # the others never come to an end
            waited = time.monotonic() - started
            asked = asyncio.create_task(queue.probabilities(["x"]))
            await asyncio.sleep(0.01)
            before = len(slow.batches)
            others = False
            await asyncio.wait_for(asked, 5)
            queue.close()
            await running
            return waited, before

    slow = Slow()
    slow.go.set()
    waited, before = asyncio.run(lived(slow))
    assert waited >= GIVE_WAY_SECONDS
    assert before == 1


def test_whoever_runs_the_application_it_answers_what_it_took() -> None:
    async def lived(slow: Slow) -> int:
        app = create_app({"slow": slow})  # type: ignore[dict-item]
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service") as client:
            async with app.router.lifespan_context(app):
                asked = asyncio.create_task(client.post("/predict", json={"text": "x"}))
                while not slow.started.is_set():
                    await asyncio.sleep(0.01)
                asyncio.get_running_loop().call_later(0.2, slow.go.set)
            return (await asyncio.wait_for(asked, 10)).status_code

    assert asyncio.run(lived(Slow())) == 200


def test_the_rest_of_an_explanation_is_not_computed_for_a_client_that_has_gone() -> None:
    async def lived(slow: Slow) -> None:
        async def gone() -> bool:
            return True

        service = Service({"slow": slow}, LIMITS)  # type: ignore[dict-item]
        async with service.running(None):
            with pytest.raises(Refused) as refused:
                await service.explanation("slow", "word " * 40, gone)
        assert (refused.value.status, refused.value.error) == (400, "gone")
        assert refused.value.message == "The client disconnected."

    slow = Slow()
    slow.go.set()
    asyncio.run(lived(slow))
    assert sum(len(batch) for batch in slow.batches) == 1  # the text


def test_a_larger_request_or_an_explanation_holds_no_single_text_up() -> None:
    class Held(Slow):
        """Only texts that are on their own are answered before it is let go."""

        def score(self, texts: list[str]) -> Scored:
            if len(texts) > 1 or in_background():
                return super().score(texts)
            return Scored(np.array([[0.5, 0.5]], np.float32), 0)

    held = Held()
    limits = Limits(texts=300, characters=20_000, seconds=60)
    app = create_app({"held": held}, limits=limits)  # type: ignore[dict-item]
    with TestClient(app) as client, ThreadPoolExecutor(16) as pool:
        bulk = pool.submit(client.post, "/predict", json={"text": ["x"] * 300})
        assert held.started.wait(10)
        long = [pool.submit(client.post, "/explain", json={"text": "word " * 4000}) for _ in range(11)]
        refused = list(islice(as_completed(long, 10), 2))
        for _ in range(20):
            assert client.post("/predict", json={"text": "x"}).status_code == 200
        assert all(one.result().json()["error"] == "queue_full" for one in refused)
        held.go.set()
        assert len(bulk.result(20).json()["predictions"]) == 300
        answers = [one.result(20) for one in long]
        assert sorted(one.status_code for one in answers) == [200] * 9 + [503] * 2
        explained = next(one.json() for one in answers if one.is_success)
        assert len(explained["words"]) == 250  # not 4,000: a piece has 16 words
        assert explained["words"][0]["word"] == " ".join(["word"] * 16)
    assert all(sum(map(len, batch)) <= 50_000 for batch in held.batches if len(batch) > 1)


def test_an_answer_has_a_deadline() -> None:
    slow = Slow()
    app = create_app({"slow": slow}, limits=Limits(seconds=1))  # type: ignore[dict-item]
    with TestClient(app) as client:
        for path in ("/predict", "/explain"):
            answer = client.post(path, json={"text": "x"})
            assert (answer.status_code, answer.json()["error"]) == (503, "timeout")
            assert answer.json()["message"] == "There was no answer within 1 second; try again, with less text."
        slow.go.set()
        assert client.post("/predict", json={"text": "x"}).is_success


def test_readiness_tells_the_truth(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("textladder.serving.service.STUCK_SECONDS", 0.2)
    slow = Slow()
    app = create_app({"slow": slow})  # type: ignore[dict-item]
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(1) as pool:
        assert client.get("/health/ready").json() == {"status": "ok"}
        asked = pool.submit(client.post, "/predict", json={"text": "x"})
        assert slow.started.wait(10)
        time.sleep(0.3)
        stuck = client.get("/health/ready")
        assert (stuck.status_code, stuck.json()["error"]) == (503, "not_ready")
        assert stuck.json()["message"].startswith("slow has been computing one batch for ")
        assert client.get("/health/live").is_success
        slow.go.set()
        assert asked.result(10).is_success
        assert client.get("/health/ready").is_success
        # a queue that fails is started again
        failing = iter([RuntimeError("secret")])

        def observe(*figures: Any) -> None:
            for error in failing:
                raise error

        app.state.service._single["slow"]._observe = observe
        lost = client.post("/predict", json={"text": "x"})
        assert lost.status_code == 500
        assert client.post("/predict", json={"text": "x"}).is_success
        assert client.portal is not None
        client.portal.call(app.state.service.stop, 0.0)
        gone = client.get("/health/ready")
        assert (gone.status_code, gone.json()["message"]) == (503, "The service is shutting down.")
        assert client.post("/predict", json={"text": "x"}).json()["error"] == "stopping"


def test_what_waits_when_it_stops_is_refused_in_time() -> None:
    async def lived(slow: Slow) -> list[Any]:
        service = Service({"slow": slow}, Limits(waiting=1000))  # type: ignore[dict-item]

        async def present() -> bool:
            return False

        async with service.running(None):
            asked = [asyncio.create_task(service.probabilities("slow", ["x"] * 256)) for _ in range(3)]
            asked.append(asyncio.create_task(service.explanation("slow", "word " * 40, present)))  # type: ignore[arg-type]
            while not slow.started.is_set():
                await asyncio.sleep(0.01)
            service.stop(0.2)
            asyncio.get_running_loop().call_later(0.4, slow.go.set)
            return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    found = asyncio.run(lived(Slow()))
    assert [(one.status, one.error) for one in found] == [(503, "stopping")] * 4


def test_the_access_log_has_no_texts(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    slow.go.set()
    app = create_app({"slow": slow}, access_log=True)  # type: ignore[dict-item]
    with TestClient(app) as client, caplog.at_level("INFO", "textladder.access"):
        client.post("/predict?text=secret", json={"text": "secret"})
        client.get("/secret")
    first, second = (json.loads(one.message) for one in caplog.records if one.name == "textladder.access")
    assert {name: first[name] for name in ("method", "path", "status")} == {
        "method": "POST", "path": "/predict", "status": 200,
    }  # fmt: skip
    assert set(first) == {"time", "client", "method", "path", "status", "milliseconds", "bytes"}
    assert (second["path"], second["status"]) == ("other", 404)
    assert "secret" not in caplog.text.replace("/secret", "")


def test_what_browsers_are_told(client: TestClient) -> None:
    reference = client.get("/docs", headers={"Host": "evil.example"})
    assert "evil.example" not in reference.text
    policy = reference.headers["Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", reference.text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    for path in ("swagger/swagger-ui-bundle.js", "swagger/swagger-ui.css", "swagger/favicon-32x32.png", "openapi.json"):
        assert path in reference.text
        assert client.get(f"/{path}").is_success
    assert client.get("/swagger/docs").status_code == 404
    for answer in (reference, client.get("/models"), client.get("/nowhere")):
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    head = client.head("/models")
    assert (head.status_code, head.content) == (200, b"")
    assert client.head("/predict").status_code == 405


@pytest.mark.filterwarnings("ignore")  # of the fuzzer's own
def test_malformed_requests_never_break_it(client: TestClient) -> None:
    import hypothesis
    import requests
    import schemathesis
    from schemathesis.generation import GenerationMode

    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    for path in ("/predict", "/explain"):

        @hypothesis.given(case=schema[path]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE))
        @hypothesis.settings(
            max_examples=40, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        def fuzz(case: Any) -> None:
            asked = requests.Request(**case.as_transport_kwargs("http://testserver")).prepare()
            answer = client.request(asked.method, asked.url, content=asked.body, headers=dict(asked.headers))
            assert answer.status_code < 500, (case, answer.text)
            assert "Traceback" not in answer.text

        fuzz()


def test_limits_and_names(fitted: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limit on texts must be 1 or more; received 0"):
        Limits(texts=0)
    for name in ("one", "two"):
        fitted("tfidf").save(tmp_path / name)
    assert list(load_models([tmp_path / "one", tmp_path / "two"])) == ["tfidf", "tfidf-2"]


def test_the_thread_that_loads_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's helpers belong to the thread that they were made for: those of two are more than the cores."""
    slow, at = Slow(), {}

    def load(bundles: list[str], form: str | None) -> dict[str, Slow]:
        at["loading"] = threading.get_ident()
        return {"slow": slow}

    def score(texts: list[str]) -> Scored:
        at["predicting"] = threading.get_ident()
        return Scored(np.array([[0.25, 0.75]] * len(texts), np.float32), truncated=0)

    class Asked:
        """Stands in for the server: asks the application once."""

        def __init__(self, config: Any, ready: Callable[[], None], stop: Any) -> None:
            self.app = config.app

        def run(self, sockets: list[Any]) -> None:
            with TestClient(self.app, base_url="http://localhost") as client:
                assert client.post("/predict", json={"text": "x"}).is_success

    monkeypatch.setattr(slow, "score", score)
    monkeypatch.setattr("textladder.serving.server.load_models", load)
    monkeypatch.setattr("textladder.serving.server._Server", Asked)
    serve(["one"], port=0)
    assert at["predicting"] == at["loading"] != threading.get_ident()


@pytest.mark.parametrize("configured", [True, False])
def test_serving_leaves_the_callers_logging_alone(configured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own = logging.getLogger("textladder")
    before = [logging.NullHandler()] if configured else []
    during: list[Any] = []

    class Asked:
        """Stands in for the server: notes who handles the log."""

        def __init__(self, config: Any, ready: Callable[[], None], stop: Any) -> None: ...

        def run(self, sockets: list[Any]) -> None:
            during.append((list(logging.root.handlers), list(own.handlers)))

    monkeypatch.setattr(logging.root, "handlers", before)
    monkeypatch.setattr("textladder.serving.server.load_models", lambda bundles, form: {"slow": Slow()})
    monkeypatch.setattr("textladder.serving.server._Server", Asked)
    serve(["one"], port=0)
    ((at_root, at_own),) = during
    assert at_root == logging.root.handlers == before
    assert len(at_own) == (0 if configured else 1)
    assert own.handlers == []


def test_a_service_without_a_token_beyond_loopback_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            printed.append(sentence)

    class Unasked:
        """Stands in for the server."""

        def __init__(self, config: Any, ready: Callable[[], None], stop: Any) -> None: ...

        def run(self, sockets: list[Any]) -> None: ...

    printed: list[str] = []
    monkeypatch.setattr("textladder.serving.server.load_models", lambda bundles, form: {"slow": Slow()})
    monkeypatch.setattr("textladder.serving.server._Server", Unasked)
    for host, token in (("127.0.0.1", None), ("0.0.0.0", "open-sesame"), ("0.0.0.0", None)):
        serve(["one"], host=host, port=0, token=token, monitor=Listening())
    assert printed == ["0.0.0.0 can be reached from other machines, and no token is required (see --token-file)."]


@contextmanager
def serving(*words: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command in a process of its own, and what it says when it answers."""
    command = [sys.executable, "-m", "textladder", "serve", *map(str, words), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.network
def test_the_command_stops_when_everyone_is_answered(fitted: Callable[[str], Any], tmp_path: Path) -> None:
    fitted("tfidf").save(tmp_path / "bundle")
    with serving(tmp_path / "bundle") as (process, told):
        assert told["models"] == {"tfidf": {"level": "tfidf", "form": "original"}}
        place = told["address"].removeprefix("http://")
        taken = subprocess.run(
            [sys.executable, "-m", "textladder", "serve", tmp_path / "bundle", "--port", place.split(":")[1]],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert taken.returncode == 2
        assert "Cannot listen on 127.0.0.1:" in taken.stderr
        assert "(Address already in use)" in taken.stderr

        def ask(_: int) -> tuple[int, int]:
            body = json.dumps({"text": ["a good strong kettle, quick and warm " * 50] * 256})
            with closing(http.client.HTTPConnection(place, timeout=60)) as connection:
                connection.request("POST", "/predict", body, JSON)
                answer = connection.getresponse()
                return answer.status, len(json.loads(answer.read()).get("predictions", []))

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, number) for number in range(2)]
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            for answer in asked:  # taken and answered, or told that the queue is full; never cut off
                assert answer.result(60) in ((200, 256), (503, 0))
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.network
def test_stopped_while_it_loads() -> None:
    code = (
        "import sys, time; from textladder import cli; from textladder.serving import server\n"
        "def load_models(bundles, form):\n    print('loading', flush=True); time.sleep(60)\n"
        "server.load_models = load_models\n"
        "sys.argv[1:] = ['serve', 'bundle', '--port', '0']; sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        time.sleep(0.3)  # the main thread waits for the other
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read().startswith("\ntextladder: interrupted;")


@pytest.mark.skipif(os.name != "posix", reason="permissions are of another kind")
def test_a_token_that_others_can_read(tmp_path: Path) -> None:
    from textladder.commands.serve import _read_token

    said: list[str] = []
    monitor = Monitor()
    monitor.say = said.append  # type: ignore[method-assign]
    file = tmp_path / "token"
    file.write_text("open-sesame\n")
    file.chmod(0o600)
    assert _read_token(str(file), monitor) == "open-sesame"
    assert not said
    file.chmod(0o644)
    assert _read_token(str(file), monitor) == "open-sesame"
    assert "can be read by other users of this machine" in said[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{bundle}", "--port", "99999"], "port must be from 0 to 65535"),
        (["{bundle}", "--host", "256.1.1.1", "--port", "0"], "Cannot listen on 256.1.1.1:0"),
        (["{bundle}", "--max-queue", "0"], "limit on waiting must be 1 or more"),
        (["{bundle}", "--token-file", "{bundle}"], "the token cannot be read"),
        (["{bundle}", "--token-file", "{empty}"], "must be a token"),
        (["{bundle}", "--form", "onnx-int4", "--port", "0"], "Unknown form 'onnx-int4'"),
        (["{empty}", "--port", "0"], "no such bundle"),
    ],
)
def test_the_commands_mistakes(
    words: list[str], sentence: str, fitted: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from textladder.cli import main

    fitted("tfidf").save(tmp_path / "bundle")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    places = {"bundle": tmp_path / "bundle", "empty": tmp_path / "empty"}
    assert main(["serve", *(word.format(**places) for word in words)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.network
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium to open the page with")
def test_the_page_by_keyboard(fitted: Callable[[str], Any], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    for level in ("tfidf", "lstm"):
        fitted(level).save(tmp_path / level)
    hostile = "<img src=x onerror=alert(1)>"  # a label may be anything
    frame = pd.DataFrame({"text": [text for _, text in SENTENCES], "label": [hostile, "&amp;"] * (len(SENTENCES) // 2)})
    data = read_texts(frame, test=frame, valid=0)
    TextClassifier("tfidf", min_documents=1).fit(data).save(tmp_path / "hostile")
    text = "a good <script>alert(1)</script> kettle 😀 & boring"
    with serving(tmp_path / "tfidf", tmp_path / "lstm", tmp_path / "hostile") as (_, told):
        address = told["address"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for width in (1280, 390):
                page = browser.new_page(viewport={"width": width, "height": 800})
                printed: list[str] = []
                requests: list[str] = []
                page.on("console", lambda message, printed=printed: printed.append(message.text))
                page.on("pageerror", lambda error, printed=printed: printed.append(str(error)))
                page.on("request", lambda request, requests=requests: requests.append(request.url))
                page.goto(address)
                page.locator("#text:focus").wait_for()
                page.keyboard.type(text)
                page.keyboard.press("Tab")
                page.keyboard.press("Enter")
                page.get_by_text("Answered by 3 models.").wait_for(timeout=30_000)
                assert page.locator("h2").all_text_contents() == ["tfidf", "lstm", "tfidf-2"]
                assert page.locator(".text").all_text_contents() == [text] * 3
                assert page.locator(".other").nth(2).get_by_text(hostile, exact=True).count() == 1
                assert page.locator("img").count() == 0
                assert page.locator("script").count() == 1
                assert page.locator("html").evaluate("element => element.scrollWidth") <= width
                assert printed == []
                assert all(url.startswith(address) for url in requests)
            browser.close()


def test_the_background_computes_on_one_core_with_the_lowest_priority(fitted: Callable[[str], Any]) -> None:
    classifier = fitted("ulmfit")  # which takes all cores for a batch
    expected = classifier.predict_proba(TEXTS[:1])
    used: list[int] = []

    def computed() -> np.ndarray:
        import torch

        network = classifier._fitted.network
        handle = network.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
        try:
            found: np.ndarray = classifier.predict_proba(TEXTS[:1])
        finally:
            handle.remove()
        return found

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    with ThreadPoolExecutor(1, initializer=enter_background) as background:
        assert background.submit(in_background).result()
        np.testing.assert_allclose(background.submit(computed).result(), expected, atol=1e-6)
        if sys.platform == "linux":
            assert background.submit(priority).result() == 19
            assert priority() < 19
    assert used == [1]
    assert not in_background()


def test_serving_leaves_the_interpreter_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[tuple[float, bool]] = []

    class Watched:
        def __init__(self, *_: Any) -> None: ...

        def run(self, sockets: list[Any]) -> None:
            during.append((sys.getswitchinterval(), gc.get_freeze_count() > 0))

    monkeypatch.setattr("textladder.serving.server.load_models", lambda bundles, form: {"slow": Slow()})
    monkeypatch.setattr("textladder.serving.server._Server", Watched)
    before = sys.getswitchinterval()
    serve(["one"], port=0)
    assert during == [(pytest.approx(0.0001), True)]
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (before, 0)
