"""The list of records in a JSON file: the file itself, or a list inside of the object that the file is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palavra.data.json_text import JsonDocument, json_kind
from palavra.errors import PalavraError
from palavra.typed_json import DEEPEST

# Lists that an error names.
_SHOWN = 10


def list_items(path: Path | str, encoding: str, records: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the items of the list of records in a JSON file, with the line where each starts.

    `records` is the place of the list: keys, and numbers of items from 0, with dots between them. Without it the list
    is the file itself, or the only one of objects or of lists in the object that the file is. Raises PalavraError,
    which names them, if there are several, and if there is none.
    """
    document = JsonDocument(path, encoding)
    if records is None and document.peek() == "{":
        records = _only_list(path, encoding)
    elif records is None and document.peek() != "[":
        raise _no_list(document)
    yield from _items_at(document, records or "", records or "", DEEPEST)
    document.end()


def _only_list(path: Path | str, encoding: str) -> str:
    """Return the place of the only list of records in the object that a file is."""
    document = JsonDocument(path, encoding)
    line = document.line
    found = list(_lists_in(document, "", DEEPEST))
    if document.peek():  # another object, as in JSON lines
        raise _no_list(JsonDocument(path, encoding))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(name[:60] for name in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise PalavraError(
            f"{path}:{line}: the file is an object with {len(found)} lists of records: {shown}; name one with "
            f"--records={found[0][:60]}"
        )
    raise PalavraError(
        f"{path}:{line}: a list of objects, [{{...}}, ...], is expected here, but the file is an object without one; "
        "if it has one object a line, name it .jsonl"
    )


def _no_list(document: JsonDocument) -> PalavraError:
    """Return the error for a file that begins with anything but a list."""
    mark = document.peek()
    what = f"begins with {mark!r}" if mark else "ends where it should begin"
    return PalavraError(
        f"{document.path}:{document.line}: a list of objects, [{{...}}, ...], is expected here, but the file {what}; "
        "if it has one object a line, name it .jsonl"
    )


def _lists_in(document: JsonDocument, before: str, levels: int) -> Iterator[str]:
    """Yield the place of each list of objects, or of lists, in the object that comes next and in those inside of it."""
    for key in document.members():
        mark = document.peek()
        if mark == "{" and levels:
            yield from _lists_in(document, f"{before}{key}.", levels - 1)
        elif mark == "[":
            marks: list[str] = []
            for _ in document.items():
                marks = marks or [document.peek()]
                document.skip(levels)
            if marks and marks[0] in "[{":
                yield f"{before}{key}"
        else:
            document.skip(levels)


def _items_at(document: JsonDocument, place: str, whole: str, levels: int) -> Iterator[tuple[int, Any]]:
    """Yield the items of the list at `place`, seen from the value that comes next; `whole` is its place in the file."""
    mark, line = document.peek(), document.line
    if not place:
        if mark != "[":
            raise PalavraError(f"{document.path}:{line}: {whole} is a JSON {_kind(document)}, not a list of records")
        for line in document.items():
            yield line, document.value()
        return
    found = False
    known: list[str] = []
    for key in _keys(document, mark):
        rest = "" if key == place else place[len(key) + 1 :] if place.startswith(f"{key}.") else None
        known += [key] * (len(known) < _SHOWN)
        if rest is None or found or not levels:
            document.skip()
        else:
            found = True
            yield from _items_at(document, rest, whole, levels - 1)
    if not found:
        shown = ", ".join(repr(key[:60]) for key in known) or "nothing"
        raise PalavraError(
            f"{document.path}:{line}: there is no {whole} in the file; here are: {shown}; correct --records"
        )


def _keys(document: JsonDocument, mark: str) -> Iterator[str]:
    """Yield what names each part of the value that comes next; the part must be read before the next one."""
    if mark == "{":
        yield from document.members()
    elif mark == "[":
        yield from (str(number) for number, _ in enumerate(document.items()))
    else:
        document.skip()


def _kind(document: JsonDocument) -> str:
    return "object" if document.peek() == "{" else json_kind(document.value())
