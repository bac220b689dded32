"""What the formats of spreadsheets have in common."""

import math
from typing import NamedTuple

# Of a sheet in every program of today.
MOST_ROWS = 1 << 20
MOST_COLUMNS = 1 << 14
# Whole numbers below are exact in a cell, and are shown as such.
_EXACT = 2.0**53


class Sheet(NamedTuple):
    """A sheet of a workbook: its name, whether it is hidden, and what the reader finds it by."""

    name: str
    hidden: bool
    key: str


class Row(NamedTuple):
    """A row with any text: its number, from 1, and the texts of its cells, up to the last that is not empty."""

    number: int
    cells: list[str]


def number_text(raw: str) -> str:
    """Return the shortest text of the number in a cell, which files write with 17 digits."""
    try:
        number = float(raw)
    except ValueError:
        return raw
    if not math.isfinite(number):
        return raw
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)
