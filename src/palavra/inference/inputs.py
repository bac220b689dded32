"""The texts that a model is given: from arguments, files, the standard input, or data in memory."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

from palavra.data.characters import is_blank
from palavra.data.columns import text_column
from palavra.data.decoding import NotInEncoding, open_bytes, text_lines
from palavra.data.forms import ArrowStream, InterchangeFrame, Record
from palavra.data.memory import memory_source
from palavra.data.remote import file_of
from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.limits import AT_ONCE, size_of

# Several texts: a file with one a line, texts, or a table with a column of texts.
Texts: TypeAlias = (
    Path | Iterable[str] | Iterable[Record] | Mapping[str, Sequence[object]] | ArrowStream | InterchangeFrame
)


def one_or_more(texts: str | Texts) -> tuple[list[str], bool]:
    """Return the texts, and whether it is a single one, which was given as such.

    A `Path` is a file with one text a line. Raises PalavraError for what is not text, and for a table without a column
    `text` that has several columns of texts.
    """
    if isinstance(texts, str):
        return [texts], True
    if isinstance(texts, Path):
        return list(read_texts(*open_input(texts))), False
    if isinstance(texts, Sequence) and all(type(text) is str for text in texts):
        return list(texts), False
    source = memory_source("texts", texts)
    column = text_column(source)
    found = []
    for number, record in enumerate(source.records(), 1):
        text = record.get(column)
        if not isinstance(text, str):
            raise PalavraError(f"texts:row {number}: {column} is {'missing' if text is None else 'not text'}")
        found.append(text)
    return found, False


def open_input(file: str | Path) -> tuple[IO[bytes], str]:
    """A file, what is compressed without the compression, or for "-" the standard input; and what errors call it.
    Raises PalavraError where it cannot be opened."""
    if str(file) == "-":
        if sys.stdin is None:
            raise PalavraError("the standard input is closed: give it texts, or name a file")
        return sys.stdin.buffer, "stdin"
    path_of(file, "the file")
    path = file_of(str(file))
    return open_bytes(path), str(path)


def read_texts(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a file in UTF-8, without their line ends; the file is closed at its end.

    Raises PalavraError, with file and line, for what is not UTF-8, for a damaged file, for a line longer than a record
    may be, and when no line has any text.
    """
    blank: list[str] | None = []
    held = 0
    with file:
        for text in _lines(file, name):
            if blank is None:
                yield text
                continue
            blank.append(text)
            held += size_of(text) + 1
            if not is_blank(text) or held > AT_ONCE:
                yield from blank
                blank = None
    if blank is not None:
        raise PalavraError(f"{name} has no text: write one text a line")


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    """Yield the lines; here no option says another encoding."""
    try:
        for number, line in enumerate(text_lines(name, "utf-8", file), 1):
            if "\0" in line:
                raise PalavraError(f"{name}:{number} has a NUL character: convert the file to UTF-8 text first")
            yield line.removesuffix("\n")
    except NotInEncoding as error:
        raise PalavraError(f"{error.where} is not UTF-8: convert the file first") from None
