"""Rotary positions (RoPE, Su et al. 2021, arXiv:2104.09864): angles, and their scaling for long contexts."""

import math

import torch
from torch import Tensor, nn

from palavra.model.config import LayerKind, ModelConfig, RopeScaling


class Rotary(nn.Module):
    """Cosines and sines of the rotary angles of one kind of layer.

    Computed once a forward pass: a table would be as large as the context that a foreign configuration claims.
    """

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        theta = config.local_theta if kind == "local" else config.rope_theta_global
        units = config.rotary_width
        frequencies = 1.0 / (theta ** (torch.arange(0, units, 2, dtype=torch.float32) / units))
        # Local layers with a base of their own do not reach past their window, so nothing stretches their angles.
        separate = kind == "local" and config.rope_theta_local is not None
        scaling = None if separate else config.rope_scaling
        if scaling is not None:
            frequencies = scaled_frequencies(frequencies, theta, scaling)
        self.factor = 1.0 if scaling is None else scaling.attention_factor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) -> cos and sin (N, 1, r/2) float32."""
        angles = position_ids[:, None, None] * self.frequencies
        return angles.cos() * self.factor, angles.sin() * self.factor


def scaled_frequencies(frequencies: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """Return the frequencies (r/2,), in radians a position, for a longer context; see `RopeScaling`."""
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    if scaling.kind == "llama3":
        turns = scaling.original_context * frequencies / (2 * math.pi)
        kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    else:
        kept = 1 - _ramp(len(frequencies), theta, scaling)
    return (1 - kept) * stretched + kept * frequencies


def _ramp(pairs: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Return YaRN's share (r/2,) of interpolation: 0 for pairs of units that turn `high` times within the original
    context, 1 for those that turn `low` times."""

    def pair_of(turns: float) -> float:
        return pairs * math.log(scaling.original_context / (turns * 2 * math.pi)) / math.log(theta)

    first, last = pair_of(scaling.high), pair_of(scaling.low)
    if scaling.rounded:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    return ((torch.arange(pairs, dtype=torch.float32) - first) / ((last - first) or 0.001)).clamp(0, 1)
