"""Names of classes: how they are compared, shown, and kept by `transformers`."""

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

from palavra.errors import PalavraError

Labels = tuple[str, ...]
SHOWN_LABELS = 20


def composed(label: str) -> str:
    """The label with each accent in its letter (NFC): one that is written apart looks the same, and means the same."""
    return unicodedata.normalize("NFC", label)


def spelling(label: str) -> str:
    """The same for labels that differ only in how they are written: in their case, or as 1 and 1.0."""
    try:
        number = float(label)
    except ValueError:
        return label.casefold()
    return repr(number) if math.isfinite(number) else label.casefold()


def alike_labels(labels: Iterable[str]) -> list[list[str]]:
    """Those of the labels that differ only in how they are written, side by side."""
    found: dict[str, list[str]] = {}
    for label in labels:
        found.setdefault(spelling(label), []).append(label)
    return [alike for alike in found.values() if len(alike) > 1]


def at_least_two(labels: Labels, source: str, task: str) -> None:
    """Raise PalavraError where the data of a task have fewer labels than two."""
    if len(labels) < 2:
        only = f"only one label, {labels[0]!r}" if labels else "no label at all"
        raise PalavraError(f"{source} has {only}: {task} needs at least two; check the label column")


def numbered(labels: Labels) -> dict[str, int]:
    """The number of each label."""
    return {composed(label): number for number, label in enumerate(labels)}


def known_labels(labels: Labels) -> str:
    """The first of the labels, and how many more there are, for a message of one line."""
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(map(repr, labels[:SHOWN_LABELS])) + more


def label_map(labels: Labels) -> dict[str, Any]:
    """`id2label` and `label2id`, as `transformers` keeps them."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
