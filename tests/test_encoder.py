"""The encoder: its CPU kernels against torch's own, the head by itself, windows, cached states."""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from textladder.batching import Padding, TextBatches
from textladder.bundle import read_bundle
from textladder.encoders import load_encoder, read_encoder
from textladder.networks.cpu_kernels import (
    FastDropout,
    dropout_mask,
    onednn_linear,
    training_attention,
    use_fast_dropout,
    use_onednn_linear,
)
from textladder.networks.encoder import EncoderClassifier, EncoderHead, mean_by_text
from textladder.scoring import NetworkScorer, predict_probabilities
from textladder.text.vocabulary import EncodedTexts
from textladder.training import frozen_states
from textladder.training.frozen_states import CachedStateBatches
from textladder.training.learner import make_learner
from textladder.training.stages import Stage, run_stages, seeded

Encoders = Callable[[str], Path]


def load(folder: Path) -> EncoderClassifier:
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    return EncoderClassifier(model, 0)


@pytest.fixture(params=["distilbert", "bert", "modernbert"])
def network(request: pytest.FixtureRequest, encoders: Encoders) -> EncoderClassifier:
    return load(encoders(request.param)).eval()


def ids(rows: int = 6, seed: int = 0) -> torch.Tensor:
    """Token numbers with padding after them."""
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(5, 60, (rows, 12)))
    for row in range(rows):
        drawn[row, 0], drawn[row, 4 + row :] = 2, 0
    return drawn


@pytest.mark.parametrize("masked", ["not", "bool", "added"])
def test_attention_equals_torchs_own(masked: str) -> None:
    """Values and gradients, in float64."""
    generator = torch.Generator().manual_seed(0)
    three = [torch.randn(3, 2, 7, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    mask = None if masked == "not" else torch.arange(7)[None, None, None] < torch.tensor([7, 4, 1])[:, None, None, None]
    given = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e30) if masked == "added" else mask
    results = []
    for ours in (True, False):
        query, key, value = (one.clone().requires_grad_() for one in three)
        if ours:
            out = training_attention(query, key, value, given, 0.3, 0.0).transpose(1, 2)
        else:
            out = nn.functional.scaled_dot_product_attention(query, key, value, given, scale=0.3)
        out.sin().sum().backward()
        results.append([out, query.grad, key.grad, value.grad])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_attentions_dropout_has_the_gradient_of_its_draw() -> None:
    with seeded(0):
        three = [torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

        def draw(*given: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(1)
            return training_attention(*given, None, 0.5, 0.3)

        assert torch.autograd.gradcheck(draw, three)
        assert not torch.allclose(draw(*three), training_attention(*three, None, 0.5, 0.0))


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    with seeded(0):
        mask = dropout_mask(torch.empty(500_000, dtype=torch.bfloat16), 0.1).float()
    assert float((mask == 0).float().mean()) == pytest.approx(13 / 128, abs=0.002)
    assert float(mask.mean()) == pytest.approx(1, abs=0.005)
    places = (mask == 0).view(-1, 8).float().mean(dim=0)  # no byte of a drawn word is dropped more than another
    assert float((places - 13 / 128).abs().max()) < 0.005
    dropout = FastDropout(0.5)
    ones = torch.ones(1000)
    with seeded(1):
        first = dropout(ones)
    with seeded(1):
        assert torch.equal(dropout(ones), first)
    assert torch.equal(dropout.eval()(ones), ones)


def test_fast_dropout_is_put_everywhere_and_changes_no_weight(encoders: Encoders) -> None:
    network = load(encoders("bert"))
    names = list(network.state_dict())
    use_fast_dropout(network)
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {FastDropout}
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("bias", [True, False])
def test_onednn_linear_gives_the_same(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(24, 40, bias=bias))
    fast = copy.deepcopy(plain)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    use_onednn_linear(fast)
    assert not uses_onednn(fast[0])
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    use_onednn_linear(fast)
    assert uses_onednn(fast[0])
    assert type(fast[0]) is nn.Linear
    assert list(fast.state_dict()) == list(plain.state_dict())
    states = torch.randn(3, 5, 24)
    for given in (states, states[:, 0], states[:0], states[0], states.transpose(0, 1), states[0, 0]):
        with torch.inference_mode():
            assert torch.allclose(fast(given), plain(given), atol=1e-5)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert fast(given).dtype == torch.bfloat16
        assert torch.equal(fast(given), plain(given))  # with gradients it is torch's own
    gradients = [torch.autograd.grad(one(states).square().sum(), list(one.parameters())) for one in (fast, plain)]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert fast.double()(states.double()).dtype == torch.float64


def uses_onednn(layer: nn.Module) -> bool:
    return getattr(layer.forward, "func", None) is onednn_linear


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_or_pickled_layer_computes_with_its_own_weights(
    how: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    model = nn.Sequential(nn.Linear(4, 3))
    use_onednn_linear(model)
    copied, states = how(model), torch.randn(2, 4)
    assert uses_onednn(copied[0])
    with torch.no_grad():
        copied[0].weight.zero_()
        copied[0].bias.fill_(2)
        assert torch.equal(copied(states), torch.full((2, 3), 2.0))
        assert not torch.equal(model(states), copied(states))


def test_an_encoder_predicts_with_onednn_linear(
    encoders: Encoders, fitted: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = fitted("transformer").save(tmp_path / "bundle")  # shared with other tests, so fitted as it always is
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for network in (
        load_encoder(str(encoders("bert")), ["a", "b"], 16).network,
        read_encoder(read_bundle(bundle), 2).network,
    ):
        layers = [module for module in network.modules() if type(module) is nn.Linear]
        assert layers
        assert all(uses_onednn(layer) for layer in layers)


def test_groups_hold_every_parameter_once(network: EncoderClassifier) -> None:
    groups = network.parameter_groups()
    assert len(groups) == 4  # embeddings, two layers, head
    assert sorted(id(one) for group in groups for one in group) == sorted(id(one) for one in network.parameters())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert any("embed" in names[id(one)] for one in groups[0])
    assert all("layer" in names[id(one)] and ".0." in names[id(one)] for one in groups[1])
    assert any("classifier" in names[id(one)] for one in groups[-1])


def test_the_head_by_itself_gives_the_same(network: EncoderClassifier, request: pytest.FixtureRequest) -> None:
    tokens = ids()
    first_only = network.head_sees_first_state_only(tokens)
    assert first_only is ("modernbert" not in request.node.name)
    head = EncoderHead(network).eval()
    with torch.inference_mode():
        states, mask = network.states(tokens), tokens != 0
        given = (states[:, :1], mask[:, :1]) if first_only else (states, mask)
        assert torch.allclose(head(*given), network(tokens), atol=1e-6)
    total = sum(one.numel() for one in head.parameters())
    assert 0 < total < sum(one.numel() for one in network.parameters()) / 2


def test_the_head_runs_without_touching_the_encoder(network: EncoderClassifier) -> None:
    """Whoever predicts with the encoder in another thread meanwhile finds it whole."""
    tokens = ids()
    with torch.inference_mode():
        states, mask, expected = network.states(tokens), tokens != 0, network(tokens)
        others = ids(seed=1)
        expected_others = network(others)
        head, meanwhile = EncoderHead(network).eval(), []
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]

        def predict(*_: object) -> None:
            hook.remove()
            meanwhile.append(network(others))

        hook = last.register_forward_hook(predict)
        found = head(states, mask)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(meanwhile[0], expected_others)


def test_an_encoder_without_a_separable_head_is_reported() -> None:
    class Odd(nn.Module):
        base_model_prefix = "base"

        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Embedding(60, 4), nn.Linear(4, 2)
            self.layers = nn.ModuleList()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            class Output:
                logits = self.head(self.base(input_ids).mean(dim=1))

            return Output

    network = EncoderClassifier(Odd(), 0)
    network.states = lambda ids: network.model.base(ids)  # type: ignore[method-assign]
    assert network.head_sees_first_state_only(ids()) is None


def test_the_logits_of_windows_are_averaged(network: EncoderClassifier) -> None:
    tokens = ids(5)
    windows = torch.zeros(3, 2, tokens.shape[1], dtype=torch.long)  # of three texts, the second has one alone
    windows[0, :2], windows[1, 0], windows[2, :2] = tokens[:2], tokens[2], tokens[3:]
    with torch.inference_mode():
        alone, together = network(tokens), network(windows)
    expected = torch.stack([alone[:2].mean(0), alone[2], alone[3:].mean(0)])
    assert torch.allclose(together, expected, atol=1e-6)
    assert torch.equal(mean_by_text(alone, torch.arange(5)), alone)


def encoded(rows: int = 30) -> tuple[EncodedTexts, np.ndarray, np.ndarray]:
    """Sequences of ten texts, three each."""
    rng = np.random.default_rng(0)
    lengths = np.repeat(rng.integers(3, 12, rows // 3), 3)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return (
        EncodedTexts(rng.integers(5, 60, offsets[-1]).astype(np.int32), offsets, 0),
        np.arange(0, rows + 1, 3),
        lengths,
    )


def test_batches_of_windows_and_their_predictions(network: EncoderClassifier) -> None:
    texts, sequence_offsets, _ = encoded()
    labels = np.arange(10) % 2
    batches = TextBatches(texts, labels, Padding(12), batch_tokens=80, sequence_offsets=sequence_offsets, shuffle=True)
    seen = []
    for tokens, targets in batches:
        assert tokens.numel() <= 80
        assert tokens.shape[:2] == (len(targets), 3)
        seen += targets.tolist()
    assert sorted(seen) == sorted(labels.tolist())
    scorer = NetworkScorer(network)
    scorer.batch_tokens = 50
    together = predict_probabilities(scorer, texts, Padding(12), sequence_offsets=sequence_offsets)
    for place in range(10):
        tokens = torch.stack([torch.from_numpy(texts[n].astype(np.int64)) for n in range(3 * place, 3 * place + 3)])
        with torch.inference_mode():
            alone = network(tokens[None]).softmax(1)[0].numpy()
        assert np.abs(alone - together[place]).max() < 1e-5


def test_batches_are_filled_by_tokens() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 300)
    texts = EncodedTexts(np.full(lengths.sum(), 7, np.int32), np.concatenate([[0], np.cumsum(lengths)]), 0)
    batches = TextBatches(texts, np.arange(300), Padding(32, multiple=8), batch_tokens=256, shuffle=True)
    for _ in range(3):
        expected = len(batches)
        passed = list(batches)
        assert len(passed) == expected
        assert sorted(label for _, labels in passed for label in labels.tolist()) == list(range(300))
        assert all(tokens.numel() <= 256 and tokens.shape[1] % 8 == 0 for tokens, _ in passed)
        assert np.mean([tokens.numel() for tokens, _ in passed]) > 0.8 * 256
    endless = TextBatches(texts, np.arange(300), Padding(1000), batch_tokens=5)
    assert sum(len(labels) for _, labels in endless) == 300  # a text longer than a batch is one by itself
    tight = list(TextBatches(texts, np.arange(300), Padding(32), batch_tokens=1000, batch_padding=16))
    assert sum(len(labels) for _, labels in tight) == 300
    assert all((tokens == 0).sum() <= 16 and tokens.numel() <= 1000 for tokens, _ in tight)
    assert 10 < len(tight) < 32 + 300 * 20 / 1000 + 300 * 20 / 16  # not more than lengths and padding ask for


def test_padding_that_a_text_would_have_alone_does_not_cut_a_batch() -> None:
    """Lengths are rounded up to eights: 9 pieces are padded to 16 in a batch as by themselves."""
    texts = EncodedTexts(np.full(9 * 40, 5, np.int32), np.arange(41, dtype=np.int64) * 9)
    batches = TextBatches(texts, np.zeros(40, np.int64), Padding(32, multiple=8), batch_tokens=320, batch_padding=16)
    assert [len(labels) for _, labels in batches] == [20, 20]


@pytest.mark.parametrize("first_only", [True, False])
@pytest.mark.parametrize("on_disk", [False, True])
def test_states_are_computed_once(
    network: EncoderClassifier, first_only: bool, on_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, sequence_offsets, lengths = encoded()
    monkeypatch.setattr(frozen_states, "IN_MEMORY", 0 if on_disk else 1 << 20)
    calls = []

    def compute(tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        with torch.no_grad():
            return network.states(tokens)

    batches = TextBatches(
        texts, np.arange(10), Padding(12), batch_tokens=80, sequence_offsets=sequence_offsets, shuffle=True
    )
    stored = CachedStateBatches(batches, compute, 32, first_only=first_only)
    assert stored.cached
    assert stored.rows == 10
    passes = [list(stored) for _ in range(3)]
    assert sum(calls) == 30
    assert isinstance(stored._states, np.memmap) is on_disk
    for one_pass in passes:
        for states, mask, text_index, labels in one_pass:
            assert len(states) == len(mask) == len(text_index) == 3 * len(labels)
            for row, (state, seen) in enumerate(zip(states, mask, strict=True)):
                sequence = 3 * int(labels[int(text_index[row])]) + row % 3
                tokens = torch.from_numpy(texts[sequence].astype(np.int64))[None]
                with torch.no_grad():
                    alone = network.states(tokens)[0]
                kept = alone[:1] if first_only else alone
                assert int(seen.sum()) == len(kept) == (1 if first_only else lengths[sequence])
                assert torch.allclose(state[seen], kept, atol=1e-5)


def test_half_precision_and_a_part_of_each_state(network: EncoderClassifier) -> None:
    texts, sequence_offsets, _ = encoded()
    calls = []

    def compute(tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        with torch.no_grad():
            return network.states(tokens)

    batches = TextBatches(texts, np.arange(10), Padding(12), batch_tokens=80, sequence_offsets=sequence_offsets)
    stored = CachedStateBatches(batches, compute, 32, first_only=False, half=True)
    narrowed = stored.narrowed(5)
    computed, wide, narrow = list(stored), list(stored), list(narrowed)
    assert sum(calls) == 30  # what the one has computed, the other knows
    assert stored._states is not None
    assert stored._states.dtype == np.float16
    for one, again, part in zip(computed, wide, narrow, strict=True):
        assert torch.allclose(one[0][one[1]], again[0][again[1]], atol=2e-3)
        assert torch.equal(part[0], again[0][:, :, :5])
        assert part[0].dtype == torch.float32
    once = CachedStateBatches(batches, compute, 32, first_only=False, keep=False)
    assert not once.cached
    assert [batch[0].shape[2] for batch in once.narrowed(7)] == [7] * len(once)


def test_states_that_are_too_many_are_computed_again(
    network: EncoderClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, sequence_offsets, _ = encoded()
    monkeypatch.setattr(frozen_states, "IN_MEMORY", 0)
    monkeypatch.setattr(frozen_states, "ON_DISK", 0)
    calls = []

    def compute(tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        return network.states(tokens).detach()

    batches = TextBatches(texts, np.arange(10), Padding(12), batch_tokens=80, sequence_offsets=sequence_offsets)
    stored = CachedStateBatches(batches, compute, 32, first_only=True)
    assert not stored.cached
    assert all(states.shape[1] == 1 for states, *_ in list(stored) + list(stored))
    assert sum(calls) == 60


def test_a_frozen_group_stays_and_the_others_move(encoders: Encoders) -> None:
    """Norms of frozen layers too, which fastai by default trains; and each group has its rate."""
    network = load(encoders("bert"))
    texts, sequence_offsets, _ = encoded()
    batches = TextBatches(texts, np.arange(10) % 2, Padding(12), batch_tokens=80, sequence_offsets=sequence_offsets)
    learner = make_learner(
        network, batches, None, weight_decay=0.01, precision="float32", accumulate=5, gradient_clip=1.0
    )
    before = [[one.detach().clone() for one in group] for group in network.parameter_groups()]

    def moved() -> list[bool]:
        return [
            any(not torch.equal(one, other) for one, other in zip(group, old, strict=True))
            for group, old in zip(network.parameter_groups(), before, strict=True)
        ]

    entries = run_stages(learner, [Stage("head", 1, 1e-3, trainable="head")])
    assert moved() == [False, False, False, True]
    assert entries[0]["trainable"] == "head"
    run_stages(learner, [Stage("top", 1, 1e-3, trainable=2)])
    assert moved() == [False, False, True, True]
    run_stages(learner, [Stage("all", 1, 1e-3, decay=0.5)])
    assert moved() == [True, True, True, True]
    rates = [group["lr"] for group in learner.opt.opt.param_groups]
    assert len(rates) == 8
    assert rates[0] == pytest.approx(rates[7] / 8)
    decays = {group["weight_decay"] for group in learner.opt.opt.param_groups[1::2]}
    assert decays == {0.0}
    assert all(one.ndim > 1 for group in learner.opt.opt.param_groups[::2] for one in group["params"])


def test_accumulated_steps_count_every_text_the_same(encoders: Encoders) -> None:
    """Uneven batches add up to the gradient of all texts in one."""
    texts, sequence_offsets, _ = encoded()
    gradients = []
    for batch_tokens, accumulate in ((10_000, 0), (130, 10)):
        network = load(encoders("distilbert"))
        batches = TextBatches(
            texts, np.arange(10) % 2, Padding(12), batch_tokens=batch_tokens, sequence_offsets=sequence_offsets
        )
        assert (len(batches) > 1) == bool(accumulate)
        learner = make_learner(network, batches, None, precision="float32", accumulate=accumulate)
        step, found = learner._step, []
        learner._step = lambda step=step, found=found, network=network: (
            found.append(network.model.classifier.weight.grad.clone()),
            step(),
        )
        run_stages(learner, [Stage("s", 1, 1e-9)])
        assert len(found) == 1
        gradients += found
    assert torch.allclose(*gradients, atol=1e-6)


def test_batches_side_by_side_leave_torchs_threads(network: EncoderClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch has a core, and afterwards torch has as many as before, here and in threads to come."""
    seen = []

    def forward(ids: torch.Tensor) -> torch.Tensor:
        seen.append((threading.get_ident(), torch.get_num_threads(), ids.numel()))
        return whole(ids)

    whole = network.forward
    monkeypatch.setattr(network, "forward", forward)
    batches = [ids(rows)[:, :time].numpy() for rows, time in ((1, 3), (2, 6), (6, 12), (3, 9))]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = NetworkScorer(network.train()).score(iter(batches))
        with ThreadPoolExecutor(1) as pool:
            assert [torch.get_num_threads(), pool.submit(torch.get_num_threads).result()] == [2, 2]
    finally:
        torch.set_num_threads(before)
    assert network.training
    assert {threads for _, threads, _ in seen} == {1}
    assert threading.get_ident() not in {thread for thread, *_ in seen}
    assert max(size for *_, size in seen[:2]) == 72  # the largest is not left for the end
    network.eval()
    with torch.inference_mode():
        for got, tokens in zip(found, batches, strict=True):
            assert np.abs(got - whole(torch.from_numpy(tokens)).numpy()).max() < 1e-6
