"""CSV, TSV, Parquet files and spreadsheets as streams of rows, each with the line where it starts, in bounded memory.

The one reader of these formats: `records` makes labelled records of the rows, `documents` texts. `json_text` is the
same for JSON.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from palavra.data.arrow_rows import BatchRows
from palavra.data.config import Format, ReadConfig
from palavra.data.decoding import open_seekable
from palavra.data.remote import File
from palavra.data.rows import is_place
from palavra.errors import PalavraError
from palavra.limits import LARGEST_RECORD, batched, check_record, utf8_size

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DELIMITERS = ",;\t|"

# How much of a table shows how it is written.
SAMPLE_LINES = 5000
_SAMPLE_BYTES = 1 << 22
# The first line in which Excel names the delimiter of a CSV file.
_SEPARATOR = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
_PARQUET_ROWS = 256
# Bytes of a dictionary of texts in a Parquet file, which programs end at 1 MiB, and of an index into it.
_LARGEST_DICTIONARY = 1 << 21
_LARGEST_INDEX = 4
_BLOCK = 1 << 16


# Files with a compression of their own.
_WHOLE = (".parquet", ".xlsx", ".ods")


def kind_of(path: File, kinds: tuple[str, ...]) -> str | None:
    """Return the suffix of a file name without that of a compression, or None if it is not one of `kinds`."""
    name = whole = PurePosixPath(path).name.lower() if isinstance(path, str) else path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    kind = Path(name).suffix
    if kind not in kinds or (kind in _WHOLE and name != whole):
        return None
    return kind


def kind_in(path: File, kinds: tuple[str, ...], reading: ReadConfig) -> str | None:
    """Return the kind of a file as `--format` or else its name says it; None if its name says none of `kinds`. Raises
    PalavraError for a format that is none of them."""
    if reading.format is None:
        return kind_of(path, kinds)
    kind = suffix_of(reading.format)
    if kind not in kinds:
        known = ", ".join(name for name in get_args(Format) if suffix_of(name) in kinds)
        raise PalavraError(f"{path}: --format={reading.format} is not read here; it must be one of {known}")
    return kind


def suffix_of(format: str) -> str:
    """Return the suffix of files of a format."""
    return ".txt" if format == "text" else f".{format}"


def shown_kinds(kinds: tuple[str, ...]) -> str:
    """Return the kinds of files for a message."""
    return f"{', '.join(kinds)} (or the text ones with {', '.join(COMPRESSIONS)} behind)"


def shown_columns(columns: list[str]) -> str:
    """Return the first column names for a message, quoted and on one line."""
    shown = ", ".join(repr(name[:60]) for name in columns[:20]) + (", ..." if len(columns) > 20 else "")
    return shown or "none"


def counted(number: int, what: str) -> str:
    """Return "1 word" or "2 words"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


# CSV and TSV


class TextTable(NamedTuple):
    """An open table: the names of its columns, the line of its header, and its rows with their lines.

    An empty line gives a row without fields.
    """

    names: list[str]
    line: int
    rows: Iterator[tuple[int, list[str]]]

    def place(self, name: str) -> int | None:
        """Return the number of a column, from 0, by its name, or else by its number; None if there is none."""
        if name in self.names:
            return self.names.index(name)
        return int(name) if is_place(name, len(self.names)) else None


def open_table(
    path: File, lines: Iterator[tuple[int, str]], *, tabs: bool, column: str | None = None, header: bool = True
) -> TextTable | None:  # fmt: skip
    """Read the header of a CSV or TSV file from its numbered lines; None for a file without one.

    `tabs`: the file's name says that tabs divide it. `column`: the header has it, if the file is read correctly.
    Without a `header` the columns are numbers from 0.
    Otherwise the first records decide on the delimiter, unless a first line `sep=;` names it. A quote that is never
    closed, or not at the end of its field, is a `PalavraError`: the rows after it would become part of the same row.
    """
    csv.field_size_limit(LARGEST_RECORD)  # for the whole process; the default is 131,072 characters
    filled = ((line, text) for line, text in lines if not text.isspace())
    first, begin = next(filled, (0, ""))
    named = _SEPARATOR.fullmatch(begin.rstrip("\r\n"))
    if named:
        first, begin = next(filled, (0, ""))
    if not begin:
        return None
    rest = (text for _, text in lines)
    sample = _sample(begin, rest)
    options = {"delimiter": named[1]} if named else _dialect(sample, tabs, column)
    rows = _rows(path, chain(sample, rest), first, options)
    line, row = next(rows)
    if header:
        return TextTable([name.strip() for name in row], first, rows)
    return TextTable([str(number) for number in range(len(row))], first, chain([(line, row)], rows))


def _sample(header: str, lines: Iterator[str]) -> list[str]:
    """Return the header and the lines after it that show how the table is written."""
    return next(batched(chain([header], lines), SAMPLE_LINES, utf8_size, _SAMPLE_BYTES))


def _rows(path: File, lines: Iterable[str], first: int, options: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of `lines`, of which the first is line `first` of the file; `options` are those of `csv`."""
    size = 0

    def measured() -> Iterator[str]:
        nonlocal size
        for text in lines:
            size += utf8_size(text)
            check_record(size, f"{path}:{line}")
            yield text

    reader = csv.reader(measured(), strict=True, **options)
    while True:
        line, size = first + reader.line_num, 0
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise PalavraError(f"{path}:{line}: {_explained(error, options)}") from None
        if row is None:
            return
        yield line, row


def _explained(error: csv.Error, options: dict[str, Any]) -> str:
    """Return what is wrong in the words of a user, and the remedy."""
    doubled = "quotes inside of quotes are doubled"
    if "unexpected end of data" in str(error):
        return f"a quote that opens in this record is never closed: close it; {doubled}"
    if "expected after" in str(error):
        return (
            "a quote that opens a field of this record closes before the field ends: put quotes around the whole "
            f"field; {doubled}"
        )
    kind = "TSV" if options["delimiter"] == "\t" else "CSV"
    return f"not valid {kind} ({error})"


def _dialect(sample: list[str], tabs: bool, column: str | None) -> dict[str, Any]:
    """Return the options of `csv` for a table that starts with these lines.

    Of the delimiters that divide the header, or with which it has the `column`, take the one with which the most
    records have as many fields as the header: spreadsheets write a comma, or a semicolon if the comma is the decimal
    sign.
    """
    order = [each for each in ("\t,;|" if tabs else DELIMITERS) if column in next(csv.reader(sample, delimiter=each))]
    delimiter = max(order or ("\t,;|" if tabs else DELIMITERS), key=lambda each: _fit(sample, each))
    if tabs and "\t" in sample[0]:
        delimiter = "\t"
    quoted = delimiter != "\t" or _is_quoted(sample)
    return {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}


def _is_quoted(sample: list[str]) -> bool:
    """Return whether quotes enclose fields: in many tab-separated files a quote is an ordinary character."""
    try:
        records = list(csv.reader(sample, delimiter="\t", strict=True))
    except csv.Error:
        return False
    return all(len(record) == len(records[0]) for record in records[:-1])


def _fit(sample: list[str], delimiter: str) -> tuple[bool, float, int]:
    """Return how well a delimiter fits: whether it divides the header, the rate of records like it, its columns."""
    header, *records = [record for record in csv.reader(sample, delimiter=delimiter) if record]
    if len(sample) >= SAMPLE_LINES:
        records = records[:-1]  # the sample may end inside it
    alike = sum(len(record) == len(header) for record in records)
    return len(header) > 1, alike / max(len(records), 1), len(header)


# Parquet


def parquet_rows(
    path: File, columns: Callable[[Any], list[str] | None]
) -> Iterator[tuple[int, dict[str, Any]]]:  # fmt: skip
    """Yield the rows of a Parquet file with their numbers, from 1. `columns` gets the Arrow schema and returns the
    names of the columns to read, None for all."""
    rows = BatchRows(str(path), bounded=True)
    try:
        with open_seekable(path) as opened:
            source = path if isinstance(path, Path) else opened  # Arrow reads a path faster
            with pq.ParquetFile(source) as file:
                metadata, names = file.metadata, columns(file.schema_arrow)
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                wanted = [group.column(place) for place in range(group.num_columns)]
                wanted = [each for each in wanted if names is None or each.path_in_schema.split(".")[0] in names]
                size = sum(each.total_uncompressed_size for each in wanted)
                check_record(size // max(group.num_rows, 1), f"{path}:row {rows.row + 1} or later")
                together = max(1, min(_PARQUET_ROWS, LARGEST_RECORD * group.num_rows // max(size, 1)))
                shared = [each.path_in_schema for each in wanted if _shares_values(opened, each)]
                with pq.ParquetFile(source, metadata=metadata, pre_buffer=False, read_dictionary=shared) as file:
                    for batch in file.iter_batches(together, row_groups=[number], columns=names):
                        yield from rows.rows(batch)
    except UnicodeDecodeError as error:
        raise PalavraError(f"{path}: a text after row {rows.row} is not valid UTF-8 ({error})") from None
    except (pa.ArrowException, OSError) as error:
        raise PalavraError(f"{path}: not a readable Parquet file ({error})") from None


def _shares_values(file: IO[bytes], column: Any) -> bool:
    """Return whether rows of a column of texts refer to a dictionary, and are to be read as such: their texts together
    can be any number of times the file. Arrow reads columns that hold texts too as dictionaries very slowly, so these
    are only if the dictionary is larger than programs make them."""
    if column.physical_type != "BYTE_ARRAY" or not column.has_dictionary_page:
        return False
    file.seek(column.dictionary_page_offset or 0)
    size = _page_size(file.read(16))
    if size is None or size > _LARGEST_DICTIONARY:
        return True
    return bool(column.total_uncompressed_size - size <= _LARGEST_INDEX * column.num_values + _BLOCK)


def _page_size(header: bytes) -> int | None:
    """Return the uncompressed size in the header of a page, its second field in Thrift's compact encoding; None for
    anything else."""
    values, at = [], 0
    for _ in range(2):
        if header[at : at + 1] != b"\x15":  # the next field, a 32-bit number
            return None
        number = shift = 0
        while True:
            at += 1
            if at >= len(header):
                return None
            number |= (header[at] & 0x7F) << shift
            shift += 7
            if header[at] < 0x80:
                break
        values.append(number >> 1)  # zigzag
        at += 1
    return values[1]
