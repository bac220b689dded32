"""Write embeddings to files that other programs read."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from palavra.errors import PalavraError
from palavra.inference.embedding import Embedding, Pooling
from palavra.output import check_no_input
from palavra.typed_json import json_text

SUFFIXES = (".npy", ".parquet", ".jsonl")


def check_target(path: Path, pooling: Pooling | None, inputs: Iterable[str | Path] = ()) -> None:
    """Raise PalavraError, before any work, for a file that these embeddings cannot be written to, or that is one of the
    `inputs` (see `check_no_input`)."""
    check_no_input(path, inputs, "--out")
    if path.suffix not in SUFFIXES:
        raise PalavraError(f"{path}: embeddings are written as {', '.join(SUFFIXES)}: choose one of these endings")
    if path.suffix == ".npy" and pooling == "token":
        raise PalavraError(f"{path}: one vector a token makes no single array: use .parquet or .jsonl")


def as_json(embeddings: Sequence[Embedding]) -> Iterator[dict[str, object]]:
    """Yield a JSON object for each text: its text and vector, or its tokens with their offsets and vectors."""
    for found in embeddings:
        if found.vectors.ndim == 1:
            content: dict[str, object] = {"vector": _numbers(found.vectors)}
        else:
            tokens = zip(found.offsets, found.vectors, strict=True)
            content = {"tokens": [{"start": at, "end": end, "vector": _numbers(own)} for (at, end), own in tokens]}
        yield {"text": found.text, **content}


def _numbers(vector: npt.NDArray[np.float32]) -> list[float]:
    # Nine significant digits give every float32 back exactly.
    return [float(f"{value:.9g}") for value in vector.tolist()]


def write_embeddings(chunks: Iterable[Sequence[Embedding]], path: Path, suffix: str) -> None:
    """Write to a file in the format of a file name's ending, holding one list of embeddings at a time.

    `.npy` (texts, D) float32 in the order of the texts; `.parquet` text and vector columns (and one row a token
    with `start` and `end` where vectors are per token), a row group a list; `.jsonl` as `as_json`.
    """
    writers = {".npy": _write_array, ".parquet": _write_parquet, ".jsonl": _write_lines}
    with path.open("wb") as file:
        writers[suffix](chunks, file)


def _write_array(chunks: Iterable[Sequence[Embedding]], file: IO[bytes]) -> None:
    """The number of rows is known at the end: the header, in which numpy leaves room for it, is written twice."""
    rows = width = 0
    for chunk in chunks:
        vectors = np.stack([found.vectors for found in chunk]).astype("<f4")
        if not rows:
            width = vectors.shape[1]
            _write_header(file, 0, width)
        file.write(vectors.tobytes())
        rows += len(vectors)
    file.seek(0)
    _write_header(file, rows, width)


def _write_header(file: IO[bytes], rows: int, width: int) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})


def _write_parquet(chunks: Iterable[Sequence[Embedding]], file: IO[bytes]) -> None:
    writer = None
    done = 0
    try:
        for chunk in chunks:
            table = _table(chunk, done)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            done += len(chunk)
    finally:
        if writer is not None:
            writer.close()


def _write_lines(chunks: Iterable[Sequence[Embedding]], file: IO[bytes]) -> None:
    for chunk in chunks:
        for content in as_json(chunk):
            file.write(f"{json_text(content)}\n".encode())


def _table(embeddings: Sequence[Embedding], first: int) -> pa.Table:
    """The rows of some embeddings, of which the first has the number `first`."""
    width = embeddings[0].vectors.shape[-1]
    if embeddings[0].vectors.ndim == 1:
        vectors = [found.vectors for found in embeddings]
        return pa.table({"text": [found.text for found in embeddings], "vector": _vectors(vectors, width)})
    rows = [(i, found, j) for i, found in enumerate(embeddings, first) for j in range(len(found.offsets))]
    columns = {
        "text": pa.array([found.text for _, found, _ in rows], pa.string()),
        "number": pa.array([i for i, _, _ in rows], pa.int64()),
        "start": pa.array([found.offsets[j][0] for _, found, j in rows], pa.int64()),
        "end": pa.array([found.offsets[j][1] for _, found, j in rows], pa.int64()),
        "vector": _vectors([found.vectors for found in embeddings], width),
    }
    return pa.table(columns)


def _vectors(vectors: Sequence[npt.NDArray[np.float32]], width: int) -> pa.FixedSizeListArray:
    """All vectors of texts (D,) or of their tokens (L, D), a row each."""
    flat = np.concatenate([each.reshape(-1) for each in vectors])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width)
