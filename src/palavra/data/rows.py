"""The values of JSON in columns: rows that are lists, and values inside of others."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from palavra.data.json_text import as_object, json_kind
from palavra.errors import PalavraError

ABSENT: Final = object()


def value_at(values: Any, path: str) -> Any:
    """Return the value of a column, or of one inside of it: `meta.title` is the `title` of the object `meta`, `tags.0`
    the first of the list `tags`. `ABSENT` if there is none; a name that has dots goes first."""
    if isinstance(values, list):
        place, dot, rest = path.partition(".")
        if not is_place(place, len(values)):
            return ABSENT
        return value_at(values[int(place)], rest) if dot else values[int(place)]
    if not isinstance(values, Mapping):
        return ABSENT
    if path in values:
        return values[path]
    for end, letter in enumerate(path):
        if letter == "." and path[:end] in values:
            found = value_at(values[path[:end]], path[end + 1 :])
            if found is not ABSENT:
                return found
    return ABSENT


def is_place(name: str, size: int) -> bool:
    """Return whether a name is the number of one of `size` things, from 0."""
    return name.isdecimal() and len(name) < 10 and int(name) < size


def keyed(
    rows: Iterator[tuple[int, Any]], name: Path | str, header: bool | None, columns: Collection[str]
) -> Iterator[tuple[int, dict[str, Any]]]:  # fmt: skip
    """Yield rows of JSON as objects, with the line of each.

    Lists get the names of the first one if it is a `header`: unless `columns` asks for them by number alone, where
    nothing else is said. Numbers, from 0, name their values too. Raises PalavraError for other values, lists of
    different lengths, and objects among lists.
    """
    header = header if header is not None else not (columns and all(each.isdecimal() for each in columns))
    names: list[str] | None = None
    for number, (line, value) in enumerate(rows):
        where = f"{name}:{line}"
        if number == 0 and isinstance(value, list):
            names = header_names(value, where) if header else [str(place) for place in range(len(value))]
            if header:
                continue
        if names is None:
            yield line, as_object(value, where)
            continue
        if not isinstance(value, list):
            raise PalavraError(f"{where}: a JSON {json_kind(value)}, where the first row is a list")
        if len(value) != len(names):
            raise PalavraError(f"{where}: a list of {len(value)}, where the first row has {len(names)}")
        numbered = {each: value[int(each)] for each in columns if is_place(each, len(names))}
        yield line, {**numbered, **dict(zip(names, value, strict=True))}


def header_names(row: list[Any], where: str) -> list[str]:
    """Return the names of columns in the first list. Raises PalavraError unless each has one of its own."""
    if not all(isinstance(name, str) for name in row):
        raise PalavraError(
            f"{where}: the rows are lists, and the first one is no list of names; name the columns by number, from 0, "
            "such as --text=0 --label=1"
        )
    names = [name.strip() for name in row]
    check_names(names, where)
    return names


def check_names(names: list[str], where: str) -> None:
    """Raise PalavraError unless each column has a name of its own."""
    if "" in names:
        raise PalavraError(
            f"{where}: column {names.index('') + 1} of the header has no name; name it or remove the column"
        )
    (name, times), *_ = Counter(names).most_common(1) or [("", 0)]
    if times > 1:
        raise PalavraError(f"{where}: {times} columns of the header are named {name[:60]!r}; give each its own name")
