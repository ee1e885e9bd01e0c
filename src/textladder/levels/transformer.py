"""`transformer`: a Hugging Face encoder, fine-tuned, as a recipe.

    texts -> the encoder's own subword tokens -> batches of similar length
          -> the encoder and a new head, each layer at its own learning rate

Any encoder that `AutoModelForSequenceClassification` takes will do; `encoders.py` loads it.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from textladder.batching import Padding, TextBatches, pad_batch
from textladder.bundle import Bundle
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import BundleError, ConfigError, import_extra
from textladder.levels.base import FitReport, Preset, Scored, TrainingConfig, batch_size_for
from textladder.onnx_scorer import ExportedNetwork
from textladder.pretrained import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, find_encoder
from textladder.progress import Monitor, truncation_sentence
from textladder.scoring import NetworkScorer, predict_probabilities
from textladder.settings import setting
from textladder.text.vocabulary import EncodedTexts
from textladder.text.wordpieces import EncoderInputs, WordPieces, read_tokenizer
from textladder.wording import counted

if TYPE_CHECKING:
    from onnx import ModelProto

    from textladder.encoders import Encoder
    from textladder.training.checkpoints import FitCheckpoint
    from textladder.training.data_loaders import TextCodec
    from textladder.training.stages import Stage

# The length of the one cycle is known beforehand, from rows and classes. On banking77, with 77 classes, the validation
# loss was still falling after 1,000 steps; with 90 rows of AG News, 20 epochs were 1.3 points better than 10; with 540,
# 6 epochs, 204 steps, were as good as 8.
EPOCHS, MOST_EPOCHS = 3, 20
MIN_STEPS, STEPS_PER_CLASS = 200, 20
# Steps count, so a batch of short texts is no larger than one of long texts: banking77 got 41 steps in an epoch of
# batches filled with 3,072 tokens, and 0.49. With few rows, batches are smaller.
BATCH_SIZES = (8, 16, 32)
UNKNOWN_SHARE, UNREADABLE_SHARE = 0.01, 0.3  # of the characters: that many are said, that many make texts unreadable
VALIDATION_TEXTS = 2_000  # about as many are looked at to decide how long texts are read
READINGS = {"head-tail": "by head and tail", "windows": "in windows"}
LENGTH_MULTIPLE = 8  # so that oneDNN compiles kernels for fewer shapes
VALIDATION_BATCH_TOKENS = 4096
MAX_BATCH_PADDING = 16  # tokens, in prediction: more padding costs more than reading all weights once more


@dataclass(frozen=True)
class TransformerConfig(TrainingConfig):
    """The recipe's hyperparameters, with the reason for each.

    Accuracies are those of all-MiniLM-L6-v2 on two blocks of 1,000 neighbouring Amazon training rows, trained on the
    other 7,995; their standard error is half a point, so they tell a bad choice from a good one and no more.
    """

    encoder: str = setting(
        "distilbert-base-uncased",
        "name on the Hugging Face Hub, folder, or all-MiniLM-L6-v2 (installed)",
        shared=True,
    )
    # all but 2 in 1,000 Amazon reviews; the cost of attention is quadratic in it
    max_tokens: int = setting(256, "maximum length of a sequence in subword tokens", low=3, high=8192, shared=True)
    long_text: str | None = setting(
        None,
        "what to read of a longer text: its head, its head and tail, or all of it in windows (default: head-tail in "
        "training, then windows if validation texts are classified better in them)",
        choices=("head", "head-tail", "windows"),
    )
    fixed_length: bool = setting(False, "pad every text to max_tokens instead of to the longest of its batch")
    frozen_epochs: int = setting(0, "epochs of training the head alone, before the rest", low=0, shared=True)
    frozen_learning_rate: float = setting(1e-3, "peak learning rate of the frozen epochs", low=1e-7, high=1)
    # 0.917 after one, 0.931 after two, 0.933 after three (without label smoothing)
    epochs: int | None = setting(None, "epochs of training the whole network (default: by rows and classes)", low=0)
    # 2e-4 is higher after the first epoch (0.922) and lower after the last (0.931); it is better on 8,000 rows of
    # banking77 (0.920 and 0.909) and worse on 539 (0.730 and 0.779) and on tweets (0.783 and 0.799)
    learning_rate: float = setting(1e-4, "peak learning rate of the one-cycle policy", low=1e-8, high=1)
    layer_decay: float = setting(0.9, "learning rate of a layer as a share of the layer above", low=0.1, high=1)
    # the head is new and has far to go: after one epoch, banking77 reached 0.867 with it, and 0.804 without it and at
    # five times the learning rate
    head_factor: float = setting(10.0, "learning rate of the head as a multiple of learning_rate", low=0.1, high=1000)
    warm_up: float = setting(0.1, "share of the steps in which the learning rate rises", low=0.01, high=0.99)
    weight_decay: float = setting(0.01, "decoupled weight decay; biases and norms do not decay", low=0)
    gradient_clip: float = setting(1.0, "scale gradients down to this norm; 0 for never", low=0)
    # 4096 is no faster and takes half a gigabyte more; 2048 is 5% slower
    batch_tokens: int = setting(3072, "maximum tokens per batch, padding included", low=16)
    batch_size: int | None = setting(None, "maximum texts per batch (default: 32, or 8 or 16 with few rows)", low=1)
    accumulate: int = setting(
        1, "batches whose gradients are summed in a step; 0 for the plain mean of each batch", low=0
    )
    # as accurate after two epochs, and less confident where it is wrong: log loss 0.213 instead of 0.222
    label_smoothing: float = setting(0.1, "share of the target that is spread over all classes", low=0, high=0.5)


TUTORIAL = Preset(
    "the 2021 tutorial as published: the text column alone, padded to 512, no validation rows",
    settings={
        "max_tokens": 512,
        "long_text": "head",
        "fixed_length": True,
        "epochs": 3,
        "learning_rate": 3e-4,
        "layer_decay": 1.0,
        "head_factor": 1.0,
        "warm_up": 0.25,
        # `Learner(dls, model, loss_func=CrossEntropyLoss())` and `fit_one_cycle(3, 3e-4)`: fastai's Adam
        "optimizer": "adam",
        "weight_decay": 0.01,
        "gradient_clip": 0.0,
        "accumulate": 0,
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
    network_files: ClassVar[tuple[str, ...]] = (WEIGHTS_FILE,)
    network_inputs: ClassVar[tuple[str, ...]] = ("ids",)
    batch_cores: ClassVar[int | None] = None
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset("the recipe chosen on validation rows of Amazon reviews, banking77 and tweets"),
        "tutorial": TUTORIAL,
    }
    # The finder sees a hundred steps and points near 1e-3, where a pretrained encoder forgets what it knows.
    learning_rates: ClassVar[tuple[float, float]] = (1e-5, 2e-4)

    def __init__(self, config: TransformerConfig, classes: int) -> None:
        if config.epochs == 0 and not config.frozen_epochs:
            raise ConfigError("Settings 'epochs' and 'frozen_epochs' cannot both be 0.")
        self.config, self.classes = config, classes
        self.learner: Any = None
        self.encoder: Encoder | None = None
        self.exported: ExportedNetwork | None = None
        self.pieces: WordPieces | None = None

    def prepare(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Texts to batches, an encoder with a new head, and both to a Learner."""
        from textladder.encoders import check_reading, load_encoder, use_training_kernels
        from textladder.training.learner import class_weights, make_learner
        from textladder.training.stages import seeded

        config = self.resolved(len(train))
        # oneDNN, which torch uses for bfloat16, caches its kernels for the last 1,024 shapes, a gigabyte in all; it
        # reads this variable before its first computation
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
        monitor.start(f"loading {config.encoder}", None)
        with seeded(seed):
            self.encoder = load_encoder(config.encoder, train.label_names, config.max_tokens)
        network, self.pieces = self.encoder.network, self.encoder.pieces
        monitor.start("tokenizing", None)
        inputs, train_batches, valid_batches = self._all_batches(train, valid, seed)
        unknown = self.pieces.unknown_share(train.sample())
        monitor.stop()
        monitor.say(self._long_text_sentence(inputs, len(train)))
        warnings = [self._unknown_sentence(unknown)] if unknown >= UNKNOWN_SHARE else []
        for sentence in warnings:
            monitor.say(sentence)
        check_reading(config.encoder, network, self.pieces, config.max_tokens)
        use_training_kernels(network)
        self._learner_options: dict[str, Any] = {
            "class_weights": class_weights(config.class_weights, train.label_ids, self.classes),
            "label_smoothing": config.label_smoothing,
            # batches of long texts have fewer texts, and every text should count the same
            "accumulate": min(len(train), round(config.accumulate * len(train) / len(train_batches))),
            **config.learner_options(train),
        }
        codec = self._codec(train.labels)
        self.learner = make_learner(network, train_batches, valid_batches, codec=codec, **self._learner_options)
        facts = {
            "encoder": config.encoder,
            "texts_truncated": inputs.truncated,
            "texts_windowed": inputs.windowed,
            "tokens": len(inputs.sequences.ids),
            "unknown_characters": unknown,
        }
        return FitReport(sum(one.numel() for one in network.parameters()), facts=facts, warnings=warnings)

    def _all_batches(
        self, train: LabelledTexts, valid: LabelledTexts | None, seed: int
    ) -> tuple[EncoderInputs, TextBatches, TextBatches | None]:
        """The sequences of the training texts, and the batches of training and validation."""
        config = self.resolved(len(train))
        inputs = self._to_sequences(train, config.batch_tokens)
        train_batches = self._batches(
            inputs,
            train.label_ids,
            batch_size=config.batch_size,
            batch_tokens=config.batch_tokens,
            shuffle=True,
            seed=seed,
        )
        if valid is None:
            return inputs, train_batches, None
        validation = self._to_sequences(valid, VALIDATION_BATCH_TOKENS)
        valid_batches = self._batches(validation, valid.label_ids, batch_tokens=VALIDATION_BATCH_TOKENS)
        return inputs, train_batches, valid_batches

    def _codec(self, labels: tuple[str, ...]) -> "TextCodec":
        """How the Learner encodes new texts and shows those it has."""
        from textladder.training.data_loaders import TextCodec

        def encode(texts: Sequence[str]) -> tuple[EncodedTexts, np.ndarray | None]:
            inputs = self._to_sequences(texts)
            return inputs.sequences, inputs.sequence_offsets

        pieces = self._pieces()
        return TextCodec(encode, pieces.decode, lambda: pieces.vocabulary, labels)

    def fit(
        self,
        train: LabelledTexts,
        valid: LabelledTexts | None,
        *,
        seed: int,
        monitor: Monitor,
        checkpoint: "FitCheckpoint | None" = None,
    ) -> FitReport:
        """Train on `train`, and choose the weights and how to read long texts on `valid`."""
        report = self.prepare(train, valid, seed=seed, monitor=monitor)
        from textladder.training.stages import run_stages, seeded, suggested_rate

        config = self.config
        options = {"monitor": monitor, "checkpoint": checkpoint, **config.validation_options()}
        with seeded(seed):
            if config.frozen_epochs:
                # this learner and the states that it caches are not needed after its stage
                report.epochs += run_stages(self._head_learner(monitor), [self._head_stage()], **options)
            rate = config.learning_rate
            if config.find_rate:
                rate = suggested_rate(self.learner, self.learning_rates, monitor)
            report.epochs += run_stages(self.learner, self.stages(rate), earlier=report.epochs, **options)
        trained_on = self._long_text
        if config.long_text is None:
            self.config = replace(config, long_text=self._better_reading(valid, monitor))
        if self._long_text != trained_on:
            # what the Learner predicts from now on, and trains on, is read as the level reads it
            from textladder.training.data_loaders import text_data_loaders
            from textladder.training.precision import training_device

            _, train_batches, valid_batches = self._all_batches(train, valid, seed)
            codec = self._codec(train.labels)
            with seeded(seed):  # fastai draws from Python's generator for each loader
                self.learner.dls = text_data_loaders(train_batches, valid_batches, codec, training_device())
        return report

    def _better_reading(self, valid: LabelledTexts | None, monitor: Monitor) -> str:
        """How to read long texts from now on: in windows, if more of the validation rows are right so.

        Windows were better by 2 points on 350 long IMDb reviews, after training on head and tail of 1,350; a margin of
        a standard error would need thousands of validation rows to see that.
        """
        config, modes = self.config, tuple(READINGS)
        if valid is None:
            return modes[0]
        some = replace(valid, rows=valid.rows[:: max(1, len(valid) // VALIDATION_TEXTS)])
        counts = self.token_counts(list(some))
        long = counts > config.max_tokens
        some = replace(some, rows=some.rows[long])
        texts = list(some)
        if not texts:
            return modes[0]
        # an epoch of training computes forwards and, at twice the cost, backwards
        if counts[long].sum() > 3 * len(self.learner.dls.train.batches.texts.ids):
            monitor.say(f"{counted(len(texts), 'long validation text')} would take more time in windows than an epoch.")
            return modes[0]
        right: list[int] = []
        for mode in modes:
            monitor.start(f"reading long validation texts: {mode}", None)
            self.config = replace(config, long_text=mode)
            right.append(int((self.score(texts).probabilities.argmax(axis=1) == some.label_ids).sum()))
        monitor.stop()
        chosen = modes[right[1] > right[0]]
        monitor.say(
            f"Of {counted(len(texts), 'long validation text')}, {right[0]:,} are classified right by head and tail and "
            f"{right[1]:,} in windows; long texts are read {READINGS[chosen]} from now on."
        )
        return chosen

    def stages(self, learning_rate: float) -> list["Stage"]:
        """One cycle over everything, with lower learning rates for lower layers."""
        from textladder.training.stages import Stage

        epochs = self.resolved(self.learner.dls.train.rows).epochs or 0
        warm_up, decay = self.config.warm_up, self.config.layer_decay
        if not epochs:
            return []
        return [Stage("fine-tuning", epochs, learning_rate, warm_up, decay=decay, head_factor=self.config.head_factor)]

    def _head_stage(self) -> "Stage":
        from textladder.training.stages import Stage

        return Stage("head", self.config.frozen_epochs, self.config.frozen_learning_rate, trainable="head")

    def _head_learner(self, monitor: Monitor) -> Any:
        """A Learner of the head on the states of the frozen encoder, computed once and without dropout."""
        import torch

        from textladder.networks.encoder import EncoderHead
        from textladder.training.frozen_states import CachedStateBatches
        from textladder.training.learner import make_learner
        from textladder.training.precision import autocast

        network, loaders = self._ready().network, self.learner.dls
        batches = (loaders.valid if len(loaders.valid) else loaders.train).batches
        sample = torch.from_numpy(
            pad_batch(batches.texts, batches.sequences(np.arange(min(4, batches.rows))), batches.padding)
        )
        first_only = network.head_sees_first_state_only(sample.to(next(network.parameters()).device))
        if first_only is None:
            monitor.say("This encoder's head cannot be run by itself, so the encoder runs again in every frozen epoch.")
            return self.learner

        def compute(ids: torch.Tensor) -> torch.Tensor:
            training = network.training
            network.eval()
            with torch.no_grad(), autocast(network, self.config.precision):
                states = network.states(ids.to(next(network.parameters()).device))
            network.train(training)
            return states

        encoder: Any = network.model.config
        train = CachedStateBatches(loaders.train.batches, compute, encoder.hidden_size, first_only=first_only)
        valid = None
        if len(loaders.valid):
            valid = CachedStateBatches(loaders.valid.batches, compute, encoder.hidden_size, first_only=first_only)
        if not train.cached:
            monitor.say("The frozen encoder's states are too large to cache, so they are recomputed in every epoch.")
        return make_learner(EncoderHead(network), train, valid, **self._learner_options)

    @property
    def _long_text(self) -> str:
        """How long texts are read: by head and tail until the validation rows have decided."""
        return self.config.long_text or "head-tail"

    @property
    def longest_text(self) -> int | None:
        """Tokens beyond which a text is truncated; None with windows, which read all of it."""
        return None if self.config.long_text == "windows" else self.config.max_tokens

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Word pieces of each text, special tokens included, int64 (texts,); needs the tokenizer alone."""
        pieces = self.pieces or self._find_pieces()
        return pieces.encode(texts).lengths + len(pieces.before) + len(pieces.after)

    def unsuitable(self, train: LabelledTexts) -> str | None:
        """A sentence if the encoder's tokenizer does not know the characters of the texts."""
        unknown = (self.pieces or self._find_pieces()).unknown_share(train.sample())
        return self._unknown_sentence(unknown) if unknown >= UNREADABLE_SHARE else None

    def _unknown_sentence(self, share: float) -> str:
        return (
            f"{self.config.encoder} has no word pieces for {share:.0%} of the characters of these texts: "
            "name an encoder for their language or symbols."
        )

    def _find_pieces(self) -> WordPieces:
        """The tokenizer alone; that of a folder is read without the libraries that take seconds to import."""
        file = Path(find_encoder(self.config.encoder), TOKENIZER_FILE)
        if file.is_file():
            return WordPieces.from_file(file)
        for library in ("torch", "transformers"):
            import_extra(library, "train")
        from textladder.encoders import load_pieces

        return load_pieces(self.config.encoder)

    def resolved(self, rows: int) -> TransformerConfig:
        """The config with the number of epochs and the size of a batch resolved."""
        epochs, batch_size = self.config.epochs, self.config.batch_size or batch_size_for(rows, BATCH_SIZES)
        if epochs is None:
            steps = max(MIN_STEPS, STEPS_PER_CLASS * self.classes)
            epochs = min(max(EPOCHS, math.ceil(steps / math.ceil(rows / batch_size))), MOST_EPOCHS)
        return replace(self.config, epochs=epochs, batch_size=batch_size)

    def tokenize(self, text: str) -> list[str]:
        """The encoder's subword tokens."""
        return self._pieces().pieces(text)

    def score(self, texts: Sequence[str]) -> Scored:
        """The class probabilities of texts, truncated to `max_tokens` or read in windows."""
        inputs = self._to_sequences(texts)
        probabilities = predict_probabilities(
            self.exported or NetworkScorer(self._ready().network),
            inputs.sequences,
            self._padding(),
            sequence_offsets=inputs.sequence_offsets,
            batch_padding=MAX_BATCH_PADDING,
        )
        return Scored(probabilities, inputs.truncated)

    def graph(self) -> "ModelProto":
        """The network as ONNX."""
        import_extra("onnx", "export")
        from textladder.networks.onnx_graphs import encoder_graph

        return encoder_graph(self._ready().network)

    def save(self, folder: Path) -> None:
        """Write the files that transformers itself reads."""
        from textladder.encoders import save_encoder

        save_encoder(self._ready(), folder)

    @classmethod
    def load(
        cls, bundle: Bundle, config: TransformerConfig, classes: int, exported: ExportedNetwork | None = None
    ) -> "TransformerLevel":
        """Read a bundle's files and check that their shapes agree with each other and with the labels."""
        level = cls(config, classes)
        level.exported = exported
        if exported is not None:
            pad_id = _pad_id(bundle)
            try:
                level.pieces = WordPieces(read_tokenizer(bundle.read(TOKENIZER_FILE)), pad_id)
            except (ConfigError, ValueError) as error:
                raise BundleError(f"{bundle.folder}: the tokenizer cannot be read ({error}).") from None
            return level
        for library in ("torch", "transformers"):
            import_extra(library, "train")
        from textladder.encoders import read_encoder

        level.encoder = read_encoder(bundle, classes)
        level.pieces = level.encoder.pieces
        return level

    def _ready(self) -> "Encoder":
        assert self.encoder is not None, "The level is not fitted yet."
        return self.encoder

    def _pieces(self) -> WordPieces:
        assert self.pieces is not None, "The level is not fitted yet."
        return self.pieces

    def _to_sequences(self, texts: LabelledTexts | Sequence[str], batch_tokens: int | None = None) -> EncoderInputs:
        """Texts as sequences; a text gets no more windows than a batch of `batch_tokens` holds."""
        config, pieces = self.config, self._pieces()
        most = None if batch_tokens is None else max(1, batch_tokens // config.max_tokens)
        return pieces.to_sequences(pieces.encode(texts), config.max_tokens, self._long_text, most_windows=most)

    def _batches(self, inputs: EncoderInputs, label_ids: np.ndarray, **options: Any) -> TextBatches:
        return TextBatches(
            inputs.sequences,
            label_ids,
            self._padding(),
            sequence_offsets=inputs.sequence_offsets,
            **options,
        )

    def _padding(self) -> Padding:
        multiple = LENGTH_MULTIPLE if self.exported is None else 1
        return Padding(self.config.max_tokens, self.config.fixed_length, multiple)

    def _long_text_sentence(self, inputs: EncoderInputs, texts: int) -> str:
        limit = counted(self.config.max_tokens, "token")
        if self.config.long_text != "windows":
            limit = f"{limit} ({self._long_text} is kept)"
            return truncation_sentence(inputs.truncated, texts, noun="training text", limit=limit)
        return (
            f"Split {inputs.windowed:,} of {counted(texts, 'training text')} into windows of {limit}; "
            f"truncated {inputs.truncated:,} of them in training."
        )


def _pad_id(bundle: Bundle) -> int:
    """The id of the padding token, from the encoder's config."""
    config = bundle.read_json(CONFIG_FILE)
    found = config.get("pad_token_id") if isinstance(config, dict) else None
    if not isinstance(found, int):
        raise BundleError(f"{bundle.folder / CONFIG_FILE}: there is no pad_token_id, which padding needs.")
    return found
