"""Read texts with labels from records."""

import math
from collections import Counter
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

from palavra.data.records import Record, column
from palavra.errors import PalavraError
from palavra.tasks.labels import Labels, composed
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Reader
from palavra.tasks.text_examples import LabelReader, TextExample, shown, text_reader


def reader(spec: TaskSpec) -> Reader[TextExample]:
    """Return a reader of texts whose `label` is a tuple, of one label unless `spec.multilabel`."""
    return text_reader(
        spec,
        labels=_labels,
        gold=lambda example: list(example.label) if spec.multilabel else example.label[0],
        stratification_keys=lambda example: example.label,
    )


def _labels(spec: TaskSpec) -> LabelReader:
    name = spec.label_column("classification takes one; several labels go in a list") or "label"
    return LabelReader(lambda record: labels_of(record, name, spec))


def labels_of(record: Record, name: str, spec: TaskSpec) -> Labels:
    """Return the labels of a record as texts: one, a list, or a text split at the separator."""
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


def check_not_joined(spec: TaskSpec, located: Iterable[tuple[str, str]]) -> None:
    """Raise PalavraError if one of the labels, each with its source, looks like several joined by the separator: each
    of its parts occurs in another label. Tables have no lists that would show it."""
    places: dict[str, str] = {}
    for label, where in located:
        places.setdefault(label, where)
    parts = {label: {part.strip() for part in label.split(spec.separator)} - {""} for label in places}
    held = Counter(part for of in parts.values() for part in of)
    for label, of in parts.items():
        if len(of) > 1 and all(held[part] > 1 for part in of):
            raise PalavraError(
                f"{places[label]}: label {label!r} looks like several labels, because each part occurs in others: "
                "use --multilabel (multilabel = true), or --single-label (false) if it is one"
            )


def natural(label: str) -> tuple[int, float, str]:
    """Return a sort key: numbers in numeric order, then words in alphabetical order; "nan" is a word."""
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (0, number, label) if math.isfinite(number) else (1, 0.0, label)
