"""Lists of results, as people look at them: a table in a notebook, a data frame of pandas."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from palavra.errors import PalavraError

if TYPE_CHECKING:
    import pandas

Result = TypeVar("Result")
# Rows of a table in a notebook.
_SHOWN = 20


@runtime_checkable
class HasRows(Protocol):
    """A result that a table shows in rows of its own choice."""

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return the rows: value by column."""


class Results(list[Result]):
    """A list of results, one for each input, in order."""

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the results as a data frame, a row each; results that are lists give several rows, which the column
        `input` numbers from 0. Raises PalavraError without pandas."""
        try:
            import pandas
        except ImportError:
            raise PalavraError("to_pandas needs the pandas package: pip install pandas") from None
        return pandas.DataFrame(list(table_rows(self)))

    def _repr_html_(self) -> str:
        rows = list(table_rows(self[:_SHOWN]))
        more = f"<p>{len(self) - _SHOWN:,} more</p>" if len(self) > _SHOWN else ""
        return html_table(rows) + more


def table_rows(results: Sequence[object]) -> Iterator[dict[str, object]]:
    """Return the rows of results as a table shows them."""
    for number, result in enumerate(results):
        if isinstance(result, list | tuple):
            yield from ({"input": number, **row} for row in table_rows(result))
        elif isinstance(result, Mapping):
            yield {str(name): value for name, value in result.items()}
        elif isinstance(result, HasRows):
            yield from map(dict, result.rows())
        elif is_dataclass(result):
            yield {field.name: getattr(result, field.name) for field in fields(result)}
        else:
            yield {"value": result}


def html_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as an HTML table."""
    names = dict.fromkeys(name for row in rows for name in row)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in names)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    shown = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
    return escape(shown if len(shown) <= 200 else shown[:197] + "...")
