"""Sheets of spreadsheets as tables."""

from collections.abc import Callable, Iterator, Mapping
from typing import IO, Protocol

from palavra.data.cells import Row, Sheet
from palavra.data.decoding import open_seekable
from palavra.data.ods import OdsWorkbook
from palavra.data.remote import File
from palavra.data.tables import TextTable, shown_columns
from palavra.data.xlsx import XlsxWorkbook
from palavra.errors import PalavraError


class Workbook(Protocol):
    """An open spreadsheet."""

    def sheets(self) -> list[Sheet]:
        """Return its sheets, in order."""

    def rows(self, sheet: Sheet) -> Iterator[Row]:
        """Yield the rows of a sheet that have any text."""


SPREADSHEETS: Mapping[str, Callable[[IO[bytes], str], Workbook]] = {".xlsx": XlsxWorkbook, ".ods": OdsWorkbook}


def open_sheet(file: File, kind: str, *, sheet: str | None, header: bool) -> TextTable | None:
    """Return a sheet of a spreadsheet as a table, whose rows have as many cells as its header; None if it is empty.

    Without a `header` the columns are numbers from 0, as many as the first row has. `sheet`: its name, or its number
    from 1; without one, the only sheet that is not empty and not hidden. Raises PalavraError, with the names of the
    sheets, for none or several, and with the number of the row for text outside of the columns.
    """
    workbook = SPREADSHEETS[kind](open_seekable(file), str(file))
    rows = workbook.rows(_chosen(workbook, sheet, file))
    first = next(rows, None)
    if first is None:
        return None
    if header:
        return TextTable([name.strip() for name in first.cells], first.number, _filled(rows, len(first.cells), file))
    names = [str(number) for number in range(len(first.cells))]
    return TextTable(names, first.number, _filled(_with_first(first, rows), len(names), file))


def _with_first(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _filled(rows: Iterator[Row], width: int, file: File) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with as many cells as there are columns."""
    for number, cells in rows:
        if len(cells) > width:
            held = next(place for place in range(width, len(cells)) if cells[place])
            raise PalavraError(
                f"{file}:{number}: column {held + 1} holds {cells[held][:40]!r}, but the first row has {width}; name "
                "the column or empty it"
            )
        yield number, cells + [""] * (width - len(cells))


def _chosen(workbook: Workbook, wanted: str | None, file: File) -> Sheet:
    sheets = workbook.sheets()
    if wanted is None:
        filled = [sheet for sheet in sheets if not sheet.hidden and next(workbook.rows(sheet), None) is not None]
        if len(filled) == 1:
            return filled[0]
        if filled:
            raise PalavraError(f"{file}: there are several sheets, {_named(filled)}; name one with --sheet")
        raise PalavraError(f"{file}: no sheet has any text; there are: {_named(sheets)}")
    for sheet in sheets:
        if sheet.name == wanted:
            return sheet
    if wanted.isdecimal() and len(wanted) < 9 and 1 <= int(wanted) <= len(sheets):
        return sheets[int(wanted) - 1]
    raise PalavraError(f"{file}: no sheet {wanted[:40]!r}; there are: {_named(sheets)}; name one with --sheet")


def _named(sheets: list[Sheet]) -> str:
    return shown_columns([sheet.name for sheet in sheets])
