"""The texts of one file or hub data set, each with the line where it starts, in bounded memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from palavra.data.decoding import text_blocks, text_lines
from palavra.data.hub import hub_records, open_hub
from palavra.data.json_text import json_kind, json_lines
from palavra.data.tables import kind_of, open_table, parquet_rows, shown_columns
from palavra.errors import PalavraError

FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")


class TextRow(NamedTuple):
    """One text and the line (from 1) where it starts; None for a record without text.

    `cut`: the text continues in the next row.
    """

    text: str | None
    line: int
    cut: bool = False


class TextFile(NamedTuple):
    """A file of texts and how to read it; the fields are those of `SourceConfig`."""

    path: Path
    column: str
    documents: str
    encoding: str
    longest: int


def read_texts(file: TextFile) -> Iterator[TextRow]:
    """Yield the texts of a file; its name says the format."""
    kind = kind_of(file.path, FORMATS)
    if kind == ".txt":
        readers = {"file": _read_whole, "line": _read_lines, "blank-line": _read_paragraphs}
        return readers[file.documents](file)
    if kind == ".parquet":
        return _read_parquet(file)
    lines = enumerate(text_lines(file.path, file.encoding), 1)
    if kind == ".jsonl":
        return _column_of(json_lines(lines, file.path), str(file.path), file.column)
    return _read_table(file, lines, tabs=kind == ".tsv")


def read_hub_texts(source: str, column: str) -> Iterator[TextRow]:
    """Yield the texts of `hf://dataset[/config]:split`; a line is a row here."""
    return _column_of(enumerate(hub_records(source, open_hub(source)), 1), source, column)


# Records


def _column_of(records: Iterable[tuple[int, dict[str, Any]]], where: str, column: str) -> Iterator[TextRow]:
    """Yield the text in a column of numbered records, which the first one must have."""
    first = True
    for line, values in records:
        if first:
            _check_column(where, line, column, values)
            first = False
        value = values.get(column)
        if value is not None and not isinstance(value, str):
            raise PalavraError(f"{where}:{line}: column {column!r} holds a {json_kind(value)}, not text")
        yield TextRow(value, line)


def _read_table(file: TextFile, lines: Iterator[tuple[int, str]], *, tabs: bool) -> Iterator[TextRow]:
    """Yield the texts of a CSV or TSV file; a row that ends before the column has none."""
    table = open_table(file.path, lines, tabs=tabs, column=file.column)
    if table is None:
        return
    _check_column(str(file.path), table.line, file.column, table.names)
    wanted = table.names.index(file.column)
    for line, row in table.rows:
        if row:
            yield TextRow(row[wanted] if wanted < len(row) else None, line)


def _read_parquet(file: TextFile) -> Iterator[TextRow]:
    def text_column(schema: Any) -> list[str]:
        _check_column(str(file.path), 1, file.column, schema.names)
        return [file.column]

    return _column_of(parquet_rows(file.path, text_column), str(file.path), file.column)


def _check_column(where: str, line: int, column: str, columns: Iterable[str]) -> None:
    """Raise PalavraError that names the existing columns, unless `column` is one of them."""
    columns = list(columns)
    if column not in columns:
        raise PalavraError(
            f"{where}:{line}: no column {column!r}; name the one with the text (--column), "
            f"there are: {shown_columns(columns)}"
        )


# Plain text


def _read_whole(file: TextFile) -> Iterator[TextRow]:
    """Yield the whole file as one text, cut if it is longer than `longest`."""
    rest, line = "", 1
    for block in text_blocks(file.path, file.encoding):
        *pieces, rest = cut_text(rest + block, file.longest)
        for piece in pieces:
            yield TextRow(piece, line, cut=True)
            line += piece.count("\n")
    yield TextRow(rest, line)


def _read_lines(file: TextFile) -> Iterator[TextRow]:
    """Yield each line, without its line end."""
    rest, line = "", 1
    for block in text_blocks(file.path, file.encoding):
        *whole, rest = (rest + block).split("\n")
        for text in whole:
            yield from _pieces(text, line, file.longest)
            line += 1
        *pieces, rest = cut_text(rest, file.longest)
        for piece in pieces:
            yield TextRow(piece, line, cut=True)
    if rest:
        yield TextRow(rest, line)


def _pieces(text: str, line: int, longest: int) -> Iterator[TextRow]:
    *pieces, rest = cut_text(text, longest)
    for piece in pieces:
        yield TextRow(piece, line, cut=True)
    yield TextRow(rest, line)


def _read_paragraphs(file: TextFile) -> Iterator[TextRow]:
    """Yield the paragraphs: the lines up to the next blank one."""
    lines: list[str] = []
    size = first = 0
    for text, line, cut in _read_lines(file):
        assert text is not None
        if lines and not text.strip():
            yield TextRow("\n".join(lines), first)
            lines, size = [], 0
        elif text.strip():
            if lines and size + len(text) >= file.longest:
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


def cut_text(text: str, longest: int) -> list[str]:
    """Cut `text` into pieces of at most `longest` characters, at a blank if there is one; nothing is dropped."""
    pieces = []
    start = 0
    while len(text) - start > longest:
        end = start + longest
        middle = start + longest // 2
        # A line end stays with its line; a space goes with the next word, as in tokenizers.
        at = text.rfind("\n", middle, end) + 1 or max(text.rfind(" ", middle, end), text.rfind("\t", middle, end))
        at = at if at > start else end
        pieces.append(text[start:at])
        start = at
    return [*pieces, text[start:]]
