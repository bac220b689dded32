"""A micro-batch of causal and bidirectional sequences."""

from dataclasses import dataclass, replace

import numpy as np

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.data.packing import Int64Array


@dataclass(frozen=True, kw_only=True)
class ObjectiveBatch(Batch):
    """The sequences of one kind, `causal` or not; `weight` of the loss of each label."""

    causal: bool
    weight: float


@dataclass(frozen=True)
class HybridBatch:
    """The non-empty `parts` of a micro-batch, the causal one first."""

    parts: tuple[ObjectiveBatch, ...]


def part_of(batch: Batch, *, causal: bool, weight: float) -> ObjectiveBatch:
    """Return a batch as the part of one kind."""
    return ObjectiveBatch(**vars(batch), causal=causal, weight=weight)


def parted(packed: Packed, fraction: float, random: np.random.Generator) -> tuple[Packed | None, Packed | None]:
    """Split the sequences of a micro-batch into two parts, the first with `fraction` of them; an empty part is None.

    The first part starts at a random sequence and continues cyclically in the packer's order, so that each sequence is
    in it equally often and most packed rows stay whole. The number of sequences is rounded stochastically. A fraction
    of 0 or 1 draws nothing from `random`.
    """
    if fraction in (0, 1):
        return (packed, None) if fraction else (None, packed)
    count = int(fraction * len(packed.lengths) + random.random())
    begin = int(random.integers(len(packed.lengths)))
    order = np.roll(np.arange(len(packed.lengths)), -begin)
    input_ids = np.roll(packed.input_ids, -int(packed.lengths[:begin].sum()))
    cut = int(packed.lengths[order[:count]].sum())

    def part(ids: Int64Array, chosen: Int64Array) -> Packed | None:
        if not len(chosen):
            return None
        return replace(packed, input_ids=ids, lengths=packed.lengths[chosen], pieces=packed.pieces[chosen])

    return part(input_ids[:cut], order[:count]), part(input_ids[cut:], order[count:])
