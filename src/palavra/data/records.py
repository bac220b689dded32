"""Labelled records: every column of tables, JSON, Parquet and hub data sets, with the place each comes from."""

import difflib
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from palavra.data.config import BY_NAME, ReadConfig
from palavra.data.decoding import text_lines
from palavra.data.hub import hub_records, is_hub, open_hub
from palavra.data.json_lists import list_items
from palavra.data.json_text import checked_object, json_line_values, refuse_nul
from palavra.data.memory import MemorySource, class_names, with_class_names
from palavra.data.record_files import RECORD_KINDS, SAVED, data_file
from palavra.data.remote import File
from palavra.data.rows import ABSENT, check_names, keyed, value_at
from palavra.data.saved_datasets import features_of, saved_rows
from palavra.data.sheets import SPREADSHEETS, open_sheet
from palavra.data.tables import (
    TextTable,
    counted,
    open_table,
    parquet_rows,
    shown_columns,
)
from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.limits import check_record, size_of

T = TypeVar("T")


class Record(NamedTuple):
    """One labelled record.

    `values`: column -> value; text in tables, JSON's types in JSON, Python's in Parquet and hub data sets, with names
    in place of the numbers of classes. `where`: "file:line", where the record starts (from 1), or "file:row 12".
    """

    values: dict[str, Any]
    where: str


def read_records(
    source: str, reading: ReadConfig = BY_NAME, *, columns: Collection[str] = ()
) -> Iterator[Record]:  # fmt: skip
    """Yield the records of one file or URL, of a folder that `datasets` saved, or of `hf://dataset[/config]:split`, in
    order.

    `.csv`, `.tsv`, `.xlsx` and `.ods` have a header, unless `reading` says otherwise. The delimiter is detected, quoted
    fields may hold line ends, a byte order mark and blanks around column names are removed, values are unchanged (of
    spreadsheets as text, dates in ISO 8601), and rows of empty fields are skipped. `.jsonl` has one object or list a
    line; `.json` is one list of either, or an object with one inside. All of these but spreadsheets may be compressed
    (`.gz`, `.bz2`, `.xz`, `.zst`) and have the encoding of `reading`. `columns`: those that are asked for, which may be
    numbers, from 0, where records have an order. Raises `PalavraError`, with file and line, for anything else, for rows
    with more or fewer fields than the header, and for a source without records.
    """
    path_of(source, "the file of records")
    return at_least_one(_read(source, reading, columns), source, "records")


def read_json_lines(file: IO[bytes], name: str, *, encoding: str = "utf-8") -> Iterator[Record]:
    """Yield the records of open JSON lines, such as those of a pipe; errors call them `name`."""
    rows = json_line_values(numbered_lines(name, encoding, file), name)
    return at_least_one(_of_rows(rows, name, BY_NAME, ()), name, "records")


def column(record: Record, name: str, *, option: str = "--column") -> Any:
    """Return the value in a column, or in one inside of it (`meta.title`). Raises PalavraError that names `option` as
    the one to correct if there is none."""
    value = value_at(record.values, name)
    if value is not ABSENT:
        return value
    near = difflib.get_close_matches(name.casefold(), [each.casefold() for each in record.values], n=1)
    meant = next((each for each in record.values if near and each.casefold() == near[0]), None)
    hint = "" if meant is None else f" (is it {meant[:60]!r}?)"
    raise PalavraError(
        f"{record.where}: no column {name!r}{hint}; there are: {shown_columns(list(record.values))}; "
        f"name the right one with {option}"
    )


def at_least_one(items: Iterator[T], source: str, what: str) -> Iterator[T]:
    """Yield the items. Raises PalavraError if there are none."""
    first = next(items, None)
    if first is None and isinstance(source, MemorySource):
        raise PalavraError(f"{source.name} is empty: give examples")
    if first is None:
        raise PalavraError(f"{source}: holds no {what}; is it the right file?")
    yield first
    yield from items


def numbered_lines(name: File | str, encoding: str, file: IO[bytes] | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, or of an open `file` that errors call `name`, with their numbers and line ends. Raises
    PalavraError for a NUL character."""
    for line, text in enumerate(text_lines(name, encoding, file), 1):
        if "\0" in text:
            refuse_nul(f"{name}:{line}")
        yield line, text


def _read(source: str, reading: ReadConfig, columns: Collection[str]) -> Iterator[Record]:
    if isinstance(source, MemorySource):
        return _from_memory(source)
    if is_hub(source):
        return _from_hub(source)
    path, kind = data_file(source, RECORD_KINDS, reading)
    if kind == SAVED:
        assert isinstance(path, Path)
        return _from_saved(path)
    if kind == ".parquet":
        return _from_parquet(path)
    if kind == ".json":
        return _of_rows(list_items(path, reading.encoding, reading.records), path, reading, columns)
    if kind in SPREADSHEETS:
        return _of_table(path, open_sheet(path, kind, sheet=reading.sheet, header=reading.header is not False), columns)
    lines = numbered_lines(path, reading.encoding)
    if kind == ".jsonl":
        return _of_rows(json_line_values(lines, path), path, reading, columns)
    return _of_table(path, open_table(path, lines, tabs=kind == ".tsv", header=reading.header is not False), columns)


def _from_memory(source: MemorySource) -> Iterator[Record]:
    for row, values in enumerate(source.records(), 1):
        where = f"{source.name}:row {row}"
        check_record(size_of(values), where)
        yield Record(checked_object(values, where), where)


def _of_rows(
    rows: Iterator[tuple[int, Any]], name: File | str, reading: ReadConfig, columns: Collection[str]
) -> Iterator[Record]:
    """Yield the records of rows of JSON."""
    for line, values in keyed(rows, name, reading.header, columns):
        where = f"{name}:{line}"
        yield Record(checked_object(values, where), where)


def _of_table(path: File, table: TextTable | None, columns: Collection[str]) -> Iterator[Record]:
    if table is None:
        return
    names = table.names
    # Spreadsheets write columns that were once in use: without a name, and with nothing in them.
    nameless = [number for number, name in enumerate(names) if not name]
    check_names([name for name in names if name] or names, f"{path}:{table.line}")
    numbered = [(name, place) for name in columns if name not in names and (place := table.place(name)) is not None]
    for line, row in table.rows:
        if len(names) > 1 and not "".join(row).strip():
            continue  # a blank line, or one of delimiters alone, as spreadsheets write below the last row
        if len(row) == len(names):
            for number in nameless:
                if row[number].strip():
                    raise PalavraError(
                        f"{path}:{line}: column {number + 1} holds {row[number][:40]!r}, but the header has no name "
                        "for it; name it or remove the column"
                    )
            values = dict(zip(names, row, strict=True))
            values.pop("", None)
            values.update((name, row[place]) for name, place in numbered)
            yield Record(values, f"{path}:{line}")
        elif row:
            raise PalavraError(
                f"{path}:{line}: {counted(len(row), 'field')}, where the header has {counted(len(names), 'column')}; "
                f"a field with the delimiter or a line end inside needs quotes around it"
            )


def _from_parquet(path: File) -> Iterator[Record]:
    names: dict[str, list[str]] = {}

    def every_column(schema: Any) -> None:
        check_names([name.strip() for name in schema.names], str(path))
        with suppress(KeyError, TypeError, ValueError, RecursionError):  # only the `datasets` library writes this
            names.update(class_names(json.loads(schema.metadata[b"huggingface"])["info"]["features"]))

    for row, values in parquet_rows(path, every_column):
        yield Record(with_class_names(values, names), f"{path}:row {row}")


def _from_saved(folder: Path) -> Iterator[Record]:
    names = class_names(features_of(folder))

    def every_column(schema: Any) -> None:
        check_names([name.strip() for name in schema.names], str(folder))

    for row, values in saved_rows(folder, every_column):
        yield Record(with_class_names(values, names), f"{folder}:row {row}")


def _from_hub(source: str) -> Iterator[Record]:
    stream = open_hub(source)
    names = class_names(stream.features.to_dict() if stream.features else {})
    for row, values in enumerate(hub_records(source, stream), 1):
        yield Record(with_class_names(values, names), f"{source}:row {row}")
