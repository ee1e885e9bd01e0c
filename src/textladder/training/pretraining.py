"""Trains a language model from text files, as `ulmfit` begins from: `textladder pretrain`.

    documents -> fastai's words -> a vocabulary -> one stream -> an AWD-LSTM that foretells the next word

A language model can be given a second network that reads from right to left (Howard & Ruder 2018, section 3.3,
"Bidirectional language model"). It shares the word vectors, which it leaves as they are.

A pass is cut into parts. After each one everything is written down beside the output, so that a run that was killed
goes on where it was, with the same numbers as if nothing had happened.
"""

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder.bundle import CHECKPOINT, Bundle, check_output, read_bundle, write_bundle
from textladder.data.unlabelled import read_documents
from textladder.errors import BundleError, ConfigError, DataError, import_extra
from textladder.language_models import PretrainedLanguageModel, load_language_model, save_language_model
from textladder.progress import Monitor
from textladder.settings import checked, setting
from textladder.text.fastai_words import SPECIAL_TOKENS, tokenize_words
from textladder.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from textladder.training.callbacks import History

# Between two looks and checkpoints. Not counted in steps: a look computes the whole softmax, and with small batches,
# whose steps are many, looking took longer than training.
PART_WORDS = 1_800_000
STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class PretrainingConfig:
    """The network's sizes and the recipe's numbers."""

    backward_of: str | None = setting(
        None, "give this language model a second network, which reads from right to left; the rest stays as it is"
    )
    dimension: int = setting(256, "numbers of a word vector", low=1)
    hidden_size: int = setting(512, "state of the LSTMs below the last", low=1)
    layers: int = setting(3, "how many LSTMs", low=1)
    vocabulary: int = setting(25_000, "know so many words at most", low=len(SPECIAL_TOKENS) + 1)
    min_freq: int = setting(3, "leave out words that occur less often than this", low=1)
    passes: int = setting(2, "passes over the documents", low=1)
    learning_rate: float = setting(6e-3, "peak of the one-cycle policy", low=1e-7, high=1)
    warm_up: float = setting(0.1, "share of the steps in which the rate rises", low=0.01, high=0.99)
    weight_decay: float = setting(0.01, "of everything but biases", low=0)
    dropout: float = setting(0.1, "share left out of inputs, states, outputs and recurrent weights", low=0, high=0.9)
    word_dropout: float = setting(0.02, "share of the words left out of a batch", low=0, high=0.9)
    batch_size: int = setting(64, "rows read side by side", low=1)
    time: int = setting(70, "words of a row in a step", low=1)
    held_out: float = setting(0.01, "share of the documents kept to measure perplexity on", low=0.0001, high=0.5)
    held_out_file: str | None = setting(None, "measure perplexity on this file's documents instead, and keep none back")
    precision: str = setting(
        "auto", "compute in bfloat16 where the machine has it", choices=("auto", "float32", "bfloat16")
    )


def pretrain(
    corpora: Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    monitor: Monitor | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a language model and write its folder, whole or not at all.

    Where an earlier run with the same documents, settings and seed was cut off, it goes on from there.

    Args:
        corpora: text files, one document a line, `.gz` too.
        out: the folder to make; `OUT.partial` beside it holds what is not done yet.
        seed: of every draw.
        overwrite: replace a language model that is there, and begin anew whatever was cut off.
        monitor: is told how far it is.
        settings: of `PretrainingConfig`.

    Returns:
        What the folder's manifest says under `metrics`.

    Raises:
        ConfigError: a setting that does not fit.
        DataError: a file that is none, or too few words.
        BundleError: the place is taken, or `OUT.partial` is another run's or damaged.
    """
    config = checked(PretrainingConfig, settings, "pretrain setting")
    monitor = monitor or Monitor()
    out = check_output(out, overwrite)
    for library in ("torch", "spacy", "fastai.basics", "fastai.callback.schedule", "fastai.callback.training"):
        import_extra(library, "train")
    try:
        base = None if config.backward_of is None else load_language_model(config.backward_of)
        texts = _Documents(corpora, config, base, seed, monitor)
        return _Run(texts, config, base, seed, out, overwrite, monitor).finish()
    finally:
        monitor.stop()


class _Documents:
    """Documents as numbers, some of them held out; from right to left where there is a `base` to add that to."""

    def __init__(
        self,
        corpora: Sequence[str | Path],
        config: PretrainingConfig,
        base: PretrainedLanguageModel | None,
        seed: int,
        monitor: Monitor,
    ) -> None:
        monitor.start("splitting into words", None)
        self.corpora: list[dict[str, Any]] = []
        self._written: list[int] = []  # of each document, its words between blanks and its end
        tokenized = tokenize_words(self._read(corpora))
        if config.held_out_file is None:
            order = np.random.default_rng(seed).permutation(len(tokenized))
            number = max(1, round(config.held_out * len(order)))
            if number == len(order):
                raise DataError("A language model needs two documents at least: one to learn from, one to hold out.")
            train, held_out = tokenized.take(np.sort(order[number:])), tokenized.take(np.sort(order[:number]))
            written = np.array(self._written)[order[:number]]
        else:
            train, held_out = tokenized, tokenize_words(self._read([config.held_out_file]))
            written = np.array(self._written)[len(tokenized) :]
        self.held_out_written = int(written.sum())
        if base is None:
            self.vocabulary = Vocabulary.from_tokenized(
                train, min_freq=config.min_freq, most=config.vocabulary, special_tokens=SPECIAL_TOKENS
            )
        else:
            self.vocabulary = Vocabulary(base.words[: config.vocabulary], special_tokens=SPECIAL_TOKENS[:2])
        self.train = self.vocabulary.encode_tokenized(train)
        self.held_out = self.vocabulary.encode_tokenized(held_out)
        if base is not None:
            self.train, self.held_out = self.train.backwards(), self.held_out.backwards()
        self.digest = hashlib.sha256(self.train.ids.tobytes() + self.held_out.ids.tobytes()).hexdigest()
        monitor.stop()
        known = 1 - float((self.held_out.ids == 0).mean())
        monitor.say(
            f"{len(train):,} documents with {len(train.ids):,} words to learn from, {len(held_out):,} held out. "
            f"{len(self.vocabulary):,} words are known, which is {known:.1%} of what is read."
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
        """How often each word of the vocabulary is read in a pass."""
        return np.bincount(self.train.ids, minlength=len(self.vocabulary))


class _Run:
    """A run that can be cut off after any part."""

    def __init__(
        self,
        texts: _Documents,
        config: PretrainingConfig,
        base: PretrainedLanguageModel | None,
        seed: int,
        out: Path,
        overwrite: bool,
        monitor: Monitor,
    ) -> None:
        import torch

        from textladder.networks.awd_lstm import AWDLSTM, LanguageModel
        from textladder.training.learner import make_language_learner
        from textladder.training.stages import seeded
        from textladder.training.word_streams import WordStream

        self.texts, self.config, self.seed, self.out, self.overwrite = texts, config, seed, out, overwrite
        self.monitor, self.partial = monitor, out.with_name(f"{out.name}.partial")
        self.stream = WordStream(texts.train, batch_size=config.batch_size, time=config.time, shuffle=True, seed=seed)
        self.stream.parts = max(1, round(len(texts.train.ids) / PART_WORDS))
        share = config.dropout
        sizes = {"dimension": config.dimension, "hidden_size": config.hidden_size, "layers": config.layers}
        if base is not None:
            sizes = {**base.sizes, "backward_size": config.hidden_size}
        with seeded(seed):
            encoder = AWDLSTM(len(texts.vocabulary), **sizes)
            encoder.set_dropout(embedding=config.word_dropout, input=share, hidden=share, weight=share)
            self.model: LanguageModel = LanguageModel(encoder, output_dropout=share, backward=base is not None)
        if base is None:
            # begin with what the words' frequencies tell, which would take hundreds of steps to learn
            counts = texts.counts + 1
            with torch.no_grad():
                self.model.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
        else:
            weights, _ = base.forward_only().weights_for(texts.vocabulary.tokens)
            tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
            self.model.load_state_dict(tensors, strict=False)
        self.learner = make_language_learner(
            self.model,
            self.stream,
            WordStream(texts.held_out, batch_size=config.batch_size, time=config.time),
            counts=texts.counts,
            weight_decay=config.weight_decay,
            precision=config.precision,
            clip=1.0,
        )
        self.learner.create_opt()
        if base is not None:
            self.learner.freeze_to(1)  # the word vectors and the softmax's bias
        self.name = hashlib.sha256(
            json.dumps([dataclasses.asdict(config), seed, texts.digest], sort_keys=True).encode()
        ).hexdigest()

    def finish(self) -> dict[str, Any]:
        """Train what is left, write the folder, take the checkpoint away."""
        from textladder.training.callbacks import History, Resumable
        from textladder.training.stages import seeded

        history = History(keep_best=True, patience=0, looks=1, monitor=self.monitor)
        history.stage, self.spent = "language model", 0.0
        done = self._go_on(history)
        begun = time.perf_counter() - self.spent
        parts = self.config.passes * self.stream.parts

        def keep(done: int) -> None:
            self._keep(done, history, time.perf_counter() - begun)

        if done < parts:
            history.skipped = done
            callbacks = [history, Resumable(self.seed, keep, done)]
            with seeded(self.seed), self.learner.no_logging(), self.learner.no_bar():
                self.learner.fit_one_cycle(
                    parts,
                    lr_max=self.config.learning_rate,
                    pct_start=self.config.warm_up,
                    moms=(0.8, 0.7, 0.8),
                    start_epoch=done,
                    cbs=callbacks,
                )
            if history.error is not None:
                raise history.error
        if history.best_weights is None:
            raise ConfigError("The loss on the held-out documents was never a number: lower --learning-rate.")
        loss = -history.best[1]
        metrics = {
            "perplexity": math.exp(loss),
            # as other language models are measured, whose tokens are the words between blanks and line ends
            "perplexity_per_written_word": math.exp(loss * len(self.texts.held_out.ids) / self.texts.held_out_written),
            "passes": self.config.passes,
            "words_per_pass": len(self.texts.train.ids),
            "held_out_words": len(self.texts.held_out.ids),
            "parameters": sum(one.numel() for one in self.model.parameters()),
            "seconds": time.perf_counter() - begun,
            "epochs": history.entries,
        }
        self._write(history.best_weights, metrics)
        shutil.rmtree(self.partial, ignore_errors=True)
        return metrics

    def _write(self, weights: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        from textladder.versions import versions

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

    def _keep(self, done: int, history: "History", seconds: float) -> None:
        """Write down weights, moments and looks."""
        from safetensors.torch import save_file

        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, moments in self.learner.opt.state_dict()["state"].items():
            tensors |= {f"moments.{number}.{name}": value for name, value in moments.items()}
        tensors |= {f"best.{name}": value for name, value in (history.best_weights or {}).items()}

        def write(folder: Path) -> None:
            save_file({name: value.contiguous() for name, value in tensors.items()}, folder / STATE_FILE)

        manifest = {
            "run": self.name,
            "parts": done,
            "epochs": history.entries,
            "best": list(history.best),
            "seconds": seconds,
        }
        write_bundle(self.partial, manifest, write, kind=CHECKPOINT, overwrite=True)

    def _go_on(self, history: "History") -> int:
        """Take up what an earlier run wrote down; how many parts that is."""
        if self.overwrite or not self.partial.exists():
            return 0
        advice = "say --overwrite to begin anew, or take it away"
        try:
            checkpoint = read_bundle(self.partial, CHECKPOINT)
        except BundleError as error:
            raise BundleError(f"{error} It was to be gone on with; {advice}.") from None
        if checkpoint.manifest["run"] != self.name:
            raise ConfigError(f"{self.partial} is of a run with other documents, settings or another seed; {advice}.")
        self._restore(checkpoint)
        history.entries, history.best = checkpoint.manifest["epochs"], tuple(checkpoint.manifest["best"])
        history.best_weights, self.spent = self._best, checkpoint.manifest["seconds"]
        done: int = checkpoint.manifest["parts"]
        self.monitor.say(f"Going on after {done} of {self.config.passes * self.stream.parts} parts.")
        return done

    def _restore(self, checkpoint: Bundle) -> None:
        import torch

        tensors: dict[str, dict[str, Any]] = {"model": {}, "moments": {}, "best": {}}
        for name, value in checkpoint.read_tensors(STATE_FILE).items():
            kind, _, rest = name.partition(".")
            tensors[kind][rest] = torch.from_numpy(value)
        self.model.load_state_dict(tensors["model"])
        state = self.learner.opt.state_dict()
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors["moments"].items():
            number, _, kind = name.partition(".")
            moments.setdefault(int(number), {})[kind] = value
        self.learner.opt.load_state_dict({**state, "state": moments})
        self._best = tensors["best"] or None
