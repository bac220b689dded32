"""Pooling: from the vectors of the tokens of packed sequences to one vector for each sequence."""

from typing import Literal

import torch
from torch import Tensor

# The names of sentence-transformers.
PoolingMode = Literal["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean"]


def pool(hidden: Tensor, lengths: Tensor, mode: PoolingMode, skipped: int = 0) -> Tensor:
    """Pool the vectors (N, D) of packed sequences of `lengths` (S,), which are on the host, to (S, D).

    Every token counts, those that open and close a text included, except the first `skipped` of each sequence, such as
    a prompt; a sequence of which nothing is left is zero. "cls" is the first token, "lasttoken" the last one,
    "mean_sqrt_len_tokens" the sum over the square root of the number of tokens, and in "weightedmean" a token weighs
    its position, from 1.
    """
    ends = lengths.cumsum(0)
    left = (lengths - skipped).clamp(min=0)
    if mode in ("cls", "lasttoken"):
        rows = ends - (left.clamp(min=1) if mode == "cls" else 1)
        return hidden.index_select(0, _on(rows, hidden)) * _on(left > 0, hidden)[:, None]
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), left)
    within = torch.arange(len(sequence)) - (left.cumsum(0) - left)[sequence]
    position = within + (lengths - left)[sequence]
    if skipped:
        hidden = hidden.index_select(0, _on((ends - lengths)[sequence] + position, hidden))
    index = _on(sequence, hidden)[:, None].expand_as(hidden)
    empty = hidden.new_zeros(len(lengths), hidden.shape[1])
    if mode in ("mean", "max"):
        return empty.scatter_reduce(0, index, hidden, "amax" if mode == "max" else "mean", include_self=False)
    if mode == "weightedmean":
        weights = (position + 1).to(torch.float32)
        total = torch.zeros(len(lengths)).index_add(0, sequence, weights)
        hidden = hidden * _on(weights, hidden)[:, None]
    else:
        total = left.to(torch.float32).sqrt()
    return empty.scatter_add(0, index, hidden) / _on(total.clamp(min=1e-9), hidden)[:, None]


def _on(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, non_blocking=True)
