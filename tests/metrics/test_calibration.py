"""Calibration error by its definition, and temperatures that are found again."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from palavra.metrics.calibration import (
    PRIOR_DEVIATION,
    expected_calibration_error,
    fit_temperature,
    halves,
    negative_log_likelihood,
    reliability,
)
from palavra.typed_json import to_json


def drawn(examples: int, classes: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: perfectly calibrated at temperature 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=scale, size=(examples, classes))
    noise = random.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(1)


def test_by_hand() -> None:
    # Two bins. (0, 0.5]: 0.2 wrong, 0.5 right: confidence 0.35, accuracy 0.5. (0.5, 1]: 0.9 right, 1.0 wrong:
    # confidence 0.95, accuracy 0.5. 2/4 * 0.15 + 2/4 * 0.45 = 0.3.
    confidence, correct = [0.2, 0.5, 0.9, 1.0], [False, True, True, False]
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.3)
    low, high = reliability(confidence, correct, bins=2)
    assert (low.low, low.high, low.accuracy, low.count) == (0.0, 0.5, 0.5, 2)
    assert (high.low, high.high, high.accuracy, high.count) == (0.5, 1.0, 0.5, 2)
    assert low.confidence == pytest.approx(0.35)
    assert high.confidence == pytest.approx(0.95)


@given(
    pairs=st.lists(
        st.tuples(st.floats(0, 1) | st.sampled_from([k / 15 for k in range(16)]), st.booleans()), min_size=1
    ),
    bins=st.integers(1, 20),
)
def test_equals_the_definition(pairs: list[tuple[float, bool]], bins: int) -> None:
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for i in range(bins):
        inside = [pair for pair in pairs if edges[i] < pair[0] <= edges[i + 1] or (i == 0 and pair[0] == 0)]
        if inside:
            apart = sum(right - confidence for confidence, right in inside) / len(inside)
            expected += len(inside) / len(pairs) * abs(apart)
    confidences, corrects = zip(*pairs, strict=True)
    assert expected_calibration_error(confidences, corrects, bins) == pytest.approx(expected, abs=1e-12)
    assert sum(one.count for one in reliability(confidences, corrects, bins)) == len(pairs)


def test_an_empty_bin_has_no_means_and_json_holds_no_nan() -> None:
    bins = reliability([0.95], [True], bins=10)
    assert (bins[0].confidence, bins[0].accuracy, bins[0].count) == (None, None, 0)
    json.dumps(to_json(bins), allow_nan=False)


def test_calibrated_is_close_to_zero_and_overconfident_is_not() -> None:
    logits, labels = drawn(20_000, 5, 2.0)
    for temperature, low, high in ((1.0, 0.0, 0.01), (0.3, 0.1, 0.4)):
        probabilities = softmax(logits / temperature, axis=1)
        error = expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == labels)
        assert low <= error <= high


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_known_temperature_is_found_again(temperature: float, dtype: type[np.floating]) -> None:
    logits, labels = drawn(20_000, 4, 2.0)
    assert fit_temperature((logits * temperature).astype(dtype), labels) == pytest.approx(temperature, rel=0.03)


def test_equals_torchs_minimum() -> None:
    logits, labels = drawn(300, 3, 1.0, seed=2)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        scaled = torch.from_numpy(3 * logits) / log_temperature.exp()
        prior = (log_temperature / PRIOR_DEVIATION) ** 2 / 2
        loss = F.cross_entropy(scaled, torch.from_numpy(labels), reduction="sum") + prior
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    assert fit_temperature(3 * logits, labels) == pytest.approx(float(log_temperature.detach().exp()), rel=1e-4)


@given(examples=st.integers(1, 20), scale=st.sampled_from([0.0, 1e-6, 1.0, 1e3]), seed=st.integers(0, 200))
def test_never_worse_than_without(examples: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(examples, 3)) * scale, random.integers(3, size=examples)
    temperature = fit_temperature(logits, labels)
    assert 0.01 <= temperature <= 100
    assert negative_log_likelihood(logits, labels, temperature) <= negative_log_likelihood(logits, labels)


@pytest.mark.parametrize(("classes", "examples"), [(2, 10), (2, 20), (2, 50), (5, 10), (5, 20)])
@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_examples_without_an_error_make_the_loss_of_others_hardly_worse(
    examples: int, true: float, classes: int
) -> None:
    """Of samples in which every prediction is right, the most probable temperature is 0, at which every error of the
    others costs without bound."""
    others, gold = drawn(4000, classes, 6.0, seed=99)
    plain = negative_log_likelihood(true * others, gold)
    ratios = []
    for seed in range(1000):
        logits, labels = drawn(examples, classes, 6.0, seed=seed)
        if (logits.argmax(1) == labels).all():
            found = fit_temperature(true * logits, labels)
            ratios.append(negative_log_likelihood(true * others, gold, found) / plain)
        if len(ratios) == 20:
            break
    assert ratios
    assert np.mean(ratios) < 1.15
    assert max(ratios) < 1.3


@pytest.mark.parametrize("true", [0.3, 3.0])
def test_many_examples_outweigh_the_prior(true: float) -> None:
    others, gold = drawn(4000, 3, 3.0, seed=99)
    best = negative_log_likelihood(others, gold)
    for examples, most in ((200, 1.03), (2000, 1.003)):
        logits, labels = drawn(examples, 3, 3.0, seed=1)
        found = fit_temperature(true * logits, labels)
        assert negative_log_likelihood(true * others, gold, found) < most * best


def test_logits_that_no_temperature_improves_keep_theirs() -> None:
    assert fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0])) == 1.0


def test_the_likelihood_equals_torchs() -> None:
    logits, labels = drawn(50, 6, 3.0)
    expected = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, rel=1e-12)


@given(stratification_keys=st.lists(st.sampled_from(["a", "b", "c\0d", ""]), max_size=40))
def test_halves_are_halves_of_each_stratum(stratification_keys: list[str]) -> None:
    second = halves(stratification_keys)
    assert second.dtype == bool
    assert second.sum() == len(stratification_keys) // 2
    for stratum in set(stratification_keys):
        own = second[[one == stratum for one in stratification_keys]]
        assert abs(2 * int(own.sum()) - len(own)) <= 1
    assert halves(stratification_keys).tolist() == second.tolist()


def test_halves_do_not_follow_the_order() -> None:
    second = halves(["a"] * 1000)
    assert 150 < (second[1:] != second[:-1])[:500].sum() < 350
    assert 200 < second[:500].sum() < 300


def test_what_cannot_be_calibrated_is_an_error() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability([1.5], [True])
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability([math.nan], [True])
    with pytest.raises(ValueError, match="as many"):
        expected_calibration_error([], [])
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(np.full((2, 2), np.nan), np.array([0, 1]))
