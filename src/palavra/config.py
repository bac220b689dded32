"""Configuration as nested frozen dataclasses: read from TOML, written back, changed by `key=value`.

The dataclass is the schema: field names are the keys, annotations are the types. A field may be an int, float, bool,
str, `Literal`, tuple, another dataclass (a TOML table), or a union of these with one dataclass at most. Keys are dotted
(`train.steps`). Nothing is evaluated: values are parsed as TOML or by the type they must have.

TOML has no null. None is omitted if it is the default, and otherwise written as the text `none`, which every optional
field reads as None, in files and on the command line. An optional text field therefore cannot hold the text "none":
writing it is an error.
"""

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import tomli_w

from palavra.errors import PalavraError
from palavra.files import half_character, read_text
from palavra.option import declared, default_of, describe, item_kinds, members, table_in
from palavra.typed_json import check_nesting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Number = TypeVar("Number", int, float)
LARGEST_WHOLE = 2**63 - 1
SHOWN = 80  # characters of a wrong value in a message


def without_none(**values: Any) -> dict[str, Any]:
    """Return the values that are set, by name."""
    return {key: value for key, value in values.items() if value is not None}


class Text(str):
    """A value typed on a command line, not yet converted to its field's type."""


class _Invalid(Exception):
    """An invalid key and the reason; the caller adds its location."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key.partition("[")[0]  # for a list item, the key of the list


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "palavra.toml") -> T:
    """Build a config of class `cls` from nested tables. Absent keys keep their defaults.

    Raises:
        PalavraError: an unknown or missing key, a value of the wrong type, or one that `cls` itself refuses.
            The message begins with `where`.
    """
    try:
        return _build(cls, mapping)
    except _Invalid as error:
        raise PalavraError(f"{where}: {error}") from error


def from_toml(cls: type[T], path: str | Path) -> T:
    """Read a config of class `cls` from a TOML file.

    Raises:
        PalavraError: as `from_mapping`, or the file cannot be read or is no TOML; names file and line.
    """
    try:
        return _build(cls, read_toml(path))
    except _Invalid as error:
        line = _line_of(Path(path).read_text(encoding="utf-8"), error.key)
        raise PalavraError(f"{path}{f':{line}' if line else ''}: {error}") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file as it is. Raises PalavraError if it cannot be read or is no TOML."""
    try:
        values = tomllib.loads(read_text(Path(path)))
    except (ValueError, RecursionError) as error:
        raise PalavraError(f"{path}: not valid TOML: {error}") from error
    check_nesting(values, str(path))
    return values


def to_toml(config: "DataclassInstance") -> str:
    """Write a config as TOML with every value spelled out, in the order of the fields, tables last.

    `from_toml` gives back an equal config.

    Raises:
        PalavraError: an optional text field holds the text "none", which would be read as None, or a text holds half
            of a character.
    """
    return tomli_w.dumps(_table(config, None))


def override(config: T, assignments: Iterable[str]) -> T:
    """Return a copy of `config` with `key=value` assignments applied together. The last one for a key wins. A text is
    one assignment.

    Values are typed by their field: `train.steps=1_000`, `optimizer.learning_rate=1e-3`, `model.tied=false`,
    `optimizer.betas=0.9,0.95`, `data.sources=["a, b.txt"]` (a TOML array), `train.minutes=none`.

    Raises:
        PalavraError: no `=`, an unknown key, a value of the wrong type, or one that the config refuses.
    """
    values: dict[str, object] = {}
    given: dict[str, str] = {}
    for assignment in [assignments] if isinstance(assignments, str) else assignments:
        key, equals, value = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise PalavraError(f"--set {assignment}: write it as key=value")
        given[key], values[key] = assignment, Text(value)
    try:
        return _build(type(config), _tables(values), config)
    except _Invalid as error:
        blamed = [text for key, text in given.items() if f"{key}.".startswith(f"{error.key}.")]
        raise PalavraError(f"--set {' '.join(blamed or given.values())}: {error}") from error


def changed(config: T, values: Mapping[str, object]) -> T:
    """Return a copy of `config` with the values at these dotted keys, all at once.

    Raises:
        PalavraError: a value of the wrong type, or one that the config refuses.
    """
    try:
        return _build(type(config), _tables(values), config)
    except _Invalid as error:
        raise PalavraError(str(error)) from error


def _tables(values: Mapping[str, object]) -> dict[str, Any]:
    """Return values by dotted key as nested tables."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *tables, leaf = key.split(".")
        table = found
        for name in tables:
            if not isinstance(table.get(name), dict):
                table[name] = {}
            table = table[name]
        table[leaf] = value
    return found


def _build(cls: type[T], mapping: Mapping[str, Any], base: Any = None, prefix: str = "", root: Any = None) -> T:
    """Build a `cls`. Keys absent from `mapping` come from `base`, or else from the field defaults.

    `prefix` is the dotted path of this table in the whole config of class `root`.
    """
    root = root or cls
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for name in mapping:
        if name not in names:
            near = _nearest(name, names, prefix, root)
            raise _Invalid(prefix + name, f"unknown key '{prefix}{name}'; {near}")
    mapping = _spelled_out(cls, mapping, prefix)
    values = {}
    for field in dataclasses.fields(cls):
        key = prefix + field.name
        kind = hints[field.name]
        default = default_of(field, base)
        if field.name in mapping:
            values[field.name] = value = _decode(kind, mapping[field.name], default, key, root)
            said = field.metadata.get("option")
            unset = value == field.default  # data in memory have no path
            if said and said.path and not unset and (value == "" or (isinstance(value, tuple) and "" in value)):
                raise _Invalid(key, f"{key} is empty: name a file or folder")
        elif default is not dataclasses.MISSING:
            values[field.name] = default
        else:
            raise _Invalid(key, f"'{key}' is missing and has no default; set it to {describe(kind)}")
    try:
        return cls(**values)
    except (PalavraError, ValueError) as error:
        raise _Invalid(prefix.rstrip("."), str(error)) from error


def _spelled_out(cls: "type[DataclassInstance]", mapping: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    """Return a table with each short word (`Option.sets`) replaced by the values that it sets."""
    for field in dataclasses.fields(cls):
        said = field.metadata.get("option")
        word = mapping.get(field.name)
        if not said or not said.sets or word not in said.sets:
            continue  # a wrong word is refused with the other values
        rest = {name: value for name, value in mapping.items() if name != field.name}
        if both := sorted(said.sets[word].keys() & {name for name, value in rest.items() if value is not None}):
            raise _Invalid(prefix + field.name, f"{prefix}{field.name} ({word}) sets {prefix}{both[0]} too: give one")
        mapping = {**rest, **said.sets[word]}
    return mapping


def _decode(kind: Any, value: Any, default: Any, key: str, root: Any) -> Any:
    """Convert a value from TOML, or typed (`Text`), to a `kind`."""
    kinds = members(kind)
    if value in (None, "none") and types.NoneType in kinds:
        return None
    table = table_in(kind)
    if table is not None and isinstance(value, Mapping):
        return _build(table, value, default if isinstance(default, table) else None, f"{key}.", root)
    if isinstance(value, Mapping):
        near = _elsewhere(next(iter(value), ""), root)
        raise _Invalid(key, f"{key} must be {describe(kind)} and has no keys under it{near and f'; {near}'}")
    if isinstance(value, str) and (half := half_character(value)):
        raise _Invalid(key, f"{key} holds {half}, which is half of a character; remove it")
    read = _read_text if isinstance(value, Text) else _read_toml
    for member in sorted(kinds, key=lambda member: _rank(member, value)):
        try:
            return read(member, value, key, root)
        except ValueError:
            continue
    shown = repr(str(value) if isinstance(value, Text) else value)
    shown = shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}..."
    raise _Invalid(key, f"{key} must be {describe(kind)}, not {shown}")


def _rank(kind: Any, value: Any) -> int:
    """Return the order in which to try the members of a union: text accepts anything, so it comes late."""
    if get_origin(kind) is tuple:
        return 0 if str(value).startswith("[") else 4
    return {int: 1, float: 2, str: 3}.get(kind, 0)


def _read_toml(kind: Any, value: Any, key: str, root: Any) -> Any:
    """Return a TOML value if it is a `kind`. Raises ValueError otherwise."""
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if value == choice and type(value) is type(choice):
                return choice
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        kinds = item_kinds(kind, len(value))
        return tuple(_decode(kinds[i], item, None, f"{key}[{i}]", root) for i, item in enumerate(value))
    if kind is float and type(value) is int:
        return _bounded(float(_bounded(value)))
    if kind in (int, float, bool, str) and type(value) is kind:
        return value if kind is str else _bounded(value)
    raise ValueError


def _read_text(kind: Any, text: Text, key: str, root: Any) -> Any:
    """Convert a typed value to a `kind`. Raises ValueError if it cannot."""
    if kind is str:
        return str(text)
    if kind in (int, float):
        return _bounded(kind(text))
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if str(choice) == text:
                return choice
    if get_origin(kind) is tuple and text.startswith("["):
        try:
            return _read_toml(kind, tomllib.loads(f"value = {text}")["value"], key, root)
        except RecursionError:
            raise ValueError from None
    if get_origin(kind) is tuple:
        items = [Text(item.strip()) for item in text.split(",")] if text else []
        kinds = item_kinds(kind, len(items))
        return tuple(_decode(kinds[i], item, None, f"{key}[{i}]", root) for i, item in enumerate(items))
    raise ValueError


def _bounded(value: Number) -> Number:
    """Return a number that is finite and, if whole, fits into 64 bits. Raises ValueError for others."""
    if abs(value) > LARGEST_WHOLE if isinstance(value, int) else not math.isfinite(value):
        raise ValueError
    return value


def _table(config: Any, base: Any) -> dict[str, Any]:
    """Return the TOML table of a config. Reading starts from `base`, as in `_build`."""
    hints = typing.get_type_hints(type(config))
    table = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = default_of(field, base)
        if value is not None or default is not None:
            table[field.name] = _encode(hints[field.name], value, default, field.name)
    return table


def _encode(kind: Any, value: Any, default: Any, name: str) -> Any:
    if value is None:
        return "none"
    if isinstance(value, str) and (half := half_character(value)):
        raise PalavraError(f"{name} holds {half}, which is half of a character; remove it")
    if value == "none" and types.NoneType in members(kind):
        raise PalavraError(f"{name} cannot be the text 'none', which would be read as no value; use another text")
    if dataclasses.is_dataclass(value):
        return _table(value, default if type(default) is type(value) else None)
    if isinstance(value, tuple):
        inner = next(member for member in members(kind) if get_origin(member) is tuple)
        return [_encode(k, v, None, name) for k, v in zip(item_kinds(inner, len(value)), value, strict=True)]
    return value


# Minimum similarity of a name in another table: below it, short names match many others.
LIKELY = 0.75


def _nearest(name: str, siblings: list[str], prefix: str, root: Any) -> str:
    """Suggest the known key nearest to an unknown one: in its table, or the same name in another."""
    if close := difflib.get_close_matches(name, siblings, n=1):
        return f"the nearest is '{prefix}{close[0]}'"
    return _elsewhere(name, root) or f"known here: {', '.join(prefix + sibling for sibling in siblings)}"


def _elsewhere(name: str, root: Any) -> str:
    """Suggest a key with a similar name in another table; empty without one."""
    keys = {each.key.rpartition(".")[2]: each.key for each in reversed(declared(root))}
    close = difflib.get_close_matches(name, keys, n=1, cutoff=LIKELY)
    return f"the nearest is '{keys[close[0]]}'" if close else ""


def _line_of(text: str, key: str) -> int:
    """Return the line of a TOML text (from 1) that sets a dotted key or opens its table; 0 if not found."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+([^\[\]]+)\]", line):
            table = header[1].strip()
            name = table
        elif assignment := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = f"{table}.{assignment[1]}".lstrip(".")
        else:
            continue
        if re.sub(r"[\"'\s]", "", name) == key:
            return number
    return 0
