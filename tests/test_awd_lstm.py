"""The AWD-LSTM against fastai's own modules and against autograd, and its promises about padding and freezing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from textladder.language_models import _from_fastai
from textladder.networks.awd_classifier import AWDClassifier, AWDTop
from textladder.networks.awd_lstm import AWDLSTM, LanguageModel, variational_dropout
from textladder.networks.next_word_loss import NextWordLoss, _LinearCrossEntropy
from textladder.networks.pooling import concat_pool

WORDS, DIMENSION, HIDDEN, LAYERS = 40, 12, 20, 3


def fastai_language_model(**shares: float) -> Any:
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
    from fastai.text.models.core import get_language_model

    names = ("hidden_p", "input_p", "embed_p", "weight_p", "output_p")
    config = {**awd_lstm_lm_config, "emb_sz": DIMENSION, "n_hid": HIDDEN, **dict.fromkeys(names, 0.0), **shares}
    return get_language_model(AWD_LSTM, WORDS, config)


def same_weights(theirs: Any) -> LanguageModel:
    """Our model with the weights of fastai's, through the names of its archive."""
    from pathlib import Path

    model = LanguageModel(AWDLSTM(WORDS, DIMENSION, HIDDEN, LAYERS))
    arrays = {name: value.numpy() for name, value in theirs.state_dict().items()}
    weights = _from_fastai(arrays, Path("theirs"))
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return model


def test_carries_its_state_on_as_fastais_does() -> None:
    torch.manual_seed(0)
    theirs = fastai_language_model().eval()
    ours = same_weights(theirs).eval()
    theirs.reset()
    for _ in range(2):  # the second batch continues where the first ended
        ids = torch.randint(2, WORDS, (5, 7))
        expected = theirs(ids)[0]
        states = ours(ids)
        scores = states @ ours.encoder.embedding.weight.T + ours.bias
        assert torch.allclose(scores, expected, atol=1e-5)
    ours.reset()
    assert not torch.allclose(ours(ids), states, atol=1e-3)


def test_gradients_are_fastais() -> None:
    torch.manual_seed(0)
    theirs = fastai_language_model().train()
    ours = same_weights(theirs).train()
    ids, following = torch.randint(2, WORDS, (5, 7)), torch.randint(2, WORDS, (5, 7))
    theirs.reset()
    nn.functional.cross_entropy(theirs(ids)[0].flatten(0, 1), following.flatten()).backward()
    NextWordLoss(ours)(ours(ids), following).backward()
    assert torch.allclose(ours.encoder.embedding.weight.grad, theirs[0].encoder.weight.grad, atol=1e-6)
    for lstm, other in zip(ours.encoder.lstms, theirs[0].rnns, strict=True):
        assert torch.allclose(lstm.weight_hh_l0.grad, other.weight_hh_l0_raw.grad, atol=1e-6)
        assert torch.allclose(lstm.weight_ih_l0.grad, other.module.weight_ih_l0.grad, atol=1e-6)


@pytest.mark.parametrize("rows", [3, 1300])
def test_loss_and_gradients_are_those_of_cross_entropy(rows: int) -> None:
    torch.manual_seed(0)
    given = [torch.randn(rows, 16), torch.randn(300, 16), torch.randn(300)]
    targets = torch.randint(0, 300, (rows,))
    states, weight, bias = (one.clone().requires_grad_() for one in given)
    loss = _LinearCrossEntropy.apply(states, weight, bias, targets, torch.float32)
    (3 * loss).backward()
    other = [one.clone().requires_grad_() for one in given]
    expected = nn.functional.cross_entropy(nn.functional.linear(*other), targets)
    (3 * expected).backward()
    assert torch.allclose(loss, expected, atol=1e-5)
    for one, another in zip((states, weight, bias), other, strict=True):
        assert one.grad is not None
        assert another.grad is not None
        assert torch.allclose(one.grad, another.grad, atol=1e-5)


def test_part_of_the_vocabulary_teaches_the_same() -> None:
    """The gradient of the states, averaged over draws, points where the whole vocabulary's does."""
    torch.manual_seed(0)
    words = 3000
    counts = 1 / (torch.arange(words) + 5.0)
    model = LanguageModel(AWDLSTM(words, DIMENSION, HIDDEN, 1))
    with torch.no_grad():
        model.encoder.embedding.weight.mul_(10)
        model.bias.copy_(torch.log(counts / counts.sum()))
    targets = torch.multinomial(counts, 200, replacement=True).view(10, 20)
    states = torch.randn(10, 20, DIMENSION)

    def gradient(loss: NextWordLoss) -> Tensor:
        trained = states.clone().requires_grad_()
        loss(trained, targets).backward()
        assert trained.grad is not None
        return trained.grad.flatten()

    part = NextWordLoss(model, counts, always=300, chance=500)
    assert part.shares is not None
    mean = torch.stack([gradient(part) for _ in range(60)]).mean(dim=0)
    whole = gradient(NextWordLoss(model))
    assert torch.cosine_similarity(mean, whole, dim=0) > 0.97
    assert (mean - whole).norm() < 0.05 * whole.norm()
    with torch.no_grad():  # in evaluation it is the full softmax
        assert torch.equal(part(states, targets), NextWordLoss(model)(states, targets))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_variational_dropout_drops_the_same_numbers_at_each_time(share: float) -> None:
    torch.manual_seed(0)
    out = variational_dropout(torch.ones(50, 9, 40), share, True)
    assert torch.equal(out[:, :1].expand_as(out), out)
    assert (out == 0).float().mean() == pytest.approx(share, abs=0.05)
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(variational_dropout(out, share, False), out)


def test_embedding_dropout_drops_a_word_wherever_it_occurs() -> None:
    torch.manual_seed(0)
    encoder = AWDLSTM(WORDS, DIMENSION, HIDDEN, 1).train()
    encoder.set_dropout(embedding=0.5, input=0.0, hidden=0.0, weight=0.0)
    ids = torch.randint(2, WORDS, (30, 30))
    gone = encoder.embed(ids).abs().sum(dim=2) == 0
    for word in range(2, WORDS):
        assert len(gone[ids == word].unique()) == 1
    assert 0.2 < gone.float().mean() < 0.8


def test_weight_dropout_differs_in_training_alone() -> None:
    torch.manual_seed(0)
    encoder = AWDLSTM(WORDS, DIMENSION, HIDDEN, LAYERS)
    encoder.set_dropout(embedding=0.0, input=0.0, hidden=0.0, weight=0.5)
    ids = torch.randint(2, WORDS, (4, 9))
    encoder.train()
    assert not torch.allclose(encoder(ids)[0], encoder(ids)[0])
    encoder.eval()
    assert torch.equal(encoder(ids)[0], encoder(ids)[0])
    encoder.train()
    encoder.set_dropout(embedding=0.0, input=0.0, hidden=0.0, weight=0.0)
    assert torch.allclose(encoder(ids)[0], encoder.eval()(ids)[0], atol=1e-6)


def test_pooling_sees_no_padding() -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 6, 4)
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    pooled = concat_pool(states, mask)
    alone = concat_pool(states[:1, :4], mask[:1, :4])
    assert torch.allclose(pooled[:1], alone)
    expected = torch.cat([states[0, 3], states[0, :4].amax(dim=0), states[0, :4].mean(dim=0)])
    assert torch.allclose(pooled[0], expected)


def classifier(pooling: str = "layers", backward_size: int = 0) -> AWDClassifier:
    torch.manual_seed(0)
    encoder = AWDLSTM(WORDS, DIMENSION, HIDDEN, LAYERS, backward_size)
    encoder.set_dropout(embedding=0.1, input=0.1, hidden=0.3, weight=0.1)
    return AWDClassifier(encoder, 2, pooling=pooling, pooled_dropout=0.2, head_dropout=0.1).eval()


KINDS = pytest.mark.parametrize(("pooling", "backward_size"), [("concat", 0), ("layers", 0), ("layers", 14)])


def test_a_batch_of_one_text_can_be_trained_on() -> None:
    network = classifier("concat").train()
    mean = network.head[0].running_mean.clone()
    network(torch.tensor([[2, 3, 4]])).sum().backward()
    assert torch.equal(network.head[0].running_mean, mean)
    network(torch.tensor([[2, 3, 4], [5, 6, 7]])).sum().backward()
    assert not torch.equal(network.head[0].running_mean, mean)


@KINDS
def test_batch_mates_and_padding_change_nothing(pooling: str, backward_size: int) -> None:
    network = classifier(pooling, backward_size)
    rng = np.random.default_rng(0)
    texts = [torch.from_numpy(rng.integers(2, WORDS, length)) for length in (1, 30, 7)]
    together = network(nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1))
    alone = torch.cat([network(text[None]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_second_stack_reads_from_right_to_left() -> None:
    """A state of it knows the words behind, and stands at the word that it has read last."""
    encoder = classifier("layers", 14).encoder
    ids = torch.tensor([[2, 10, 11, 12, 13, 1, 1]])
    mask = ids != 1

    def levels(ids: Tensor) -> Tensor:
        return encoder.all_layers(encoder.embed(ids), mask)

    before, sizes = levels(ids), encoder.layer_widths
    assert before.shape == (1, 7, sum(sizes))
    last, ahead = sizes[0] + HIDDEN, sizes[0]
    changed = levels(torch.tensor([[2, 10, 11, 30, 13, 1, 1]]))
    moved = (before - changed).abs()
    forward, backward = moved[0, :, ahead:last].amax(dim=1) > 0, moved[0, :, last : last + 14].amax(dim=1) > 0
    assert forward.tolist()[:5] == [False, False, False, True, True]
    assert backward.tolist()[:5] == [False, True, True, True, False]  # the first word says that a text begins
    turned = encoder(torch.tensor([[2, 13, 12, 11, 10]]), backward=True)[0]
    assert torch.allclose(turned[0, 1:].flip(0), before[0, 1:5, -DIMENSION:], atol=1e-6)


@KINDS
@pytest.mark.parametrize("first", range(LAYERS + 1))
def test_the_upper_part_on_known_states_is_the_whole(first: int, pooling: str, backward_size: int) -> None:
    network = classifier(pooling, backward_size)
    ids = torch.randint(2, WORDS, (5, 9))
    ids[0, 6:] = 1
    top = AWDTop(network, first).eval()
    states = top.below(ids)
    assert states.shape[2] == top.width
    assert torch.allclose(top(states, ids != 1), network(ids), atol=1e-6)
    trained = {id(one) for group in top.parameter_groups() for one in group}
    assert trained == {id(one) for group in network.parameter_groups()[first + 1 :] for one in group}
    assert len(top.parameter_groups()) == LAYERS - first + 1
