"""The pictures of the report: one function a figure.

Each draws in the Figure it is given and returns a description for people who cannot see it; `picture` turns the two
into an SVG string. Lines are thinned before drawing, so the page does not grow with the run.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from palavra.report import formatting
from palavra.report.formatting import percent
from palavra.report.svg import FIRST, INK, MUTED, PAPER, RULE, SECOND, THIRD, drawable, picture
from palavra.run_records.pretraining import FrequencyBand
from palavra.run_records.training import MetricLine

Floats = NDArray[np.float64]
COLOURS = (FIRST, SECOND, THIRD, INK, MUTED)
DASHES = ("-", "--", ":", "-.")
BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "ha": "left", "color": INK, "fontsize": 11}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One quantity along training: `steps` (n,) and `values` (n,), float64, finite, steps ascending."""

    steps: Floats
    values: Floats

    @classmethod
    def of(cls, lines: Iterable[MetricLine], key: str) -> Self:
        """Return the column `key` of metric lines, without the lines that lack it."""
        pairs = [(line.step, value) for line in lines if (value := line.values.get(key)) is not None]
        kept = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        return cls(steps=kept[:, 0], values=kept[:, 1])

    def __len__(self) -> int:
        return len(self.steps)

    def thinned(self, bins: int = 200) -> Self:
        """Return at most two points a bin, its least and its greatest value: the picture keeps every spike."""
        if len(self) <= 2 * bins:
            return self
        edges = np.linspace(0, len(self), bins + 1).astype(int)
        kept: list[int] = []
        for start, stop in pairwise(edges.tolist()):
            part = self.values[start:stop]
            kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
        return type(self)(steps=self.steps[kept], values=self.values[kept])

    def smoothed(self, points: int = 200) -> Self:
        """Return a moving mean over 5% of the lines, at most `points` of it. The window is symmetric at the start, too:
        there the loss falls steeply, and a one-sided mean would lag."""
        size = len(self)
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        index = np.unique(np.linspace(0, size - 1, min(size, points)).astype(int))
        reach = np.minimum(index, size // 40)
        start, stop = index - reach, np.minimum(index + reach + 1, size)
        return type(self)(steps=self.steps[index], values=(sums[stop] - sums[start]) / (stop - start))

    def described(self, name: str, form: Callable[[float], str]) -> str:
        """Return what a screen reader says of the curve."""
        if not len(self):
            return f"{name}: no values."
        first, last = form(self.values[0]), form(self.values[-1])
        return f"{name}: {first} at step {self.steps[0]:,.0f}, {last} at step {self.steps[-1]:,.0f}."


def along_training(axes: Axes, *series: Series) -> None:
    """Give curves their horizontal axis, from 0 to the last step of any of them."""
    last = max((one.steps[-1] for one in series if len(one)), default=1.0)
    axes.set_xlim(0, max(float(last), 1.0) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(axis_count))
    axes.set_xlabel("step")


def axis_count(value: float, _: object = None) -> str:
    """Return the label of a tick that counts something."""
    return formatting.count(float(value), exact_below=1e4)


def number_axis(axis: Axis, *, fraction: bool = False) -> None:
    """Label an axis with the digits that its ticks need, fractions in percent."""
    scale, unit = (100, "%") if fraction else (1, "")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}{unit}"))


def cut_axis(axes: Axes, title: str, *, fraction: bool = False) -> None:
    """Give an axis of scores or losses its title, which says where the axis starts if that is above 0."""
    low = axes.get_ylim()[0]
    start = percent(low) if fraction else f"{low:.3g}"
    axes.set_title(f"{title}; axis starts at {start}" if low > 0 else title)


def line(axes: Axes, series: Series, colour: str, label: str | None = None, dash: str = "-") -> None:
    """Draw a line, with dots where points are few."""
    thin = series.thinned()
    marker = "o" if len(series) == 1 or (len(series) <= 50 and label) else ""
    axes.plot(thin.steps, thin.values, dash, color=colour, label=label, marker=marker, markersize=5, markeredgewidth=0)


def lines(axes: Axes, named: Mapping[str, Series], colours: Sequence[str] = COLOURS) -> None:
    """Draw lines by their names in colours in turn, with another dash each time round."""
    styles = cycle([(colour, dash) for dash in DASHES for colour in colours])
    for (name, series), (colour, dash) in zip(named.items(), styles, strict=False):
        line(axes, series, colour, drawable(name), dash)


def raw_and_smooth(axes: Axes, series: Series, colour: str, label: str | None = None) -> None:
    """Draw every logged value faintly, and their moving mean."""
    raw, smooth = series.thinned(), series.smoothed()
    marker = "o" if len(series) == 1 else ""
    axes.plot(raw.steps, raw.values, color=colour, alpha=0.4, linewidth=1)
    axes.plot(smooth.steps, smooth.values, color=colour, label=label, marker=marker, markersize=5, markeredgewidth=0)


@picture("loss", height=300)
def loss(figure: Figure, train: Series, valid: Mapping[str, Series], unit: str, switches: Sequence[float] = ()) -> str:
    """Draw the training loss, raw and smoothed, and validation losses by their names, in this `unit`; `switches` are
    the steps at which the objective changes."""
    axes = figure.subplots()
    for step in switches:
        first = "the objective changes" if step == switches[0] else None
        axes.axvline(step, color=MUTED, linewidth=1, linestyle=":", label=first)
    if len(train):
        raw_and_smooth(axes, train, FIRST, "training, smoothed")
    lines(axes, valid, COLOURS[1:])
    everything = np.concatenate([train.values, *(series.values for series in valid.values())])
    low, high = float(everything.min()), float(everything.max())
    usual = float(np.quantile(everything, 0.99))
    if high > 2 * usual > 0:  # a rare spike may leave the picture, so that the rest shows
        high = usual
    margin = 0.05 * max(high - low, 0.1)
    axes.set_ylim(max(low - margin, min(low, 0.0)), high + margin)
    cut_axis(axes, unit)
    axes.legend(loc="upper right")
    along_training(axes, train, *valid.values())
    named = {"training": train, **valid}
    described = [series.described(name[:1].upper() + name[1:], formatting.loss) for name, series in named.items()]
    changes = [f"The objective changes at step {formatting.count(step)}." for step in switches]
    return " ".join(["Loss.", *described, *changes])


@picture("rate", height=230)
def learning_rate(figure: Figure, rate: Series) -> str:
    """Draw the learning rate's schedule."""
    axes = figure.subplots()
    line(axes, rate, FIRST)
    axes.set_ylim(0, max(float(rate.values.max()), 1e-12) * 1.08)
    number_axis(axes.yaxis)
    along_training(axes, rate)
    return f"{rate.described('Learning rate', '{:.3g}'.format)} Greatest value {rate.values.max():.3g}."


@picture("gradient", height=230)
def gradient_norm(figure: Figure, norm: Series) -> str:
    """Draw the gradient's norm before clipping, on a logarithmic axis where it spans more than a decade."""
    axes = figure.subplots()
    raw_and_smooth(axes, norm, FIRST)
    low = float(norm.values.min())
    if low > 0 and norm.values.max() > 10 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=0)
    number_axis(axes.yaxis)
    axes.set_title("Euclidean norm, all parameters")
    along_training(axes, norm)
    return norm.described("Norm of the gradient", "{:.3g}".format)


@picture("panels", height=300)
def panels(figure: Figure, named: Mapping[str, Series]) -> str:
    """Draw each series in a panel of its own, one above the other: rates, which are fractions of one, in percent."""
    shown = {title: series for title, series in named.items() if len(series)}
    said = []
    for index, (title, series) in enumerate(shown.items()):
        axes = figure.add_subplot(len(shown), 1, index + 1)
        raw_and_smooth(axes, series, (FIRST, THIRD)[index])
        least, most = float(series.values.min()), max(float(np.quantile(series.values, 0.995)), 1e-9)
        rate = title.startswith("fraction")
        # What stays close to one would be a flat line on an axis from zero.
        axes.set_ylim(*((min(0.9, least - 0.01), 1.005) if rate and least > 0.8 else (0, most * 1.15)))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(FuncFormatter(axis_count))
        if rate:
            number_axis(axes.yaxis, fraction=True)
        cut_axis(axes, title, fraction=rate)
        along_training(axes, *shown.values())
        if index < len(shown) - 1:
            axes.tick_params(axis="x", labelbottom=False)
            axes.set_xlabel("")
        said.append(series.described(title[:1].upper() + title[1:], percent if rate else formatting.count))
    return " ".join(said)


@picture("bands", height=340)
def bands(figure: Figure, rows: Sequence[FrequencyBand]) -> str:
    """Draw bars of masked accuracy at 1 and at 5 for every band, the most frequent tokens on top."""
    axes = figure.subplots()
    places = np.arange(len(rows), dtype=np.float64)
    for values, colour, shift, label in (
        ([row.accuracy for row in rows], FIRST, -0.2, "first choice"),
        ([row.accuracy_at_5 for row in rows], THIRD, 0.2, "in the first five"),
    ):
        axes.barh(places + shift, values, height=0.36, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            axes.annotate(percent(value), (value, place + shift), (4, 0), **BESIDE)
    axes.set_yticks(places, [drawable(row.band, 24) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max([row.accuracy_at_5 for row in rows] + [0.05]) * 1.16)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    number_axis(axes.xaxis, fraction=True)
    axes.grid(visible=False)
    axes.set_title("by rank of the token in the training text")
    axes.legend(loc="lower right")
    return "Masked accuracy by frequency. " + " ".join(
        f"Ranks {row.band}: {percent(row.accuracy)} first choice, {percent(row.accuracy_at_5)} among five."
        for row in rows
    )


def negative_log(probability: Floats) -> Floats:
    """Return the loss -log p, in nats, of tokens to which the model gave these probabilities, any shape."""
    return -np.log(probability)


@picture("probability", height=340)
def loss_against_probability(
    figure: Figure, rows: Sequence[FrequencyBand], choices: Sequence[float], overall: float | None,
    vocab_size: int | None,
) -> str:  # fmt: skip
    """Draw the curve -log p; marked at p = exp(-loss) are `rows` and `overall`, the whole evaluation's loss, at their
    loss if right the probabilities `choices` of first choices, and an even guess among `vocab_size`."""
    marks = [(row.loss, f"ranks {drawable(row.band, 24)}", SECOND) for row in rows if 0 <= row.loss < 50]
    if overall is not None and 0 <= overall < 50:
        marks.append((overall, "whole evaluation", INK))
    if vocab_size is not None and vocab_size > 1:
        marks.append((math.log(vocab_size), f"even guess among {formatting.count(vocab_size)}", MUTED))
    marks.sort()
    top = max([height for height, _, _ in marks] + [6.0]) * 1.06
    axes = figure.subplots()
    # Even steps in the loss, not in the probability: the steep part needs the points.
    heights = np.linspace(0.0, top, 400)
    (curve,) = axes.plot(np.exp(-heights), negative_log(np.exp(-heights)), color=FIRST)
    curve.set_gid("data-curve")
    seen = np.array([p for p in choices if 0 < p <= 1], dtype=np.float64)
    if len(seen):
        axes.plot(seen, negative_log(seen), "o", color=PAPER, markersize=6, markeredgecolor=FIRST, markeredgewidth=1.5,
                  label="first choices, examples")  # fmt: skip
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    gap = top / 17  # one line of text
    floor = -gap
    tie: dict[str, Any] = {"arrowstyle": "-", "color": RULE, "shrinkA": 0, "shrinkB": 4}
    for height, text, colour in marks:
        floor = max(height, floor + gap)
        at = (math.exp(-height), height)
        axes.plot([at[0]], [height], "o", color=colour, markeredgecolor=PAPER, markersize=7, clip_on=False)
        axes.annotate(text, at, (at[0] + 0.06, floor), va="center", fontsize=11, color=INK, arrowprops=tie,
                      annotation_clip=False)  # fmt: skip
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.15, top)
    axes.set_xlabel("probability p given to the right token")
    axes.set_title("loss, \N{MINUS SIGN}log p, in nats")
    return "The loss falls ever more slowly as the probability of the right token grows, to 0 at p = 1. " + (
        " ".join(f"{text}: loss {height:.2f}, p = {math.exp(-height):.3g}." for height, text, _ in marks)
    )
