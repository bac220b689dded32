"""Read texts with choices, one of them correct, from records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from palavra.data.characters import is_blank
from palavra.data.records import Record, column, read_records
from palavra.errors import PalavraError
from palavra.tasks.labels import composed
from palavra.tasks.reading import read_examples
from palavra.tasks.spec import TaskSpec, named_columns
from palavra.tasks.task import Reader
from palavra.tasks.text_examples import shown, text_columns

# Most digits of a label; Python does not parse numbers with thousands of digits.
LONGEST_NUMBER = 10


@dataclass(frozen=True, kw_only=True)
class ChoiceExample:
    """A `text`, two or more `choices`, the number `label` of the gold one (from 0) or None, and the source `where`."""

    text: str
    choices: tuple[str, ...]
    label: int | None
    where: str


def reader(spec: TaskSpec) -> Reader[ChoiceExample]:
    """Return a reader of texts, choices in a list or in columns, and the gold choice by number, letter or text."""
    skipped: list[str] = []

    def read(source: str) -> list[ChoiceExample]:
        label = spec.label_column("multiple choice takes one, the gold choice") or "label"
        records = read_records(source, spec, columns=named_columns(spec))
        return read_examples(
            records, lambda record: _example(record, spec, label), source, skip_bad=spec.skip_bad, skipped=skipped
        )

    return Reader(
        spec=spec, read=read, input_of=partial(_input, spec), gold=lambda example: example.label, skipped=skipped
    )


def _example(record: Record, spec: TaskSpec, label: str) -> ChoiceExample:
    choices, (name,) = _choices(record, spec), text_columns(spec)
    return ChoiceExample(
        text=_text(column(record, name, option="--text"), record.where, name),
        choices=choices,
        label=_label(column(record, label, option="--label"), choices, f"{record.where}: {label}"),
        where=record.where,
    )


def _input(spec: TaskSpec, one: Any, where: str) -> ChoiceExample:
    """Return an unlabelled example from a mapping with the columns, or from a text and its choices."""
    (name,) = text_columns(spec)
    if isinstance(one, Mapping):
        record = Record(dict(one), where)
        text, choices = column(record, name, option="--text"), _choices(record, spec)
    elif isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[1], list | tuple):
        text, choices = one[0], _listed(one[1], where, "choices")
    else:
        raise PalavraError(
            f"{where}: a text alone has no choices: give a mapping with {name} and choices, or a text and a list of "
            "choices; on the command line a --file of them, for example JSON lines"
        )
    return ChoiceExample(text=_text(text, where, name), choices=choices, label=None, where=where)


def _choices(record: Record, spec: TaskSpec) -> tuple[str, ...]:
    """Return the choices from one column of lists, or from several columns, of which the last ones may be empty."""
    names = spec.columns.choices or ("choices",)
    if len(names) == 1:
        value = column(record, names[0], option="--choices")
        if not isinstance(value, list | tuple):
            raise PalavraError(f"{record.where}: {names[0]} is {shown(value)}, not a list of choices: write a list, "
                               "or name one column for each choice")  # fmt: skip
        return _listed(value, record.where, names[0])
    values = [column(record, name, option="--choices") for name in names]
    while values and (values[-1] is None or values[-1] == ""):
        values.pop()
    return _texts(values, names[: len(values)], record.where)


def _listed(values: Sequence[Any], where: str, name: str) -> tuple[str, ...]:
    return _texts(values, [f"{name}[{number}]" for number in range(len(values))], where)


def _texts(values: Sequence[Any], names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the choices as texts; `names` name them in errors."""
    choices = tuple(_text(value, where, name) for value, name in zip(values, names, strict=True))
    if len(choices) < 2:
        raise PalavraError(f"{where}: too few choices ({len(choices)}): there must be at least two")
    return choices


def _text(value: Any, where: str, name: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str) or is_blank(value):
        raise PalavraError(f"{where}: {name} is {shown(value)}, not text: fill it in or remove the line")
    return value


def _label(value: Any, choices: tuple[str, ...], where: str) -> int:
    """Return the number of the gold choice from its number, letter or text in a file."""
    text = "" if value is None else str(value).strip()
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    meant = {number for number, choice in enumerate(choices) if composed(choice.strip()) == composed(text)}
    if text.isascii() and text.isdigit() and len(text) < LONGEST_NUMBER:
        meant |= {int(text)} & set(range(len(choices)))
    elif len(text) == 1 and text.isascii() and text.isalpha():
        meant |= {ord(text.upper()) - ord("A")} & set(range(len(choices)))
    if len(meant) == 1:
        return meant.pop()
    if meant:
        raise PalavraError(f"{where} is {shown(value)}, which may mean choice {' or '.join(map(str, sorted(meant)))} "
                           "(from 0 on), by number, letter or text: write it in another of these ways")  # fmt: skip
    last = len(choices) - 1
    letter = chr(ord("A") + min(last, 25))
    raise PalavraError(f"{where} is {shown(value)}, none of the choices: write its number, 0 to {last} (not 1 to "
                       f"{last + 1}), its letter, A to {letter}, or its exact text")  # fmt: skip
