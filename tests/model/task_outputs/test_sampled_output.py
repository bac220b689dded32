"""The sampled softmax: its estimates are right on average, and exact when all classes are drawn."""

import math

import numpy as np
import pytest
import torch
from builders.task_outputs import CLASSES, EVERY, WIDTH, build, gradients, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.model.config import OutputConfig
from palavra.model.task_outputs import layers as output_layers
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import Sampled, inclusion_probabilities


def sampled(samples: int) -> Sampled:
    output = build(OutputConfig(name="sampled", samples=samples))
    assert isinstance(output, Sampled)
    return output


@pytest.mark.parametrize("samples", [CLASSES, EVERY])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_samples_are_the_full_softmax(samples: int, weighted: bool) -> None:
    output = sampled(samples)
    hidden, labels = rows_of(25)
    weights = torch.rand(CLASSES) if weighted else None
    for smoothing in (0.0, 0.2):
        found = output.train().total_loss(hidden, labels, weights, smoothing)
        expected = output.eval().total_loss(hidden, labels, weights, smoothing)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients(output, found), gradients(output, expected))


def test_the_bias_of_the_gradient_falls_as_samples_grow() -> None:
    hidden, labels = rows_of(4)
    biases = []
    for samples in (5, 20, 80):
        torch.manual_seed(0)
        output = sampled(samples)
        exact = output.eval().total_loss(hidden, labels)
        expected = torch.cat([gradient.flatten() for gradient in gradients(output, exact)])
        output.train()
        mean, draws = torch.zeros_like(expected), 1500
        for _ in range(draws):
            found = gradients(output, output.total_loss(hidden, labels))
            mean += torch.cat([gradient.flatten() for gradient in found]) / draws
        biases.append(((mean - expected).norm() / expected.norm()).item())
    assert biases[0] > 1.3 * biases[1] > 2.6 * biases[2] < 0.15, biases


def test_the_sum_of_exponentials_is_unbiased() -> None:
    """sum_k exp(o_k) of a row, from the loss: exp(loss) = sum / exp(o_label)."""
    output = sampled(20)
    hidden, labels = rows_of(1)
    exact = output.eval().total_loss(hidden, labels).exp().item()
    output.train()
    with torch.no_grad():
        found = np.array([output.total_loss(hidden, labels).exp().item() for _ in range(4000)])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - exact) < 4 * error < 0.1 * exact


def test_draws_have_the_chances_that_the_correction_assumes() -> None:
    output = sampled(30)
    assert output.inclusion.sum().item() == pytest.approx(30, abs=1e-4)
    assert output.inclusion.min() > 0  # a class without rows is drawn too
    draws = 4000
    seen = torch.zeros(CLASSES)
    for _ in range(draws):
        drawn = output.draw()
        assert drawn.shape == (30,)
        seen += torch.bincount(drawn, minlength=CLASSES)
    chances = output.inclusion
    # A class on both sides of a unit's end can be drawn twice: its count varies a little more than one coin's.
    off = (seen / draws - chances).abs() / (chances / draws).sqrt()
    assert off.max() < 4
    assert (seen[chances == 1] == draws).all()


def test_draws_are_as_exact_whatever_the_module_is_converted_to() -> None:
    """The places on the line are integers: half precision must not move them."""
    counts = np.random.default_rng(0).integers(0, 10**6, 5000)
    output = build_output(OutputConfig(name="sampled", samples=64), WIDTH, counts)
    assert isinstance(output, Sampled)
    widths = torch.diff(output.bfloat16().ends, prepend=output.ends.new_zeros(1))
    expected = inclusion_probabilities(counts.astype(np.float64) + 1, 64)[output.line.numpy()]
    np.testing.assert_allclose(widths.numpy() / output_layers.LINE_STEPS, expected, rtol=1e-6)
    assert output.ends[-1] == 64 * output_layers.LINE_STEPS


@settings(max_examples=50)
@given(sizes=st.lists(st.floats(1, 1e12), min_size=1, max_size=30), samples=st.integers(1, 35))
def test_inclusion_probabilities(sizes: list[float], samples: int) -> None:
    found = inclusion_probabilities(np.array(sizes), samples)
    assert (found > 0).all()
    assert (found <= 1).all()
    assert found.sum() == pytest.approx(min(samples, len(sizes)))
    uncertain = found < 1
    scales = (found / np.array(sizes))[uncertain]
    np.testing.assert_allclose(scales, scales[:1].repeat(len(scales)))
