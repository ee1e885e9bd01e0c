"""The networks as ONNX graphs: the same numbers from the same weights, for a runtime that is not torch.

LSTMs and pooling are written down operator by operator, so that one graph holds for any length and any batch; a
transformer is traced by torch, fused by ONNX Runtime's optimizer, and made quicker (`quick_graphs`). Each graph takes
`ids`, int64 (sequences, time), and gives `logits`, float32 (sequences, classes); that of `tfidf` takes which terms
occur and how much each counts.
"""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from textladder.errors import TextladderError
from textladder.networks.onnx_rewrites import quick_norms, spare_states

if TYPE_CHECKING:
    from torch import nn

    from textladder.networks.awd_classifier import AWDClassifier
    from textladder.networks.encoder import EncoderClassifier
    from textladder.networks.lstm import LSTMClassifier

OPSET, IR_VERSION = 17, 8  # old enough for every runtime of the last years
Weights = Mapping[str, np.ndarray]


class _Graph:
    """Operators in the order in which they are added; each is known by the name of what it gives."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: np.ndarray | list[int] | float) -> str:
        """Weights, numbers or a number; floats are float32 and whole numbers int64."""
        array = np.asarray(value)
        array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One more operator; the name of its first output."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """The same, where several outputs are wanted."""
        names = [f"{operator.lower()}{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def model(self, inputs: Sequence[tuple[str, int, Sequence[str]]], logits: str, classes: int) -> ModelProto:
        """The whole, from inputs (name, type, names of the dimensions) to the logits."""
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        graph = helper.make_graph(
            self.nodes,
            "textladder",
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [inputs[0][2][0], classes])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


IDS = [("ids", TensorProto.INT64, ("sequences", "time"))]
LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Texts(_Graph):
    """A graph over token numbers: where there is text, and the same texts from their ends; time comes first.

    Args:
        vectors: the word vectors, (words, dimension).
        pad_id: the number that fills up.
        first_stays: the first token stays where it is when a text is turned, because it says that a text begins.
    """

    def __init__(self, vectors: np.ndarray, pad_id: int, *, first_stays: bool = False) -> None:
        super().__init__()
        self.ids = self.add("Transpose", "ids", perm=[1, 0])  # (time, sequences), as everything below
        there = self.add("Not", self.add("Equal", self.ids, self.constant(pad_id)))
        self.there = self.add("Unsqueeze", there, self.constant([2]))
        self.shares = self.add("Cast", self.there, to=TensorProto.FLOAT)
        self.counts = self.add("ReduceSum", self.add("Cast", there, to=TensorProto.INT64), self.constant([0]))
        zero, one = self.constant(0), self.constant(1)
        time = self.add("Gather", self.add("Shape", self.ids), zero)
        self.places = self.add("Unsqueeze", self.add("Range", zero, time, one), self.constant([1]))  # (time, 1)
        turned = self.add("Sub", self.counts, self.add("Add", self.places, zero if first_stays else one))
        inside = self.add("Less", self.places, self.counts)
        if first_stays:
            inside = self.add("And", inside, self.add("Greater", self.places, zero))
        self.order = self.add("Where", inside, turned, self.places)
        self.matrix = self.constant(vectors)
        self.words = self.add("Gather", self.matrix, self.ids)

    def turned_words(self) -> str:
        """The word vectors of each text from its end, the padding still behind it."""
        return self.add("Gather", self.matrix, self.turned(self.ids))

    def turned(self, table: str) -> str:
        """A table (time, sequences) with each text turned; turned twice it is as it was."""
        return self.add("GatherElements", table, self.order, axis=0)

    def lstm(self, inputs: str, weights: Sequence[np.ndarray]) -> tuple[str, str]:
        """States, (time, sequences, hidden), and the last ones, (1, sequences, hidden), from torch's weights."""
        hidden = weights[1].shape[1]
        inner, recurrent, *biases = (_gates(one, hidden) for one in weights)
        kept = [self.constant(one[None]) for one in (inner, recurrent, np.concatenate(biases))]
        states, last = self.add_many("LSTM", 2, inputs, *kept, hidden_size=hidden)
        return self.add("Squeeze", states, self.constant([1])), last

    def mean(self, states: str) -> str:
        """Of each text's states, (sequences, width)."""
        total = self.add("ReduceSum", self.add("Mul", states, self.shares), self.constant([0]), keepdims=0)
        counts = self.add("Cast", self.add("Max", self.counts, self.constant(1)), to=TensorProto.FLOAT)
        return self.add("Div", total, self.add("Transpose", counts, perm=[1, 0]))

    def maximum(self, states: str) -> str:
        """Of each text's states, (sequences, width)."""
        return self.add("ReduceMax", self._masked(states), axes=[0], keepdims=0)

    def last(self, states: str) -> str:
        """Each text's last state, (sequences, width)."""
        is_last = self.add("Equal", self.places, self.add("Sub", self.counts, self.constant(1)))
        chosen = self.add("Cast", self.add("Unsqueeze", is_last, self.constant([2])), to=TensorProto.FLOAT)
        return self.add("ReduceSum", self.add("Mul", states, chosen), self.constant([0]), keepdims=0)

    def attended(self, parts: "Sequence[tuple[str, int, bool]]", weight: np.ndarray, bias: np.ndarray) -> list[str]:
        """The attention mean of states that lie in parts, of each part (sequences, width).

        Args:
            parts: states, their width, and whether they are of turned texts, which scores are turned back for.
            weight: of the scores, (1, sum of the widths).
            bias: of the scores, (1,).
        """
        scores, begin = self.constant(bias), 0
        for states, width, turned in parts:
            of_part = self.add("MatMul", states, self.constant(weight[:, begin : begin + width].T))
            scores = self.add("Add", scores, self._turned_3d(of_part) if turned else of_part)
            begin += width
        weights = self.add("Softmax", self._masked(scores), axis=0)
        found = []
        for states, _, turned in parts:
            weighted = self.add("Mul", states, self._turned_3d(weights) if turned else weights)
            found.append(self.add("ReduceSum", weighted, self.constant([0]), keepdims=0))
        return found

    def linear(self, inputs: str, layer: "nn.Module") -> str:
        """A torch linear layer, with or without a bias."""
        weights = _arrays(layer)
        product = self.add("MatMul", inputs, self.constant(weights["weight"].T))
        return self.add("Add", product, self.constant(weights["bias"])) if "bias" in weights else product

    def concat(self, parts: Sequence[str]) -> str:
        """Side by side."""
        return self.add("Concat", *parts, axis=-1)

    def _masked(self, states: str) -> str:
        return self.add("Where", self.there, states, self.constant(-np.inf))

    def _turned_3d(self, table: str) -> str:
        axis = self.constant([2])
        return self.add("Unsqueeze", self.turned(self.add("Squeeze", table, axis)), axis)


def lstm_graph(network: "LSTMClassifier", classes: int) -> ModelProto:
    """The graph of the level `lstm`."""
    vectors = _arrays(network.embedding)["weight"]
    graph = _Texts(vectors, network.pad_id)
    parts: list[tuple[str, int, bool]] = []
    last: list[str] = []
    for stack in (network.forward_lstm, network.backward_lstm):
        if stack is None:
            continue
        turned = stack is network.backward_lstm
        states, weights = graph.turned_words() if turned else graph.words, _arrays(stack)
        for number in range(stack.num_layers):
            states, end = graph.lstm(states, [weights[f"{name}_l{number}"] for name in LSTM_WEIGHTS])
            last.append(graph.add("Squeeze", end, graph.constant([0])))
        parts.append((states, stack.hidden_size, turned))
    pooled: list[str] = []
    for name in network.pooling:
        if name == "last":
            pooled += last
        elif name == "attention":
            assert network.attention is not None
            weights = _arrays(network.attention)
            pooled += graph.attended(parts, weights["weight"], weights["bias"])
        elif name in ("mean", "max"):
            pooled += [graph.mean(states) if name == "mean" else graph.maximum(states) for states, _, _ in parts]
        else:
            raise TextladderError(f"A pooling of your own has no ONNX form; received {name!r}.")
    if network.pool_embeddings:
        pooled += [graph.mean(graph.words), graph.maximum(graph.words)]
    *hidden, output = _linear_layers(network.head)
    logits = graph.concat(pooled)
    for layer in hidden:
        logits = graph.add("Relu", graph.linear(logits, layer))
    return graph.model(IDS, graph.linear(logits, output), classes)


def awd_graph(network: "AWDClassifier", classes: int) -> ModelProto:
    """The graph of the level `ulmfit`."""
    from textladder.networks.awd_classifier import AttentionHead

    encoder = network.encoder
    graph = _Texts(_arrays(encoder.embedding)["weight"], encoder.pad_id, first_stays=True)
    levels: list[list[tuple[str, int, bool]]] = [[(graph.words, encoder.embedding.embedding_dim, False)]]
    for stack in (encoder.lstms, encoder.backward_lstms):
        if not len(stack):
            continue
        turned = stack is encoder.backward_lstms
        states = graph.turned_words() if turned else graph.words
        for number, lstm in enumerate(stack, start=1):
            weights = _arrays(lstm)
            states, _ = graph.lstm(states, [weights[f"{name}_l0"] for name in LSTM_WEIGHTS])
            if number == len(levels):
                levels.append([])
            levels[number].append((states, stack.widths[number], turned))
    if isinstance(network.head, AttentionHead):
        parts = [part for level in levels for part in level]
        weights = _arrays(network.head.attention)
        pooled = [graph.maximum(states) for states, _, _ in parts] + [graph.mean(states) for states, _, _ in parts]
        pooled += graph.attended(parts, weights["weight"], weights["bias"])
        return graph.model(IDS, graph.linear(graph.concat(pooled), network.head.linear), classes)
    states = levels[-1][0][0]
    logits = graph.concat([graph.last(states), graph.maximum(states), graph.mean(states)])
    layer: Any
    for layer in network.head.children():
        weights = _arrays(layer)
        if "running_mean" in weights:
            names = ("weight", "bias", "running_mean", "running_var")
            norm = [graph.constant(weights[name]) for name in names]
            logits = graph.add("BatchNormalization", logits, *norm, epsilon=layer.eps)
        elif "weight" in weights:
            logits = graph.linear(logits, layer)
        elif type(layer).__name__ == "ReLU":
            logits = graph.add("Relu", logits)
    return graph.model(IDS, logits, classes)


def encoder_graph(network: "EncoderClassifier") -> ModelProto:
    """The graph of the level `transformer`: traced with plain attention, which the optimizer knows how to fuse."""
    import onnx
    import torch
    from onnxruntime.transformers.optimizer import optimize_model

    model: Any = network.model
    attention = model.config._attn_implementation
    ids = torch.full((2, 8), network.pad_id)
    ids[:, :6] = torch.arange(6, 12)  # with padding, which a mask is made for
    ids[1, 5] = network.pad_id
    training = network.training
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = Path(folder, "traced.onnx")
        try:
            model.set_attn_implementation("eager")
            torch.onnx.export(
                network.eval(),
                (ids,),
                str(traced),
                input_names=["ids"],
                output_names=["logits"],
                dynamic_axes={"ids": {0: "sequences", 1: "time"}, "logits": {0: "sequences"}},
                opset_version=OPSET,
                dynamo=False,  # quicker, and the optimizer knows its patterns
            )
        finally:
            model.set_attn_implementation(attention)
            network.train(training)
        heads, size = getattr(model.config, "num_attention_heads", 0), getattr(model.config, "hidden_size", 0)
        fused = Path(folder, "fused.onnx")
        optimize_model(
            str(traced), model_type="bert", num_heads=heads, hidden_size=size, opt_level=0
        ).save_model_to_file(str(fused))
        graph: ModelProto = onnx.load(fused)
    spare_states(graph)
    quick_norms(graph)
    return graph


def linear_graph(weights: np.ndarray, bias: np.ndarray, classes: int) -> ModelProto:
    """The graph of the level `tfidf`: the weights, (terms, classes), of what occurs, times how much it counts.

    It takes `terms`, int64 (texts, terms), and `values`, float32 (texts, terms).
    """
    graph = _Graph()
    rows = graph.add("Gather", graph.constant(weights), "terms")  # (texts, terms, classes)
    values = graph.add("Unsqueeze", "values", graph.constant([1]))  # (texts, 1, terms)
    scores = graph.add("Squeeze", graph.add("MatMul", values, rows), graph.constant([1]))
    shape = ("texts", "terms")
    inputs = [("terms", TensorProto.INT64, shape), ("values", TensorProto.FLOAT, shape)]
    return graph.model(inputs, graph.add("Add", scores, graph.constant(bias)), classes)


def _gates(weights: np.ndarray, hidden: int) -> np.ndarray:
    """From torch's order of the gates (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    gates = [weights[place * hidden : (place + 1) * hidden] for place in (0, 3, 1, 2)]
    return np.concatenate(gates)


def _arrays(module: "nn.Module") -> Weights:
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def _linear_layers(head: "nn.Module") -> list["nn.Module"]:
    """The layers of a head that have weights, in their order."""
    return [module for module in head.modules() if not list(module.children()) and list(module.parameters())]
