"""Attention over packed sequences: tokens of one sequence never see another's.

One function, `attend`, and three ways to lay a packed batch out for it, each a value chosen once per run:

- `ReferenceLayout`: one dense N x N mask. Slow, obvious, any dtype. What the others are tested against.
- `RowsLayout`: sequences laid into rows of W slots, attention as batched matrix products over the rows with a
  softmax summed in float32. For CPUs, where it is several times faster than torch's fused kernels at usual lengths.
- `VarlenLayout`: variable-length flash attention on CUDA (torch.nn.attention.varlen), half precision only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from palavra.model.dropout import drop, dropped_units

# Finite, so that an empty slot's row of scores gives a harmless uniform distribution instead of NaN.
MASKED = -1e30


class ReferenceLayout(NamedTuple):
    """`sequence` (N,) int64: which sequence each token belongs to."""

    sequence: Tensor


class Rows(NamedTuple):
    """Sequences side by side in R rows of W slots; no sequence is split over rows.

    `slots` (R, W) int64: the token in each slot (0 in empty ones); `place` (N,) int64: the slot of each token,
    counted along the rows; `sequence` (R, W) int32: which sequence the slot belongs to, -1 where empty.
    """

    slots: Tensor
    place: Tensor
    sequence: Tensor


class RowsLayout(NamedTuple):
    """The first sequences in the rows of the first of `parts`, the next in those of the next, each of its own width."""

    parts: tuple[Rows, ...]

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
    """Lay a batch into rows of `width` slots, or of as many as its longest sequence has (`max_seqlen` says no more).

    Where no width is asked for (0), sequences that are much longer or shorter than their neighbours have rows of their
    own width.
    """
    del max_seqlen
    lengths = np.diff(cu_seqlens.numpy())
    runs = [lengths] if width else runs_of_like_length(lengths)
    return RowsLayout(tuple(_rows(run, max(width, int(run.max())), device) for run in runs))


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


def _rows(lengths: "np.ndarray[Any, Any]", width: int, device: torch.device) -> Rows:
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

    return Rows(
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
    filled = -(-tokens // block) * block
    more = torch.arange(tokens + max_seqlen, filled + max_seqlen, max_seqlen, dtype=cu_seqlens.dtype)
    return torch.cat((cu_seqlens, more.clamp(max=filled)))


def choose_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """The fastest backend that is right for this device and compute dtype."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0):
        return BACKENDS["varlen"]
    return BACKENDS["rows"]


def attend(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, window: int | None = None, causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention inside each sequence (Vaswani et al. 2017, eq. 1).

    q (N, H, d), k and v (N, H, d) or (N, a divisor of H, d) packed tokens; fewer heads of keys and values are
    shared by consecutive heads of queries (Ainslie et al. 2023, arXiv:2305.13245). `window`: a token sees at most so
    many neighbours on either side; None is no limit. `causal`: a token sees only itself and what precedes it.
    `dropout`: share of attention weights dropped. Returns (N, H, d) in the dtype of `v`.
    """
    k, v = _for_each_head(k, q.shape[1]), _for_each_head(v, q.shape[1])
    if isinstance(layout, RowsLayout):
        sizes = [len(rows.place) for rows in layout.parts]
        pieces = (x.split(sizes) for x in (q, k, v))
        mixed = [
            _attend_rows(q, k, v, rows, window, causal, dropout)
            for rows, q, k, v in zip(layout.parts, *pieces, strict=True)
        ]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    if isinstance(layout, VarlenLayout):
        return _attend_varlen(q, k, v, layout, window, causal)
    sequence = layout.sequence
    mask = sequence[:, None] == sequence[None, :]
    place = torch.arange(len(sequence), device=q.device)
    mask = mask & _visible(place[:, None] - place[None, :], window, causal)
    out = _softmax_attend(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), mask, dropout)
    return out.transpose(0, 1)


def _for_each_head(x: Tensor, heads: int) -> Tensor:
    """(N, shared heads, d) -> (N, H, d)."""
    tokens, shared, units = x.shape
    if shared == heads:
        return x
    return x[:, :, None].expand(tokens, shared, heads // shared, units).reshape(tokens, heads, units)


def _visible(distance: Tensor, window: int | None, causal: bool) -> Tensor:
    """Which (query, key) pairs may meet, from the distance query - key."""
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return visible if window is None else visible & (distance.abs() <= window)


def _softmax_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the last two dimensions, the softmax in float32 or wider."""
    scores = (q @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32))
    scores = (scores * q.shape[-1] ** -0.5).masked_fill(~mask, MASKED)
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    if dropout:
        weights = drop(weights, dropout)
    return weights @ v


class _Attention(torch.autograd.Function):
    """`_softmax_attend` that keeps its largest tensors, scores and weights, in the dtype of `q` alone.

    Weights rounded to bfloat16 do not sum to 1, so the gradient of the scores would no longer sum to 0: a part that all
    values have in common would leave a gradient of its own. Shifting the weights' gradient by its mean first, which
    changes nothing in exact arithmetic, takes that part away.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
        ctx.rate = q.shape[-1] ** -0.5
        scores = ((q * ctx.rate) @ k.transpose(-1, -2)).masked_fill_(~mask, max(MASKED, torch.finfo(q.dtype).min))
        weights = torch.softmax(scores, dim=-1)
        dropped, ctx.scale = dropped_units(weights, dropout) if dropout else (None, 1.0)
        out: Tensor = _without(weights, dropped) @ v * ctx.scale
        ctx.save_for_backward(q, k, v, weights, out, dropped)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, weights, out, dropped = ctx.saved_tensors
        pull = gradients[0]
        mean = (pull.float() * out.float()).sum(-1, keepdim=True)
        scaled = pull * ctx.scale
        back = scaled @ v.transpose(-1, -2)
        if dropped is not None:
            back.masked_fill_(dropped, 0)
        back = torch._softmax_backward_data(back.sub_(mean), weights, -1, weights.dtype)
        return (
            back @ k * ctx.rate,
            back.transpose(-1, -2) @ (q * ctx.rate),
            _without(weights, dropped).transpose(-1, -2) @ scaled,
            None,
            None,
        )


def _without(weights: Tensor, dropped: Tensor | None) -> Tensor:
    """The weights with the dropped ones 0, not yet scaled."""
    return weights if dropped is None else weights.masked_fill(dropped, 0)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """`_softmax_attend`, by a function of its own unless a compiler, which fuses the steps itself, is at work (two
    calls of such a function with sizes of any number stop the one of torch 2.13)."""
    if torch.compiler.is_compiling():
        return _softmax_attend(q, k, v, mask, dropout)
    with torch.autocast(q.device.type, enabled=False):
        out: Tensor = _Attention.apply(q, k, v, mask, dropout)  # type: ignore[no-untyped-call]
    return out


# Causal rows from this width on are worth cutting in two; in shorter ones the cut costs more than it saves.
TRIANGLE = 128


def _attend_triangle(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """`_softmax_attend` where no query sees a later key: the first half of the queries meets the first half of the
    keys only, three quarters of the square in all.

    More parts save little more (5/8 with four), and a compiler takes several times as long for them.
    """
    half = q.shape[2] // 2
    first = _attend(q[:, :, :half], k[:, :, :half], v[:, :, :half], mask[:, :, :half, :half], dropout)
    second = _attend(q[:, :, half:], k, v, mask[:, :, half:], dropout)
    return torch.cat((first, second), dim=2)


class _Gather(torch.autograd.Function):
    """`x[index]`, whose gradient is gathered from the places each token went to instead of scattered and added.

    Right because what the other places receive, those of no token, never reaches one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        out = gradients[0][places[0]]
        for place in places[1:]:
            out = out + gradients[0][place]
        return out, None, None


class _Blocks(NamedTuple):
    """What attends to what: B blocks of Q queries, each with its own K keys.

    `queries` (B, Q) and `keys` (B, K) int64: tokens; `query_sequence`, `key_sequence` likewise, the sequences they
    are of; `distance` (Q, K) of query and key; `places` (1 or 3, N) int64: where among all keys each token is.
    """

    queries: Tensor
    keys: Tensor
    query_sequence: Tensor
    key_sequence: Tensor
    distance: Tensor
    places: Tensor


def _whole_rows(rows: Rows) -> _Blocks:
    """Each row is a block that attends to itself."""
    slot = torch.arange(rows.slots.shape[1], device=rows.slots.device)
    distance = slot[:, None] - slot[None, :]
    return _Blocks(rows.slots, rows.slots, rows.sequence, rows.sequence, distance, rows.place[None])


def _banded_rows(rows: Rows, window: int) -> _Blocks:
    """Local attention: blocks of `window` queries against the 3 x window keys around them.

    Rows must be a multiple of `window` wide; computes 3 * window / W of the full product.
    """
    blocks = rows.slots.shape[1] // window

    def around(x: Tensor, beyond: int) -> Tensor:
        """(R, W) -> (R * W / window, 3 window)."""
        return F.pad(x, (window, window), value=beyond).unfold(1, 3 * window, window).reshape(-1, 3 * window)

    block = rows.place // window
    own = (3 * block + 1) * window + rows.place % window
    # Keys beyond the ends of a row are seen by no query, so what stands there receives no gradient: it may be
    # read in place of a neighbour that the first and the last block do not have.
    before = own - torch.where(block % blocks == 0, window, 2 * window)
    after = own + torch.where(block % blocks == blocks - 1, window, 2 * window)
    place = torch.arange(3 * window, device=rows.slots.device)
    return _Blocks(
        queries=rows.slots.reshape(-1, window),
        keys=around(rows.slots, 0),
        query_sequence=rows.sequence.reshape(-1, window),
        key_sequence=around(rows.sequence, -2),
        distance=place[:window, None] + window - place[None, :],
        places=torch.stack((own, before, after)),
    )


def _attend_rows(
    q: Tensor, k: Tensor, v: Tensor, rows: Rows, window: int | None, causal: bool, dropout: float
) -> Tensor:
    width = rows.slots.shape[1]
    if window is not None and width % window == 0 and width > 3 * window:
        blocks = _banded_rows(rows, window)
    else:
        blocks = _whole_rows(rows)

    def gather(x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        """(N, H, d) -> (B, H, Q or K, d)."""
        out: Tensor = _Gather.apply(x, index.reshape(-1), places)  # type: ignore[no-untyped-call]
        return out.view(*index.shape, *x.shape[1:]).transpose(1, 2)

    mask = blocks.query_sequence[:, None, :, None] == blocks.key_sequence[:, None, None, :]
    mask = mask & _visible(blocks.distance, window, causal)
    attend_blocks = _attend_triangle if causal and window is None and width >= TRIANGLE else _attend
    mixed = attend_blocks(
        gather(q, blocks.queries, rows.place[None]),
        gather(k, blocks.keys, blocks.places),
        gather(v, blocks.keys, blocks.places),
        mask,
        dropout,
    )
    flat = mixed.transpose(1, 2).reshape(-1, *q.shape[1:])
    out: Tensor = _Gather.apply(flat, rows.place, rows.slots.view(1, -1))  # type: ignore[no-untyped-call]
    return out


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, layout: VarlenLayout, window: int | None, causal: bool) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    left = -1 if window is None else window
    out = varlen_attn(
        q, k, v, layout.cu_seqlens, layout.cu_seqlens, layout.max_seqlen, layout.max_seqlen,
        window_size=(left, 0 if causal else left),
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out
