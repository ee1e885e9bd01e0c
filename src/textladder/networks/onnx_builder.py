"""Building ONNX graphs operator by operator, from the weights of torch modules.

`GraphBuilder` knows nothing of networks; `SequenceGraph` adds what networks over token ids share: the mask, reading a
text from its end, recurrent layers and poolings. One graph serves any length and any batch size.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from torch import nn

OPSET, IR_VERSION = 17, 8  # old enough for every runtime of recent years
# ONNX's order of the gates in torch's numbering. torch: input, forget, cell, output; ONNX: input, output, forget, cell.
# GRU: reset, update, new; update, reset, new.
GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
Weights = Mapping[str, np.ndarray]


class GraphBuilder:
    """Operators in the order in which they are added; each is referred to by the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: np.ndarray | list[int] | float) -> str:
        """Add an array or a number; floats become float32, integers int64."""
        array = np.asarray(value)
        array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return the name of its first output."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator and return the names of its first `outputs` outputs."""
        names = [f"{operator.lower()}{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def linear(self, inputs: str, layer: "nn.Module") -> str:
        """Add a torch linear layer, with or without a bias."""
        weights = arrays(layer)
        product = self.add("MatMul", inputs, self.constant(weights["weight"].T))
        return self.add("Add", product, self.constant(weights["bias"])) if "bias" in weights else product

    def concat(self, parts: Sequence[str]) -> str:
        """Concatenate along the last axis."""
        return self.add("Concat", *parts, axis=-1)

    def model(self, inputs: Sequence[tuple[str, int, Sequence[str]]], logits: str, classes: int) -> ModelProto:
        """The finished graph.

        Args:
            inputs: name, type and names of the dimensions of each input.
            logits: name of the output that holds the logits.
            classes: number of classes.
        """
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        graph = helper.make_graph(
            self.nodes,
            "textladder",
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [inputs[0][2][0], classes])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


class SequenceGraph(GraphBuilder):
    """A graph over token ids, with a mask and the reversed texts; time is the first axis of everything in it.

    Args:
        vectors: the word vectors, (words, dimension).
        pad_id: id of the padding token.
        first_stays: a reversed text keeps its first token in place, because that token marks the beginning of a text.
    """

    def __init__(self, vectors: np.ndarray, pad_id: int, *, first_stays: bool = False) -> None:
        super().__init__()
        self.ids = self.add("Transpose", "ids", perm=[1, 0])  # (time, sequences)
        mask = self.add("Not", self.add("Equal", self.ids, self.constant(pad_id)))
        self.mask = self.add("Unsqueeze", mask, self.constant([2]))
        self.mask_as_float = self.add("Cast", self.mask, to=TensorProto.FLOAT)
        self.lengths = self.add("ReduceSum", self.add("Cast", mask, to=TensorProto.INT64), self.constant([0]))
        zero, one = self.constant(0), self.constant(1)
        time = self.add("Gather", self.add("Shape", self.ids), zero)
        self.positions = self.add("Unsqueeze", self.add("Range", zero, time, one), self.constant([1]))  # (time, 1)
        reverse = self.add("Sub", self.lengths, self.add("Add", self.positions, zero if first_stays else one))
        inside = self.add("Less", self.positions, self.lengths)
        if first_stays:
            inside = self.add("And", inside, self.add("Greater", self.positions, zero))
        self.order = self.add("Where", inside, reverse, self.positions)
        self.matrix = self.constant(vectors)
        self.words = self.add("Gather", self.matrix, self.ids)

    def reversed_words(self) -> str:
        """The word vectors of each text in reverse order, padding still last."""
        return self.add("Gather", self.matrix, self.reversed(self.ids))

    def reversed(self, table: str) -> str:
        """A table (time, sequences) with each text reversed; reversing twice restores it."""
        return self.add("GatherElements", table, self.order, axis=0)

    def recurrent(self, cell: str, inputs: str, weights: Sequence[np.ndarray]) -> tuple[str, str]:
        """Add one recurrent layer.

        Args:
            cell: `LSTM` or `GRU`.
            inputs: (time, sequences, width).
            weights: torch's `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh` of the layer.

        Returns:
            All states, (time, sequences, hidden), and the last ones, (1, sequences, hidden).
        """
        hidden = weights[1].shape[1]
        inner, recurrent, *biases = (_reordered(one, hidden, GATE_ORDER[cell]) for one in weights)
        constants = [self.constant(one[None]) for one in (inner, recurrent, np.concatenate(biases))]
        # as torch does, a GRU multiplies the recurrent weights before it resets
        options = {"linear_before_reset": 1} if cell == "GRU" else {}
        states, last = self.add_many(cell, 2, inputs, *constants, hidden_size=hidden, **options)
        return self.add("Squeeze", states, self.constant([1])), last

    def mean(self, states: str) -> str:
        """The mean of each text's states, (sequences, width)."""
        total = self.add("ReduceSum", self.add("Mul", states, self.mask_as_float), self.constant([0]), keepdims=0)
        lengths = self.add("Cast", self.add("Max", self.lengths, self.constant(1)), to=TensorProto.FLOAT)
        return self.add("Div", total, self.add("Transpose", lengths, perm=[1, 0]))

    def maximum(self, states: str) -> str:
        """The elementwise maximum of each text's states, (sequences, width)."""
        return self.add("ReduceMax", self._masked(states), axes=[0], keepdims=0)

    def last_state(self, states: str) -> str:
        """Each text's last state, (sequences, width)."""
        is_last = self.add("Equal", self.positions, self.add("Sub", self.lengths, self.constant(1)))
        chosen = self.add("Cast", self.add("Unsqueeze", is_last, self.constant([2])), to=TensorProto.FLOAT)
        return self.add("ReduceSum", self.add("Mul", states, chosen), self.constant([0]), keepdims=0)

    def attention_mean(self, parts: Sequence[tuple[str, int, bool]], attention: "nn.Module") -> list[str]:
        """The attention mean of states that are given in parts.

        Args:
            parts: states, their width, and whether they belong to reversed texts, whose scores are reversed back.
            attention: the linear layer that scores all parts side by side.

        Returns:
            The mean of each part, (sequences, width).
        """
        weights = arrays(attention)
        scores, begin = self.constant(weights["bias"]), 0
        for states, width, is_reversed in parts:
            weight = self.constant(weights["weight"][:, begin : begin + width].T)
            of_part = self.add("MatMul", states, weight)
            scores = self.add("Add", scores, self._reversed_3d(of_part) if is_reversed else of_part)
            begin += width
        shares = self.add("Softmax", self._masked(scores), axis=0)
        means = []
        for states, _, is_reversed in parts:
            weighted = self.add("Mul", states, self._reversed_3d(shares) if is_reversed else shares)
            means.append(self.add("ReduceSum", weighted, self.constant([0]), keepdims=0))
        return means

    def _masked(self, states: str) -> str:
        return self.add("Where", self.mask, states, self.constant(-np.inf))

    def _reversed_3d(self, table: str) -> str:
        axis = self.constant([2])
        return self.add("Unsqueeze", self.reversed(self.add("Squeeze", table, axis)), axis)


def arrays(module: "nn.Module") -> Weights:
    """A module's weights by name."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def _reordered(weights: np.ndarray, hidden: int, order: Sequence[int]) -> np.ndarray:
    """The gates' blocks of `hidden` rows, in another order."""
    return np.concatenate([weights[gate * hidden : (gate + 1) * hidden] for gate in order])
