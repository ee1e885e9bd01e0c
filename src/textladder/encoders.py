"""Hugging Face encoders: loaded with their tokenizer and a fresh head, checked, saved, and read back.

The only module that imports transformers. It turns a name or a folder into an `EncoderClassifier` and its `WordPieces`,
which do not know where they come from. An encoder with missing weights is refused; the library would initialise them at
random.
"""

import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.utils import logging as hub_logging
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils import logging

from textladder.bundle import Bundle
from textladder.errors import BundleError, ConfigError, PretrainedError, first_line
from textladder.networks.cpu_kernels import training_attention, use_fast_dropout, use_onednn_linear
from textladder.networks.encoder import EncoderClassifier
from textladder.pretrained import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_reachable,
    encoder_not_loaded,
    find_encoder,
)
from textladder.text.wordpieces import WordPieces, read_tokenizer

REPEATED = re.compile("layer|block|depth|group|expert|stage")  # what a config says how many there are of
MAX_TABLE_TOKENS = 1024  # for longer texts, the (time, time) tables are not worth their memory


class Encoder(NamedTuple):
    """A loaded encoder.

    Attributes:
        network: token ids to logits.
        pieces: the tokenizer, texts to token ids.
        files: the tokenizer's standard files, their content by name.
    """

    network: EncoderClassifier
    pieces: WordPieces
    files: dict[str, bytes]


def load_encoder(name_or_path: str, label_names: Sequence[str], max_tokens: int) -> Encoder:
    """Load a pretrained encoder with a fresh head for the given labels.

    Args:
        name_or_path: a folder, the name of an installed encoder, or a name on the Hub.
        label_names: one for each class.
        max_tokens: the maximum length to save with the tokenizer.

    Raises:
        PretrainedError: it cannot be downloaded, or its files are incomplete.
    """
    names = dict(enumerate(label_names))
    source = find_encoder(name_or_path)
    try:
        with _quiet():
            tokenizer = _from_cache_or_hub(AutoTokenizer.from_pretrained, source, _has_words)
            model, report = _from_cache_or_hub(
                AutoModelForSequenceClassification.from_pretrained,
                source,
                num_labels=len(names),
                id2label=names,
                label2id={name: number for number, name in names.items()},
                problem_type="single_label_classification",
                ignore_mismatched_sizes=True,  # another task's head is replaced by a fresh one
                use_safetensors=True,
                dtype="float32",
                output_loading_info=True,
            )
    except Exception as error:  # the library's errors have no common base
        raise encoder_not_loaded(name_or_path, error) from None
    _unmap(model)
    use_onednn_linear(model)
    _check_files(name_or_path, model, report, tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    pieces = WordPieces(tokenizer.backend_tokenizer, tokenizer.pad_token_id)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.model_max_length = max_tokens  # where a pipeline with truncation=True truncates
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return Encoder(EncoderClassifier(model, pieces.pad_id), pieces, files)


def load_pieces(name_or_path: str) -> WordPieces:
    """Load the tokenizer of an encoder that is on this machine, without a network.

    Raises:
        PretrainedError: there is no such tokenizer on this machine.
    """
    source = find_encoder(name_or_path)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        if not _has_words(tokenizer) or tokenizer.pad_token_id is None:
            raise OSError("no tokenizer")
        return WordPieces(tokenizer.backend_tokenizer, tokenizer.pad_token_id)
    except Exception:  # the library's errors have no common base
        raise PretrainedError(f"The tokenizer of {name_or_path!r} is not on this machine yet.") from None


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write the files that transformers reads: `config.json`, `model.safetensors` and the tokenizer's.

    Raises:
        OSError: they cannot be written.
        SafetensorError: the weights cannot be written.
    """
    with _quiet():
        encoder.network.model.save_pretrained(folder, max_shard_size="1TB")  # type: ignore[operator]
    (folder / WEIGHTS_FILE).chmod(0o644)  # the library makes it private
    for name, content in encoder.files.items():
        (folder / name).write_bytes(content)


def read_encoder(bundle: Bundle, classes: int) -> Encoder:
    """Read back what `save_encoder` wrote, checking that the shapes fit each other and the number of classes.

    Raises:
        BundleError: the files are not those of an encoder, or do not fit together.
    """
    folder = bundle.folder
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        bundle.read(name)
    others = [name for name in bundle.manifest["files"] if name not in (CONFIG_FILE, WEIGHTS_FILE) and "/" not in name]
    files = {name: bundle.read(name) for name in (TOKENIZER_FILE, *others)}
    try:
        with _quiet():
            _check_sizes(folder)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        pieces = WordPieces(read_tokenizer(files[TOKENIZER_FILE]), int(model.config.pad_token_id))
    except Exception as error:  # neither library's errors have a common base
        raise BundleError(f"{folder}: the encoder cannot be read ({first_line(error)}).") from None
    wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[kind]]
    words = model.get_input_embeddings().num_embeddings
    if wrong or model.config.num_labels != classes or pieces.tokenizer.get_vocab_size() > words:
        found = f"{len(wrong)} mismatched" if wrong else f"{model.config.num_labels} classes, {words} word pieces"
        raise BundleError(f"{folder}: the weights do not fit the config and {classes} labels ({found}).")
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BundleError(f"{folder}: {name[:80]!r} holds numbers that are not finite.")
    _unmap(model)
    use_onednn_linear(model)
    return Encoder(EncoderClassifier(model, pieces.pad_id).eval(), pieces, files)


def _check_sizes(folder: Path) -> None:
    """Refuse a config that makes a larger network than the weights fill, before anything is allocated.

    Raises:
        ValueError: with what it makes.
    """
    with safe_open(folder / WEIGHTS_FILE, "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118, it is no dictionary
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for name, value in _settings(config.to_dict()):
        if REPEATED.search(name) and isinstance(value, int) and value > len(shapes):
            raise ValueError(f"{name} is {value:,}, and the weights are {len(shapes):,} arrays")
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    made, stored = sum(one.numel() for one in model.parameters()), sum(math.prod(shape) for shape in shapes)
    if made > 2 * stored:  # some libraries store what is used twice once
        raise ValueError(f"the config makes {made:,} weights, and {stored:,} are stored")


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a config and of its parts."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value)
        else:
            yield str(name), value


def check_reading(name_or_path: str, network: nn.Module, pieces: WordPieces, max_tokens: int) -> None:
    """Refuse an encoder that cannot read texts of `max_tokens`, or whose predictions depend on padding.

    Args:
        name_or_path: the encoder, for messages.
        network: the encoder, token ids to logits.
        pieces: its tokenizer.
        max_tokens: length of the longest text, special tokens included.

    Raises:
        ConfigError: it cannot, with what to do instead.
        PretrainedError: it needs more inputs than token ids.
    """
    frame = [*pieces.before, *pieces.after]
    word = pieces.tokenizer.encode("a", add_special_tokens=False).ids[0]
    long = torch.tensor([frame + [word] * (max_tokens - len(frame))])
    short = long[:, : len(frame) + 1]
    padded = nn.functional.pad(short, (0, 8), value=pieces.pad_id)
    network.eval()
    try:
        with torch.inference_mode():
            logits, padded_logits = network(short), network(padded)
            network(long)
    except (IndexError, RuntimeError):
        raise ConfigError(
            f"Encoder {name_or_path!r} cannot read {max_tokens} tokens at a time: lower max_tokens."
        ) from None
    except Exception as error:  # an encoder that needs other inputs fails in its own way
        raise encoder_not_loaded(name_or_path, error) from None
    if not torch.allclose(logits, padded_logits, atol=1e-4):
        raise ConfigError(
            f"Encoder {name_or_path!r} does not mask its padding, so its predictions would depend on the other texts "
            "of a batch: choose another encoder."
        )


def use_training_kernels(network: EncoderClassifier) -> None:
    """Make attention and dropout faster to train on a CPU; with a GPU this does nothing."""
    if torch.cuda.is_available():
        return
    model: Any = network.model
    transformers.AttentionInterface.register("textladder", _attention)
    AttentionMaskInterface.register("textladder", sdpa_mask)
    with _quiet():
        model.set_attn_implementation("textladder")
    use_fast_dropout(model)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The attention function for transformers: `training_attention` in training, torch's otherwise."""
    too_long = query.shape[2] > MAX_TABLE_TOKENS
    if not module.training or too_long or getattr(module, "is_causal", False) or key.shape[1] != query.shape[1]:
        attended, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return attended, None
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    return training_attention(query, key, value, mask, scale, options.get("dropout", 0.0)), None


def _check_files(name_or_path: str, model: Any, report: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse an encoder whose files are incomplete; the library would initialise the rest at random."""
    inside = f"{model.base_model_prefix}."
    # mismatched keys come as (name, shape, shape)
    lost = [
        key if isinstance(key, str) else key[0] for kind in ("missing_keys", "mismatched_keys") for key in report[kind]
    ]
    lost = [name for name in lost if name.startswith(inside) and not name.startswith(f"{inside}pooler.")]
    if lost:
        raise PretrainedError(
            f"{name_or_path}: {len(lost)} of the encoder's weights are missing or have another shape than its config "
            f"says, among them {lost[0]}."
        )
    if not getattr(tokenizer, "is_fast", False) or not _has_words(tokenizer):
        raise PretrainedError(f"{name_or_path}: the encoder has no fast tokenizer (tokenizer.json), which is required.")
    if tokenizer.pad_token_id is None:
        raise PretrainedError(f"{name_or_path}: the encoder's tokenizer has no padding token, which is required.")
    words = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > words:
        raise PretrainedError(
            f"{name_or_path}: the tokenizer has {len(tokenizer):,} word pieces but the encoder has vectors for only "
            f"{words:,}."
        )


def _from_cache_or_hub(
    load: Callable[..., Any], source: str, complete: Callable[[Any], bool] = bool, **options: Any
) -> Any:
    """Load from this machine if the files are there and their result is `complete`, else from the Hub."""
    options = {**options, "trust_remote_code": False}
    is_folder = Path(source).is_dir()
    try:
        loaded = load(source, local_files_only=True, **options)
        if is_folder or complete(loaded):
            return loaded
    except OSError:
        if is_folder:
            raise
    check_reachable(constants.ENDPOINT)
    return load(source, **options)


def _has_words(tokenizer: Any) -> bool:
    """False for the empty tokenizer that the library makes when it finds no vocabulary."""
    return len(tokenizer) > len(set(tokenizer.all_special_ids))


def _unmap(model: Any) -> None:
    """Copy the weights out of the memory-mapped file: they are unaligned there, which changes the order of sums."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and its reports on the weights that a fresh head lacks."""
    loggers = logging, hub_logging
    verbosities, bars = [one.get_verbosity() for one in loggers], logging.is_progress_bar_enabled()
    for one in loggers:
        one.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, verbosity in zip(loggers, verbosities, strict=True):
            one.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
