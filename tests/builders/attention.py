"""Packed queries, keys and values for the tests of attention."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from hypothesis import strategies as st
from torch import Tensor

DEVICE = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=6)


def bounds(lengths: Sequence[int]) -> Tensor:
    """Where sequences of these lengths begin and end, (S+1,) int32."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def qkv(lengths: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random ones of two heads of four units, in float64."""
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, sum(lengths), 2, 4, dtype=torch.float64).unbind(0)
    return q, k, v
