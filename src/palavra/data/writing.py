"""Writing shards: documents are gathered in memory, then written as one Arrow file for each side of the split."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from palavra.data.corpus import Int64Array, id_type, schema
from palavra.data.manifest import SPLITS, Shard, ShardFile, Side
from palavra.data.sources import Document
from palavra.files import atomic_path, sha256_of_file


def held_out(wholes: npt.NDArray[np.uint64], fraction: float) -> npt.NDArray[np.bool_]:
    """Return which documents are for validation: those whose hash (of the whole) is in the first `fraction` of all."""
    mask: npt.NDArray[np.bool_] = wholes < np.uint64(int(fraction * 2**64))
    return mask


class ShardBuilder:
    """The documents of a shard in the making, in memory; `valid_fraction` of them are held out."""

    def __init__(self, vocab_size: int, valid_fraction: float) -> None:
        self._valid_fraction = valid_fraction
        self.tokens = self.read = self.blank = 0
        self.digest = hashlib.blake2b(digest_size=16)
        self._schema = schema(vocab_size)
        self._dtype = np.dtype(id_type(vocab_size).to_pandas_dtype())
        self._ids: list[npt.NDArray[Any]] = []
        self._lengths: list[Int64Array] = []
        self._held_out: list[npt.NDArray[np.bool_]] = []
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._files: dict[str, int] = {}
        self._places: list[npt.NDArray[np.uint32]] = []

    def add(self, batch: list[Document], ids: npt.NDArray[np.uint32], lengths: Int64Array) -> None:
        """Add documents with their ids (N,) end to end and their lengths (documents,)."""
        hashes = np.fromiter((document.hash for document in batch), dtype=np.uint64, count=len(batch))
        wholes = np.fromiter((document.whole for document in batch), dtype=np.uint64, count=len(batch))
        self.digest.update(np.stack([hashes, wholes], axis=1).astype(">u8").tobytes())
        self.read += len(batch)
        self.blank += int((lengths == 0).sum())
        self.tokens += len(ids)
        self._ids.append(ids.astype(self._dtype))
        self._lengths.append(lengths)
        self._held_out.append(held_out(wholes, self._valid_fraction))
        self._hashes.append(hashes)
        places = [(self._files.setdefault(each.file, len(self._files)), each.line) for each in batch]
        self._places.append(np.array(places, dtype=np.uint32))

    def batch(self, split: Side) -> Any:
        """Return one side of the split, without blank documents, as an Arrow record batch."""
        lengths = np.concatenate(self._lengths)
        held_out = np.concatenate(self._held_out)
        side = held_out if split == "valid" else ~held_out
        ids = np.concatenate(self._ids)[np.repeat(side, lengths)]
        wanted = side & (lengths > 0)
        offsets = np.concatenate([[0], np.cumsum(lengths[wanted])]).astype(np.int32)
        files, lines = np.concatenate(self._places)[wanted].T
        columns = [
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids)),
            pa.array(np.concatenate(self._hashes)[wanted]),
            pa.DictionaryArray.from_arrays(files.astype(np.int32), list(self._files)),
            pa.array(lines),
        ]
        return pa.record_batch(columns, schema=self._schema)


def write_shard(directory: Path, number: int, rows: ShardBuilder) -> Shard:
    """Write the files of a shard."""
    parts = {split: write_part(directory, split, number, rows.batch(split)) for split in SPLITS}
    return Shard(read=rows.read, digest=rows.digest.hexdigest(), blank=rows.blank, settled=False, **parts)


def write_part(directory: Path, split: Side, number: int, batch: Any) -> ShardFile | None:
    """Write a record batch as an Arrow file; return None, and write no file, for a batch without rows."""
    path = directory / f"{split}-{number:05d}.arrow"
    if not batch.num_rows:
        path.unlink(missing_ok=True)
        return None
    with atomic_path(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        digest, size = sha256_of_file(temporary), temporary.stat().st_size
    lengths = np.diff(batch.column("input_ids").offsets.to_numpy())
    return ShardFile(
        file=path.name, documents=batch.num_rows, tokens=int(lengths.sum()), longest=int(lengths.max()), bytes=size,
        sha256=digest,
    )  # fmt: skip
