"""A service among hostile clients: single texts are answered throughout."""

import http.client
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ATTACK = Path(__file__).with_name("attack.py")
SECONDS = 25
# times the p95 alone, and milliseconds: the clients are on the same cores
MOST, AT_LEAST = 3, 40

pytestmark = [pytest.mark.slow, pytest.mark.network]


@contextmanager
def serving(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "textladder", "serve", str(bundle), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
        finally:
            process.kill()


def ask(port: int, path: str = "/predict") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        if path == "/predict":
            connection.request(
                "POST", path, json.dumps({"text": "a good kettle"}), {"Content-Type": "application/json"}
            )
        else:
            connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def p95(port: int, seconds: float) -> float:
    """Milliseconds of single texts, one after the other."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        assert ask(port) == 200
        taken.append(1000 * (time.perf_counter() - started))
        time.sleep(0.02)
    return float(np.quantile(taken, 0.95))


@pytest.mark.parametrize("level", ["tfidf", "lstm"])
def test_single_texts_are_answered_throughout(level: str, fitted: Callable[[str], Any], tmp_path: Path) -> None:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < 3000:
        pytest.skip(f"this process may open only {files} files")
    fitted(level).save(tmp_path / "bundle")
    with serving(tmp_path / "bundle") as (process, port):
        p95(port, 1)
        alone = p95(port, 4)
        command = [sys.executable, str(ATTACK), str(port), str(SECONDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attack:
            time.sleep(4)  # until all have connected
            beside = p95(port, SECONDS - 8)
            assert ask(port, "/health/ready") == 200
            printed, _ = attack.communicate(timeout=60)
        seen = json.loads(printed)
        print(f"{level}: p95 {alone:.1f} ms alone, {beside:.1f} ms beside {seen}")
        assert seen["silent"] >= 1000
        assert seen["slow"] >= 1000
        assert seen.get("MB of a head", 0) < 10
        assert seen.get("explain 200", 0) >= 1
        assert beside <= max(MOST * alone, AT_LEAST), seen
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, port) for _ in range(40)]
            time.sleep(0.05)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(12) == 0
            assert time.monotonic() - started < 10
        answered = [one.result() for one in asked if one.exception() is None]
        assert set(answered) <= {200, 503}
        # those that were not accepted any more were refused by the system
        assert all(isinstance(one.exception(), OSError | http.client.HTTPException) for one in asked if one.exception())
