"""Rows of Arrow batches as records, in bounded memory: a value that many rows share is held once."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from palavra.limits import AT_ONCE, LARGEST_RECORD, check_record, size_of

# Rows that become Python values at once.
_MOST_ROWS = 1024


class BatchRows:
    """Turns the record batches of one source, `name` in errors, into rows numbered from 1; with `bounded` a row has
    at most `LARGEST_RECORD` bytes.

    Values are those of `to_pylist`, but a value of a dictionary is one object for all rows that have it.
    """

    def __init__(self, name: str, *, bounded: bool) -> None:
        self._name, self._bounded, self.row = name, bounded, 0
        self._dictionaries: dict[str, tuple[Any, list[Any]]] = {}

    def rows(self, batch: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows of the next batch with their numbers. Raises PalavraError for a row that is too large."""
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise ValueError("columns of the same name")
        step = max(1, min(_MOST_ROWS, AT_ONCE * batch.num_rows // max(batch.nbytes, 1)))
        if any(_is_view(field.type) for field in batch.schema):
            step = 1  # rows may all be views of the same large value, whose bytes say nothing of their number
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            columns = [self._values(column, name) for name, column in zip(names, part.columns, strict=True)]
            for values in zip(*columns, strict=True):
                self.row += 1
                if self._bounded:
                    check_record(size_of(values), f"{self._name}:row {self.row}")
                yield self.row, dict(zip(names, values, strict=True))

    def _values(self, array: Any, place: str) -> list[Any]:
        """Return the Python values of an array, at `place` in the schema."""
        kind = array.type
        if pa.types.is_dictionary(kind):
            known = self._of_dictionary(array.dictionary, place)
            return [None if index is None else known[index] for index in array.indices.to_pylist()]
        if not _has_dictionary(kind):
            self._check_longest(array)
            return list(array.to_pylist())
        valid = array.is_valid().to_pylist()
        if pa.types.is_struct(kind):
            names = [kind.field(number).name for number in range(kind.num_fields)]
            fields = [self._values(part, f"{place}.{name}") for name, part in zip(names, array.flatten(), strict=True)]
            rows: Any = (dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True))
            return [row if there else None for row, there in zip(rows, valid, strict=True)]
        inner = self._values(array.flatten(), f"{place}.")
        ends = [0, *pc.cumulative_sum(pc.fill_null(pc.list_value_length(array), 0)).to_pylist()]
        return [inner[a:b] if there else None for (a, b), there in zip(pairwise(ends), valid, strict=True)]

    def _of_dictionary(self, dictionary: Any, place: str) -> list[Any]:
        """Return the values of a dictionary, those of the batch before if it is the same."""
        before = self._dictionaries.get(place)
        if before is None or not before[0].equals(dictionary):
            self._dictionaries[place] = before = dictionary, self._values(dictionary, f"{place}.")
        return before[1]

    def _check_longest(self, array: Any) -> None:
        """Raise PalavraError for a text that is longer than a record may be, before Python has a copy of it."""
        if self._bounded and array.nbytes > LARGEST_RECORD and _is_text(array.type):
            check_record(pc.max(pc.binary_length(array)).as_py() or 0, f"{self._name}:row {self.row + 1} or later")


def _inner(kind: Any) -> list[Any]:
    """Return the types that a nested type is made of."""
    return [kind.field(number).type for number in range(kind.num_fields)] if pa.types.is_nested(kind) else []


def _has_dictionary(kind: Any) -> bool:
    """Return whether lists or structs of a type hold a dictionary."""
    if pa.types.is_dictionary(kind):
        return True
    plain = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_struct(kind)
    return plain and any(map(_has_dictionary, _inner(kind)))


def _is_text(kind: Any) -> bool:
    return any(
        test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                pa.types.is_large_binary)
    )  # fmt: skip


def _is_view(kind: Any) -> bool:
    """Return whether elements of a type may be the same bytes, other than through a dictionary."""
    if pa.types.is_run_end_encoded(kind) or "view" in str(kind):
        return True
    return any(map(_is_view, _inner(kind)))
