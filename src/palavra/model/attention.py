"""Attention over packed sequences: tokens of one sequence never see another's.

One function, `attend`, for the layouts of `model/layouts.py`: a dense mask, the formula; rows, batched matrix products
with a softmax summed in float32; and variable-length flash attention on CUDA (torch.nn.attention.varlen).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from palavra.model.dropout import drop, dropped_units
from palavra.model.layouts import Layout, Rows, RowsLayout, VarlenLayout

# Finite, so that an empty slot's row of scores gives a harmless uniform distribution instead of NaN.
MASKED = -1e30


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
