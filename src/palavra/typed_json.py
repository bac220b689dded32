"""JSON: dataclasses to it and back, and one checked reader for every file of it.

The dataclass is the schema: field names are the keys, annotations are the types. A field may be an int, float, bool,
str, `Literal`, `tuple`, `Mapping` with text keys, another dataclass, `object` (any JSON value), `Annotated` with a
`Bounds`, or a union of these. A value that equals its field's default is not written, and a key that is absent takes
the default. Unknown keys go to the field made by `other_keys` or are ignored, so that files of later versions can be
read.
"""

import dataclasses
import json
import math
import sys
import types
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from palavra.errors import PalavraError
from palavra.files import half_character, read_text

T = TypeVar("T")
DEEPEST = 100  # levels of nesting in a file
LARGEST = sys.float_info.max
LARGEST_COUNT = 2**63 - 1
LONGEST_LINE = 1 << 20  # bytes of a line; of a longer one, each part is a line
_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", types.NoneType: "null"}


class Bounds(NamedTuple):
    """The values that an `Annotated` number may have, both ends included."""

    low: float
    high: float = math.inf


Count = Annotated[int, Bounds(0, LARGEST_COUNT)]
Duration = Annotated[float, Bounds(0)]
Rate = Annotated[float, Bounds(0, 1)]


class _Mismatch(Exception):
    """A key and the expected type of its value."""


def other_keys() -> Any:
    """Return a mapping field for the keys of an object that match no other field."""
    return dataclasses.field(default_factory=dict, metadata={"other keys": True})


def to_json(value: object) -> Any:
    """Return a record as JSON values. Fields that equal their default are left out. Numbers that are not finite become
    null: JSON has no others."""
    if dataclasses.is_dataclass(value):
        written: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            own = getattr(value, field.name)
            if field.metadata:
                written |= to_json(own)
            elif own != _default(field):
                written[field.name] = to_json(own)
        return written
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return a value as JSON text that can be written as UTF-8, or as ASCII, with null for numbers that are not finite;
    a record as `to_json` returns it."""
    write = partial(json.dumps, allow_nan=False, indent=indent)
    try:
        text = write(value, ensure_ascii=ascii_only)
    except (ValueError, TypeError):  # a number that is not finite, or a record
        value = to_json(value)
        text = write(value, ensure_ascii=ascii_only)
    return write(value) if half_character(text) else text


def from_json(kind: type[T], value: object, where: str) -> T:
    """Return a JSON value as a `kind`, checked recursively. Raises PalavraError, which names `where` and the key, if a
    key is missing, or a value has another type, is not finite or is out of range."""
    try:
        return cast(T, _read(kind, value, "", DEEPEST))
    except _Mismatch as error:
        raise PalavraError(f"{where}: {error}") from None


def parse_json(text: str, name: Path | str, line: int = 1) -> Any:
    """Return the value of a JSON text, which begins at `line` of what errors call `name`. Raises PalavraError if it is
    no JSON, or nested more than `DEEPEST` levels deep."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise no_json(error, name, line) from None
    check_nesting(value, f"{name}:{line}")
    return value


def no_json(error: Exception, name: Path | str, line: int = 1) -> PalavraError:
    """Return the error for text, from `line` of `name` on, at which the JSON decoder raised `error`."""
    if isinstance(error, json.JSONDecodeError):
        where = f"{name}:{line + error.lineno - 1}"
        return PalavraError(f"{where}: not valid JSON ({error.msg}, column {error.colno})")
    # A number or a nesting that is too long for Python.
    return PalavraError(f"{name}:{line}: not readable JSON ({error})")


def check_nesting(value: object, where: str) -> None:
    """Raise PalavraError for lists and tables nested more than `DEEPEST` levels deep: what walks them would end in an
    error of Python's."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for several in inner for one in several if isinstance(one, dict | list)]
        if not level:
            return
    raise PalavraError(f"{where}: nested more than {DEEPEST} levels deep")


def read_json(kind: type[T], path: Path) -> T:
    """Return the content of a JSON file as a `kind`. Raises PalavraError, which names file and key, if the file cannot
    be read, is not UTF-8 or JSON, or does not hold a `kind`."""
    return from_json(kind, parse_json(read_text(path), path), str(path))


def json_lines(kind: type[T], path: Path, name: str) -> Iterator[tuple[bytes, T | PalavraError]]:
    """Yield each line of a file with its value as a `kind`, or with the error, which names `name` and line, if it holds
    none. Raises OSError if the file cannot be read."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), start=1):
            where = f"{name}:{number}"
            try:
                value: T | PalavraError = from_json(kind, parse_json(line.decode("utf-8"), name, number), where)
            except PalavraError as error:
                value = error
            except UnicodeDecodeError:
                value = PalavraError(f"{where}: not UTF-8")
            yield line, value


def read_json_object(path: Path, largest: int, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file of at most `largest` bytes whose values the caller checks. Raises PalavraError
    that names file and `remedy`."""
    try:
        values = parse_json(read_text(path, largest), path)
    except PalavraError as error:
        raise PalavraError(f"{error}: {remedy}") from None
    if not isinstance(values, dict):
        raise PalavraError(f"{path} is damaged, not a JSON object: {remedy}")
    return values


def _read(kind: Any, value: Any, key: str, depth: int) -> Any:
    if depth == 0:
        raise _Mismatch(f"{key} is nested more than {DEEPEST} levels deep")
    origin, members = get_origin(kind), get_args(kind)
    if kind is object:
        return _read_any(value, key, depth)
    if origin is Annotated:
        if type(value) not in (int, float) or not members[1].low <= value <= members[1].high:
            raise _mismatch(kind, value, key)
        return _read(members[0], value, key, depth)
    if origin in (Union, types.UnionType):
        return _read_union(members, kind, value, key, depth)
    if origin is Literal and any(type(one) is type(value) and one == value for one in members):
        return value
    if origin is tuple and isinstance(value, list | tuple) and (members[-1] is Ellipsis or len(members) == len(value)):
        kinds = members[:1] * len(value) if members[-1] is Ellipsis else members
        return tuple(_read(kinds[i], one, f"{key}[{i}]", depth - 1) for i, one in enumerate(value))
    if isinstance(value, dict) and dataclasses.is_dataclass(kind):
        return _read_record(kind, value, key, depth)
    if isinstance(value, dict) and origin is Mapping:
        return {name: _read(members[1], one, _below(key, name), depth - 1) for name, one in value.items()}
    if kind is float and type(value) in (int, float) and -LARGEST <= value <= LARGEST:  # false for nan, too
        return float(value)
    if kind is not float and kind in _WORDS and type(value) is kind:
        return value
    raise _mismatch(kind, value, key)


def _read_any(value: Any, key: str, depth: int) -> Any:
    """Return a value of any kind, in which all numbers are finite."""
    if isinstance(value, dict):
        return _read(Mapping[str, object], value, key, depth)
    if isinstance(value, list):
        return list(_read(tuple[object, ...], value, key, depth))
    return _read(float, value, key, depth) if type(value) is float else value


def _read_union(members: tuple[Any, ...], kind: Any, value: Any, key: str, depth: int) -> Any:
    """Return the value as the first member that it fits; a single one besides None gives the error."""
    others = [member for member in members if member is not types.NoneType]
    if value is None and len(others) < len(members):
        return None
    if len(others) == 1:
        return _read(others[0], value, key, depth)
    for member in others:
        try:
            return _read(member, value, key, depth)
        except _Mismatch:
            continue
    raise _mismatch(kind, value, key)


def _read_record(kind: Any, value: dict[str, Any], key: str, depth: int) -> Any:
    hints, values, fields = _hints(kind), {}, dataclasses.fields(kind)
    known = {field.name for field in fields}
    for field in fields:
        if field.metadata:
            others = {name: one for name, one in value.items() if name not in known}
            values[field.name] = _read(hints[field.name], others, key, depth)
        elif field.name in value:
            values[field.name] = _read(hints[field.name], value[field.name], _below(key, field.name), depth - 1)
        elif _default(field) is dataclasses.MISSING:
            raise _Mismatch(f"{_below(key, field.name)} is missing")
    return kind(**values)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _mismatch(kind: Any, value: object, key: str) -> _Mismatch:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return _Mismatch(f"{key or 'the file'} must be {_describe(kind)}, not {shown}")


def _describe(kind: Any) -> str:
    """Return a type as text."""
    origin, members = get_origin(kind), get_args(kind)
    if origin is Annotated:
        low, high = members[1]
        return f"{_describe(members[0])} from {low:g}" + (f" to {high:g}" if high < LARGEST_COUNT else "")
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, members))
    if origin is Literal:
        return f"one of {', '.join(map(repr, members))}"
    return str(_WORDS.get(kind, "a list" if origin is tuple else "an object"))
