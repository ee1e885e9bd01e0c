"""`LSTMClassifier` against torch's own layers on packed sequences, with and without padding."""

import pytest
import torch
from torch import nn

from textladder import LSTMClassifier, TextladderError
from textladder.errors import ConfigError
from textladder.networks.onnx_graphs import lstm_graph
from textladder.networks.pooling import attention_mean, last_state, maximum, mean


def make(**options: object) -> LSTMClassifier:
    torch.manual_seed(0)
    return LSTMClassifier(30, 6, 3, hidden_size=5, **options).eval()  # type: ignore[arg-type]


def batch() -> tuple[torch.Tensor, list[int]]:
    lengths = [7, 1, 4, 3]
    ids = torch.full((4, 7), 1)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(2, 30, (length,), generator=torch.Generator().manual_seed(row))
    return ids, lengths


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_states_equal_a_packed_bidirectional_network(cell: str) -> None:
    network = make(pooling=("mean", "max"), cell=cell)
    ids, lengths = batch()
    packed_network = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](6, 5, batch_first=True, bidirectional=True)
    weights = dict(network.forward_lstm.state_dict())
    assert network.backward_lstm is not None
    weights |= {f"{name}_reverse": value for name, value in network.backward_lstm.state_dict().items()}
    packed_network.load_state_dict(weights)
    packed = nn.utils.rnn.pack_padded_sequence(network.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
    states, _ = nn.utils.rnn.pad_packed_sequence(packed_network(packed)[0], batch_first=True)
    rows = [states[row, :length] for row, length in enumerate(lengths)]
    pooled = torch.cat(
        [torch.stack([row.mean(0) for row in rows]), torch.stack([row.max(0).values for row in rows])], 1
    )
    assert torch.allclose(network(ids), network.head(pooled), atol=1e-6)


@pytest.mark.parametrize("pooling", [("mean",), ("max",), ("attention",), ("mean", "max", "attention")])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pool_embeddings", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_changes_nothing(
    cell: str, pooling: tuple[str, ...], layers: int, bidirectional: bool, pool_embeddings: bool
) -> None:
    sizes = {"layers": layers, "bidirectional": bidirectional, "pool_embeddings": pool_embeddings}
    network = make(cell=cell, pooling=pooling, **sizes)
    ids, lengths = batch()
    longer = torch.cat([ids, torch.full((4, 9), 1)], dim=1)
    assert torch.allclose(network(ids), network(longer), atol=1e-6)
    for row, length in enumerate(lengths):
        assert torch.allclose(network(ids[row : row + 1, :length]), network(ids)[row : row + 1], atol=1e-6)


class Attention(nn.Module):
    """Attention from outside, with weights of its own."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = self.score(states).masked_fill(~mask[:, :, None], -torch.inf).softmax(dim=1)
        return (weights * states).sum(dim=1)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown pooling 'maximum'. Available: mean, max, attention, last."):
        make(pooling=("mean", "maximum"))


def test_a_pooling_of_ones_own() -> None:
    def mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    ids, _ = batch()
    built_in, own = make(pooling=("mean", "attention")), make(pooling=(mean, Attention()))
    weights = built_in.state_dict()
    own.load_state_dict({name.replace("attention", "own_poolings.0.score"): one for name, one in weights.items()})
    assert torch.allclose(own(ids), built_in(ids), atol=1e-6)
    own(ids).sum().backward()
    assert all(one.grad is not None for one in own.own_poolings.parameters())
    with pytest.raises(TextladderError, match="custom pooling cannot be exported to ONNX"):
        lstm_graph(own, 3)


def test_the_last_state_does_read_padding() -> None:
    """What the tutorial's network does, and why its texts all have the same length."""
    network = make(pooling=("last",), bidirectional=False)
    ids, _ = batch()
    longer = torch.cat([ids, torch.full((4, 9), 1)], dim=1)
    assert not torch.allclose(network(ids), network(longer), atol=1e-3)


@pytest.mark.parametrize(("words", "parameters"), [(2891, 373_262), (7591, 843_262)])
def test_the_tutorials_network_has_its_size(words: int, parameters: int) -> None:
    network = LSTMClassifier(
        words, 100, 2, hidden_size=64, layers=2, bidirectional=False, pooling=("last",), head_size=64
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_tutorials_network_is_h_n_through_its_head(cell: str) -> None:
    network = make(cell=cell, layers=2, bidirectional=False, pooling=("last",), head_size=4)
    ids, _ = batch()
    _, states = network.forward_lstm(network.embedding(ids))
    states = states[0] if cell == "lstm" else states
    assert torch.equal(network(ids), network.head(states.permute(1, 0, 2).flatten(start_dim=1)))


def test_poolings_of_each_text_by_itself() -> None:
    torch.manual_seed(0)
    states, scores, lengths = torch.randn(3, 6, 4), torch.randn(3, 6, 1), [4, 1, 6]
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    for row, length in enumerate(lengths):
        own = states[row, :length]
        weights = torch.softmax(scores[row, :length], dim=0)
        assert torch.allclose(mean(states, mask)[row], own.mean(dim=0), atol=1e-6)
        assert torch.equal(maximum(states, mask)[row], own.amax(dim=0))
        assert torch.equal(last_state(states, mask)[row], own[-1])
        assert torch.allclose(attention_mean(states, scores, mask)[row], (weights * own).sum(dim=0), atol=1e-6)


def test_an_unknown_cell() -> None:
    with pytest.raises(ConfigError, match="Unknown cell 'gur'. Available: lstm, gru. Did you mean 'gru'?"):
        make(cell="gur")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_groups_hold_every_parameter_once_from_the_bottom_up(cell: str, bidirectional: bool) -> None:
    network = make(cell=cell, bidirectional=bidirectional, pooling=("attention", Attention(10 if bidirectional else 5)))
    groups = network.parameter_groups()
    ids = [id(parameter) for group in groups for parameter in group]
    assert sorted(ids) == sorted(id(parameter) for parameter in network.parameters())
    names = {id(parameter): name.split(".")[0] for name, parameter in network.named_parameters()}
    of_groups = [{names[id(parameter)] for parameter in group} for group in groups]
    assert of_groups[0] == {"embedding"}
    assert of_groups[1] == {"forward_lstm", *(["backward_lstm"] if bidirectional else [])}
    assert of_groups[2] == {"attention", "own_poolings", "head"}


def test_embedding_dropout_is_the_same_for_all_tokens_of_a_text() -> None:
    network = make(embedding_dropout=0.5).train()
    vectors = network._drop_embeddings(torch.ones(4, 7, 6))
    assert set(vectors.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(vectors[:, :1].expand_as(vectors), vectors)
