"""What a transformer is made of, in terms that do not depend on the family it is saved as."""

import math
from dataclasses import dataclass
from typing import Literal

from palavra.errors import PalavraError

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
LayerKind = Literal["global", "local"]

# A directory from elsewhere is read before it is trusted: sizes past these bounds are refused, not allocated.
LARGEST = {"vocab_size": 2**22, "hidden_size": 2**15, "num_layers": 2**10, "intermediate_size": 2**18, "context": 2**22}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of one `Transformer`.

    Sizes: `vocab_size` V, `hidden_size` D, `num_heads` H, `intermediate_size` the width inside the feed-forward part,
    `context` the most tokens a sequence may have. `layer_kinds` names, layer by layer, who attends to the
    whole sequence ("global") and who only to `window` tokens on either side ("local").
    `positions` is "rotary" (RoPE, Su et al. 2021, arXiv:2104.09864) or "learned"; `norm` is where the layer
    normalization stands: before each part ("pre") or after its residual sum ("post").
    `gated` selects the gated feed-forward part (GLU variants, Shazeer 2020, arXiv:2002.05202).
    `norm_kind` is "layer" (Ba et al. 2016) or "rms" (Zhang and Sennrich 2019, arXiv:1910.07467);
    `embedding_norm` whether the embeddings are normalized before the first layer. `num_kv_heads` heads of keys and
    values are shared by groups of query heads (Ainslie et al. 2023, arXiv:2305.13245; None: one for each).
    `causal`: a token sees only itself and what precedes it.
    `mntp`: a hidden token is predicted from the vector of the token before it (masked next-token prediction,
    Charpentier and Samuel 2024, arXiv:2410.24159).
    Dropout rates are shares of units set to zero while training.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    context: int
    norm: Literal["pre", "post"]
    positions: Literal["rotary", "learned"]
    gated: bool
    layer_kinds: tuple[LayerKind, ...]
    num_kv_heads: int | None = None
    causal: bool = False
    mntp: bool = False
    norm_kind: Literal["layer", "rms"] = "layer"
    embedding_norm: bool = True
    window: int = 0
    segments: int = 0
    activation: Activation = "gelu"
    head_activation: Activation = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    decoder_bias: bool = True
    tied_embeddings: bool = True
    rope_theta_global: float = 160_000.0
    rope_theta_local: float = 10_000.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    pad_id: int | None = None
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            if not 0 < getattr(self, name) <= largest:
                raise PalavraError(f"model.{name} is {getattr(self, name)}: it must be 1 to {largest:,}")
        if self.num_heads < 1 or self.hidden_size % self.num_heads:
            raise PalavraError(
                f"model.hidden_size {self.hidden_size} is not a multiple of model.num_heads "
                f"{self.num_heads}: change either"
            )
        if self.num_kv_heads is not None and (self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads):
            raise PalavraError(
                f"model.num_heads {self.num_heads} is not a multiple of model.num_kv_heads "
                f"{self.num_kv_heads}: change either"
            )
        if self.positions == "rotary" and (self.hidden_size // self.num_heads) % 2:
            raise PalavraError(
                f"rotary positions need an even number of units a head, not {self.hidden_size // self.num_heads}: "
                "change model.hidden_size or model.num_heads"
            )
        if len(self.layer_kinds) != self.num_layers:
            raise PalavraError(f"model.layer_kinds names {len(self.layer_kinds)} of {self.num_layers} layers")
        for name in ("window", "segments"):
            if not 0 <= getattr(self, name) <= LARGEST["context"]:
                raise PalavraError(f"model.{name} is {getattr(self, name)}: it must be 0 to {LARGEST['context']:,}")
        for name in ("norm_eps", "initializer_range", "rope_theta_global", "rope_theta_local"):
            if not 0 < getattr(self, name) < math.inf:
                raise PalavraError(f"model.{name} is {getattr(self, name)}: it must be above 0")
        if "local" in self.layer_kinds and self.window < 1:
            raise PalavraError("model.window must be at least 1 where a layer is local")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise PalavraError(f"model.{name} is {getattr(self, name)}: it must be at least 0 and below 1")

    @property
    def head_width(self) -> int:
        """Units of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def shared_heads(self) -> int:
        """Heads of keys and of values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads
