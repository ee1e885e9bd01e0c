"""`transformer`: a Hugging Face encoder, fine-tuned, as a recipe.

    texts -> the encoder's own word pieces -> batches of like length, filled by tokens
          -> the encoder and a fresh head, each layer at its own rate

Any encoder that `AutoModelForSequenceClassification` takes will do. The only module that knows of transformers.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from textladder.bundle import Bundle
from textladder.data import LabelledTexts
from textladder.errors import BundleError, ConfigError, PretrainedError, import_extra
from textladder.levels.base import FitReport, Preset, setting
from textladder.pretrained import check_reachable, encoder_not_loaded, find_encoder
from textladder.progress import Monitor

if TYPE_CHECKING:
    from textladder.batching import Padding, TextBatches
    from textladder.networks.encoder import EncoderClassifier
    from textladder.text.wordpieces import FittedTexts, WordPieces
    from textladder.training import Stage

EPOCHS = 3
LEAST_STEPS, LEAST_TOKENS = 40, 512  # in an epoch, of a batch: few rows go in smaller batches
LENGTH_MULTIPLE = 8  # so that the processor's library meets fewer shapes to prepare for
PREDICTED_TOKENS = 4096  # of a batch
QUICK_TOKENS = 1024  # above, tables of (time, time) would take more memory than they save time

TOKENIZER_FILE, WEIGHTS_FILE, CONFIG_FILE = "tokenizer.json", "model.safetensors", "config.json"


@dataclass(frozen=True)
class TransformerConfig:
    """The recipe's numbers, with the reason for each.

    Accuracies are all-MiniLM-L6-v2's on two stretches of 1,000 neighbouring Amazon training rows, trained on the 7,995
    others; their standard error is half a point, so that they tell a bad choice from a good one and no more.
    """

    encoder: str = setting(
        "distilbert-base-uncased", "a name on the Hugging Face Hub, a folder, or all-MiniLM-L6-v2 (installed)"
    )
    # all but 2 in 1,000 Amazon reviews; attention costs the square of it
    max_tokens: int = setting(256, "read at most this many word pieces at a time", low=3, high=8192)
    long_text: str = setting(
        "head-tail",
        "what is read of a longer text: its head, its head and tail, or all of it in windows",
        choices=("head", "head-tail", "windows"),
    )
    fixed_length: bool = setting(False, "pad every text to max_tokens instead of to the longest of its batch")
    frozen_epochs: int = setting(0, "passes that train the head alone, before the rest", low=0)
    frozen_learning_rate: float = setting(1e-3, "peak of these passes", low=1e-7, high=1)
    # 0.917 after one, 0.931 after two, 0.933 after three
    epochs: int | None = setting(None, "passes that train everything (default 3)", low=0)
    # 2e-4 is higher after the first epoch (0.922) and lower after the last (0.931)
    learning_rate: float = setting(1e-4, "peak of the one-cycle policy, of the head", low=1e-8, high=1)
    layer_decay: float = setting(0.9, "rate of a layer as a share of the rate of the one above", low=0.1, high=1)
    find_rate: bool = setting(False, "let the finder choose the learning rate")
    warm_up: float = setting(0.1, "share of the steps in which the rate rises", low=0.01, high=0.99)
    weight_decay: float = setting(0.01, "of everything but biases and norms", low=0)
    # 4096 is no quicker and takes half a gigabyte more; 2048 is 5% slower
    batch_tokens: int = setting(3072, "word pieces of a batch, padding counted (fewer where rows are few)", low=16)
    batch_size: int | None = setting(None, "texts of a batch at most", low=1)
    accumulate: int = setting(1, "batches whose gradients add up to a step", low=1)
    # as accurate after two epochs, and less certain where it is wrong: log loss 0.213 instead of 0.222
    label_smoothing: float = setting(0.1, "share of the target spread over all classes", low=0, high=0.5)
    class_weights: str = setting("none", "weigh rows so that every class counts the same", choices=("none", "balanced"))
    keep_best: bool = setting(True, "end with the weights that did best on the validation rows")
    patience: int = setting(0, "stop after so many epochs without a better one; 0 for never", low=0)
    looks_per_epoch: int = setting(1, "looks at the validation rows in an epoch", low=1)
    # with AVX512-BF16 a DistilBERT trained 17.8 rows a second instead of 4.7
    precision: str = setting(
        "auto", "compute in bfloat16 where the machine has it", choices=("auto", "float32", "bfloat16")
    )


TUTORIAL = Preset(
    "the well-known tutorial as published: the text column alone, padded to 512, no validation rows",
    settings={
        "max_tokens": 512,
        "long_text": "head",
        "fixed_length": True,
        "epochs": 3,
        "learning_rate": 3e-4,
        "layer_decay": 1.0,
        "warm_up": 0.25,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "batch_tokens": 8 * 512,
        "batch_size": 8,
        "precision": "float32",
    },
    read={"text": "longest", "valid": 0.0},
)


class TransformerLevel:
    """The level `transformer`."""

    name: ClassVar[str] = "transformer"
    libraries: ClassVar[tuple[str, ...]] = (
        "torch",
        "transformers",
        "fastai.basics",
        "fastai.callback.schedule",
        "fastai.callback.training",
    )
    summary: ClassVar[str] = "a Hugging Face encoder, fine-tuned"
    config_type: ClassVar[type] = TransformerConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset("the recipe chosen on Amazon validation rows"),
        "tutorial": TUTORIAL,
    }
    # The finder looks at a hundred steps and points near 1e-3, where a pretrained encoder forgets what it knows.
    learning_rates: ClassVar[tuple[float, float]] = (1e-5, 2e-4)

    def __init__(self, config: TransformerConfig, classes: int) -> None:
        if config.epochs == 0 and not config.frozen_epochs:
            raise ConfigError("Settings 'epochs' and 'frozen_epochs' cannot both be 0.")
        self.config, self.classes = config, classes
        self.learner: Any = None
        self.texts_cut = 0
        self.pieces: WordPieces | None = None
        self.network: EncoderClassifier | None = None
        self._tokenizer_files: dict[str, bytes] = {}

    def prepare(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Texts to batches, an encoder with a fresh head, and both to a Learner."""
        from textladder.training import balanced_weights, make_learner, seeded

        config = self.config
        # torch's library for bfloat16 keeps what it prepared for the last 1,024 shapes, a gigabyte in all; it looks
        # here before it first computes
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
        monitor.start(f"loading {config.encoder}", None)
        with seeded(seed):
            network, pieces = self._load_encoder(train.label_names)
        self.network, self.pieces = network, pieces
        monitor.start("splitting into word pieces", None)
        fitted = self._fit_texts(train, config.batch_tokens)
        train_batches = self._batches(fitted, train.label_ids, shuffle=True, seed=seed)
        valid_batches = None
        if valid is not None:
            looked_at = self._fit_texts(valid, PREDICTED_TOKENS)
            valid_batches = self._batches(looked_at, valid.label_ids, batch_tokens=PREDICTED_TOKENS)
        monitor.stop()
        monitor.say(self._long_text_sentence(fitted, len(train)))
        self._check_encoder(network)
        _make_quick(network.model)
        balanced = config.class_weights == "balanced"
        self._learner_options: dict[str, Any] = {
            "class_weights": balanced_weights(train.label_ids, self.classes) if balanced else None,
            "label_smoothing": config.label_smoothing,
            "weight_decay": config.weight_decay,
            "precision": config.precision,
            # a batch of long texts has few: each text is to count the same
            "accumulate": min(len(train), round(config.accumulate * len(train) / len(train_batches))),
            "clip": 1.0,
        }
        self.learner = make_learner(network, train_batches, valid_batches, **self._learner_options)
        facts = {
            "encoder": config.encoder,
            "texts_cut": fitted.cut,
            "texts_windowed": fitted.windowed,
            "tokens": len(fitted.sequences.ids),
        }
        return FitReport(sum(one.numel() for one in network.parameters()), facts=facts)

    def fit(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Train on `train`, keep the weights that did best on `valid`."""
        report = self.prepare(train, valid, seed=seed, monitor=monitor)
        from textladder.training import find_learning_rate, run_stages, seeded

        config = self.config
        options: dict[str, Any] = {
            "keep_best": config.keep_best,
            "patience": config.patience,
            "looks_per_epoch": config.looks_per_epoch,
            "monitor": monitor,
        }
        with seeded(seed):
            if config.frozen_epochs:
                # the learner goes with the states it keeps
                report.epochs += run_stages(self._head_learner(monitor), [self._head_stage()], **options)
            rate = config.learning_rate
            if config.find_rate:
                curve = find_learning_rate(self.learner, *self.learning_rates)
                monitor.say(curve.sentence())
                rate = curve.learning_rate
            report.epochs += run_stages(self.learner, self.stages(rate), looks=report.epochs, **options)
        return report

    def stages(self, learning_rate: float) -> list["Stage"]:
        """One cycle over everything, the lower layers more carefully."""
        from textladder.training import Stage

        epochs = EPOCHS if self.config.epochs is None else self.config.epochs
        warm_up, decay = self.config.warm_up, self.config.layer_decay
        return [Stage("fine-tuning", epochs, learning_rate, warm_up, decay=decay)] if epochs else []

    def _head_stage(self) -> "Stage":
        from textladder.training import Stage

        return Stage("head", self.config.frozen_epochs, self.config.frozen_learning_rate, trainable="head")

    def _head_learner(self, monitor: Monitor) -> Any:
        """A Learner of the head on what the frozen encoder makes of the texts, computed once, without dropout."""
        import torch

        from textladder.frozen import StoredBatches
        from textladder.networks.encoder import EncoderHead
        from textladder.training import computing, make_learner

        network, loaders = self.network, self.learner.dls
        assert network is not None
        ids = next(iter(loaders.valid if len(loaders.valid) else loaders.train))[0][:4]
        first_only = network.head_sees_first_state_only(ids.to(next(network.parameters()).device))
        if first_only is None:
            monitor.say("This encoder cannot be run without its head, so it is computed again in every frozen epoch.")
            return self.learner

        def compute(ids: torch.Tensor) -> torch.Tensor:
            training = network.training
            network.eval()
            with torch.no_grad(), computing(network, self.config.precision):
                states = network.states(ids.to(next(network.parameters()).device))
            network.train(training)
            return states

        encoder: Any = network.model.config
        train = StoredBatches(loaders.train, compute, encoder.hidden_size, first_only=first_only)
        valid = None
        if len(loaders.valid):
            valid = StoredBatches(loaders.valid, compute, encoder.hidden_size, first_only=first_only)
        if not train.kept:
            monitor.say("What the frozen encoder makes of the texts is too large to keep: it is computed every epoch.")
        return make_learner(EncoderHead(network), train, valid, **self._learner_options)

    def tokenize(self, text: str) -> list[str]:
        """The encoder's word pieces."""
        assert self.pieces is not None, "The level has learnt nothing yet."
        return self.pieces.pieces(text)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities, float32 (texts, classes)."""
        from textladder.batching import predict_probabilities

        assert self.network is not None, "The level has learnt nothing yet."
        fitted = self._fit_texts(texts)
        self.texts_cut += fitted.cut
        return predict_probabilities(
            self.network,
            fitted.sequences,
            self._padding(),
            firsts=fitted.firsts,
            batch_tokens=PREDICTED_TOKENS,
        )

    def save(self, folder: Path) -> None:
        """Write the files that transformers itself reads: `config.json`, `model.safetensors`, the tokenizer's."""
        assert self.network is not None, "The level has learnt nothing yet."
        from safetensors import SafetensorError

        try:
            with _quiet():
                self.network.model.save_pretrained(folder, max_shard_size="1TB")  # type: ignore[operator]
        except SafetensorError as error:  # what a full disk is to this library
            raise OSError(str(error)) from None
        (folder / WEIGHTS_FILE).chmod(0o644)  # the library made it private
        for name, content in self._tokenizer_files.items():
            (folder / name).write_bytes(content)

    @classmethod
    def load(cls, bundle: Bundle, config: TransformerConfig, classes: int) -> "TransformerLevel":
        """Read a bundle's files and hold their shapes to each other and to the labels."""
        import_extra("torch", "train")
        transformers = import_extra("transformers", "train")
        from tokenizers import Tokenizer

        from textladder.networks.encoder import EncoderClassifier
        from textladder.text.wordpieces import WordPieces

        level, folder = cls(config, classes), bundle.folder
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            bundle.read(name)
        others = [name for name in bundle.manifest["files"] if name not in (CONFIG_FILE, WEIGHTS_FILE)]
        level._tokenizer_files = {name: bundle.read(name) for name in (TOKENIZER_FILE, *others)}
        try:
            with _quiet():
                model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                    output_loading_info=True,
                )  # fmt: skip
            pieces = WordPieces(
                Tokenizer.from_str(level._tokenizer_files[TOKENIZER_FILE].decode()), int(model.config.pad_token_id)
            )
        except Exception as error:  # neither library's errors have a common base
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BundleError(f"{folder}: the encoder cannot be read ({reason[:200]}).") from None
        wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[kind]]
        words = model.get_input_embeddings().num_embeddings
        if wrong or model.config.num_labels != classes or pieces.tokenizer.get_vocab_size() > words:
            reason = f"{len(wrong)} do not" if wrong else f"{model.config.num_labels} classes, {words} word pieces"
            raise BundleError(f"{folder}: the weights do not fit the config and {classes} labels ({reason}).")
        _unmap(model)
        level.pieces, level.network = pieces, EncoderClassifier(model, pieces.pad_id).eval()
        return level

    def _load_encoder(self, label_names: Sequence[str]) -> tuple["EncoderClassifier", "WordPieces"]:
        """The encoder with a fresh head that knows the label names, and its tokenizer."""
        import transformers

        from textladder.networks.encoder import EncoderClassifier
        from textladder.text.wordpieces import WordPieces

        wanted = self.config.encoder
        source = find_encoder(wanted)
        names = dict(enumerate(label_names))
        try:
            with _quiet():
                tokenizer = _from_cache_or_hub(transformers.AutoTokenizer.from_pretrained, source, _has_words)
                model, report = _from_cache_or_hub(
                    transformers.AutoModelForSequenceClassification.from_pretrained,
                    source,
                    num_labels=self.classes,
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
        self._check_files(model, report, tokenizer)
        model.config.pad_token_id = tokenizer.pad_token_id
        pieces = WordPieces(tokenizer.backend_tokenizer, tokenizer.pad_token_id)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.model_max_length = self.config.max_tokens  # what a pipeline with truncation=True cuts to
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            self._tokenizer_files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return EncoderClassifier(model, pieces.pad_id), pieces

    def _check_files(self, model: Any, report: Mapping[str, Any], tokenizer: Any) -> None:
        """Refuse an encoder whose files do not hold all of it, where the library would fill up at random."""
        wanted, inside = self.config.encoder, f"{model.base_model_prefix}."
        # mismatched ones come as (name, shape, shape)
        lost = [
            key if isinstance(key, str) else key[0]
            for kind in ("missing_keys", "mismatched_keys")
            for key in report[kind]
        ]
        lost = [name for name in lost if name.startswith(inside) and not name.startswith(f"{inside}pooler.")]
        if lost:
            raise PretrainedError(
                f"{wanted}: {len(lost)} of the encoder's weights are missing or of another shape than its config says, "
                f"{lost[0]} among them."
            )
        if not getattr(tokenizer, "is_fast", False) or not _has_words(tokenizer):
            raise PretrainedError(
                f"{wanted}: the encoder has no fast tokenizer (tokenizer.json), which this level needs."
            )
        if tokenizer.pad_token_id is None:
            raise PretrainedError(f"{wanted}: the encoder's tokenizer has no padding token, which this level needs.")
        words = model.get_input_embeddings().num_embeddings
        if len(tokenizer) > words:
            raise PretrainedError(
                f"{wanted}: the tokenizer has {len(tokenizer):,} word pieces and the encoder vectors for {words:,}."
            )

    def _check_encoder(self, network: "EncoderClassifier") -> None:
        """Refuse an encoder that cannot read so many tokens at a time, or that reads its padding."""
        import torch

        assert self.pieces is not None
        frame = [*self.pieces.before, *self.pieces.after]
        word = self.pieces.tokenizer.encode("a", add_special_tokens=False).ids[0]
        long = torch.tensor([frame + [word] * (self.config.max_tokens - len(frame))])
        short = long[:, : len(frame) + 1]
        padded = torch.nn.functional.pad(short, (0, 8), value=self.pieces.pad_id)
        network.eval()
        try:
            with torch.inference_mode():
                alone, together = network(short), network(padded)
                network(long)
        except (IndexError, RuntimeError):
            raise ConfigError(
                f"Encoder {self.config.encoder!r} cannot read {self.config.max_tokens} tokens at a time: "
                "lower --max-tokens."
            ) from None
        except Exception as error:  # an encoder that wants more than token numbers, each in its own words
            raise encoder_not_loaded(self.config.encoder, error) from None
        if not torch.allclose(alone, together, atol=1e-4):
            raise ConfigError(
                f"{self.config.encoder!r} reads its padding, so its answer to a text would depend on the others of a "
                "batch: take another encoder."
            )

    def _fit_texts(self, texts: LabelledTexts | Sequence[str], batch_tokens: int | None = None) -> "FittedTexts":
        """Texts as sequences; no text of more windows than a batch of so many tokens holds."""
        assert self.pieces is not None
        config = self.config
        most = None if batch_tokens is None else max(1, batch_tokens // config.max_tokens)
        return self.pieces.fit(self.pieces.encode(texts), config.max_tokens, config.long_text, most_windows=most)

    def _batches(
        self, fitted: "FittedTexts", label_ids: np.ndarray, *, batch_tokens: int | None = None, **options: Any
    ) -> "TextBatches":
        from textladder.batching import TextBatches

        if batch_tokens is None:
            batch_tokens = self.config.batch_tokens
            if self.config.batch_size is None:
                batch_tokens = min(batch_tokens, max(LEAST_TOKENS, len(fitted.sequences.ids) // LEAST_STEPS))
        return TextBatches(
            fitted.sequences,
            label_ids,
            self._padding(),
            batch_size=self.config.batch_size,
            batch_tokens=batch_tokens,
            firsts=fitted.firsts,
            **options,
        )

    def _padding(self) -> "Padding":
        from textladder.batching import Padding

        return Padding(self.config.max_tokens, self.config.fixed_length, LENGTH_MULTIPLE)

    def _long_text_sentence(self, fitted: "FittedTexts", texts: int) -> str:
        limit = f"of {texts:,} training texts are longer than {self.config.max_tokens} word pieces"
        if self.config.long_text != "windows":
            return f"{fitted.cut:,} {limit} and lose tokens ({self.config.long_text} is kept)."
        return f"{fitted.windowed:,} {limit} and are read in windows; {fitted.cut:,} lose tokens in training."


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
    from huggingface_hub import constants

    check_reachable(constants.ENDPOINT)
    return load(source, **options)


def _has_words(tokenizer: Any) -> bool:
    """False for the empty tokenizer that the library makes where it finds no vocabulary."""
    return len(tokenizer) > len(set(tokenizer.all_special_ids))


def _unmap(model: Any) -> None:
    """Take the weights out of the mapped file, where they lie unaligned: sums would be taken in another order."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _make_quick(model: Any) -> None:
    """Where there is no GPU: attention and dropout that are quicker to train."""
    import torch

    if torch.cuda.is_available():
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    from textladder.networks.quick import quick_dropout

    AttentionInterface.register("textladder", _attention)
    AttentionMaskInterface.register("textladder", sdpa_mask)
    with _quiet():
        model.set_attn_implementation("textladder")
    quick_dropout(model)


def _attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> tuple[Any, None]:
    """What transformers calls for attention: ours in training, torch's otherwise."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from textladder.networks.quick import training_attention

    too_long = query.shape[2] > QUICK_TOKENS
    if not module.training or too_long or getattr(module, "is_causal", False) or key.shape[1] != query.shape[1]:
        attended, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return attended, None
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    return training_attention(query, key, value, mask, scale, options.get("dropout", 0.0)), None


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its bars and its reports on weights that a fresh head is meant to lack."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

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
