"""The parts of a transformer layer, for packed tokens."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.attention import attend
from palavra.model.config import Activation, LayerKind, ModelConfig
from palavra.model.dropout import Dropout
from palavra.model.layouts import Layout

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu
}  # fmt: skip


def normalization(config: ModelConfig) -> nn.Module:
    """Return a new normalization layer of the family's kind."""
    if config.norm_kind == "rms":
        return nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary position embedding (Su et al. 2021) of cos and sin (N, 1, d/2) to x (N, H, d), in float32. Pairs
    unit i with unit i + d/2, as `transformers` does."""
    first, second = x.to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    If there are fewer heads of keys and values than of queries, consecutive query heads share one.
    """

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        self.heads, self.shared_heads = config.num_heads, config.shared_heads
        self.dropout = config.attention_dropout
        self.window = config.window if kind == "local" else None
        projected = (config.num_heads + 2 * config.shared_heads) * config.head_width
        self.qkv = nn.Linear(config.hidden_size, projected, bias=config.attention_bias)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, D) -> queries (N, H, d), keys and values (N, shared heads, d)."""
        heads = self.qkv(x).view(x.shape[0], self.heads + 2 * self.shared_heads, -1)
        if rotary is None:
            q, k, v = heads.split((self.heads, self.shared_heads, self.shared_heads), dim=1)
            return q, k, v
        both, v = heads.split((self.heads + self.shared_heads, self.shared_heads), dim=1)
        q, k = rotate(both, *rotary).split((self.heads, self.shared_heads), dim=1)
        return q, k, v

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout, causal: bool = False,
        queries: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (N, D) -> the concatenated heads (N, D), before `out`; (M, D) if only `queries` (M,) are computed."""
        q, k, v = self.project(x, rotary)
        dropout = self.dropout if self.training else 0.0
        return attend(
            q, k, v, layout, window=self.window, causal=causal, dropout=dropout, queries=queries
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
        causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """x (N, D) -> (N, D), or (M, D) if only `rows` (M,) are wanted.

        Everything after the attention then computes M rows only; so does the attention itself if it is global and
        neither causal nor compiled.
        """
        if rows is not None and not self.compiled:
            return self.finish(x.index_select(0, rows), self.attention(self.attended(x), rotary, layout, causal, rows))
        mixed = self.attention(self.attended(x), rotary, layout, causal)
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


LAYERS: dict[str, Callable[[ModelConfig, LayerKind, bool], Layer]] = {"pre": PreNormLayer, "post": PostNormLayer}
