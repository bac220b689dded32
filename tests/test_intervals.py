"""Intervals cover what they say they cover, and equal scipy's where scipy has them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palavra.tasks import intervals as module
from palavra.tasks.intervals import (
    IntArray,
    Interval,
    bootstrap_interval,
    bootstrap_mean_interval,
    mean_interval,
    resamples,
)


def test_the_quick_way_for_means_equals_the_general_one() -> None:
    correct = np.random.default_rng(1).random(5000) < 0.8
    general = bootstrap_interval(lambda indices: float(correct[indices].mean()), len(correct))
    quick = bootstrap_mean_interval(correct)
    assert quick.low == pytest.approx(general.low, abs=1e-12)
    assert quick.high == pytest.approx(general.high, abs=1e-12)
    assert quick.samples == general.samples == 1000


def test_close_to_the_normal_interval_of_an_accuracy() -> None:
    correct = np.arange(2000) % 10 < 7
    found = bootstrap_mean_interval(correct, samples=2000)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 2000)
    assert found.low == pytest.approx(0.7 - half, abs=0.003)
    assert found.high == pytest.approx(0.7 + half, abs=0.003)


def test_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    tests = [bootstrap_mean_interval(random.random(80) < 0.7, level=0.9, samples=200, seed=i) for i in range(300)]
    covered = np.mean([test.low <= 0.7 <= test.high for test in tests])
    assert 0.84 < covered < 0.96


def test_equals_scipys_percentile_bootstrap_of_a_median() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=100)
    found = bootstrap_interval(lambda indices: float(np.median(values[indices])), 100, samples=4000)
    expected = stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=4000, rng=np.random.default_rng(5)
    ).confidence_interval
    # Two draws of 4000 resamples: their quantiles differ by the bootstrap's own noise.
    assert found.low == pytest.approx(expected.low, abs=0.04)
    assert found.high == pytest.approx(expected.high, abs=0.04)


@given(examples=st.integers(1, 30), samples=st.integers(1, 30), chunk=st.integers(1, 100), seed=st.integers(0, 9))
def test_resamples_do_not_depend_on_how_many_are_drawn_at_once(
    examples: int, samples: int, chunk: int, seed: int
) -> None:
    expected = np.concatenate(list(resamples(examples, samples, seed)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWN_AT_ONCE", chunk)
        np.testing.assert_array_equal(np.concatenate(list(resamples(examples, samples, seed))), expected)
    assert expected.shape == (samples, examples)
    assert 0 <= expected.min() <= expected.max() < examples


def test_seeds_differ_and_repeat() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_mean_interval(values, seed=1) == bootstrap_mean_interval(values, seed=1)
    assert bootstrap_mean_interval(values, seed=1) != bootstrap_mean_interval(values, seed=2)


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).random(50)
    narrow, wide = bootstrap_mean_interval(values, level=0.5), bootstrap_mean_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_resamples_without_a_score_are_left_out_and_counted() -> None:
    positive = np.arange(10) == 0

    def share(indices: IntArray) -> float | None:
        return float(positive[indices].mean()) if positive[indices].any() else None

    found = bootstrap_interval(share, 10)
    assert 500 < found.samples < 800  # 1 - 0.9^10 = 65% of the resamples draw the one positive
    assert found.low >= 0.1
    with pytest.raises(ValueError, match="no resample"):
        bootstrap_interval(lambda _: math.nan, 10)


@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=10), level=st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_of_a_mean_equals_scipys(values: list[float], level: float) -> None:
    found = mean_interval(values, level=level)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.interval is not None
    if found.sd is not None and found.sd > 1e-6:  # scipy divides by it
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(level)
        assert found.interval.low == pytest.approx(expected.low, abs=1e-9)
        assert found.interval.high == pytest.approx(expected.high, abs=1e-9)


def test_the_interval_of_a_mean_by_hand() -> None:
    # 1, 2, 3: mean 2, sd 1; t(0.975, 2) = 4.302653, over sqrt(3) = 2.484138.
    mean, sd, interval = mean_interval([1.0, 2.0, 3.0])
    assert (mean, sd) == (2.0, 1.0)
    assert interval is not None
    assert interval.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert interval.high == pytest.approx(2 + 2.484138, abs=1e-6)


def test_one_run_has_no_interval() -> None:
    assert mean_interval([0.5]) == (0.5, None, None)


def test_what_has_no_interval_is_an_error() -> None:
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="level"):
            mean_interval([1.0, 2.0], level=level)
    with pytest.raises(ValueError, match="examples"):
        mean_interval([])
    with pytest.raises(ValueError, match="examples"):
        bootstrap_mean_interval([])


def test_json() -> None:
    interval = Interval(low=0.1, high=0.2, level=0.95, samples=3)
    assert interval.to_json() == {"low": 0.1, "high": 0.2, "level": 0.95, "samples": 3}
