"""From planned pieces to packed token arrays, in one of two framings.

A model that reads both ways is used on whole sequences, so it is trained on [CLS] piece [SEP], whatever the piece was
cut from. A model that reads from left to right is used from the beginning of a text on, until it says that the text
ends; so [CLS] stands where a document begins, [SEP] follows where one ends, and at a cut there is neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from palavra.data.packing import Cursor, Int64Array, Packer, Pieces


class DocumentTokens(Protocol):
    """Tokenized documents on disk; see `shards`."""

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each document."""

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> npt.NDArray[np.integer]:
        """The tokens of many pieces, end to end."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One micro-batch before its objective: `input_ids` (N,) int64 and `lengths` (S,) int64 of its sequences,
    special tokens included; `pieces` says which parts of the documents of `text` they are; `cursor` stands right after
    them. Each sequence is [CLS] piece [SEP]."""

    input_ids: Int64Array
    lengths: Int64Array
    pieces: Pieces
    cursor: Cursor
    text: DocumentTokens

    @property
    def documents(self) -> Int64Array:
        """The document of each sequence (S,)."""
        return self.pieces.document


@dataclass(frozen=True, kw_only=True)
class Opened(Packed):
    """The same to be read from left to right: [CLS] stands only where a document begins, and nothing closes.

    `following` (S,) int64 is the token after each sequence in its document, [SEP] at the document's end. `pieces` count
    the [CLS] as the first token of a document where `assemble_opened` made them.
    """

    following: Int64Array


def assemble(documents: DocumentTokens, pieces: Pieces, cls_id: int, sep_id: int, cursor: Cursor) -> Packed:
    """[CLS] piece [SEP] for every piece, end to end."""
    lengths = pieces.lengths + 2
    ends = np.cumsum(lengths)
    input_ids = np.empty(int(ends[-1]), dtype=np.int64)
    inside = np.ones(len(input_ids), dtype=bool)
    inside[ends - lengths] = inside[ends - 1] = False
    input_ids[inside] = documents.gather(pieces.document, pieces.start, pieces.stop)
    input_ids[ends - lengths], input_ids[ends - 1] = cls_id, sep_id
    return Packed(input_ids=input_ids, lengths=lengths, pieces=pieces, cursor=cursor, text=documents)


def assemble_opened(documents: DocumentTokens, pieces: Pieces, cls_id: int, sep_id: int, cursor: Cursor) -> Opened:
    """The pieces of documents with [CLS] in front, end to end; `pieces` count it as each document's first token."""
    lengths = pieces.lengths
    opening = pieces.start == 0
    input_ids = np.empty(int(lengths.sum()), dtype=np.int64)
    inside = np.ones(len(input_ids), dtype=bool)
    first = (np.cumsum(lengths) - lengths)[opening]
    input_ids[first], inside[first] = cls_id, False
    input_ids[inside] = documents.gather(pieces.document, np.maximum(pieces.start - 1, 0), pieces.stop - 1)
    return Opened(
        input_ids=input_ids, lengths=lengths, pieces=pieces, cursor=cursor, text=documents,
        following=_following(documents, pieces.document, pieces.stop - 1, sep_id),
    )  # fmt: skip


def opened(packed: Packed) -> Opened:
    """A micro-batch of [CLS] piece [SEP] to be read from left to right: without any [SEP], and with [CLS] only where a
    document begins. The one that is so already is returned as it is."""
    if isinstance(packed, Opened):
        return packed
    ends = np.cumsum(packed.lengths)
    cut = packed.pieces.start > 0
    kept = np.ones(len(packed.input_ids), dtype=bool)
    kept[ends - 1] = kept[(ends - packed.lengths)[cut]] = False
    same = {field.name: getattr(packed, field.name) for field in fields(packed)}
    same |= {"input_ids": packed.input_ids[kept], "lengths": packed.lengths - 1 - cut}
    sep_id = int(packed.input_ids[-1])
    return Opened(**same, following=_following(packed.text, packed.documents, packed.pieces.stop, sep_id))


def _following(documents: DocumentTokens, document: Int64Array, place: Int64Array, sep_id: int) -> Int64Array:
    """(S,) int64: the token at `place` of each document, `sep_id` where it ends there."""
    found = np.full(len(document), sep_id, dtype=np.int64)
    inside = place < documents.lengths[document]
    if inside.any():
        found[inside] = documents.gather(document[inside], place[inside], place[inside] + 1)
    return found


class Assemble(Protocol):
    """How pieces become a micro-batch."""

    def __call__(
        self, documents: DocumentTokens, pieces: Pieces, cls_id: int, sep_id: int, cursor: Cursor
    ) -> Packed: ...  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpecialTokenTemplate:
    """What stands around text: `special` tokens around every piece, `opening` ones before the first of each document.
    `assemble` puts them there, but for the one more in the middle where an objective makes two of a piece."""

    assemble: Assemble
    special: int = 0
    opening: int = 0

    def framed(self, lengths: Int64Array) -> Int64Array:
        """How long documents (documents,) are for the packer: with their opening, if there is anything to open."""
        return np.where(lengths > 0, lengths + self.opening, 0)


ENCLOSED = SpecialTokenTemplate(assemble=assemble, special=2)
OPENED = SpecialTokenTemplate(assemble=assemble_opened, opening=1)


def load(
    documents: DocumentTokens,
    packer: Packer,
    cls_id: int,
    sep_id: int,
    cursor: Cursor | None = None,
    rank: int = 0,
    ranks: int = 1,
    template: SpecialTokenTemplate = ENCLOSED,
) -> Iterator[Packed]:
    """Endless packed micro-batches from `cursor` on. Of every `ranks` consecutive ones, the `rank`-th.

    The `packer` plans for documents as long as `template` makes them.

    Every rank plans all batches (which costs little) and reads only its own, so the ranks need not talk. The
    cursor stands after the batches of all ranks, so it is the same for all of them.
    """
    planned = packer.batches(cursor)
    while True:
        together = list(islice(planned, ranks))
        yield template.assemble(documents, together[rank][0], cls_id, sep_id, together[-1][1])
