"""Workbooks of Excel, `.xlsx` (ECMA-376), as streams of rows of text, in bounded memory."""

import posixpath
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import IO, NamedTuple

from palavra.data.archive import Archive, Handler
from palavra.data.cells import MOST_COLUMNS, MOST_ROWS, Row, Sheet, number_text
from palavra.errors import PalavraError
from palavra.limits import LARGEST_DOCUMENT, check_record, utf8_size

# Number formats that are dates and times without saying so (18.8.30 of the standard).
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
# In a format, what is no letter of a date: quoted and escaped text, colours and conditions (but [h] is hours).
_LITERAL = re.compile(r'"[^"]*"|\\.|[_*].|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.IGNORECASE)
_REFERENCE = re.compile(r"([A-Za-z]{1,3})([0-9]{1,7})\Z")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
# What an empty text takes beside its characters.
_PER_TEXT = 64
_LAST_DAY = 2_958_466  # of the year 9999


class _Format(NamedTuple):
    """Whether numbers of a format are dates, or how long something took."""

    date: bool = False
    elapsed: bool = False


class XlsxWorkbook:
    """An open workbook. Cells are read as the texts that they would have in a CSV file, dates in ISO 8601."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._archive, self._name = Archive(file, name), name
        (self._path,) = [path for kind, path in self._related("").values() if kind == "officeDocument"][:1] or [
            "xl/workbook.xml"
        ]
        self._parts = self._related(self._path)
        self._book = _Book()
        for _ in self._archive.events(self._path, self._book):
            check_record(self._book.size, name)

    def sheets(self) -> list[Sheet]:
        """Return the sheets of cells in their order."""
        kinds = {key: kind for key, (kind, _) in self._parts.items()}
        return [Sheet(name, hidden, key) for name, hidden, key in self._book.sheets if kinds.get(key) == "worksheet"]

    def rows(self, sheet: Sheet) -> Iterator[Row]:
        """Yield the rows that have any text, each with its number, from 1."""
        handler = _XlsxCells(self, self._name)
        for _ in self._archive.events(self._parts[sheet.key][1], handler):
            yield from handler.ended()

    @cached_property
    def shared_texts(self) -> list[str]:
        """The texts that cells refer to by number."""
        path = next((path for kind, path in self._parts.values() if kind == "sharedStrings"), None)
        shared = _SharedTexts()
        for _ in () if path is None else self._archive.events(path, shared):
            if shared.size > LARGEST_DOCUMENT:
                raise PalavraError(f"{self._name}: more than {LARGEST_DOCUMENT:,} bytes of texts; save it as CSV")
        return shared.texts

    @cached_property
    def formats(self) -> list[_Format]:
        """The formats of numbers, by the number of a cell's style."""
        path = next((path for kind, path in self._parts.values() if kind == "styles"), None)
        styles = _Styles()
        for _ in () if path is None else self._archive.events(path, styles):
            check_record(styles.size, self._name)
        return [_format(number, styles.codes.get(number, "")) for number in styles.used]

    def shown(self, raw: str, style: int) -> str:
        """Return a number as text, as its format says: a number, a date or a time."""
        known = self.formats[style] if 0 <= style < len(self.formats) else _Format()
        if not known.date:
            return number_text(raw)
        try:
            days = float(raw)
        except ValueError:
            return raw
        if not 0 <= days < _LAST_DAY:
            return number_text(raw)
        seconds = round(days * 86_400)
        if known.elapsed or days < 1:
            return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        # The calendar of 1900 has a 29th of February, which was none.
        first = datetime(1904, 1, 1) if self._book.date1904 else datetime(1899, 12, 30 if days >= 60 else 31)
        when = first + timedelta(seconds=seconds)
        return str(when.date()) if seconds % 86_400 == 0 else when.isoformat()

    def _related(self, path: str) -> dict[str, tuple[str, str]]:
        """Return the files that one refers to: their keys, kinds and paths in the archive."""
        folder, file = posixpath.split(path)
        relations = posixpath.join(folder, "_rels", f"{file}.rels")
        handler = _Relations(folder)
        if self._archive.holds(relations):
            for _ in self._archive.events(relations, handler):
                check_record(handler.size, self._name)
        return handler.found


def _format(number: int, code: str) -> _Format:
    """Return what numbers of a format are: a date if its code has letters of one."""
    letters = _LITERAL.sub("", code)
    date = number in _DATES if not code else bool(re.search("[dmyhs]", letters.replace("General", ""), re.IGNORECASE))
    return _Format(date, number == 46 or bool(_ELAPSED.search(letters)))


class _Sized(Handler):
    """A handler that adds up about how much it holds."""

    size = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.size += _PER_TEXT + sum(map(len, attributes.values()))


class _Relations(_Sized):
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.found: dict[str, tuple[str, str]] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if name == "Relationship":
            target = posixpath.join("/", self._folder, attributes.get("Target", ""))
            kind = attributes.get("Type", "").rpartition("/")[2]
            self.found[attributes.get("Id", "")] = kind, posixpath.normpath(target).lstrip("/")


class _Book(_Sized):
    def __init__(self) -> None:
        self.sheets: list[tuple[str, bool, str]] = []
        self.date1904 = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if name == "workbookPr":
            self.date1904 = attributes.get("date1904") in ("1", "true")
        elif name == "sheet":
            hidden = attributes.get("state", "visible") != "visible"
            self.sheets.append((attributes.get("name", ""), hidden, attributes.get("id", "")))


class _Styles(_Sized):
    def __init__(self) -> None:
        self.codes: dict[int, str] = {}
        self.used: list[int] = []
        self._of_cells = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if name == "cellXfs":
            self._of_cells = True
        elif name in ("numFmt", "xf"):
            number = attributes.get("numFmtId", "0")
            known = int(number) if number.isdecimal() and len(number) < 9 else 0
            if name == "numFmt":
                self.codes[known] = attributes.get("formatCode", "")
            elif self._of_cells:
                self.used.append(known)

    def end(self, name: str) -> None:
        self._of_cells = self._of_cells and name != "cellXfs"


class _Text(Handler):
    """Collects the text of `t` elements, without that of `rPh`, which says how the others are read aloud."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0
        self._inside, self._aloud = False, False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._inside = name == "t" and not self._aloud
        self._aloud = self._aloud or name == "rPh"

    def end(self, name: str) -> None:
        self._inside = False
        self._aloud = self._aloud and name != "rPh"

    def text(self, content: str) -> None:
        if self._inside:
            self.parts.append(content)
            self.size += utf8_size(content)

    def taken(self) -> str:
        """Return the text so far, and begin the next one."""
        text = "".join(self.parts)
        self.parts = []
        return unescaped(text)


class _SharedTexts(_Text):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def end(self, name: str) -> None:
        super().end(name)
        if name == "si":
            self.texts.append(self.taken())
            self.size += _PER_TEXT


class _XlsxCells(_Text):
    """Collects the rows of a sheet."""

    def __init__(self, book: XlsxWorkbook, name: str) -> None:
        super().__init__()
        self._book, self._name = book, name
        self._rows: list[Row] = []
        self._row, self._column, self._kind, self._style = 0, 0, "n", 0
        self._cells: list[str] = []
        self._held = 0
        self._value: list[str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if name == "row":
            given = attributes.get("r", "")
            self._row = int(given) if given.isdecimal() and len(given) < 9 else self._row + 1
            self._column, self._cells, self._held = 0, [], 0
        elif name == "c":
            found = _REFERENCE.match(attributes.get("r", ""))
            self._column = _number_of(found[1]) if found else self._column + 1
            if not self._row < MOST_ROWS + 1 or self._column > MOST_COLUMNS:
                raise PalavraError(f"{self._name}:{self._row}: a cell outside of a sheet, in column {self._column}")
            style = attributes.get("s", "0")
            self._kind = attributes.get("t", "n")
            self._style = int(style) if style.isdecimal() and len(style) < 9 else 0
        elif name == "v":
            self._value = []

    def text(self, content: str) -> None:
        super().text(content)
        if self._value is not None:
            self._value.append(content)
            self.size += len(content)
        check_record(self.size, f"{self._name}:{self._row}")

    def end(self, name: str) -> None:
        super().end(name)
        if name == "v" and self._value is not None:
            self._put(self._shown("".join(self._value)))
            self._value, self.size = None, 0
        elif name == "is":
            self._put(self.taken())
            self.size = 0
        elif name == "row" and self._cells:
            self._rows.append(Row(self._row, self._cells))
            self._cells = []

    def _put(self, text: str) -> None:
        """Put a text into its cell, behind empty ones that the file leaves out."""
        if text and self._column > len(self._cells):
            self._held += utf8_size(text)
            check_record(self._held, f"{self._name}:{self._row}")
            self._cells += [""] * (self._column - len(self._cells) - 1)
            self._cells.append(text)

    def _shown(self, raw: str) -> str:
        if self._kind == "s":
            texts = self._book.shared_texts
            if not (raw.strip().isdecimal() and len(raw) < 12 and int(raw) < len(texts)):
                raise PalavraError(f"{self._name}:{self._row}: a cell without its text ({raw[:20]!r}); save it anew")
            return texts[int(raw)]
        if self._kind == "n":
            return self._book.shown(raw, self._style)
        if self._kind == "b":
            return "TRUE" if raw.strip() == "1" else "FALSE"
        return unescaped(raw)

    def ended(self) -> list[Row]:
        """Return the rows that have ended since the last time."""
        rows, self._rows = self._rows, []
        return rows


def _number_of(letters: str) -> int:
    """Return the number of a column from its letters: A is 1."""
    number = 0
    for letter in letters.upper():
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def unescaped(text: str) -> str:
    """Return a text with the characters that XML lacks, which are written as _x000D_."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text
