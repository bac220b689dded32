"""From planned pieces to packed token arrays: the documents' tokens with [CLS] and [SEP] around each piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from palavra.data.packing import Cursor, Int64Array, Packer, Pieces


class Documents(Protocol):
    """Tokenized documents on disk; see `shards`."""

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> npt.NDArray[np.unsignedinteger]:
        """The tokens of many pieces, end to end."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One micro-batch before its objective: `input_ids` (N,) int64 and `lengths` (S,) int64 of its sequences,
    special tokens included; `pieces` says which documents they are; `cursor` stands right after them."""

    input_ids: Int64Array
    lengths: Int64Array
    pieces: Pieces
    cursor: Cursor

    @property
    def documents(self) -> Int64Array:
        """The document of each sequence (S,)."""
        return self.pieces.document


def assemble(documents: Documents, pieces: Pieces, cls_id: int, sep_id: int, cursor: Cursor) -> Packed:
    """[CLS] piece [SEP] for every piece, end to end."""
    lengths = pieces.lengths + 2
    ends = np.cumsum(lengths)
    input_ids = np.empty(int(ends[-1]), dtype=np.int64)
    inside = np.ones(len(input_ids), dtype=bool)
    inside[ends - lengths] = inside[ends - 1] = False
    input_ids[inside] = documents.gather(pieces.document, pieces.start, pieces.stop)
    input_ids[ends - lengths], input_ids[ends - 1] = cls_id, sep_id
    return Packed(input_ids=input_ids, lengths=lengths, pieces=pieces, cursor=cursor)


def load(
    documents: Documents,
    packer: Packer,
    cls_id: int,
    sep_id: int,
    cursor: Cursor | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Packed]:
    """Endless packed micro-batches from `cursor` on. Of every `ranks` consecutive ones, the `rank`-th.

    Every rank plans all batches (which costs little) and reads only its own, so the ranks need not talk. The
    cursor stands after the batches of all ranks, so it is the same for all of them.
    """
    planned = packer.batches(cursor)
    while True:
        together = list(islice(planned, ranks))
        yield assemble(documents, together[rank][0], cls_id, sep_id, together[-1][1])
