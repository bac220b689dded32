"""Softmax within variable-size groups of a flat tensor: rows of one window, choices of one example."""

import torch
from torch import Tensor


def group_log_softmax(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the log softmax of `scores` (R,) within each group, (R,), in float32 or wider.

    `group` (R,) int64 ascending, from 0 to `groups` - 1, is the group of each score. Groups may differ in size and
    may be empty. Each group's maximum is subtracted first, so that no exponential overflows.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    lowest = scores.new_full((groups,), -torch.inf)
    # The maximum cancels in the result, so it needs no gradient.
    largest = lowest.scatter_reduce(0, group, scores.detach(), "amax")
    shifted = scores - largest[group]
    totals = scores.new_zeros(groups).index_add(0, group, shifted.exp())
    return shifted - totals[group].log()
