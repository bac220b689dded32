"""The pictures of a fine-tuned model: how it learned its tasks, and where it is right and wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from palavra.report import formatting
from palavra.report.charts import BESIDE, Floats, Series, along_training, first_and_last, line, raw_and_smooth
from palavra.report.formatting import percent
from palavra.report.metrics import format_of, is_share, metric_name
from palavra.report.svg import FIRST, INK, MUTED, PAPER, RULE, SECOND, THIRD, drawable, picture

LINES = (FIRST, SECOND, THIRD, INK, MUTED)
DASHES = ("-", "--", ":", "-.")
BAR = 20.0  # units of height for a bar with its name
MOST_BARS = 30


@picture("task-loss", height=300)
def task_loss(figure: Figure, train: Series, valid: Mapping[str, Series]) -> str:
    """The training loss, raw and smoothed, and the validation loss of each task by its name."""
    axes = figure.subplots()
    if len(train):
        raw_and_smooth(axes, train, FIRST, "training, smoothed")
    for (name, series), (colour, dash) in zip(valid.items(), _styles(LINES[1:]), strict=False):
        line(axes, series.thinned(), colour, drawable(name), dots=len(series) <= 50)
        axes.lines[-1].set_linestyle(dash)
    values = np.concatenate([train.values, *(series.values for series in valid.values())])
    axes.set_ylim(min(0.0, float(values.min())), max(float(np.quantile(values, 0.995)), 1e-9) * 1.08)
    axes.set_title("mean loss of an example")
    axes.legend(loc="upper right")
    along_training(axes, train, *valid.values())
    said = [first_and_last(name[:1].upper() + name[1:], series, formatting.loss) for name, series in valid.items()]
    return " ".join(["Loss.", first_and_last("Training", train, formatting.loss), *said])


@picture("task-scores", height=300)
def task_scores(figure: Figure, scores: Mapping[str, Series]) -> str:
    """Validation scores along training by their names: all of them are shares, or none."""
    axes = figure.subplots()
    for (name, series), (colour, dash) in zip(scores.items(), _styles(LINES), strict=False):
        line(axes, series.thinned(), colour, drawable(metric_name(name)), dots=len(series) <= 50)
        axes.lines[-1].set_linestyle(dash)
    values = np.concatenate([series.values for series in scores.values()])
    _room(axes, values, all(is_share(name) for name in scores))
    axes.set_title("on the validation examples")
    if len(scores) > 3:  # inside, so many names would lie over the curves
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.2)
    else:
        axes.legend(loc="lower right")
    along_training(axes, *scores.values())
    return "Scores. " + " ".join(
        first_and_last(metric_name(name), series, format_of(name)) for name, series in scores.items()
    )


@picture("confusion", height=400)
def confusion(figure: Figure, names: Sequence[str], counts: NDArray[np.int64]) -> str:
    """The confusion matrix `counts` (K, K), rows labels and columns predictions, shaded by the share of the row: what
    is right in one colour, what is wrong in another."""
    classes = len(names)
    figure.set_figheight((110 + max(240.0, 19.0 * classes)) / 72)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    small = 11 if classes <= 10 else 9 if classes <= 16 else 7.5
    for row, column in np.argwhere(counts > 0).tolist():
        share = float(shares[row, column])
        # Sixteen shades, so that equal ones share their description in the file.
        shade = round(16 * (0.12 + 0.88 * share)) / 16
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=FIRST if row == column else SECOND, edgecolor="none",
                      alpha=shade, clip_on=False)
        )  # fmt: skip
        ink = PAPER if shade > 0.55 else INK
        shown = formatting.count(int(counts[row, column]), exact_below=1e4)
        axes.text(column, row, shown, ha="center", va="center", fontsize=small, color=ink)
    labels = [drawable(name, 18) for name in names]
    turned = classes > 6 or max(map(len, labels)) > 8
    axes.set_xticks(range(classes), labels, fontsize=max(small, 8), rotation=90 if turned else 0)
    axes.set_yticks(range(classes), labels, fontsize=max(small, 8))
    axes.set_xlim(-0.5, classes - 0.5)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_xlabel("predicted", fontsize=small)
    axes.set_ylabel("labelled", fontsize=small)
    right = int(np.trace(counts))
    wrong = [(int(counts[r, c]), names[r], names[c]) for r, c in np.argwhere(counts > 0).tolist() if r != c]
    said = "; ".join(f"{label} taken for {found} {count:,} times" for count, label, found in sorted(wrong)[::-1][:5])
    return f"Confusion matrix: {right:,} of {int(counts.sum()):,} right. {said}"


@dataclass(frozen=True, kw_only=True)
class ReliabilityBar:
    """Predictions whose confidence is between `low` and `high`; the means are None where `count` is 0."""

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    count: float


@picture("reliability", height=380)
def reliability(figure: Figure, bins: Sequence[ReliabilityBar], error: float | None) -> str:
    """Accuracy against confidence (Guo et al. 2017, figure 1), with the number of predictions below."""
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    full = [one for one in bins if one.count > 0 and one.accuracy is not None and one.confidence is not None]
    widths = [one.high - one.low for one in full]
    middles = [(one.low + one.high) / 2 for one in full]
    accuracies = [one.accuracy or 0.0 for one in full]
    top.bar(middles, accuracies, width=[0.9 * w for w in widths], color=FIRST, alpha=0.45, label="accuracy")
    top.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="as sure as right")
    confidences = [one.confidence or 0.0 for one in full]
    top.plot(confidences, accuracies, "o", color=FIRST, markersize=5, markeredgecolor=PAPER)
    for place, accuracy in zip(confidences, accuracies, strict=True):
        top.plot([place, place], [place, accuracy], color=SECOND, linewidth=1.5)
    below.bar(middles, [one.count for one in full], width=[0.9 * w for w in widths], color=THIRD, alpha=0.7)
    top.set_ylim(0, 1.02)
    top.set_title("share of right answers" + ("" if error is None else f"; calibration error {percent(error)}"))
    top.legend(loc="upper left")
    below.set_title("predictions")
    below.set_xlabel("confidence, the probability of the predicted class")
    below.set_xlim(0, 1)
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    for axis in (top.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return f"Reliability. Expected calibration error {percent(error)}. " + " ".join(
        f"Confidence {percent(one.confidence, 0)}: {percent(one.accuracy, 0)} right of {one.count:,.0f}."
        for one in full
    )


@picture("labels", height=300)
def label_counts(figure: Figure, counts: Sequence[tuple[str, float]], unit: str) -> str:
    """Bars of how often each label occurs, at most thirty of them, the most frequent on top; `unit` says of what."""
    shown = list(counts[:MOST_BARS])
    values = [value for _, value in shown]
    _bars(figure, [name for name, _ in shown], values, [formatting.count(value) for value in values])
    rest = len(counts) - len(shown)
    figure.axes[0].set_title(unit + (f", the {len(shown)} most frequent of {len(counts):,} labels" if rest else ""))
    return f"Labels, counted in {unit}. " + " ".join(f"{name}: {value:,.0f}." for name, value in shown)


@picture("importances", height=300)
def importances(figure: Figure, shares: Sequence[tuple[str, float]]) -> str:
    """Bars of how much of a sweep's differences each setting explains."""
    _bars(figure, [name for name, _ in shares], [value for _, value in shares], [percent(v, 0) for _, v in shares])
    figure.axes[0].set_title("share of the differences between trials")
    return "Importance of settings. " + " ".join(f"{name}: {percent(value)}." for name, value in shares)


@picture("scatter", height=400)
def scatter(figure: Figure, points: Floats, name: str) -> str:
    """Predicted against true values, points (E, 2) of a target: on the diagonal all would be right."""
    axes = figure.subplots()
    low, high = float(points.min()), float(points.max())
    margin = 0.04 * max(high - low, 1e-9)
    ends = [low - margin, high + margin]
    axes.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1.2)
    many = len(points) > 300
    axes.plot(points[:, 0], points[:, 1], "o", color=FIRST, alpha=0.35 if many else 0.55, markersize=4 if many else 5,
              markeredgewidth=0, clip_on=False)  # fmt: skip
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.grid(visible=True, axis="both")
    axes.set_xlabel(f"true {drawable(name)}")
    axes.set_title(f"predicted {drawable(name)}")
    difference = points[:, 1] - points[:, 0]
    return (
        f"Predicted against true {name}: {len(points):,} points, true values from {points[:, 0].min():.4g} to "
        f"{points[:, 0].max():.4g}, mean difference {difference.mean():.3g}, mean size {np.abs(difference).mean():.3g}."
    )


def _styles(colours: Sequence[str]) -> Any:
    """Colours in turn, with another dash each time round."""
    return cycle([(colour, dash) for dash in DASHES for colour in colours])


def _room(axes: Axes, values: Floats, shares: bool) -> None:
    """A vertical axis around the values; of shares in percent and not beyond 100."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.08 * (high - low), 0.005 * max(abs(low), abs(high)), 1e-9)
    top = high + margin
    if shares and high <= 1:
        top = min(top, 1.0 + margin / 4)
    scale, unit = (100, "%") if shares else (1, "")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}{unit}"))
    axes.set_ylim(low - margin, top)


def _bars(figure: Figure, names: Sequence[str], values: Sequence[float], texts: Sequence[str]) -> None:
    """Horizontal bars with names and numbers; the figure grows with their number."""
    figure.set_figheight((60 + BAR * max(len(names), 3)) / 72)
    axes = figure.subplots()
    places = np.arange(len(names), dtype=np.float64)
    axes.barh(places, values, height=0.66, color=FIRST)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.annotate(text, (max(value, 0.0), place), (4, 0), **BESIDE, fontsize=11)
    axes.set_yticks(places, [drawable(name, 24) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.16)
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(visible=False)
