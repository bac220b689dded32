"""Losses as pure functions. Each language-model loss is a sum and a count; the last one to sum divides once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A summed loss. `total`: scalar tensor, the sum over labelled rows in nats, weighted if the objective weights
    them; `count`: the number of rows."""

    total: Tensor
    count: int

    @property
    def mean(self) -> Tensor:
        """The mean in nats a labelled row."""
        return self.total / self.count


def cross_entropy(p: Tensor, q: Tensor) -> Tensor:
    """Return H(p, q) = -sum_x p(x) log q(x) over the last dimension, in nats, for distributions p and q. Terms with
    p(x) = 0 are 0, also if q(x) = 0. H(p, q) >= H(p, p) >= 0."""
    total: Tensor = torch.special.xlogy(p, q).sum(-1)
    return -total


def token_loss(probability: Tensor) -> Tensor:
    """Return -log p, in nats: the loss of a token whose gold label was given probability p."""
    return -torch.log(probability)


# Elements of a chunk of logits: all M x V at once would be the largest tensor of a training step.
CHUNK_ELEMENTS = 2**24
# Products run in blocks of rows: 512 rows of 32,000 logits take 8% less time than 524.
CHUNK_ROWS_MULTIPLE = 64


def softmax_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy losses (m,) of a chunk of logits (m, V) against labels (m,), and their gradient.

    The gradient is softmax(logits) - onehot(label), in the dtype of the logits (m, V). The softmax is computed in
    float32 or wider. A compiler fuses this function into few passes over the logits.
    """
    p = torch.softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
    labels = labels[:, None]
    # log p of the label from that of the likeliest entry, whose p is at least 1 / V: avoids a pass of logarithms.
    likeliest = logits.amax(-1, keepdim=True).to(p.dtype)
    right = logits.gather(1, labels).to(p.dtype) - likeliest + p.amax(-1, keepdim=True).log()
    gradient = p.to(logits.dtype).scatter_(1, labels, right.expm1().to(logits.dtype))
    return -right.squeeze(1), gradient


SoftmaxGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _rows_of_a_chunk(vocabulary: int) -> int:
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    return rows - rows % CHUNK_ROWS_MULTIPLE if rows > CHUNK_ROWS_MULTIPLE else rows


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, kernel: SoftmaxGradient = softmax_gradient,
) -> Loss:  # fmt: skip
    """Return the summed cross-entropy of softmax(hidden weight^T + bias) against `labels`.

    hidden (M, D), weight (V, D), bias (V,) or None, labels (M,) int64, or fewer: rows after the last label fill up a
    block and do not count. Logits are computed a few rows at a time, together with their gradient, so that no M x V
    tensor outlives its chunk. The products run in the autocast dtype if autocast is on; the softmax and the sums in
    float32 (float64 for float64 input). `kernel` is `softmax_gradient` or its compiled form. Raises ValueError for more
    labels than rows.
    """
    if len(labels) > len(hidden):
        raise ValueError(f"{len(labels)} labels for {len(hidden)} rows")
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    else:
        dtype = hidden.dtype
    total: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, labels, dtype, kernel)  # type: ignore[no-untyped-call]
    return Loss(total, labels.numel())


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients together with the loss; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, dtype: torch.dtype,
        kernel: SoftmaxGradient,
    ) -> Tensor:  # fmt: skip
        wide = torch.promote_types(hidden.dtype, torch.float32)
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        low_bias = None if bias is None else bias.to(dtype)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        d_hidden = torch.empty_like(low_hidden)
        d_weight: Tensor | None = None
        d_bias = None if bias is None else torch.zeros(bias.shape, dtype=wide, device=hidden.device)
        rows, labelled = _rows_of_a_chunk(weight.shape[0]), labels.numel()
        labels = F.pad(labels, (0, len(hidden) - labelled))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = F.linear(low_hidden[part], low_weight, low_bias)
            losses, d_logits = kernel(logits, labels[part])
            counted = max(0, labelled - start)
            total += losses[:counted].sum()
            d_logits[counted:] = 0
            if d_bias is not None:
                # A product, not part of the kernel: a compiler would compute every exponential twice there.
                d_bias += (d_logits.new_ones(1, len(d_logits)) @ d_logits).squeeze(0)
            torch.mm(d_logits, low_weight, out=d_hidden[part])
            product = d_logits.T @ low_hidden[part]
            d_weight = product.to(weight.dtype) if d_weight is None else d_weight.add_(product)
        ctx.save_for_backward(d_hidden, torch.zeros_like(weight) if d_weight is None else d_weight, d_bias)
        ctx.dtypes = hidden.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        hidden_dtype, bias_dtype = ctx.dtypes
        scale = gradients[0]
        d_bias = None if d_bias is None else (d_bias * scale).to(bias_dtype)
        return (d_hidden * scale).to(hidden_dtype), d_weight * scale, d_bias, None, None, None
