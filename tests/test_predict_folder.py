"""Predictions for the rows of several files: each as by itself, resumed after any end, nothing of others replaced."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textladder import TextClassifier
from textladder.cli import main
from textladder.engines import open_engine
from textladder.errors import ConfigError, DataError
from textladder.predict_file import predict_file
from textladder.predict_folder import predict_folder, several_files


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(["a.csv", "b.csv", "sub/c.csv"]):
        rows = (f"a {'strong' if n % 3 else 'broke'} kettle {n}\n" for n in range(number, 9000))
        (folder / name).write_text("text\n" + "".join(rows))
    for name in ("README.md", "_SUCCESS", ".hidden"):
        (folder / name).write_text("nothing")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_and_a_pattern(bundle: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = TextClassifier.load(bundle)
    alone = {}
    for name in ("a.csv", "b.csv", "sub/c.csv"):
        predict_file(classifier, plain / name, tmp_path / "one.csv", overwrite=True)
        alone[name] = (tmp_path / "one.csv").read_bytes()
    assert main(["predict", str(bundle), "--input", str(plain), "--output", str(tmp_path / "out")]) == 0
    assert "17,999 rows predicted" in capsys.readouterr().out
    assert contents(tmp_path / "out") == {name: alone[name] for name in ("a.csv", "b.csv")}
    with open_engine("local", 2) as engine:
        predict_folder(classifier, [plain / name for name in alone], tmp_path / "all", engine=engine)
    assert contents(tmp_path / "all") == alone
    words = ["predict", str(bundle), "--input", str(plain / "[ab].csv"), "--output", str(tmp_path / "parts")]
    for part in ("1/3", "2/3", "3/3"):
        assert main([*words, "--part", part]) == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "out")


def test_one_file_is_no_folder(plain: Path, tmp_path: Path) -> None:
    assert several_files(plain / "a.csv") is None
    assert several_files(tmp_path / "missing.csv") is None
    strange = tmp_path / "in[1].csv"
    strange.write_text("text\nx\n")
    assert several_files(strange) is None
    for source in (plain / "*.json", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="no files with rows were found"):
            several_files(source)


def test_what_is_finished_is_kept(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, files, out = TextClassifier.load(bundle), sorted(plain.rglob("*.csv")), tmp_path / "out"
    whole = tmp_path / "whole"
    predict_folder(classifier, files, whole)
    before = files[1].read_text()
    files[1].write_text(before.replace("text", "other", 1))
    with pytest.raises(DataError, match="other"):
        predict_folder(classifier, files, out)
    finished = (out / "a.csv").stat()
    for other, options in ((files, {"top_k": 2}), (files[:2], {})):
        with pytest.raises(ConfigError, match="holds unfinished predictions"):
            predict_folder(classifier, other, out, **options)
    assert (out / "a.csv").stat() == finished
    files[1].write_text(before)  # corrected
    predict_folder(classifier, files, out)
    assert (out / "a.csv").stat() == finished
    assert contents(out) == contents(whole)
    (out / ".predictions-1.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds unfinished predictions"):
        predict_folder(classifier, files, out)
    predict_folder(classifier, files, out, overwrite=True)
    assert contents(out) == contents(whole)


def test_a_file_that_changed_after_it_was_predicted(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, files, out = TextClassifier.load(bundle), sorted(plain.rglob("*.csv")), tmp_path / "out"
    before = files[1].read_text()
    files[1].write_text(before.replace("text", "other", 1))
    with pytest.raises(DataError, match="other"):
        predict_folder(classifier, files, out)
    files[1].write_text(before)
    files[0].write_text(before)
    with pytest.raises(ConfigError, match=r"a\.csv has changed since .*a\.csv was written"):
        predict_folder(classifier, files, out)


def test_old_outputs_are_never_taken_for_new_ones(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, files, out = TextClassifier.load(bundle), sorted(plain.rglob("*.csv")), tmp_path / "out"
    predict_folder(classifier, files, out)
    before = files[1].read_text()
    files[1].write_text(before.replace("text", "other", 1))
    with pytest.raises(DataError, match="other"):
        predict_folder(classifier, files, out, top_k=2, overwrite=True)
    files[1].write_text(before)
    with pytest.raises(DataError, match=r"b\.csv exists; pass overwrite=True"):
        predict_folder(classifier, files, out, top_k=2)
    with pytest.raises(ConfigError, match="holds unfinished predictions"):
        predict_folder(classifier, files, out, part=(1, 2))
    predict_folder(classifier, files, out, top_k=2, overwrite=True)
    predict_folder(classifier, files, tmp_path / "new", top_k=2)
    assert contents(out) == contents(tmp_path / "new")


def test_an_output_that_somebody_else_wrote_is_not_finished(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, files, out = TextClassifier.load(bundle), sorted(plain.rglob("*.csv")), tmp_path / "out"
    before = files[1].read_text()
    files[1].write_text(before.replace("text", "other", 1))
    with pytest.raises(DataError, match="other"):
        predict_folder(classifier, files, out)
    files[1].write_text(before)
    (out / "a.csv").write_text("mine")
    with pytest.raises(DataError, match=r"a\.csv exists; pass overwrite=True"):
        predict_folder(classifier, files, out)
    assert (out / "a.csv").read_text() == "mine"


def test_a_mistake_does_not_block_the_corrected_call(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, files, out = TextClassifier.load(bundle), sorted(plain.rglob("*.csv")), tmp_path / "out"
    with pytest.raises(ConfigError, match="top_k"):
        predict_folder(classifier, files, out, top_k=99)
    predict_folder(classifier, files, out)
    assert set(contents(out)) == {"a.csv", "b.csv", "sub/c.csv"}


def test_names_are_those_of_the_links(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, links = TextClassifier.load(bundle), tmp_path / "links"
    links.mkdir()
    (plain / "sub" / "c.csv").rename(plain / "sub" / "1fd3")
    for name, target in {"x.csv": "a.csv", "y.csv": "a.csv", "z.csv": "sub/1fd3"}.items():
        (links / name).symlink_to(plain / target)
    predict_folder(classifier, sorted(links.iterdir()), tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"x.csv", "y.csv", "z.csv"}
    with pytest.raises(ConfigError, match="one of the files to read"):
        predict_folder(classifier, [links / "x.csv"], links, overwrite=True)
    with pytest.raises(DataError, match="no files"):
        predict_folder(classifier, [], tmp_path / "out")
    assert main(["predict", str(bundle), "--input", "x" * 300, "--output", str(tmp_path / "o.csv")]) == 2
    assert predict_folder(classifier, [links / "x.csv"], tmp_path / "no" / "out", part=(1, 3)) == 0


def test_nothing_of_others_is_replaced(bundle: Path, plain: Path, tmp_path: Path) -> None:
    classifier, files, out = TextClassifier.load(bundle), sorted(plain.rglob("*.csv")), tmp_path / "out"
    out.mkdir()
    (out / "b.csv").write_text("mine")
    (out / "other").write_text("mine")
    with pytest.raises(DataError, match=r"b\.csv exists; pass overwrite=True"):
        predict_folder(classifier, files, out)
    assert contents(out) == {"b.csv": b"mine", "other": b"mine"}
    predict_folder(classifier, files, out, overwrite=True)
    assert contents(out) == {**contents(out), "other": b"mine"}
    assert len(contents(out)) == 4
    with pytest.raises(ConfigError, match="one of the files to read"):
        predict_folder(classifier, files, plain, overwrite=True)
    shutil.copy(plain / "a.csv", plain / "a.xyz")
    with pytest.raises(ConfigError, match="file format"):
        predict_folder(classifier, sorted(plain.glob("a.*")), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="the folder could not be made"):
        predict_folder(classifier, files, tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match="from 1 to the number of parts"):
        predict_folder(classifier, files, tmp_path / "new", part=(3, 2))


def test_killed_and_resumed(bundle: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict_folder(TextClassifier.load(bundle), sorted(plain.glob("*.csv")), tmp_path / "whole")
    out = tmp_path / "out"
    words = ["predict", str(bundle), "--input", str(plain), "--output", str(out)]
    child = subprocess.Popen([sys.executable, "-m", "textladder", *words], stderr=subprocess.DEVNULL)
    while not (out / "a.csv").exists():
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = (out / "a.csv").stat()
    assert main(words) == 0
    assert "a.csv is finished already" in capsys.readouterr().err
    assert (out / "a.csv").stat() == kept
    assert contents(out) == contents(tmp_path / "whole")
    assert main(words) == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err
