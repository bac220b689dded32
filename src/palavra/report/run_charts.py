"""The pictures of several runs: over seeds and folds, over the settings of a sweep, over numbers of examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from palavra.report import formatting
from palavra.report.metrics import between, format_of, is_share, metric_name
from palavra.report.svg import FIRST, INK, MUTED, PAPER, SECOND, THIRD, drawable, picture

COLOURS = (FIRST, SECOND, THIRD, INK, MUTED)
MARKERS = ("o", "s", "^", "D", "v")
MOST_CHOICES = 12  # of a setting without numbers, in its picture


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A score of several runs on one split: each run's value, and the mean with the ends of its interval."""

    name: str
    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None


@picture("runs", height=200)
def runs(figure: Figure, metric: str, rows: Sequence[Spread]) -> str:
    """A dot for each run, and a bar from the low to the high end of the mean's interval, a line of them a split."""
    figure.set_figheight((75 + 55 * len(rows)) / 72)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=SECOND, linewidth=5, alpha=0.45)
        if row.mean is not None:
            axes.plot([row.mean], [place], "|", color=SECOND, markersize=22, markeredgewidth=2.5)
        # Equal scores would hide one another: dots are set apart a little, always the same way.
        apart = np.linspace(-0.2, 0.2, len(row.values)) if len(row.values) > 1 else np.zeros(len(row.values))
        axes.plot(row.values, place + apart, "o", color=FIRST, alpha=0.8, markersize=6.5, markeredgecolor=PAPER)
    axes.set_yticks(range(len(rows)), [drawable(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    _score_axis(axes.xaxis, metric)
    axes.set_title(f"{metric_name(metric)}: dots are runs, the bar their mean and its interval")
    form = format_of(metric)
    return f"{metric_name(metric)} of several runs. " + " ".join(
        f"{row.name}: {', '.join(map(form, row.values))}; mean {form(row.mean)}{interval and ', interval ' + interval}."
        for row in rows
        for interval in [between(metric, row.low, row.high)]
    )


Point = tuple[float, float, float | None, float | None]


@picture("learning-curve", height=340)
def learning_curve(figure: Figure, series: Sequence[tuple[str, Sequence[Point]]], metric: str) -> str:
    """The score against the number of labelled examples, logarithmic, for several ways to learn.

    series: names with points (examples, score, low, high), where low and high, the ends of an interval, may be None;
    examples are positive.
    """
    axes = figure.subplots()
    places: set[float] = set()
    for (name, points), colour, marker in zip(series, cycle(COLOURS), cycle(MARKERS), strict=False):
        points = sorted(points, key=lambda point: point[0])
        examples = [point[0] for point in points]
        places.update(examples)
        axes.plot(examples, [point[1] for point in points], color=colour, marker=marker, markersize=5.5,
                  markeredgecolor=PAPER, label=drawable(name, 36))  # fmt: skip
        banded = [(n, low, high) for n, _, low, high in points if low is not None and high is not None]
        if banded:
            x, low, high = (list(column) for column in zip(*banded, strict=True))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    ordered = sorted(places)
    if len(ordered) <= 8 and all(b / a > 1.35 for a, b in pairwise(ordered)):
        axes.set_xticks(ordered)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(value, exact_below=1e4)))
    axes.set_xlabel("labelled examples")
    axes.set_title(metric_name(metric))
    _score_axis(axes.yaxis, metric)
    axes.legend(loc="best")
    form = format_of(metric)
    return f"{metric_name(metric)} by the number of labelled examples. " + " ".join(
        f"{name}: " + ", ".join(f"{form(point[1])} with {point[0]:,.0f}" for point in points) + "."
        for name, points in series
    )


@dataclass(frozen=True, kw_only=True)
class TrialPoint:
    """A trial of a sweep that came to a `value`; `params` as JSON has them."""

    number: float
    value: float
    params: dict[str, object]


@picture("history", height=300)
def history(
    figure: Figure, metric: str, trials: Sequence[TrialPoint], best: TrialPoint | None, *, greatest: bool
) -> str:
    """Each trial's score in the order of trials, and the best one so far; the `greatest` is the best, or the least."""
    axes = figure.subplots()
    order = sorted(trials, key=lambda trial: trial.number)
    numbers, values = [trial.number for trial in order], np.array([trial.value for trial in order])
    so_far = (np.maximum if greatest else np.minimum).accumulate(values)
    axes.plot(numbers, so_far, color=SECOND, drawstyle="steps-post", label="best so far")
    axes.plot(numbers, values, "o", color=FIRST, markersize=5.5, alpha=0.8, markeredgewidth=0, label="trial")
    if best is not None:
        _ring(axes, best.number, best.value)
    axes.set_title(metric_name(metric))
    axes.set_xlabel("trial")
    axes.margins(x=0.04, y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _score_axis(axes.yaxis, metric)
    axes.legend(loc="lower right" if greatest else "upper right")
    form = format_of(metric)
    return f"{metric_name(metric)} of {len(order):,} trials: the first {form(values[0])}, the best {form(so_far[-1])}."


@picture("slice", height=240)
def slice_of(figure: Figure, metric: str, param: str, trials: Sequence[TrialPoint], best: TrialPoint | None) -> str:
    """Each trial's score against its value of one setting: a number, logarithmic where it spans much, or a choice."""
    axes = figure.subplots()
    tried = [(trial, trial.params[param]) for trial in trials if param in trial.params]
    numbers = [formatting.number(value) for _, value in tried]
    known = [value for value in numbers if value is not None]
    if len(known) == len(tried):
        places = known
        if _spans_decades(known):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        if axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    else:
        names = sorted({formatting.plain(value) for _, value in tried})[:MOST_CHOICES]
        tried = [(trial, value) for trial, value in tried if formatting.plain(value) in names]
        places = [float(names.index(formatting.plain(value))) for _, value in tried]
        axes.set_xticks(range(len(names)), [drawable(name, 14) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
    values = [trial.value for trial, _ in tried]
    axes.plot(places, values, "o", color=FIRST, markersize=5.5, alpha=0.7, markeredgewidth=0)
    for (trial, _), place in zip(tried, places, strict=True):
        if best is not None and trial.number == best.number:
            _ring(axes, place, trial.value)
    axes.set_title(metric_name(metric))
    axes.set_xlabel(drawable(param, 40))
    axes.margins(x=0.05, y=0.1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    _score_axis(axes.yaxis, metric)
    at_best = "" if best is None or param not in best.params else f" Best at {formatting.plain(best.params[param])}."
    return f"{metric_name(metric)} against {param}, {len(values):,} trials.{at_best}"


def _spans_decades(values: Sequence[float]) -> bool:
    """Whether values are spread evenly in their logarithms rather than in themselves."""
    return min(values) > 0 and max(values) >= 20 * min(values) and float(np.median(values)) < 0.3 * max(values)


def _ring(axes: Axes, x: float, y: float) -> None:
    """A mark around the best."""
    axes.plot([x], [y], "o", markersize=11, markerfacecolor="none", markeredgecolor=SECOND, markeredgewidth=1.8)


def _score_axis(axis: Axis, metric: str) -> None:
    """Shares in percent, other scores as they are, with the digits that their ticks need."""
    scale, unit = (100, "%") if is_share(metric) else (1, "")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}{unit}"))
