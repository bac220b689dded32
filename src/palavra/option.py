"""Options: a configuration field with its name, type, default, help, flag, and the conditions under which it applies.

The command-line options, the types of Python keyword arguments, the reference tables and the check that a set option
applies are all derived from these declarations.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

Command = Literal[
    "tokenizer train", "prepare", "pretrain", "finetune", "sweep", "evaluate", "compare-pairs", "predict", "demo"
]


@dataclass(frozen=True, kw_only=True)
class Option:
    """The metadata of a field besides its name, type and default.

    `help`: its meaning. `flag`: its name on the command line; for true or false, `--this/--opposite` names both.
    `commands`: those that offer the flag (None: those that build the field's recipe). `unset`: the meaning of the value
    None. `path`: whether its text is a path. `when`: the values of other fields, of the same or an enclosing table, for
    which the field applies (empty: always). `replaces`: the fields of the same table that become None if the flag is
    given. `sets`: of a short word for values of the same table, what each of its values sets; the field itself stays
    None.
    """

    help: str
    flag: str | None = None
    commands: tuple[Command, ...] | None = None
    unset: str | None = None
    path: bool = False
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()
    sets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def option(
    default: T,
    *,
    help: str,
    flag: str | None = None,
    commands: tuple[Command, ...] | None = None,
    unset: str | None = None,
    path: bool = False,
    when: Mapping[str, tuple[str, ...]] | None = None,
    replaces: tuple[str, ...] = (),
    sets: Mapping[str, Mapping[str, object]] | None = None,
) -> T:
    """Declare a field of a configuration; see `Option`."""
    said = Option(
        help=help, flag=flag, commands=commands, unset=unset, path=path, when=when or {}, replaces=replaces,
        sets=sets or {},
    )  # fmt: skip
    found: T = field(default=default, metadata={"option": said})
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Declared:
    """A field of a configuration or nested table: its dotted `key`, type, default (or MISSING) there and in the table
    alone, metadata, and the values of other fields, by dotted key, for which it applies."""

    key: str
    kind: Any
    default: Any
    own_default: Any
    option: Option
    when: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Return the field's flag (of two, the one for true), or an empty string."""
        return (self.option.flag or "").partition("/")[0]

    @property
    def argument(self) -> str:
        """Return the name of the flag as a keyword argument in Python."""
        return self.name.removeprefix("--").replace("-", "_")

    def meaning(self, most: int = 9) -> str:
        """Return what the field means, and what it applies to if that is at most this many values."""
        few = {_title(key): values for key, values in self.when.items() if len(values) <= most}
        return self.option.help + "".join(f" Only for {f'{title} {listed(few[title])}'.strip()}." for title in few)

    def shown_default(self) -> str:
        """Return the default as text, or an empty string."""
        if self.default is None:
            return self.option.unset or "none"
        if self.default is dataclasses.MISSING or self.default == "":
            return self.option.unset or ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return "[]" if self.default == () else str(self.default)


@cache
def declared(cls: type[Any]) -> tuple[Declared, ...]:
    """Return every field of a configuration in order, with tables replaced by their fields."""
    return tuple(_declared(cls, None, "", {}, {}))


def _declared(
    cls: "type[DataclassInstance]",
    base: Any,
    prefix: str,
    around: Mapping[str, str],
    when: Mapping[str, tuple[str, ...]],
) -> Iterator[Declared]:
    """Yield the fields of a table at the dotted `prefix`, with defaults from `base`; `around` has the dotted key of
    each field of the enclosing tables, `when` the conditions of the table."""
    hints = typing.get_type_hints(cls)
    own = {**around, **{each.name: prefix + each.name for each in dataclasses.fields(cls)}}
    for each in dataclasses.fields(cls):
        default, key = default_of(each, base), prefix + each.name
        said = each.metadata.get("option", Option(help=""))
        applies = {**when, **{own.get(name, name): values for name, values in said.when.items()}}
        table = table_in(hints[each.name])
        if table is None:
            own_default = default_of(each, None)
            yield Declared(
                key=key, kind=hints[each.name], default=default, own_default=own_default, option=said, when=applies
            )
        else:
            yield from _declared(table, default, f"{key}.", own, applies)


def listed(values: Sequence[str]) -> str:
    """Return values as text: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def value_of(config: Any, key: str) -> Any:
    """Return the value at a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def unmet(config: Any, each: Declared, to: str = "", *, name: str = "") -> str | None:
    """Return why a field (or the option `name` that sets it) does not apply to a configuration, with `to` checking only
    the condition on that key; None if it applies, or if its conditions are not known yet."""
    for key, values in each.when.items():
        if to in ("", key) and (value := value_of(config, key)) is not None and value not in values:
            return does_not_apply(name or each.key, f"{_title(key)} {value}".strip(), values)
    return None


def does_not_apply(what: str, to: str, instead: Sequence[str] = ()) -> str:
    """Return the message for an option that was set but has no effect."""
    applies = f"; it applies to {listed(instead)}" if instead else ""
    return f"{what} does not apply to {to}{applies}: leave it out"


def misapplied(config: "DataclassInstance", plain: "DataclassInstance", to: str = "") -> Iterator[str]:
    """Yield a message for every set field that does not apply, with `to` checking only the condition on that key. A
    field with its default, in `plain` or in its table alone, is not set."""
    for each in declared(type(config)):
        defaults = (value_of(plain, each.key), each.own_default)
        if value_of(config, each.key) not in defaults and (problem := unmet(config, each, to)):
            yield problem


def applicable(config: T, plain: T) -> T:
    """Return the configuration with every field that does not apply reset to `plain`."""
    for each in declared(type(config)):  # type: ignore[arg-type]
        if unmet(config, each):
            config = _with_value(config, each.key, value_of(plain, each.key))
    return config


def _with_value(config: Any, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    return dataclasses.replace(config, **{name: _with_value(getattr(config, name), rest, value) if rest else value})


def _title(key: str) -> str:
    """Return the name of a choice: `strategy` for `strategy.name`, empty for a kind."""
    *tables, name = key.split(".")
    return "" if name == "kind" else tables[-1] if name == "name" and tables else name


def members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def choices_of(kind: Any) -> tuple[Any, ...]:
    """Return the values of a Literal, or of the Literals of a union; empty for other types."""
    return tuple(value for member in members(kind) if get_origin(member) is Literal for value in get_args(member))


def table_in(kind: Any) -> "type[DataclassInstance] | None":
    """Return the dataclass of a type that is one or may be one."""
    found: Any = next((member for member in members(kind) if dataclasses.is_dataclass(member)), None)
    return found  # type: ignore[no-any-return]


def default_of(field: "dataclasses.Field[Any]", base: Any) -> Any:
    """Return the default of a field: `base`'s value, else its own default, else MISSING."""
    if base is not None:
        return getattr(base, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def item_kinds(kind: Any, length: int) -> tuple[Any, ...]:
    """Return the types of the items of a `tuple[X, ...]` or `tuple[X, Y]`; ValueError if it cannot be that long."""
    kinds = get_args(kind)
    if kinds[-1:] == (Ellipsis,):
        return kinds[:1] * length
    if len(kinds) != length:
        raise ValueError
    return kinds


def describe(kind: Any) -> str:
    """Return a type as text."""
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        types.NoneType: "none",
    }
    if kind in words:
        return words[kind]
    if len(several := members(kind)) > 1:
        return " or ".join(map(describe, several))
    if dataclasses.is_dataclass(kind):
        return f"a table of {', '.join(field.name for field in dataclasses.fields(kind))}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1:] == (Ellipsis,):
            return f"a list of {describe(kinds[0])}"
        return f"a list of {len(kinds)} ({', '.join(map(describe, kinds))})"
    raise TypeError(f"a config field cannot be a {kind}")


def type_name(kind: Any) -> str:
    """Return the short name of a type, None left out: `number`, or its choices as `a|b`."""
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    if choices := choices_of(kind):
        return "|".join(map(str, choices))
    found = next(member for member in members(kind) if member is not types.NoneType)
    if get_origin(found) is tuple:
        of = type_name(get_args(found)[0])
        return f"list of {of}s" if of in ("whole number", "number", "text") else f"list of {of}"
    return names[found]
