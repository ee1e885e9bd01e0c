"""Batches, the Learner around them, stages, the finder."""

import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from textladder.batching import Padding, TextBatches, pad_batch
from textladder.errors import ConfigError
from textladder.progress import Monitor
from textladder.scoring import NetworkScorer, predict_probabilities
from textladder.target_metric import find_metric
from textladder.text.vocabulary import EncodedTexts
from textladder.training.callbacks import History, validation_score
from textladder.training.learner import Adversarial, class_weights, make_learner
from textladder.training.precision import trains_in_bfloat16
from textladder.training.stages import LearningRateCurve, Stage, find_learning_rate, run_stages, seeded


def texts(rows: int = 200, seed: int = 0) -> tuple[EncodedTexts, np.ndarray]:
    """Texts whose class is whether token 2 or token 3 occurs in them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    rows_of_ids = [np.append(2 + label, rng.integers(4, 20, rng.integers(1, 30))) for label in labels]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows_of_ids])]).astype(np.int64)
    return EncodedTexts(np.concatenate(rows_of_ids).astype(np.int32), offsets), labels.astype(np.int64)


class Bag(nn.Module):
    """The mean of word vectors, padding left out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        weights = (ids != 1).float()
        return self.head(self.words(ids, per_sample_weights=weights) / weights.sum(1, keepdim=True))


def batches(**options: object) -> TextBatches:
    encoded, labels = texts()
    padding = options.pop("padding", Padding(20))
    return TextBatches(encoded, labels, padding, **{"batch_size": 16, **options})  # type: ignore[arg-type]


def test_a_pass_has_every_text_once_with_its_label() -> None:
    encoded, labels = texts()
    for shuffle in (False, True):
        seen = [
            (tuple(row[row != 1].tolist()), int(label))
            for ids, given in batches(shuffle=shuffle)
            for row, label in zip(ids, given, strict=True)
        ]
        expected = [(tuple(encoded[n][:20].tolist()), int(labels[n])) for n in range(200)]
        assert sorted(seen) == sorted(expected)


def test_padding_reaches_only_the_longest_of_the_batch() -> None:
    for ids, _ in batches(shuffle=True):
        assert bool((ids[:, -1] != 1).any())
    padding = sum(int((ids == 1).sum()) for ids, _ in batches(shuffle=True))
    fixed = sum(int((ids == 1).sum()) for ids, _ in batches(padding=Padding(20, fixed=True)))
    assert padding < 0.8 * fixed
    assert {ids.shape[1] for ids, _ in batches(padding=Padding(20, fixed=True))} == {20}


def test_orders_are_seeded_and_differ_between_passes() -> None:
    one, same, other = (
        batches(shuffle=True, seed=1),
        batches(shuffle=True, seed=1),
        batches(shuffle=True, seed=2),
    )
    first, second = [ids.tolist() for ids, _ in one], [ids.tolist() for ids, _ in one]
    assert first == [ids.tolist() for ids, _ in same]
    assert first != second
    assert first != [ids.tolist() for ids, _ in other]


def test_one_pass_may_go_from_short_to_long() -> None:
    one = batches(shuffle=True, padding=Padding(40))
    one.shortest_first()
    lengths = [float((ids != 1).sum(dim=1).float().mean()) for ids, _ in one]
    assert np.corrcoef(lengths, range(len(lengths)))[0, 1] > 0.9
    again = [float((ids != 1).sum(dim=1).float().mean()) for ids, _ in one]
    assert abs(np.corrcoef(again, range(len(again)))[0, 1]) < 0.9


def test_an_empty_text_is_one_unknown_word() -> None:
    empty = EncodedTexts(np.array([5], np.int32), np.array([0, 0, 1]))
    assert pad_batch(empty, np.array([0, 1]), Padding(10)).tolist() == [[0], [5]]


def test_predictions_come_in_order() -> None:
    encoded, _ = texts()
    with seeded(0):
        network = Bag()
    scorer = NetworkScorer(network)
    scorer.batch_tokens = 64
    together = predict_probabilities(scorer, encoded, Padding(20))
    padded = [torch.from_numpy(pad_batch(encoded, np.array([n]), Padding(20))) for n in range(200)]
    alone = [network(ids).softmax(1)[0].detach().numpy() for ids in padded]
    assert np.abs(together - np.stack(alone)).max() < 1e-6
    assert network.training


def test_one_batch_takes_as_many_cores_as_it_can_use() -> None:
    seen: list[int] = []

    class Counted(Bag):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(ids)

    chosen = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        batch = np.array([[3, 4, 5]])
        NetworkScorer(Counted(), 1).score([batch])
        NetworkScorer(Counted()).score([batch])
        assert (*seen, torch.get_num_threads()) == (1, 2, 2)
    finally:
        torch.set_num_threads(chosen)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stages_train_and_are_noted(precision: str) -> None:
    with seeded(0):
        learner = make_learner(Bag(), batches(shuffle=True), batches(), precision=precision)
        entries = run_stages(learner, [Stage("warm", 1, 0.01), Stage("main", 4, 0.05)], validations_per_epoch=2)
    assert [entry["stage"] for entry in entries] == ["warm"] * 2 + ["main"] * 8
    assert [entry["epoch"] for entry in entries[2:]] == [0.462, 1, 1.462, 2, 2.462, 3, 3.462, 4]
    assert entries[0]["rows"] + entries[1]["rows"] == 200
    assert entries[-1]["valid_accuracy"] > 0.95
    assert entries[-1]["train_loss"] < entries[0]["train_loss"]
    assert all(0 < entry["train_seconds"] <= entry["seconds"] for entry in entries)
    assert all(parameter.dtype == torch.float32 for parameter in learner.model.parameters())
    assert not torch.is_autocast_enabled("cpu")


class StepCounter(nn.Module):
    """Counts its training steps; what it answers depends on the count alone, not on learning."""

    def __init__(self, right_at: int | None = None) -> None:
        super().__init__()
        self.right_at = right_at
        self.scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count += 1
        if self.right_at is None:
            return torch.zeros(len(ids), 2) + 0 * self.scale
        sign = (ids == 3).any(1).float() * 2 - 1
        logits = sign if self.count == self.right_at else -sign
        return torch.stack([-logits, logits], 1) + self.scale


def test_the_best_validation_is_kept() -> None:
    second = 26  # 13 batches an epoch
    learner = make_learner(StepCounter(second), batches(), batches())
    entries = run_stages(learner, [Stage("s", 4, 1e-3)])
    assert [entry["valid_accuracy"] > 0.5 for entry in entries] == [False, True, False, False]
    assert int(learner.model.count) == 26
    learner = make_learner(StepCounter(second), batches(), batches())
    run_stages(learner, [Stage("s", 4, 1e-3)], keep_best=False)
    assert int(learner.model.count) == 52
    learner = make_learner(StepCounter(second), batches(), batches())
    assert len(run_stages(learner, [Stage("s", 9, 1e-3)], patience=2)) == 4


@pytest.mark.parametrize(
    ("rows", "accuracies", "kept"),
    [
        (1000, [0.80, 0.90, 0.85], "best"),
        (1000, [0.80, 0.90, 0.895], "last"),
        (20, [0.80, 0.90, 0.85], "last"),
        (10, [0.50, 1.00, 0.90], "last"),
        (10, [0.50, 1.00, 0.50], "best"),
    ],
)
def test_an_earlier_validation_is_kept_if_it_is_better_by_more_than_chance(
    rows: int, accuracies: list[float], kept: str
) -> None:
    history = History(keep_best=True, patience=0, validations=1, monitor=Monitor())
    history.entries = [{"valid_loss": 1.0, "valid_accuracy": one, "valid_macro_f1": one} for one in accuracies]
    history.best, history.best_weights, history.valid_rows = (max(accuracies), -1.0), {}, rows
    assert (history.chosen_weights() is None) == (kept == "last")


def test_rare_classes_count_in_the_best_validation() -> None:
    def score(loss, accuracy=None, macro_f1=None):
        return validation_score({"valid_loss": loss, "valid_accuracy": accuracy, "valid_macro_f1": macro_f1}, None)

    common_class_alone = score(0.3, accuracy=0.90, macro_f1=0.47)
    assert score(0.4, accuracy=0.88, macro_f1=0.80) > common_class_alone
    assert score(0.2, accuracy=0.90, macro_f1=0.47) > common_class_alone
    assert score(0.2) > score(0.3)


class MoreAndMoreEager(nn.Module):
    """Answers class 0 in its first epoch; in later ones class 1 too, wherever token 3 or 4 occurs."""

    def __init__(self, steps_of_first: int) -> None:
        super().__init__()
        self.steps_of_first, self.scale = steps_of_first, nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count += 1
        found = ((ids == 3) | (ids == 4)).any(1) & (self.count > self.steps_of_first)
        sign = found.float() * 2 - 1
        return torch.stack([-sign, sign], 1) + self.scale


@pytest.mark.parametrize(
    ("metric", "epoch"),
    [("accuracy", 1), ("macro-f1", 2), ("average-precision:1", 2), ("costs:missed.csv", 2), ("costs:alarms.csv", 1)],
)
def test_the_best_validation_is_chosen_by_the_metric(
    metric: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the rows is of class 1; finding them all costs as many mistakes among the others, and more."""
    monkeypatch.chdir(tmp_path)
    Path("missed.csv").write_text("label,predicted,cost\n1,0,10\n0,1,1\n", encoding="utf-8")
    Path("alarms.csv").write_text("label,predicted,cost\n1,0,1\n0,1,10\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    eager = rng.random(400) < 0.25
    tokens = np.where(labels == 1, 3, np.where(eager, 4, 5)).astype(np.int32)
    encoded = EncodedTexts(tokens, np.arange(401))
    parts = [TextBatches(encoded, labels, Padding(20), batch_size=40) for _ in range(2)]
    learner = make_learner(MoreAndMoreEager(10), *parts, metric=find_metric(metric, ["0", "1"]))
    entries = run_stages(learner, [Stage("s", 2, 1e-3)], validations_per_epoch=2)
    assert (learner.model.count > 10) == (epoch == 2)
    assert entries[0]["valid_score"] == entries[1]["valid_score"]


def test_patience_goes_by_the_metric() -> None:
    class MoreAndMoreSure(StepCounter):
        """Right from the first step on, with a loss that falls with every step."""

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits = super().forward(ids)
            sign = (ids == 3).any(1).float() * 2 - 1
            return logits + torch.stack([-sign, sign], 1) * self.count / 100

    accuracy, log_loss = (find_metric(name, ["0", "1"]) for name in ("accuracy", "log-loss"))
    learner = make_learner(MoreAndMoreSure(), batches(), batches(), metric=accuracy)
    assert len(run_stages(learner, [Stage("s", 9, 1e-3)], patience=2)) == 3
    learner = make_learner(MoreAndMoreSure(), batches(), batches(), metric=log_loss)
    assert len(run_stages(learner, [Stage("s", 9, 1e-3)], patience=2)) == 9


def test_patience_goes_by_the_validation_loss() -> None:
    class LessAndLessSure(StepCounter):
        """Right from the first step on, with a loss that rises with every step."""

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits = super().forward(ids)
            sign = (ids == 3).any(1).float() * 2 - 1
            return logits + torch.stack([-sign, sign], 1) * 5 / (1 + self.count)

    learner = make_learner(LessAndLessSure(), batches(), batches())
    entries = run_stages(learner, [Stage("s", 9, 1e-3)], patience=2)
    assert len(entries) == 3
    assert len({entry["valid_accuracy"] for entry in entries}) == 1


def test_the_last_of_equal_validations_is_kept() -> None:
    learner = make_learner(StepCounter(), batches(), batches())
    entries = run_stages(learner, [Stage("s", 3, 1e-3)])
    assert len({(entry["valid_accuracy"], entry["valid_loss"]) for entry in entries}) == 1
    assert int(learner.model.count) == 39  # three epochs of 13 batches
    learner = make_learner(StepCounter(), batches(), batches())
    assert len(run_stages(learner, [Stage("s", 9, 1e-3)], patience=2)) == 3


def test_without_validation_rows() -> None:
    learner = make_learner(Bag(), batches(shuffle=True), None)
    entries = run_stages(learner, [Stage("s", 2, 0.01)])
    assert [entry["valid_loss"] for entry in entries] == [None, None]


def test_a_loss_that_is_no_number() -> None:
    learner = make_learner(Bag(), batches(), None)
    with torch.no_grad():
        learner.model.head.bias.fill_(math.nan)
    with pytest.raises(ConfigError, match="^The training loss became nan in stage 's': lower learning_rate.$"):
        run_stages(learner, [Stage("s", 1, 0.01)])


def test_interrupting_leaves_no_state_behind() -> None:
    class Stop(Monitor):
        def advance(self, done: int, note: str = "") -> None:
            raise KeyboardInterrupt

    learner = make_learner(Bag(), batches(), None, precision="bfloat16")
    callbacks = len(learner.cbs)
    with pytest.raises(KeyboardInterrupt):
        run_stages(learner, [Stage("s", 1, 0.01)], monitor=Stop())
    assert not torch.is_autocast_enabled("cpu")
    assert len(learner.cbs) <= callbacks + 1


def test_the_finder_suggests_and_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before_files = set(Path(tempfile.gettempdir()).iterdir())
    with seeded(0):
        learner = make_learner(Bag(), batches(shuffle=True), batches())
        before = learner.model.head.weight.clone()
        curve = find_learning_rate(learner, 1e-4, 1e-3)
    assert torch.equal(before, learner.model.head.weight)
    assert len(curve.rates) == len(curve.losses) > 20
    assert all(low < high for low, high in zip(curve.rates, curve.rates[1:], strict=False))
    assert 1e-7 < curve.suggested < 10
    assert not list(tmp_path.iterdir())
    assert set(Path(tempfile.gettempdir()).iterdir()) <= before_files


def test_the_finder_does_not_use_up_the_short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must see texts of every length, and the training that follows must still begin with the short ones."""
    train = batches(shuffle=True, padding=Padding(40))
    seen: list[float] = []
    original = TextBatches.__iter__

    def watched(self: TextBatches) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for ids, labels in original(self):
            seen.append(float((ids != 1).sum(dim=1).float().mean()))
            yield ids, labels

    monkeypatch.setattr(TextBatches, "__iter__", watched)
    learner = make_learner(Bag(), train, None)
    find_learning_rate(learner, 1e-4, 1e-3)
    assert abs(np.corrcoef(seen[:13], range(13))[0, 1]) < 0.9
    seen.clear()
    run_stages(learner, [Stage("s", 2, 0.01, shortest_first=True)])
    assert np.corrcoef(seen[:13], range(13))[0, 1] > 0.9
    assert abs(np.corrcoef(seen[13:], range(13))[0, 1]) < 0.9


def test_suggestions_are_held_to_the_range() -> None:
    curve = LearningRateCurve([1e-4], [1.0], 0.2, 1e-4, 1e-2)
    assert curve.learning_rate == 1e-2
    assert curve.sentence() == (
        "The finder suggests a learning rate of 0.2, clipped to 0.01 (usual range of this level: 1e-04 to 1e-02)."
    )
    assert "held" not in LearningRateCurve([1e-4], [1.0], 5e-3, 1e-4, 1e-2).sentence()


def test_class_weights() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = class_weights("balanced", labels, 2)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert weights[labels].mean() == pytest.approx(1)


def test_precision_is_as_told() -> None:
    assert trains_in_bfloat16("bfloat16")
    assert not trains_in_bfloat16("float32")
    assert trains_in_bfloat16("auto") in (True, False)


def test_a_real_learner(sentences_file: Path, vectors_file: Path) -> None:
    """What a learner of fastai does works on a level's learner too."""
    from textladder import TextClassifier, read_texts

    data = read_texts(sentences_file, test=sentences_file)
    classifier = TextClassifier("lstm", vectors=str(vectors_file), min_freq=1, hidden_size=8, batch_size=4)
    learner = classifier.prepare(data).learner
    with learner.no_logging(), learner.no_bar():
        assert learner.lr_find(show_plot=False).valley > 0
        learner.fit_one_cycle(2, 5e-3)
        loss, accuracy, _ = learner.validate()
    assert loss > 0
    assert 0 <= accuracy <= 1
    assert len(classifier.predict(["good lamp"])) == 1


class WordMean(nn.Module):
    """The mean of word vectors that come out of a plain embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.words(ids).mean(dim=1))
        return logits


def test_adversarial_training_adds_the_gradient_at_perturbed_vectors() -> None:
    """One step by hand: plain SGD, one batch, the move worked out with torch.autograd."""
    with seeded(0):
        network = WordMean()
    encoded, labels = texts(8)
    ids, targets = next(iter(TextBatches(encoded, labels, Padding(10, fixed=True), batch_size=8)))
    vectors = network.words(ids)
    loss = nn.functional.cross_entropy(network.head(vectors.mean(dim=1)), targets)
    (gradient,) = torch.autograd.grad(loss, vectors, retain_graph=True)
    move = 0.7 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
    moved = nn.functional.cross_entropy(network.head((network.words(ids) + move).mean(dim=1)), targets)
    expected = torch.autograd.grad(loss + moved, network.head.weight)[0]
    assert moved > loss

    seen = []
    batches_of_8 = TextBatches(encoded, labels, Padding(10, fixed=True), batch_size=8)
    learner = make_learner(
        network, batches_of_8, None, precision="float32", adversarial=Adversarial(network.words, 0.7, 1)
    )

    step = learner._step
    learner._step = lambda: (seen.append(network.head.weight.grad.clone()), step())
    run_stages(learner, [Stage("s", 1, 1e-9)])  # epoch 0 is before its time
    plain = torch.autograd.grad(nn.functional.cross_entropy(network(ids), targets), network.head.weight)[0]
    assert torch.allclose(seen[0], plain, atol=1e-5)
    learner = make_learner(
        network, batches_of_8, None, precision="float32", adversarial=Adversarial(network.words, 0.7, 0)
    )
    step_again = learner._step
    learner._step = lambda: (seen.append(network.head.weight.grad.clone()), step_again())
    run_stages(learner, [Stage("s", 1, 1e-9)])
    assert torch.allclose(seen[1], expected, atol=1e-5)
    assert not network.words._forward_hooks


def test_weights_of_classes_do_not_depend_on_the_batches() -> None:
    """Batches of one row add up to the gradient of all rows in one."""
    encoded, labels = texts(12)
    gradients = []
    for batch_size in (12, 1):
        with seeded(0):
            network = WordMean()
        cut = TextBatches(encoded, labels, Padding(10, fixed=True), batch_size=batch_size)
        weights = np.array([0.5, 3.0])
        learner = make_learner(network, cut, None, class_weights=weights, precision="float32", accumulate=12)
        step = learner._step
        learner._step = lambda network=network, step=step: (gradients.append(network.head.weight.grad.clone()), step())
        run_stages(learner, [Stage("s", 1, 1e-9)])
    assert len(gradients) == 2
    assert torch.allclose(*gradients, atol=1e-6)


def test_the_optimizer_is_torchs_without_its_compiler() -> None:
    from textladder.training.optimizers import _AdamW

    found = []
    for kind in (_AdamW, torch.optim.AdamW):
        weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        optimizer = kind([weight], lr=0.1, weight_decay=0.1, fused=True)
        for step in range(5):
            ((weight - step) ** 3).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append((weight.detach(), optimizer.state_dict()["state"][0]["exp_avg"]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    script = (
        "import sys, torch; from textladder.training.optimizers import _AdamW\n"
        "weight = torch.nn.Parameter(torch.ones(2)); one = _AdamW([weight], lr=0.1, fused=True)\n"
        "weight.sum().backward(); one.step(); one.zero_grad(); one.load_state_dict(one.state_dict())\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


class Grouped(Bag):
    """The same in two groups of layers."""

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        return [list(self.words.parameters()), list(self.head.parameters())]


def test_a_learner_freezes_groups_of_layers() -> None:
    """fastai's own `freeze` leaves the head to learn, its weights as well as its biases."""
    network = Grouped()
    learner = make_learner(network, batches(), None, weight_decay=0.01)
    learner.freeze()
    trained = {name for name, one in network.named_parameters() if one.requires_grad}
    assert trained == {"head.weight", "head.bias"}
    learner.unfreeze()
    assert all(one.requires_grad for one in network.parameters())
