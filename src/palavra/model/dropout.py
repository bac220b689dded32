"""Dropout (Srivastava et al. 2014), quick on CPUs, where drawing and applying its masks otherwise takes a tenth of a
step."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# On a CPU a mask is drawn from 16 random bits a unit.
LEVELS = 2**16
# The integers as wide as numbers of so many bytes.
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropout(nn.Module):
    """Sets a share `p` of the units to zero while training, and scales the rest to keep the mean."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of any shape -> the same shape and dtype."""
        return drop(x, self.p) if self.training else x


def drop(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` of its elements set to zero and the rest scaled to keep the mean; torch's seed decides."""
    if not p:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    out: Tensor = _Drop.apply(x, *draw_mask(x, p))  # type: ignore[no-untyped-call]
    return out


class _Drop(torch.autograd.Function):
    """`x` under a mask, scaled."""

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
    """A mask that drops a share `p` of `x` (int16, of its shape): all bits set where a unit stays, none where it is
    dropped. And the scale that keeps the mean.

    On a CPU torch draws a double from its (sequential) generator for every element. There its generator draws the seed
    of a quicker one instead, and four masks fit into the 64 bits of one draw. Their resolution is 1/65,536, and the
    scale is that of the share really drawn, so the mean is exact.
    """
    if x.device.type != "cpu":
        return (torch.rand_like(x, dtype=torch.float32) >= p).to(torch.int16).neg_(), 1 / (1 - p)
    dropped = round(p * LEVELS)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw((x.numel() + 3) // 4))
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return bits.ge_(dropped - LEVELS // 2).neg_(), LEVELS / (LEVELS - dropped)


# By the bits of the numbers, for which CPUs have vector instructions: torch fills by a mask of truth values one by one,
# which takes 30 times as long (LOG.md). Autograd does not see through these: they are for functions with a gradient of
# their own.


def under_mask(x: Tensor, mask: Tensor) -> Tensor:
    """`x` where a unit stays, 0 where `mask` drops it."""
    integer = INTEGERS[x.element_size()]
    return (x.view(integer) & mask.to(integer)).view(x.dtype)


def mark(x: Tensor, mask: Tensor) -> Tensor:
    """`x`, nowhere negative, made negative where `mask` drops it: both in one tensor. Its positive part is what stays,
    its absolute value what there was."""
    integer = INTEGERS[x.element_size()]
    return (x.view(integer) | (~mask.to(integer)).bitwise_and_(torch.iinfo(integer).min)).view(x.dtype)
