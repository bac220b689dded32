"""Labelled records: every column of tables, JSON, Parquet and hub data sets, with the place each comes from."""

import difflib
import glob
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from palavra.data.decoding import check_ordinary, text_lines
from palavra.data.hub import PREFIX, hub_records, open_hub
from palavra.data.json_text import JsonDocument, checked_object, json_line_objects, list_items, refuse_nul
from palavra.data.memory import MemorySource, class_names, with_class_names
from palavra.data.tables import counted, kind_of, open_table, parquet_rows, shown_columns, shown_kinds
from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.limits import check_record, size_of

SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
RECORD_KINDS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")

T = TypeVar("T")


class Record(NamedTuple):
    """One labelled record.

    `values`: column -> value; text in tables, JSON's types in JSON, Python's in Parquet and hub data sets, with names
    in place of the numbers of classes. `where`: "file:line", where the record starts (from 1), or "file:row 12".
    """

    values: dict[str, Any]
    where: str


def read_records(source: str, *, encoding: str = "utf-8") -> Iterator[Record]:
    """Yield the records of one file or of `hf://dataset[/config]:split`, in order.

    `.csv` and `.tsv` have a header. The delimiter is detected, quoted fields may hold line ends, a byte order mark and
    blanks around column names are removed, values are unchanged, and rows of empty fields are skipped. `.jsonl` has one
    object a line; `.json` is one list of objects. All of these may be compressed (`.gz`, `.bz2`,
    `.xz`, `.zst`) and have the `encoding`. Raises `PalavraError`, with file and line, for anything else, for rows with
    more or fewer fields than the header, and for a source without records.
    """
    path_of(source, "the file of records")
    return at_least_one(_read(source, encoding), source, "records")


def read_json_lines(file: IO[bytes], name: str, *, encoding: str = "utf-8") -> Iterator[Record]:
    """Yield the records of open JSON lines, such as those of a pipe; errors call them `name`."""
    return at_least_one(_from_json_lines(numbered_lines(name, encoding, file), name), name, "records")


def column(record: Record, name: str, *, option: str = "--column") -> Any:
    """Return the value in a column. Raises PalavraError that names `option` as the one to correct if there is none."""
    if name in record.values:
        return record.values[name]
    near = difflib.get_close_matches(name.casefold(), [each.casefold() for each in record.values], n=1)
    meant = next((each for each in record.values if near and each.casefold() == near[0]), None)
    hint = "" if meant is None else f" (is it {meant[:60]!r}?)"
    raise PalavraError(
        f"{record.where}: no column {name!r}{hint}; there are: {shown_columns(list(record.values))}; "
        f"name the right one with {option}"
    )


def data_file(source: str, kinds: tuple[str, ...]) -> tuple[Path, str]:
    """Return the file that `source` names and its kind. Raises PalavraError unless that is one of `kinds`."""
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        raise PalavraError(f"{source}: this is a folder; name one file in it, {shown_kinds(kinds)}")
    if not os.path.exists(path):
        raise PalavraError(f"{source}: no such file")
    check_ordinary(path)
    kind = kind_of(path, kinds)
    if kind is None:
        hint = "; save the table as CSV" if path.suffix.lower() in SPREADSHEETS else ""
        raise PalavraError(f"{source}: unknown kind of file; it must be {shown_kinds(kinds)}{hint}")
    return path, kind


def record_sources(source: str) -> list[str]:
    """Return the files of records that a source names: a folder those in it and below, in order of names, a glob those
    that match, anything else itself."""
    path = Path(os.path.expanduser(source))
    if names_records(source) or (path.exists() and not path.is_dir()):
        return [source]
    folders = [path] if path.is_dir() else [Path(name) for name in glob.glob(str(path), recursive=True)]
    inside = [each for folder in folders for each in (folder.rglob("*") if folder.is_dir() else [folder])]
    found = sorted(str(each) for each in inside if each.is_file() and kind_of(each, RECORD_KINDS) is not None)
    if path.is_dir() and not found:
        raise PalavraError(f"{source}: no files of records here; looked for {shown_kinds(RECORD_KINDS)}")
    return found or [source]


def at_least_one(items: Iterator[T], source: str, what: str) -> Iterator[T]:
    """Yield the items. Raises PalavraError if there are none."""
    first = next(items, None)
    if first is None and isinstance(source, MemorySource):
        raise PalavraError(f"{source.name} is empty: give examples")
    if first is None:
        raise PalavraError(f"{source}: holds no {what}; is it the right file?")
    yield first
    yield from items


def numbered_lines(name: Path | str, encoding: str, file: IO[bytes] | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, or of an open `file` that errors call `name`, with their numbers and line ends. Raises
    PalavraError for a NUL character."""
    for line, text in enumerate(text_lines(name, encoding, file), 1):
        if "\0" in text:
            refuse_nul(f"{name}:{line}")
        yield line, text


def names_records(source: str) -> bool:
    """Return whether a source is made of records, and no file."""
    return isinstance(source, MemorySource) or source.startswith(PREFIX)


def _read(source: str, encoding: str) -> Iterator[Record]:
    if isinstance(source, MemorySource):
        return _from_memory(source)
    if source.startswith(PREFIX):
        return _from_hub(source)
    path, kind = data_file(source, RECORD_KINDS)
    if kind == ".parquet":
        return _from_parquet(path)
    if kind == ".json":
        return records_of_list(JsonDocument(path, encoding))
    lines = numbered_lines(path, encoding)
    return _from_json_lines(lines, path) if kind == ".jsonl" else _from_table(path, lines, tabs=kind == ".tsv")


def _from_memory(source: MemorySource) -> Iterator[Record]:
    for row, values in enumerate(source.records(), 1):
        where = f"{source.name}:row {row}"
        check_record(size_of(values), where)
        yield Record(checked_object(values, where), where)


def records_of_list(document: JsonDocument) -> Iterator[Record]:
    """Yield the records of a file that is a JSON list of objects."""
    for line, value in list_items(document):
        where = f"{document.path}:{line}"
        yield Record(checked_object(value, where), where)


def _from_json_lines(lines: Iterator[tuple[int, str]], name: Path | str) -> Iterator[Record]:
    for line, values in json_line_objects(lines, name):
        yield Record(checked_object(values, f"{name}:{line}"), f"{name}:{line}")


def _from_table(path: Path, lines: Iterator[tuple[int, str]], *, tabs: bool) -> Iterator[Record]:
    table = open_table(path, lines, tabs=tabs)
    if table is None:
        return
    names = table.names
    # Spreadsheets write columns that were once in use: without a name, and with nothing in them.
    nameless = [number for number, name in enumerate(names) if not name]
    _check_names([name for name in names if name] or names, f"{path}:{table.line}")
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
            yield Record(values, f"{path}:{line}")
        elif row:
            raise PalavraError(
                f"{path}:{line}: {counted(len(row), 'field')}, where the header has {counted(len(names), 'column')}; "
                f"a field with the delimiter or a line end inside needs quotes around it"
            )


def _check_names(names: list[str], where: str) -> None:
    """Raise PalavraError unless each column has a name of its own."""
    if "" in names:
        raise PalavraError(
            f"{where}: column {names.index('') + 1} of the header has no name; name it or remove the column"
        )
    (name, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise PalavraError(f"{where}: {times} columns of the header are named {name[:60]!r}; give each its own name")


def _from_parquet(path: Path) -> Iterator[Record]:
    names: dict[str, list[str]] = {}

    def every_column(schema: Any) -> None:
        _check_names([name.strip() for name in schema.names], str(path))
        with suppress(KeyError, TypeError, ValueError, RecursionError):  # only the `datasets` library writes this
            names.update(class_names(json.loads(schema.metadata[b"huggingface"])["info"]["features"]))

    for row, values in parquet_rows(path, every_column):
        yield Record(with_class_names(values, names), f"{path}:row {row}")


def _from_hub(source: str) -> Iterator[Record]:
    stream = open_hub(source)
    names = class_names(stream.features.to_dict() if stream.features else {})
    for row, values in enumerate(hub_records(source, stream), 1):
        yield Record(with_class_names(values, names), f"{source}:row {row}")
