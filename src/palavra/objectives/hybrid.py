"""One micro-batch of two kinds of sequences: those read from left to right, and those read both ways."""

from dataclasses import dataclass, replace

import numpy as np

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.data.packing import Int64Array


@dataclass(frozen=True, kw_only=True)
class ObjectiveBatch(Batch):
    """The sequences of one kind, read from left to right only (`causal`) or both ways; `weight` of a label's loss."""

    causal: bool
    weight: float


@dataclass(frozen=True)
class HybridBatch:
    """The `parts` of a micro-batch that there are, the causal one first."""

    parts: tuple[ObjectiveBatch, ...]


def part_of(batch: Batch, *, causal: bool, weight: float) -> ObjectiveBatch:
    """A batch as the part of one kind."""
    return ObjectiveBatch(**vars(batch), causal=causal, weight=weight)


def parted(packed: Packed, share: float, random: np.random.Generator) -> tuple[Packed | None, Packed | None]:
    """The sequences of a micro-batch in two parts, the first with `share` of them; None is a part without any.

    The first part begins at a random sequence and goes on in the packer's order, past the end at the beginning: so each
    sequence is in it as often as any other, and most rows that the packer filled stay together. What `share` leaves
    of a sequence is rounded at random. A share of 0 or 1 draws nothing from `random`.
    """
    if share in (0, 1):
        return (packed, None) if share else (None, packed)
    count = int(share * len(packed.lengths) + random.random())
    begin = int(random.integers(len(packed.lengths)))
    order = np.roll(np.arange(len(packed.lengths)), -begin)
    input_ids = np.roll(packed.input_ids, -int(packed.lengths[:begin].sum()))
    cut = int(packed.lengths[order[:count]].sum())

    def part(ids: Int64Array, chosen: Int64Array) -> Packed | None:
        if not len(chosen):
            return None
        return replace(packed, input_ids=ids, lengths=packed.lengths[chosen], pieces=packed.pieces[chosen])

    return part(input_ids[:cut], order[:count]), part(input_ids[cut:], order[count:])
