"""Attention over packed sequences: a token never sees the tokens of another sequence.

One function, `attend`, computes it for all layouts of `model/layouts.py`: with a dense mask, as in the formula; in
rows, by batched matrix products with a softmax summed in float32; and by variable-length flash attention on CUDA
(torch.nn.attention.varlen).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from palavra.model.dropout import draw_mask, drop, mark
from palavra.model.layouts import SLOT_BLOCK, Layout, PackedRows, RowsLayout, VarlenLayout, whole_blocks
from palavra.model.relative import ScoreTerm

# Finite, so that the scores of an empty slot give a harmless uniform distribution instead of NaN.
MASKED = -1e30


def attend(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, window: int | None = None, causal: bool = False,
    dropout: float = 0.0, queries: Tensor | None = None, term: ScoreTerm | None = None,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention inside each sequence (Vaswani et al. 2017, eq. 1).

    q (N, H, d), k and v (N, H, d) or (N, a divisor of H, d): packed tokens. Consecutive query heads share a head of
    keys and values if there are fewer of those (Ainslie et al. 2023, arXiv:2305.13245). `window`: the number of
    neighbours that a token sees on either side; None is no limit. `causal`: a token sees only itself and the tokens
    before it. `dropout`: rate of attention weights that are dropped. `queries` (M,) int64, in any order, with
    repetitions: the only tokens to compute. `term` is added to the scores; the layout must not be for variable-length
    kernels, which cannot add one. Returns (N, H, d), or (M, H, d) with `queries`, in the dtype of `v`.
    """
    k, v = _for_each_head(k, q.shape[1]), _for_each_head(v, q.shape[1])
    if queries is not None:
        # The queries get a layout of their own if that waits for no device and tokens see their whole sequence.
        if isinstance(layout, RowsLayout) and q.is_cpu and len(queries) and window is None and not causal:
            return _attend_queries(q, k, v, layout, queries, dropout, term)
        mixed = attend(q, k, v, layout, window=window, causal=causal, dropout=dropout, term=term)
        return mixed.index_select(0, queries)
    if isinstance(layout, RowsLayout):
        sizes = [len(rows.place) for rows in layout.parts]
        pieces = (x.split(sizes) for x in (q, k, v))
        parts = [
            _attend_rows(q, k, v, rows, window, causal, dropout, term)
            for rows, q, k, v in zip(layout.parts, *pieces, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    if isinstance(layout, VarlenLayout):
        assert term is None, "choose_backend gives such models rows"
        return _attend_varlen(q, k, v, layout, window, causal)
    sequence = layout.sequence
    mask = sequence[:, None] == sequence[None, :]
    place = torch.arange(len(sequence), device=q.device)
    distance = place[:, None] - place[None, :]
    mask = mask & _visible(distance, window, causal)
    q, k, v = (x.transpose(0, 1)[:, None] for x in (q, k, v))
    added = None if term is None else term(q, k, distance[None])
    return _softmax_attend(q, k, v, mask, dropout, added)[:, 0].transpose(0, 1)


def _for_each_head(x: Tensor, heads: int) -> Tensor:
    """(N, shared heads, d) -> (N, H, d)."""
    tokens, shared, units = x.shape
    if shared == heads:
        return x
    return x[:, :, None].expand(tokens, shared, heads // shared, units).reshape(tokens, heads, units)


def _visible(distance: Tensor, window: int | None, causal: bool) -> Tensor:
    """Return which (query, key) pairs are allowed, from the distance query - key."""
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return visible if window is None else visible & (distance.abs() <= window)


def _softmax_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, added: Tensor | None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + added) v over the last two dimensions, with the softmax in float32 or wider."""
    scores = (q @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
    if added is not None:
        scores = scores + added
    scores = scores.masked_fill(~mask, MASKED)
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    if dropout:
        weights = drop(weights, dropout)
    return weights @ v


class _Attention(torch.autograd.Function):
    """`_softmax_attend` that saves only one of its largest tensors for backward: the weights, in the dtype of `q`, with
    the dropped ones marked.

    Weights rounded to bfloat16 do not sum to 1, so the gradient of the scores would not sum to 0: the part that all
    values have in common would add a gradient of its own. Subtracting the mean of the weights' gradient first, which
    changes nothing in exact arithmetic, removes that part.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, added: Tensor | None
    ) -> Tensor:
        ctx.rate, ctx.scale, ctx.added = q.shape[-1] ** -0.5, 1.0, None if added is None else added.shape
        scores = (q * ctx.rate) @ k.transpose(-1, -2)
        if added is not None:
            scores += added
        scores.masked_fill_(~mask, max(MASKED, torch.finfo(q.dtype).min))
        weights = kept = torch.softmax(scores, dim=-1)
        ctx.drops = bool(dropout)
        if dropout:
            stays, ctx.scale = draw_mask(weights, dropout)
            weights = mark(weights, stays)
            kept = weights.relu()
        out: Tensor = kept @ v * ctx.scale
        ctx.save_for_backward(q, k, v, weights, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, Tensor | None]:
        q, k, v, weights, out = ctx.saved_tensors
        pull = gradients[0]
        mean = (pull.float() * out.float()).sum(-1, keepdim=True)
        scaled = pull * ctx.scale
        back = scaled @ v.transpose(-1, -2)
        kept = weights
        if ctx.drops:
            kept, back = weights.relu(), torch.ops.aten.threshold_backward(back, weights, 0)
            weights = weights.abs()
        back = torch._softmax_backward_data(back.sub_(mean), weights, -1, weights.dtype)
        for_q, for_k = back @ k * ctx.rate, back.transpose(-1, -2) @ (q * ctx.rate)
        for_added = None if ctx.added is None else back.sum_to_size(ctx.added)
        return for_q, for_k, kept.transpose(-1, -2) @ scaled, None, None, for_added


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, added: Tensor | None) -> Tensor:
    """Compute `_softmax_attend` by `_Attention`, except in compiled code: a compiler fuses the steps itself, and torch
    2.13 cannot compile two such functions with dynamic sizes."""
    if torch.compiler.is_compiling():
        return _softmax_attend(q, k, v, mask, dropout, added)
    with torch.autocast(q.device.type, enabled=False):
        added = None if added is None else added.to(q.dtype)
        out: Tensor = _Attention.apply(q, k, v, mask, dropout, added)  # type: ignore[no-untyped-call]
    return out


# From this width on, cutting causal rows in two saves more than it costs.
TRIANGLE = 128


def _attend_triangle(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, added: Tensor | None) -> Tensor:
    """Compute `_softmax_attend` for causal rows: the first half of the queries needs only the first half of the keys.
    That is three quarters of the square. Four parts would be 5/8, and take several times as long to compile."""
    half = q.shape[2] // 2
    upper, lower = (None, None) if added is None else (added[:, :, :half, :half], added[:, :, half:])
    first = _attend(q[:, :, :half], k[:, :, :half], v[:, :, :half], mask[:, :half, :half], dropout, upper)
    second = _attend(q[:, :, half:], k, v, mask[:, half:], dropout, lower)
    return torch.cat((first, second), dim=2)


class _Gather(torch.autograd.Function):
    """`x[:, index]` of x (H, N, d) whose gradient is gathered from the places of each token, not scattered and added.

    Correct only if no token reads what an empty slot reads: the gradient of empty slots is then irrelevant.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        out = gradients[0].index_select(1, places[0])
        for place in places[1:]:
            out = out + gradients[0].index_select(1, place)
        return out, None, None


class _Blocks(NamedTuple):
    """Which tokens attend to which: B blocks of Q queries, each with its own K keys.

    `queries` (B, Q) and `keys` (B, K) int64: indexes into the M query tokens and the N key tokens. `query_sequence` and
    `key_sequence`: their sequences. `query_places` (1, M) and `key_places` (1 or 3, N) int64: where each token is among
    all queries and among all keys.
    """

    queries: Tensor
    keys: Tensor
    query_sequence: Tensor
    key_sequence: Tensor
    query_places: Tensor
    key_places: Tensor


def _whole_rows(rows: PackedRows) -> tuple[_Blocks, Tensor]:
    """Return blocks of whole rows, each attending to itself, and the distance (W, W) of query and key."""
    slot = torch.arange(rows.slots.shape[1], device=rows.slots.device)
    places = rows.place[None]
    blocks = _Blocks(rows.slots, rows.slots, rows.sequence, rows.sequence, places, places)
    return blocks, slot[:, None] - slot[None, :]


def _banded_rows(rows: PackedRows, window: int) -> tuple[_Blocks, Tensor]:
    """Return blocks of `window` queries, each with the 3 x window keys around it, for local attention.

    Rows must be a multiple of `window` wide; 3 * window / W of the full product is computed. Also returns the distance
    (window, 3 window) of query and key.
    """
    along = rows.slots.shape[1] // window

    def around(x: Tensor, beyond: int) -> Tensor:
        """(R, W) -> (R * W / window, 3 window)."""
        return F.pad(x, (window, window), value=beyond).unfold(1, 3 * window, window).reshape(-1, 3 * window)

    block = rows.place // window
    own = (3 * block + 1) * window + rows.place % window
    # No query sees keys beyond the ends of a row, so they get no gradient: they can stand in for the neighbour that the
    # first and the last block lack.
    before = own - torch.where(block % along == 0, window, 2 * window)
    after = own + torch.where(block % along == along - 1, window, 2 * window)
    place = torch.arange(3 * window, device=rows.slots.device)
    blocks = _Blocks(
        queries=rows.slots.reshape(-1, window), query_sequence=rows.sequence.reshape(-1, window),
        query_places=rows.place[None], keys=around(rows.slots, 0), key_sequence=around(rows.sequence, -2),
        key_places=torch.stack((own, before, after)),
    )  # fmt: skip
    return blocks, place[:window, None] + window - place[None, :]


def _attend_rows(
    q: Tensor, k: Tensor, v: Tensor, rows: PackedRows, window: int | None, causal: bool, dropout: float,
    term: ScoreTerm | None,
) -> Tensor:  # fmt: skip
    width = rows.slots.shape[1]
    if window is not None and width % window == 0 and width > 3 * window:
        blocks, distance = _banded_rows(rows, window)
    else:
        blocks, distance = _whole_rows(rows)
    way = _attend_triangle if causal and window is None and width >= TRIANGLE else _attend
    mixed = _attend_blocks(q, k, v, blocks, _visible(distance, window, causal), way, dropout, term, distance[None])
    out: Tensor = _Gather.apply(mixed, rows.place, rows.slots.view(1, -1))  # type: ignore[no-untyped-call]
    return out.transpose(0, 1)


def _attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, blocks: _Blocks, visible: Tensor, way: Callable[..., Tensor], dropout: float,
    term: ScoreTerm | None, distance: Tensor,
) -> Tensor:  # fmt: skip
    """q (M, H, d), k and v (N, H, d) -> the result for the queries of all blocks (H, B * Q, d). `way` is the attention
    function. Queries see the `visible` keys (Q, K), or (1, 1) for all, of their sequence. `distance` (1 or B, Q, K) of
    query and key, for the `term`."""

    def gather(x: Tensor, index: Tensor, places: Tensor) -> Tensor:
        """(N, H, d) -> (H, B, Q or K, d)."""
        out: Tensor = _Gather.apply(x.transpose(0, 1), index.reshape(-1), places)  # type: ignore[no-untyped-call]
        return out.view(x.shape[1], *index.shape, x.shape[2])

    q = gather(q, blocks.queries, blocks.query_places)
    k, v = gather(k, blocks.keys, blocks.key_places), gather(v, blocks.keys, blocks.key_places)
    mask = (blocks.query_sequence[:, :, None] == blocks.key_sequence[:, None, :]) & visible
    added = None if term is None else term(q, k, distance)
    return way(q, k, v, mask, dropout, added).flatten(1, 2)


def _attend_queries(
    q: Tensor, k: Tensor, v: Tensor, layout: RowsLayout, queries: Tensor, dropout: float, term: ScoreTerm | None
) -> Tensor:
    """Compute global attention for the `queries` (M,) only."""
    mixed, found, begin = [], [], 0
    for rows in layout.parts:
        end = begin + len(rows.place)
        mine = ((queries >= begin) & (queries < end)).nonzero()[:, 0]
        if len(mine):
            tokens = queries.index_select(0, mine) - begin
            mixed.append(_attend_some(q[begin:end], k[begin:end], v[begin:end], rows, tokens, dropout, term))
            found.append(mine)
        begin = end
    if len(mixed) == 1:
        return mixed[0]
    return torch.cat(mixed).index_select(0, torch.cat(found).argsort())


def _attend_some(
    q: Tensor, k: Tensor, v: Tensor, rows: PackedRows, tokens: Tensor, dropout: float, term: ScoreTerm | None
) -> Tensor:
    """Compute global attention inside `rows` for some `tokens` (M,) only -> (M, H, d)."""
    blocks, distance = _some_of_rows(rows, tokens)
    if 2 * blocks.queries.shape[1] > rows.slots.shape[1]:
        return _attend_rows(q, k, v, rows, None, False, dropout, term).index_select(0, tokens)
    every = torch.ones((1, 1), dtype=torch.bool)
    mixed = _attend_blocks(q.index_select(0, tokens), k, v, blocks, every, _attend, dropout, term, distance)
    # Not by `_Gather`: an empty query slot may read the keys of tokens if its row has no empty slot.
    return mixed.index_select(1, blocks.query_places[0]).transpose(0, 1)


def _some_of_rows(rows: PackedRows, tokens: Tensor) -> tuple[_Blocks, Tensor]:
    """Return blocks of whole rows as keys, with only the `tokens` (M,) as queries; `queries` are indexes into them.
    Also returns the distances (R, Q, W) of query and key."""
    place = rows.place[tokens]
    height, width = rows.slots.shape
    row = place // width
    ordered, order = row.sort(stable=True)
    counts = row.bincount(minlength=height)
    among = torch.empty_like(row)
    among[order] = torch.arange(len(row)) - (counts.cumsum(0) - counts)[ordered]
    most = whole_blocks(int(counts.max()), SLOT_BLOCK)
    own = row * most + among
    queries = torch.zeros(height * most, dtype=torch.int64)
    queries[own] = torch.arange(len(row))
    sequence = torch.full((height * most,), -1, dtype=torch.int32)
    sequence[own] = rows.sequence.view(-1)[place]
    slot = torch.zeros(height * most, dtype=torch.int64)
    slot[own] = place % width
    distance = slot.view(height, most, 1) - torch.arange(width)
    shape = height, most
    blocks = _Blocks(queries.view(shape), rows.slots, sequence.view(shape), rows.sequence, own[None], rows.place[None])
    return blocks, distance


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, layout: VarlenLayout, window: int | None, causal: bool) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    left = -1 if window is None else window
    out = varlen_attn(
        q, k, v, layout.cu_seqlens, layout.cu_seqlens, layout.max_seqlen, layout.max_seqlen,
        window_size=(left, 0 if causal else left),
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out
