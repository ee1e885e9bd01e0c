"""What an exported network may contain: arithmetic on whole arrays, and numbers that are in the file.

ONNX is a language. A file may hold loops without end, allocate what no text needs, and read its weights from any other
file of the machine; so a file is read here, as what it says, before ONNX Runtime makes a network of it. Only the fields
that matter are declared; protobuf passes over the others.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from textladder.errors import BundleError, first_line

# By domain, what the levels' graphs consist of, in float32 and int8 and fused by ONNX Runtime, and what other encoders
# may need: arithmetic on whole arrays. No loops, branches, sequences, strings, random numbers or custom operators.
OPERATORS = {
    "": {
        "Abs", "Add", "And", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant",
        "ConstantOfShape", "Cos", "CumSum", "DequantizeLinear", "Div", "DynamicQuantizeLinear", "Einsum", "Elu",
        "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu",
        "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsNaN", "LSTM",
        "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "MatMulInteger",
        "Max", "Min",
        "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range",
        "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape",
        "Round", "Selu", "Shape", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sin", "Slice", "Softmax",
        "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze",
        "Where", "Xor",
    },
    "com.microsoft": {
        "Attention", "BiasGelu", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "EmbedLayerNormalization",
        "FastGelu", "FusedMatMul", "Gelu", "MatMulIntegerToFloat", "MultiHeadAttention", "QAttention",
        "QEmbedLayerNormalization", "QuickGelu", "RotaryEmbedding", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    },
}  # fmt: skip
# Bytes of an element, by the number of its type.
BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
INT64, MAX_DIMENSIONS, MAX_ELEMENTS = 7, 8, 10**9
TO_THE_END = 2**31 - 1  # of a slice, or more
NUMBERS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")  # of a tensor without `raw_data`
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "functions": (25, "Function*")},
    "Function": {"name": (1, "string")},
    "Graph": {"node": (1, "Node*"), "initializer": (5, "Tensor*"), "sparse_initializer": (15, "Sparse*")},
    "Sparse": {},
    "Node": {"op_type": (4, "string"), "attribute": (5, "Attribute*"), "domain": (7, "string")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"),
        "sparse_tensor": (22, "Sparse"),
        "sparse_tensors": (23, "Sparse*"),
    },
    "Tensor": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "float_data": (4, "float*"),
        "int32_data": (5, "int32*"),
        "int64_data": (7, "int64*"),
        "raw_data": (9, "bytes"),
        "double_data": (10, "double*"),
        "uint64_data": (11, "uint64*"),
        "external_data": (13, "Entry*"),
        "data_location": (14, "int32"),
    },
    "Entry": {},
}


def check_onnx(content: bytes) -> None:
    """Refuse a file that holds anything but `OPERATORS` and tensors whose numbers are all in it.

    Raises:
        BundleError: with what it holds.
    """
    from google.protobuf.message import DecodeError

    model = _message("Model")()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise BundleError(f"The exported network cannot be read ({first_line(error)}).") from None
    if model.functions or model.graph.sparse_initializer:
        raise BundleError("The exported network holds functions or sparse tensors, which textladder does not write.")
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.op_type not in OPERATORS.get(node.domain.removeprefix("ai.onnx"), ()):
            raise BundleError(
                f"The exported network holds the operator {node.op_type[:40]!r}, which textladder does not write."
            )
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise BundleError(f"The exported network holds a graph inside of {node.op_type!r}.")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise BundleError("The exported network holds a sparse tensor, which textladder does not write.")
            tensors += attribute.tensors
            if attribute.HasField("t"):
                tensors.append(attribute.t)
    for tensor in tensors:
        _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    if tensor.data_location or len(tensor.external_data):
        raise BundleError("The exported network reads its weights from another file.")
    if len(tensor.dims) > MAX_DIMENSIONS or any(size < 0 for size in tensor.dims):
        raise BundleError(f"The exported network has a tensor of the shape {list(tensor.dims[:MAX_DIMENSIONS])}.")
    elements = math.prod(tensor.dims)
    stored: float = sum(len(getattr(tensor, name)) for name in NUMBERS)
    if tensor.raw_data:
        stored = len(tensor.raw_data) / BYTES.get(tensor.data_type, 1)
    if elements != stored:
        raise BundleError(f"The exported network has a tensor of {elements:,} numbers, of which it holds {stored:,}.")
    if tensor.data_type == INT64 and elements <= MAX_DIMENSIONS:  # perhaps the shape of an array that is made from it
        numbers = np.frombuffer(tensor.raw_data, "<i8").tolist() or list(tensor.int64_data)
        size = math.prod(number for number in numbers if 0 < number < TO_THE_END)
        if size > MAX_ELEMENTS:
            raise BundleError(f"The exported network may make an array of {size:,} numbers.")


@cache
def _message(name: str) -> Any:
    """The class of a message, made from `MESSAGES`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="textladder_onnx.proto", package="textladder_onnx", syntax="proto2")
    for message, content in MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field, (number, kind) in content.items():
            label = fields.LABEL_REPEATED if kind.endswith("*") else fields.LABEL_OPTIONAL
            plain = kind.rstrip("*")
            made = declared.field.add(name=field, number=number, label=label)
            if plain in MESSAGES:
                made.type, made.type_name = fields.TYPE_MESSAGE, f".textladder_onnx.{plain}"
            else:
                made.type = fields.Type.Value(f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"textladder_onnx.{name}"))
