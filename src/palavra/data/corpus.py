"""Prepared text: the memory-mapped token ids of all documents, checked before use."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from palavra.data.manifest import Manifest, ShardFile
from palavra.errors import PalavraError
from palavra.files import sha256_of_file

Int64Array = npt.NDArray[np.int64]
Ids = npt.NDArray[np.unsignedinteger[Any]]

_COUNTED_AT_ONCE = 1 << 22  # tokens


def id_type(vocab_size: int) -> Any:
    """Return the Arrow type of token ids: uint16 if the vocabulary fits, else uint32."""
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()


def schema(vocab_size: int) -> Any:
    """Return the Arrow schema: for each document its token ids, content hash, file and line."""
    ids, names = pa.list_(id_type(vocab_size)), pa.dictionary(pa.int32(), pa.string())
    return pa.schema([("input_ids", ids), ("hash", pa.uint64()), ("file", names), ("line", pa.uint32())])


class StoredDocuments:
    """One side of the split: tokenized documents on disk, numbered from 0 and loaded on access.

    `dtype` is that of the ids, uint16 or uint32.
    """

    def __init__(self, batches: Sequence[Any], dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._batches = list(batches)
        columns = [batch.column("input_ids") for batch in batches]
        self._ids: list[Ids] = [column.values.to_numpy(zero_copy_only=True) for column in columns]
        self._offsets: list[npt.NDArray[np.int32]] = [
            column.offsets.to_numpy(zero_copy_only=True) for column in columns
        ]
        self._ends = np.cumsum([len(column) for column in columns], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @cached_property
    def lengths(self) -> Int64Array:
        """Tokens of each document, (documents,) int64."""
        return np.concatenate([np.empty(0, np.int64), *(np.diff(offsets) for offsets in self._offsets)])

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The 64-bit content hash of each document's text, (documents,) uint64."""
        columns = [batch.column("hash").to_numpy(zero_copy_only=True) for batch in self._batches]
        return np.concatenate([np.empty(0, np.uint64), *columns])

    def where(self, index: int) -> str:
        """Return "file:line" of a document."""
        shard, row = self._place(index)
        batch = self._batches[shard]
        return f"{batch.column('file')[row].as_py()}:{batch.column('line')[row].as_py()}"

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> Ids:
        """Return the tokens `start` to `stop` (by default the end) of a document, as a read-only view."""
        shard, row = self._place(index)
        first, end = self._offsets[shard][row : row + 2].tolist()
        return self._ids[shard][first:end][start:stop]

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> Ids:
        """Return the tokens `starts` to `stops` of the documents `indices`, end to end, (sum of stops - starts,)."""
        if not len(indices):
            return np.empty(0, self.dtype)
        if np.any((starts < 0) | (starts > stops) | (stops > self.lengths[indices])):
            raise IndexError("a piece reaches beyond its document")
        shards = np.searchsorted(self._ends, indices, side="right")
        rows = indices - np.concatenate([[0], self._ends])[shards]
        places = zip(shards.tolist(), rows.tolist(), starts.tolist(), stops.tolist(), strict=True)
        ids, offsets = self._ids, self._offsets
        pieces = []
        for shard, row, start, stop in places:
            first = int(offsets[shard][row])
            pieces.append(ids[shard][first + start : first + stop])
        return np.concatenate(pieces)

    def token_counts(self, vocab_size: int) -> Int64Array:
        """Return how often each id occurs, (vocab_size,) int64, counted as a stream."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for ids in self._ids:
            for start in range(0, len(ids), _COUNTED_AT_ONCE):
                counts += np.bincount(ids[start : start + _COUNTED_AT_ONCE], minlength=vocab_size)
        return counts

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - (int(self._ends[shard - 1]) if shard else 0)


@dataclass(frozen=True)
class Corpus:
    """A prepared folder that was checked: its `train` and `valid` documents and its `manifest`."""

    manifest: Manifest
    train: StoredDocuments
    valid: StoredDocuments

    @classmethod
    def open(
        cls, directory: Path | str, tokenizer_fingerprint: str, *, verify: Literal["hash", "size"] = "hash"
    ) -> "Corpus":
        """Open a prepared folder. Raises `PalavraError` that names the shard and what is wrong with it.

        `verify` "hash" reads every byte: hashes must match the manifest, and ids must be in the vocabulary. "size" only
        checks file sizes, shapes and offsets, for a folder that was just checked.
        """
        directory = Path(directory)
        manifest = Manifest.read(directory)
        if manifest.tokenizer != tokenizer_fingerprint:
            raise PalavraError(
                f"{directory}: prepared with another tokenizer ({manifest.tokenizer[:12]}, "
                f"not {tokenizer_fingerprint[:12]}); prepare the text again, in another folder"
            )
        dtype = id_type(manifest.vocab_size).to_pandas_dtype()
        train, valid = (
            StoredDocuments(
                [open_part(directory, part, manifest.vocab_size, verify) for part in manifest.parts(split)], dtype
            )
            for split in ("train", "valid")
        )
        return cls(manifest, train, valid)


def is_intact(directory: Path, part: ShardFile, verify: Literal["hash", "size"]) -> bool:
    """Return whether the file of `part` exists with the right size and, for "hash", the right content."""
    path = directory / part.file
    if not path.is_file() or path.stat().st_size != part.bytes:
        return False
    return verify == "size" or sha256_of_file(path) == part.sha256


def open_part(directory: Path, part: ShardFile, vocab_size: int, verify: Literal["hash", "size"]) -> Any:
    """Memory-map the record batch of a shard's file. Raises `PalavraError` unless it is as `part` says."""
    path = directory / part.file
    if not is_intact(directory, part, verify):
        raise PalavraError(f"{path}: missing, or its content is not what manifest.json says; prepare the text again")
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            good = reader.num_record_batches == 1 and reader.schema.equals(schema(vocab_size))
            batch = reader.get_batch(0) if good else None
        if batch is not None:
            batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise PalavraError(f"{path}: not a readable shard ({error}); prepare the text again") from None
    if batch is None or not _fits(batch, part, vocab_size, verify):
        raise PalavraError(f"{path}: not a shard of the shape manifest.json says; prepare the text again")
    return batch


def _fits(batch: Any, part: ShardFile, vocab_size: int, verify: Literal["hash", "size"]) -> bool:
    column = batch.column("input_ids")
    ids = column.values
    if batch.num_rows != part.documents or len(ids) != part.tokens or column.offset or ids.offset:
        return False
    if ids.null_count or any(each.null_count for each in batch.columns):
        return False
    return verify == "size" or not len(ids) or int(pc.max(ids).as_py()) < vocab_size
