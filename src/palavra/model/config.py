"""What a transformer is made of, in terms that do not depend on the family it is saved as."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from palavra.config import without_none
from palavra.errors import PalavraError
from palavra.option import option

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
LayerKind = Literal["global", "local", "nope"]
RopeScalingKind = Literal["linear", "llama3", "yarn"]
Precision = Literal["auto", "bfloat16", "float32"]
CompileMode = Literal["auto", "on", "off"]
Pooling = Literal["cls", "mean", "max", "lasttoken", "late"]
HeadActivation = Literal["relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu"]
HeadNorm = Literal["off", "batch", "layer"]
OutputName = Literal["softmax", "hierarchical", "sampled", "adaptive", "negative-sampling"]
TreeName = Literal["huffman", "balanced", "prefix"]

LARGEST_HIDDEN = 2**16

# A directory from elsewhere is read before it is trusted: sizes past these bounds are refused, not allocated.
LARGEST = {
    "vocab_size": 2**22, "hidden_size": 2**15, "num_layers": 2**10, "num_heads": 2**12, "intermediate_size": 2**18,
    "context": 2**22,
}  # fmt: skip
_OPTIONAL = {"window": 2**22, "segments": 2**22, "position_offset": 2**22, "convolution": 2**8}
_BOUNDS = {name: (1, largest) for name, largest in LARGEST.items()} | {
    name: (0, largest) for name, largest in _OPTIONAL.items()
}
_WIDTHS = {"head_dim": (1, 2**12), "embedding_size": (1, 2**15)}


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise PalavraError for a size, by its name in `ModelConfig`, that no model has."""
    for name, size in sizes.items():
        least, largest = (_BOUNDS | _WIDTHS).get(name, (1, math.inf))
        if not least <= size <= largest:
            raise PalavraError(f"model.{name} is {size}: it must be {least} to {largest:,}")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary angles are stretched for a context longer than that of the first training, `original_context`.

    "linear" divides every frequency by `factor` (Chen et al. 2023, arXiv:2306.15595). "llama3" divides only those that
    turn less than `low` times within the original context, none that turn more than `high` times, and interpolates in
    between (Llama 3.1, arXiv:2407.21783). "yarn" interpolates between the units that turn `low` and `high` times (Peng
    et al. 2023, arXiv:2309.00071), whose numbers are rounded to whole units if `rounded`. Cosines and sines are
    multiplied by `attention_factor`.
    """

    kind: RopeScalingKind
    factor: float
    original_context: int = 1
    low: float = 1.0
    high: float = 4.0
    attention_factor: float = 1.0
    rounded: bool = True

    def __post_init__(self) -> None:
        for name in ("factor", "original_context", "low", "high", "attention_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise PalavraError(f"the rotary scaling has a {name} of {getattr(self, name)}: it must be above 0")
        if self.low >= self.high and self.kind != "linear":
            raise PalavraError(f"the rotary scaling goes from {self.low} to {self.high} turns: raise the second")


@dataclass(frozen=True, kw_only=True)
class RelativeAttention:
    """A term of the attention scores that depends on the distance of query and key.

    "bias" adds one number for each head and bucket of distances (Raffel et al. 2020, arXiv:1910.10683; MPNet).
    "disentangled" adds products of queries and keys with vectors of distances (He et al. 2021, arXiv:2006.03654):
    `content_to_position` those of queries, `position_to_content` those of keys. `buckets` B: distances past B / 2 share
    vectors, in ranges that grow up to `max_distance`; without `buckets` each distance up to `max_distance` has its own.
    `shared_projections`: vectors of distances go through the layer's projections of queries and keys, not through
    others of their own. `norm` normalizes them first.
    """

    kind: Literal["bias", "disentangled"]
    buckets: int
    max_distance: int
    content_to_position: bool = True
    position_to_content: bool = True
    shared_projections: bool = True
    norm: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.buckets <= LARGEST["context"] or not 2 <= self.max_distance <= LARGEST["context"]:
            raise PalavraError(
                f"relative attention has {self.buckets} buckets up to a distance of {self.max_distance}: out of bounds"
            )
        if self.kind == "bias" and (self.buckets < 4 or self.max_distance <= self.buckets // 4):
            raise PalavraError(f"a relative bias needs 4 buckets, and distances past a quarter of {self.buckets}")
        if self.kind == "disentangled" and self.buckets and not 2 <= self.buckets // 2 < self.max_distance - 1:
            raise PalavraError(f"{self.buckets} buckets of distances do not fit in {self.max_distance}")

    @property
    def reach(self) -> int:
        """Vectors on either side of distance 0."""
        return self.buckets or self.max_distance


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of one `Transformer`.

    Sizes: `vocab_size` V, `hidden_size` D, `num_heads` H, `intermediate_size` the width inside the feed-forward part,
    `context` the most tokens a sequence may have, `head_dim` units of a head (None: D / H), `embedding_size` the width
    of the embeddings, projected to D (None: D). `layer_kinds` names, layer by layer, who attends to the whole sequence
    ("global"), who only to `window` tokens on either side ("local"), and who attends to the whole sequence without
    rotary positions ("nope", Kazemnejad et al. 2023, arXiv:2305.19466).

    `positions` is "rotary" (RoPE, Su et al. 2021, arXiv:2104.09864; the first `rotary_fraction` of a head's units, in
    global layers with `rope_scaling`; local layers have the same angles unless `rope_theta_local` is theirs), "learned"
    (the first one is number `position_offset` of the matrix) or "none"; `relative` adds a term for the distance of
    tokens. `norm` is where normalization is: before each part ("pre"), after its residual sum ("post"), on both sides
    of it ("sandwich"), or before two parts that read the same vectors ("parallel"). `norm_kind` is "layer" (Ba et al.
    2016), "rms" (Zhang and Sennrich 2019, arXiv:1910.07467) or "rms_plus_one", which multiplies by 1 + weight;
    `embedding_norm` normalizes the embeddings before the first layer, `qk_norm` the queries and keys of each head
    (Henry et al. 2020, arXiv:2010.04245). `scaled_embeddings` multiplies token vectors by sqrt(D) (Vaswani et al. 2017,
    section 3.4).

    `gated` selects the gated feed-forward part (GLU variants, Shazeer 2020, arXiv:2002.05202). `num_kv_heads` heads of
    keys and values are shared by groups of query heads (Ainslie et al. 2023, arXiv:2305.13245; None: one for each).
    `attention_scale` multiplies the scores (None: 1 / sqrt(head_dim)). `attention_out_bias` is that of the output
    projection (None: as `attention_bias`). `convolution`: tokens that a convolution beside the first layer sees (0:
    none), with `convolution_activation`. `head_transform`: a dense layer before the vocabulary. `causal`: a token sees
    only itself and the tokens before it. `mntp`: a masked token is predicted from the vector of the token before it
    (masked next-token prediction, Charpentier and Samuel 2024, arXiv:2410.24159). Dropout rates are fractions of units
    set to zero in training.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    context: int
    norm: Literal["pre", "post", "sandwich", "parallel"]
    positions: Literal["rotary", "learned", "none"]
    gated: bool
    layer_kinds: tuple[LayerKind, ...]
    head_dim: int | None = None
    embedding_size: int | None = None
    position_offset: int = 0
    num_kv_heads: int | None = None
    causal: bool = False
    mntp: bool = False
    norm_kind: Literal["layer", "rms", "rms_plus_one"] = "layer"
    embedding_norm: bool = True
    qk_norm: bool = False
    scaled_embeddings: bool = False
    window: int = 0
    segments: int = 0
    activation: Activation = "gelu"
    head_activation: Activation = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    attention_out_bias: bool | None = None
    attention_scale: float | None = None
    mlp_bias: bool = False
    head_transform: bool = True
    head_bias: bool = False
    decoder_bias: bool = True
    tied_embeddings: bool = True
    rope_theta_global: float = 160_000.0
    rope_theta_local: float | None = None
    rotary_fraction: float = 1.0
    rope_scaling: RopeScaling | None = None
    relative: RelativeAttention | None = None
    convolution: int = 0
    convolution_activation: HeadActivation = "tanh"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    pad_id: int | None = None
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_sizes({name: getattr(self, name) for name in _BOUNDS})
        check_sizes({name: size for name in _WIDTHS if (size := getattr(self, name)) is not None})
        divisors = [("num_heads", "num_kv_heads"), *([("hidden_size", "num_heads")] if self.head_dim is None else [])]
        for name, divisor in divisors:
            size, part = getattr(self, name), getattr(self, divisor)
            if part is not None and (part < 1 or size % part):
                raise PalavraError(f"model.{name} {size} is not a multiple of model.{divisor} {part}: change either")
        if not 0 < self.rotary_fraction <= 1:
            raise PalavraError(f"model.rotary_fraction is {self.rotary_fraction}: it must be above 0 and at most 1")
        if self.positions == "rotary" and (self.rotary_width % 2 or not self.rotary_width):
            raise PalavraError(
                f"rotary positions need an even number of units a head, not {self.rotary_width}: "
                "change model.hidden_size or model.num_heads"
            )
        if len(self.layer_kinds) != self.num_layers:
            raise PalavraError(f"model.layer_kinds names {len(self.layer_kinds)} of {self.num_layers} layers")
        for name in ("norm_eps", "initializer_range", "rope_theta_global", "rope_theta_local", "attention_scale"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise PalavraError(f"model.{name} is {getattr(self, name)}: it must be above 0")
        if "local" in self.layer_kinds and self.window < 1:
            raise PalavraError("model.window must be at least 1 where a layer is local")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise PalavraError(f"model.{name} is {getattr(self, name)}: it must be at least 0 and below 1")

    @property
    def head_width(self) -> int:
        """Units of one attention head."""
        return self.hidden_size // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def rotary_width(self) -> int:
        """Units of one attention head that are rotated."""
        return int(self.head_width * self.rotary_fraction)

    @property
    def local_theta(self) -> float:
        """Base of the rotary angles of local layers."""
        return self.rope_theta_global if self.rope_theta_local is None else self.rope_theta_local

    @property
    def embedding_width(self) -> int:
        """Units of a token vector before its projection, if there is one."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

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
        help="How a text becomes one vector: that of its first token (cls) or its last, the mean or the maximum of "
        "all, or the mean after the head's hidden layers (late).",
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
