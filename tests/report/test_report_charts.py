"""Pictures: what they say in words, and that they draw what they say."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.report import charts, run_charts, task_charts
from palavra.report.charts import Series
from palavra.report.svg import drawable, placed
from palavra.run_records.experiments import CurvePoint, CurveSeries, LearningCurve, SweepSummary, SweepTrial
from palavra.run_records.pretraining import FrequencyBand
from palavra.run_records.training import MetricLine  # fmt: skip
from palavra.tasks.regression.scores import TargetScorer


def test_long_runs_make_small_pictures() -> None:
    steps = np.arange(1, 100_001, dtype=np.float64)
    values = 3 + np.random.default_rng(0).normal(0, 0.1, steps.size)
    values[54_321] = 7.5  # thinning must keep a spike
    series = Series(steps=steps, values=values)
    thin = series.thinned()
    assert len(thin) <= 400
    assert thin.values.max() == 7.5
    assert np.all(np.diff(thin.steps) > 0)
    assert len(series.smoothed()) <= 200
    assert len(charts.loss(series, {}, "nats per token")) < 30_000


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=600))
def test_smoothing_stays_within_what_was_logged(values: list[float]) -> None:
    found = np.array(values)
    series = Series(steps=np.arange(1.0, len(values) + 1), values=found)
    smooth = series.smoothed()
    assert smooth.steps[0] == 1
    assert smooth.steps[-1] == len(values)
    assert smooth.values[0] == pytest.approx(found[0], abs=1e-6)
    assert smooth.values.min() >= found.min() - 1e-6
    assert smooth.values.max() <= found.max() + 1e-6


def test_series_leaves_out_what_is_no_number() -> None:
    values: list[dict[str, float | None]] = [{"x": 2.0}, {"x": None}, {"y": 3.0}, {"x": 0.5}]
    rows = [MetricLine(kind="train", step=step, values=row) for step, row in enumerate(values, start=1)]
    series = Series.of(rows, "x")
    assert series.steps.tolist() == [1, 4]
    assert series.values.tolist() == [2, 0.5]
    assert len(Series.of(rows, "z")) == 0


def test_the_picture_draws_the_logarithm_of_the_probability__B_plot() -> None:
    """The picture's own curve is -log p to the rounding of its coordinates, with the chapter's examples."""
    examples = charts.negative_log(np.array([0.7, 0.4]))
    assert examples == pytest.approx([0.356675, 0.916291], abs=1e-6)
    band = FrequencyBand(band="1-100", tokens=9, accuracy=0.6, accuracy_at_5=0.9, loss=math.log(2))
    svg = charts.loss_against_probability([band], [0.7, 0.4], None, 4096)
    assert "ranks 1-100: loss 0.69, p = 0.5." in svg
    assert "even guess among 4,096: loss 8.32" in svg
    path = re.search(r'<g id="probability-curve"><path d="([^"]+)"', svg)
    assert path is not None
    points = np.array([pair.split() for pair in path[1].removeprefix("M ").split(" L ")], dtype=np.float64)
    ticks = {
        text: (float(x), float(y))
        for x, y, text in re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([\d.]+)</text>', svg)
    }
    left, right = ticks["0.0"][0], ticks["1.0"][0]  # centred under their places
    high, low = ticks["8"][1], ticks["0"][1]  # beside their places, all shifted alike
    probability = (points[:, 0] - left) / (right - left)
    height = (points[:, 1] - points[:, 1].max()) * 8 / (high - low)  # the curve ends at p = 1, loss 0
    middle = probability > 0.05  # where a tenth of a unit is little
    assert middle.sum() > 20
    assert height[middle] == pytest.approx(charts.negative_log(probability[middle]), abs=0.02)


def test_learning_curve_is_logarithmic_in_examples() -> None:
    bounds = {10: (0.5, None, None), 100: (0.6, 0.5, 0.7), 1000: (0.7, 0.6, 0.8)}
    points = tuple(CurvePoint(examples=n, score=s, low=low, high=high) for n, (s, low, high) in bounds.items())
    other = CurvePoint(examples=10, score=0.4, low=None, high=None)
    series = (CurveSeries(name="one", points=points), CurveSeries(name="two", points=(other,)))
    svg = run_charts.learning_curve(LearningCurve(metric="accuracy", series=series))
    places = {text: float(x) for x, text in re.findall(r'<text [^>]*x="([\d.]+)" [^>]*>([\d,]+)</text>', svg)}
    assert places["100"] - places["10"] == pytest.approx(places["1,000"] - places["100"], abs=0.2)
    assert "one: 50.0% with 10, 60.0% with 100, 70.0% with 1,000." in svg


def test_sweeps_history_keeps_the_best_so_far() -> None:
    trials = tuple(
        SweepTrial(number=n, state="complete", value=value, params={}, seconds=1.0, evaluations=())
        for n, value in enumerate((0.5, 0.7, 0.6))
    )
    sweep = SweepSummary(direction="maximize", metric="score", trials=trials, best=1, importances={})
    assert "the first 0.500, the best 0.700" in run_charts.history(sweep, trials[1])
    assert "the best 0.500" in run_charts.history(replace(sweep, direction="minimize", best=0), trials[0])


def test_confusion_matrix_says_where_it_errs() -> None:
    svg = task_charts.confusion(["cão", "gato"], np.array([[5, 2], [0, 3]]))
    assert "8 of 10 right. cão predicted as gato 2 times" in svg
    assert [found for found in ("5", "2", "3", "0") if f">{found}</text>" in svg] == ["5", "2", "3"]
    assert ">cão</text>" in svg


def test_ids_of_pictures_take_the_name_of_their_place() -> None:
    svg = '<svg><g id="a-1"><use href="#a-1" clip-path="url(#a-2)"/></g><text>id="b" url(#c)</text></svg>'
    moved = '<svg><g id="x-a-1"><use href="#x-a-1" clip-path="url(#x-a-2)"/></g><text>id="b" url(#c)</text></svg>'
    assert placed(svg, "x") == moved
    assert drawable("文字 a\nb " + "c" * 40) == "?? a b " + "c" * 20 + "…"


@pytest.mark.parametrize("examples", [1, 7, 5000])
def test_regression_keeps_points_for_its_picture(examples: int) -> None:
    scorer = TargetScorer(names=("a", "b"), deviation=(1.0, 1.0))
    true = np.arange(2.0 * examples).reshape(-1, 2)
    points = scorer._points(true, true + 1)
    assert list(points) == ["a", "b"]
    assert len(points["a"]) == min(examples, 2000)
    assert points["b"][0] == [1.0, 2.0]
    assert points["b"][-1] == [2.0 * examples - 1, 2.0 * examples]


@pytest.mark.parametrize(
    "svg",
    [
        task_charts.label_counts([(f"a rather long name {number}", 9) for number in range(150)], "training examples"),
        task_charts.importances([("tasks.0.head.hidden_sizes", 0.9)]),
    ],
)
def test_the_title_of_bars_has_the_width_of_the_picture(svg: str) -> None:
    """Beside long names it would leave the picture."""
    (title,) = re.findall(r'<text[^>]*?(?:x="|translate\()([\d.-]+)[^>]*>(?:training examples|importance)', svg)
    assert float(title) < 5
