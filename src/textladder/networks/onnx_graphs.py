"""The networks as ONNX graphs, which compute the same logits from the same weights without torch.

Recurrent networks are built operator by operator, because tracing them unrolls time. A transformer is traced by torch,
fused by ONNX Runtime's optimizer, and sped up by `onnx_rewrites`. Each graph takes `ids`, int64 (sequences, time), and
returns `logits`, float32 (sequences, classes); that of `tfidf` takes the terms of each text and their values.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto

from textladder.errors import TextladderError
from textladder.networks.onnx_builder import OPSET, GraphBuilder, SequenceGraph, arrays
from textladder.networks.onnx_rewrites import keep_first_state, split_layer_norms

if TYPE_CHECKING:
    from torch import nn

    from textladder.networks.awd_classifier import AWDClassifier
    from textladder.networks.encoder import EncoderClassifier
    from textladder.networks.lstm import LSTMClassifier

IDS = [("ids", TensorProto.INT64, ("sequences", "time"))]
RECURRENT_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
Parts = list[tuple[str, int, bool]]  # states, their width, and whether they belong to reversed texts


def lstm_graph(network: "LSTMClassifier", classes: int) -> ModelProto:
    """The graph of the level `lstm`, with either recurrent cell.

    Raises:
        TextladderError: the network has a pooling that is not one of its own.
    """
    graph = SequenceGraph(arrays(network.embedding)["weight"], network.pad_id)
    parts: Parts = []
    last: list[str] = []
    for stack in (network.forward_lstm, network.backward_lstm):
        if stack is None:
            continue
        is_reversed = stack is network.backward_lstm
        states, weights = graph.reversed_words() if is_reversed else graph.words, arrays(stack)
        for number in range(stack.num_layers):
            of_layer = [weights[f"{name}_l{number}"] for name in RECURRENT_WEIGHTS]
            states, end = graph.recurrent(stack.mode, states, of_layer)
            last.append(graph.add("Squeeze", end, graph.constant([0])))
        parts.append((states, stack.hidden_size, is_reversed))
    logits = graph.concat(_pooled(graph, network, parts, last))
    *hidden, output = _linear_layers(network.head)
    for layer in hidden:
        logits = graph.add("Relu", graph.linear(logits, layer))
    return graph.model(IDS, graph.linear(logits, output), classes)


def _pooled(graph: SequenceGraph, network: "LSTMClassifier", parts: Parts, last: list[str]) -> list[str]:
    """The vectors that the head of an `LSTMClassifier` reads, in their order."""
    pooled: list[str] = []
    for name in network.pooling:
        if name == "last":
            pooled += last
        elif name == "attention":
            assert network.attention is not None
            pooled += graph.attention_mean(parts, network.attention)
        elif name in ("mean", "max"):
            pooled += [graph.mean(states) if name == "mean" else graph.maximum(states) for states, _, _ in parts]
        else:
            raise TextladderError(f"A custom pooling cannot be exported to ONNX; received {name!r}.")
    if network.pool_embeddings:
        pooled += [graph.mean(graph.words), graph.maximum(graph.words)]
    return pooled


def awd_graph(network: "AWDClassifier", classes: int) -> ModelProto:
    """The graph of the level `ulmfit`."""
    from textladder.networks.awd_classifier import AttentionHead

    encoder = network.encoder
    graph = SequenceGraph(arrays(encoder.embedding)["weight"], encoder.pad_id, first_stays=True)
    layers: list[Parts] = [[(graph.words, encoder.embedding.embedding_dim, False)]]
    layers += [[] for _ in encoder.lstms]
    for stack in (encoder.lstms, encoder.backward_lstms):
        if not len(stack):
            continue
        is_reversed = stack is encoder.backward_lstms
        states = graph.reversed_words() if is_reversed else graph.words
        for number, lstm in enumerate(stack, start=1):
            weights = arrays(lstm)
            states, _ = graph.recurrent("LSTM", states, [weights[f"{name}_l0"] for name in RECURRENT_WEIGHTS])
            layers[number].append((states, stack.widths[number], is_reversed))
    if not isinstance(network.head, AttentionHead):
        top = layers[-1][0][0]
        pooled = [graph.last_state(top), graph.maximum(top), graph.mean(top)]
        return graph.model(IDS, _concat_head(graph, network.head, graph.concat(pooled)), classes)
    parts = [part for layer in layers for part in layer]
    pooled = [graph.maximum(states) for states, _, _ in parts] + [graph.mean(states) for states, _, _ in parts]
    pooled += graph.attention_mean(parts, network.head.attention)
    return graph.model(IDS, graph.linear(graph.concat(pooled), network.head.linear), classes)


def _concat_head(graph: SequenceGraph, head: "nn.Module", inputs: str) -> str:
    """The head on concat pooling: batch norms, linear layers and a ReLU; its dropout does nothing here."""
    outputs = inputs
    layer: Any
    for layer in head.children():
        weights = arrays(layer)
        if "running_mean" in weights:
            norm = [graph.constant(weights[name]) for name in ("weight", "bias", "running_mean", "running_var")]
            outputs = graph.add("BatchNormalization", outputs, *norm, epsilon=layer.eps)
        elif "weight" in weights:
            outputs = graph.linear(outputs, layer)
        elif type(layer).__name__ == "ReLU":
            outputs = graph.add("Relu", outputs)
    return outputs


def encoder_graph(network: "EncoderClassifier") -> ModelProto:
    """The graph of the level `transformer`, traced, fused and rewritten."""
    import onnx
    from onnxruntime.transformers.optimizer import optimize_model

    config: Any = network.model.config
    heads, size = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced, fused = Path(folder, "traced.onnx"), Path(folder, "fused.onnx")
        _trace(network, traced)
        optimized = optimize_model(str(traced), model_type="bert", num_heads=heads, hidden_size=size, opt_level=0)
        optimized.save_model_to_file(str(fused))
        graph: ModelProto = onnx.load(fused)
    keep_first_state(graph)
    split_layer_norms(graph)
    return graph


def _trace(network: "EncoderClassifier", path: Path) -> None:
    """Write the encoder's traced graph."""
    import torch

    ids = torch.full((2, 8), network.pad_id)
    ids[:, :6] = torch.arange(6, 12)
    ids[1, 5] = network.pad_id  # without padding, the trace would have no mask
    with _ready_to_trace(network):
        torch.onnx.export(
            network,
            (ids,),
            str(path),
            input_names=["ids"],
            output_names=["logits"],
            dynamic_axes={"ids": {0: "sequences", 1: "time"}, "logits": {0: "sequences"}},
            opset_version=OPSET,
            dynamo=False,  # faster, and the optimizer knows its patterns
        )


@contextmanager
def _ready_to_trace(network: "EncoderClassifier") -> Iterator[None]:
    """In evaluation mode and with plain attention, which the optimizer knows how to fuse."""
    model: Any = network.model
    attention, training = model.config._attn_implementation, network.training
    network.eval()
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(attention)
        network.train(training)


def linear_graph(weights: np.ndarray, bias: np.ndarray, classes: int) -> ModelProto:
    """The graph of the level `tfidf`: a linear layer over sparse inputs.

    It takes `terms`, int64 (texts, terms), and `values`, float32 (texts, terms).

    Args:
        weights: float (terms, classes).
        bias: float (classes,).
        classes: number of classes.
    """
    graph = GraphBuilder()
    rows = graph.add("Gather", graph.constant(weights), "terms")  # (texts, terms, classes)
    values = graph.add("Unsqueeze", "values", graph.constant([1]))  # (texts, 1, terms)
    scores = graph.add("Squeeze", graph.add("MatMul", values, rows), graph.constant([1]))
    shape = ("texts", "terms")
    inputs = [("terms", TensorProto.INT64, shape), ("values", TensorProto.FLOAT, shape)]
    return graph.model(inputs, graph.add("Add", scores, graph.constant(bias)), classes)


def _linear_layers(head: "nn.Module") -> list["nn.Module"]:
    """The layers of a head that have weights, in their order."""
    return [module for module in head.modules() if not list(module.children()) and list(module.parameters())]
