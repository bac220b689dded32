"""The adaptive softmax: torch's, over ranks of frequency."""

import numpy as np
import pytest
import torch
from builders.task_outputs import build, gradients, rows_of, zipf
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.model.config import OutputConfig
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import Adaptive

# With classes without rows, and one with nearly all.
counts_lists = st.lists(st.one_of(st.integers(0, 50), st.sampled_from([0, 1, 10**6])), min_size=2, max_size=40)


def test_adaptive_is_torchs_over_ranks() -> None:
    output = build(OutputConfig(name="adaptive"))
    assert isinstance(output, Adaptive)
    hidden, labels = rows_of(60)
    by_rank = output.softmax(hidden, output.ranks[labels])
    found = output.total_loss(hidden, labels)
    torch.testing.assert_close(found, by_rank.loss * 60)
    torch.testing.assert_close(gradients(output, found), gradients(output, by_rank.loss * 60))
    torch.testing.assert_close(output.log_probabilities(hidden)[:, output.ids], output.softmax.log_prob(hidden))
    counts = zipf()[output.ids.numpy()]
    assert (np.diff(counts) <= 0).all()
    first, second, _ = output.softmax.cutoffs
    shares = counts.cumsum() / counts.sum()
    assert shares[first - 2] < 0.8 <= shares[first - 1]
    assert shares[second - 2] < 0.95 <= shares[second - 1]


def test_a_tail_without_rows_has_a_gradient_of_zeros() -> None:
    output = build(OutputConfig(name="adaptive"))
    assert isinstance(output, Adaptive)
    output.total_loss(rows_of(3)[0], output.ids[:3]).backward()
    for parameter in output.parameters():
        assert parameter.grad is not None
    assert not any(p.grad.any() for p in output.softmax.tail.parameters() if p.grad is not None)


@given(counts=st.lists(st.sampled_from([0, 1, 5, 10**9]), min_size=100, max_size=130))
@settings(max_examples=30)
def test_adaptive_takes_any_counts(counts: list[int]) -> None:
    output = build(OutputConfig(name="adaptive"), np.array(counts))
    assert isinstance(output, Adaptive)
    first, second, last = output.softmax.cutoffs
    assert 0 < first < second < last == len(counts)


@pytest.mark.parametrize(("classes", "width"), [(99, 16), (100, 15)])
def test_adaptive_needs_many_classes(classes: int, width: int) -> None:
    with pytest.raises(PalavraError, match="needs 100 classes and width 16"):
        build_output(OutputConfig(name="adaptive"), width, np.ones(classes, dtype=np.int64))
