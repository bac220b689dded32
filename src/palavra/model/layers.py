"""The parts of a transformer layer, over packed tokens."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.attention import Layout, attend
from palavra.model.config import Activation, LayerKind, ModelConfig


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


def layer_norm(config: ModelConfig) -> nn.LayerNorm:
    """A layer normalization as the family has it."""
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.norm_bias)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of x (N, H, d) by cos and sin (N, 1, d/2), in float32.

    Pairs unit i with unit i + d/2, the layout of the Hugging Face families.
    """
    first, second = x.to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: ModelConfig, kind: LayerKind):
        super().__init__()
        self.heads, self.dropout = config.heads, config.attention_dropout
        self.window = config.window if kind == "local" else None
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.attention_bias)
        self.out = nn.Linear(config.width, config.width, bias=config.attention_bias)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout) -> Tensor:
        """x (N, D) -> (N, D)."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, layout, window=self.window, dropout=dropout)
        out: Tensor = self.out(mixed.flatten(1))
        return out


class FeedForward(nn.Module):
    """The position-wise part: plain (Vaswani et al. 2017) or gated (Shazeer 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gated, self.activation = config.gated, ACTIVATIONS[config.activation]
        inner = config.intermediate * (2 if config.gated else 1)
        self.up = nn.Linear(config.width, inner, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate, config.width, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, D)."""
        if self.gated:
            value, gate = self.up(x).chunk(2, dim=-1)
            out: Tensor = self.down(self.activation(value) * gate)
        else:
            out = self.down(self.activation(self.up(x)))
        return out


class PreNormLayer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (ModernBERT, Llama)."""

    def __init__(self, config: ModelConfig, kind: LayerKind, first: bool):
        super().__init__()
        # The embeddings are normalized already, so the first layer does not do it again (ModernBERT).
        self.attention_norm = nn.Identity() if first else layer_norm(config)
        self.attention = Attention(config, kind)
        self.mlp_norm = layer_norm(config)
        self.mlp = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout) -> Tensor:
        """x (N, D) -> (N, D)."""
        # A view where nothing is normalized: were both arguments one tensor, it would compile a second time.
        return self.core(x, self.attention_norm(x).view_as(x), rotary, layout)

    def core(self, x: Tensor, normalized: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout) -> Tensor:
        """Everything but the first normalization: the same program in every layer, so it compiles once."""
        x = x + self.dropout(self.attention(normalized, rotary, layout))
        out: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return out


class PostNormLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)) (Vaswani et al. 2017, BERT)."""

    def __init__(self, config: ModelConfig, kind: LayerKind, first: bool):
        super().__init__()
        del first
        self.attention = Attention(config, kind)
        self.attention_norm = layer_norm(config)
        self.mlp = FeedForward(config)
        self.mlp_norm = layer_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout) -> Tensor:
        """x (N, D) -> (N, D)."""
        return self.core(x, rotary, layout)

    def core(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: Layout) -> Tensor:
        """The whole layer, under the name by which `training` compiles it."""
        x = self.attention_norm(x + self.dropout(self.attention(x, rotary, layout)))
        out: Tensor = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return out


LAYERS = {"pre": PreNormLayer, "post": PostNormLayer}
