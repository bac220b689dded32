"""Intervals cover what they say they cover, and equal scipy's and those of scores taken one resample at a time."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef, mean_absolute_error, r2_score, roc_auc_score

from palavra.metrics import bootstrap as module
from palavra.metrics.bootstrap import IntArray, bootstrap_intervals, mean_interval, resamples
from palavra.metrics.classification import Auroc, class_statistics, label_set_statistics
from palavra.metrics.names import range_of
from palavra.metrics.regression import Spearman, regression_statistics
from palavra.metrics.resampled import Order, Statistic, means, point
from palavra.metrics.spans import span_statistics
from palavra.metrics.tag_schemes import Span
from palavra.run_records.finetuning import Interval
from palavra.typed_json import to_json


def interval_of_mean(values: np.ndarray, **options: float) -> Interval:
    """The interval of a mean."""
    return bootstrap_intervals([means({"mean": values})], len(values), **options)["mean"]  # type: ignore[arg-type]


def one_by_one(score: Callable[[IntArray], float], examples: int, samples: int) -> tuple[float, float]:
    """The percentiles of a score of examples by their numbers, taken on each resample; undefined ones left out."""
    drawn = [score(indices) for chunk in resamples(examples, samples, 0) for indices in chunk]
    low, high = np.quantile([value for value in drawn if not math.isnan(value)], [0.025, 0.975])
    return float(low), float(high)


def check(statistics: list[Statistic], scores: Mapping[str, Callable[[IntArray], float]], examples: int) -> None:
    """Every score has the interval of its values on each resample, unless these are all alike."""
    found = bootstrap_intervals(statistics, examples, samples=30)
    expected = {name: one_by_one(score, examples, 30) for name, score in scores.items()}
    assert found.keys() == {name for name, (low, high) in expected.items() if not math.isclose(low, high)}
    for name, interval in found.items():
        assert (interval.low, interval.high) == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


@settings(max_examples=8, deadline=None)
@given(examples=st.integers(8, 60), classes=st.integers(2, 5), seed=st.integers(0, 999))
def test_scores_of_classes_have_sklearns_intervals(examples: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gold = random.integers(classes, size=examples) * 3  # some classes never occur
    found = np.where(random.random(examples) < 0.6, gold, 3 * random.integers(classes, size=examples))
    check(
        [class_statistics(gold, found)],
        {
            "accuracy": lambda i: float((gold[i] == found[i]).mean()),
            "macro_f1": lambda i: float(f1_score(gold[i], found[i], average="macro", zero_division=0)),
            "weighted_f1": lambda i: float(f1_score(gold[i], found[i], average="weighted", zero_division=0)),
            "matthews": lambda i: float(matthews_corrcoef(gold[i], found[i])) if len({*gold[i], *found[i]}) > 1 else 0,
        },
        examples,
    )


def test_words_are_drawn_by_the_sentence() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(0, 9, size=40)
    gold = random.integers(3, size=sizes.sum())
    found = np.where(random.random(len(gold)) < 0.7, gold, random.integers(3, size=len(gold)))
    words = np.split(np.arange(len(gold)), np.cumsum(sizes)[:-1])

    def score(i: IntArray) -> float:
        own = np.concatenate([words[number] for number in i])
        return float(f1_score(gold[own], found[own], average="macro", zero_division=0))

    interval = bootstrap_intervals([class_statistics(gold, found, sizes)], 40, samples=30)["macro_f1"]
    assert (interval.low, interval.high) == pytest.approx(one_by_one(score, 40, 30))


@settings(max_examples=8, deadline=None)
@given(examples=st.integers(8, 40), classes=st.integers(1, 4), seed=st.integers(0, 999))
def test_scores_of_label_sets_have_sklearns_intervals(examples: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gold, chosen = random.random((2, examples, classes)) < 0.4

    def of(average: str) -> Callable[[IntArray], float]:
        if classes == 1 and average != "samples":  # which sklearn takes for two classes
            return lambda i: float(f1_score(gold[i, 0], chosen[i, 0], average="binary", zero_division=0))
        both, total = (gold & chosen).sum(1), gold.sum(1) + chosen.sum(1)
        if average == "samples":
            return lambda i: float(np.where(total[i] > 0, 2 * both[i] / np.maximum(total[i], 1), 0).mean())
        return lambda i: float(f1_score(gold[i], chosen[i], average=average, zero_division=0))

    check(
        [label_set_statistics(gold, chosen)],
        {
            **{f"{average}_f1": of(average) for average in ("micro", "macro", "weighted", "samples")},
            "subset_accuracy": lambda i: float((gold[i] == chosen[i]).all(1).mean()),
        },
        examples,
    )


@settings(max_examples=8, deadline=None)
@given(
    examples=st.integers(25, 60),
    classes=st.integers(1, 3),
    seed=st.integers(0, 999),
    decimals=st.sampled_from([0, 1, 9]),
)
def test_areas_under_the_curve_have_sklearns_intervals(examples: int, classes: int, seed: int, decimals: int) -> None:
    random = np.random.default_rng(seed)
    scores = np.round(random.normal(size=(examples, classes)), decimals)  # many equal ones, or none
    gold = scores + random.normal(size=scores.shape) > 0

    def score(i: IntArray) -> float:
        if not (gold[i].any(0) & ~gold[i].all(0)).all():
            return math.nan
        return float(np.mean([roc_auc_score(gold[i, k], scores[i, k]) for k in range(classes)]))

    check([Auroc(gold, scores)], {"auroc": score}, examples)


@settings(max_examples=8, deadline=None)
@given(
    examples=st.integers(10, 60), targets=st.integers(1, 3), seed=st.integers(0, 999), offset=st.sampled_from([0, 1e6])
)
def test_scores_of_numbers_have_scipys_intervals(examples: int, targets: int, seed: int, offset: float) -> None:
    random = np.random.default_rng(seed)
    gold = np.round(random.normal(size=(examples, targets)), 1)
    found = gold + np.round(random.normal(size=gold.shape), 1)
    each = range(targets)
    squares = (gold - found) ** 2
    check(
        [regression_statistics(gold + offset, found + offset), Spearman(gold, found)],
        {
            "mse": lambda i: float(squares[i].mean()),
            "rmse": lambda i: float(np.sqrt(squares[i].mean(0)).mean()),
            "mae": lambda i: float(mean_absolute_error(gold[i], found[i])),
            "r2": lambda i: float(r2_score(gold[i], found[i])),
            "pearson": lambda i: float(np.mean([stats.pearsonr(gold[i, t], found[i, t])[0] for t in each])),
            "spearman": lambda i: float(np.mean([stats.spearmanr(gold[i, t], found[i, t])[0] for t in each])),
        },
        examples,
    )


@settings(max_examples=8, deadline=None)
@given(sentences=st.integers(2, 30), seed=st.integers(0, 999))
def test_scores_of_spans_have_the_intervals_of_sentences(sentences: int, seed: int) -> None:
    random = np.random.default_rng(seed)

    def drawn() -> list[list[Span]]:
        numbers = [random.integers(6, size=random.integers(5)).tolist() for _ in range(sentences)]
        return [[Span(n, n + 1, "abc"[n % 3]) for n in of] for of in numbers]

    gold, found = drawn(), drawn()

    def of(name: str) -> Callable[[IntArray], float]:
        return lambda i: point(span_statistics([gold[n] for n in i], [found[n] for n in i]), len(i))[name]

    names = ("precision", "recall", "f1", "macro_f1")
    check([span_statistics(gold, found)], {name: of(name) for name in names}, sentences)
    nothing = span_statistics([[]] * sentences, [[]] * sentences)(np.ones((2, sentences)))
    assert {name: values.tolist() for name, values in nothing.items()} == {name: [0.0, 0.0] for name in names}


def test_parts_of_examples_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    sizes, sums = random.integers(0, 4, size=30), random.random(30)
    check([means({"loss": sums}, sizes)], {"loss": lambda i: float(sums[i].sum() / sizes[i].sum())}, 30)


def test_equals_scipys_percentile_bootstrap_of_a_correlation() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=100)
    y = x + random.normal(size=100)
    found = bootstrap_intervals([regression_statistics(x[:, None], y[:, None])], 100, samples=2000)["pearson"]
    expected = stats.bootstrap(
        (x, y), lambda a, b: stats.pearsonr(a, b)[0], method="percentile", n_resamples=2000, paired=True,
        vectorized=False, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    # Two draws of 2000 resamples: their quantiles differ by the bootstrap's own noise.
    assert found.low == pytest.approx(expected.low, abs=0.015)
    assert found.high == pytest.approx(expected.high, abs=0.015)


def test_close_to_the_normal_interval_of_an_accuracy() -> None:
    found = interval_of_mean(np.arange(2000) % 10 < 7, samples=2000)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 2000)
    assert found.low == pytest.approx(0.7 - half, abs=0.003)
    assert found.high == pytest.approx(0.7 + half, abs=0.003)


def test_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    tests = [interval_of_mean(random.random(80) < 0.7, level=0.9, samples=200, seed=i) for i in range(300)]
    covered = np.mean([test.low <= 0.7 <= test.high for test in tests])
    assert 0.84 < covered < 0.96


def test_what_takes_long_is_done_with_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 4))
    statistics: list[Statistic] = [means({"mean": values[:, 0]}), Auroc(values > 0.5, values[::-1])]
    found = bootstrap_intervals(statistics, 50)
    assert (found["mean"].samples, found["auroc"].samples) == (1000, 1000)
    monkeypatch.setattr(module, "MOST_WORK", 50 * 500)
    found = bootstrap_intervals(statistics, 50)
    assert (found["mean"].samples, found["auroc"].samples) == (500, 125)
    assert found["mean"] == bootstrap_intervals([statistics[0]], 50, samples=500)["mean"]


def test_what_takes_too_long_for_the_fewest_resamples_has_no_interval() -> None:
    class Slow:
        cost = 20_000_000  # the areas of 200 classes of 100,000 examples

        def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
            raise AssertionError("it was looked at")

    found = bootstrap_intervals([Slow(), means({"mean": np.arange(50)})], 50)
    assert {name: one.samples for name, one in found.items()} == {"mean": 1000}


def test_areas_need_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Order, "group")
    values = np.arange(40.0)[:, None] % 7
    assert bootstrap_intervals([Auroc(values > 2, values + np.arange(40)[:, None] % 3)], 40).keys() == {"auroc"}
    with pytest.raises(AttributeError):
        bootstrap_intervals([Spearman(values, values)], 40)


@given(right=st.integers(2, 10), value=st.sampled_from([0.0, 0.1, 1.0, 1 / 3]))
def test_a_score_that_no_resample_changes_has_no_interval(right: int, value: float) -> None:
    """Everything right says nothing of how wrong another test might be."""
    assert bootstrap_intervals([means({"mean": np.full(right, value)})], right) == {}
    mixed = [means({"mean": np.append(np.full(right, value), value + 1)})]
    assert bootstrap_intervals(mixed, right + 1).keys() == {"mean"}


@settings(max_examples=8, deadline=None)
@given(examples=st.integers(10, 60), groups=st.integers(2, 6), seed=st.integers(0, 999))
def test_examples_of_one_group_are_drawn_together(examples: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    of = np.append(np.arange(groups), random.integers(groups, size=examples - groups))
    values = random.random(examples)
    members = [np.flatnonzero(of == group) for group in range(groups)]
    found = bootstrap_intervals([means({"mean": values})], examples, groups=of, samples=30)["mean"]
    expected = one_by_one(lambda i: float(values[np.concatenate([members[g] for g in i])].mean()), groups, 30)
    assert (found.low, found.high) == pytest.approx(expected)


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
    assert interval_of_mean(values, seed=1) == interval_of_mean(values, seed=1)
    assert interval_of_mean(values, seed=1) != interval_of_mean(values, seed=2)


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).random(50)
    narrow, wide = interval_of_mean(values, level=0.5), interval_of_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_resamples_without_a_score_are_left_out_and_counted() -> None:
    gold, scores = np.arange(10)[:, None] == 4, np.arange(10.0)[:, None]
    found = bootstrap_intervals([Auroc(gold, scores)], 10)["auroc"]
    assert 500 < found.samples < 800  # 1 - 0.9^10 = 65% of the resamples draw the one positive
    nowhere = bootstrap_intervals([Auroc(gold & False, scores), Spearman(scores, scores * 0)], 10)
    assert nowhere == {}
    half = np.stack([np.arange(10) == 0, np.arange(10) == 1], 1)  # defined on 40% of them
    assert bootstrap_intervals([Auroc(half, np.tile(scores, 2))], 10) == {}


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_a_resample_of_one_value_has_no_correlation(offset: float) -> None:
    x = np.array([[0.1], [0.1], [0.3]]) + offset
    (found,) = [regression_statistics(x, x)(np.array([[3.0, 0, 0], [1, 2, 0], [0, 1, 2]]))]
    assert np.isnan(found["pearson"]).tolist() == np.isnan(found["r2"]).tolist() == [True, True, False]
    assert found["pearson"][2] == pytest.approx(1)


@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=10), level=st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_of_a_mean_equals_scipys(values: list[float], level: float) -> None:
    found = mean_interval(values, level=level)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    if np.ptp(values) > 1e-6:  # scipy divides by the deviation
        assert found.interval is not None
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(level)
        assert found.interval.low == pytest.approx(expected.low, abs=1e-9)
        assert found.interval.high == pytest.approx(expected.high, abs=1e-9)


def test_the_interval_of_a_mean_by_hand() -> None:
    # 1, 2, 3: mean 2, sd 1; t(0.975, 2) = 4.302653, over sqrt(3) = 2.484138.
    mean, std, interval = mean_interval([1.0, 2.0, 3.0])
    assert (mean, std) == (2.0, 1.0)
    assert interval is not None
    assert interval.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert interval.high == pytest.approx(2 + 2.484138, abs=1e-6)


def test_the_interval_of_a_mean_ends_where_the_score_does() -> None:
    found = mean_interval([0.6, 0.95], bounds=range_of("auroc")).interval
    assert found is not None
    assert (found.low, found.high) == (0, 1)
    assert (
        mean_interval([1.0, 2.0], bounds=range_of("loss")).interval
        == mean_interval([1.0, 2.0], bounds=(0, 9e9)).interval
    )
    assert [range_of(name) for name in ("accuracy", "matthews", "r2")] == [(0, 1), (-1, 1), (-math.inf, 1)]


def test_one_run_or_several_alike_have_no_interval() -> None:
    assert mean_interval([0.5]) == (0.5, None, None)
    assert mean_interval([0.7, 0.7, 0.7]).interval is None
    assert mean_interval([0.0, 0.0]) == (0.0, 0.0, None)


def test_what_has_no_interval_is_an_error() -> None:
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="level"):
            mean_interval([1.0, 2.0], level=level)
    with pytest.raises(ValueError, match="examples"):
        mean_interval([])
    with pytest.raises(ValueError, match="examples"):
        bootstrap_intervals([], 0)


def test_json() -> None:
    interval = Interval(low=0.1, high=0.2, level=0.95, samples=3)
    assert to_json(interval) == {"low": 0.1, "high": 0.2, "level": 0.95, "samples": 3}
