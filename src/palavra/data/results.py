"""The files that `palavra embed` and `palavra evaluate --predictions` write, known by how they begin."""

import contextlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_STRING = r'"(?:[^"\\]|\\.)*+"'
_FIRST_LINE = re.compile(
    rf'\{{"text": {_STRING}, ("vector": \[-?[0-9]|"tokens": \[(\{{"start": [0-9]+, "end": [0-9]+, "vector"|\]))'
    rf'|\{{"where": {_STRING}, "gold": '
)
_READ = 1 << 16  # bytes; the first text is seldom longer


def is_result(path: Path) -> bool:
    """Return whether a file holds embeddings or predictions in the form in which Palavra writes them."""
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        if not path.is_file():
            return False
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                return _FIRST_LINE.match(file.read(_READ).decode("utf-8", "ignore")) is not None
        if path.suffix == ".parquet":
            schema = pq.read_schema(path)
            own = (["text", "vector"], ["text", "number", "start", "end", "vector"])
            return schema.names in own and pa.types.is_fixed_size_list(schema.field("vector").type)
    return False
