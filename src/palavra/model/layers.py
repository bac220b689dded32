"""The parts of a transformer layer, for packed tokens."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.attention import attend
from palavra.model.config import HeadActivation, LayerKind, ModelConfig
from palavra.model.dropout import Dropout
from palavra.model.layouts import Layout
from palavra.model.relative import RELATIVE

ACTIVATIONS: dict[HeadActivation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}  # fmt: skip


class PlusOneRMSNorm(nn.Module):
    """RMS normalization that multiplies by 1 + weight (Gemma): weights that decay to zero leave it as it was."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> the same shape and dtype, computed in float32 or wider."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(wide, self.weight.shape, 1 + self.weight, self.eps).to(x.dtype)


def normalization(config: ModelConfig, width: int | None = None) -> nn.Module:
    """Return a new normalization layer of the family's kind, for vectors of `width` (None: of the model's width)."""
    width = config.hidden_size if width is None else width
    if config.norm_kind == "rms_plus_one":
        return PlusOneRMSNorm(width, config.norm_eps)
    if config.norm_kind == "rms":
        return nn.RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary position embedding (Su et al. 2021) of cos and sin (N, 1, r/2) to the first r units of x (N, H,
    d), in float32. Pairs unit i with unit i + r/2, as `transformers` does."""
    rotated = 2 * cos.shape[-1]
    first, second = x[..., :rotated].to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, dim=-1)
    parts = [first * cos - second * sin, second * cos + first * sin]
    if rotated < x.shape[-1]:
        parts.append(x[..., rotated:].to(parts[0].dtype))
    return torch.cat(parts, dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    If there are fewer heads of keys and values than of queries, consecutive query heads share one.
    """

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        self.heads, self.shared_heads = config.num_heads, config.shared_heads
        self.dropout = config.attention_dropout
        self.window = config.window if kind == "local" else None
        mixed = config.num_heads * config.head_width
        projected = mixed + 2 * config.shared_heads * config.head_width
        out_bias = config.attention_bias if config.attention_out_bias is None else config.attention_out_bias
        self.qkv = nn.Linear(config.hidden_size, projected, bias=config.attention_bias)
        self.out = nn.Linear(mixed, config.hidden_size, bias=out_bias)
        self.q_norm = normalization(config, config.head_width) if config.qk_norm else None
        self.k_norm = normalization(config, config.head_width) if config.qk_norm else None
        # `attend` divides scores by sqrt(d).
        scale = config.attention_scale
        self.query_scale = None if scale is None else scale * math.sqrt(config.head_width)
        self.relative = RELATIVE[config.relative.kind](config, config.relative) if config.relative else None

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, D) -> queries (N, H, d), keys and values (N, shared heads, d)."""
        heads = self.qkv(x).view(x.shape[0], self.heads + 2 * self.shared_heads, -1)
        both, v = heads.split((self.heads + self.shared_heads, self.shared_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = both.split((self.heads, self.shared_heads), dim=1)
            both = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        if rotary is not None:
            both = rotate(both, *rotary)
        q, k = both.split((self.heads, self.shared_heads), dim=1)
        return q if self.query_scale is None else q * self.query_scale, k, v

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout, causal: bool = False,
        queries: Tensor | None = None, relative: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (N, D) -> the concatenated heads (N, H d), before `out`; (M, H d) if only `queries` (M,) are computed.
        `relative`: the vectors of distances, if the family has them."""
        q, k, v = self.project(x, rotary)
        dropout = self.dropout if self.training else 0.0
        term = None if self.relative is None or relative is None else self.relative.term(relative, self.qkv)
        return attend(
            q, k, v, layout, window=self.window, causal=causal, dropout=dropout, queries=queries, term=term
        ).flatten(1)  # fmt: skip


class FeedForward(nn.Module):
    """The position-wise feed-forward part: plain (Vaswani et al. 2017) or gated (Shazeer 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gated, self.activation = config.gated, ACTIVATIONS[config.activation]
        inner = config.intermediate_size * (2 if config.gated else 1)
        self.up = nn.Linear(config.hidden_size, inner, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, D)."""
        if not self.gated:
            return self.down(self.activation(self.up(x)))  # type: ignore[no-any-return]
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(self.activation(value) * gate)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One layer: `attention`, the only part in which tokens interact, and `finish`, all that follows token by token.

    All layers share the programs of both parts, so each compiles once (see `compute.compile_layers`).
    """

    # Set by `compile_layers`. Attention for some rows only would be another program, and take seconds to compile.
    compiled = False

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        self.attention = Attention(config, kind)
        self.attention_norm: nn.Module = normalization(config)
        self.mlp_norm = normalization(config)
        self.mlp = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout, rows: Tensor | None = None,
        causal: bool = False, relative: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (N, D) -> (N, D), or (M, D) if only `rows` (M,) are wanted. `relative` is as in `Attention`.

        Everything after the attention then computes M rows only; so does the attention itself if it is global and
        neither causal nor compiled.
        """
        if rows is not None and not self.compiled:
            mixed = self.attention(self.attended(x), rotary, layout, causal, rows, relative)
            return self.finish(x.index_select(0, rows), mixed)
        mixed = self.attention(self.attended(x), rotary, layout, causal, None, relative)
        if rows is not None:
            x, mixed = x.index_select(0, rows), mixed.index_select(0, rows)
        return self.finish(x, mixed)

    def attended(self, x: Tensor) -> Tensor:
        """Return the input of the attention (N, D)."""
        raise NotImplementedError

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the layer's output (N, D) from its input x (N, D) and the attention's output `mixed`."""
        raise NotImplementedError


class PreNormLayer(Layer):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (GPT-2, Llama, ModernBERT)."""

    def __init__(self, config: ModelConfig, kind: LayerKind, first: bool):
        super().__init__(config, kind)
        if first and config.embedding_norm:  # the embeddings are normalized already (ModernBERT)
            self.attention_norm = nn.Identity()

    def attended(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention_norm(x)
        return out

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.attention.out(mixed))
        out: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return out


class SandwichLayer(PreNormLayer):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x))) (Ding et al. 2021, arXiv:2105.13290;
    Gemma 2 and 3)."""

    def __init__(self, config: ModelConfig, kind: LayerKind, first: bool):
        super().__init__(config, kind, first)
        self.attention_out_norm, self.mlp_out_norm = normalization(config), normalization(config)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.attention_out_norm(self.attention.out(mixed)))
        out: Tensor = x + self.dropout(self.mlp_out_norm(self.mlp(self.mlp_norm(x))))
        return out


class ParallelLayer(PreNormLayer):
    """x + attention(norm(x)) + feed_forward(norm(x)), with a norm for each part (Wang and Komatsuzaki 2021; GPT-NeoX,
    Black et al. 2022, arXiv:2204.06745)."""

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.mlp(self.mlp_norm(x))) + self.dropout(self.attention.out(mixed)) + x
        return out


class PostNormLayer(Layer):
    """norm(x + attention(x)), then norm(x + feed_forward(x)) (Vaswani et al. 2017, BERT)."""

    def __init__(self, config: ModelConfig, kind: LayerKind, first: bool):
        super().__init__(config, kind)
        del first

    def attended(self, x: Tensor) -> Tensor:
        return x

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention.out(mixed)))
        out: Tensor = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return out


LAYERS: dict[str, Callable[[ModelConfig, LayerKind, bool], Layer]] = {
    "pre": PreNormLayer, "post": PostNormLayer, "sandwich": SandwichLayer, "parallel": ParallelLayer
}  # fmt: skip
