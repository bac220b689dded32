"""The texts of one file or hub data set, each with the line where it starts, in bounded memory."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from palavra.data.config import SourceConfig
from palavra.data.decoding import text_blocks, text_lines
from palavra.data.hub import hub_records, open_hub
from palavra.data.json_lists import list_items
from palavra.data.json_text import json_kind, json_line_values
from palavra.data.memory import MemorySource
from palavra.data.remote import File
from palavra.data.rows import ABSENT, keyed, value_at
from palavra.data.saved_datasets import is_saved, saved_rows, split_folder
from palavra.data.sheets import SPREADSHEETS, open_sheet
from palavra.data.tables import TextTable, kind_in, open_table, parquet_rows, shown_columns
from palavra.errors import PalavraError

# Files of text in folders, and those that are read where they are named.
FOUND = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", *SPREADSHEETS)
FORMATS = (*FOUND, ".json")


class TextRow(NamedTuple):
    """One text and the line (from 1) where it starts; None for a record without text.

    `cut`: the text continues in the next row.
    """

    text: str | None
    line: int
    cut: bool = False


def file_texts(path: File, config: SourceConfig) -> Iterator[TextRow]:
    """Yield the texts of a file, whose format `config` or its name says, or of a folder that `datasets` saved."""
    if is_saved(path):
        return _read_columns(saved_rows, split_folder(path, config.split, "train"), config.column)
    kind = kind_in(path, FORMATS, config)
    if kind == ".txt":
        readers = {"file": _read_whole, "line": _read_lines, "blank-line": _read_paragraphs}
        return readers[config.documents](path, config)
    if kind == ".parquet":
        return _read_columns(parquet_rows, path, config.column)
    if kind == ".json":
        return _read_rows(path, config, list_items(path, config.encoding, config.records))
    header = config.header is not False
    if kind in SPREADSHEETS:
        return _read_table(path, config, open_sheet(path, str(kind), sheet=config.sheet, header=header))
    lines = enumerate(text_lines(path, config.encoding), 1)
    if kind == ".jsonl":
        return _read_rows(path, config, json_line_values(lines, path))
    return _read_table(path, config, open_table(path, lines, tabs=kind == ".tsv", column=config.column, header=header))


def record_texts(source: str, column: str) -> Iterator[TextRow]:
    """Yield the texts of `hf://dataset[/config]:split` or of records in memory; a line is a row here."""
    if isinstance(source, MemorySource):
        return _column_of(enumerate(source.records(), 1), source.name, column)
    return _column_of(enumerate(hub_records(source, open_hub(source)), 1), source, column)


def _column_of(records: Iterable[tuple[int, dict[str, Any]]], where: str, column: str) -> Iterator[TextRow]:
    """Yield the text in a column of numbered records, which the first one must have."""
    for number, (line, values) in enumerate(records):
        if not number and value_at(values, column) is ABSENT:
            raise _no_column(where, line, column, values)
        value = value_at(values, column)
        value = None if value is ABSENT else value
        if value is not None and not isinstance(value, str):
            raise PalavraError(f"{where}:{line}: column {column!r} holds a {json_kind(value)}, not text")
        yield TextRow(value, line)


def _read_rows(path: File, config: SourceConfig, rows: Iterator[tuple[int, Any]]) -> Iterator[TextRow]:
    return _column_of(keyed(rows, path, config.header, (config.column,)), str(path), config.column)


def _read_table(path: File, config: SourceConfig, table: TextTable | None) -> Iterator[TextRow]:
    """Yield the texts of a table; a row that ends before the column has none."""
    if table is None:
        return
    wanted = table.place(config.column)
    if wanted is None:
        raise _no_column(str(path), table.line, config.column, table.names)
    for line, row in table.rows:
        if row:
            yield TextRow(row[wanted] if wanted < len(row) else None, line)


def _read_columns(
    rows: Callable[[Any, Callable[[Any], list[str]]], Iterator[tuple[int, dict[str, Any]]]], path: File, column: str
) -> Iterator[TextRow]:
    """Yield the texts of rows of Arrow, of which only the one column is read."""

    def text_column(schema: Any) -> list[str]:
        around = [column[:end] for end, letter in enumerate(f"{column}.") if letter == "."]
        for name in reversed(around):
            if name in schema.names:
                return [name]
        raise _no_column(str(path), 1, column, schema.names)

    return _column_of(rows(path, text_column), str(path), column)


def _no_column(where: str, line: int, column: str, columns: Collection[str]) -> PalavraError:
    """Return the error for a missing column, which names the existing ones."""
    shown = f"{where}:{line}: no column {column!r}; name the one with the text (--column)"
    return PalavraError(f"{shown}, there are: {shown_columns(list(columns))}")


def _read_whole(path: File, config: SourceConfig) -> Iterator[TextRow]:
    """Yield the whole file as one text, cut if it is longer than `max_document_chars`."""
    rest, line = "", 1
    for block in text_blocks(path, config.encoding):
        *pieces, rest = cut_text(rest + block, config.max_document_chars)
        for piece in pieces:
            yield TextRow(piece, line, cut=True)
            line += piece.count("\n")
    yield TextRow(rest, line)


def _read_lines(path: File, config: SourceConfig) -> Iterator[TextRow]:
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


def _read_paragraphs(path: File, config: SourceConfig) -> Iterator[TextRow]:
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
