"""Read texts with numbers from records."""

import re
from typing import Any

import numpy as np

from palavra.data.records import Record, column
from palavra.errors import PalavraError
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Reader
from palavra.tasks.text_examples import LabelReader, TextExample, shown, text_reader

# One separator with three digits after it: decimal or thousands.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}[,.]\d{3}")
# Digits in groups of three, with optional decimals.
_GROUPED = re.compile(r"[+-]?\d{1,3}([.,\s']\d{3})+([.,]\d+)?")
# The square of a larger target may overflow float32.
LARGEST_TARGET = 1e15


def target_names(spec: TaskSpec) -> tuple[str, ...]:
    """Return the columns of the targets."""
    return spec.columns.label or ("label",)


def reader(spec: TaskSpec) -> Reader[TextExample]:
    """Return a reader of texts whose `label` is a tuple of numbers, one per target."""
    names = target_names(spec)

    def gold(example: TextExample) -> Any:
        return example.label[0] if len(names) == 1 else dict(zip(names, example.label, strict=True))

    return text_reader(spec, labels=_targets, gold=gold, stratification_keys=lambda example: ("",))


def _targets(spec: TaskSpec) -> LabelReader:
    columns = [_Numbers(name) for name in target_names(spec)]

    def check() -> None:
        for numbers in columns:
            numbers.check()

    return LabelReader(lambda record: tuple(numbers.read(record) for numbers in columns), check)


class _Numbers:
    """The column of a target. Numbers in text may have a decimal point or comma; whether the separator in "1,234" or
    "1.234" is decimal depends on the other numbers of the column."""

    def __init__(self, name: str):
        self.name = name
        # Source and text of the first number in which the separator is certainly decimal, and in which it is ambiguous.
        self.sure: dict[str, tuple[str, str]] = {}
        self.unsure: dict[str, tuple[str, str]] = {}

    def read(self, record: Record) -> float:
        """Return the target of a record. Raises PalavraError for a value that is not a number."""
        value = column(record, self.name, option="--label")
        if isinstance(value, str):
            text = value.strip().replace("\N{MINUS SIGN}", "-")
            for sign in ",.":
                if sign in text:
                    noted = self.unsure if _THOUSANDS.fullmatch(text) else self.sure
                    noted.setdefault(sign, (record.where, shown(value)))
            # float() would accept underscores between digits.
            value = text.replace(",", ".") if "_" not in text else ""
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or np.isnan(number):
            given = shown(column(record, self.name))
            hint = "write it without thousands separators" if _GROUPED.fullmatch(str(value)) else "correct it"
            raise PalavraError(f"{record.where}: {self.name} is {given}, not a number: {hint} or remove the line")
        if abs(number) > LARGEST_TARGET:
            raise PalavraError(
                f"{record.where}: {self.name} is {shown(column(record, self.name))}, not a number up to "
                f"{LARGEST_TARGET:g}: correct it, or divide the whole column"
            )
        return number

    def check(self) -> None:
        """Raise PalavraError for an ambiguous separator: a comma if no other number has a certain decimal comma, or one
        has a decimal point; a point if one has a decimal comma."""
        unsure = None
        if "," in self.unsure and ("," not in self.sure or "." in self.sure):
            unsure = self.unsure[","]
        elif "." in self.unsure and "," in self.sure:
            unsure = self.unsure["."]
        if unsure is not None:
            where, given = unsure
            raise PalavraError(
                f"{where}: {self.name} is {given}, where the separator may be decimal or of thousands: write numbers "
                "without thousands separators"
            )
