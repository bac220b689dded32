"""The three standard streams of a command: results, messages, and what happens when one of them fails."""

import errno
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from palavra.printable import escaped, one_message


class ReaderGone(Exception):
    """The reader of the standard output, such as `head`, had enough. `exit_code` is that of a program which the system
    ends for it, by SIGPIPE."""

    exit_code = 128 + 13


def write_result(text: str) -> None:
    """Write to the standard output. Raises ReaderGone, or OSError that names it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # typer has a way of its own with this one
        raise ReaderGone from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def print_note(text: str) -> None:
    """Print a message to the standard error: one line, escaped and bounded."""
    _note(one_message(text))


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error to the standard error, each line escaped and bounded."""
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    _note("\n".join(map(one_message, lines)))


def _note(text: str) -> None:
    """Write to the standard error; that it cannot be written changes no exit code."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepare the standard streams for a command, and end them so that Python's own end does not fail.

    What libraries say through `warnings` and `logging` is escaped too. Raises OSError if the standard output is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file that is opened gets this number, and what libraries print lands in it.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed", "standard output")
    _escape_surrogates()
    with _escaped_libraries():
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                _end(stream)


def _escape_surrogates() -> None:
    """Let characters that a stream's encoding lacks be escaped, not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end(stream: IO[str]) -> None:
    """Flush a stream; drop what cannot be written."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class _LogRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return one_message(super().getMessage())


@contextmanager
def _escaped_libraries() -> Iterator[None]:
    plain, factory = warnings.formatwarning, logging.getLogRecordFactory()

    def formatted(*warning: Any, **more: Any) -> str:
        return escaped(plain(*warning, **more), keep="\n")

    warnings.formatwarning = formatted
    logging.setLogRecordFactory(_LogRecord)
    try:
        yield
    finally:
        warnings.formatwarning = plain
        logging.setLogRecordFactory(factory)
