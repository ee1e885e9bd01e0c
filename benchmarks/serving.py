"""How does `serve` hold up? Its throughput, ten minutes near it, three times that load, and malformed requests.

    python benchmarks/serving.py BUNDLE [--form onnx-int8] [--minutes 10] [--malformed 10000] [--data TEST.csv]

Needs the load generator `hey` on the path, and schemathesis. Each load repeats one text: a review of median length, and
a title. Requests one by one come from one connection, the others from 32.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

from textladder.bundle import read_bundle
from textladder.data.labelled_texts import read_labelled

TEST = Path(__file__).parents[2] / "shared" / "data" / "amazon_polarity" / "test.csv"
MANY, SHORT_SECONDS = 32, 15


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--form")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--data", type=Path, default=TEST)
    given = parser.parse_args()
    if shutil.which("hey") is None:
        sys.exit("The load tool hey is not on the path.")
    about = read_bundle(given.bundle).manifest
    texts = []
    for columns in (about["text_columns"], about["text_columns"][:1]):
        rows = list(read_labelled(given.data, about["labels"], text=columns, label=about["label_column"]))
        texts.append(sorted(rows, key=len)[len(rows) // 2])
    command = [sys.executable, "-m", "textladder", "serve", str(given.bundle), "--port", "0", "--json"]
    command += ["--form", given.form] if given.form else []
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as server:
        try:
            assert server.stdout is not None
            started = json.loads(server.stdout.readline())
            print(started["models"], flush=True)
            measure(started["address"], texts, given.minutes)
            malformed(started["address"], given.malformed)
        finally:
            server.terminate()
            server.wait(60)
            log.seek(0)
            written = log.read()
            print(f"tracebacks in the service's log: {written.count('Traceback')}; exit status {server.returncode}")


def measure(address: str, texts: list[str], minutes: float) -> None:
    rates = []
    for text in texts:
        (alone, _), (together, _) = (load(address, text, SHORT_SECONDS, number) for number in (1, MANY))
        rates.append(together)
        gain = f"{together:.0f} from {MANY} connections, {together / alone:.1f} times"
        print(f"a text of {len(text):,} characters: {alone:.0f} requests per second one by one, {gain}", flush=True)
    memory: list[float] = []
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(address, memory, done))
    watcher.start()
    rate, statuses = load(address, texts[0], 60 * minutes, 9, 0.9 * rates[0])
    done.set()
    watcher.join()
    settled = memory[len(memory) // 10 :]
    print(f"{minutes:g} minutes at {rate:.1f} requests per second: {statuses}; "
          f"memory {min(settled):.0f} to {max(settled):.0f} MB", flush=True)  # fmt: skip
    rate, statuses = load(address, texts[0], 20, 200, 3 * rates[0])
    started, times = time.perf_counter(), []
    while time.perf_counter() - started < 5:
        sent = time.perf_counter()
        times.append((status_of(address, texts[0]), sent - started, time.perf_counter() - sent))
    recovered = next(when + took for status, when, took in times if status == 200)
    print(f"{rate:.0f} requests per second, three times too many: {statuses}; recovers after {recovered:.2f} s, then "
          f"200 in {1000 * median(took for *_, took in times):.0f} ms, "
          f"{sum(status != 200 for status, *_ in times)} other responses", flush=True)  # fmt: skip


def load(
    address: str, text: str, seconds: float, connections: int, rate: float | None = None
) -> tuple[float, dict[str, int]]:
    """The rate of responses with status 200, and the number of responses by status."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        json.dump({"text": text}, body)
        body.flush()
        command = ["hey", "-z", f"{seconds:.0f}s", "-c", str(connections), "-m", "POST", "-T", "application/json"]
        command += ["-q", f"{rate / connections:.4f}"] if rate else []
        done = subprocess.run(
            [*command, "-D", body.name, f"{address}/predict"], capture_output=True, text=True, check=True
        )
    statuses = {status: int(number) for status, number in re.findall(r"\[(\d+)\]\s+(\d+) responses", done.stdout)}
    errors = re.findall(r"^\s+\[(\d+)\]\s+(?!\d+ responses)(.+)$", done.stdout, re.MULTILINE)
    for number, error in errors:
        statuses[error[:60]] = int(number)
    sent = float(re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0])
    return (sent if rate else statuses.get("200", 0) / seconds), statuses


def status_of(address: str, text: str) -> int:
    request = urllib.request.Request(
        f"{address}/predict", json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def figures(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def watch(address: str, memory: list[float], done: threading.Event) -> None:
    """Record the service's memory in MB every five seconds."""
    while not done.wait(5):
        memory.append(float(re.findall(r"process_resident_memory_bytes ([\d.e+]+)", figures(address))[0]) / 1e6)


def malformed(address: str, number: int) -> None:
    before = answers(address)
    fuzzer = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{address}/openapi.json"]
    flags = ["--mode", "negative", "--phases", "fuzzing", "--checks", "not_a_server_error", "--seed", "0"]
    with tempfile.TemporaryDirectory() as folder:  # schemathesis keeps its findings there
        while sum(answers(address).values()) - sum(before.values()) < number:
            words = [*fuzzer, *flags, "--max-examples", str(number)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
            if done.returncode:
                print(done.stdout[-3000:])
                break
            flags[-1] = str(int(flags[-1]) + 1)
    after = answers(address)
    print(f"malformed requests: { {status: count - before.get(status, 0) for status, count in after.items()} }")


def answers(address: str) -> dict[str, int]:
    """The number of responses by status, without those of `/metrics`."""
    found: dict[str, int] = {}
    pattern = r'textladder_requests_total{path="([^"]+)",status="(\d+)"} ([\d.e+]+)'
    for path, status, number in re.findall(pattern, figures(address)):
        if path != "/metrics":
            found[status] = found.get(status, 0) + int(float(number))
    return found


if __name__ == "__main__":
    main()
