"""What pages are made of, whatever the run: headline numbers, facts, tables; and the words for keys and values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from markupsafe import Markup

from palavra.report.formatting import plain
from palavra.report.records import JsonObject
from palavra.report.svg import placed

Format = Callable[[object], str]
FAMILIES = {"modernbert": "ModernBERT", "bert": "BERT"}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under `columns`; rows whose number is in `chosen` stand out. `wrapped` names the columns of running
    text, by number; a `wide` table takes the page's whole width."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    chosen: frozenset[int] = frozenset()
    wrapped: frozenset[int] = frozenset()
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture, and a `caption` that says how to read it; a `wide` one takes the page's whole width."""

    title: str
    svg: Markup
    caption: str
    wide: bool = False

    @classmethod
    def at(cls, place: str, title: str, svg: str, caption: str, *, wide: bool = False) -> Self:
        """The picture at a place of the page, whose name becomes part of its ids."""
        return cls(title=title, svg=Markup(placed(svg, place)), caption=caption, wide=wide)


def facts(values: JsonObject, rows: Iterable[tuple[str, str, Format]]) -> list[tuple[str, str]]:
    """Label and value of what is there: first what `rows` name, then numbers and texts that they do not."""
    known = [(name, form(values[key])) for key, name, form in rows if key in values]
    named = {key for key, _, _ in rows}
    others = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
    return known + [(label(key), plain(value)) for key, value in others.items() if key not in named]


def texts(value: object) -> list[str]:
    """The items of a JSON array as texts."""
    return [plain(item) for item in value] if isinstance(value, list) else []


def label(key: str) -> str:
    """A key as people read it."""
    return key[:1].upper() + key[1:].replace("_", " ")


def family(name: object) -> str:
    """A model family's name as people write it."""
    return FAMILIES.get(plain(name), plain(name))
