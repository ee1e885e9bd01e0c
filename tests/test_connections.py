"""What a client does before its request is whole holds nobody up but itself."""

import http.client
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import uvicorn

from textladder.serving import connections
from textladder.serving.app import create_app
from textladder.serving.connections import Connection
from textladder.serving.server import _limited_connections

pytestmark = pytest.mark.network


@pytest.fixture
def place(fitted: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A service whose deadlines are short, with at most 40 connections."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.5)
    monkeypatch.setattr(connections, "BODY_SECONDS", 1.5)
    kind = type("Few", (Connection,), {"most": 40, "silent": {}})
    app = create_app({"tfidf": fitted("tfidf")})
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=kind, log_level="error", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    assert not kind.silent


def ask(place: tuple[str, int], **headers: str) -> tuple[int, dict[str, Any]]:
    with closing(http.client.HTTPConnection(*place, timeout=20)) as connection:
        body = json.dumps({"text": "a good strong kettle"})
        connection.request("POST", "/predict", body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def read_all(client: socket.socket) -> bytes:
    client.settimeout(20)
    found = b""
    try:
        while more := client.recv(65536):
            found += more
    except ConnectionResetError:
        pass
    return found


def refused(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_request_is_answered_and_the_connection_kept(place: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*place, timeout=20)) as connection:
        for _ in range(3):
            connection.request("POST", "/predict", '{"text": "x"}', {"Content-Type": "application/json"})
            assert connection.getresponse().read().startswith(b'{"model":"tfidf"')


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (b"", 408, "timeout"),
        (b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\n", 408, "timeout"),
        (b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 20\r\n\r\n{", 408, "timeout"),
        (b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 20_000, 431, "head_too_large"),
        (b"GET /" + b"y" * 20_000, 431, "head_too_large"),
        (b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, "head_too_large"),
        (b"GET /health HTTP/1.1\r\nx: " + b"y" * 16_400 + b"\r\n\r\n", 431, "head_too_large"),
        (b"nonsense\r\n\r\n", 400, "invalid_request"),
    ],
)
def test_what_never_becomes_a_request_is_refused(place: tuple[str, int], sent: bytes, status: int, error: str) -> None:
    with socket.create_connection(place) as client:
        begun = time.monotonic()
        client.sendall(sent)
        assert refused(read_all(client)) == (status, error)
        assert time.monotonic() - begun < 6
    assert ask(place)[0] == 200


def test_a_head_that_drips_is_cut_off(place: tuple[str, int]) -> None:
    with socket.create_connection(place) as client:
        begun = time.monotonic()
        try:
            for one in b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n":
                client.sendall(bytes([one]))
                time.sleep(0.1)
        except OSError:
            pass
        assert 1 < time.monotonic() - begun < 4


def test_a_body_that_is_too_large_is_still_answered(place: tuple[str, int]) -> None:
    assert ask(place, **{"X-Long": "y" * 10_000})[0] == 200
    with closing(http.client.HTTPConnection(*place, timeout=20)) as connection:
        connection.request("POST", "/predict", b"x" * 1_200_000, {"Content-Type": "application/json"})
        found = connection.getresponse()
        assert (found.status, json.loads(found.read())["error"]) == (413, "body_too_large")


def test_silent_connections_make_room(place: tuple[str, int]) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(place)) for _ in range(120)]
        begun = time.monotonic()
        for _ in range(5):
            assert ask(place)[0] == 200
        assert time.monotonic() - begun < 1.4  # before any deadline
        assert refused(read_all(silent[-1])) == (408, "timeout")
        assert read_all(silent[0]) == b""


def test_as_many_connections_as_there_may_be_files() -> None:
    kind = _limited_connections()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert kind.most == min(1000, soft - 100)
    assert kind.silent is not Connection.silent
