"""Names and formats of scores, as people read them."""

from palavra.report.formatting import count, of_numbers, percent
from palavra.report.parts import Format, label
from palavra.run_records.finetuning import Interval, ScoreSummary

NAMES = {
    "accuracy_at_5": "Accuracy at 5",
    "auroc": "Area under ROC",
    "calibration_error": "Calibration error",
    "exact": "Exact match",
    "exact_match": "Exact match",
    "f1": "F1",
    "mae": "Mean absolute error",
    "matthews": "Matthews correlation",
    "mse": "Mean squared error",
    "pearson": "Pearson’s r",
    "r2": "R²",
    "rmse": "Root mean squared error",
    "spearman": "Spearman’s ρ",
}
RATES = frozenset({"precision", "recall", "calibration_error"})
RATE_PARTS = frozenset({"accuracy", "f1", "exact"})
UNNAMED = "task"  # what a task is called that nobody gave a name
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


def metric_name(key: str) -> str:
    """Return a score's name; before it the task's, where the key is "task/metric"."""
    task, _, metric = key.rpartition("/")
    name = NAMES.get(metric) or label(metric).replace(" f1", " F1")
    return f"{task}: {name}" if task else name


def is_rate(key: str) -> bool:
    """Return whether a score is a fraction of one, to be shown in percent."""
    metric = key.rpartition("/")[2]
    return metric in RATES or not RATE_PARTS.isdisjoint(metric.split("_"))


def format_of(key: str) -> Format:
    """Return how a score is written."""
    return percent if is_rate(key) else decimal


@of_numbers
def decimal(found: float) -> str:
    """Return three decimals; four digits of what is greater or very small."""
    if abs(found) >= 1000:
        return count(found)
    return f"{found:.3f}" if found == 0 or 0.01 <= abs(found) < 100 else f"{found:.4g}"


def between(interval: Interval | ScoreSummary | None, key: str) -> str:
    """Return an interval of a score, or nothing where there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    form = format_of(key)
    return f"{form(interval.low)} to {form(interval.high)}"


def written(value: float | None, key: str, interval: Interval | None = None) -> str:
    """Return a score and, in brackets, its interval."""
    around = between(interval, key)
    return format_of(key)(value) + (f" ({around})" if around else "")


def place_name(key: str) -> str:
    """Return the name of a split: "valid", or "task/valid" with the task's name where it has one."""
    task, _, split = key.rpartition("/")
    name = SPLITS.get(split, split)
    return name if task in ("", UNNAMED) else f"{task}, {name}"


def split_title(key: str) -> str:
    """Return the name of a split as the beginning of a label."""
    name = place_name(key)
    return name[:1].upper() + name[1:]
