"""Labels of texts: how records give them, in which order they stand, how `transformers` keeps them."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

from palavra.data.records import Record, column
from palavra.errors import PalavraError
from palavra.tasks.spec import TaskSpec
from palavra.tasks.text_examples import shown

Labels = tuple[str, ...]
SHOWN_LABELS = 20


def label_column(spec: TaskSpec) -> str:
    """The column of the label. Raises PalavraError for several."""
    names = spec.columns.label or ("label",)
    if len(names) != 1:
        raise PalavraError(f"label names {len(names)} columns: classification takes one; several labels go in a list")
    return names[0]


def labels_of(record: Record, name: str, spec: TaskSpec) -> Labels:
    """The labels of a record as texts: one, or those of a list, or those parted by the separator."""
    value = column(record, name, option="--label")
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(_label(record, name, item) for item in value))
    if spec.multilabel and isinstance(value, str):
        return tuple(dict.fromkeys(composed(part.strip()) for part in value.split(spec.separator) if part.strip()))
    return (_label(record, name, value),)


def _label(record: Record, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.strip():
        return composed(value.strip())
    if isinstance(value, int | float | Decimal) and math.isfinite(value):
        return str(int(value) if value == int(value) else value)
    if isinstance(value, date):
        return value.isoformat()
    raise PalavraError(
        f"{record.where}: {name} is {shown(value)}, not a label: write a text or a number, or remove the line"
    )


def composed(label: str) -> str:
    """The label with each accent in its letter (NFC): one that is written apart looks the same, and means the same."""
    return unicodedata.normalize("NFC", label)


def check_not_joined(spec: TaskSpec, located: Iterable[tuple[str, str]]) -> None:
    """Raise PalavraError for labels, each with where it is from, of which one is others joined by the separator: each
    of its parts is in another label too. A table has no lists, so that nothing else tells several labels from one."""
    places: dict[str, str] = {}
    for label, where in located:
        places.setdefault(label, where)
    parts = {label: {part.strip() for part in label.split(spec.separator)} - {""} for label in places}
    held = Counter(part for of in parts.values() for part in of)
    for label, of in parts.items():
        if len(of) > 1 and all(held[part] > 1 for part in of):
            raise PalavraError(
                f"{places[label]}: label {label!r} looks like several labels, for each part of it is in others too: "
                "use --multilabel (multilabel = true), or --single-label (false) if it is one"
            )


def natural(label: str) -> tuple[int, float, str]:
    """Numbers in their order, before words in theirs; a label that reads "nan" is a word, for it has no place among
    numbers."""
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (0, number, label) if math.isfinite(number) else (1, 0.0, label)


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


def known_labels(labels: Labels) -> str:
    """The first of the labels, and how many more there are, for a message of one line."""
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(map(repr, labels[:SHOWN_LABELS])) + more


def heaviest(counts: Iterable[int]) -> float:
    """The weight of the rarest class, where classes are made equally heavy and the mean over their rows is 1."""
    present = [count for count in counts if count]
    return sum(present) / (len(present) * min(present))


def label_map(labels: Labels) -> dict[str, Any]:
    """`id2label` and `label2id`, as `transformers` keeps them."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
