"""The texts of one file or hub data set, each with the line where it starts, in bounded memory."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from palavra.data.config import SourceConfig
from palavra.data.decoding import text_blocks, text_lines
from palavra.data.hub import hub_records, open_hub
from palavra.data.json_text import json_kind, json_line_objects
from palavra.data.memory import MemorySource
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


def file_texts(path: Path, config: SourceConfig) -> Iterator[TextRow]:
    """Yield the texts of a file; its name says the format."""
    kind = kind_of(path, FORMATS)
    if kind == ".txt":
        readers = {"file": _read_whole, "line": _read_lines, "blank-line": _read_paragraphs}
        return readers[config.documents](path, config)
    if kind == ".parquet":
        return _read_parquet(path, config)
    lines = enumerate(text_lines(path, config.encoding), 1)
    if kind == ".jsonl":
        return _column_of(json_line_objects(lines, path), str(path), config.column)
    return _read_table(path, config, lines, tabs=kind == ".tsv")


def record_texts(source: str, column: str) -> Iterator[TextRow]:
    """Yield the texts of `hf://dataset[/config]:split` or of records in memory; a line is a row here."""
    if isinstance(source, MemorySource):
        return _column_of(enumerate(source.records(), 1), source.name, column)
    return _column_of(enumerate(hub_records(source, open_hub(source)), 1), source, column)


def _column_of(records: Iterable[tuple[int, dict[str, Any]]], where: str, column: str) -> Iterator[TextRow]:
    """Yield the text in a column of numbered records, which the first one must have."""
    for number, (line, values) in enumerate(records):
        if not number:
            _check_column(where, line, column, values)
        value = values.get(column)
        if value is not None and not isinstance(value, str):
            raise PalavraError(f"{where}:{line}: column {column!r} holds a {json_kind(value)}, not text")
        yield TextRow(value, line)


def _read_table(path: Path, config: SourceConfig, lines: Iterator[tuple[int, str]], *, tabs: bool) -> Iterator[TextRow]:
    """Yield the texts of a CSV or TSV file; a row that ends before the column has none."""
    table = open_table(path, lines, tabs=tabs, column=config.column)
    if table is None:
        return
    _check_column(str(path), table.line, config.column, table.names)
    wanted = table.names.index(config.column)
    for line, row in table.rows:
        if row:
            yield TextRow(row[wanted] if wanted < len(row) else None, line)


def _read_parquet(path: Path, config: SourceConfig) -> Iterator[TextRow]:
    def text_column(schema: Any) -> list[str]:
        _check_column(str(path), 1, config.column, schema.names)
        return [config.column]

    return _column_of(parquet_rows(path, text_column), str(path), config.column)


def _check_column(where: str, line: int, column: str, columns: Collection[str]) -> None:
    """Raise PalavraError that names the existing columns, unless `column` is one of them."""
    if column not in columns:
        shown = f"{where}:{line}: no column {column!r}; name the one with the text (--column)"
        raise PalavraError(f"{shown}, there are: {shown_columns(list(columns))}")


def _read_whole(path: Path, config: SourceConfig) -> Iterator[TextRow]:
    """Yield the whole file as one text, cut if it is longer than `max_document_chars`."""
    rest, line = "", 1
    for block in text_blocks(path, config.encoding):
        *pieces, rest = cut_text(rest + block, config.max_document_chars)
        for piece in pieces:
            yield TextRow(piece, line, cut=True)
            line += piece.count("\n")
    yield TextRow(rest, line)


def _read_lines(path: Path, config: SourceConfig) -> Iterator[TextRow]:
    """Yield each line, without its line end."""
    rest, line = "", 1
    for block in text_blocks(path, config.encoding):
        *whole, rest = (rest + block).split("\n")
        for text in whole:
            *pieces, end = cut_text(text, config.max_document_chars)
            yield from (TextRow(piece, line, cut=True) for piece in pieces)
            yield TextRow(end, line)
            line += 1
        *pieces, rest = cut_text(rest, config.max_document_chars)
        yield from (TextRow(piece, line, cut=True) for piece in pieces)
    if rest:
        yield TextRow(rest, line)


def _read_paragraphs(path: Path, config: SourceConfig) -> Iterator[TextRow]:
    """Yield the paragraphs: the lines up to the next blank one."""
    lines: list[str] = []
    size = first = 0
    for text, line, cut in _read_lines(path, config):
        assert text is not None
        if lines and not text.strip():
            yield TextRow("\n".join(lines), first)
            lines, size = [], 0
        elif text.strip():
            if lines and size + len(text) >= config.max_document_chars:
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
    pieces, start = [], 0
    while len(text) - start > longest:
        end = start + longest
        middle = start + longest // 2
        # A line end stays with its line; a space goes with the next word, as in tokenizers.
        at = text.rfind("\n", middle, end) + 1 or max(text.rfind(" ", middle, end), text.rfind("\t", middle, end))
        at = at if at > start else end
        pieces.append(text[start:at])
        start = at
    return [*pieces, text[start:]]
