"""The pictures of the report: one function a figure.

Each draws in the Figure it is given and returns what a person who cannot see it should hear; `picture` turns
the two into an SVG string. Lines are thinned before drawing, so the page does not grow with the run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from palavra.report import formatting
from palavra.report.formatting import number, percent
from palavra.report.svg import FIRST, INK, MUTED, PAPER, RULE, SECOND, THIRD, picture

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One quantity along training: `steps` (n,) and `values` (n,), float64, finite, steps ascending."""

    steps: Floats
    values: Floats

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], key: str) -> Self:
        """The column `key` of metric lines, without the lines where it is no finite number."""
        pairs = [(number(row.get("step")), number(row.get(key))) for row in rows]
        kept = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
        return cls(steps=kept[:, 0], values=kept[:, 1])

    def __len__(self) -> int:
        return len(self.steps)

    def thinned(self, bins: int = 200) -> Self:
        """At most two points a bin, its least and its greatest value: the picture keeps every spike."""
        if len(self) <= 2 * bins:
            return self
        edges = np.linspace(0, len(self), bins + 1).astype(int)
        kept: list[int] = []
        for start, stop in pairwise(edges.tolist()):
            part = self.values[start:stop]
            kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
        return type(self)(steps=self.steps[kept], values=self.values[kept])

    def smoothed(self, points: int = 200) -> Self:
        """A moving mean over 5% of the lines, at most `points` of it.

        The window is symmetric at the start, where the loss falls steeply and a one-sided mean would lag.
        """
        size = len(self)
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        index = np.unique(np.linspace(0, size - 1, min(size, points)).astype(int))
        reach = np.minimum(index, size // 40)
        start, stop = index - reach, np.minimum(index + reach + 1, size)
        return type(self)(steps=self.steps[index], values=(sums[stop] - sums[start]) / (stop - start))


def along_training(axes: Axes, *series: Series, last_panel: bool = True) -> None:
    """The horizontal axis that all curves share, from 0 to the last step of any of them, labelled once."""
    last = max((one.steps[-1] for one in series if len(one)), default=1.0)
    axes.set_xlim(0, max(float(last), 1.0) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(value, exact_below=1e4)))
    axes.tick_params(axis="x", labelbottom=last_panel)
    axes.set_xlabel("step" if last_panel else "")


def line(axes: Axes, series: Series, colour: str, label: str | None = None, *, dots: bool = False) -> None:
    """A line; dots too where asked for or where one point alone would not show."""
    marker = "o" if dots or len(series) == 1 else ""
    axes.plot(series.steps, series.values, color=colour, label=label, marker=marker, markersize=5, markeredgewidth=0)


def raw_and_smooth(axes: Axes, series: Series, colour: str, label: str | None = None) -> None:
    """Every log line faint, their moving mean strong."""
    raw = series.thinned()
    axes.plot(raw.steps, raw.values, color=colour, alpha=0.4, linewidth=1)
    line(axes, series.smoothed(), colour, label)


def first_and_last(name: str, series: Series, text: Any) -> str:
    """What a screen reader says of a curve."""
    if not len(series):
        return f"{name}: no values."
    first, last = text(series.values[0]), text(series.values[-1])
    return f"{name}: {first} at step {series.steps[0]:,.0f}, {last} at step {series.steps[-1]:,.0f}."


@picture("loss", height=300)
def loss(figure: Figure, train: Series, valid: Series, switches: Sequence[float] = ()) -> str:
    """Training loss, raw and smoothed, and validation loss, in nats per labelled token; `switches` are the steps from
    which on something else was learned."""
    axes = figure.subplots()
    for step in switches:
        first = "the objective changes" if step == switches[0] else None
        axes.axvline(step, color=MUTED, linewidth=1, linestyle=":", label=first)
    if len(train):
        raw_and_smooth(axes, train, FIRST, "training, smoothed")
    if len(valid):
        line(axes, valid.thinned(), SECOND, "validation", dots=len(valid) <= 50)
    everything = np.concatenate([train.smoothed().values, train.values, valid.values])
    low, high = float(everything.min()), float(everything.max())
    usual = float(np.quantile(everything, 0.99))
    if high > 2 * usual > 0:  # a rare spike may leave the picture, so that the rest shows
        high = usual
    margin = 0.05 * max(high - low, 0.1)
    axes.set_ylim(low - margin, high + margin)
    axes.set_title("nats per token")
    axes.legend(loc="upper right")
    along_training(axes, train, valid)
    changes = "".join(f" The objective changes at step {formatting.count(step)}." for step in switches)
    return (
        f"Loss. {first_and_last('Training', train, formatting.loss)} "
        f"{first_and_last('Validation', valid, formatting.loss)}{changes}"
    )


@picture("accuracy", height=300)
def accuracy(figure: Figure, first: Series, fifth: Series) -> str:
    """Masked accuracy at 1 and at 5 on the validation documents."""
    axes = figure.subplots()
    line(axes, fifth.thinned(), THIRD, "in the first five", dots=len(fifth) <= 50)
    line(axes, first.thinned(), FIRST, "first choice", dots=len(first) <= 50)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title("share of masked tokens")
    axes.legend(loc="lower right")
    along_training(axes, first, fifth)
    return f"Masked accuracy. {first_and_last('First choice', first, percent)} " + first_and_last(
        "Among the first five", fifth, percent
    )


@picture("rate", height=230)
def learning_rate(figure: Figure, rate: Series) -> str:
    """The learning rate's schedule."""
    axes = figure.subplots()
    line(axes, rate.thinned(), FIRST)
    axes.set_ylim(0, max(float(rate.values.max()), 1e-12) * 1.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    along_training(axes, rate)
    peak = f"Greatest value {rate.values.max():.3g}."
    return f"{first_and_last('Learning rate', rate, '{:.3g}'.format)} {peak}"


@picture("gradient", height=230)
def gradient_norm(figure: Figure, norm: Series) -> str:
    """The gradient's norm before clipping, on a logarithmic axis where it spans more than a decade."""
    axes = figure.subplots()
    raw_and_smooth(axes, norm, FIRST)
    low = float(norm.values.min())
    if low > 0 and norm.values.max() > 10 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title("Euclidean norm, all parameters")
    along_training(axes, norm)
    return first_and_last("Norm of the gradient", norm, "{:.3g}".format)


@picture("throughput", height=300)
def throughput(figure: Figure, speed: Series, share: Series) -> str:
    """Tokens per second and, where it was measured, the share of the machine's peak in matrix products."""
    panels = [(speed, "tokens per second")] + [(share, "share of peak")] * bool(len(share))
    label = first_and_last("Tokens per second", speed, formatting.count)
    for index, (series, title) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, index + 1)
        raw_and_smooth(axes, series, (FIRST, THIRD)[index])
        axes.set_ylim(0, max(float(np.quantile(series.values, 0.995)), 1e-9) * 1.12)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_title(title)
        along_training(axes, speed, share, last_panel=index == len(panels) - 1)
        if series is share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            label += " " + first_and_last("Share of peak", share, percent)
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: formatting.count(y, exact_below=1e4)))
    return label


@picture("packing", height=300)
def packing(figure: Figure, efficiency: Series, masked: Series) -> str:
    """How full the batches were and which share of their tokens was sampled for prediction."""
    label = first_and_last("Packing efficiency", efficiency, percent)
    panels = [(efficiency, "share of the token budget filled")] * bool(len(efficiency))
    panels += [(masked, "share of tokens sampled for prediction")] * bool(len(masked))
    for index, (series, title) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, index + 1)
        raw_and_smooth(axes, series, FIRST if series is efficiency else THIRD)
        if series is efficiency:
            axes.set_ylim(min(0.9, float(series.values.min()) - 0.01), 1.005)
        else:
            axes.set_ylim(0, max(0.2, float(series.values.max()) * 1.15))
            label += " " + first_and_last("Masked share", masked, percent)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_title(title)
        along_training(axes, efficiency, masked, last_panel=index == len(panels) - 1)
    return label


@dataclass(frozen=True, kw_only=True)
class BandBar:
    """Validation results of the tokens in one range of ranks by training frequency; loss in nats."""

    name: str
    accuracy: float | None
    accuracy_at_5: float | None
    loss: float | None


@picture("bands", height=340)
def bands(figure: Figure, rows: Sequence[BandBar]) -> str:
    """Bars of masked accuracy at 1 and at 5 for every band, the most frequent tokens on top."""
    axes = figure.subplots()
    places = np.arange(len(rows), dtype=np.float64)
    for values, colour, shift, label in (
        ([row.accuracy for row in rows], FIRST, -0.2, "first choice"),
        ([row.accuracy_at_5 for row in rows], THIRD, 0.2, "in the first five"),
    ):
        axes.barh(places + shift, [value or 0.0 for value in values], height=0.36, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            axes.annotate(percent(value), (value or 0.0, place + shift), (4, 0), **BESIDE, fontsize=11)
    axes.set_yticks(places, [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max([row.accuracy_at_5 or row.accuracy or 0.0 for row in rows] + [0.05]) * 1.16)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(visible=False)
    axes.set_title("by rank of the token in the training text")
    axes.legend(loc="lower right")
    return "Masked accuracy by frequency. " + " ".join(
        f"Ranks {row.name}: {percent(row.accuracy)} first choice, {percent(row.accuracy_at_5)} among five."
        for row in rows
    )


BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "ha": "left", "color": INK}


def negative_log(probability: Floats) -> Floats:
    """The loss -log p, in nats, of tokens to which the model gave these probabilities, any shape."""
    return -np.log(probability)


@picture("probability", height=340)
def loss_against_probability(
    figure: Figure,
    rows: Sequence[BandBar],
    choices: Sequence[float],
    overall: float | None,
    vocab_size: float | None,
) -> str:
    """The curve -log p with this run's marks on it.

    `rows` and `overall`, the whole evaluation's loss, are marked at p = exp(-loss), the probability that a
    mean loss amounts to; `choices` are probabilities of first choices in the examples, marked at their loss if
    they are right; `vocab_size` marks an even guess.
    """
    marks = [(row.loss, f"ranks {row.name}", SECOND) for row in rows if row.loss is not None and 0 <= row.loss < 50]
    if overall is not None and 0 <= overall < 50:
        marks.append((overall, "all masked tokens", INK))
    if vocab_size is not None and vocab_size > 1:
        marks.append((math.log(vocab_size), f"even guess among {formatting.count(vocab_size)}", MUTED))
    top = max([height for height, _, _ in marks] + [6.0]) * 1.06
    axes = figure.subplots()
    # Even steps in the loss, not in the probability: the steep part needs the points.
    heights = np.linspace(0.0, top, 400)
    (curve,) = axes.plot(np.exp(-heights), negative_log(np.exp(-heights)), color=FIRST)
    curve.set_gid("data-curve")
    seen = np.array([p for p in choices if 0 < p <= 1], dtype=np.float64)
    if len(seen):
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": 6,
            "color": PAPER,
            "markeredgecolor": FIRST,
            "linestyle": "",
        }
        axes.plot(seen, negative_log(seen), **ring, markeredgewidth=1.5, label="first choices, examples")
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    gap = top / 17  # one line of text
    floor = -gap
    for height, text, colour in sorted(marks):
        floor = max(height, floor + gap)
        at = (math.exp(-height), height)
        dot: dict[str, Any] = {"color": colour, "markeredgecolor": PAPER, "markersize": 7, "clip_on": False}
        axes.plot(*[[place] for place in at], "o", **dot)
        tie: dict[str, Any] = {"arrowstyle": "-", "color": RULE, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            text,
            at,
            (at[0] + 0.06, floor),
            va="center",
            fontsize=11,
            color=INK,
            arrowprops=tie,
            annotation_clip=False,
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.15, top)
    axes.set_xlabel("probability p given to the right token")
    axes.set_title("loss, \N{MINUS SIGN}log p, in nats")
    return "The loss falls ever more slowly as the probability of the right token grows, to 0 at p = 1. " + (
        " ".join(f"{text}: loss {height:.2f}, p = {math.exp(-height):.3g}." for height, text, _ in sorted(marks))
    )
