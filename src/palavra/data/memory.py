"""Data in memory as a source: texts, records, generators, data frames and Arrow tables."""

import hashlib
import json
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import numpy as np
import pyarrow as pa

from palavra.data.arrow_rows import BatchRows
from palavra.data.forms import ArrowStream, Data, InterchangeFrame, Record
from palavra.errors import PalavraError
from palavra.files import atomic_path

# How a recipe names data that nothing keeps: they were in memory.
PREFIX = "memory://"


class MemorySource(str):
    """A source whose records are in memory. As a text it is what recipes call it: a file that keeps it, else
    `memory://name`. Errors call it by its `name`."""

    name: str
    _rows: Callable[[], Iterator[dict[str, Any]]]

    def __new__(
        cls, name: str, rows: Callable[[], Iterator[dict[str, Any]]], path: Path | None = None
    ) -> "MemorySource":
        source = super().__new__(cls, f"{PREFIX}{name}" if path is None else path)
        source.name, source._rows = name, rows
        return source

    def __deepcopy__(self, memo: object) -> "MemorySource":
        return self

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records from the first on: plain Python values by column."""
        try:
            yield from self._rows()  # and not merely return it: whoever iterates keeps the source
        except RecursionError:
            raise PalavraError(f"{self.name}: a record is nested too deeply, or holds itself") from None

    def text_bytes(self, column: str) -> int:
        """Return how many bytes of UTF-8 the texts of a column have."""
        return self._summary(column)[0]

    def digest(self, column: str) -> str:
        """Return a digest of the texts of a column: equal for equal texts."""
        return self._summary(column)[1]

    @cached_property
    def _summaries(self) -> dict[str, tuple[int, str]]:
        return {}

    def _summary(self, column: str) -> tuple[int, str]:
        if column not in self._summaries:
            size, digest = 0, hashlib.sha256()
            for record in self.records():
                text = str(record.get(column)).encode(errors="surrogatepass")
                size += len(text)
                digest.update(len(text).to_bytes(8, "big") + text)
            self._summaries[column] = size, digest.hexdigest()
        return self._summaries[column]

    def kept(self, path: Path) -> "MemorySource":
        """Write the records to a file of JSON lines, atomically, and return the source that the file keeps."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            _write(self.records(), file)
        return MemorySource(self.name, lambda: _read(path.open("rb")), path)


def called(source: str) -> str:
    """Return what errors call a source: data in memory by their name."""
    return source.name if isinstance(source, MemorySource) else source


def memory_source(name: str, data: Data, spill: Path | None = None) -> MemorySource:
    """Make a source of data in memory, called `name` in errors.

    What can be read only once, such as a generator, goes to an unnamed temporary file in the folder `spill`, so that it
    can be read again in little memory. Raises PalavraError for data of no known form; what is wrong with one of
    the records is said when it is read.
    """
    if not isinstance(data, Iterator):
        return MemorySource(name, lambda: rows_of(data, name))
    if spill is None:
        return MemorySource(name, _once(rows_of(data, name)))
    file = TemporaryFile(dir=spill)  # noqa: SIM115 - it lives as long as the source
    _write(rows_of(data, name), file)

    def again() -> Iterator[dict[str, Any]]:
        file.seek(0)
        return map(json.loads, file)

    source = MemorySource(name, again)
    weakref.finalize(source, file.close)
    return source


def _once(rows: Iterator[dict[str, Any]]) -> Callable[[], Iterator[dict[str, Any]]]:
    """All rows, held from the first reading on."""
    held: list[dict[str, Any]] = []

    def read() -> Iterator[dict[str, Any]]:
        held.extend(rows)
        return iter(held)

    return read


def _write(rows: Iterable[dict[str, Any]], file: Any) -> None:
    """Write rows as JSON lines; half surrogate pairs are escaped."""
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        try:
            content = line.encode()
        except UnicodeEncodeError:
            content = json.dumps(row).encode()
        file.write(content + b"\n")
    file.flush()


def _read(file: Any) -> Iterator[dict[str, Any]]:
    with file:
        yield from map(json.loads, file)


@dataclass(frozen=True)
class _Together:
    """Columns of equal length as records."""

    columns: Mapping[str, Iterable[object]]

    def __iter__(self) -> Iterator[dict[str, object]]:
        ended = object()
        for values in zip_longest(*self.columns.values(), fillvalue=ended):
            if any(value is ended for value in values):
                raise PalavraError(
                    f"{' and '.join(self.columns)} differ in length: give as many of one as of the other"
                )
            yield dict(zip(self.columns, values, strict=True))


def together(**columns: Iterable[object]) -> Iterable[dict[str, object]]:
    """Return columns as records: an iterator where one of the columns can be read only once."""
    rows = _Together(columns)
    return iter(rows) if any(isinstance(column, Iterator) for column in columns.values()) else rows


def is_table(data: object) -> bool:
    """Return whether data are a data frame, an Arrow table or a data set, rather than things one by one."""
    named = any(hasattr(data, name) for name in ("columns", "column_names", "schema"))
    return hasattr(data, "features") or (named and isinstance(data, ArrowStream)) or isinstance(data, InterchangeFrame)


def rows_of(data: Data, name: str) -> Iterator[dict[str, Any]]:
    """Return the rows of data of any known form as dicts of plain values; a text is a row with the column `text`."""
    if isinstance(data, Mapping):
        return _of_columns(data, name)
    features = getattr(data, "features", None)
    if hasattr(features, "to_dict"):  # a datasets.Dataset
        return _of_dataset(cast(Iterable[Record], data), features)
    names = getattr(data, "column_names", getattr(data, "columns", None))
    if isinstance(data, ArrowStream) and (names is not None or hasattr(data, "schema")):
        return _of_arrow(data, names, name)
    if isinstance(data, InterchangeFrame):
        return _of_interchange(data, names, name)
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise PalavraError(
            f"{name} is of type {type(data).__name__}: give texts, dicts, a data frame, an Arrow table or a Dataset"
        )
    return _of_items(data, name)


def _of_items(data: Iterable[object], name: str) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(data, 1):
        value = plain(item)
        if isinstance(value, dict):
            yield value
        elif value is None or isinstance(value, str):
            yield {"text": value}
        else:
            raise PalavraError(
                f"{name}:row {number} is of type {type(item).__name__}: each must be a text, or a dict with columns"
            )


def _of_columns(data: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    if any(hasattr(column, "features") for column in data.values()):
        raise PalavraError(f"{name} holds several splits ({', '.join(data)}): give one of them")
    if any(isinstance(column, str) or not isinstance(column, Iterable) for column in data.values()):
        raise PalavraError(f"{name} is one dict: give a list of dicts, or a dict of columns, each a list")
    return (plain(row) for row in _Together(data))


def _of_dataset(data: Iterable[Record], features: Any) -> Iterator[dict[str, Any]]:
    names = class_names(features.to_dict())
    return (with_class_names(plain(row), names) for row in data)


def _of_arrow(data: ArrowStream, names: Iterable[object] | None, name: str) -> Iterator[dict[str, Any]]:
    try:
        reader = pa.RecordBatchReader.from_stream(data)
        # An index of pandas becomes a column there.
        known = None if names is None else [str(each) for each in names]
        rows = BatchRows(name, bounded=False)
        for batch in reader:
            for _, values in rows.rows(batch if known is None else batch.select(known)):
                yield plain(values)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise PalavraError(
            f"{name} cannot be read as an Arrow table ({str(error).splitlines()[0]}): let each column have one type "
            "and a name of its own"
        ) from None


def _of_interchange(data: InterchangeFrame, names: Iterable[object] | None, name: str) -> Iterator[dict[str, Any]]:
    from pyarrow.interchange import from_dataframe

    try:
        table = from_dataframe(data)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        raise PalavraError(f"{name} cannot be read as a data frame ({str(error).splitlines()[0]})") from None
    return _of_arrow(table, names, name)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays as lists, NaN and other missing values as None, other things as text."""
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, pa.Scalar):
        return plain(value.as_py())
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas, which need not be installed
        return None
    return value.isoformat() if isinstance(value, date) else str(value)


def class_names(features: object) -> dict[str, list[str]]:
    """Return column -> names of its classes, for the columns of class numbers or of lists of them, from `features` as
    the `datasets` library describes them."""
    found = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        inner = inner[0] if isinstance(inner, list) and inner else inner
        names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(each, str) for each in names):
            found[name] = names
    return found


def with_class_names(values: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a record with the names of its class numbers in their place."""
    return {name: _class_name(value, names[name]) if name in names else value for name, value in values.items()}


def _class_name(value: Any, names: list[str]) -> Any:
    """The name of a class number, or of each in a list; -1, which stands for none, is None."""
    if isinstance(value, list):
        return [_class_name(each, names) for each in value]
    if isinstance(value, int) and -1 <= value < len(names):
        return None if value == -1 else names[value]
    return value
