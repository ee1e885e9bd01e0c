"""Language models on disk: words and weights, in textladder's own folder or fastai's archive.

A folder is checked like a bundle; it holds half-precision safetensors, and the words as JSON. Nothing is trained here,
and reading a folder needs no torch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from textladder.bundle import LANGUAGE_MODEL, Bundle, read_bundle, write_bundle
from textladder.errors import BundleError, PretrainedError
from textladder.fastai_archive import read_fastai_archive
from textladder.pretrained import find_language_model
from textladder.text.fastai_words import SPECIAL_TOKENS

WEIGHTS_FILE, WORDS_FILE = "model.safetensors", "vocabulary.json"
EMBEDDING, BACKWARD = "encoder.embedding.weight", "encoder.backward_lstms."


@dataclass(frozen=True)
class PretrainedLanguageModel:
    """Words and weights of an AWD-LSTM language model.

    Attributes:
        words: the vocabulary in the order of ids, fastai's special tokens first.
        weights: float32 arrays, named as in `networks.awd_lstm.LanguageModel`.
        about: its manifest; empty for fastai's archive.
    """

    words: list[str]
    weights: dict[str, np.ndarray]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """The network's sizes: dimension, hidden_size, layers, backward_size (0 without a backward network)."""
        layers = sum(name.startswith("encoder.lstms.") and name.endswith("weight_hh_l0") for name in self.weights)
        hidden_size = self.weights["encoder.lstms.0.weight_hh_l0"].shape[1]
        backward = self.weights.get(f"{BACKWARD}0.weight_hh_l0")
        return {
            "dimension": self.weights[EMBEDDING].shape[1],
            "hidden_size": hidden_size,
            "layers": layers,
            "backward_size": 0 if backward is None else backward.shape[1],
        }

    def forward_only(self) -> "PretrainedLanguageModel":
        """The same model without its backward network."""
        weights = {name: value for name, value in self.weights.items() if not name.startswith(BACKWARD)}
        return replace(self, weights=weights)

    def weights_for(self, words: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
        """The weights for another vocabulary.

        A word that the model does not know gets the mean of the vectors of those it does, as in fastai.

        Args:
            words: the vocabulary in the order of ids.

        Returns:
            The weights, and how many of the words the model knows.
        """
        ids = {word: index for index, word in enumerate(self.words)}
        indices = np.array([ids.get(word, -1) for word in words])
        known = indices >= 0
        weights = dict(self.weights)
        for name in (EMBEDDING, "bias"):
            rows = self.weights[name]
            new = np.repeat(rows.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32), len(words), axis=0)
            new[known] = rows[indices[known]]
            weights[name] = new
        return weights, int(known.sum())


def load_language_model(name_or_path: str) -> PretrainedLanguageModel:
    """Load a pretrained language model by name or path.

    Args:
        name_or_path: `compact` (comes with textladder), `wt103` (fastai's, a download), a folder written by `pretrain`,
            or an archive in fastai's format (`.tgz`).

    Raises:
        PretrainedError: it cannot be downloaded, or is not a language model.
        BundleError: its folder is damaged.
    """
    source = find_language_model(name_or_path)
    if source.is_file():
        words, arrays = read_fastai_archive(source)
        weights = _from_fastai(arrays, source)
        model = PretrainedLanguageModel(words, weights)
    else:
        bundle = read_bundle(source, LANGUAGE_MODEL)
        model = PretrainedLanguageModel(*_read_folder(bundle), about=bundle.manifest)
    _check(model, str(source))
    return model


def save_language_model(path: str | Path, model: PretrainedLanguageModel, *, overwrite: bool = False) -> Path:
    """Write a language model's folder, completely or not at all, with weights in half precision.

    Args:
        path: the folder to write.
        model: the language model.
        overwrite: replace an existing one.

    Returns:
        The path.

    Raises:
        BundleError: the path exists and may not be replaced, or the disk is full or not writable.
    """
    from safetensors.numpy import save_file

    def write(folder: Path) -> None:
        halves = {name: value.astype(np.float16) for name, value in model.weights.items()}
        save_file(halves, folder / WEIGHTS_FILE)
        (folder / WORDS_FILE).write_text(json.dumps(model.words, ensure_ascii=False), encoding="utf-8")

    return write_bundle(path, model.about, write, kind=LANGUAGE_MODEL, overwrite=overwrite)


def _read_folder(bundle: Bundle) -> tuple[list[str], dict[str, np.ndarray]]:
    words = bundle.read_json(WORDS_FILE)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BundleError(f"{bundle.folder / WORDS_FILE}: this is not a list of words.")
    weights = {name: value.astype(np.float32) for name, value in bundle.read_tensors(WEIGHTS_FILE).items()}
    return words, weights


def _from_fastai(arrays: Mapping[str, np.ndarray], source: Path) -> dict[str, np.ndarray]:
    """Rename fastai's arrays. Of a weight that DropConnect masks, fastai keeps the full one as `..._raw`."""
    weights = {}
    for name, value in arrays.items():
        if name in ("0.encoder.weight", "1.decoder.bias"):
            weights[EMBEDDING if name.startswith("0") else "bias"] = value
        elif found := re.fullmatch(r"0\.rnns\.(\d+)\.(?:module\.)?((?:weight|bias)_[ih]h_l0)(_raw)?", name):
            number, own, raw = found.groups()
            if raw or own != "weight_hh_l0":
                weights[f"encoder.lstms.{number}.{own}"] = value
    if "bias" not in weights or EMBEDDING not in weights:
        raise PretrainedError(f"{source}: these are not the weights of an AWD-LSTM language model.")
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def _check(model: PretrainedLanguageModel, source: str) -> None:
    """Check that the words and the shapes of the weights fit together.

    Raises:
        PretrainedError: they do not.
    """
    weights, words = model.weights, model.words
    try:
        sizes = model.sizes
        dimension, layers = sizes["dimension"], sizes["layers"]
        wanted = {EMBEDDING: (len(words), dimension), "bias": (len(words),)}
        for stack, hidden in (("lstms", sizes["hidden_size"]), ("backward_lstms", sizes["backward_size"])):
            widths = [dimension, *[hidden] * (layers - 1), dimension]
            for number in range(layers if hidden else 0):
                below, above = widths[number], widths[number + 1]
                lstm = f"encoder.{stack}.{number}."
                wanted |= {f"{lstm}weight_ih_l0": (4 * above, below), f"{lstm}weight_hh_l0": (4 * above, above)}
                wanted |= {f"{lstm}bias_ih_l0": (4 * above,), f"{lstm}bias_hh_l0": (4 * above,)}
        fits = wanted == {name: value.shape for name, value in weights.items()}
    except (KeyError, IndexError):
        fits = False
    if not fits or not all(np.isfinite(value).all() for value in weights.values()):
        raise PretrainedError(f"{source}: the weights are not those of an AWD-LSTM with {len(words):,} words.")
    if words[:2] != list(SPECIAL_TOKENS[:2]) or "xxbos" not in words or len(set(words)) != len(words):
        raise PretrainedError(f"{source}: the words do not begin with xxunk and xxpad, lack xxbos, or repeat one.")
