"""Class names: normalization, comparison, display, and the format of `transformers`."""

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

from palavra.errors import PalavraError

Labels = tuple[str, ...]
SHOWN_LABELS = 20


def composed(label: str) -> str:
    """Normalize a label to NFC, so that composed and decomposed accents are equal."""
    return unicodedata.normalize("NFC", label)


def spelling(label: str) -> str:
    """Return a key that is equal for labels that differ only in spelling: in case, or as 1 and 1.0."""
    try:
        number = float(label)
    except ValueError:
        return label.casefold()
    return repr(number) if math.isfinite(number) else label.casefold()


def alike_labels(labels: Iterable[str]) -> list[list[str]]:
    """Return the groups of labels that differ only in spelling."""
    found: dict[str, list[str]] = {}
    for label in labels:
        found.setdefault(spelling(label), []).append(label)
    return [alike for alike in found.values() if len(alike) > 1]


def at_least_two(labels: Labels, source: str, task: str) -> None:
    """Raise PalavraError if the data of a task have fewer than two labels."""
    if len(labels) < 2:
        only = f"only one label, {labels[0]!r}" if labels else "no label at all"
        raise PalavraError(f"{source} has {only}: {task} needs at least two; check the label column")


def numbered(labels: Labels) -> dict[str, int]:
    """Return the number of each label."""
    return {composed(label): number for number, label in enumerate(labels)}


def known_labels(labels: Labels) -> str:
    """Return the first labels and the number of others, for a one-line message."""
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(map(repr, labels[:SHOWN_LABELS])) + more


def label_map(labels: Labels) -> dict[str, Any]:
    """Return `id2label` and `label2id` in the format of `transformers`."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
