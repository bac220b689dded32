"""Dropout (Srivastava et al. 2014), quick on CPUs, where drawing the masks otherwise takes a tenth of a step."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A mask is drawn from 16 random bits a unit.
LEVELS = 2**16


class Dropout(nn.Module):
    """Sets a share `p` of the units to zero while training, and scales the rest to keep the mean."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of any shape -> the same shape and dtype."""
        return drop(x, self.p) if self.training else x


def drop(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` of its elements, drawn from torch's generator, set to zero and the rest scaled by
    1 / (1 - p).

    torch draws a double from its (sequential) generator for every element on a CPU; four masks fit into the 64 bits
    of one draw. Their resolution is 1/65,536, and the scale is that of the share really drawn, so the mean is exact.
    """
    if not p:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    dropped, scale = dropped_units(x, p)
    return x * (~dropped).to(x.dtype).mul_(scale)


def dropped_units(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Which elements of `x` to drop (bool, of its shape), and the scale of the others."""
    if x.device.type != "cpu":
        return torch.rand_like(x, dtype=torch.float32) < p, 1 / (1 - p)
    dropped = round(p * LEVELS)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return bits < dropped - LEVELS // 2, LEVELS / (LEVELS - dropped)
