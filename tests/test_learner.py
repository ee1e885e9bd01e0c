"""What fastai users do next with a Learner works on all neural levels, in the order of the rows."""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.interpret import ClassificationInterpretation, Interpretation
from fastai.learner import Learner
from fastai.metrics import accuracy
from torch import nn

from conftest import SENTENCES
from textladder import TextClassifier, TextData, TextladderError, read_texts
from textladder.batching import Padding, TextBatches
from textladder.errors import ConfigError, DataError
from textladder.levels.lstm import LSTMConfig, LSTMLevel
from textladder.progress import Monitor
from textladder.text.vocabulary import EncodedTexts
from textladder.training.learner import make_learner
from textladder.training.stages import Stage, run_stages, seeded

Settings = Callable[[str], dict[str, Any]]
LEVELS = ("lstm", "ulmfit", "transformer", "transformer/windows")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TextData:
    """The sentences, one of them long, with a third of them to validate on."""
    path = tmp_path_factory.mktemp("learner") / "rows.csv"
    lines = [f'{label},"{text}"\n' for label, text in SENTENCES * 2]
    lines.append('good,"' + "a good strong kettle and a lovely lamp " * 3 + '"\n')
    path.write_text("label,text\n" + "".join(lines), encoding="utf-8")
    return read_texts(path, valid=0.3)


@pytest.fixture(scope="module")
def classifiers(rows: TextData, tiny_settings: Settings) -> Callable[[str], TextClassifier]:
    made: dict[str, TextClassifier] = {}

    def fitted(case: str) -> TextClassifier:
        if case not in made:
            level, _, variant = case.partition("/")
            few = {"lstm": {"epochs": 2}, "ulmfit": {"epochs": 1, "frozen_epochs": 1}, "transformer": {"epochs": 1}}
            windows = {"long_text": "windows", "max_tokens": 12} if variant else {}
            settings = tiny_settings(level) | few[level] | windows
            made[case] = TextClassifier(level, **settings).fit(rows)
        return made[case]

    return fitted


@pytest.fixture(params=LEVELS)
def classifier(request: pytest.FixtureRequest, classifiers: Callable[[str], TextClassifier]) -> TextClassifier:
    return classifiers(str(request.param))


@pytest.fixture
def learner(classifier: TextClassifier) -> Any:
    with classifier.learner.no_bar(), classifier.learner.no_logging():
        yield classifier.learner


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """The tables that fastai displays."""
    import fastai.text.data
    import fastai.text.learner

    import textladder.training.data_loaders as ours

    frames: list[pd.DataFrame] = []
    for module in (fastai.text.data, fastai.text.learner, ours):
        monkeypatch.setattr(module, "display_df", frames.append)
    return frames


def test_get_preds(classifier: TextClassifier, learner: Any, rows: TextData) -> None:
    assert rows.valid is not None
    probabilities, targets = learner.get_preds()
    assert np.abs(probabilities.numpy() - classifier.predict_proba(rows.valid)).max() < 1e-5
    assert np.array_equal(targets.numpy(), rows.valid.label_ids)
    for part, loader in (("valid", learner.dls.valid), ("train", learner.dls.train)):
        found, targets = learner.get_preds(dl=loader)
        assert np.abs(found.numpy() - classifier.predict_proba(getattr(rows, part))).max() < 1e-5
        assert np.array_equal(targets.numpy(), getattr(rows, part).label_ids)
    found, _ = learner.get_preds(ds_idx=0)
    assert np.abs(found.numpy() - classifier.predict_proba(rows.train)).max() < 1e-5


def test_get_preds_with_loss_input_and_decoded(classifier: TextClassifier, learner: Any, rows: TextData) -> None:
    inputs, probabilities, _, decoded, losses = learner.get_preds(with_input=True, with_decoded=True, with_loss=True)
    assert rows.valid is not None
    assert len(inputs) == len(rows.valid)
    assert torch.equal(decoded, probabilities.argmax(dim=1))
    unsmoothed = -np.log(classifier.predict_proba(rows.valid)[np.arange(len(rows.valid)), rows.valid.label_ids])
    smoothing = learner.loss_func.label_smoothing
    uniform = -np.log(classifier.predict_proba(rows.valid)).mean(axis=1)
    assert np.abs(losses.numpy() - (1 - smoothing) * unsmoothed - smoothing * uniform).max() < 1e-4
    assert learner.loss_func.reduction == "mean"


def test_predict(classifier: TextClassifier, learner: Any) -> None:
    label, index, probabilities = learner.predict("the best lamp I have bought")
    assert label == classifier.labels[int(index)] == classifier.predict(["the best lamp I have bought"])[0]
    expected = classifier.predict_proba(["the best lamp I have bought"])[0]
    assert np.abs(probabilities.numpy() - expected).max() < 1e-5


def test_show_results(classifier: TextClassifier, learner: Any, rows: TextData, shown: list[pd.DataFrame]) -> None:
    learner.show_results(max_n=4, shuffle=False)
    (frame,) = shown
    assert list(frame.columns) == ["text", "category", "predicted"]
    assert len(frame) == 4
    assert set(frame["category"]) | set(frame["predicted"]) <= set(classifier.labels)


def test_show_batch(learner: Any, shown: list[pd.DataFrame]) -> None:
    learner.dls.show_batch(max_n=3)
    (frame,) = shown
    assert list(frame.columns) == ["text", "category"]
    assert all(isinstance(text, str) and text for text in frame["text"])


def test_one_batch(learner: Any) -> None:
    ids, labels = learner.dls.one_batch()
    assert ids.dtype == labels.dtype == torch.int64
    assert len(ids) == len(labels)
    assert learner.model(ids).shape == (len(ids), 2)


def test_train_ds(learner: Any, rows: TextData) -> None:
    dataset = learner.dls.train_ds
    assert len(dataset) == len(rows.train)
    ids, label = dataset[0]
    assert int(label) == rows.train.label_ids[0]
    first = next(iter(rows.train))
    assert set(first.replace(",", " ").split()) & set(dataset.decode(ids).split())
    assert torch.equal(dataset[-1][0], dataset[len(dataset) - 1][0])
    with pytest.raises(IndexError, match=f"{len(dataset)} texts"):
        dataset[len(dataset)]


def test_vocab(learner: Any, classifier: TextClassifier) -> None:
    tokens, labels = learner.dls.vocab
    assert list(labels) == list(classifier.labels)
    ids, _ = learner.dls.train_ds[0]
    pad_id = learner.dls.train_ds.batches.texts.pad_id
    assert " ".join(tokens[int(one)] for one in ids.ravel() if one != pad_id) == learner.dls.train_ds.decode(ids)


def test_test_dl(learner: Any, classifier: TextClassifier) -> None:
    texts = ["a good strong kettle", "x", "broke on the second day " * 9, "", "waste"]
    loader = learner.dls.test_dl(texts)
    found, targets = learner.get_preds(dl=loader)
    assert np.abs(found.numpy() - classifier.predict_proba(texts)).max() < 1e-5
    assert targets is None or len(targets) == 0
    found, _ = learner.get_preds(dl=learner.dls.test_dl(pd.Series(texts), bs=2))
    assert np.abs(found.numpy() - classifier.predict_proba(texts)).max() < 1e-5
    for wrong in ("one text", [3], [b"bytes"]):
        with pytest.raises(DataError, match="Texts must be"):
            learner.dls.test_dl(wrong)


def test_interpretation(learner: Any, rows: TextData) -> None:
    found = Interpretation.from_learner(learner)
    losses = learner.get_preds(with_loss=True)[2]
    top, indices = found.top_losses(3)
    assert torch.allclose(top, losses[indices])
    assert torch.equal(indices, losses.topk(3).indices)
    assert rows.valid is not None
    for index, (_, label) in zip(indices.tolist(), found.top_losses(3, items=True)[2], strict=True):
        assert int(label) == rows.valid.label_ids[index]


def test_classification_interpretation(learner: Any, rows: TextData) -> None:
    found = ClassificationInterpretation.from_learner(learner)
    matrix = found.confusion_matrix()
    assert rows.valid is not None
    assert matrix.sum(axis=1).tolist() == np.bincount(rows.valid.label_ids, minlength=2).tolist()
    assert list(found.vocab) == list(rows.labels)
    text = io.StringIO()
    with redirect_stdout(text), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is never predicted has no precision
        found.print_classification_report()
    assert "bad" in text.getvalue()


def test_plot_top_losses(learner: Any, rows: TextData, shown: list[pd.DataFrame]) -> None:
    found = Interpretation.from_learner(learner)
    found.plot_top_losses(3)
    (frame,) = shown
    assert list(frame.columns) == ["input", "target", "predicted", "probability", "loss"]
    assert rows.valid is not None
    losses, indices = found.top_losses(3)
    assert np.allclose(frame["loss"].astype(float), losses, atol=1e-3)
    assert list(frame["target"]) == [rows.labels[rows.valid.label_ids[index]] for index in indices.tolist()]


def test_interpretation_shows_results(learner: Any, shown: list[pd.DataFrame]) -> None:
    Interpretation.from_learner(learner).show_results([2, 0])
    (frame,) = shown
    assert len(frame) == 2


def test_summary(learner: Any) -> None:
    text = str(learner.summary())
    assert "Total params" in text
    assert "ClassificationLoss" in text


def test_export_says_to_use_save(learner: Any) -> None:
    with pytest.raises(TextladderError, match=r"save the classifier with TextClassifier.save\(path\)"):
        learner.export("learner.pkl")


def test_the_finder_leaves_no_files(learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    assert learner.lr_find(show_plot=False, num_it=12).valley > 0
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())


def test_save_and_load_weights(learner: Any, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    learner.path = tmp_path
    learner.save("weights")
    with torch.no_grad():
        next(learner.model.parameters()).add_(1)
    learner.load("weights")
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())


@pytest.mark.parametrize("case", LEVELS[:3])
def test_training_further(case: str, rows: TextData, tiny_settings: Settings, tmp_path: Path) -> None:
    """Every way to fit works, and what is saved are the weights that came of it, with their figures."""

    class Counter(Callback):  # type: ignore[misc]
        steps = 0

        def after_step(self) -> None:
            self.steps += 1

    few = {"lstm": {"epochs": 1}, "ulmfit": {"epochs": 1, "frozen_epochs": 1}, "transformer": {"epochs": 1}}
    classifier = TextClassifier(case, **tiny_settings(case) | few[case]).fit(rows)
    learner, first = classifier.learner, len(classifier.history)
    first_record = dict(classifier.record) | {"epochs": None}
    assert dict(classifier.record) | {"epochs": None} == first_record  # nothing was trained in between
    counter = Counter()
    with learner.no_logging(), learner.no_bar():
        learner.fit_one_cycle(1, slice(1e-4, 1e-2))
        learner.fit(1, 1e-3)
        learner.fit_flat_cos(1, 1e-3)
        learner.freeze()
        trained = {name for name, one in learner.model.named_parameters() if one.requires_grad}
        head = {id(one) for one in learner.model.parameter_groups()[-1]}
        assert trained == {name for name, one in learner.model.named_parameters() if id(one) in head}
        learner.fine_tune(2, 1e-2, cbs=counter)
        learner.metrics = [accuracy]
    assert counter.steps > 0
    bundle = classifier.save(tmp_path / "bundle")
    loaded = TextClassifier.load(bundle)
    texts = [text for _, text in SENTENCES]
    assert np.allclose(loaded.predict_proba(texts), classifier.predict_proba(texts), atol=1e-6)
    assert rows.valid is not None
    found = loaded.evaluate(rows.valid)
    assert loaded.record["valid"] == pytest.approx({"accuracy": found.accuracy, "macro_f1": found.macro_f1})
    assert len(loaded.history) == first + 6
    last = loaded.history[-1]
    assert last["stage"] == "learner"
    assert last["valid_loss"] == pytest.approx(classifier.history[-1]["valid_loss"])
    assert loaded.record["fit_seconds"] > first_record["fit_seconds"]


def test_a_prepared_classifier_is_saved_with_its_record(
    rows: TextData, tiny_settings: Settings, tmp_path: Path
) -> None:
    classifier = TextClassifier("lstm", **tiny_settings("lstm")).prepare(rows)
    with classifier.learner.no_logging(), classifier.learner.no_bar():
        classifier.learner.fit_one_cycle(2, 1e-2)
    record = TextClassifier.load(classifier.save(tmp_path / "bundle")).record
    assert [entry["stage"] for entry in record["epochs"]] == ["learner", "learner"]
    assert record["parameters"] == sum(one.numel() for one in classifier.learner.model.parameters())
    assert record["valid"]["accuracy"] == pytest.approx(record["epochs"][-1]["valid_accuracy"])


def test_test_figures_of_other_weights_are_dropped(rows: TextData, tiny_settings: Settings) -> None:
    classifier = TextClassifier("lstm", **tiny_settings("lstm") | {"epochs": 1}).fit(rows)
    classifier.record["test"] = {"accuracy": 1.0}
    assert "test" in classifier.record
    with classifier.learner.no_logging(), classifier.learner.no_bar():
        classifier.learner.fit(1, 1e-2)
    assert "test" not in classifier.record


def test_without_validation_rows(sentences_file: Path, tiny_settings: Settings) -> None:
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    learner = TextClassifier("lstm", **tiny_settings("lstm") | {"epochs": 1}).fit(data).learner
    assert len(learner.dls.valid_ds) == 0
    with learner.no_bar(), learner.no_logging():
        assert learner.predict("a good kettle")[0] in ("good", "bad")
        learner.fit_one_cycle(1, 1e-3)
        with pytest.raises(TextladderError, match="no rows to predict"):
            learner.get_preds()


def test_fit_reads_what_the_command_reads(sentences_file: Path, vectors_file: Path) -> None:
    """`fit` takes a DataFrame or a file, read as the preset says: the longest text column, no validation rows."""
    frame = pd.read_csv(sentences_file)
    frame["title"] = "short"
    settings: dict[str, Any] = {"vectors": str(vectors_file), "min_freq": 1, "epochs": 1}
    classifier = TextClassifier("lstm", preset="tutorial", **settings).fit(frame)
    assert classifier.data is not None
    assert classifier.text_columns == ("text",)
    assert classifier.data.valid is None
    expected = read_texts(frame, text="text", valid=0)
    assert classifier.data.train.fingerprint() == expected.train.fingerprint()


class Deep(nn.Module):
    """Embeddings, two layers and a head, as four groups."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(60, 128)
        self.first, self.second, self.head = nn.Linear(128, 128), nn.Linear(128, 128), nn.Linear(128, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = torch.relu(self.first(self.embedding(ids).mean(dim=1)))
        logits: torch.Tensor = self.head(torch.relu(self.second(states)))
        return logits

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        return [list(one.parameters()) for one in (self.embedding, self.first, self.second, self.head)]


def test_the_head_has_its_own_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = EncodedTexts(np.arange(2, 26, dtype=np.int32), np.arange(0, 25, 3))
    learner = make_learner(Deep(), TextBatches(texts, np.arange(8) % 2, Padding(3), batch_size=4), None)
    rates: list[list[float]] = []
    monkeypatch.setattr(learner, "fit_one_cycle", lambda epochs, lr_max, **options: rates.append(lr_max))
    run_stages(learner, [Stage("s", 1, 1e-3, decay=0.5, head_factor=10)])
    assert rates == [pytest.approx([1.25e-4, 2.5e-4, 5e-4, 1e-2])]


@pytest.mark.parametrize(("grouped", "rows", "noise"), [(True, 512, 0.15), (False, 256, 0.25)])
def test_slices_of_rates_go_over_groups_of_layers(grouped: bool, rows: int, noise: float) -> None:
    """`fine_tune` ends where plain fastai's does, with the same network, seed and batches.

    With a slice over the decaying and the other half of each group, the ungrouped network ended at 0.87.
    """
    from fastai.data.core import DataLoaders
    from fastai.learner import trainable_params

    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    odd = rng.random((rows, 12)) < noise + (1 - 2 * noise) * labels[:, None]
    ids = (2 * rng.integers(1, 30, odd.shape) + odd).astype(np.int32)
    texts = EncodedTexts(ids.ravel(), np.arange(0, ids.size + 1, 12))

    def batches() -> TextBatches:
        return TextBatches(texts, labels, Padding(12, fixed=True), batch_size=32, shuffle=True, seed=1)

    def network() -> nn.Module:
        with seeded(3):
            return Deep() if grouped else nn.Sequential(Deep())

    def ours(network: nn.Module) -> Learner:
        return make_learner(network, batches(), None, precision="float32")

    def plain(network: nn.Module) -> Learner:
        splitter = Deep.parameter_groups if grouped else trainable_params
        return Learner(DataLoaders(batches(), []), network, nn.CrossEntropyLoss(), splitter=splitter)

    accuracies = []
    for make in (ours, plain):
        learner = make(network())
        with seeded(4), learner.no_logging(), learner.no_bar():
            learner.fine_tune(4, 1e-2)
        with torch.no_grad():
            found = learner.model.eval()(torch.from_numpy(ids).long()).argmax(dim=1).numpy()
        accuracies.append(float((found == labels).mean()))
    assert accuracies[0] >= 0.97
    assert abs(accuracies[0] - accuracies[1]) < 0.02


def test_hyperparameters_are_those_of_the_groups() -> None:
    texts = EncodedTexts(np.arange(2, 26, dtype=np.int32), np.arange(0, 25, 3))
    batches = TextBatches(texts, np.arange(8) % 2, Padding(3), batch_size=4)
    network = Deep()
    learner = make_learner(network, batches, None, weight_decay=0.1, precision="float32")
    learner.create_opt()
    learner.opt.set_hyper("lr", slice(1e-4, 1e-1))
    assert [round(group["lr"], 6) for group in learner.opt.hypers] == [1e-4, 1e-3, 1e-2, 1e-1]
    assert [len(group) for group in learner.opt.param_lists] == [1, 2, 2, 2]
    learner.opt.set_hyper("wd", 0.1)
    decays = [(len(group["params"]), group["weight_decay"]) for group in learner.opt.opt.param_groups]
    assert decays == [(1, 0.1), (0, 0.0), (1, 0.1), (1, 0.0), (1, 0.1), (1, 0.0), (1, 0.1), (1, 0.0)]
    learner.freeze_to(-2)
    assert [one.requires_grad for one in network.parameters()] == [False] * 3 + [True] * 4


def test_frozen_vectors_stay_and_a_gru_trains(sentences_file: Path, vectors_file: Path, tmp_path: Path) -> None:
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    settings: dict[str, Any] = {"vectors": str(vectors_file), "min_freq": 1, "hidden_size": 8, "epochs": 2}
    classifier = TextClassifier("lstm", **settings, freeze_vectors=True, cell="gru", weight_decay=0.1).prepare(data)
    before = classifier.learner.model.embedding.weight.detach().clone()
    fitted = TextClassifier("lstm", **settings, freeze_vectors=True, cell="gru", weight_decay=0.1).fit(data)
    network = fitted.learner.model
    assert isinstance(network.forward_lstm, nn.GRU)
    assert torch.equal(network.embedding.weight, before)
    assert fitted.history[-1]["trainable"] == 2
    loaded = TextClassifier.load(fitted.save(tmp_path / "bundle"))
    texts = [text for _, text in SENTENCES]
    assert np.array_equal(loaded.predict_proba(texts), fitted.predict_proba(texts))


@pytest.mark.parametrize("tokenizer", ["whitespace", "characters"])
def test_another_tokenizer(tokenizer: str, sentences_file: Path, vectors_file: Path, tmp_path: Path) -> None:
    data = read_texts(sentences_file, test=sentences_file, valid=0)
    settings: dict[str, Any] = {"vectors": str(vectors_file), "min_freq": 1, "hidden_size": 8, "epochs": 2}
    classifier = TextClassifier("lstm", **settings, tokenizer=tokenizer).fit(data)
    expected = {"whitespace": ["Not", "bad!"], "characters": list("Not bad!")}[tokenizer]
    assert classifier.tokenize("Not bad!") == expected
    loaded = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert np.array_equal(loaded.predict_proba(["Not bad!"]), classifier.predict_proba(["Not bad!"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the book is good", "basic_english"),
        ("这本书很好", "words"),
        ("the book👍 is good", "words"),
        ("हाँ नमस्ते", "words"),
    ],
)
def test_the_tokenizer_suits_the_texts(text: str, expected: str, tmp_path: Path) -> None:
    vectors, words = tmp_path / "vectors.2d.txt", ["the", "book", "is", "good", "bad"]
    vectors.write_text("".join(f"{word} 0.5 {number}\n" for number, word in enumerate(words)))
    rows = pd.DataFrame({"label": ["a", "b"] * 12, "text": [text, text.replace("good", "bad")] * 12})
    classifier = TextClassifier("lstm", vectors=str(vectors), hidden_size=4, epochs=1).fit(rows)
    assert classifier.record["tokenizer"] == expected
    loaded = TextClassifier.load(classifier.save(tmp_path / "bundle"))
    assert loaded.config.tokenizer == classifier.config.tokenizer == expected
    assert loaded.tokenize(text) == classifier.tokenize(text)
    english = rows.assign(text=["the book is good", "the book is bad"] * 12)
    assert classifier.fit(english).config.tokenizer == "basic_english"  # another fit decides anew


def test_lstm_knows_words_that_only_the_vectors_have(vectors_file: Path) -> None:
    said: list[str] = []

    class Listening(Monitor):
        def say(self, sentence: str) -> None:
            said.append(sentence)

    def vocabulary(texts: list[str], **settings: Any) -> list[str]:
        rows = texts * 2, ["a", "b"] * 2
        data = read_texts(rows, test=rows, valid=0)
        classifier = TextClassifier("lstm", vectors=str(vectors_file), min_freq=1, hidden_size=8, epochs=1, **settings)
        return list(classifier.prepare(data, monitor=Listening()).learner.dls.vocab[0])

    own = ["<unk>", "<pad>", "a", "kettle", "lamp"]
    words = [line.split()[0] for line in vectors_file.read_text().splitlines()]
    others = [word for word in words if word not in own]
    assert vocabulary(["a kettle", "a lamp"]) == own + others
    assert vocabulary(["a kettle", "a lamp"], min_vocabulary=7) == own + others[:2]
    assert "3 of 5 tokens found; 2 further words are known by their vectors." in said[-1]
    assert vocabulary(["a kettle", "a lamp"], min_vocabulary=0) == own
    assert "lamp" not in vocabulary(["a kettle", "ein Topf aus Stahl"])  # texts in another language


def test_many_classes_take_more_epochs() -> None:
    level = LSTMLevel(LSTMConfig(), classes=77)
    assert level.resolved(9_000).epochs == 14  # 25 steps of 64 rows for each class
    assert level.resolved(600).epochs == 20  # the most
    few = LSTMLevel(LSTMConfig(), classes=2)
    assert [few.resolved(rows).batch_size for rows in (50, 500, 1_000, 2_000)] == [8, 16, 32, 64]
    assert LSTMLevel(LSTMConfig(), classes=2).resolved(9_000).epochs == 3
    assert LSTMLevel(LSTMConfig(epochs=2), classes=77).resolved(9_000).epochs == 2


def test_earlier_stages_set_the_best() -> None:
    """A stage that begins from earlier entries keeps the present weights, unless one of its validations is better."""
    texts = EncodedTexts(np.arange(2, 26, dtype=np.int32), np.arange(0, 25, 3))
    batches, opposite = (TextBatches(texts, (np.arange(8) + n) % 2, Padding(3), batch_size=4) for n in (0, 1))
    for loss, kept in ((0.0, True), (9.0, False)):
        with seeded(0):
            learner = make_learner(Deep(), batches, opposite, precision="float32")
        before = learner.model.head.weight.detach().clone()
        accuracy_now = 1.0 if kept else 0.0
        run_stages(
            learner,
            [Stage("s", 1, 1e-3)],
            earlier=[{"valid_accuracy": accuracy_now, "valid_loss": loss}],
        )
        assert torch.equal(learner.model.head.weight, before) == kept


def test_a_pooling_of_ones_own(sentences_file: Path, vectors_file: Path, tmp_path: Path) -> None:
    """Functions and modules pool in `TextClassifier` too; a bundle and another process cannot have them."""
    from textladder import compare

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.scale * (states * mask[:, :, None]).norm(dim=1)

    data = read_texts(sentences_file, test=sentences_file, valid=0)
    settings: dict[str, Any] = {"vectors": str(vectors_file), "min_freq": 1, "hidden_size": 8, "epochs": 30}
    pooling = Norm()
    classifier = TextClassifier("lstm", pooling=("max", pooling), **settings).fit(data)
    found = classifier.predict([text for _, text in SENTENCES])
    assert sum(one == label for one, (label, _) in zip(found, SENTENCES, strict=True)) >= 14
    assert float(pooling.scale.detach()) != 1.0
    with pytest.raises(ConfigError, match="A bundle cannot hold code"):
        classifier.save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    assert TextClassifier("lstm", pooling=pooling, **settings).config.pooling == (pooling,)
    with pytest.raises(ConfigError, match="Setting 'pooling' of lstm holds a function"):
        compare(data, ["lstm"], settings={"lstm": {"pooling": pooling}})
    with pytest.raises(ConfigError, match="'cell'"):
        TextClassifier("lstm", cell=pooling)
