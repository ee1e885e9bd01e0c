"""Hugging Face encoders: loaded with their tokenizer and a fresh head, checked, saved, and read again.

The only module that knows of transformers. It takes a name or a folder and gives an `EncoderClassifier` and its
`WordPieces`, which know nothing of where they come from. What the library would fill up at random is refused.
"""

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
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils import logging

from textladder.bundle import Bundle
from textladder.errors import BundleError, ConfigError, PretrainedError
from textladder.networks.cpu_kernels import quick_dropout, quick_linear, training_attention
from textladder.networks.encoder import EncoderClassifier
from textladder.pretrained import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_reachable,
    encoder_not_loaded,
    find_encoder,
)
from textladder.text.wordpieces import WordPieces

QUICK_TOKENS = 1024  # above, tables of (time, time) would take more memory than they save time


class Encoder(NamedTuple):
    """An encoder in one's hands.

    Attributes:
        network: token numbers to logits.
        pieces: texts to token numbers.
        files: the tokenizer's standard files, as bytes by their names.
    """

    network: EncoderClassifier
    pieces: WordPieces
    files: dict[str, bytes]


def load_encoder(wanted: str, label_names: Sequence[str], max_tokens: int) -> Encoder:
    """A pretrained encoder with a fresh head that knows the label names.

    Args:
        wanted: a folder, an installed encoder's name, or a name on the Hub.
        label_names: one for each class.
        max_tokens: what the tokenizer's files say a text is to be cut to.

    Raises:
        PretrainedError: it cannot be fetched, or its files do not hold all of an encoder.
    """
    names = dict(enumerate(label_names))
    source = find_encoder(wanted)
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
        raise encoder_not_loaded(wanted, error) from None
    _unmap(model)
    quick_linear(model)
    _check_files(wanted, model, report, tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    pieces = WordPieces(tokenizer.backend_tokenizer, tokenizer.pad_token_id)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.model_max_length = max_tokens  # what a pipeline with truncation=True cuts to
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return Encoder(EncoderClassifier(model, pieces.pad_id), pieces, files)


def load_pieces(wanted: str) -> WordPieces:
    """The tokenizer of an encoder that is at hand; the network is not asked.

    Raises:
        PretrainedError: it is not at hand, or is none.
    """
    source = find_encoder(wanted)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        if not _has_words(tokenizer) or tokenizer.pad_token_id is None:
            raise OSError("no tokenizer")
        return WordPieces(tokenizer.backend_tokenizer, tokenizer.pad_token_id)
    except Exception:  # the library's errors have no common base
        raise PretrainedError(f"The tokenizer of {wanted!r} is not on this machine yet.") from None


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write the files that transformers itself reads: `config.json`, `model.safetensors`, the tokenizer's."""
    try:
        with _quiet():
            encoder.network.model.save_pretrained(folder, max_shard_size="1TB")  # type: ignore[operator]
    except SafetensorError as error:  # what a full disk is to this library
        raise OSError(str(error)) from None
    (folder / WEIGHTS_FILE).chmod(0o644)  # the library made it private
    for name, content in encoder.files.items():
        (folder / name).write_bytes(content)


def read_encoder(bundle: Bundle, classes: int) -> Encoder:
    """What `save_encoder` wrote, its shapes held to each other and to the number of classes.

    Raises:
        BundleError: the files are no encoder's or do not fit together.
    """
    folder = bundle.folder
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        bundle.read(name)
    others = [name for name in bundle.manifest["files"] if name not in (CONFIG_FILE, WEIGHTS_FILE) and "/" not in name]
    files = {name: bundle.read(name) for name in (TOKENIZER_FILE, *others)}
    try:
        with _quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        pieces = WordPieces(Tokenizer.from_str(files[TOKENIZER_FILE].decode()), int(model.config.pad_token_id))
    except Exception as error:  # neither library's errors have a common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{folder}: the encoder cannot be read ({reason[:200]}).") from None
    wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[kind]]
    words = model.get_input_embeddings().num_embeddings
    if wrong or model.config.num_labels != classes or pieces.tokenizer.get_vocab_size() > words:
        reason = f"{len(wrong)} do not" if wrong else f"{model.config.num_labels} classes, {words} word pieces"
        raise BundleError(f"{folder}: the weights do not fit the config and {classes} labels ({reason}).")
    _unmap(model)
    quick_linear(model)
    return Encoder(EncoderClassifier(model, pieces.pad_id).eval(), pieces, files)


def check_reading(wanted: str, network: nn.Module, pieces: WordPieces, max_tokens: int) -> None:
    """Refuse an encoder that cannot read so many tokens at a time, or that reads its padding.

    Raises:
        ConfigError: with what to do instead.
        PretrainedError: it wants more than token numbers.
    """
    frame = [*pieces.before, *pieces.after]
    word = pieces.tokenizer.encode("a", add_special_tokens=False).ids[0]
    long = torch.tensor([frame + [word] * (max_tokens - len(frame))])
    short = long[:, : len(frame) + 1]
    padded = nn.functional.pad(short, (0, 8), value=pieces.pad_id)
    network.eval()
    try:
        with torch.inference_mode():
            alone, together = network(short), network(padded)
            network(long)
    except (IndexError, RuntimeError):
        raise ConfigError(
            f"Encoder {wanted!r} cannot read {max_tokens} tokens at a time: lower --max-tokens."
        ) from None
    except Exception as error:  # an encoder that wants more than token numbers, each in its own words
        raise encoder_not_loaded(wanted, error) from None
    if not torch.allclose(alone, together, atol=1e-4):
        raise ConfigError(
            f"{wanted!r} reads its padding, so its answer to a text would depend on the others of a batch: "
            "take another encoder."
        )


def make_quick(network: EncoderClassifier) -> None:
    """Where there is no GPU: attention and dropout that are quicker to train."""
    if torch.cuda.is_available():
        return
    model: Any = network.model
    transformers.AttentionInterface.register("textladder", _attention)
    AttentionMaskInterface.register("textladder", sdpa_mask)
    with _quiet():
        model.set_attn_implementation("textladder")
    quick_dropout(model)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What transformers calls for attention: ours in training, torch's otherwise."""
    too_long = query.shape[2] > QUICK_TOKENS
    if not module.training or too_long or getattr(module, "is_causal", False) or key.shape[1] != query.shape[1]:
        attended, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return attended, None
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    return training_attention(query, key, value, mask, scale, options.get("dropout", 0.0)), None


def _check_files(wanted: str, model: Any, report: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse an encoder whose files do not hold all of it, where the library would fill up at random."""
    inside = f"{model.base_model_prefix}."
    # mismatched ones come as (name, shape, shape)
    lost = [
        key if isinstance(key, str) else key[0] for kind in ("missing_keys", "mismatched_keys") for key in report[kind]
    ]
    lost = [name for name in lost if name.startswith(inside) and not name.startswith(f"{inside}pooler.")]
    if lost:
        raise PretrainedError(
            f"{wanted}: {len(lost)} of the encoder's weights are missing or of another shape than its config says, "
            f"{lost[0]} among them."
        )
    if not getattr(tokenizer, "is_fast", False) or not _has_words(tokenizer):
        raise PretrainedError(f"{wanted}: the encoder has no fast tokenizer (tokenizer.json), which this level needs.")
    if tokenizer.pad_token_id is None:
        raise PretrainedError(f"{wanted}: the encoder's tokenizer has no padding token, which this level needs.")
    words = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > words:
        raise PretrainedError(
            f"{wanted}: the tokenizer has {len(tokenizer):,} word pieces and the encoder vectors for {words:,}."
        )


def _from_cache_or_hub(
    load: Callable[..., Any], source: str, whole: Callable[[Any], bool] = bool, **options: Any
) -> Any:
    """Without asking the network where the files are at hand, and `whole` what is made of them."""
    options = {**options, "trust_remote_code": False}
    is_folder = Path(source).is_dir()
    try:
        loaded = load(source, local_files_only=True, **options)
        if is_folder or whole(loaded):
            return loaded
    except OSError:
        if is_folder:
            raise
    check_reachable(constants.ENDPOINT)
    return load(source, **options)


def _has_words(tokenizer: Any) -> bool:
    """False for the empty tokenizer that the library makes where it finds no vocabulary."""
    return len(tokenizer) > len(set(tokenizer.all_special_ids))


def _unmap(model: Any) -> None:
    """Take the weights out of the mapped file, where they lie unaligned: sums would be taken in another order."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its bars and its reports on weights that a fresh head is meant to lack."""
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
