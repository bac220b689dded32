"""Names and formats of scores, as people read them."""

from palavra.report.facts import Format, label
from palavra.report.formatting import ABSENT, count, number, percent

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
SHARES = frozenset({"precision", "recall", "calibration_error"})
SHARE_PARTS = frozenset({"accuracy", "f1", "exact"})
UNNAMED = "task"  # what a task is called that nobody gave a name
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


def metric_name(key: str) -> str:
    """A score's name; before it the task's, where the key is "task/metric"."""
    task, _, metric = key.rpartition("/")
    name = NAMES.get(metric) or label(metric).replace(" f1", " F1")
    return f"{task}: {name}" if task else name


def is_share(key: str) -> bool:
    """Whether a score is a share of one, to be shown in percent."""
    metric = key.rpartition("/")[2]
    return metric in SHARES or not SHARE_PARTS.isdisjoint(metric.split("_"))


def format_of(key: str) -> Format:
    """How a score is written."""
    return percent if is_share(key) else decimal


def decimal(value: object) -> str:
    """Three decimals; four digits of what is greater or very small."""
    found = number(value)
    if found is None:
        return ABSENT
    if abs(found) >= 1000:
        return count(found)
    return f"{found:.3f}" if found == 0 or 0.01 <= abs(found) < 100 else f"{found:.4g}"


def between(key: str, low: object, high: object) -> str:
    """An interval of a score, or nothing where an end is missing."""
    ends = [format_of(key)(end) for end in (low, high)]
    return "" if ABSENT in ends else f"{ends[0]} to {ends[1]}"


def place_name(key: str) -> str:
    """The name of a split: "valid", or "task/valid" with the task's name where it has one."""
    task, _, split = key.rpartition("/")
    name = SPLITS.get(split, split)
    return name if task in ("", UNNAMED) else f"{task}, {name}"
