"""How much is read and worked on at once, in bytes. Files are not trusted, and a small one can expand to any size."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from palavra.errors import PalavraError

T = TypeVar("T")

# The most bytes of a record: a line, a row of a table, a JSON value that is held whole, a sentence of columns.
LARGEST_RECORD = 1 << 24
# The most bytes of a file that is one JSON value.
LARGEST_DOCUMENT = 1 << 28
# About how many bytes of text are worked on together.
AT_ONCE = 1 << 20
# What Python needs for an empty list or dict, about.
_CONTAINER = 64


def utf8_size(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def size_of(value: Any) -> int:
    """Return about how many bytes a value of plain Python types has: its texts in UTF-8, and the lists around them."""
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            size += utf8_size(one)
        elif isinstance(one, dict):
            size += _CONTAINER
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list | tuple):
            size += _CONTAINER
            waiting += one
        else:
            size += len(one) if isinstance(one, bytes) else 8
    return size


def check_record(size: int, where: str, largest: int | None = None) -> None:
    """Raise PalavraError for a record of more bytes than the `largest` that is read, `LARGEST_RECORD` by default."""
    largest = LARGEST_RECORD if largest is None else largest
    if size > largest:
        raise PalavraError(
            f"{where}: a record of more than {largest:,} bytes, which is the most that is read; divide it, or check "
            "that it is one record"
        )


def batched(
    items: Iterable[T], most: int, size: Callable[[T], int] = size_of, at_once: int = AT_ONCE
) -> Iterator[list[T]]:  # fmt: skip
    """Yield the items in order, in lists that end with the item that brings them to `most` items or to `at_once`
    bytes."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += size(item)
        if len(batch) >= most or held >= at_once:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
