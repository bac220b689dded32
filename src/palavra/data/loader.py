"""Planned pieces as packed token arrays, with special tokens as one of two templates places them.

A bidirectional model is used on whole sequences, so it is trained on [CLS] piece [SEP], wherever the piece was cut. A
causal model reads from the beginning of a text until it predicts that the text ends, so it is trained with [CLS] where
a document begins and [SEP] as the target where one ends; a cut gets neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from palavra.data.packing import Cursor, Int64Array, Packer, Pieces


class DocumentTokens(Protocol):
    """Tokenized documents on disk; see `corpus.StoredDocuments`."""

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each document."""

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> npt.NDArray[np.integer]:
        """Return the tokens of many pieces, end to end."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One micro-batch before its objective.

    `input_ids` (N,) int64; `lengths` (S,) int64 of its sequences, special tokens included. `pieces`: the parts of the
    documents of `text` that they are; `cursor`: the state of the stream right after them. Each sequence is [CLS] piece
    [SEP].
    """

    input_ids: Int64Array
    lengths: Int64Array
    pieces: Pieces
    cursor: Cursor
    text: DocumentTokens

    @property
    def documents(self) -> Int64Array:
        """The document of each sequence, (S,)."""
        return self.pieces.document


@dataclass(frozen=True, kw_only=True)
class CausalPacked(Packed):
    """A micro-batch for a causal model: [CLS] only where a document begins, no [SEP].

    `following` (S,) int64: the token after each sequence in its document, [SEP] at the document's end. If
    `assemble_causal` made it, `pieces` count the [CLS] as the first token of a document.
    """

    following: Int64Array


def assemble(documents: DocumentTokens, pieces: Pieces, cls_id: int, sep_id: int, cursor: Cursor) -> Packed:
    """Return [CLS] piece [SEP] for every piece, end to end."""
    lengths = pieces.lengths + 2
    ends = np.cumsum(lengths)
    input_ids = np.empty(int(ends[-1]), dtype=np.int64)
    inside = np.ones(len(input_ids), dtype=bool)
    inside[ends - lengths] = inside[ends - 1] = False
    input_ids[inside] = documents.gather(pieces.document, pieces.start, pieces.stop)
    input_ids[ends - lengths], input_ids[ends - 1] = cls_id, sep_id
    return Packed(input_ids=input_ids, lengths=lengths, pieces=pieces, cursor=cursor, text=documents)


def assemble_causal(
    documents: DocumentTokens, pieces: Pieces, cls_id: int, sep_id: int, cursor: Cursor
) -> CausalPacked:  # fmt: skip
    """Return pieces of [CLS] document, end to end; `pieces` count the [CLS] as each document's first token."""
    lengths = pieces.lengths
    opening = pieces.start == 0
    input_ids = np.empty(int(lengths.sum()), dtype=np.int64)
    inside = np.ones(len(input_ids), dtype=bool)
    first = (np.cumsum(lengths) - lengths)[opening]
    input_ids[first], inside[first] = cls_id, False
    input_ids[inside] = documents.gather(pieces.document, np.maximum(pieces.start - 1, 0), pieces.stop - 1)
    return CausalPacked(
        input_ids=input_ids, lengths=lengths, pieces=pieces, cursor=cursor, text=documents,
        following=_following(documents, pieces.document, pieces.stop - 1, sep_id),
    )  # fmt: skip


def as_causal(packed: Packed) -> CausalPacked:
    """Convert a micro-batch of [CLS] piece [SEP] for a causal model; one that is causal already is returned as is."""
    if isinstance(packed, CausalPacked):
        return packed
    ends = np.cumsum(packed.lengths)
    cut = packed.pieces.start > 0
    kept = np.ones(len(packed.input_ids), dtype=bool)
    kept[ends - 1] = kept[(ends - packed.lengths)[cut]] = False
    same = {field.name: getattr(packed, field.name) for field in fields(packed)}
    same |= {"input_ids": packed.input_ids[kept], "lengths": packed.lengths - 1 - cut}
    sep_id = int(packed.input_ids[-1])
    return CausalPacked(**same, following=_following(packed.text, packed.documents, packed.pieces.stop, sep_id))


def _following(documents: DocumentTokens, document: Int64Array, place: Int64Array, sep_id: int) -> Int64Array:
    """Return the token at `place` of each document, or `sep_id` where the document ends, (S,) int64."""
    found = np.full(len(document), sep_id, dtype=np.int64)
    inside = place < documents.lengths[document]
    if inside.any():
        found[inside] = documents.gather(document[inside], place[inside], place[inside] + 1)
    return found


@dataclass(frozen=True, kw_only=True)
class SpecialTokenTemplate:
    """Where special tokens are placed: `special` around every piece, `opening` before each document.

    `assemble` places them, but for the one more in the middle of a piece that an objective divides in two.
    """

    assemble: Callable[[DocumentTokens, Pieces, int, int, Cursor], Packed]
    special: int = 0
    opening: int = 0

    def framed(self, lengths: Int64Array) -> Int64Array:
        """Return the lengths of documents for the packer: with their opening, unless they are empty."""
        return np.where(lengths > 0, lengths + self.opening, 0)


MASKED_TEMPLATE = SpecialTokenTemplate(assemble=assemble, special=2)
CAUSAL_TEMPLATE = SpecialTokenTemplate(assemble=assemble_causal, opening=1)


def packed_batches(
    documents: DocumentTokens,
    packer: Packer,
    cls_id: int,
    sep_id: int,
    cursor: Cursor | None = None,
    rank: int = 0,
    ranks: int = 1,
    template: SpecialTokenTemplate = MASKED_TEMPLATE,
) -> Iterator[Packed]:
    """Yield micro-batches without end, from `cursor` on: the `rank`-th of every `ranks` consecutive ones.

    The `packer` plans for documents as long as `template` makes them. Every rank plans all batches, which costs little,
    and reads only its own, so ranks need not communicate. The cursor stands after the batches of all ranks and is the
    same for all of them.
    """
    planned = packer.batches(cursor)
    while True:
        together = list(islice(planned, ranks))
        yield template.assemble(documents, together[rank][0], cls_id, sep_id, together[-1][1])
