"""Dropout, linear layers and attention that are faster on a CPU than torch's own.

Nothing here has parameters of its own, so a saved encoder does not depend on it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class FastDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) that draws random bits 63 at a time: six times as fast as `nn.Dropout`.

    The probability is rounded to a multiple of 1/128.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input, in training with some numbers set to zero and the others scaled up."""
        return input * dropout_mask(input, self.p) if self.training and self.p else input


def dropout_mask(like: Tensor, probability: float) -> Tensor:
    """A mask of zeros, and elsewhere the factor that keeps the mean.

    Args:
        like: the mask has the shape and type of this tensor.
        probability: of a zero, rounded to a multiple of 1/128.
    """
    dropped = round(probability * 128)
    # every byte of a non-negative 64-bit number has at least 7 random bits
    words = torch.empty(like.numel() // 8 + 1, dtype=torch.int64).random_()
    bits = words.view(torch.uint8)[: like.numel()].bitwise_and_(127)
    # torch converts bytes to floats with vector instructions, booleans one by one
    return (bits >= dropped).view(torch.uint8).to(like.dtype).mul_(128 / (128 - dropped)).view(like.shape)


def use_fast_dropout(model: nn.Module) -> None:
    """Replace each `nn.Dropout` inside a model by a `FastDropout`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p))


def onednn_linear(layer: nn.Linear, input: Tensor) -> Tensor:
    """A linear layer's forward pass that predicts with oneDNN's matrix product instead of MKL's.

    MKL reserves its 512-bit kernels for Intel's processors. On an EPYC with AVX512 a core does 116 billion
    multiplications per second with oneDNN, 51 with MKL.

    Args:
        layer: the layer.
        input: (..., in).

    Returns:
        (..., out).
    """
    learning = torch.is_grad_enabled() or torch.onnx.is_in_onnx_export()
    if learning or input.dtype != torch.float32 or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return nn.Linear.forward(layer, input)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, layer.weight, layer.bias, "none", [], "")
    return product


def use_onednn_linear(model: nn.Module) -> None:
    """Let a model's linear layers predict with `onednn_linear`, where processor and torch support it.

    Only the `forward` of each layer is overridden, so `type(layer) is nn.Linear` stays true. It is a partial function
    and not a method because a partial can be pickled and copied together with its layer.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = partial(onednn_linear, module)  # type: ignore[method-assign]


def training_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """Scaled dot-product attention for training on a CPU (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (batch, heads, time, size), as are `key` and `value`.
        key: what the queries are compared with.
        value: what is averaged.
        mask: bool, True where a query may see a key, or a bias that is added to the scores; (batch or 1, heads or 1,
            time or 1, time).
        scale: factor of the scores.
        dropout: probability of dropping an attention weight.

    Returns:
        (batch, time, heads, size).
    """
    bias = mask
    if mask is not None and mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, lowest)
    attended: Tensor = _TrainingAttention.apply(query, key, value, bias, scale, dropout)
    return attended


class _TrainingAttention(torch.autograd.Function):
    """Three matrix products forward and four backward, over whole (time, time) tables.

    For texts of a few hundred tokens this is faster than torch's fused kernel, whose backward pass took 40% of a step.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, dropout: float
    ) -> Tensor:
        """The averaged values, (batch, time, heads, size)."""
        batch, heads, time, size = query.shape
        with torch.autocast("cpu", enabled=False):
            query, key, value = (
                one.to(query.dtype).reshape(batch * heads, time, size) for one in (query * scale, key, value)
            )
            scores = torch.bmm(query, key.transpose(1, 2))
            if bias is not None:
                scores.view(batch, heads, time, time).add_(bias)
            weights = torch.softmax(scores, dim=-1)
            kept = dropout_mask(weights, dropout) if dropout else None
            attended = torch.bmm(weights if kept is None else weights * kept, value)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.scale, ctx.heads = scale, heads
        return attended.view(batch, heads, time, size).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, weights, kept = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            gradient = gradient.to(value.dtype).transpose(1, 2).reshape(value.shape)
            to_weights = torch.bmm(gradient, value.transpose(1, 2))
            if kept is not None:
                to_weights.mul_(kept)
            to_value = torch.bmm((weights if kept is None else weights * kept).transpose(1, 2), gradient)
            # the derivative of softmax: a row's gradient minus its mean under the row's weights
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_query = torch.bmm(to_scores, key).mul_(ctx.scale)
            to_key = torch.bmm(to_scores.transpose(1, 2), query)
        shape = (-1, ctx.heads, *value.shape[1:])
        return to_query.view(shape), to_key.view(shape), to_value.view(shape), None, None, None
