"""Sampling follows its definitions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from builders.generation import GREEDY
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

from palavra.errors import PalavraError
from palavra.inference.sampling import SamplingConfig, choose, draw, penalize_repetition, restrict
from palavra.model.finite import check_numbers


def scores(rows: int = 4, vocab: int = 600, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize(
    ("config", "warpers"),
    [
        (SamplingConfig(temperature=0.7), [theirs.TemperatureLogitsWarper(0.7)]),
        (SamplingConfig(top_k=7), [theirs.TopKLogitsWarper(7)]),
        (SamplingConfig(top_k=10_000), []),
        (SamplingConfig(top_p=0.9), [theirs.TopPLogitsWarper(0.9)]),
        (SamplingConfig(top_p=0.9999), [theirs.TopPLogitsWarper(0.9999)]),
        (SamplingConfig(top_p=1e-6), [theirs.TopPLogitsWarper(1e-6)]),
        (SamplingConfig(min_p=0.05), [theirs.MinPLogitsWarper(0.05)]),
        (
            SamplingConfig(temperature=2.0, top_k=50, top_p=0.8, min_p=0.1),
            [
                theirs.TemperatureLogitsWarper(2.0),
                theirs.TopKLogitsWarper(50),
                theirs.TopPLogitsWarper(0.8),
                theirs.MinPLogitsWarper(0.1),
            ],
        ),
    ],
)
def test_restrictions_equal_those_of_transformers(config: SamplingConfig, warpers: list[Any]) -> None:
    logits = scores()
    expected = logits
    for warper in warpers:
        expected = warper(None, expected)
    found = restrict(logits, config)
    torch.testing.assert_close(found, expected - expected.amax(-1, keepdim=True))


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 5e-324, 1e300])
def test_any_temperature_draws_a_token(temperature: float) -> None:
    """At the smallest ones that which is likeliest, at the largest ones any."""
    logits = scores()
    logits[:, 300:] = -math.inf  # banned
    config = SamplingConfig(temperature=temperature)
    drawn = [choose(logits, None, config, np.full(4, uniform)).tolist() for uniform in (0.005, 0.505, 0.985)]
    if temperature < 1:
        assert drawn == [logits.argmax(-1).tolist()] * 3
    else:
        assert drawn == [[1] * 4, [151] * 4, [295] * 4]


def test_the_repetition_penalty_equals_that_of_transformers() -> None:
    logits, ids = scores(), torch.tensor([[1, 2, 2], [5, 6, 7], [0, 0, 0], [599, 3, 1]])
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    expected = theirs.RepetitionPenaltyLogitsProcessor(1.7)(ids, logits)
    torch.testing.assert_close(penalize_repetition(logits, seen, 1.7), expected)


def test_one_number_that_is_none_is_found_beside_the_largest() -> None:
    check_numbers(torch.tensor([[3e38, -3e38, 0.0]]))
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(PalavraError, match="diverged"):
            check_numbers(torch.tensor([[1.0, 2.0, 3.0], [3e38, 0.0, wrong]]))


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]))
    uniforms = (np.arange(1000) + 0.5) / 1000
    counts = torch.bincount(draw(logits.expand(1000, -1), uniforms), minlength=6)
    assert counts.tolist() == [0, 500, 0, 300, 200, 0]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 100))
def test_a_draw_always_has_probability(uniform: float, seed: int) -> None:
    logits = restrict(scores(1, 50, seed), SamplingConfig(top_k=3))
    (token,) = draw(logits, np.array([uniform]))
    assert logits[0, token] > -math.inf


def test_a_draw_at_the_very_end_has_probability() -> None:
    logits = torch.tensor([[0.1, 0.7, 0.3, -math.inf]])
    assert draw(logits, np.array([np.nextafter(1, 0)])).tolist() == [2]


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = scores()
    assert choose(logits, None, GREEDY, None).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
    ],
)
def test_impossible_sampling_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(PalavraError, match=next(iter(values))):
        SamplingConfig(**values)  # type: ignore[arg-type]
