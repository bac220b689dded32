"""Spreadsheets: their cells as the texts that a CSV file of them has, the sheet that is meant, and what is wrong."""

import io
import re
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from builders.bounded_memory import run_bounded
from builders.sources import read
from builders.spreadsheets import DATE, ELAPSED, NUMBER, OWN, TIME, document, ods, sheet, xlsx, xlsx_parts, zipped
from hypothesis import given
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from palavra.data import archive
from palavra.data import xlsx as excel
from palavra.data.config import ReadConfig
from palavra.data.records import read_records
from palavra.errors import PalavraError

WRITERS: dict[str, Callable[..., Path]] = {".xlsx": xlsx, ".ods": ods}
WRITTEN = pytest.mark.parametrize("suffix", WRITERS)


def values(path: Path, **reading: Any) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(path), ReadConfig(**reading))]


def wrong(path: Path, **reading: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        values(path, **reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@WRITTEN
def test_cells_are_what_they_are_in_a_csv_file(suffix: str, tmp_path: Path) -> None:
    rows = [
        [],
        [" text ", "n", "when", "ok", None, "label"],
        ["olá\nmundo & <b>", 1, date(2024, 3, 1), True, None, "sim"],
        [],
        ["😀", 0.30000000000000004, datetime(1999, 12, 31, 23, 59, 58), False],
        [None, -1e300, None, None, None, 7],
        ["  ", 2.0**53 - 1],
    ]
    path = WRITERS[suffix](tmp_path / f"a{suffix}", {"Folha": rows})
    empty = {"text": "", "n": "", "when": "", "ok": "", "label": ""}
    found = list(read_records(str(path)))
    assert [record.values for record in found] == [
        {"text": "olá\nmundo & <b>", "n": "1", "when": "2024-03-01", "ok": "TRUE", "label": "sim"},
        empty | {"text": "😀", "n": "0.30000000000000004", "when": "1999-12-31T23:59:58", "ok": "FALSE"},
        empty | {"n": "-1e+300", "label": "7"},
        empty | {"text": "  ", "n": "9007199254740991"},
    ]
    assert [record.where for record in found] == [f"{path}:{row}" for row in (3, 5, 6, 7)]
    assert [each.text for each in read(path)] == ["olá\nmundo & <b>", "😀"]


_CELLS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1
)


@WRITTEN
@given(rows=st.lists(st.lists(_CELLS | _TEXTS, max_size=4), max_size=6))
def test_cells_are_what_another_reader_finds(
    suffix: str, rows: list[list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [["a", "b", "c", "d"], *rows]
    path = WRITERS[suffix](tmp_path_factory.getbasetemp() / f"a{suffix}", {"Folha": rows})
    known = CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()[1:]

    def shown(cell: Any) -> str:
        if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
            return str(int(cell))
        return str(cell).upper() if isinstance(cell, bool) else str(cell)

    expected = [[shown(cell) for cell in row] for row in known]
    assert [list(row.values()) for row in values_or_none(path)] == [row for row in expected if "".join(row).strip()]


def values_or_none(path: Path) -> list[dict[str, Any]]:
    try:
        return values(path)
    except PalavraError as error:
        assert "holds no records" in str(error)  # noqa: PT017
        return []


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        ("45352", DATE, "2024-03-01"),
        ("0.4375", TIME, "10:30:00"),
        ("45352.5", OWN, "2024-03-01T12:00:00"),
        ("1.25", ELAPSED, "30:00:00"),
        ("59", DATE, "1900-02-28"),
        ("61", DATE, "1900-03-01"),
        ("-1", DATE, "-1"),
        ("1e9", DATE, "1000000000"),
        ("3.1400000000000001", NUMBER, "3.14"),
        ("1E3", 99999, "1000"),
    ],
)
def test_numbers_and_dates_of_excel(value: str, style: int, text: str, tmp_path: Path) -> None:
    body = sheet(f"<row><c s='{style}'><v>{value}</v></c></row>")
    assert values(zipped(tmp_path / "a.xlsx", xlsx_parts(["F"], [body])), header=False) == [{"0": text}]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("<c t='inlineStr'><is><r><t>a</t></r><r><t> b</t></r><rPh><t>read aloud</t></rPh></is></c>", "a b"),
        ("<c t='str'><f>A1&amp;B1</f><v>x_x000D_y_x005F_z</v></c>", "x\ry_z"),
        ("<c t='e'><v>#N/A</v></c>", "#N/A"),
        ("<c t='d'><v>2024-03-01</v></c>", "2024-03-01"),
    ],
)
def test_other_cells_of_excel(cell: str, text: str, tmp_path: Path) -> None:
    body = sheet(f"<row><c t='inlineStr'><is><t>text</t></is></c></row><row>{cell}</row>")
    assert values(zipped(tmp_path / "a.xlsx", xlsx_parts(["F"], [body]))) == [{"text": text}]


def test_other_cells_of_libreoffice(tmp_path: Path) -> None:
    cells = [
        "<table:table-cell><text:p>a<text:s text:c='3'/>b<text:tab/>c<text:line-break/><text:span>d</text:span>"
        "</text:p><text:p/><text:p>e</text:p></table:table-cell>",
        "<table:table-cell office:value-type='string'><office:annotation><text:p>a note</text:p></office:annotation>"
        "<text:p>f</text:p></table:table-cell>",
        "<table:table-cell table:number-columns-repeated='2' office:value-type='percentage' office:value='0.5'>"
        "<text:p>50%</text:p></table:table-cell>",
        "<table:table-cell table:number-columns-repeated='16000'/>",
    ]
    header = "".join(f"<table:table-cell><text:p>{name}</text:p></table:table-cell>" for name in "wxyz")
    blank = "<table:table-row table:number-rows-repeated='1048000'><table:table-cell/></table:table-row>"
    twice = f"<table:table-row table:number-rows-repeated='2'>{''.join(cells)}</table:table-row>"
    rows = f"<table:table-row>{header}</table:table-row>{twice}{blank}"
    path = ods(tmp_path / "a.ods", {}, content=document(f"<table:table table:name='F'>{rows}</table:table>"))
    row = {"w": "a   b\tc\nd\n\ne", "x": "f", "y": "0.5", "z": "0.5"}
    assert values(path) == [row, row]


@WRITTEN
def test_which_sheet_is_meant(suffix: str, tmp_path: Path) -> None:
    first, second = [["text"], ["a"]], [["text"], ["b"]]
    write = WRITERS[suffix]
    path = write(tmp_path / f"a{suffix}", {"Um": first, "": [], "2": second, "Vazia": []})
    several = ": there are several sheets, 'Um', '2'; name one with sheet="
    assert wrong(path).endswith(several)
    assert values(path, sheet="Um") == values(path, sheet="1") == [{"text": "a"}]
    assert values(path, sheet="2") == values(path, sheet="3") == [{"text": "b"}]
    assert "no sheet '9'; there are: 'Um', '', '2', 'Vazia'; name one with sheet=" in wrong(path, sheet="9")
    assert "holds no records" in wrong(path, sheet="Vazia")
    assert values(write(tmp_path / f"b{suffix}", {"Vazia": [], "Um": first})) == [{"text": "a"}]
    assert "no sheet has any text; there are: 'Vazia'" in wrong(write(tmp_path / f"c{suffix}", {"Vazia": []}))


def test_hidden_sheets_are_read_by_name(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "a.xlsx", {"Um": [["text"], ["a"]], "Dois": [["text"], ["b"]]}, hidden=["Um"])
    assert values(path) == [{"text": "b"}]
    assert values(path, sheet="Um") == [{"text": "a"}]


@WRITTEN
def test_columns_by_number_and_no_header(suffix: str, tmp_path: Path) -> None:
    path = WRITERS[suffix](tmp_path / f"a{suffix}", {"Um": [["a", 1], ["b"]]})
    assert values(path, header=False) == [{"0": "a", "1": "1"}, {"0": "b", "1": ""}]
    (record,) = read_records(str(path), columns=["1", "7"])
    assert record.values == {"a": "b", "1": ""}
    assert [each.text for each in read(path, header=False, column="0")] == ["a", "b"]


@WRITTEN
def test_text_outside_of_the_columns(suffix: str, tmp_path: Path) -> None:
    path = WRITERS[suffix](tmp_path / f"a{suffix}", {"Um": [["a", "b"], ["x"], [None, None, None, "y"]]})
    assert wrong(path) == f"{path}:3: column 4 holds 'y', but the first row has 2; name the column or empty it"
    path = WRITERS[suffix](tmp_path / f"b{suffix}", {"Um": [["a", None, "b"], ["x", "y"]]})
    assert f"{path}:2: column 2 holds 'y', but the header has no name for it" in wrong(path)


def _xlsx_of(body: str, **parts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as into:
        for name, content in {**xlsx_parts(["F"], [body]), **parts}.items():
            into.writestr(name, content)
    return file.getvalue()


def _ods_of(content: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as into:
        into.writestr("content.xml", content)
    return file.getvalue()


DAMAGED: list[tuple[str, bytes, str]] = [
    ("a.xlsx", b"x", ": not a readable spreadsheet ("),
    ("a.ods", b"\xd0\xcf\x11\xe0 an old or an encrypted workbook", ": not a readable spreadsheet ("),
    ("a.xlsx", _ods_of(document("")), "(xl/workbook.xml is missing in it)"),
    ("a.ods", _xlsx_of(sheet("")), "(content.xml is missing in it)"),
    ("a.xlsx", _xlsx_of("<worksheet><sheetData>"), "not valid XML (no element found"),
    ("a.xlsx", _xlsx_of("<!DOCTYPE a [<!ENTITY b 'x'>]><worksheet/>"), ": declares a document type"),
    ("a.ods", _ods_of("<!DOCTYPE a [<!ENTITY b 'x'>]><a/>"), ": declares a document type"),
    ("a.xlsx", _xlsx_of(sheet("<row r='2'><c t='s'><v>7</v></c></row>")), ":2: a cell without its text ('7')"),
    ("a.xlsx", _xlsx_of(sheet("<row><c r='ZZZ1'><v>7</v></c></row>")), ":1: a cell outside of a sheet"),
    ("a.xlsx", _xlsx_of(sheet("<row r='9999999'><c><v>7</v></c></row>")), ":9999999: a cell outside of a sheet"),
]


@pytest.mark.parametrize(("name", "content", "said"), DAMAGED)
def test_what_is_no_spreadsheet(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert wrong(path).startswith(str(path))
    assert said in wrong(path)


@pytest.mark.parametrize("name", ["a.xls", "a.xlsb", "a.numbers"])
def test_other_spreadsheets_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    assert wrong(path).endswith("; save it as .xlsx, .ods or CSV")
    with pytest.raises(PalavraError, match=r"; save it as \.xlsx, \.ods or CSV"):
        read(path)


@WRITTEN
@given(place=st.floats(0, 1), byte=st.binary(max_size=3))
def test_a_damaged_file_is_one_line(
    suffix: str, place: float, byte: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = WRITERS[suffix](tmp_path_factory.getbasetemp() / f"damaged{suffix}", {"Um": [["a", "b"], ["x", 1]] * 20})
    content = path.read_bytes()
    at = int(place * len(content))
    path.write_bytes(content[:at] + byte + content[at + 1 :])
    try:
        values(path)
    except PalavraError as error:
        assert "\n" not in str(error)  # noqa: PT017


# Small files that expand


def write_bombs(folder: Path) -> None:
    def row(cell: str, text: str, times: int = 1) -> str:
        filled = f"<table:table-cell {cell}><text:p>{text}</text:p></table:table-cell>"
        return f"<table:table-row table:number-rows-repeated='{times}'>{filled}</table:table-row>"

    far = "table:number-columns-repeated='99999999'/><table:table-cell"
    for name, last in {
        "wide": row("table:number-columns-repeated='16000'", "x" * 100_000),
        "empty": row(far, "b"),
        "many": row("", "b", 99_999_999),
        "long": row("", "x" * 20_000_000),
    }.items():
        ods(folder / f"{name}.ods", {}, content=document(f"<table:table>{row('', 'a')}{last}</table:table>"))
    for name, inner in {
        "long": f"<c t='inlineStr'><is><t>{'x' * 20_000_000}</t></is></c>",
        "tag": f"<c t='{'x' * 2_000_000}'/>",
        "far": "<c r='A1'><v>1</v></c></row><row r='1048576'><c r='XFD1048576'><v>1</v></c>",
    }.items():
        zipped(folder / f"{name}.xlsx", xlsx_parts(["F"], [sheet(f"<row>{inner}</row>")]))


def read_bombs(folder: Path) -> None:
    for name, said in {
        "wide.ods": ":2: a record of more than",
        "empty.ods": ":2: more than 16,384 columns",
        "many.ods": ": more than 1,048,576 rows",
        "long.ods": ":2: a record of more than",
        "long.xlsx": ":1: a record of more than",
        "tag.xlsx": ": a tag or comment of more than 1,048,576 bytes",
        "far.xlsx": ":1048576: column 16384 holds '1', but the first row has 1",
    }.items():
        assert said in wrong(folder / name), name


def test_small_files_that_expand_are_refused_in_little_memory(tmp_path: Path) -> None:
    write_bombs(tmp_path)
    run_bounded(read_bombs, tmp_path, 160)


def test_more_texts_than_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = xlsx(tmp_path / "a.xlsx", {"Um": [["text"], *[["x"]] * 9]})
    monkeypatch.setattr(excel, "LARGEST_DOCUMENT", 500)
    assert ": more than 500 bytes of texts; save it as CSV" in wrong(path)


def test_a_file_of_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.xlsx", {f"xl/{number}.xml": "" for number in range(30)})
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 1000)
    assert "not a spreadsheet, but an archive of very many files" in wrong(path)


def test_a_size_that_is_not_the_declared_one(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "a.xlsx", {"Um": [["text"], ["a" * 5000]]})
    content = path.read_bytes()
    declared = (tmp_path / "a.xlsx").read_bytes()
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("xl/sharedStrings.xml").file_size
    path.write_bytes(re.sub(re.escape(size.to_bytes(4, "little")), (size // 2).to_bytes(4, "little"), content))
    assert path.read_bytes() != declared
    assert str(path) in wrong(path)
