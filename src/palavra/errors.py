"""The exception that people see, and how its message names options."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

from palavra.printable import one_message

_as_flags: ContextVar[bool] = ContextVar("as_flags", default=False)
_FLAG = re.compile(r"(?<![\w/-])--([a-z][a-z0-9-]*)(?:=([\w.+-]*\w)| ([\w.]+=[\w.+-]*\w))?")
_NO_MEMORY = re.compile(
    r"(cannot|can't|unable to|failed to) (allocate|map segment|start new thread|launch worker thread)|bad_alloc"
    r"|not enough memory|out of memory|os error 12\b|thread pool has not been initialized"
    r"|could not create a (primitive|memory)|error return without exception set",  # the last from modules in C
    re.IGNORECASE,
)
# Flags without a value, as arguments.
_SWITCHES = {"lines": 'documents="line"', "single-label": "multilabel=False"} | {
    name: f"{name.replace('-', '_')}=True" for name in ("resume", "skip-bad", "multilabel", "from-scratch", "sliding")
}


class OptionNaming(Exception):
    """An exception whose message is one line of bounded length, and names options as whoever reads it gives them."""

    def __str__(self) -> str:
        return one_message(with_options_named(super().__str__()))


class PalavraError(OptionNaming):
    """Wrong input or a state that only the user can correct.

    The message is one line: what is wrong, where, and what to do about it. It names options as the command line does
    (`--last-n`, `--strategy=last-n`); in Python they read as arguments (`last_n=`, `strategy="last-n"`). The command
    line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2


def lack_of_memory(error: BaseException | None) -> BaseException | None:
    """Return the exception, or the one that it came from, that says that memory did not suffice; else None. Many
    libraries say so in words only."""
    while error is not None:
        full = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        if full or _NO_MEMORY.search(str(error)):
            return error
        error = error.__cause__ or error.__context__
    return None


def unexpected(name: str, known: Iterable[str]) -> TypeError:
    """Return the exception for a keyword argument that does not exist, with the nearest of those `known`."""
    near = get_close_matches(name.replace("-", "_"), list(known), n=1)
    return TypeError(f"unexpected keyword argument {name!r}{f'; the nearest is {near[0]!r}' if near else ''}")


@contextmanager
def options_as_flags() -> Iterator[None]:
    """Name options in messages as flags of the command line while the block runs."""
    token = _as_flags.set(True)
    try:
        yield
    finally:
        _as_flags.reset(token)


def with_options_named(message: str) -> str:
    """Return a message whose options are flags with these written as whoever reads it gives them."""
    return message if _as_flags.get() else _FLAG.sub(_argument, message)


def _argument(flag: re.Match[str]) -> str:
    name, value = flag[1], flag[2] or flag[3]
    if value is None:
        return _SWITCHES.get(name, f"{name.replace('-', '_')}=")
    return f"{name.replace('-', '_')}={value}" if value.isdigit() else f'{name.replace("-", "_")}="{value}"'
