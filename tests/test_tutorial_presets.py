"""The presets `tutorial` train as the 2021 tutorial "NLP from Scratch with PyTorch, fastai, and HuggingFace" does.

Checked against its own pipeline, in plain fastai.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.rnn import RNNRegularizer
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.metrics import accuracy
from torch import nn

from textladder import TextClassifier, basic_english, read_texts
from textladder.training.callbacks import ActivationRegularization
from textladder.training.pretraining import pretrain
from textladder.training.stages import run_stages, seeded

ROWS = 320


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Reviews of the embedded sample in the form of the source: label 1 or 2, title, text."""
    sample = pd.read_csv(Path(read_texts.__code__.co_filename).parents[1] / "sample" / "train.csv")
    frame = sample.sample(ROWS, random_state=0).reset_index(drop=True)
    return pd.DataFrame(
        {
            "label": frame["label"].map({"negative": 1, "positive": 2}),
            "title": frame["title"],
            "text": frame["text"],
        }
    )


class BatchLosses(Callback):  # type: ignore[misc]
    """The loss of every training batch of the first epoch, after which it stops."""

    order = 90

    def before_fit(self) -> None:
        self.found: list[float] = []

    def after_batch(self) -> None:
        if self.training:
            self.found.append(float(self.loss.detach()))

    def after_epoch(self) -> None:
        raise CancelFitException


class Hypers(Callback):  # type: ignore[misc]
    """The hyperparameters of every step."""

    def __init__(self) -> None:
        self.found: list[list[tuple[float, ...]]] = []

    def before_step(self) -> None:
        self.found.append(
            [tuple(float(group[name]) for name in ("lr", "mom", "wd", "sqr_mom", "eps")) for group in self.opt.hypers]
        )


def first_epoch(classifier: TextClassifier) -> tuple[list[float], list[int]]:
    """The losses of the preset's first epoch, and the order in which it took the rows."""
    learner, losses = classifier.learner, BatchLosses()
    batches, order = learner.dls.train.batches, []
    next_pass = batches.next_pass

    def recorded() -> list[np.ndarray]:
        found: list[np.ndarray] = next_pass()
        order.extend(int(index) for indices in found for index in indices)
        return found

    batches.next_pass = recorded
    learner.add_cb(losses)
    run_stages(learner, classifier._fitted.stages(classifier.config.learning_rate))
    return losses.found, order[:ROWS]


def plain_losses(dataset: Any, model: nn.Module, order: list[int], *, bs: int, epochs: int, rate: float) -> list[float]:
    """The same of the tutorial's Learner: its loaders, its defaults, the given order of the first epoch."""
    losses = BatchLosses()
    train = DataLoader(dataset, bs=bs, shuffle=True, get_idxs=lambda: order)
    dls = DataLoaders(train, DataLoader(dataset, bs=bs))
    learn = Learner(dls, model, loss_func=nn.CrossEntropyLoss(), metrics=[accuracy], cbs=losses)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, lr_max=rate)
    return losses.found


class SimpleDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The tutorial's first data set: one review's ids, padded or cut to 128, and its label."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        counts: Counter[str] = Counter()
        for text in frame["text"]:
            counts.update(basic_english(text))
        kept = [token for token, count in counts.most_common() if count >= 20]
        self.tokens = ["<unk>", "<pad>", *kept]
        self.ids = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [self.ids.get(token, 0) for token in basic_english(self.frame["text"][index])]
        ids = (ids + [1] * (128 - len(ids)))[:128]
        return torch.tensor(ids), torch.tensor({1: 0, 2: 1}[self.frame["label"][index]])


class Model(nn.Module):
    """The tutorial's network: embeddings, two LSTMs, a head on the last states of both."""

    def __init__(self, words: int, dimension: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(words, dimension)
        self.lstm = nn.LSTM(input_size=dimension, hidden_size=64, batch_first=True, num_layers=2)
        self.head = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(self.emb(ids))
        logits: torch.Tensor = self.head(hidden.permute(1, 0, 2).flatten(start_dim=1))
        return logits


def test_lstm(frame: pd.DataFrame, vectors_file: Path) -> None:
    data = read_texts(frame, test=frame.head(20), text="longest", valid=0.0)
    classifier = TextClassifier("lstm", preset="tutorial", vectors=str(vectors_file)).prepare(data)
    dataset = SimpleDataset(frame)
    assert classifier._fitted.vocabulary.tokens == dataset.tokens
    ids, label = classifier.learner.dls.train_ds[0]
    assert torch.equal(ids, dataset[0][0])
    assert int(label) == int(dataset[0][1])
    ours = classifier.learner.model
    model = Model(*ours.embedding.weight.shape)
    model.emb.load_state_dict(ours.embedding.state_dict())
    model.lstm.load_state_dict(ours.forward_lstm.state_dict())
    model.head.load_state_dict(ours.head.state_dict())
    losses, order = first_epoch(classifier)
    assert sorted(order) == list(range(ROWS))
    assert order != sorted(order)
    expected = plain_losses(dataset, model, order, bs=32, epochs=5, rate=3e-3)
    assert len(losses) == ROWS // 32
    assert np.allclose(losses, expected, atol=1e-3)


class HFDataset(torch.utils.data.Dataset[tuple[Any, torch.Tensor]]):
    """The tutorial's second data set: the tokenizer's output, padded to the maximum, and the label."""

    def __init__(self, frame: pd.DataFrame, tokenizer: Any, length: int) -> None:
        self.frame, self.tokenizer, self.length = frame, tokenizer, length

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        output = self.tokenizer(
            self.frame["text"][index],
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=self.length,
        )
        inputs = {name: output[name].squeeze() for name in ("input_ids", "attention_mask")}
        return inputs, torch.tensor({1: 0, 2: 1}[self.frame["label"][index]])


class HFModel(nn.Module):
    """The tutorial's wrapper: one input, the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


def test_transformer(frame: pd.DataFrame, encoders: Callable[[str], Path], tmp_path: Path) -> None:
    """On a tiny random encoder without dropout, whose random numbers two implementations would not share."""
    import transformers

    folder = tmp_path / "encoder"
    shutil.copytree(encoders("distilbert"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    length = min(512, config["max_position_embeddings"])
    data = read_texts(frame, test=frame.head(20), text="longest", valid=0.0)
    classifier = TextClassifier("transformer", preset="tutorial", encoder=str(folder), max_tokens=length).prepare(data)
    kinds = {type(callback) for callback in classifier.learner.cbs}
    assert not kinds & {GradientAccumulation, GradientClip}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.load_state_dict(classifier.learner.model.model.state_dict())
    losses, order = first_epoch(classifier)
    dataset = HFDataset(frame, tokenizer, length)
    expected = plain_losses(dataset, HFModel(model), order, bs=8, epochs=3, rate=3e-4)
    assert len(losses) == ROWS // 8
    assert np.allclose(losses, expected, atol=1e-3)


def test_ulmfit(frame: pd.DataFrame, corpus_file: Path, tmp_path: Path) -> None:
    """`text_classifier_learner(dls, AWD_LSTM)` and `fine_tune(5, 3e-3)`, step by step."""
    from fastai.text.data import SortedDL, TensorText, pad_input_chunk
    from fastai.text.learner import text_classifier_learner
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config
    from fastai.torch_core import TensorCategory
    from fastcore.foundation import L

    sizes = {"dimension": 8, "hidden_size": 8, "layers": 3, "batch_size": 8, "epochs": 1}
    pretrain([corpus_file], tmp_path / "model", **sizes)
    data = read_texts(frame, test=frame.head(20), text="longest", valid=0.0)
    classifier = TextClassifier("ulmfit", preset="tutorial", language_model=str(tmp_path / "model")).prepare(data)
    level, ours = classifier._fitted, Hypers()
    classifier.learner.add_cb(ours)
    stages = level.stages(classifier.config.learning_rate)
    assert [stage.epochs for stage in stages] == [1, 5]
    with seeded(0):
        run_stages(classifier.learner, stages)

    # short texts will do, because only the schedule is looked at
    rows = [(TensorText([2, 3, 4]), TensorCategory(number % 2)) for number in range(ROWS)]
    loaders = [SortedDL(part, bs=32, before_batch=pad_input_chunk, num_workers=0) for part in (rows, rows[:4])]
    dls = DataLoaders(*loaders)
    dls.vocab, dls.c = L(["xxunk", "xxpad", "a", "b", "c"], ["1", "2"]), 2
    config = awd_lstm_clas_config | {"emb_sz": 6, "n_hid": 8, "n_layers": len(level.network.encoder.lstms)}
    learn = text_classifier_learner(
        dls, AWD_LSTM, config=config, pretrained=False, loss_func=nn.CrossEntropyLoss(), metrics=[accuracy]
    )
    theirs = Hypers()
    learn.add_cb(theirs)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(5, base_lr=3e-3)
    assert len(ours.found) == len(theirs.found) == 6 * ROWS // 32
    ours_, theirs_ = np.array(ours.found), np.array(theirs.found)
    frozen = ROWS // 32  # steps in which all groups but the head's are frozen, so that their rates do not matter
    assert np.allclose(ours_[:frozen, -1], theirs_[:frozen, -1], rtol=1e-6)
    assert np.allclose(ours_[frozen:], theirs_[frozen:], rtol=1e-6)

    regularizer = learn.cbs[[type(one) for one in learn.cbs].index(RNNRegularizer)]
    regularization = next(one for one in classifier.learner.cbs if isinstance(one, ActivationRegularization))
    assert (regularization.alpha, regularization.beta) == (regularizer.alpha, regularizer.beta) == (2.0, 1.0)
    assert not {type(one) for one in classifier.learner.cbs} & {GradientAccumulation, GradientClip}
    assert level.config.max_tokens == 1440
    encoder = level.network.encoder
    part = 0.5
    assert encoder.lstms.hidden_dropout == pytest.approx(part * awd_lstm_clas_config["hidden_p"])
    assert encoder.lstms.weight_dropout == pytest.approx(part * awd_lstm_clas_config["weight_p"])
    assert encoder.input_dropout == pytest.approx(part * awd_lstm_clas_config["input_p"])


def test_activation_regularization_is_fastais() -> None:
    """The same loss to step along as fastai's RNNRegularizer from the same states."""
    states = torch.randn(3, 5, 4)

    class Stack(nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[list[torch.Tensor], None]:
            return [inputs * 2, inputs], None

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack, self.scale = Stack(), nn.Parameter(torch.ones(2))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.stack(inputs)[0][-1].mean(dim=(1, 2))[:, None] * self.scale
            return found

    network = Net()
    callback = ActivationRegularization(network.stack, 2.0, 1.0)
    gradients = []

    class Seen(Callback):  # type: ignore[misc]
        order = 5

        def after_loss(self) -> None:
            gradients.append((float(self.loss.detach()), float(self.loss_grad.detach())))

    learn = Learner(
        DataLoaders([(states, torch.tensor([0, 1, 0]))], []), network, nn.CrossEntropyLoss(), cbs=[callback, Seen()]
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.0)
    loss, stepped = gradients[0]
    expected = 2 * states.pow(2).mean() + (states[:, 1:] - states[:, :-1]).pow(2).mean()
    assert stepped - loss == pytest.approx(float(expected), rel=1e-5)
    assert not network.stack._forward_hooks
