"""One batch of two kinds of sequences, those read from left to right first: joined before a step, cut again in it."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.data.packing import Int64Array
from palavra.model.attention import Layout, cut_layout


@dataclass(frozen=True, kw_only=True)
class HybridBatch(Batch):
    """A batch whose first `causal_sequences`, with the first `causal_labels` labels, are read from left to right, and
    the others both ways; a label of the first kind has `causal_weight` in the loss, one of the second
    `masked_weight`."""

    causal_sequences: int
    causal_labels: int
    causal_weight: float
    masked_weight: float


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


def joined(causal: Batch | None, masked: Batch | None, *, causal_weight: float, masked_weight: float) -> HybridBatch:
    """Both batches as one, of which at least one is there."""
    parts = [part for part in (causal, masked) if part is not None]
    before = np.cumsum([0, *(part.tokens for part in parts)]).tolist()
    ends = [part.cu_seqlens[1:] + start for part, start in zip(parts, before, strict=False)]
    return HybridBatch(
        input_ids=torch.cat([part.input_ids for part in parts]),
        position_ids=torch.cat([part.position_ids for part in parts]),
        cu_seqlens=torch.cat([parts[0].cu_seqlens[:1], *ends]),
        max_seqlen=max(part.max_seqlen for part in parts),
        label_rows=torch.cat([part.label_rows + start for part, start in zip(parts, before, strict=False)]),
        labels=torch.cat([part.labels for part in parts]),
        causal_sequences=0 if causal is None else causal.sequences,
        causal_labels=0 if causal is None else causal.labelled,
        causal_weight=causal_weight,
        masked_weight=masked_weight,
    )


Part = tuple[Batch, Layout]


def cut(batch: HybridBatch, layout: Layout) -> tuple[Part | None, Part | None]:
    """What `joined` made one, as two again, each with its own layout; None is a part without a sequence."""
    sequences, labels = batch.causal_sequences, batch.causal_labels
    if sequences in (0, batch.sequences):
        return ((batch, layout), None) if sequences else (None, (batch, layout))
    tokens = int(batch.cu_seqlens[sequences])
    first = Batch(
        input_ids=batch.input_ids[:tokens],
        position_ids=batch.position_ids[:tokens],
        cu_seqlens=batch.cu_seqlens[: sequences + 1],
        max_seqlen=batch.max_seqlen,
        label_rows=batch.label_rows[:labels],
        labels=batch.labels[:labels],
    )
    second = Batch(
        input_ids=batch.input_ids[tokens:],
        position_ids=batch.position_ids[tokens:],
        cu_seqlens=batch.cu_seqlens[sequences:] - tokens,
        max_seqlen=batch.max_seqlen,
        label_rows=batch.label_rows[labels:] - tokens,
        labels=batch.labels[labels:],
    )
    layouts = cut_layout(layout, batch.cu_seqlens, sequences)
    return (first, layouts[0]), (second, layouts[1])
