"""The forms that data in memory may have, as types."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class ArrowStream(Protocol):
    """A table of the Arrow PyCapsule interface, such as those of pandas, polars, pyarrow and DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return an Arrow stream of the rows."""


@runtime_checkable
class InterchangeFrame(Protocol):
    """A data frame of the dataframe interchange protocol."""

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:
        """Return the interchange object."""


Record: TypeAlias = Mapping[str, object]
# What the Python functions take beside paths: texts or records, one by one or as a table.
Data: TypeAlias = Iterable[str] | Iterable[Record] | Mapping[str, Sequence[object]] | ArrowStream | InterchangeFrame
