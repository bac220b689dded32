"""One reader for each kind of file: a stream of texts with the lines they start at, in bounded memory."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from palavra.errors import PalavraError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")

_BLOCK = 1 << 20  # bytes read at once
_LONGEST_RECORD = 1 << 26  # characters of one JSON line or CSV field; a longer one is no record
_PARQUET_ROWS = 256
_TSV_SAMPLE = 5000  # lines
_DELIMITERS = ",;\t|"


class Row(NamedTuple):
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


def read_rows(place: Place) -> Iterator[Row]:
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


def kind_of(path: Path) -> str | None:
    """The format that the name says, without the compression; None when it is none of the known ones."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    kind = Path(name).suffix
    if kind not in FORMATS or (kind == ".parquet" and name != path.name.lower()):
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


# Bytes to characters


def _blocks(place: Place) -> Iterator[str]:
    """The decoded text in blocks, line ends as "\\n", without a byte order mark."""
    path, encoding = place.path, place.encoding
    try:
        "".encode(encoding)
        name = codecs.lookup(encoding).name
    except LookupError:
        raise PalavraError(f"unknown encoding '{encoding}': use for example utf-8, latin-1 or cp1252") from None
    decoder = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    lines = 1
    with _open(path) as file:
        while True:
            block = _read(file, path)
            try:
                text = newlines.decode(block, final=not block)
            except UnicodeDecodeError as error:
                _not_in_encoding(place, lines, error)
            yield text
            lines += text.count("\n")
            if not block:
                return


def _open(path: Path) -> IO[bytes]:
    openers: dict[str, Callable[[str], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": partial(pa.CompressedInputStream, compression="zstd"),
    }
    opener = openers.get(path.suffix.lower(), partial(open, mode="rb"))
    try:
        file: IO[bytes] = opener(str(path))
    except OSError as error:
        raise PalavraError(f"{path}: cannot be opened ({error.strerror or error})") from None
    return file


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(_BLOCK)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        raise PalavraError(f"{path}: cannot be read to its end, the file is damaged or cut off ({error})") from None


def _not_in_encoding(place: Place, lines: int, error: UnicodeDecodeError) -> NoReturn:
    """Say which line, and which encoding it probably is."""
    before = error.object[: error.start].decode(place.encoding, "replace")
    wrong = error.object[error.start : error.start + 1]
    if error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        guess = "utf-16"
    else:  # Windows has letters and quotes where latin-1 has control characters
        guess = "cp1252" if any(0x80 <= byte <= 0x9F for byte in error.object) else "latin-1"
    raise PalavraError(
        f"{place.path}:{lines + before.count(chr(10))}: byte 0x{wrong.hex()} is not valid {place.encoding}; "
        f"if the text is {guess}, say so with the encoding option (--encoding {guess})"
    ) from None


# Plain text


def _read_whole(place: Place) -> Iterator[Row]:
    """The whole file as one text, cut where it is longer than `longest`."""
    rest, line = "", 1
    for block in _blocks(place):
        *pieces, rest = cut_text(rest + block, place.longest)
        for piece in pieces:
            yield Row(piece, line, cut=True)
            line += piece.count("\n")
    yield Row(rest, line)


def _read_lines(place: Place) -> Iterator[Row]:
    """Every line a text, without its line end."""
    rest, line = "", 1
    for block in _blocks(place):
        *whole, rest = (rest + block).split("\n")
        for text in whole:
            yield from _pieces(text, line, place.longest)
            line += 1
        *pieces, rest = cut_text(rest, place.longest)
        for piece in pieces:
            yield Row(piece, line, cut=True)
    if rest:
        yield Row(rest, line)


def _pieces(text: str, line: int, longest: int) -> Iterator[Row]:
    *pieces, rest = cut_text(text, longest)
    for piece in pieces:
        yield Row(piece, line, cut=True)
    yield Row(rest, line)


def _read_paragraphs(place: Place) -> Iterator[Row]:
    """Lines up to the next blank one are a text."""
    lines: list[str] = []
    size = first = 0
    for text, line, cut in _read_lines(place):
        assert text is not None
        if lines and not text.strip():
            yield Row("\n".join(lines), first)
            lines, size = [], 0
        elif text.strip():
            if lines and size + len(text) >= place.longest:
                yield Row("\n".join(lines), first, cut=True)
                lines, size = [], 0
            first = first if lines else line
            lines.append(text)
            size += len(text) + 1
            if cut:
                yield Row("\n".join(lines), first, cut=True)
                lines, size = [], 0
    if lines:
        yield Row("\n".join(lines), first)


# Records


def _records(place: Place) -> Iterator[str]:
    """Lines with their line ends; a line too long for a record is an error."""
    rest, line = "", 1
    for block in _blocks(place):
        *whole, rest = (rest + block).split("\n")
        for text in whole:
            yield text + "\n"
        line += len(whole)
        if len(rest) > _LONGEST_RECORD:
            raise PalavraError(
                f"{place.path}:{line}: a line of more than {_LONGEST_RECORD:,} characters; is it one record a line?"
            )
    if rest:
        yield rest


def _read_jsonl(place: Place) -> Iterator[Row]:
    """One JSON object a line; blank lines are passed over."""
    checked = False
    for line, text in enumerate(_records(place), 1):
        if text.isspace():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PalavraError(f"{place.path}:{line}: not valid JSON ({error})") from None
        if not isinstance(record, dict):
            raise PalavraError(f"{place.path}:{line}: a JSON {_kind(record)}, not an object with columns")
        if not checked:
            check_column(str(place.path), line, place.column, record)
            checked = True
        yield Row(text_value(str(place.path), line, place.column, record.get(place.column)), line)


def _read_table(place: Place, kind: str) -> Iterator[Row]:
    """CSV or TSV with a header line; CSV's delimiter is the one that shows the column in the header."""
    csv.field_size_limit(_LONGEST_RECORD)  # of the whole process, whose default is 131,072 characters
    lines = iter(_records(place))
    numbered = ((number, line) for number, line in enumerate(lines, 1) if not line.isspace())
    first, header = next(numbered, (0, ""))
    if not header:
        return
    options: dict[str, Any] = {"delimiter": "\t"}
    if kind == ".csv":
        options["delimiter"] = _delimiter(header, place.column)
    else:
        sample = list(islice(lines, _TSV_SAMPLE))
        lines = chain(sample, lines)
        if not _is_quoted([header, *sample]):
            options["quoting"] = csv.QUOTE_NONE
    columns = next(csv.reader([header], **options))
    check_column(str(place.path), first, place.column, columns)
    wanted = columns.index(place.column)
    ended = False

    def marked() -> Iterator[str]:
        nonlocal ended
        yield from lines
        ended = True

    reader = csv.reader(marked(), **options)
    while True:
        line = first + reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise PalavraError(f"{place.path}:{line}: not valid {kind[1:].upper()} ({error})") from None
        if record is None:
            return
        if ended:  # the reader wanted more lines to end this record
            raise PalavraError(f"{place.path}:{line}: a quote that opens in this record is never closed")
        if record:
            yield Row(record[wanted] if wanted < len(record) else None, line)


def _delimiter(header: str, column: str) -> str:
    """The delimiter under which the header has the column; else the one that gives the most columns."""
    columns = {delimiter: next(csv.reader([header], delimiter=delimiter)) for delimiter in _DELIMITERS}
    with_column = [delimiter for delimiter in _DELIMITERS if column in columns[delimiter]]
    return with_column[0] if with_column else max(_DELIMITERS, key=lambda delimiter: len(columns[delimiter]))


def _is_quoted(sample: list[str]) -> bool:
    """Whether quotes enclose fields: many tab-separated files use the quote as any other character."""
    try:
        records = list(csv.reader(sample, delimiter="\t", strict=True))
    except csv.Error:
        return False
    return all(len(record) == len(records[0]) for record in records[:-1])


def _read_parquet(place: Place) -> Iterator[Row]:
    """The text column of a Parquet file, some rows at a time; a line is a row here."""
    row = 1
    try:
        with pq.ParquetFile(place.path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            check_column(str(place.path), 1, place.column, names)
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[place.column]):
                for value in batch.column(0).to_pylist():
                    yield Row(text_value(str(place.path), row, place.column, value), row)
                    row += 1
    except UnicodeDecodeError as error:
        raise PalavraError(f"{place.path}: a text after row {row} is not valid UTF-8 ({error})") from None
    except (pa.ArrowException, OSError) as error:
        raise PalavraError(f"{place.path}: not a readable Parquet file ({error})") from None


def check_column(where: str, line: int, column: str, columns: Iterable[str]) -> None:
    """Raise `PalavraError` naming the columns there are, unless `column` is one of them."""
    columns = list(columns)
    if column not in columns:
        shown = ", ".join(repr(name[:60]) for name in columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise PalavraError(
            f"{where}:{line}: no column {column!r}; name the one with the text (--column), there are: {shown or 'none'}"
        )


def text_value(where: str, line: int, column: str, value: Any) -> str | None:
    """The text of a record, None where it is absent; anything but text is an error."""
    if value is None or isinstance(value, str):
        return value
    raise PalavraError(f"{where}:{line}: column {column!r} holds a {_kind(value)}, not text")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", bool: "truth value", int: "number", float: "number", str: "text"}
    return names.get(type(value), type(value).__name__ if value is not None else "null")
