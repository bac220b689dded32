"""Dropout (Srivastava et al. 2014) that is fast on CPUs, where torch's masks take a tenth of a training step."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# On a CPU, a mask uses 16 random bits a unit.
LEVELS = 2**16
# Integer dtypes by their size in bytes.
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropout(nn.Module):
    """Sets units to zero at rate `p` in training, and scales the others to keep the mean."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of any shape -> the same shape and dtype."""
        return drop(x, self.p) if self.training else x


def drop(x: Tensor, p: float) -> Tensor:
    """Set elements of `x` to zero at rate `p` and scale the others to keep the mean; torch's seed decides."""
    if not p:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    out: Tensor = _Drop.apply(x, *draw_mask(x, p))  # type: ignore[no-untyped-call]
    return out


class _Drop(torch.autograd.Function):
    """`x` with a mask applied, scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return under_mask(x, mask).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return under_mask(gradients[0], mask).mul_(ctx.scale), None, None


def draw_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Draw a mask that drops units of `x` at rate `p`, and return it with the scale that keeps the mean.

    The mask is int16, of the shape of `x`: all bits are set for a unit that is kept, none for a dropped one. On a CPU,
    torch would draw a double for every element from its sequential generator. Instead, that generator draws the seed of
    a faster one, and one draw of 64 bits gives four units. The rate is rounded to 1/65,536; the scale is that of the
    rounded rate, so the mean is exact.
    """
    if x.device.type != "cpu":
        return (torch.rand_like(x, dtype=torch.float32) >= p).to(torch.int16).neg_(), 1 / (1 - p)
    dropped = round(p * LEVELS)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw((x.numel() + 3) // 4))
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return bits.ge_(dropped - LEVELS // 2).neg_(), LEVELS / (LEVELS - dropped)


# These work on the bits of the numbers, for which CPUs have vector instructions; torch's fill by a boolean mask takes
# 30 times as long (LOG.md). Autograd does not see through them: use them in functions with a gradient of their own.


def under_mask(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x` with 0 for the units that `mask` drops."""
    integer = INTEGERS[x.element_size()]
    return (x.view(integer) & mask.to(integer)).view(x.dtype)


def mark(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x`, which has no negative values, with the units that `mask` drops made negative. The positive part of
    the result is `x` after dropout; its absolute value is `x`."""
    integer = INTEGERS[x.element_size()]
    return (x.view(integer) | (~mask.to(integer)).bitwise_and_(torch.iinfo(integer).min)).view(x.dtype)
