"""Writing embeddings where other programs can read them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palavra.errors import PalavraError
from palavra.files import atomic_path
from palavra.inference.embedding import Embedding, Pooling

SUFFIXES = (".npy", ".parquet", ".jsonl")


def check_target(path: Path, pooling: Pooling) -> None:
    """Raise PalavraError, before any work, for a file that these embeddings cannot be written to."""
    if path.suffix not in SUFFIXES:
        raise PalavraError(f"{path}: embeddings are written as {', '.join(SUFFIXES)}: choose one of these endings")
    if path.suffix == ".npy" and pooling == "token":
        raise PalavraError(f"{path}: one vector a token makes no single array: use .parquet or .jsonl")


def json_lines(embeddings: Sequence[Embedding]) -> Iterator[str]:
    """One JSON object a text: its text and vector, or its tokens with their offsets and vectors."""
    for found in embeddings:
        if found.vectors.ndim == 1:
            yield json.dumps({"text": found.text, "vector": _numbers(found.vectors)}, ensure_ascii=False)
            continue
        tokens = [
            {"start": start, "end": end, "vector": _numbers(vector)}
            for (start, end), vector in zip(found.offsets, found.vectors, strict=True)
        ]
        yield json.dumps({"text": found.text, "tokens": tokens}, ensure_ascii=False)


def _numbers(vector: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> list[float]:
    # Nine significant digits give every float32 back exactly.
    return [float(f"{value:.9g}") for value in vector.tolist()]


def write_embeddings(embeddings: Sequence[Embedding], path: Path) -> None:
    """Write atomically in the format of the file's ending.

    `.npy` (texts, D) float32 in the order of the texts; `.parquet` text and vector columns (and one row a token
    with `start` and `end` where vectors are per token); `.jsonl` as `json_lines`.
    """
    try:
        _write(embeddings, path)
    except OSError as error:
        raise PalavraError(f"{path} cannot be written ({error.strerror}): choose another --out") from None


def _write(embeddings: Sequence[Embedding], path: Path) -> None:
    with atomic_path(path) as temporary:
        if path.suffix == ".npy":
            with temporary.open("wb") as file:
                np.save(file, np.stack([found.vectors for found in embeddings]), allow_pickle=False)
        elif path.suffix == ".parquet":
            pq.write_table(_table(embeddings), temporary)
        else:
            temporary.write_text("".join(f"{line}\n" for line in json_lines(embeddings)), encoding="utf-8")


def _table(embeddings: Sequence[Embedding]) -> pa.Table:
    if embeddings and embeddings[0].vectors.ndim == 1:
        vectors = [found.vectors for found in embeddings]
        return pa.table({"text": [found.text for found in embeddings], "vector": _vectors(vectors)})
    rows = [(i, found, j) for i, found in enumerate(embeddings) for j in range(len(found.offsets))]
    return pa.table(
        {
            "text": [found.text for _, found, _ in rows],
            "number": [i for i, _, _ in rows],
            "start": [found.offsets[j][0] for _, found, j in rows],
            "end": [found.offsets[j][1] for _, found, j in rows],
            "vector": _vectors([found.vectors[j] for _, found, j in rows]),
        }
    )


def _vectors(vectors: Sequence["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]) -> pa.FixedSizeListArray:
    width = len(vectors[0]) if vectors else 1
    flat = np.concatenate(vectors) if vectors else np.empty(0, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width)
