"""Files predicted row by row: interrupted anywhere and resumed, the output is the same to the byte."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as parquet
import pytest

from textladder import TextClassifier
from textladder.atomic_files import part_path
from textladder.cli import main
from textladder.errors import ConfigError, DataError
from textladder.levels.base import Scored
from textladder.predict_file import predict_file

FORMS = ("csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet")
ROWS = 20_000  # five batches


@pytest.fixture
def classifier(fitted: Callable[[str], Any], tmp_path: Path) -> TextClassifier:
    return TextClassifier.load(fitted("tfidf").save(tmp_path / "bundle"))


def write(path: Path, rows: int = ROWS) -> Path:
    frame = pd.DataFrame(
        {"id": range(rows), "text": [f"a {'strong' if n % 3 else 'broke'} kettle {n}" for n in range(rows)]}
    )
    form = path.name.split(".")[1]
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if form == "tsv" else ",")
    return path


class Interrupted(KeyboardInterrupt):
    pass


def interrupt_after(classifier: TextClassifier, batches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From here on the classifier is interrupted after some batches; gives the sizes of those it predicted."""
    predicted: list[int] = []
    score_whole = classifier.score

    def score(texts: Any) -> Scored:
        if len(predicted) == batches:
            raise Interrupted
        predicted.append(len(texts))
        return score_whole(texts)

    monkeypatch.setattr(classifier, "score", score)
    return predicted


def before_scoring(classifier: TextClassifier, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, something happens before texts are scored."""
    score_whole = classifier.score

    def score(texts: Any) -> Scored:
        action()
        return score_whole(texts)

    monkeypatch.setattr(classifier, "score", score)


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_run_resumes(
    form: str, classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / f"in.{form}")
    whole, target = tmp_path / f"whole.{form}", tmp_path / f"out.{form}"
    assert predict_file(classifier, source, whole) == ROWS
    partial = tmp_path / f"out.{form}.partial"
    for batches in (2, 1):
        interrupt_after(classifier, batches, monkeypatch)
        with pytest.raises(Interrupted):
            predict_file(classifier, source, target)
        monkeypatch.undo()
        assert not target.exists()
        with partial.open("ab") as stream:  # half a record, as a kill may leave it
            stream.write(b"half")
    predicted = interrupt_after(classifier, 99, monkeypatch)
    assert predict_file(classifier, source, target) == ROWS
    assert sum(predicted) < ROWS / 2  # three batches of five were kept
    assert target.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_a_run_interrupted_while_writing_resumes(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    (tmp_path / "out.csv.partial").write_bytes(b"x")
    with pytest.raises(ConfigError, match="out.csv.partial belongs to a different input"):
        predict_file(classifier, source, target)
    (tmp_path / "out.csv.partial").write_bytes(b"")  # killed just after it was created

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("textladder.data.delimited_file._DelimitedWriter.add", full)
    with pytest.raises(DataError, match="could not be written"):
        predict_file(classifier, source, target)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "in.csv", "out.csv.partial"]
    predicted = interrupt_after(classifier, 99, monkeypatch)
    assert predict_file(classifier, source, target) == ROWS
    assert sum(predicted) == ROWS - 4096  # the first batch was predicted


@pytest.mark.parametrize("damage", ["zeros", "flip", "short"])
def test_a_damaged_journal_is_not_believed(
    damage: str, classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    predict_file(classifier, source, tmp_path / "whole.csv")
    interrupt_after(classifier, 3, monkeypatch)
    with pytest.raises(Interrupted):
        predict_file(classifier, source, target)
    monkeypatch.undo()
    partial = tmp_path / "out.csv.partial"
    content = bytearray(partial.read_bytes())
    middle = len(content) // 2
    if damage == "zeros":  # as a power cut may leave what was not flushed
        content[middle:] = bytes(len(content) - middle)
    elif damage == "flip":
        content[middle] ^= 1
    else:
        del content[middle:]
    partial.write_bytes(content)
    predicted = interrupt_after(classifier, 99, monkeypatch)
    assert predict_file(classifier, source, target) == ROWS
    assert sum(predicted) == ROWS - 4096  # the first batch of three was whole
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_rows_that_changed_unseen_are_not_mixed(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt_after(classifier, 3, monkeypatch)
    with pytest.raises(Interrupted):
        predict_file(classifier, source, target)
    monkeypatch.undo()
    before, content = source.stat(), source.read_text()
    source.write_text(content.replace("broke kettle 0", "super kettle 0"))  # of the same size
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ConfigError, match=r"out.csv.partial belongs to other rows: .* pass overwrite=True"):
        predict_file(classifier, source, target)
    assert predict_file(classifier, source, target, overwrite=True) == ROWS


def test_a_link_in_place_of_the_journal_is_not_followed(classifier: TextClassifier, tmp_path: Path) -> None:
    source, victim = write(tmp_path / "in.csv", 5), tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out.csv.partial").symlink_to(victim)
    with pytest.raises(DataError, match=r"out.csv.partial: predictions could not be written"):
        predict_file(classifier, source, tmp_path / "out.csv")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "out.csv").exists()
    predict_file(classifier, source, tmp_path / "out.csv", overwrite=True)  # removes the link
    assert victim.read_text() == "precious"


def test_one_of_two_writers_waits_for_nobody(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "in.csv", 5), tmp_path / "out.csv"

    def refused() -> None:
        other = TextClassifier.load(tmp_path / "bundle")
        with pytest.raises(ConfigError, match=r"out.csv: another process is writing this file; wait for it"):
            predict_file(other, source, target, overwrite=True)

    before_scoring(classifier, refused, monkeypatch)
    assert predict_file(classifier, source, target) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "in.csv", "out.csv"]


def test_a_full_disk_keeps_the_predictions(classifier: TextClassifier, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    script = (
        "import resource, signal, sys\n"
        "from textladder import TextClassifier\n"
        "from textladder.predict_file import predict_file\n"
        "classifier = TextClassifier.load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))\n"
        "predict_file(classifier, *sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "bundle"), str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the predictions so far are kept in" in done.stderr
    assert "the same command goes on from there" in done.stderr
    assert predict_file(classifier, source, target) == ROWS
    assert predict_file(classifier, source, tmp_path / "whole.csv") == ROWS
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("change", ["input", "bundle", "settings"])
def test_another_input_or_bundle_is_refused(
    change: str,
    classifier: TextClassifier,
    fitted: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt_after(classifier, 2, monkeypatch)
    with pytest.raises(Interrupted):
        predict_file(classifier, source, target)
    monkeypatch.undo()
    options: dict[str, Any] = {}
    if change == "input":
        write(source, ROWS + 1)
    elif change == "bundle":
        classifier = TextClassifier.load(fitted("lstm").save(tmp_path / "other"))
    else:
        options["file_encoding"] = "latin-1"
    kept = (tmp_path / "out.csv.partial").read_bytes()
    with pytest.raises(ConfigError, match="to start over"):
        predict_file(classifier, source, target, **options)
    assert (tmp_path / "out.csv.partial").read_bytes() == kept
    assert predict_file(classifier, source, target, overwrite=True, **options) == ROWS + (change == "input")
    assert not (tmp_path / "out.csv.partial").exists()


def test_another_choice_of_text_columns_is_refused(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    frame = pd.read_csv(write(source))
    frame.insert(1, "title", ["works well" if n % 2 else "a waste" for n in range(ROWS)])
    frame.to_csv(source, index=False)
    interrupt_after(classifier, 2, monkeypatch)
    with pytest.raises(Interrupted):
        predict_file(classifier, source, target, text=["text"])
    monkeypatch.undo()
    for text in (["title"], ["title", "text"]):
        with pytest.raises(ConfigError, match="belongs to a different input, bundle or settings"):
            predict_file(classifier, source, target, text=text)
    predicted = interrupt_after(classifier, 99, monkeypatch)
    assert predict_file(classifier, source, target, text=["text"]) == ROWS
    assert sum(predicted) == ROWS - 2 * 4096


def test_a_row_that_cannot_be_read_leaves_no_journal(classifier: TextClassifier, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    with source.open("a") as stream:
        stream.write("1,one,field,too,many\n")
    with pytest.raises(DataError, match="has 5 fields where the others have 2"):
        predict_file(classifier, source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "in.csv"]


def test_the_added_columns_keep_their_types(classifier: TextClassifier, tmp_path: Path) -> None:
    predict_file(classifier, write(tmp_path / "in.parquet", 10), tmp_path / "out.parquet")
    schema = parquet.read_schema(tmp_path / "out.parquet")
    assert schema.names[-2:] == ["predicted_label", "predicted_probability"]
    assert [str(schema.field(name).type) for name in schema.names[-2:]] == ["string", "double"]


def test_a_classifier_fitted_in_this_process_starts_over(
    fitted: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, source = fitted("tfidf"), write(tmp_path / "in.csv")
    interrupt_after(classifier, 2, monkeypatch)
    with pytest.raises(Interrupted):
        predict_file(classifier, source, tmp_path / "out.csv")
    monkeypatch.undo()
    predicted = interrupt_after(classifier, 99, monkeypatch)
    predict_file(classifier, source, tmp_path / "out.csv")
    assert sum(predicted) == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_resumes(classifier: TextClassifier, tmp_path: Path, number: signal.Signals) -> None:
    source = write(tmp_path / "in.csv", 300_000)
    words = ["predict", str(tmp_path / "bundle"), "--input", str(source), "--output"]
    target, partial = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    worker = subprocess.Popen([sys.executable, "-m", "textladder", *words, str(target)], stderr=subprocess.PIPE)
    while not partial.exists() or partial.stat().st_size < 500_000:
        assert worker.poll() is None
        time.sleep(0.005)
    os.kill(worker.pid, number)
    _, printed = worker.communicate()
    assert worker.returncode == (130 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert f"the predictions so far are kept in {partial}; run the same command to resume" in printed.decode()
    assert partial.stat().st_size > 400_000
    assert not target.exists()
    assert main([*words, str(target)]) == 0
    assert main([*words, str(tmp_path / "whole.csv")]) == 0
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with target.open() as stream:
        assert sum(1 for _ in csv.reader(stream)) == 300_001


def test_memory_does_not_grow_with_the_rows(classifier: TextClassifier, tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from textladder import TextClassifier\n"
        "from textladder.comparison.worker import peak_memory_mb\n"
        "from textladder.predict_file import predict_file\n"
        "classifier = TextClassifier.load(sys.argv[1])\n"
        "found = []\n"
        "for source in sys.argv[2:]:\n"
        "    predict_file(classifier, source, source + '.out.csv')\n"
        "    found.append(peak_memory_mb())\n"
        "print(json.dumps(found))\n"
    )
    few, many = write(tmp_path / "few.csv", 20_000), write(tmp_path / "many.csv", 200_000)
    command = [sys.executable, "-c", script, str(tmp_path / "bundle"), str(few), str(many)]
    before, after = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert after < 1.1 * before


def test_standard_input_is_predicted(classifier: TextClassifier, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", 100), tmp_path / "out.csv"
    command = [sys.executable, "-m", "textladder", "predict", str(tmp_path / "bundle"), "--input", "-"]
    with source.open("rb") as stream:
        subprocess.run([*command, "--output", str(target)], stdin=stream, check=True, capture_output=True)
    predict_file(classifier, source, tmp_path / "whole.csv")
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_late_key_with_the_name_of_an_added_column_is_not_lost(classifier: TextClassifier, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n' * 300 + '{"text": "a", "predicted_label": "mine"}\n')
    with pytest.raises(DataError, match="a row has the key 'predicted_label' already"):
        predict_file(classifier, source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_dead_process_leaves_no_copy_of_standard_input(tmp_path: Path, fitted: Callable[[str], Any]) -> None:
    bundle = fitted("tfidf").save(tmp_path / "bundle")
    folder = tmp_path / "temporary"
    folder.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = part_path(folder / "textladder-stdin")
    left = left.with_name(left.name.replace(str(os.getpid()), str(dead.pid)))
    left.write_text("secret")
    command = [sys.executable, "-m", "textladder", "predict", str(bundle), "--input", "-", "--output"]
    subprocess.run(
        [*command, str(tmp_path / "out.csv")], input="text\na good kettle\n", text=True, check=True, timeout=60,
        capture_output=True, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert list(folder.iterdir()) == []


def test_a_text_that_is_a_list_leaves_no_journal(classifier: TextClassifier, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    whole = source.read_text()
    lines = whole.splitlines(keepends=True)
    lines[15_000] = '{"id": 15000, "text": ["a", "list"]}\n'
    source.write_text("".join(lines))
    with pytest.raises(DataError):
        predict_file(classifier, source, target)
    source.write_text(whole)
    assert predict_file(classifier, source, target) == ROWS


def test_what_appears_at_the_output_meanwhile_is_kept(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "in.csv", 10), tmp_path / "out.csv"
    before_scoring(classifier, lambda: target.write_text("somebody else's"), monkeypatch)
    with pytest.raises(
        DataError, match="was created by another process in the meantime, and is left unchanged; the pred"
    ):
        predict_file(classifier, source, target)
    assert target.read_text() == "somebody else's"


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst", "csv.bz2", "csv.xz", "parquet", "arrow"])
def test_an_error_of_predicting_is_not_one_of_writing(ending: str, classifier: TextClassifier, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv")
    script = (
        "import sys\n"
        "from textladder import TextClassifier\n"
        "from textladder.predict_file import predict_file\n"
        "classifier = TextClassifier.load(sys.argv[1])\n"
        "score, calls = classifier.score, []\n"
        "def fail(texts):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: raise OSError(12, 'Cannot allocate memory')\n"
        "    return score(texts)\n"
        "classifier.score = fail\n"
        "try:\n"
        "    predict_file(classifier, sys.argv[2], sys.argv[3])\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "bundle"), str(source), str(tmp_path / f"out.{ending}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("12\n", "")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == [f"out.{ending}.partial"]


def test_an_input_that_changes_meanwhile_is_refused(
    classifier: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "in.csv", 10), tmp_path / "out.csv"
    before_scoring(classifier, lambda: write(source, 11), monkeypatch)
    with pytest.raises(DataError, match="the file was changed while it was being predicted"):
        predict_file(classifier, source, target)
    assert not target.exists()
