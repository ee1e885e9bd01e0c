"""`lstm`: from the ground up, as a recipe.

    texts -> tokens -> vocabulary -> GloVe vectors -> batches of similar length
          -> bidirectional LSTM -> mean, maximum and attention over its states -> one linear layer

Every step is a public piece that can be used on its own; this file holds their order and their hyperparameters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from textladder.batching import Padding, TextBatches
from textladder.bundle import Bundle
from textladder.data.labelled_texts import LabelledTexts
from textladder.errors import BundleError, ConfigError, import_extra
from textladder.levels.base import FitReport, Preset, Scored, TrainingConfig, batch_size_for
from textladder.onnx_scorer import ExportedNetwork
from textladder.progress import Monitor, say_truncated
from textladder.scoring import NetworkScorer, predict_probabilities
from textladder.settings import setting
from textladder.text.tokenizer import TOKENIZERS, tokenize
from textladder.text.vectors import WordVectors, load_vectors
from textladder.text.vocabulary import Vocabulary, read_vocabulary, write_vocabulary
from textladder.wording import counted

if TYPE_CHECKING:
    from onnx import ModelProto

    from textladder.networks.lstm import LSTMClassifier
    from textladder.training.checkpoints import FitCheckpoint
    from textladder.training.stages import Stage

EPOCHS, MOST_EPOCHS, LEAST_STEPS = 3, 20, 100
# On a thousand Amazon rows, 64 steps reached an accuracy of 0.80 on validation rows, 200 steps 0.85; on banking77, with
# 77 classes, 375 steps reached 0.863, 1,000 steps 0.892 and 2,000 steps 0.900.
MIN_STEPS, STEPS_PER_CLASS = 250, 25
# With few rows, batches are smaller: with 8 texts instead of 16, 90 rows of AG News reached 0.830 instead of 0.814, of
# Amazon 0.738 and 0.703, 231 rows of banking77 0.483 and 0.457; 270 rows of AG News 0.845 and 0.845, of Amazon 0.797
# and 0.807 (means of three seeds). With 900 rows, batches of 32 are as good as of 16 in half the time. More epochs
# than these were no better: with 90 and 270 rows of AG News 16 epochs reached 0.668 and 0.784, 42 and 25 epochs 0.631
# and 0.774; with 539 rows of banking77 0.617 and 0.622.
BATCH_SIZES = (8, 16, 32, 64)
# The tokens are `words` where fewer of those of `basic_english` have a vector than the first share, as in Chinese, or
# where more of the words have one by at least the second: in tweets 89% instead of 81%, which gained 2.8 points. Where
# fewer of the tokens than the first share have a vector, the words of the vectors are of another language.
KNOWN_SHARE, MORE_KNOWN = 0.7, 0.02

POOLINGS = ("mean", "max", "attention", "last")  # those of networks/lstm.py, which needs torch
MODEL_FILE, VOCABULARY_FILE = "model.safetensors", "vocabulary.json"


@dataclass(frozen=True)
class LSTMConfig(TrainingConfig):
    """The recipe's hyperparameters, with the reason for each.

    The differences are in points of accuracy on Amazon validation rows, with one choice changed at a time: means over 4
    random splits of 1,000 rows or, where it says "blocked", over 5 blocks of 1,000 neighbouring rows, whose products
    are rarer in the training rows. Their standard error is about half a point, so a smaller gain is only a hint.
    """

    vectors: str | None = setting(
        None, "file in GloVe's text format, or a name (default: the best GloVe vectors available)", shared=True
    )
    freeze_vectors: bool = setting(False, "keep the word vectors as they are instead of training them")
    tokenizer: str | None = setting(
        None,
        "how texts are split into tokens (default: basic_english, or words where more of those have vectors)",
        choices=tuple(TOKENIZERS),
    )
    # 1 leaves nothing to learn <unk> from (1.0 lower); 5 drops words that have good vectors (0.2 lower)
    min_freq: int = setting(2, "drop tokens that occur less often than this", low=1)
    # 20,000 long reviews have 47,000 tokens that occur twice; millions have millions, each with a vector to train
    max_vocabulary: int = setting(100_000, "keep at most this many tokens, the most frequent", low=3)
    # a text to classify has words that the training texts lack: with 100 rows of AG News, 16 points higher
    min_vocabulary: int = setting(
        20_000, "fill the vocabulary up to this size with the first words of the vectors, the most frequent ones", low=0
    )
    # about the spread of GloVe's own values (0.5 in 100d, 0.7 in 50d); a standard normal is wider (0.4 lower)
    missing_vector_std: float = setting(0.4, "standard deviation of random vectors for words without one", low=1e-6)
    # truncates none of the Amazon reviews, and bounds the cost of one very long text
    max_tokens: int = setting(400, "truncate texts to this many tokens", low=1, high=20_000)
    fixed_length: bool = setting(False, "pad every text to max_tokens instead of to the longest of its batch")
    cell: str = setting("lstm", "recurrent cell", choices=("lstm", "gru"))
    # 64: 0.4 lower (blocked); 256: no higher, and twice as slow
    hidden_size: int = setting(128, "size of the state in each direction", low=1)
    # a second layer gained as much as a wider first one and cost more
    layers: int = setting(1, "recurrent layers in each direction", low=1)
    bidirectional: bool = setting(True, "also read every text from its end")
    # attention finds the few words that decide: 0.8 higher than with mean and maximum alone
    pooling: tuple[str, ...] = setting(
        ("mean", "max", "attention"), "how states become one vector", choices=POOLINGS, functions=True
    )
    # no gain on top of attention
    pool_embeddings: bool = setting(False, "also pool the word vectors themselves")
    head_size: int = setting(0, "units of a hidden layer in the head; 0 for none", low=0)
    # more of either (0.4 and 0.5) is 0.4 lower after so few epochs
    embedding_dropout: float = setting(0.2, "dropout of the word vectors", low=0, high=0.9)
    dropout: float = setting(0.3, "dropout before the head and between layers", low=0, high=0.9)
    epochs: int | None = setting(
        None, "passes over the training rows (default: 3, more with few rows or many classes)", low=1
    )
    # 1.5e-3 is 1.7 lower than 3e-3, which is 0.6 lower than 6e-3: word vectors have far to go in three epochs
    learning_rate: float = setting(5e-3, "peak learning rate of the one-cycle policy", low=1e-7, high=10)
    # an early peak makes the first validation a good one; 0.15 and 0.25 end no higher
    warm_up: float = setting(0.07, "share of the steps in which the learning rate rises", low=0.01, high=0.99)
    batch_size: int | None = setting(None, "texts per batch (default: 64, down to 8 with few rows)", low=1)
    # half of the rows in a third of the time: 0.86 on validation rows after 3 seconds of training instead of 5
    shortest_first: bool = setting(True, "go from short texts to long ones in the first epoch")
    # 0.4 higher, and less confident where it is wrong
    label_smoothing: float = setting(0.1, "share of the target that is spread over all classes", low=0, high=0.5)
    # 0.4 higher (blocked), as much as an ensemble of three gains; in the first epoch it would only cost time
    adversarial_norm: float = setting(1.0, "norm of adversarial perturbations of word vectors; 0 for none", low=0)
    adversarial_from_epoch: int = setting(1, "epoch in which perturbations begin, counted from 0", low=0)


TUTORIAL = Preset(
    "the 2021 tutorial as published: the text column alone, no validation rows",
    settings={
        "tokenizer": "basic_english",
        "min_freq": 20,
        "min_vocabulary": 0,
        "missing_vector_std": 1.0,
        "max_tokens": 128,
        "hidden_size": 64,
        "fixed_length": True,
        "layers": 2,
        "bidirectional": False,
        "pooling": ("last",),
        "head_size": 64,
        "embedding_dropout": 0.0,
        "dropout": 0.0,
        # `Learner(dls, model, loss_func=CrossEntropyLoss())` and `fit_one_cycle(5, 3e-3)`: fastai's Adam
        "optimizer": "adam",
        "weight_decay": 0.01,
        "epochs": 5,
        "learning_rate": 3e-3,
        "warm_up": 0.25,
        "batch_size": 32,
        "shortest_first": False,
        "label_smoothing": 0.0,
        "adversarial_norm": 0.0,
        "precision": "float32",
    },
    read={"text": "longest", "valid": 0.0},
)


class LSTMLevel:
    """The level `lstm`."""

    name: ClassVar[str] = "lstm"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "fastai.basics", "fastai.callback.schedule")
    summary: ClassVar[str] = "an LSTM over GloVe vectors, from the ground up in PyTorch"
    config_type: ClassVar[type] = LSTMConfig
    network_files: ClassVar[tuple[str, ...]] = (MODEL_FILE,)
    network_inputs: ClassVar[tuple[str, ...]] = ("ids",)
    batch_cores: ClassVar[int | None] = 1  # its steps are so small that a second core gains nothing
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset("the recipe chosen on validation rows of Amazon reviews and four other sets"),
        "tutorial": TUTORIAL,
    }
    # Below this range an LSTM hardly moves in a few epochs; above, its gates saturate in the first hundred steps.
    learning_rates: ClassVar[tuple[float, float]] = (5e-4, 1e-2)

    def __init__(self, config: LSTMConfig, classes: int) -> None:
        self.config, self.classes = config, classes
        self.learner: Any = None
        self.vocabulary = Vocabulary(["<unk>", "<pad>"], split=self._split)
        self.network: LSTMClassifier | None = None
        self.exported: ExportedNetwork | None = None

    def prepare(self, train: LabelledTexts, valid: LabelledTexts | None, *, seed: int, monitor: Monitor) -> FitReport:
        """Texts to batches, vectors to a network, and both to a Learner."""
        from textladder.training.data_loaders import TextCodec
        from textladder.training.learner import Adversarial, class_weights, make_learner
        from textladder.training.stages import seeded

        monitor.start("building the vocabulary", None)
        vectors = load_vectors(self.config.vectors)
        share = self._choose_tokenizer(train, vectors)
        config = self.resolved(len(train))
        tokens = tokenize(train, self._split)
        own = Vocabulary.from_tokenized(
            tokens, min_freq=config.min_freq, max_size=config.max_vocabulary, split=self._split
        )
        size = min(config.min_vocabulary, config.max_vocabulary)
        self.vocabulary = own.filled(vectors.first_words(size) if share >= KNOWN_SHARE else [], size)
        train_texts = self.vocabulary.encode_tokenized(tokens)
        del tokens
        matrix, found = vectors.lookup(self.vocabulary.tokens, seed=seed, spread=config.missing_vector_std)
        monitor.stop()
        monitor.say(f"Tokens: {config.tokenizer}; {share:.1%} of them have a vector.")
        added = len(self.vocabulary) - len(own)
        monitor.say(
            f"Vectors: {vectors.name} ({vectors.dimension}d), {found - added:,} of {len(own):,} tokens found; "
            f"{added:,} further words are known by their vectors."
        )
        truncated = int((train_texts.lengths > config.max_tokens).sum())
        say_truncated(truncated, len(train), monitor, noun="training text", limit=counted(config.max_tokens, "token"))

        train_batches = TextBatches(
            train_texts,
            train.label_ids,
            self._padding(),
            batch_size=config.batch_size or BATCH_SIZES[-1],
            shuffle=True,
            seed=seed,
        )
        valid_batches = None
        if valid is not None:
            valid_texts = self.vocabulary.encode_texts(valid)
            valid_batches = TextBatches(valid_texts, valid.label_ids, self._padding(), batch_size=256)
        with seeded(seed):
            self.network = self._make_network(len(matrix), matrix.shape[1], matrix)
        adversarial = None
        if config.adversarial_norm and not config.freeze_vectors:
            adversarial = Adversarial(self.network.embedding, config.adversarial_norm, config.adversarial_from_epoch)
        self.learner = make_learner(
            self.network,
            train_batches,
            valid_batches,
            codec=TextCodec(
                encode=lambda texts: (self.vocabulary.encode_texts(texts), None),
                decode=self.vocabulary.decode,
                tokens=lambda: self.vocabulary.tokens,
                labels=train.labels,
            ),
            class_weights=class_weights(config.class_weights, train.label_ids, self.classes),
            label_smoothing=config.label_smoothing,
            adversarial=adversarial,
            **config.learner_options(train),
        )
        facts = {
            "tokenizer": config.tokenizer,
            "unique_tokens": len(self.vocabulary.counts),
            "vocabulary": len(self.vocabulary),
            "vectors": vectors.name,
            "vectors_found": found,
            "tokens_with_vectors": share,
            "texts_truncated": truncated,
        }
        return FitReport(sum(parameter.numel() for parameter in self.network.parameters()), facts=facts)

    def _choose_tokenizer(self, train: LabelledTexts, vectors: WordVectors) -> float:
        """Decide on the tokenizer that suits the texts, unless one is configured; the share of tokens with a vector."""
        sample = train.sample()
        candidates = [self.config.tokenizer] if self.config.tokenizer else ["basic_english", "words"]
        shares = {}
        for name in candidates:
            found = tokenize(sample, TOKENIZERS[name])
            counts = np.bincount(found.ids, minlength=len(found.tokens))
            shares[name] = float(counts @ vectors.known(found.tokens) / max(1, counts.sum()))
        chosen, *others = candidates
        if others and (shares[chosen] < KNOWN_SHARE or shares[others[0]] >= shares[chosen] + MORE_KNOWN):
            chosen = others[0]
        self.config = replace(self.config, tokenizer=chosen)
        return shares[chosen]

    def fit(
        self,
        train: LabelledTexts,
        valid: LabelledTexts | None,
        *,
        seed: int,
        monitor: Monitor,
        checkpoint: "FitCheckpoint | None" = None,
    ) -> FitReport:
        """Train on `train`, and choose the weights on `valid`."""
        report = self.prepare(train, valid, seed=seed, monitor=monitor)
        from textladder.training.stages import run_stages, seeded, suggested_rate

        config = self.config
        with seeded(seed):
            rate = config.learning_rate
            if config.find_rate:
                rate = suggested_rate(self.learner, self.learning_rates, monitor)
            options = {"monitor": monitor, "checkpoint": checkpoint, **config.validation_options()}
            report.epochs = run_stages(self.learner, self.stages(rate), **options)
        return report

    def stages(self, learning_rate: float) -> list["Stage"]:
        """One cycle over everything; the word vectors are trained with the rest, unless they are frozen."""
        from textladder.training.stages import Stage

        config = self.config
        epochs = self.resolved(self.learner.dls.train.rows).epochs or EPOCHS
        trainable = len(self._ready().parameter_groups()) - 1 if config.freeze_vectors else "all"
        return [Stage("lstm", epochs, learning_rate, config.warm_up, config.shortest_first, trainable)]

    def unsuitable(self, train: LabelledTexts) -> None:
        """None: the level learns a vector for words that have none."""

    def resolved(self, rows: int) -> LSTMConfig:
        """The config with the number of epochs and the size of a batch resolved."""
        largest = BATCH_SIZES[-1]
        batch_size = self.config.batch_size or batch_size_for(rows, BATCH_SIZES)
        steps_per_epoch = math.ceil(rows / batch_size)
        # steps of fewer rows are worth less
        steps = max(MIN_STEPS, STEPS_PER_CLASS * self.classes) * max(1, largest / batch_size) ** 0.5
        most = max(MOST_EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch))
        epochs = min(max(EPOCHS, math.ceil(steps / steps_per_epoch)), most)
        return replace(self.config, epochs=self.config.epochs or epochs, batch_size=batch_size)

    @property
    def longest_text(self) -> int:
        """Tokens that are read of a text."""
        return self.config.max_tokens

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """Number of tokens of each text, int64 (texts,)."""
        return np.diff(tokenize(texts, self._split).offsets)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return self._split(text)

    def score(self, texts: Sequence[str]) -> Scored:
        """The class probabilities of texts, truncated to `max_tokens`."""
        encoded = self.vocabulary.encode_texts(texts)
        scorer = self.exported or NetworkScorer(self._ready(), self.batch_cores)
        probabilities = predict_probabilities(scorer, encoded, self._padding())
        return Scored(probabilities, int((encoded.lengths > self.config.max_tokens).sum()))

    def graph(self) -> "ModelProto":
        """The network as ONNX."""
        import_extra("onnx", "export")
        from textladder.networks.onnx_graphs import lstm_graph

        return lstm_graph(self._ready(), self.classes)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and the tokens in the order of their ids."""
        from safetensors.numpy import save_file

        if own := [one for one in self.config.pooling if one not in POOLINGS]:
            raise ConfigError(
                f"A bundle cannot hold code, and this classifier pools with {own[0]!r}: keep the code, and save the "
                "weights with torch.save(classifier.learner.model.state_dict(), path)."
            )
        weights = {name: value.detach().cpu().numpy() for name, value in self._ready().state_dict().items()}
        save_file(weights, folder / MODEL_FILE)
        write_vocabulary(folder / VOCABULARY_FILE, self.vocabulary)

    @classmethod
    def load(
        cls, bundle: Bundle, config: LSTMConfig, classes: int, exported: ExportedNetwork | None = None
    ) -> "LSTMLevel":
        """Read a bundle's files and check that their shapes agree with each other and with the labels."""
        level = cls(config, classes)
        level.exported = exported
        level.vocabulary = read_vocabulary(bundle, VOCABULARY_FILE, split=level._split)
        if exported is not None:
            return level
        import_extra("torch", "train")
        from textladder.networks.weights import with_weights

        weights = bundle.read_tensors(MODEL_FILE)
        embedding = weights.get("embedding.weight")
        if embedding is None or embedding.ndim != 2 or len(embedding) != len(level.vocabulary):
            raise BundleError(
                f"{bundle.folder}: the word vectors do not fit the {len(level.vocabulary)} tokens of the vocabulary."
            )
        try:
            if config.layers > len(weights):
                raise ValueError(f"{config.layers:,} layers")
            level.network = with_weights(lambda: level._make_network(*embedding.shape), weights)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            reason = (str(error).splitlines() or [""])[-1].strip()
            raise BundleError(
                f"{bundle.folder}: the weights do not fit the config and {classes} labels ({reason})."
            ) from None
        return level

    @property
    def _split(self) -> Callable[[str], list[str]]:
        return TOKENIZERS[self.config.tokenizer or "basic_english"]

    def _ready(self) -> "LSTMClassifier":
        assert self.network is not None, "The level is not fitted yet."
        return self.network

    def _padding(self) -> Padding:
        return Padding(self.config.max_tokens, self.config.fixed_length)

    def _make_network(self, words: int, dimension: int, matrix: np.ndarray | None = None) -> "LSTMClassifier":
        import torch

        from textladder.networks.lstm import LSTMClassifier

        config = self.config
        network = LSTMClassifier(
            words,
            dimension,
            self.classes,
            cell=config.cell,
            hidden_size=config.hidden_size,
            layers=config.layers,
            bidirectional=config.bidirectional,
            pooling=config.pooling,
            pool_embeddings=config.pool_embeddings,
            head_size=config.head_size,
            embedding_dropout=config.embedding_dropout,
            dropout=config.dropout,
        )
        if matrix is not None:
            with torch.no_grad():
                network.embedding.weight.copy_(torch.from_numpy(matrix))
        return network
