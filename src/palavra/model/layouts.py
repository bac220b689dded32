"""How a packed batch is laid out for attention, each way a value chosen once per run.

- `ReferenceLayout`: one dense N x N mask. Slow, obvious, any dtype. What the others are tested against.
- `RowsLayout`: sequences laid into rows of W slots. For CPUs, where batched matrix products over the rows are several
  times faster than torch's fused kernels at usual lengths.
- `VarlenLayout`: the bounds of the sequences alone. For CUDA, half precision only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class ReferenceLayout(NamedTuple):
    """`sequence` (N,) int64: which sequence each token belongs to."""

    sequence: Tensor


class PackedRows(NamedTuple):
    """Sequences side by side in R rows of W slots; no sequence is split over rows.

    `slots` (R, W) int64: the token in each slot (0 in empty ones); `place` (N,) int64: the slot of each token,
    counted along the rows; `sequence` (R, W) int32: which sequence the slot belongs to, -1 where empty.
    """

    slots: Tensor
    place: Tensor
    sequence: Tensor


class RowsLayout(NamedTuple):
    """The first sequences in the rows of the first of `parts`, the next in those of the next, each of its own width."""

    parts: tuple[PackedRows, ...]

    @property
    def tokens(self) -> int:
        """Tokens laid out."""
        return sum(len(rows.place) for rows in self.parts)


class VarlenLayout(NamedTuple):
    """`cu_seqlens` (S+1,) int32 on the device; `max_seqlen` the longest sequence."""

    cu_seqlens: Tensor
    max_seqlen: int


Layout = ReferenceLayout | RowsLayout | VarlenLayout


def reference_layout(cu_seqlens: Tensor, max_seqlen: int, width: int, device: torch.device) -> ReferenceLayout:
    """Lay out a batch for the reference attention (`max_seqlen` and `width` do not matter to it)."""
    del max_seqlen, width
    lengths = cu_seqlens.long().diff()
    return ReferenceLayout(torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(device))


def rows_layout(cu_seqlens: Tensor, max_seqlen: int, width: int, device: torch.device) -> RowsLayout:
    """Lay a batch into rows of `width` slots, or of as many as its longest sequence has where that is more
    (`max_seqlen` says no more).

    Where no width is asked for (0), sequences that are much longer or shorter than their neighbours have rows of their
    own width, in whole blocks: of so many widths only, products are soon ready.
    """
    del max_seqlen
    lengths = np.diff(cu_seqlens.numpy())
    runs = [lengths] if width else runs_of_like_length(lengths)
    return RowsLayout(tuple(_rows(run, _row_width(width, int(run.max())), device) for run in runs))


# Rows that are as wide as need be, for the longest sequence or the most queries, have so many slots at a time.
SLOT_BLOCK = 8


def _row_width(width: int, longest: int) -> int:
    return max(width, longest) if width else whole_blocks(longest, SLOT_BLOCK)


def whole_blocks(count: int, block: int) -> int:
    """`count` rounded up to a multiple of `block`."""
    return -(-count // block) * block


# Attention over so many more slots takes about as long as another call of it.
WORTH_A_PART = 2**14


def runs_of_like_length(lengths: "np.ndarray[Any, Any]") -> "list[np.ndarray[Any, Any]]":
    """Cut the lengths (S,) of sequences, in their order, into runs that are worth laying out on their own: attention
    costs the product of a run's tokens and its longest sequence."""
    tokens, longest = np.cumsum(lengths), np.maximum.accumulate
    slots = tokens[:-1] * longest(lengths)[:-1] + (tokens[-1] - tokens[:-1]) * longest(lengths[::-1])[::-1][1:]
    if len(slots) == 0 or tokens[-1] * lengths.max() - slots.min() < WORTH_A_PART:
        return [lengths]
    cut = int(slots.argmin()) + 1
    return runs_of_like_length(lengths[:cut]) + runs_of_like_length(lengths[cut:])


def _rows(lengths: "np.ndarray[Any, Any]", width: int, device: torch.device) -> PackedRows:
    """Lay sequences into rows, next-fit in their own order.

    The packer orders sequences so that next-fit finds its rows again; any other order is right too, with
    emptier rows. Linear in S on the host, numpy throughout.
    """
    first_slots = _next_fit(lengths, width)
    rows = int(first_slots[-1]) // width + 1
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.repeat(first_slots, lengths) + within
    slots = np.zeros(rows * width, dtype=np.int64)
    slots[place] = np.arange(len(place))
    sequence = np.full(rows * width, -1, dtype=np.int32)
    sequence[place] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    def tensor(array: "np.ndarray[Any, Any]") -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return PackedRows(
        slots=tensor(slots.reshape(rows, width)),
        place=tensor(place),
        sequence=tensor(sequence.reshape(rows, width)),
    )


def _next_fit(lengths: "np.ndarray[Any, Any]", width: int) -> "np.ndarray[Any, Any]":
    """The slot (S,) in which each sequence begins, counted along rows of `width` slots."""
    row, used, first_slots = 0, 0, []
    for length in lengths.tolist():
        if used + length > width:
            row, used = row + 1, 0
        first_slots.append(row * width + used)
        used += length
    return np.array(first_slots, dtype=np.int64)


def varlen_layout(cu_seqlens: Tensor, max_seqlen: int, width: int, device: torch.device) -> VarlenLayout:
    """Lay out a batch for variable-length flash attention; `max_seqlen` is rounded up to `width`.

    The kernel only needs an upper bound, and one that never changes spares recompilation.
    """
    return VarlenLayout(cu_seqlens.to(device, non_blocking=True), max(max_seqlen, width))


@dataclass(frozen=True)
class Backend:
    """A way to attend: its name for the log, how it lays a batch out, and the number of tokens it takes at a time."""

    name: str
    layout: Callable[[Tensor, int, int, torch.device], Layout]
    block: int = 1


# A CPU's matrix products are made ready anew for every number of rows that they have not met, a millisecond each, and
# what was made ready is kept: batches of ever new sizes cost a fine-tuning run hundreds of megabytes.
ROW_BLOCK = 32
BACKENDS = {
    "reference": Backend("reference", reference_layout),
    "rows": Backend("rows", rows_layout, block=ROW_BLOCK),
    "varlen": Backend("varlen", varlen_layout),
}


def fill_up(cu_seqlens: Tensor, max_seqlen: int, block: int) -> Tensor:
    """The bounds (S+1,) of sequences with those of more sequences, none longer than `max_seqlen`, after them, so that
    all tokens together fill whole blocks.

    What fills them is a sequence like any other, not a rest that a compiled program would treat apart: such a program
    is made anew for a rest of none, of one and of several tokens.
    """
    tokens = int(cu_seqlens[-1])
    filled = whole_blocks(tokens, block)
    more = torch.arange(tokens + max_seqlen, filled + max_seqlen, max_seqlen, dtype=cu_seqlens.dtype)
    return torch.cat((cu_seqlens, more.clamp(max=filled)))


def choose_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """The fastest backend that is right for this device and compute dtype."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0):
        return BACKENDS["varlen"]
    return BACKENDS["rows"]
