"""How a packed batch is laid out for attention. A run chooses one layout.

- `ReferenceLayout`: one dense N x N mask. Slow and simple, any dtype. The others are tested against it.
- `RowsLayout`: sequences in rows of W slots. For CPUs, where batched matrix products over rows are several times faster
  than torch's fused kernels at the usual lengths.
- `VarlenLayout`: the bounds of the sequences alone. For CUDA, in half precision only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Lengths = npt.NDArray[np.integer]


class ReferenceLayout(NamedTuple):
    """`sequence` (N,) int64: the sequence of each token."""

    sequence: Tensor


class PackedRows(NamedTuple):
    """Sequences side by side in R rows of W slots; no sequence is split over rows.

    `slots` (R, W) int64: the token in each slot, 0 in empty ones. `place` (N,) int64: the slot of each token, counted
    along the rows. `sequence` (R, W) int32: the sequence of each slot, -1 for empty ones.
    """

    slots: Tensor
    place: Tensor
    sequence: Tensor


class RowsLayout(NamedTuple):
    """Sequences in the rows of `parts`, in order; each part has a width of its own."""

    parts: tuple[PackedRows, ...]

    @property
    def tokens(self) -> int:
        """Tokens in all parts."""
        return sum(len(rows.place) for rows in self.parts)


class VarlenLayout(NamedTuple):
    """`cu_seqlens` (S+1,) int32 on the device; `max_seqlen`: length of the longest sequence."""

    cu_seqlens: Tensor
    max_seqlen: int


Layout = ReferenceLayout | RowsLayout | VarlenLayout


def reference_layout(cu_seqlens: Tensor, max_seqlen: int, width: int, device: torch.device) -> ReferenceLayout:
    """Lay out a batch for the reference attention, which ignores `max_seqlen` and `width`."""
    del max_seqlen, width
    lengths = cu_seqlens.long().diff()
    return ReferenceLayout(torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(device))


def rows_layout(cu_seqlens: Tensor, max_seqlen: int, width: int, device: torch.device) -> RowsLayout:
    """Lay out a batch in rows of `width` slots, or of the length of its longest sequence if that is more.

    With a width of 0, sequences that are much longer or shorter than their neighbours get rows of their own width, in
    whole blocks: a CPU prepares its products once for each width. `max_seqlen` is ignored.
    """
    del max_seqlen
    lengths = np.diff(cu_seqlens.numpy())
    if width:
        return RowsLayout((_rows(lengths, max(width, int(lengths.max())), device),))
    runs = runs_of_like_length(lengths)
    return RowsLayout(tuple(_rows(run, whole_blocks(int(run.max()), SLOT_BLOCK), device) for run in runs))


# The width of rows without a given width, and the number of queries of a row, are multiples of this.
SLOT_BLOCK = 8


def whole_blocks(count: int, block: int) -> int:
    """Round `count` up to a multiple of `block`."""
    return -(-count // block) * block


# Attention over this many more slots takes about as long as another call.
WORTH_A_PART = 2**14


def runs_of_like_length(lengths: Lengths) -> list[Lengths]:
    """Cut the lengths (S,) of sequences, in order, into runs that are worth a part of their own. Attention costs the
    product of a run's tokens and its longest sequence."""
    tokens, longest = np.cumsum(lengths), np.maximum.accumulate
    slots = tokens[:-1] * longest(lengths)[:-1] + (tokens[-1] - tokens[:-1]) * longest(lengths[::-1])[::-1][1:]
    if len(slots) == 0 or tokens[-1] * lengths.max() - slots.min() < WORTH_A_PART:
        return [lengths]
    cut = int(slots.argmin()) + 1
    return runs_of_like_length(lengths[:cut]) + runs_of_like_length(lengths[cut:])


def _rows(lengths: Lengths, width: int, device: torch.device) -> PackedRows:
    """Lay sequences into rows, next-fit in their own order.

    The packer orders sequences so that next-fit finds its rows again; any other order is correct too, with emptier
    rows. Takes time linear in S, on the host, in numpy.
    """
    first_slots = _next_fit(lengths, width)
    rows = int(first_slots[-1]) // width + 1
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.repeat(first_slots, lengths) + within
    slots = np.zeros(rows * width, dtype=np.int64)
    slots[place] = np.arange(len(place))
    sequence = np.full(rows * width, -1, dtype=np.int32)
    sequence[place] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    arrays = slots.reshape(rows, width), place, sequence.reshape(rows, width)
    return PackedRows(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))


def _next_fit(lengths: Lengths, width: int) -> npt.NDArray[np.int64]:
    """Return the slot (S,) where each sequence begins, counted along rows of `width` slots."""
    row, used, first_slots = 0, 0, []
    for length in lengths.tolist():
        if used + length > width:
            row, used = row + 1, 0
        first_slots.append(row * width + used)
        used += length
    return np.array(first_slots, dtype=np.int64)


def varlen_layout(cu_seqlens: Tensor, max_seqlen: int, width: int, device: torch.device) -> VarlenLayout:
    """Lay out a batch for variable-length flash attention, with `width` as the longest sequence if that is more. The
    kernel needs an upper bound only, and one that never changes avoids recompilation."""
    return VarlenLayout(cu_seqlens.to(device, non_blocking=True), max(max_seqlen, width))


@dataclass(frozen=True)
class Backend:
    """An attention backend: its name for the log, its layout, and the number of tokens in one of its blocks."""

    name: str
    layout: Callable[[Tensor, int, int, torch.device], Layout]
    block: int = 1


# A CPU prepares a matrix product again for each new number of rows, which takes a millisecond, and keeps what it
# prepared: batches of ever new sizes cost a fine-tuning run hundreds of megabytes.
ROW_BLOCK = 32
BACKENDS = {
    "reference": Backend("reference", reference_layout),
    "rows": Backend("rows", rows_layout, block=ROW_BLOCK),
    "varlen": Backend("varlen", varlen_layout),
}


def fill_up(cu_seqlens: Tensor, max_seqlen: int, block: int) -> Tensor:
    """Append sequences of at most `max_seqlen` tokens to the bounds (S+1,) so that all tokens fill whole blocks.

    The filler is made of ordinary sequences: a program for a special remainder would be compiled again for none, one
    and several tokens.
    """
    tokens = int(cu_seqlens[-1])
    filled = whole_blocks(tokens, block)
    more = torch.arange(tokens + max_seqlen, filled + max_seqlen, max_seqlen, dtype=cu_seqlens.dtype)
    return torch.cat((cu_seqlens, more.clamp(max=filled)))


def choose_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """Return the fastest backend for this device and compute dtype."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0):
        return BACKENDS["varlen"]
    return BACKENDS["rows"]
