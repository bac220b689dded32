"""CSV and TSV as programs write them: which delimiter, whether quotes enclose fields, and where a row starts."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from palavra.data.decoding import LONGEST_RECORD
from palavra.errors import PalavraError

DELIMITERS = ",;\t|"
SAMPLE_LINES = 5000


def allow_long_fields() -> None:
    """Lift csv's limit of the whole process, 131,072 characters, to the longest record; call it before reading."""
    csv.field_size_limit(LONGEST_RECORD)


def table_rows(
    path: Path, lines: Iterable[str], first: int, options: dict[str, Any]
) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line they start at; `first` is the number of the first of `lines`, `options` are csv's.

    An empty line is a row without fields. A quote that is never closed, or not at the end of its field, is a
    `PalavraError`: what follows would run into one record with it.
    """
    reader = csv.reader(lines, strict=True, **options)
    while True:
        line = first + reader.line_num
        try:
            row = next(reader, None)
        except csv.Error as error:
            kind = "TSV" if options["delimiter"] == "\t" else "CSV"
            raise PalavraError(f"{path}:{line}: {_told(error, kind)}") from None
        if row is None:
            return
        yield line, row


def _told(error: csv.Error, kind: str) -> str:
    """What the csv module found, and what to do about it."""
    doubled = "quotes inside of quotes are doubled"
    if "unexpected end of data" in str(error):
        return f"a quote that opens in this record is never closed: close it; {doubled}"
    if "expected after" in str(error):
        return (
            "a quote that opens a field of this record closes before the field ends: put quotes around the whole "
            f"field; {doubled}"
        )
    return f"not valid {kind} ({error})"


def dialect(sample: list[str], tabs: bool) -> dict[str, Any]:
    """Options for csv from the first lines of a table, the header first; `tabs` where the name says tabs.

    Of the delimiters that divide the header, the one under which the most records have as many fields as the
    header, as spreadsheets write a comma or, where that is the decimal sign, a semicolon.
    """
    order = "\t,;|" if tabs else DELIMITERS
    delimiter = "\t" if tabs and "\t" in sample[0] else max(order, key=lambda each: _fit(sample, each))
    quoted = delimiter != "\t" or is_quoted(sample)
    return {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}


def is_quoted(sample: list[str]) -> bool:
    """Whether quotes enclose fields: many tab-separated files use the quote as any other character."""
    try:
        records = list(csv.reader(sample, delimiter="\t", strict=True))
    except csv.Error:
        return False
    return all(len(record) == len(records[0]) for record in records[:-1])


def _fit(sample: list[str], delimiter: str) -> tuple[bool, float, int]:
    """How well a delimiter fits: divides the header, the share of records like it, and its columns."""
    header, *records = [record for record in csv.reader(sample, delimiter=delimiter) if record]
    if len(sample) >= SAMPLE_LINES:
        records = records[:-1]  # the sample may end inside it
    alike = sum(len(record) == len(header) for record in records)
    return len(header) > 1, alike / max(len(records), 1), len(header)
