"""Language models from text files, for `ulmfit` to start from: `textladder pretrain`.

    documents -> fastai's tokens -> a vocabulary -> one stream -> an AWD-LSTM that predicts the next word

A language model can be given a second network that reads from right to left (Howard & Ruder 2018, section 3.3,
"Bidirectional language model"). It shares the word vectors, which stay as they are.

An epoch is divided into parts, after each of which the loss on held-out documents is measured. Checkpoints are kept
beside the output, so that a run that was killed resumes with the same numbers as if it had not been.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder.atomic_files import locked, sweep
from textladder.bundle import check_output
from textladder.data.unlabelled import read_documents
from textladder.errors import ConfigError, DataError, import_extra
from textladder.language_models import PretrainedLanguageModel, load_language_model, save_language_model
from textladder.progress import Monitor
from textladder.settings import checked, checked_seed, setting
from textladder.text.fastai_words import SPECIAL_TOKENS, tokenize_words
from textladder.text.vocabulary import Vocabulary
from textladder.versions import versions
from textladder.wording import counted

if TYPE_CHECKING:
    from textladder.training.callbacks import History

# Tokens between two validations. Counted in tokens, not steps: a validation computes the whole softmax,
# and if it followed a fixed number of small batches, it would take longer than training.
PART_TOKENS = 1_800_000


@dataclass(frozen=True)
class PretrainingConfig:
    """The network's sizes and the recipe's hyperparameters."""

    backward_of: str | None = setting(
        None, "add a network that reads from right to left to this language model, and leave the rest as it is"
    )
    dimension: int = setting(256, "size of a word vector", low=1)
    hidden_size: int = setting(512, "size of the state of all LSTMs but the last", low=1)
    layers: int = setting(3, "number of LSTMs", low=1)
    max_vocabulary: int = setting(25_000, "maximum vocabulary size", low=len(SPECIAL_TOKENS) + 1)
    min_freq: int = setting(3, "drop words that occur less often than this", low=1)
    epochs: int = setting(2, "passes over the documents", low=1)
    learning_rate: float = setting(6e-3, "peak learning rate of the one-cycle policy", low=1e-7, high=1)
    warm_up: float = setting(0.1, "share of the steps in which the learning rate rises", low=0.01, high=0.99)
    weight_decay: float = setting(0.01, "decoupled weight decay; biases do not decay", low=0)
    dropout: float = setting(0.1, "dropout of inputs, states, outputs and recurrent weights", low=0, high=0.9)
    word_dropout: float = setting(0.02, "share of the words dropped from a batch", low=0, high=0.9)
    batch_size: int = setting(64, "sequences per batch", low=1)
    sequence_length: int = setting(70, "tokens per sequence (BPTT length)", low=1)
    held_out: float = setting(0.01, "share of the documents held out to measure perplexity on", low=0.0001, high=0.5)
    held_out_file: str | None = setting(None, "measure perplexity on this file's documents instead of held-out ones")
    precision: str = setting(
        "auto", "training precision; auto: bfloat16 if supported", choices=("auto", "float32", "bfloat16")
    )


def pretrain(
    corpora: Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    fresh: bool = False,
    monitor: Monitor | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a language model and write its folder, completely or not at all.

    A run with the same documents, settings and seed that was interrupted is resumed.

    Args:
        corpora: text files, one document per line, optionally gzipped.
        out: the folder to write; `OUT.partial` beside it holds the checkpoint.
        seed: random seed.
        overwrite: replace an existing language model.
        fresh: start over instead of resuming.
        monitor: receives progress.
        settings: the settings of `PretrainingConfig`, by name.

    Returns:
        The `metrics` of the folder's manifest.

    Raises:
        ConfigError: an invalid setting or seed, `OUT.partial` belongs to another run, or another process writes `out`.
        DataError: a file that cannot be read, or too few words.
        BundleError: `out` exists, or `OUT.partial` is damaged.
    """
    config, seed = checked(PretrainingConfig, settings, "pretrain setting"), checked_seed(seed)
    monitor = monitor or Monitor()
    partial = _partial(Path(out))
    sweep(partial)
    if partial.exists() and not overwrite:
        from textladder.training.checkpoints import tidy_checkpoints

        tidy_checkpoints(partial, Path(out))
    out = check_output(out, overwrite)
    for library in ("torch", "spacy", "fastai.basics", "fastai.callback.schedule", "fastai.callback.training"):
        import_extra(library, "train")
    try:
        base = None if config.backward_of is None else load_language_model(config.backward_of)
        texts = _Documents(corpora, config, base, seed, monitor)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with locked(out, "language model"):
            return _Run(texts, config, base, seed, out, overwrite, fresh, monitor).finish()
    finally:
        monitor.stop()


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


class _Documents:
    """Documents as ids, some of them held out; from right to left if that direction is added to a `base`."""

    def __init__(
        self,
        corpora: Sequence[str | Path],
        config: PretrainingConfig,
        base: PretrainedLanguageModel | None,
        seed: int,
        monitor: Monitor,
    ) -> None:
        monitor.start("tokenizing", None)
        self.corpora: list[dict[str, Any]] = []
        self._written: list[int] = []  # whitespace-separated words of each document, plus one for its end
        tokenized = tokenize_words(self._read(corpora))
        if config.held_out_file is None:
            order = np.random.default_rng(seed).permutation(len(tokenized))
            number = max(1, round(config.held_out * len(order)))
            if number == len(order):
                raise DataError("A language model needs at least two documents: one to train on, one to hold out.")
            train, held_out = tokenized.take(np.sort(order[number:])), tokenized.take(np.sort(order[:number]))
            written = np.array(self._written)[order[:number]]
        else:
            train, held_out = tokenized, tokenize_words(self._read([config.held_out_file]))
            written = np.array(self._written)[len(tokenized) :]
        self.held_out_written = int(written.sum())
        if base is None:
            self.vocabulary = Vocabulary.from_tokenized(
                train, min_freq=config.min_freq, max_size=config.max_vocabulary, special_tokens=SPECIAL_TOKENS
            )
        else:
            self.vocabulary = Vocabulary(base.words[: config.max_vocabulary], special_tokens=SPECIAL_TOKENS[:2])
        self.train = self.vocabulary.encode_tokenized(train)
        self.held_out = self.vocabulary.encode_tokenized(held_out)
        if base is not None:
            self.train, self.held_out = self.train.backwards(), self.held_out.backwards()
        self.digest = hashlib.sha256(self.train.ids.tobytes() + self.held_out.ids.tobytes()).hexdigest()
        monitor.stop()
        known = 1 - float((self.held_out.ids == 0).mean())
        monitor.say(
            f"{len(train):,} documents with {len(train.ids):,} tokens to train on, {len(held_out):,} held out. "
            f"The vocabulary has {len(self.vocabulary):,} words, which cover {known:.1%} of the held-out text."
        )

    def _read(self, corpora: Sequence[str | Path]) -> Iterator[str]:
        for path in corpora:
            documents, characters, digest = 0, 0, hashlib.sha256()
            for text in read_documents(path):
                documents, characters = documents + 1, characters + len(text)
                digest.update(text.encode())
                self._written.append(len(text.split()) + 1)
                yield text
            about = {"documents": documents, "characters": characters, "sha256": digest.hexdigest()}
            self.corpora.append({"name": Path(path).name, **about})

    @property
    def counts(self) -> np.ndarray:
        """How often each word of the vocabulary occurs in an epoch."""
        return np.bincount(self.train.ids, minlength=len(self.vocabulary))


class _Run:
    """A run that can be interrupted after any part and resumed."""

    def __init__(
        self,
        texts: _Documents,
        config: PretrainingConfig,
        base: PretrainedLanguageModel | None,
        seed: int,
        out: Path,
        overwrite: bool,
        fresh: bool,
        monitor: Monitor,
    ) -> None:
        import torch

        from textladder.networks.awd_lstm import AWDLSTM, LanguageModel
        from textladder.training.learner import make_language_learner
        from textladder.training.stages import seeded
        from textladder.training.word_streams import WordStream

        self.texts, self.config, self.seed, self.out = texts, config, seed, out
        self.overwrite, self.fresh = overwrite, fresh
        self.monitor, self.partial = monitor, _partial(out)
        self.stream = WordStream(
            texts.train, batch_size=config.batch_size, time=config.sequence_length, shuffle=True, seed=seed
        )
        self.stream.parts = max(1, round(len(texts.train.ids) / PART_TOKENS))
        share = config.dropout
        sizes = {"dimension": config.dimension, "hidden_size": config.hidden_size, "layers": config.layers}
        if base is not None:
            sizes = {**base.sizes, "backward_size": config.hidden_size}
        with seeded(seed):
            encoder = AWDLSTM(len(texts.vocabulary), **sizes)
            encoder.set_dropout(embedding=config.word_dropout, input=share, hidden=share, weight=share)
            self.model: LanguageModel = LanguageModel(encoder, output_dropout=share, backward=base is not None)
        if base is None:
            self.model.start_from(torch.from_numpy(texts.counts))
        else:
            weights, _ = base.forward_only().weights_for(texts.vocabulary.tokens)
            tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
            self.model.load_state_dict(tensors, strict=False)
        self.learner = make_language_learner(
            self.model,
            self.stream,
            WordStream(texts.held_out, batch_size=config.batch_size, time=config.sequence_length),
            counts=texts.counts,
            weight_decay=config.weight_decay,
            precision=config.precision,
            gradient_clip=1.0,
        )
        self.learner.create_opt()
        if base is not None:
            self.learner.freeze_to(1)  # the word vectors and the softmax's bias
        self.about = [dataclasses.asdict(config), seed, texts.digest, versions()]

    def finish(self) -> dict[str, Any]:
        """Train the remaining parts, write the folder, remove the checkpoint."""
        from textladder.training.callbacks import History
        from textladder.training.checkpoints import FitCheckpoint, KeepCheckpoint
        from textladder.training.stages import seeded

        history = History(
            keep_best=True, patience=0, validations=1, monitor=self.monitor, parts_per_epoch=self.stream.parts
        )
        history.begin_stage("language model")
        checkpoint = FitCheckpoint(self.partial, self.about, fresh=self.fresh)
        part = checkpoint.next_part()
        keep = KeepCheckpoint(part, history, 0, last=True)
        parts = self.config.epochs * self.stream.parts  # each of them an epoch to fastai
        if part.state is not None:
            part.restore_weights(self.learner, history)
            self.monitor.say(f"Resuming after {keep.first_epoch} of {counted(parts, 'part')}.")
        with seeded(self.seed), self.learner.no_logging(), self.learner.no_bar():
            self.learner.fit_one_cycle(
                parts,
                lr_max=self.config.learning_rate,
                pct_start=self.config.warm_up,
                moms=(0.8, 0.7, 0.8),
                start_epoch=keep.first_epoch,
                cbs=[history, keep],
            )
        if history.error is not None:
            raise history.error
        if history.best_weights is None:
            raise ConfigError("The loss on the held-out documents was never finite: lower learning_rate.")
        metrics = self._metrics(history, checkpoint.elapsed)
        self._write(history.best_weights, metrics)
        checkpoint.remove()
        return metrics

    def _metrics(self, history: "History", seconds: float) -> dict[str, Any]:
        loss, held_out = -history.best[1], len(self.texts.held_out.ids)
        return {
            "perplexity": math.exp(loss),
            # as published for other language models, whose tokens are whitespace-separated words and line ends
            "perplexity_per_written_word": math.exp(loss * held_out / self.texts.held_out_written),
            "tokens_per_epoch": len(self.texts.train.ids),
            "held_out_tokens": held_out,
            "parameters": sum(one.numel() for one in self.model.parameters()),
            "seconds": seconds,
            "epochs": history.entries,
        }

    def _write(self, weights: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        about = {
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "metrics": metrics,
            "versions": versions(),
            "corpora": self.texts.corpora,
        }
        arrays = {name: value.cpu().numpy() for name, value in weights.items()}
        model = PretrainedLanguageModel(self.texts.vocabulary.tokens, arrays, about)
        save_language_model(self.out, model, overwrite=self.overwrite)
