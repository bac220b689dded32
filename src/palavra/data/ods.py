"""Spreadsheets of LibreOffice, `.ods` (OpenDocument), as streams of rows of text, in bounded memory."""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import IO

from palavra.data.archive import Archive, Handler
from palavra.data.cells import MOST_COLUMNS, MOST_ROWS, Row, Sheet, number_text
from palavra.errors import PalavraError
from palavra.limits import check_record, utf8_size

_CONTENT = "content.xml"
_NUMBERS = ("float", "percentage", "currency")
# Blanks that are elements.
_BLANKS = {"tab": "\t", "line-break": "\n"}


class OdsWorkbook:
    """An open spreadsheet. Cells are read as the texts that they would have in a CSV file, dates in ISO 8601."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._archive, self._name = Archive(file, name), name
        if not self._archive.holds(_CONTENT):
            raise PalavraError(f"{name}: not a readable spreadsheet ({_CONTENT} is missing in it)")

    def sheets(self) -> list[Sheet]:
        """Return the sheets in their order."""
        handler = _OdsCells(self._name, None)
        for _ in self._archive.events(_CONTENT, handler):
            check_record(handler.names_size, self._name)
        return [Sheet(name, False, str(number)) for number, name in enumerate(handler.names)]

    def rows(self, sheet: Sheet) -> Iterator[Row]:
        """Yield the rows that have any text, each with its number, from 1."""
        handler = _OdsCells(self._name, int(sheet.key))
        for _ in self._archive.events(_CONTENT, handler):
            for first, times, cells in handler.ended():
                yield from (Row(first + number, cells) for number in range(times))
            if len(handler.names) > int(sheet.key) + 1:
                return


class _OdsCells(Handler):
    """Collects the rows of one sheet, or only the names of all."""

    def __init__(self, name: str, wanted: int | None) -> None:
        self._name, self._wanted = name, wanted
        self.names: list[str] = []
        self.names_size = 0
        self._rows: list[tuple[int, int, list[str]]] = []
        self._row, self._times = 1, 1  # the next row, and how often the file repeats it
        self._cells: list[str] = []
        self._empty, self._held = 0, 0  # empty cells behind the last text; bytes of the row
        self._inside: list[str] = []  # the elements around, from the cell on
        self._texts: list[str] = []
        self._given: dict[str, str] = {}

    def ended(self) -> list[tuple[int, int, list[str]]]:
        """Return the rows that have ended since the last time: the number of the first, how often it is repeated, and
        its cells."""
        rows, self._rows = self._rows, []
        return rows

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._inside:
            self._begin_inside(name, attributes)
        elif name == "table":
            self.names.append(attributes.get("name", ""))
            self.names_size += len(self.names[-1]) + 64
            self._row = 1
        elif len(self.names) - 1 != self._wanted:
            return
        elif name == "table-row":
            self._times = _times(attributes.get("number-rows-repeated"))
            self._cells, self._empty, self._held = [], 0, 0
        elif name in ("table-cell", "covered-table-cell"):
            self._inside, self._texts, self._given = [name], [], attributes

    def _begin_inside(self, name: str, attributes: dict[str, str]) -> None:
        """Begin an element in a cell; only what stands in its own paragraphs is its text."""
        self._inside.append(name)
        if name == "p" and len(self._inside) == 2 and self._texts:
            self._add("\n")
        elif self._in_paragraph():
            self._add(" " * min(_times(attributes.get("c")), MOST_COLUMNS) if name == "s" else _BLANKS.get(name, ""))

    def text(self, content: str) -> None:
        if self._in_paragraph():
            self._add(content)

    def _in_paragraph(self) -> bool:
        return self._inside[1:2] == ["p"] and not {"annotation", "note", "ruby-text"} & set(self._inside)

    def _add(self, text: str) -> None:
        self._texts.append(text)
        self._held += utf8_size(text)
        check_record(self._held, f"{self._name}:{self._row}")

    def end(self, name: str) -> None:
        if self._inside:
            self._inside.pop()
            if not self._inside:
                self._put(self._shown(), _times(self._given.get("number-columns-repeated")))
        elif name == "table-row" and len(self.names) - 1 == self._wanted:
            if self._cells:
                self._rows.append((self._row, self._times, self._cells))
                if self._row + self._times > MOST_ROWS + 1:
                    raise PalavraError(f"{self._name}: more than {MOST_ROWS:,} rows, which no sheet has")
            self._row += self._times

    def _put(self, text: str, times: int) -> None:
        """Put a text into so many cells; empty ones only if a text comes behind them."""
        if not text:
            self._empty += times
            return
        self._held += utf8_size(text) * (times - 1)
        check_record(self._held, f"{self._name}:{self._row}")
        if len(self._cells) + self._empty + times > MOST_COLUMNS:
            raise PalavraError(f"{self._name}:{self._row}: more than {MOST_COLUMNS:,} columns, which no sheet has")
        self._cells += chain(repeat("", self._empty), repeat(text, times))
        self._empty = 0

    def _shown(self) -> str:
        """Return the text of the cell that ends."""
        kind = self._given.get("value-type")
        if kind in _NUMBERS:
            return number_text(self._given.get("value", ""))
        if kind == "date":
            return self._given.get("date-value", "").removesuffix("T00:00:00")
        if kind == "boolean":
            return self._given.get("boolean-value", "").upper()
        return "".join(self._texts) or self._given.get("string-value", "")


def _times(given: str | None) -> int:
    """Return how often something is repeated."""
    return max(1, int(given)) if given and given.isdecimal() and len(given) < 9 else 1
