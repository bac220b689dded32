"""What a transformer is made of, in terms that do not depend on the family it is saved as."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from palavra.config import without_none
from palavra.errors import PalavraError
from palavra.option import option

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
LayerKind = Literal["global", "local"]
Precision = Literal["auto", "bfloat16", "float32"]
CompileMode = Literal["auto", "on", "off"]
Pooling = Literal["cls", "mean", "max"]
HeadActivation = Literal["relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu"]
HeadNorm = Literal["off", "batch", "layer"]
OutputName = Literal["softmax", "hierarchical", "sampled", "adaptive", "negative-sampling"]
TreeName = Literal["huffman", "balanced", "prefix"]

LARGEST_HIDDEN = 2**16

# A directory from elsewhere is read before it is trusted: sizes past these bounds are refused, not allocated.
LARGEST = {"vocab_size": 2**22, "hidden_size": 2**15, "num_layers": 2**10, "intermediate_size": 2**18, "context": 2**22}
_BOUNDS = {**{name: (1, largest) for name, largest in LARGEST.items()}, "window": (0, 2**22), "segments": (0, 2**22)}


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise PalavraError for a size, by its name in `ModelConfig`, that no model has."""
    for name, size in sizes.items():
        least, largest = _BOUNDS.get(name, (1, math.inf))
        if not least <= size <= largest:
            raise PalavraError(f"model.{name} is {size}: it must be {least} to {largest:,}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of one `Transformer`.

    Sizes: `vocab_size` V, `hidden_size` D, `num_heads` H, `intermediate_size` the width inside the feed-forward part,
    `context` the most tokens a sequence may have. `layer_kinds` names, layer by layer, who attends to the
    whole sequence ("global") and who only to `window` tokens on either side ("local").
    `positions` is "rotary" (RoPE, Su et al. 2021, arXiv:2104.09864) or "learned"; `norm` is where the layer
    normalization is: before each part ("pre") or after its residual sum ("post"). `gated` selects the gated
    feed-forward part (GLU variants, Shazeer 2020, arXiv:2002.05202). `norm_kind` is "layer" (Ba et al. 2016) or "rms"
    (Zhang and Sennrich 2019, arXiv:1910.07467); `embedding_norm` normalizes the embeddings before the first layer.
    `num_kv_heads` heads of keys and values are shared by groups of query heads (Ainslie et al. 2023, arXiv:2305.13245;
    None: one for each). `causal`: a token sees only itself and the tokens before it. `mntp`: a masked token is
    predicted from the vector of the token before it (masked next-token prediction, Charpentier and Samuel 2024,
    arXiv:2410.24159). Dropout rates are fractions of units set to zero in training.
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
        check_sizes({name: getattr(self, name) for name in _BOUNDS})
        for name, divisor in (("hidden_size", "num_heads"), ("num_heads", "num_kv_heads")):
            size, part = getattr(self, name), getattr(self, divisor)
            if part is not None and (part < 1 or size % part):
                raise PalavraError(f"model.{name} {size} is not a multiple of model.{divisor} {part}: change either")
        if self.positions == "rotary" and (self.hidden_size // self.num_heads) % 2:
            raise PalavraError(
                f"rotary positions need an even number of units a head, not {self.hidden_size // self.num_heads}: "
                "change model.hidden_size or model.num_heads"
            )
        if len(self.layer_kinds) != self.num_layers:
            raise PalavraError(f"model.layer_kinds names {len(self.layer_kinds)} of {self.num_layers} layers")
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


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The layers between the body and the output layer. None stands for what the model's family has (`transformers`'
    `AutoModelFor...`): BERT has one hidden tanh layer on [CLS], and none on tokens. Batch normalization is that of
    Ioffe and Szegedy 2015."""

    preset: Literal["linear-cls"] | None = option(
        None,
        help="A head in one word: linear-cls is one linear layer on the vector of [CLS].",
        flag="--head",
        when={"kind": ("classification", "regression", "multiple-choice")},
        sets={"linear-cls": {"pooling": "cls", "hidden_sizes": ()}},
    )
    pooling: Pooling | None = option(
        None,
        help="How a text becomes one vector: that of [CLS], the mean or the maximum of all.",
        flag="--pooling",
        unset="the family's; of a sentence-transformers folder the one that it was trained with",
        when={"kind": ("classification", "regression", "multiple-choice")},
    )
    hidden_sizes: tuple[int, ...] | None = option(
        None,
        help="Widths of the head's hidden layers, such as 256,128; empty for none.",
        flag="--hidden-sizes",
        unset="the family's",
    )
    activation: HeadActivation | None = option(
        None, help="Activation of the hidden layers.", flag="--activation", unset="the family's"
    )
    norm: HeadNorm | None = option(
        None,
        help="Normalization of the hidden layers: batch before the activation, layer after it.",
        flag="--norm",
        unset="the family's",
    )
    bias: bool | None = option(None, help="Whether the hidden layers have biases.", unset="the family's")
    dropout: float = option(
        0.1,
        help="Dropout of the head, before the output layer and after each hidden layer but the last.",
        flag="--head-dropout",
    )

    def __post_init__(self) -> None:
        for width in self.hidden_sizes or ():
            if not 0 < width <= LARGEST_HIDDEN:
                raise PalavraError(f"head.hidden_sizes has a layer of {width}: widths must be 1 to {LARGEST_HIDDEN:,}")
        if not 0 <= self.dropout < 1:
            raise PalavraError(f"head.dropout is {self.dropout}: it must be at least 0 and below 1")

    def resolved(self, own: "HeadConfig") -> "HeadConfig":
        """Return this head with the family's `own` values where it has none. If it names its hidden layers, the others
        are those of a plain head (ReLU, no normalization, with biases)."""
        plain = HeadConfig(activation="relu", norm="off", bias=True)
        base = own if self.hidden_sizes is None else replace(plain, pooling=own.pooling, hidden_sizes=self.hidden_sizes)
        values = {name: getattr(self, name) for name in ("pooling", "activation", "norm", "bias")}
        return replace(base, dropout=self.dropout, **without_none(**values))


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """The output layer of a classifier."""

    name: OutputName = option(
        "softmax",
        help="Output layer; the others than softmax are for very many classes. The scores of negative-sampling are no "
        "probabilities.",
        flag="--output",
    )
    tree: TreeName = option("huffman", help="Tree over the classes.", when={"name": ("hierarchical",)})
    samples: int = option(
        1024, help="Negatives drawn a step, at most the number of classes.", when={"name": ("sampled",)}
    )
    negatives: int = option(
        20,
        help="Wrong classes drawn for each example, at most all of them.",
        when={"name": ("negative-sampling",)},
    )

    def __post_init__(self) -> None:
        for name, value, known in (("name", self.name, OutputName), ("tree", self.tree, TreeName)):
            if value not in get_args(known):
                raise PalavraError(f"output.{name} is {value!r}: use {', '.join(get_args(known))}")
        for name in ("samples", "negatives"):
            if getattr(self, name) < 1:
                raise PalavraError(f"output.{name} is {getattr(self, name)}: it must be at least 1")
