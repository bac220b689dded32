"""Settling a split of which the hashes leave one side without documents."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from palavra.data.corpus import open_part
from palavra.data.manifest import SPLITS, Shard, Side
from palavra.data.writing import write_part

Hashes = npt.NDArray[np.uint64]


def settle(
    directory: Path, vocab_size: int, shards: list[Shard], pieces: Mapping[int, int], valid_fraction: float
) -> list[str]:
    """Move documents to an empty side of the split, rewriting their `shards`; return warnings. `pieces`: for pieces of
    long documents, hash of the piece -> hash of the first piece."""
    empty = [side for side in SPLITS if not any(shard.parts(side) for shard in shards)]
    if not empty:
        return []
    full: Side = "valid" if empty == ["train"] else "train"
    found = [part for shard in shards for part in shard.parts(full)]
    columns = [open_part(directory, part, vocab_size, "size").column("hash").to_numpy() for part in found]
    hashes = np.unique(np.concatenate(columns))
    wholes = np.array([pieces.get(hash, hash) for hash in hashes.tolist()], dtype=np.uint64)
    if wholes.min() < wholes.max():
        if full == "valid":
            _move(directory, vocab_size, shards, hashes[wholes == wholes.max()], "valid", "train")
            return []
        where = _move(directory, vocab_size, shards, hashes[wholes == wholes.min()], "train", "valid")
        return [f"the split left no document for validation, so the one at {where} is held out"]
    count = min(max(1, int(valid_fraction * len(hashes))), len(hashes) - 1)
    moved = hashes[count:] if full == "valid" else hashes[:count]
    _move(directory, vocab_size, shards, moved, full, empty[0])
    if count:
        return [f"there is only one document, so {count:,} of the {len(hashes):,} pieces it was cut into are held out"]
    return [
        "there is only one document, so none is held out for validation; give more, or make documents of the "
        "lines of a .txt (--lines) or of its paragraphs (--documents=blank-line)"
    ]


def _move(directory: Path, vocab_size: int, shards: list[Shard], hashes: Hashes, source: Side, target: Side) -> str:
    """Move documents to the empty side of the split; return where the first of them came from."""
    where = ""
    for number, shard in enumerate(shards):
        for part in shard.parts(source):
            batch = open_part(directory, part, vocab_size, "size")
            moved = pc.is_in(batch.column("hash"), value_set=pa.array(hashes))
            if not pc.any(moved).as_py():
                continue
            rows = {target: batch.filter(moved), source: batch.filter(pc.invert(moved))}
            first = rows[target]
            where = where or f"{first.column('file')[0].as_py()}:{first.column('line')[0].as_py()}"
            parts = {split: write_part(directory, split, number, rows[split]) for split in (target, source)}
            shards[number] = replace(shard, settled=True, train=parts["train"], valid=parts["valid"])
    return where
