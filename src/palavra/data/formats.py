"""One reader for each kind of file: a stream of texts with the lines they start at, in bounded memory."""

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from palavra.data.csv_dialect import DELIMITERS, SAMPLE_LINES, allow_long_fields, is_quoted, table_rows
from palavra.data.decoding import text_blocks, text_lines
from palavra.errors import PalavraError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")

_PARQUET_ROWS = 256


class TextRow(NamedTuple):
    """One text and the line (1 is the first) that it starts at; None where the record has no text.

    `cut` says that the text goes on in the next row.
    """

    text: str | None
    line: int
    cut: bool = False


class Place(NamedTuple):
    """What is read, and how."""

    path: Path
    column: str
    documents: str
    encoding: str
    longest: int


def read_rows(place: Place) -> Iterator[TextRow]:
    """The rows of a file of any known format; its name decides which."""
    kind = kind_of(place.path)
    if kind == ".parquet":
        return _read_parquet(place)
    if kind == ".jsonl":
        return _read_jsonl(place)
    if kind in (".csv", ".tsv"):
        return _read_table(place, kind)
    readers = {"file": _read_whole, "line": _read_lines, "blank-line": _read_paragraphs}
    return readers[place.documents](place)


def kind_of(path: Path, kinds: tuple[str, ...] = FORMATS) -> str | None:
    """The format that the name says, without the compression; None when it is none of `kinds`."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    kind = Path(name).suffix
    if kind not in kinds or (kind == ".parquet" and name != path.name.lower()):
        return None
    return kind


def cut_text(text: str, longest: int) -> list[str]:
    """Pieces of at most `longest` characters that together are `text`, cut at a blank where there is one."""
    pieces = []
    start = 0
    while len(text) - start > longest:
        end = start + longest
        middle = start + longest // 2
        # A line end stays with its line; a space goes with the word behind it, as tokenizers have it.
        at = text.rfind("\n", middle, end) + 1 or max(text.rfind(" ", middle, end), text.rfind("\t", middle, end))
        at = at if at > start else end
        pieces.append(text[start:at])
        start = at
    return [*pieces, text[start:]]


# Plain text


def _read_whole(place: Place) -> Iterator[TextRow]:
    """The whole file as one text, cut where it is longer than `longest`."""
    rest, line = "", 1
    for block in text_blocks(place.path, place.encoding):
        *pieces, rest = cut_text(rest + block, place.longest)
        for piece in pieces:
            yield TextRow(piece, line, cut=True)
            line += piece.count("\n")
    yield TextRow(rest, line)


def _read_lines(place: Place) -> Iterator[TextRow]:
    """Every line a text, without its line end."""
    rest, line = "", 1
    for block in text_blocks(place.path, place.encoding):
        *whole, rest = (rest + block).split("\n")
        for text in whole:
            yield from _pieces(text, line, place.longest)
            line += 1
        *pieces, rest = cut_text(rest, place.longest)
        for piece in pieces:
            yield TextRow(piece, line, cut=True)
    if rest:
        yield TextRow(rest, line)


def _pieces(text: str, line: int, longest: int) -> Iterator[TextRow]:
    *pieces, rest = cut_text(text, longest)
    for piece in pieces:
        yield TextRow(piece, line, cut=True)
    yield TextRow(rest, line)


def _read_paragraphs(place: Place) -> Iterator[TextRow]:
    """Lines up to the next blank one are a text."""
    lines: list[str] = []
    size = first = 0
    for text, line, cut in _read_lines(place):
        assert text is not None
        if lines and not text.strip():
            yield TextRow("\n".join(lines), first)
            lines, size = [], 0
        elif text.strip():
            if lines and size + len(text) >= place.longest:
                yield TextRow("\n".join(lines), first, cut=True)
                lines, size = [], 0
            first = first if lines else line
            lines.append(text)
            size += len(text) + 1
            if cut:
                yield TextRow("\n".join(lines), first, cut=True)
                lines, size = [], 0
    if lines:
        yield TextRow("\n".join(lines), first)


# Records


def _read_jsonl(place: Place) -> Iterator[TextRow]:
    """One JSON object a line; blank lines are passed over."""
    checked = False
    for line, text in enumerate(text_lines(place.path, place.encoding), 1):
        if text.isspace():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PalavraError(f"{place.path}:{line}: not valid JSON ({error})") from None
        if not isinstance(record, dict):
            raise PalavraError(f"{place.path}:{line}: a JSON {json_kind(record)}, not an object with columns")
        if not checked:
            check_column(str(place.path), line, place.column, record)
            checked = True
        yield TextRow(text_value(str(place.path), line, place.column, record.get(place.column)), line)


def _read_table(place: Place, kind: str) -> Iterator[TextRow]:
    """CSV or TSV with a header line; CSV's delimiter is the one that shows the column in the header."""
    allow_long_fields()
    lines = iter(text_lines(place.path, place.encoding))
    numbered = ((number, line) for number, line in enumerate(lines, 1) if not line.isspace())
    first, header = next(numbered, (0, ""))
    if not header:
        return
    options: dict[str, Any] = {"delimiter": "\t"}
    if kind == ".csv":
        options["delimiter"] = _delimiter(header, place.column)
    else:
        sample = list(islice(lines, SAMPLE_LINES))
        lines = chain(sample, lines)
        if not is_quoted([header, *sample]):
            options["quoting"] = csv.QUOTE_NONE
    columns = next(csv.reader([header], **options))
    check_column(str(place.path), first, place.column, columns)
    wanted = columns.index(place.column)
    for line, record in table_rows(place.path, lines, first + 1, options):
        if record:
            yield TextRow(record[wanted] if wanted < len(record) else None, line)


def _delimiter(header: str, column: str) -> str:
    """The delimiter under which the header has the column; else the one that gives the most columns."""
    columns = {delimiter: next(csv.reader([header], delimiter=delimiter)) for delimiter in DELIMITERS}
    with_column = [delimiter for delimiter in DELIMITERS if column in columns[delimiter]]
    return with_column[0] if with_column else max(DELIMITERS, key=lambda delimiter: len(columns[delimiter]))


def _read_parquet(place: Place) -> Iterator[TextRow]:
    """The text column of a Parquet file, some rows at a time; a line is a row here."""
    row = 1
    try:
        with pq.ParquetFile(place.path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            check_column(str(place.path), 1, place.column, names)
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[place.column]):
                for value in batch.column(0).to_pylist():
                    yield TextRow(text_value(str(place.path), row, place.column, value), row)
                    row += 1
    except UnicodeDecodeError as error:
        raise PalavraError(f"{place.path}: a text after row {row} is not valid UTF-8 ({error})") from None
    except (pa.ArrowException, OSError) as error:
        raise PalavraError(f"{place.path}: not a readable Parquet file ({error})") from None


def rows_of_records(where: str, records: Iterable[dict[str, Any]], column: str) -> Iterator[TextRow]:
    """Return the texts in a column of records; a line is a record here."""
    for line, record in enumerate(records, 1):
        if line == 1:
            check_column(where, line, column, record)
        yield TextRow(text_value(where, line, column, record.get(column)), line)


def check_column(where: str, line: int, column: str, columns: Iterable[str]) -> None:
    """Raise `PalavraError` naming the columns there are, unless `column` is one of them."""
    columns = list(columns)
    if column not in columns:
        raise PalavraError(
            f"{where}:{line}: no column {column!r}; name the one with the text (--column), "
            f"there are: {shown_columns(columns)}"
        )


def shown_columns(columns: list[str]) -> str:
    """The first names for a message, quoted and on one line."""
    shown = ", ".join(repr(name[:60]) for name in columns[:20]) + (", ..." if len(columns) > 20 else "")
    return shown or "none"


def text_value(where: str, line: int, column: str, value: Any) -> str | None:
    """The text of a record, None where it is absent; anything but text is an error."""
    if value is None or isinstance(value, str):
        return value
    raise PalavraError(f"{where}:{line}: column {column!r} holds a {json_kind(value)}, not text")


def json_kind(value: Any) -> str:
    """What JSON calls a value, for messages."""
    names = {dict: "object", list: "list", bool: "truth value", int: "number", float: "number", str: "text"}
    return names.get(type(value), type(value).__name__ if value is not None else "null")


def counted(number: int, what: str) -> str:
    """As "1 word" or "2 words"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
