"""Labelled records: every column of tables, JSON, Parquet and hub data sets, with the place each comes from."""

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from palavra.data.csv_dialect import SAMPLE_LINES, allow_long_fields, dialect, table_rows
from palavra.data.decoding import stream_lines, text_lines
from palavra.data.formats import COMPRESSIONS, counted, kind_of, shown_columns
from palavra.data.hub import PREFIX, hub_records, open_hub
from palavra.data.json_text import checked_object, list_items, parse_object, read_whole, refuse_nul
from palavra.data.memory import MemorySource, class_names, with_class_names
from palavra.errors import PalavraError

SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
RECORD_KINDS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")

_SAMPLE_CHARACTERS = 1 << 22
# The first line by which Excel is told the delimiter of a CSV.
_SEPARATOR = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
_PARQUET_ROWS = 256

T = TypeVar("T")


class Record(NamedTuple):
    """One labelled record.

    `values`: column -> value; text in tables, JSON's types in JSON, Python's in Parquet and hub data sets, where
    numbers that stand for the names of classes are those names. `where`: "file:line", the line (1 is the first)
    that it starts at, or "file:row 12".
    """

    values: dict[str, Any]
    where: str


def read_records(source: str, *, encoding: str = "utf-8") -> Iterator[Record]:
    """The records of one file or of `hf://dataset[/config]:split`, in order.

    `.csv` and `.tsv` have a header; the delimiter is found out, quoted fields may hold line ends, a byte order mark and
    blanks around names are taken away, values stay as they are; rows of empty fields are no records. `.jsonl` has one
    object a line, `.json` one list of objects, and is held in memory. These may have `.gz`, `.bz2`, `.xz` or `.zst`
    behind. `encoding` is of the text files. Raises `PalavraError`, with file and line, for anything else, for rows that
    do not have the header's number of fields, and for a source without records.
    """
    return at_least_one(_read(source, encoding), source, "records")


def read_json_lines(file: IO[bytes], name: str, *, encoding: str = "utf-8") -> Iterator[Record]:
    """The records of JSON lines that are open already, such as those of a pipe; errors call them `name`."""
    return at_least_one(_from_jsonl(numbered_stream(file, name, encoding), name), name, "records")


def column(record: Record, name: str, *, option: str = "--column") -> Any:
    """The value in the column `name`; where there is none, a `PalavraError` that says which `option` to mend."""
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
    """The file that `source` names and its kind, one of `kinds`; an error says what else it is."""
    path = Path(os.path.expanduser(source))
    known = f"{', '.join(kinds)} (or the text ones with {', '.join(COMPRESSIONS)} behind)"
    if os.path.isdir(path):
        raise PalavraError(f"{source}: this is a folder; name one file in it, {known}")
    if not os.path.exists(path):
        raise PalavraError(f"{source}: no such file")
    kind = kind_of(path, kinds)
    if kind is None:
        hint = "; save the table as CSV" if path.suffix.lower() in SPREADSHEETS else ""
        raise PalavraError(f"{source}: unknown kind of file; it must be {known}{hint}")
    return path, kind


def at_least_one(items: Iterator[T], source: str, what: str) -> Iterator[T]:
    """The items; an error where there are none."""
    first = next(items, None)
    if first is None:
        raise PalavraError(f"{source}: holds no {what}; is it the right file?")
    yield first
    yield from items


def numbered_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines with their line ends and numbers; a NUL character is an error."""
    return _numbered(text_lines(path, encoding), path)


def numbered_stream(file: IO[bytes], name: str, encoding: str) -> Iterator[tuple[int, str]]:
    """As `numbered_lines`, of what is open already; errors call it `name`."""
    return _numbered(stream_lines(file, name, encoding), name)


def _numbered(lines: Iterator[str], name: Path | str) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(lines, 1):
        if "\0" in text:
            refuse_nul(f"{name}:{line}")
        yield line, text.removeprefix("\ufeff") if line == 1 else text


def names_records(source: str) -> bool:
    """Return whether a source is made of records, and no file."""
    return isinstance(source, MemorySource) or source.startswith(PREFIX)


def _read(source: str, encoding: str) -> Iterator[Record]:
    if isinstance(source, MemorySource):
        return (Record(values, f"{source.name}:row {row}") for row, values in enumerate(source.records(), 1))
    if source.startswith(PREFIX):
        return _from_hub(source)
    path, kind = data_file(source, RECORD_KINDS)
    if kind == ".parquet":
        return _from_parquet(path)
    if kind == ".json":
        return records_of_list(read_whole(path, encoding), path)
    if kind == ".jsonl":
        return _from_jsonl(numbered_lines(path, encoding), path)
    return _from_table(path, kind, encoding)


# Text files


def records_of_list(text: str, path: Path) -> Iterator[Record]:
    """The records of a JSON list of objects, which is the whole `text` of a file."""
    for line, value in list_items(text, path):
        yield Record(checked_object(value, f"{path}:{line}"), f"{path}:{line}")


def _from_jsonl(lines: Iterator[tuple[int, str]], name: Path | str) -> Iterator[Record]:
    for line, text in lines:
        if not text.isspace():
            yield Record(parse_object(text, name, line), f"{name}:{line}")


def _from_table(path: Path, kind: str, encoding: str) -> Iterator[Record]:
    allow_long_fields()
    numbered = numbered_lines(path, encoding)
    filled = ((line, text) for line, text in numbered if not text.isspace())
    first, header = next(filled, (0, ""))
    told = _SEPARATOR.fullmatch(header.rstrip("\r\n"))
    if told:
        first, header = next(filled, (0, ""))
    if not header:
        return
    lines = (text for _, text in numbered)
    sample = _sample(header, lines)
    options = dialect(sample, kind == ".tsv") if told is None else {"delimiter": told[1]}
    rows = table_rows(path, chain(sample, lines), first, options)
    names = [name.strip() for name in next(rows)[1]]
    # Spreadsheets write columns that were once in use: without a name, and nothing in them.
    nameless = [number for number, name in enumerate(names) if not name]
    _check_names([name for name in names if name] or names, f"{path}:{first}")
    for line, row in rows:
        if len(names) > 1 and not "".join(row).strip():
            continue  # a blank line, or one of delimiters alone, as spreadsheets write below the last row
        if len(row) == len(names):
            for number in nameless:
                if row[number].strip():
                    raise PalavraError(
                        f"{path}:{line}: column {number + 1} holds {row[number][:40]!r}, but the header has no name "
                        "for it; name it or take the column out"
                    )
            values = dict(zip(names, row, strict=True))
            values.pop("", None)
            yield Record(values, f"{path}:{line}")
        elif row:
            raise PalavraError(
                f"{path}:{line}: {counted(len(row), 'field')}, where the header has {counted(len(names), 'column')}; "
                f"a field with the delimiter or a line end inside needs quotes around it"
            )


def _sample(header: str, lines: Iterator[str]) -> list[str]:
    """The header and the lines behind it that show how the table is written."""
    sample, size = [header], len(header)
    while len(sample) < SAMPLE_LINES and size < _SAMPLE_CHARACTERS and (text := next(lines, "")):
        sample.append(text)
        size += len(text)
    return sample


def _check_names(names: list[str], where: str) -> None:
    """Raise PalavraError unless each column has a name, and its own."""
    if "" in names:
        raise PalavraError(
            f"{where}: column {names.index('') + 1} of the header has no name; name it or take the column out"
        )
    (name, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise PalavraError(f"{where}: {times} columns of the header are named {name[:60]!r}; give each its own name")


# Parquet and the hub


def _from_parquet(path: Path) -> Iterator[Record]:
    row = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _check_names([name.strip() for name in file.schema_arrow.names], str(path))
            names = class_names(_features(file.schema_arrow.metadata or {}))
            for batch in file.iter_batches(_PARQUET_ROWS):
                for values in batch.to_pylist():
                    row += 1
                    yield Record(with_class_names(values, names), f"{path}:row {row}")
    except UnicodeDecodeError as error:
        raise PalavraError(f"{path}: a text after row {row} is not valid UTF-8 ({error})") from None
    except (pa.ArrowException, OSError) as error:
        raise PalavraError(f"{path}: not a readable Parquet file ({error})") from None


def _from_hub(source: str) -> Iterator[Record]:
    stream = open_hub(source)
    names = class_names(stream.features.to_dict() if stream.features else {})
    for row, values in enumerate(hub_records(source, stream), 1):
        yield Record(with_class_names(values, names), f"{source}:row {row}")


def _features(metadata: dict[bytes, bytes]) -> Any:
    """What the `datasets` library writes into Parquet about its columns; empty where another program wrote it."""
    try:
        return json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
