"""Convert dataclasses to JSON and back: one checked reader for every file that Palavra writes.

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
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from palavra.errors import PalavraError

T = TypeVar("T")
DEEPEST = 32  # levels of nesting in a file
LARGEST = sys.float_info.max
_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", types.NoneType: "null"}


class Bounds(NamedTuple):
    """The values that an `Annotated` number may have, both ends included."""

    low: float
    high: float = math.inf


Count = Annotated[int, Bounds(0)]
Rate = Annotated[float, Bounds(0, 1)]


class _Mismatch(Exception):
    """A key and the expected type of its value."""


def other_keys() -> Any:
    """Return a mapping field for the keys of an object that match no other field."""
    return dataclasses.field(default_factory=dict, metadata={"other keys": True})


def to_json(value: object) -> Any:
    """Return a record as JSON values. Fields that equal their default are left out."""
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
    return [to_json(one) for one in value] if isinstance(value, list | tuple) else value


def json_text(value: object, **options: Any) -> str:
    """Return values as JSON, with null in the place of numbers that are not finite, which JSON does not have. `options`
    are those of `json.dumps`."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(kind: type[T], value: object, where: str) -> T:
    """Return a JSON value as a `kind`, checked recursively. Raises PalavraError, which names `where` and the key, if a
    key is missing, or a value has another type, is not finite or is out of range."""
    try:
        return cast(T, _read(kind, value, "", DEEPEST))
    except _Mismatch as error:
        raise PalavraError(f"{where}: {error}") from None


def parse_json(text: str, where: str) -> object:
    """Return the value of a JSON text. Raises PalavraError, naming `where`, when it is not complete JSON."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise PalavraError(f"{where} is not complete JSON") from None
    return value


def read_json(kind: type[T], path: Path) -> T:
    """Return the content of a JSON file as a `kind`. Raises PalavraError, which names file and key, if the file cannot
    be read, is not UTF-8 or JSON, or does not hold a `kind`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PalavraError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PalavraError(f"{path} is not UTF-8") from None
    return from_json(kind, parse_json(text, str(path)), str(path))


def _read(kind: Any, value: Any, key: str, depth: int) -> Any:
    if depth == 0:
        raise _Mismatch(f"{key} is nested more than {DEEPEST} levels deep")
    origin, members = get_origin(kind), get_args(kind)
    if kind is object:
        return value
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
        return f"{_describe(members[0])} " + (f"from {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}")
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, members))
    if origin is Literal:
        return f"one of {', '.join(map(repr, members))}"
    return str(_WORDS.get(kind, "a list" if origin is tuple else "an object"))
