"""Softmax within ragged groups equals a loop over the groups."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from palavra.tasks.grouped_softmax import group_log_softmax


def of_sizes(sizes: list[int], seed: int = 0, scale: float = 5.0) -> tuple[Tensor, Tensor]:
    """Random scores in float64, and their groups."""
    group = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, len(group))), group


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=8), seed=st.integers(0, 99), far=st.floats(-1e4, 1e4))
def test_each_group_is_a_softmax_of_its_own(sizes: list[int], seed: int, far: float) -> None:
    scores, group = of_sizes(sizes, seed)
    scores = scores + far * group
    expected = torch.cat([torch.log_softmax(part, 0) for part in scores.split(sizes)])
    torch.testing.assert_close(group_log_softmax(scores, group, len(sizes)), expected)
    low = group_log_softmax(scores.float(), group, len(sizes))
    assert low.dtype == torch.float32
    rounded = torch.cat([part.log_softmax(0) for part in scores.float().double().split(sizes)])
    torch.testing.assert_close(low.double(), rounded, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_right_beside_empty_groups() -> None:
    scores, group = of_sizes([3, 0, 1, 5, 0])
    assert torch.autograd.gradcheck(lambda x: group_log_softmax(x, group, 5), scores.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_neither_overflow_nor_lose_their_gradient(dtype: torch.dtype) -> None:
    scores = torch.tensor([1e4, 1e4, -1e4, 3e4], dtype=dtype, requires_grad=True)
    found = group_log_softmax(scores, torch.tensor([0, 0, 0, 1]), 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[[0, 1, 3]].exp(), torch.tensor([0.5, 0.5, 1.0]))
    found[0].backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad.float(), torch.tensor([0.5, -0.5, 0.0, 0.0]))
