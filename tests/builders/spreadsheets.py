"""Spreadsheets, written cell by cell as programs write them."""

import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

Cell = str | int | float | bool | date | None
Sheets = Mapping[str, Sequence[Sequence[Cell]]]

_TYPES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_OPEN = "urn:oasis:names:tc:opendocument:xmlns"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
# The styles of cells: numbers, dates and times of the standard, a format of one's own.
NUMBER, DATE, TIME, OWN, ELAPSED = range(5)


def zipped(path: Path, members: Mapping[str, str | bytes]) -> Path:
    """Write a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def xlsx(path: Path, sheets: Sheets, *, hidden: Sequence[str] = (), parts: Mapping[str, str] | None = None) -> Path:
    """Write a workbook with texts in a table of their own; `parts` replace its files."""
    texts: list[str] = []
    bodies = [sheet("".join(_xlsx_row(number, row, texts) for number, row in enumerate(rows, 1)))
              for rows in sheets.values()]  # fmt: skip
    return zipped(path, {**xlsx_parts(list(sheets), bodies, texts, hidden), **(parts or {})})


def xlsx_parts(
    names: Sequence[str], bodies: Sequence[str], texts: Sequence[str] = (), hidden: Sequence[str] = ()
) -> dict[str, str]:
    """The files of a workbook by name."""
    listed = "".join(
        f"<sheet name={quoteattr(name)} r:id='r{number}' state='{'hidden' if name in hidden else 'visible'}'/>"
        for number, name in enumerate(names, 1)
    )
    relations = "".join(
        f"<Relationship Id='r{number}' Type='{_TYPES}/worksheet' Target='worksheets/s{number}.xml'/>"
        for number, _ in enumerate(names, 1)
    )
    formats = "".join(f"<xf numFmtId='{number}'/>" for number in (0, 14, 21, 164, 46))
    own = "[$-416]dd&quot; de &quot;mmm"
    return {
        "_rels/.rels": _relations(f"<Relationship Id='r' Type='{_TYPES}/officeDocument' Target='xl/workbook.xml'/>"),
        "xl/workbook.xml": f"<workbook xmlns='{_MAIN}' xmlns:r='{_TYPES}'><sheets>{listed}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": _relations(
            f"{relations}<Relationship Id='t' Type='{_TYPES}/sharedStrings' Target='/xl/sharedStrings.xml'/>"
            f"<Relationship Id='f' Type='{_TYPES}/styles' Target='styles.xml'/>"
        ),
        "xl/sharedStrings.xml": f"<sst xmlns='{_MAIN}'>"
        + "".join(f"<si><t xml:space='preserve'>{escape(text)}</t></si>" for text in texts)
        + "</sst>",
        "xl/styles.xml": f"<styleSheet xmlns='{_MAIN}'><numFmts><numFmt numFmtId='164' formatCode='{own}'/></numFmts>"
        f"<cellStyleXfs><xf numFmtId='14'/></cellStyleXfs><cellXfs>{formats}</cellXfs></styleSheet>",
        **{f"xl/worksheets/s{number}.xml": body for number, body in enumerate(bodies, 1)},
    }


def sheet(rows: str) -> str:
    """A sheet of rows of XML."""
    return f"<worksheet xmlns='{_MAIN}'><sheetData>{rows}</sheetData></worksheet>"


def _relations(inner: str) -> str:
    return (
        f"<Relationships xmlns='http://schemas.openxmlformats.org/package/2006/relationships'>{inner}</Relationships>"
    )


def _xlsx_row(number: int, row: Sequence[Cell], texts: list[str]) -> str:
    cells = "".join(_xlsx_cell(f"{letters(place)}{number}", cell, texts) for place, cell in enumerate(row, 1))
    return f"<row r='{number}'>{cells}</row>"


def letters(place: int) -> str:
    """The name of a column from its number: 1 is A."""
    return (letters((place - 1) // 26) if place > 26 else "") + chr(ord("A") + (place - 1) % 26)


def _xlsx_cell(place: str, cell: Cell, texts: list[str]) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        texts.append(cell)
        return f"<c r='{place}' t='s'><v>{len(texts) - 1}</v></c>"
    if isinstance(cell, bool):
        return f"<c r='{place}' t='b'><v>{int(cell)}</v></c>"
    if isinstance(cell, date):
        when = cell if isinstance(cell, datetime) else datetime(cell.year, cell.month, cell.day)
        days = (when - datetime(1899, 12, 30)).total_seconds() / 86_400
        return f"<c r='{place}' s='{DATE}'><v>{days!r}</v></c>"
    return f"<c r='{place}'><v>{cell!r}</v></c>"


def ods(path: Path, sheets: Sheets, *, content: str | None = None) -> Path:
    """Write a spreadsheet of LibreOffice; `content` replaces its sheets."""
    tables = "".join(
        f"<table:table table:name={quoteattr(name)}>"
        + "".join(f"<table:table-row>{''.join(map(_ods_cell, row))}</table:table-row>" for row in rows)
        + "</table:table>"
        for name, rows in sheets.items()
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    return zipped(path, {"mimetype": kind, "content.xml": content or document(tables), "META-INF/manifest.xml": "<m/>"})


def document(tables: str) -> str:
    """The content of a spreadsheet with these tables of XML."""
    names = " ".join(f"xmlns:{name}='{_OPEN}:{name}:1.0'" for name in ("office", "table", "text"))
    return (
        f"<office:document-content {names}><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>"
        "</office:document-content>"
    )


def _ods_cell(cell: Cell) -> str:
    if cell is None:
        return "<table:table-cell/>"
    if isinstance(cell, bool):
        given = f"office:value-type='boolean' office:boolean-value='{str(cell).lower()}'"
    elif isinstance(cell, date):
        given = f"office:value-type='date' office:date-value='{cell.isoformat()}'"
    elif isinstance(cell, str):
        given = "office:value-type='string'"
    else:
        given = f"office:value-type='float' office:value='{cell!r}'"
    shown = "".join(f"<text:p>{escape(line)}</text:p>" for line in str(cell).split("\n"))
    return f"<table:table-cell {given}>{shown}</table:table-cell>"
