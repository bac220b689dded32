"""The pictures of a fine-tuned model: its scores along training, and where it is right and wrong."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from palavra.report import formatting
from palavra.report.charts import BESIDE, Floats, Series, along_training, cut_axis, lines, number_axis
from palavra.report.formatting import percent
from palavra.report.metrics import format_of, is_rate, metric_name
from palavra.report.svg import FIRST, INK, MUTED, PAPER, RULE, SECOND, THIRD, drawable, picture
from palavra.run_records.finetuning import ReliabilityBin

Counts = NDArray[np.int64]
BAR = 20.0  # units of height for a bar with its name
MOST_BARS = 30


@picture("task-scores", height=300)
def task_scores(figure: Figure, scores: Mapping[str, Series]) -> str:
    """Draw validation scores along training by their names: all of them are rates, or none."""
    axes = figure.subplots()
    lines(axes, {metric_name(key): series for key, series in scores.items()})
    values = np.concatenate([series.values for series in scores.values()])
    rates = all(map(is_rate, scores))
    low, high = float(values.min()), float(values.max())
    margin = max(0.08 * (high - low), 0.005 * max(abs(low), abs(high)), 1e-9)
    bottom = max(low - margin, 0.0) if low >= 0 else low - margin
    axes.set_ylim(bottom, min(high + margin, 1.0 + margin / 4) if rates and high <= 1 else high + margin)
    number_axis(axes.yaxis, fraction=rates)
    cut_axis(axes, "on the validation examples", fraction=rates)
    if len(scores) > 3:  # inside, so many names would lie over the curves
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.2)
    else:
        axes.legend(loc="lower right")
    along_training(axes, *scores.values())
    return " ".join(["Scores.", *(one.described(metric_name(key), format_of(key)) for key, one in scores.items())])


@picture("confusion", height=400)
def confusion(figure: Figure, names: Sequence[str], counts: Counts) -> str:
    """Draw the confusion matrix `counts` (K, K), rows gold labels and columns predictions, shaded by the fraction of
    the row: right predictions in one colour, wrong ones in another."""
    classes = len(names)
    figure.set_figheight((110 + max(240.0, 19.0 * classes)) / 72)
    axes = figure.subplots()
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    small = 11 if classes <= 10 else 9 if classes <= 16 else 7.5
    for row, column in np.argwhere(counts > 0).tolist():
        # Sixteen shades, so that equal ones have one description in the file.
        shade = round(16 * (0.12 + 0.88 * float(fractions[row, column]))) / 16
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
    axes.set_ylabel("gold label", fontsize=small)
    right = int(np.trace(counts))
    wrong = [(int(counts[r, c]), names[r], names[c]) for r, c in np.argwhere(counts > 0).tolist() if r != c]
    said = "; ".join(f"{label} predicted as {found} {count:,} times" for count, label, found in sorted(wrong)[::-1][:5])
    return f"Confusion matrix: {right:,} of {int(counts.sum()):,} right. {said}"


@picture("reliability", height=380)
def reliability(figure: Figure, bins: Sequence[ReliabilityBin], error: float | None) -> str:
    """Draw accuracy against confidence (Guo et al. 2017, figure 1), with the number of predictions below."""
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    full = [
        (one, one.confidence, one.accuracy)
        for one in bins
        if one.count and one.confidence is not None and one.accuracy is not None
    ]
    widths = [0.9 * (one.high - one.low) for one, _, _ in full]
    middles = [(one.low + one.high) / 2 for one, _, _ in full]
    accuracies = [accuracy for _, _, accuracy in full]
    top.bar(middles, accuracies, width=widths, color=FIRST, alpha=0.45, label="accuracy")
    top.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="accuracy equals confidence")
    top.plot([place for _, place, _ in full], accuracies, "o", color=FIRST, markersize=5, markeredgecolor=PAPER)
    for _, place, accuracy in full:
        top.plot([place, place], [place, accuracy], color=SECOND, linewidth=1.5)
    below.bar(middles, [one.count for one, _, _ in full], width=widths, color=THIRD, alpha=0.7)
    top.set_ylim(0, 1.02)
    top.set_title(
        "fraction of correct predictions" + ("" if error is None else f"; calibration error {percent(error)}")
    )
    top.legend(loc="upper left")
    below.set_title("predictions")
    below.set_xlabel("confidence, the probability of the predicted class")
    below.set_xlim(0, 1)
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    number_axis(top.yaxis, fraction=True)
    number_axis(below.xaxis, fraction=True)
    return f"Reliability. Expected calibration error {percent(error)}. " + " ".join(
        f"Confidence {percent(place, 0)}: {percent(accuracy, 0)} correct of {one.count:,}."
        for one, place, accuracy in full
    )


@picture("labels", height=300)
def label_counts(figure: Figure, counts: Sequence[tuple[str, int]], unit: str) -> str:
    """Draw bars of how often each label occurs, at most thirty of them, the most frequent on top; `unit` says of
    what."""
    shown = list(counts[:MOST_BARS])
    values = [value for _, value in shown]
    title = unit + (f", the {len(shown)} most frequent of {len(counts):,} labels" if len(shown) < len(counts) else "")
    _bars(figure, title, [name for name, _ in shown], values, [formatting.count(value) for value in values])
    return f"Labels, counted in {unit}. " + " ".join(f"{name}: {value:,}." for name, value in shown)


@picture("importances", height=300)
def importances(figure: Figure, important: Sequence[tuple[str, float]]) -> str:
    """Draw bars of how much of the variance between trials each setting explains."""
    values = [value for _, value in important]
    title = "importance: fraction of the variance between trials"
    _bars(figure, title, [name for name, _ in important], values, [percent(value, 0) for value in values])
    return "Importance of settings. " + " ".join(f"{name}: {percent(value)}." for name, value in important)


@picture("scatter", height=400)
def scatter(figure: Figure, points: Floats, name: str) -> str:
    """Draw predicted against true values, points (E, 2) of a target: on the diagonal all would be right."""
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


def _bars(figure: Figure, title: str, names: Sequence[str], values: Sequence[float], texts: Sequence[str]) -> None:
    """Draw horizontal bars with names and numbers; the figure grows with their number."""
    # Over the names too: beside long ones a title has no room.
    figure.suptitle(title, x=0, ha="left", fontsize="medium", color=MUTED)
    figure.set_figheight((60 + BAR * max(len(names), 3)) / 72)
    axes = figure.subplots()
    places = np.arange(len(names), dtype=np.float64)
    axes.barh(places, values, height=0.66, color=FIRST)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.annotate(text, (max(value, 0.0), place), (4, 0), **BESIDE)
    axes.set_yticks(places, [drawable(name, 24) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.16)
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(visible=False)
