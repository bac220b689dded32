"""The pictures of several runs: over seeds and folds, over the settings of a sweep, over numbers of examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from palavra.report import formatting
from palavra.report.charts import COLOURS, axis_count, cut_axis, number_axis
from palavra.report.metrics import between, format_of, is_rate, metric_name
from palavra.report.svg import FIRST, PAPER, SECOND, drawable, picture
from palavra.run_records.experiments import LearningCurve, SweepSummary, SweepTrial
from palavra.run_records.finetuning import ScoreSummary

MARKERS = ("o", "s", "^", "D", "v")
MOST_CHOICES = 12  # of a setting without numbers, in its picture


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A score of several runs on one split: each run's value, and their summary."""

    name: str
    values: tuple[float, ...]
    summary: ScoreSummary


@picture("runs", height=200)
def runs(figure: Figure, metric: str, rows: Sequence[Spread]) -> str:
    """Draw a dot for each run, and a bar from the low to the high end of the mean's interval, a line of them a
    split."""
    figure.set_figheight((75 + 55 * len(rows)) / 72)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        summary = row.summary
        if summary.low is not None and summary.high is not None:
            axes.plot([summary.low, summary.high], [place, place], color=SECOND, linewidth=5, alpha=0.45)
        axes.plot([summary.mean], [place], "|", color=SECOND, markersize=22, markeredgewidth=2.5)
        # Equal scores would hide one another: dots are set apart a little, always the same way.
        apart = np.linspace(-0.2, 0.2, len(row.values)) if len(row.values) > 1 else np.zeros(len(row.values))
        axes.plot(row.values, place + apart, "o", color=FIRST, alpha=0.8, markersize=6.5, markeredgecolor=PAPER)
    axes.set_yticks(range(len(rows)), [drawable(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    number_axis(axes.xaxis, fraction=is_rate(metric))
    axes.set_title(f"{metric_name(metric)}: dots are runs, the bar their mean and its interval")
    form, said = format_of(metric), []
    for row in rows:
        interval = between(row.summary, metric)
        said.append(f"{row.name}: {', '.join(map(form, row.values))}; mean {form(row.summary.mean)}"
                    f"{interval and ', interval ' + interval}.")  # fmt: skip
    return f"{metric_name(metric)} of several runs. {' '.join(said)}"


@picture("learning-curve", height=340)
def learning_curve(figure: Figure, curve: LearningCurve) -> str:
    """Draw the score against the number of labelled examples, logarithmic, for several ways of training."""
    axes = figure.subplots()
    places: set[int] = set()
    form, said = format_of(curve.metric), []
    for series, colour, marker in zip(curve.series, cycle(COLOURS), cycle(MARKERS), strict=False):
        points = sorted((point.examples, point.score, point.low, point.high) for point in series.points)
        examples, scores, lows, highs = zip(*points, strict=True)
        places.update(examples)
        axes.plot(examples, scores, color=colour, marker=marker, markersize=5.5, markeredgecolor=PAPER,
                  label=drawable(series.name, 36))  # fmt: skip
        bounds = np.array([lows, highs], dtype=np.float64)  # nan where there is no interval
        if not np.isnan(bounds).all():
            banded = ~np.isnan(bounds).any(0)
            axes.fill_between(np.array(examples)[banded], *bounds[:, banded], color=colour, alpha=0.15, linewidth=0)
        reached = ", ".join(f"{form(score)} with {number:,}" for number, score, *_ in points)
        said.append(f"{series.name}: {reached}.")
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    ordered = sorted(places)
    if len(ordered) <= 8 and all(b / a > 1.35 for a, b in pairwise(ordered)):
        axes.set_xticks(ordered)
    axes.xaxis.set_major_formatter(FuncFormatter(axis_count))
    axes.set_xlabel("labelled examples")
    _score_axis(axes, curve.metric)
    axes.legend(loc="best")
    return f"{metric_name(curve.metric)} by the number of labelled examples. {' '.join(said)}"


@picture("history", height=300)
def history(figure: Figure, sweep: SweepSummary, best: SweepTrial) -> str:
    """Draw each trial's score in the order of trials, and the best one so far."""
    axes = figure.subplots()
    order = [trial for trial in sweep.trials if trial.value is not None]
    numbers, values = [trial.number for trial in order], np.array([trial.value for trial in order], dtype=np.float64)
    greatest = sweep.direction == "maximize"
    so_far = (np.maximum if greatest else np.minimum).accumulate(values)
    axes.plot(numbers, so_far, color=SECOND, drawstyle="steps-post", label="best so far")
    axes.plot(numbers, values, "o", color=FIRST, markersize=5.5, alpha=0.8, markeredgewidth=0, label="trial")
    _ring(axes, best.number, best)
    axes.set_xlabel("trial")
    axes.margins(x=0.04, y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _score_axis(axes, sweep.metric)
    axes.legend(loc="lower right" if greatest else "upper right")
    form, name = format_of(sweep.metric), metric_name(sweep.metric)
    return f"{name} of {len(order):,} trials: the first {form(values[0])}, the best {form(so_far[-1])}."


@picture("slice", height=240)
def slice_of(figure: Figure, sweep: SweepSummary, param: str, best: SweepTrial) -> str:
    """Draw each trial's score against its value of one setting: a number, logarithmic where it spans much, or a
    choice."""
    axes = figure.subplots()
    tried = [
        (trial, trial.params[param]) for trial in sweep.trials if param in trial.params and trial.value is not None
    ]
    places = [value for _, value in tried if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(places) == len(tried):
        if _spans_decades(places):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        number_axis(axes.xaxis)
    else:
        names = sorted({formatting.plain(value) for _, value in tried})[:MOST_CHOICES]
        tried = [(trial, value) for trial, value in tried if formatting.plain(value) in names]
        places = [names.index(formatting.plain(value)) for _, value in tried]
        axes.set_xticks(range(len(names)), [drawable(name, 14) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
    values = np.array([trial.value for trial, _ in tried], dtype=np.float64)
    axes.plot(places, values, "o", color=FIRST, markersize=5.5, alpha=0.7, markeredgewidth=0)
    for (trial, _), place in zip(tried, places, strict=True):
        if trial is best:
            _ring(axes, place, trial)
    axes.set_xlabel(drawable(param, 40))
    axes.margins(x=0.05, y=0.1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    _score_axis(axes, sweep.metric)
    at_best = f" Best at {formatting.plain(best.params[param])}." if param in best.params else ""
    return f"{metric_name(sweep.metric)} against {param}, {len(values):,} trials.{at_best}"


def _spans_decades(values: Sequence[float]) -> bool:
    """Return whether values are spread evenly in their logarithms rather than in themselves."""
    return min(values) > 0 and max(values) >= 20 * min(values) and float(np.median(values)) < 0.3 * max(values)


def _ring(axes: Axes, x: float, best: SweepTrial) -> None:
    """Mark the best trial."""
    axes.plot([x], [best.value or 0.0], "o", markersize=11, markerfacecolor="none", markeredgecolor=SECOND,
              markeredgewidth=1.8)  # fmt: skip


def _score_axis(axes: Axes, metric: str) -> None:
    number_axis(axes.yaxis, fraction=is_rate(metric))
    cut_axis(axes, metric_name(metric), fraction=is_rate(metric))
