"""The inputs of a fine-tuned model: from files, the standard input, or data in memory."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from palavra.data.characters import is_blank
from palavra.data.columns import text_column
from palavra.data.forms import ArrowStream, InterchangeFrame, Record
from palavra.data.memory import is_table, memory_source, plain
from palavra.data.record_files import check_applies, names_records
from palavra.data.records import at_least_one, numbered_lines, read_json_lines
from palavra.data.remote import file_of
from palavra.data.saved_datasets import is_saved
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.inference.inputs import open_input
from palavra.tasks.column_options import InputColumns
from palavra.tasks.spec import column_flag, text_fields
from palavra.tasks.task import Located, Reader

# One input, and several.
Input: TypeAlias = str | Record | tuple[str, str]
Inputs: TypeAlias = Path | Iterable[str] | Iterable[Record] | Iterable[tuple[str, str]] | ArrowStream | InterchangeFrame


def is_one_input(inputs: Input | Inputs, parts: int) -> bool:
    """Return whether what `predict` is given is one input of so many texts, and not several."""
    if isinstance(inputs, tuple):
        return parts > 1 and len(inputs) == parts and all(isinstance(text, str) for text in inputs)
    return isinstance(inputs, str | Mapping) and not is_table(inputs)


def inputs_in_memory(inputs: Inputs, reader: Reader[Any], columns: InputColumns) -> tuple[Iterator[Any], InputColumns]:
    """Return inputs one by one, and the columns that a table has and `columns` does not name.

    A table without the task's column of the text needs no name for its own, where only one column holds texts.
    """
    if not isinstance(inputs, Iterable) and not is_table(inputs):
        raise PalavraError(f"inputs is of type {type(inputs).__name__}: give a text, a dict, or several of them")
    if not is_table(inputs):
        return (one if isinstance(one, tuple | list) else plain(one) for one in cast(Iterable[Any], inputs)), {}
    source = memory_source("inputs", cast(ArrowStream, inputs))
    rows = (Located(values, f"inputs:row {row}") for row, values in enumerate(source.records(), 1))
    fields, spec = text_fields(reader.spec), reader.spec
    if spec.kind not in ("classification", "regression") or len(fields) != 1 or columns.get(fields[0]) is not None:
        return rows, {}
    usual = getattr(spec.columns, fields[0]) or fields[0]
    found = text_column(source, usual=usual, remedy=f"name it with {column_flag(fields[0])}")
    return rows, {} if found == usual else cast(InputColumns, {fields[0]: found})


def refuse(options: dict[str, Any], why: str) -> None:
    """Raise PalavraError for options that mean nothing here."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise PalavraError(f"{column_flag(given[0])} means nothing here: {why}")


def holds_records(reader: Reader[Any], file: str) -> bool:
    """Return whether a file holds records, or the kind's own format, and not texts: `--format` or else its name
    says."""
    format = reader.spec.format
    return format != "text" if format is not None else _is_known(reader, file)


def inputs_of_file(reader: Reader[Any], file: str, *, given: Collection[str] = ()) -> Iterator[Any]:
    """The inputs of a file ("-": the standard input), each with its place.

    `--format` says what they are, as "jsonl" one object with the task's columns a line, as "text" one text a line, of
    pairs the first and the second in turn; else the file's name does, and it is text where that says nothing.
    Everything is read in the task's encoding. `given`: columns that were named for this file. Raises PalavraError, with
    file and line, for whatever is no input, and for such a column that is not looked for.
    """
    spec = reader.spec
    if names_records(file) and spec.format is not None:
        refuse({"format": spec.format}, f"{file} has columns of its own")
    if holds_records(reader, file) and file != "-":
        check_applies(spec, [file])
        return reader.read_inputs(file, given)
    if spec.format not in (None, "text", "jsonl"):
        raise PalavraError(f"--format={spec.format}: standard input is read as text or jsonl; write it to a file")
    check_applies(replace(spec, format=spec.format or "text"), [file])
    stream, name = open_input(file)
    if spec.format == "jsonl":
        return _objects(stream, name, spec.encoding)
    return in_parts(reader, _texts(stream, name, spec.encoding), name)


def _is_known(reader: Reader[Any], file: str) -> bool:
    """Return whether the name of a file says that it holds what the task reads."""
    path = file_of(file)
    return names_records(file) or is_saved(path) or kind_of(path, reader.files) is not None


def _objects(stream: IO[bytes], name: str, encoding: str) -> Iterator[Located]:
    with stream:
        for record in read_json_lines(stream, name, encoding=encoding):
            yield Located(record.values, record.where)


def _texts(stream: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    with stream:
        lines = (text.removesuffix("\n") for _, text in numbered_lines(name, encoding, stream))
        yield from at_least_one(lines, name, "text")


def in_parts(reader: Reader[Any], texts: Iterable[str], name: str | None = None) -> Iterator[Any]:
    """Texts given one by one as inputs, of pairs the first and the second in turn; where they are lines of the file
    `name`, with the line of each. Raises PalavraError for texts left over, and for empty lines."""
    parts = reader.parts
    waiting: list[str] = []
    for number, text in enumerate(texts, start=1):
        if name is not None and is_blank(text):
            raise PalavraError(f"{name}:{number} is empty: fill the line in or remove it")
        waiting.append(text)
        if len(waiting) == parts:
            value = text if parts == 1 else tuple(waiting)
            yield value if name is None else Located(value, f"{name}:{number}")
            waiting = []
    if waiting:
        raise PalavraError(f"{parts} texts are wanted for each prediction, {len(waiting)} are left over: give all")
