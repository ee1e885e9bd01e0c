"""Rows predicted by several processes: the same bytes as by one, whatever becomes of the processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from textladder import TextClassifier
from textladder.cli import main
from textladder.engines import open_engine
from textladder.errors import BundleError, ConfigError, TextladderError
from textladder.predict_file import predict_file, score_texts

ROWS = 30_000  # eight batches


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("text\n" + "".join(f"a {'strong' if n % 3 else 'broke'} kettle {n}\n" for n in range(ROWS)))
    return path


def die(*arguments: object) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


class SentForever:
    """As it is sent, its process is killed: the beginning has been sent by then."""

    def __reduce__(self) -> Any:
        return bytes, (b"0" * 1_000_000_000,)


def die_as_it_answers() -> SentForever:
    threading.Timer(0.3, die).start()
    time.sleep(0.1)
    return SentForever()


def refuse() -> None:
    raise ConfigError("There is no such thing.")


def process_number(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl.gz", "out.parquet"])
def test_the_same_bytes(name: str, bundle: Path, source: Path, tmp_path: Path) -> None:
    classifier = TextClassifier.load(bundle)
    assert predict_file(classifier, source, tmp_path / f"one.{name}", probabilities=True) == ROWS
    with open_engine("local", 2) as engine:
        for start in ("two", "again"):  # with the same processes
            predict_file(classifier, source, tmp_path / f"{start}.{name}", probabilities=True, engine=engine)
            assert (tmp_path / f"{start}.{name}").read_bytes() == (tmp_path / f"one.{name}").read_bytes()


def test_networks_too(fitted: Callable[[str], Any], source: Path, tmp_path: Path) -> None:
    bundle = fitted("lstm").save(tmp_path / "lstm")
    numbers = np.random.default_rng(0).integers(1, 40, 5_000).tolist()
    source.write_text("text\n" + "".join(f"a {'good strong ' * number}kettle\n" for number in numbers))
    assert main(["predict", str(bundle), "--input", str(source), "--output", str(tmp_path / "one.csv")]) == 0
    command = ["predict", str(bundle), "--input", str(source), "--output", str(tmp_path / "two.csv")]
    assert main([*command, "--engine", "local", "--workers", "2"]) == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_a_killed_process_is_said_and_the_rows_before_are_kept(
    bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, target = TextClassifier.load(bundle), tmp_path / "out.csv"
    predict_file(classifier, source, tmp_path / "whole.csv")
    with open_engine("local", 1) as engine:
        submit = engine.submit
        functions = iter([score_texts] * 3 + [die] + [score_texts] * 20)
        monkeypatch.setattr(engine, "submit", lambda function, *arguments: submit(next(functions), *arguments))
        with pytest.raises(
            TextladderError, match=r"try fewer --workers; the predictions so far are kept in .*out.csv.partial"
        ):
            predict_file(classifier, source, target, engine=engine)
    assert not target.exists()
    assert (tmp_path / "out.csv.partial").stat().st_size > 3 * 4096 * 12
    with open_engine("local", 2) as engine:
        assert predict_file(classifier, source, target, engine=engine) == ROWS
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("function", [die, die_as_it_answers])
def test_whatever_follows_a_killed_process_is_told(function: Callable[..., Any]) -> None:
    with open_engine("local", 1) as engine:
        first = engine.submit(function)
        with pytest.raises(TextladderError, match="ended unexpectedly"):
            first.result(timeout=60)
        later = engine.submit(process_number, 0)
        with pytest.raises(TextladderError, match="ended unexpectedly"):
            later.result(timeout=60)


def test_what_a_function_raises_and_what_cannot_be_sent() -> None:
    with open_engine("local", 1) as engine:
        with pytest.raises(ConfigError, match="no such thing"):
            engine.submit(refuse).result(timeout=60)
        with pytest.raises(Exception, match="pickle"):
            engine.submit(process_number, lambda: 0).result(timeout=60)
        assert engine.submit(process_number, 0).result(timeout=60) > 0


def test_a_process_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with open_engine("local", max(2, len(os.sched_getaffinity(0)))) as engine:
        assert engine.submit(os.getenv, "OMP_NUM_THREADS").result(timeout=60) == "1"
    assert "OMP_NUM_THREADS" not in os.environ


def test_processes_end_with_an_error_at_once() -> None:
    processes: set[int] = set()

    def interrupted() -> None:
        with open_engine("local", 2) as engine:
            processes.update(engine.submit(process_number, 0.1).result() for _ in range(2))
            engine.submit(process_number, 60)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 30
    assert not any(map(is_alive, processes))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc to look for processes in")
def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_engines import process_number\n"
        "from textladder.engines import open_engine\n"
        "if __name__ == '__main__':\n"
        "    with open_engine('local', 1) as engine:\n"
        "        print(engine.submit(process_number, 0).result(), flush=True)\n"
        "        engine.submit(process_number, 60).result()\n"
    )
    command = [sys.executable, str(script), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    deadline = time.monotonic() + 20
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(child)


def test_a_bundle_that_is_replaced_is_noticed(bundle: Path, source: Path, tmp_path: Path) -> None:
    classifier = TextClassifier.load(bundle)
    classifier.digest = "0" * 64
    with pytest.raises(BundleError, match="was replaced while it was in use"), open_engine("local", 1) as engine:
        predict_file(classifier, source, tmp_path / "out.csv", engine=engine)


def test_a_classifier_that_is_fitted_anew_is_not_taken_for_its_bundle(
    bundle: Path, source: Path, tmp_path: Path, sentences_file: Path
) -> None:
    classifier = TextClassifier.load(bundle).fit(sentences_file)
    assert (classifier.digest, classifier.folder, classifier.form) == (None, None, "original")
    with open_engine("local", 1) as engine, pytest.raises(ConfigError, match="save it, then load it"):
        predict_file(classifier, source, tmp_path / "out.csv", engine=engine)


def test_what_cannot_be(
    bundle: Path, source: Path, tmp_path: Path, fitted: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="received 0"):
        open_engine("local", 0)
    with pytest.raises(ConfigError, match="local"):
        open_engine("lokal")
    with (
        open_engine("local", 1) as engine,
        pytest.raises(ConfigError, match="loaded from a bundle: save it, then load"),
    ):
        predict_file(fitted("tfidf"), source, tmp_path / "out.csv", engine=engine)
    assert main(["predict", str(bundle), "a text", "--engine", "local"]) == 2
    assert "--engine is for the rows of --input FILE" in capsys.readouterr().err
    assert main(["predict", str(bundle), "a text", "--part", "1/2"]) == 2
    assert "--part is for the rows of --input FILE" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="received 3 of 2"):
        predict_file(fitted("tfidf"), source, tmp_path / "out.csv", part=(3, 2))
    for part in ("0/3", "4/3", "3", "a/b", "1/0"):
        assert main(["predict", str(bundle), "--input", str(source), "--output", "x.csv", "--part", part]) == 2
        assert f"with K from 1 to N; received '{part}'" in capsys.readouterr().err
    assert main(["predict", str(bundle), "--input", str(source), "--output", "x.csv", "--workers", "2"]) == 2
    assert "--workers needs an engine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_parts_are_the_whole(name: str, bundle: Path, source: Path, tmp_path: Path) -> None:
    classifier = TextClassifier.load(bundle)
    predict_file(classifier, source, tmp_path / name)
    counts = [predict_file(classifier, source, tmp_path / f"{number}.{name}", part=(number, 3)) for number in (1, 2, 3)]
    assert sum(counts) == ROWS
    assert min(counts) > 0
    parts = [tmp_path / f"{number}.{name}" for number in (1, 2, 3)]
    if name.endswith("parquet"):
        tables = [parquet.read_table(part) for part in parts]
        assert pa.concat_tables(tables).equals(parquet.read_table(tmp_path / name))
        return
    header = b"" if name.endswith("jsonl") else b"text,predicted_label,predicted_probability\n"
    contents = [part.read_bytes() for part in parts]
    assert all(content.startswith(header) for content in contents)
    assert header + b"".join(one.removeprefix(header) for one in contents) == (tmp_path / name).read_bytes()


def test_more_parts_than_batches(bundle: Path, source: Path, tmp_path: Path) -> None:
    classifier = TextClassifier.load(bundle)
    targets = [tmp_path / f"{number}.jsonl" for number in range(1, 21)]
    counts = [predict_file(classifier, source, target, part=(k, 20)) for k, target in enumerate(targets, 1)]
    assert sum(counts) == ROWS
    assert 0 in counts
    assert all(target.exists() for target in targets)


def test_a_part_resumes_as_itself(bundle: Path, source: Path, tmp_path: Path) -> None:
    command = ["predict", str(bundle), "--input", str(source), "--output"]
    assert main([*command, str(tmp_path / "whole.csv"), "--part", "2/3"]) == 0
    classifier, target = TextClassifier.load(bundle), tmp_path / "out.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textladder.predict_file.PredictionColumns.values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_file(classifier, source, target, part=(2, 3))
    with pytest.raises(ConfigError, match="belongs to a different input, bundle or settings"):
        predict_file(classifier, source, target, part=(1, 3))
    assert main([*command, str(target), "--part", "2/3", "--engine", "local"]) == 0
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt
