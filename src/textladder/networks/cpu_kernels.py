"""Parts of an encoder that are quick on a processor; elsewhere torch's own are.

What a level puts into an encoder: dropout and attention before it trains it without a GPU, linear layers to predict.
Nothing here has parameters of its own, so a saved encoder knows nothing of it.
"""

from typing import Any

import torch
from torch import Tensor, nn


class QuickDropout(nn.Dropout):
    """Dropout whose random bits are drawn 63 at a time: on a processor six times as fast as `nn.Dropout`.

    The probability is rounded to a 128th. Srivastava et al. 2014.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input with numbers left out in training, the rest scaled up."""
        return input * keep_mask(input, self.p) if self.training and self.p else input


def keep_mask(like: Tensor, probability: float) -> Tensor:
    """Zeros with a probability (rounded to a 128th), else what keeps the mean; of the shape and type of `like`."""
    dropped = round(probability * 128)
    # every byte of a non-negative 64-bit number has at least 7 random bits
    words = torch.empty(like.numel() // 8 + 1, dtype=torch.int64).random_()
    bits = words.view(torch.uint8)[: like.numel()].bitwise_and_(127)
    # torch turns bytes into floats with vector instructions, truth values one by one
    return (bits >= dropped).view(torch.uint8).to(like.dtype).mul_(128 / (128 - dropped)).view(like.shape)


def quick_dropout(model: nn.Module) -> None:
    """Put `QuickDropout` where a model has `nn.Dropout`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, QuickDropout(child.p))


class QuickLinear(nn.Linear):
    """A linear layer that predicts with oneDNN's product in the place of MKL's.

    MKL keeps its kernels of 512 bits to Intel's processors. On an EPYC with AVX512 a core does 116 billion
    multiplications a second so, and 51 otherwise.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input, (..., in), times the weights, and the bias: (..., out)."""
        learning = torch.is_grad_enabled() or torch.onnx.is_in_onnx_export()
        if learning or input.dtype != torch.float32 or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return product


def quick_linear(model: nn.Module) -> None:
    """Make `QuickLinear` of a model's `nn.Linear`, where the processor and torch have what it takes."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = QuickLinear


def training_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """Scaled dot-product attention for training on a processor (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (batch, heads, time, size), as are `key` and `value`.
        key: what the queries are held to.
        value: what is attended to.
        mask: bool, True where a query may see a key, or what to add to the scores; (batch or 1, heads or 1, time or
            1, time).
        scale: of the scores.
        dropout: share of the weights left out.

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
    """Three matrix products forward and four back, over whole (time, time) tables.

    For texts of a few hundred tokens that is faster than torch's fused kernel, whose backward pass took 40% of a step.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, dropout: float
    ) -> Tensor:
        """Attended values; `bias` is added to the scores."""
        batch, heads, time, size = query.shape
        with torch.autocast("cpu", enabled=False):
            query, key, value = (
                one.to(query.dtype).reshape(batch * heads, time, size) for one in (query * scale, key, value)
            )
            scores = torch.bmm(query, key.transpose(1, 2))
            if bias is not None:
                scores.view(batch, heads, time, time).add_(bias)
            weights = torch.softmax(scores, dim=-1)
            kept = keep_mask(weights, dropout) if dropout else None
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
            # the derivative of softmax: a row's gradient, less its mean under the row's weights
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_query = torch.bmm(to_scores, key).mul_(ctx.scale)
            to_key = torch.bmm(to_scores.transpose(1, 2), query)
        shape = (-1, ctx.heads, *value.shape[1:])
        return to_query.view(shape), to_key.view(shape), to_value.view(shape), None, None, None
