"""From the bytes of a file, compressed or not, to its characters and lines, in bounded memory."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

import pyarrow as pa

from palavra.data.remote import File, RemoteFile, open_remote
from palavra.errors import PalavraError
from palavra.limits import check_record, utf8_size

_BLOCK = 1 << 20  # bytes read at once
# What reading a damaged or truncated file raises.
_DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
# Codecs between texts, or for names, that Python lists among the encodings.
_NO_ENCODINGS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}
_LINE_END = re.compile(r"\r\n?|\n")
# Names of streams that are already open, as a shell gives them for `<(command)`.
_OPEN_STREAM = re.compile(r"/dev/(?:stdin|fd/\d+)|/proc/self/fd/\d+")


class NotInEncoding(PalavraError):
    """A file that does not have the encoding it is read in; `where` is the "file:line"."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


def text_blocks(name: Path | str, encoding: str, file: IO[bytes] | None = None) -> Iterator[str]:
    r"""Yield the decoded text of a file in blocks, with "\n" as line ends and without a byte order mark. An open `file`
    is read instead, if given, each block as soon as it is there, and stays open; errors call it `name`."""
    if file is None:
        with open_bytes(name if isinstance(name, RemoteFile) else Path(name)) as opened:
            yield from text_blocks(name, encoding, opened)
        return
    decoder = codecs.getincrementaldecoder(_checked(encoding))()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read = getattr(file, "read1", file.read)
    lines, begun, half_end = 1, False, False
    while True:
        try:
            block = read(_BLOCK)
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            _not_in_encoding(name, encoding, lines, half_end, error)
        except UnicodeError as error:  # UTF-16 and UTF-32 without a byte order mark
            raise PalavraError(
                f"{name}: not valid {encoding} ({error}); if the text is utf-8, say so with the encoding option "
                "(--encoding=utf-8)"
            ) from None
        except _DAMAGES as error:
            _damaged(name, error)
        half_end = text.endswith("\r") or (half_end and not text)
        text = newlines.decode(text, final=not block)
        yield text if begun else text.removeprefix("\ufeff")
        begun = begun or bool(text)
        lines += text.count("\n")
        if not block:
            return


def text_lines(name: Path | str, encoding: str, file: IO[bytes] | None = None) -> Iterator[str]:
    """Yield the lines of a file, as `text_blocks`, with their line ends. Raises PalavraError for a line too long for a
    record."""
    begun: list[str] = []  # the parts of a line that has not ended
    size, line = 0, 1
    for block in text_blocks(name, encoding, file):
        end, *others = block.split("\n")
        begun.append(end)
        size += utf8_size(end)
        check_record(size, f"{name}:{line}")
        if others:
            yield "".join([*begun, "\n"])
            *whole, rest = others
            for text in whole:
                yield text + "\n"
            line += len(others)
            begun, size = [rest], utf8_size(rest)
    if size:
        yield "".join(begun)


def open_bytes(path: File) -> IO[bytes]:
    """Open a file for reading and decompress it as its suffix says. Raises PalavraError if it cannot be opened, or is
    no ordinary file: a named pipe or a device may never end, or never begin."""
    openers: dict[str, Callable[[Any], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        # Arrow's own streams cannot be read line by line.
        ".zst": lambda source: io.BufferedReader(pa.CompressedInputStream(source, compression="zstd")),
    }
    opener = openers.get(PurePosixPath(path).suffix.lower())
    try:
        if isinstance(path, RemoteFile):
            below = open_remote(path)
            return below if opener is None else _Decompressed(opener(below), below)
        check_ordinary(path)
        file: IO[bytes] = path.open("rb") if opener is None else opener(str(path))
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from None
    return file


class _Decompressed(io.BufferedReader):
    """A stream without its compression, which closes the one below too."""

    def __init__(self, file: Any, below: IO[bytes]) -> None:
        super().__init__(file)
        self._below = below

    def close(self) -> None:
        super().close()
        self._below.close()


def open_seekable(path: File) -> IO[bytes]:
    """Open a file of which parts are read in any order. Raises PalavraError as `open_bytes` does."""
    if isinstance(path, RemoteFile):
        return open_remote(path, seekable=True)
    try:
        check_ordinary(path)
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from None


def _unopened(path: File, error: Exception) -> PalavraError:
    return PalavraError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})")


def check_ordinary(path: Path) -> None:
    """Raise PalavraError for a named pipe, a socket or a device, except the open streams that a shell names. Raises
    OSError for a path that cannot be looked at."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or _OPEN_STREAM.fullmatch(str(path))):
        raise PalavraError(
            f"{path}: a pipe, socket or device, not a file; write its content to a file, or where the command takes "
            "standard input pass it there (-)"
        )


def _checked(encoding: str) -> str:
    """Return the name of a text encoding. Raises PalavraError for anything else."""
    try:
        known = codecs.lookup(encoding)
    except (LookupError, ValueError):  # unknown, or not even a name
        known = None
    if known is None or not known._is_text_encoding or known.name.replace("-", "_") in _NO_ENCODINGS:
        raise PalavraError(f"unknown encoding {encoding[:40]!r}: use for example utf-8, latin-1 or cp1252")
    return known.name


def _damaged(name: Path | str, error: Exception) -> NoReturn:
    raise PalavraError(f"{name}: cannot be read to its end, the file is damaged or cut off ({error})") from None


def _not_in_encoding(
    name: Path | str, encoding: str, lines: int, half_end: bool, error: UnicodeDecodeError
) -> NoReturn:
    r"""Raise PalavraError that names the line and the encoding that the text probably has. `half_end`: the text before
    ended with "\r", which is not counted yet."""
    before = "\r" * half_end + error.object[: error.start].decode(encoding, "replace")
    line = lines + len(_LINE_END.findall(before))
    wrong = error.object[error.start : error.start + 1]
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        guess = "utf-8"
    elif error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        guess = "utf-16"
    else:  # Windows has letters and quotes where latin-1 has control characters
        guess = "cp1252" if any(0x80 <= byte <= 0x9F for byte in error.object) else "latin-1"
    raise NotInEncoding(
        f"{name}:{line}: byte 0x{wrong.hex()} is not valid {encoding}; "
        f"if the text is {guess}, say so with the encoding option (--encoding={guess})",
        f"{name}:{line}",
    ) from None
