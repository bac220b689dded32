"""From the bytes of a file, compressed or not, to its characters and lines, in bounded memory."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import pyarrow as pa

from palavra.errors import PalavraError

LONGEST_RECORD = 1 << 26  # characters of a JSON line or a CSV field

_BLOCK = 1 << 20  # bytes read at once
# What reading a damaged or truncated file raises.
_DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


def text_blocks(name: Path | str, encoding: str, file: IO[bytes] | None = None) -> Iterator[str]:
    r"""Yield the decoded text of a file in blocks, with "\n" as line ends and without a byte order mark. An open `file`
    is read instead, if given, and stays open; errors call it `name`."""
    if file is None:
        with open_bytes(Path(name)) as opened:
            yield from text_blocks(name, encoding, opened)
        return
    try:
        "".encode(encoding)
        known = codecs.lookup(encoding).name
    except LookupError:
        raise PalavraError(f"unknown encoding '{encoding}': use for example utf-8, latin-1 or cp1252") from None
    decoder = codecs.getincrementaldecoder(known)()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    lines, begun = 1, False
    while True:
        try:
            block = file.read(_BLOCK)
            text = newlines.decode(block, final=not block)
        except UnicodeDecodeError as error:
            _not_in_encoding(name, encoding, lines, error)
        except UnicodeError as error:  # UTF-16 and UTF-32 without a byte order mark
            raise PalavraError(
                f"{name}: not valid {encoding} ({error}); if the text is utf-8, say so with the encoding option "
                "(--encoding=utf-8)"
            ) from None
        except _DAMAGES as error:
            _damaged(name, error)
        yield text if begun else text.removeprefix("\ufeff")
        begun = begun or bool(text)
        lines += text.count("\n")
        if not block:
            return


def text_lines(name: Path | str, encoding: str, file: IO[bytes] | None = None) -> Iterator[str]:
    """Yield the lines of a file, as `text_blocks`, with their line ends. Raises PalavraError for a line too long for a
    record."""
    rest, line = "", 1
    for block in text_blocks(name, encoding, file):
        *whole, rest = (rest + block).split("\n")
        for text in whole:
            yield text + "\n"
        line += len(whole)
        if len(rest) > LONGEST_RECORD:
            raise PalavraError(
                f"{name}:{line}: a line of more than {LONGEST_RECORD:,} characters; is it one record a line?"
            )
    if rest:
        yield rest


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading and decompress it as its suffix says. Raises PalavraError if it cannot be opened."""
    openers: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    try:
        if path.suffix.lower() == ".zst":  # Arrow's own streams cannot be read line by line
            return io.BufferedReader(pa.CompressedInputStream(str(path), compression="zstd"))
        file: IO[bytes] = openers.get(path.suffix.lower(), partial(open, mode="rb"))(str(path))
    except OSError as error:
        raise PalavraError(f"{path}: cannot be opened ({error.strerror or error})") from None
    return file


def byte_lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of an open file, each as soon as it is there; errors call it `name`. Raises PalavraError for a
    damaged file."""
    try:
        yield from file
    except _DAMAGES as error:
        _damaged(name, error)


def _damaged(name: Path | str, error: Exception) -> NoReturn:
    raise PalavraError(f"{name}: cannot be read to its end, the file is damaged or cut off ({error})") from None


def _not_in_encoding(name: Path | str, encoding: str, lines: int, error: UnicodeDecodeError) -> NoReturn:
    """Raise PalavraError that names the line and the encoding that the text probably has."""
    before = error.object[: error.start].decode(encoding, "replace")
    wrong = error.object[error.start : error.start + 1]
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        guess = "utf-8"
    elif error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        guess = "utf-16"
    else:  # Windows has letters and quotes where latin-1 has control characters
        guess = "cp1252" if any(0x80 <= byte <= 0x9F for byte in error.object) else "latin-1"
    raise PalavraError(
        f"{name}:{lines + before.count(chr(10))}: byte 0x{wrong.hex()} is not valid {encoding}; "
        f"if the text is {guess}, say so with the encoding option (--encoding={guess})"
    ) from None
