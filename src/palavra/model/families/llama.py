"""Llama (Touvron et al. 2023, arXiv:2302.13971): RoPE, RMSNorm, SwiGLU, grouped-query attention, causal."""

from collections.abc import Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import LayerKind, ModelConfig
from palavra.model.families.reading import ACTIVATION_WRITTEN, activation, flag, number, optional_id
from palavra.model.families.storage import Stored

THETA = 10_000.0


def new(
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    context: int,
    intermediate_size: int | None = None,
    **changes: Any,
) -> ModelConfig:
    """A fresh configuration: published proportions, embeddings tied as in the small models of this family."""
    values: dict[str, Any] = {"num_kv_heads": _shared_heads(num_heads), "tied_embeddings": True}
    return ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        context=context,
        # Two thirds of the usual 4 D: a gated part has three matrices where a plain one has two.
        intermediate_size=intermediate_size or -(-8 * hidden_size // 3 // 32) * 32,
        **{**_fixed(num_layers), "rope_theta_global": THETA, **values, **changes},
    )


def _shared_heads(num_heads: int) -> int:
    """Groups of up to four query heads, and at least two groups, where the heads divide so."""
    return next((num_heads // size for size in (4, 3, 2) if num_heads % size == 0 and num_heads // size > 1), num_heads)


def _fixed(num_layers: int) -> dict[str, Any]:
    """What every model of this family has in common."""
    kinds: list[LayerKind] = ["global"] * min(num_layers, 2**10)
    return {
        "norm": "pre", "norm_kind": "rms", "positions": "rotary", "gated": True, "causal": True,
        "embedding_norm": False, "layer_kinds": tuple(kinds), "activation": "silu", "decoder_bias": False,
    }  # fmt: skip


def read(values: Mapping[str, Any]) -> ModelConfig:
    """The neutral configuration of a `config.json`, in the layout of transformers 4 or 5."""
    num_layers = number(values, "num_hidden_layers", int)
    hidden_size, num_heads = number(values, "hidden_size", int), number(values, "num_attention_heads", int)
    units = values.get("head_dim")
    if units is not None and (not isinstance(units, int) or units * num_heads != hidden_size):
        raise PalavraError("head_dim times num_attention_heads is not hidden_size: such a model is not supported")
    shared = num_heads if values.get("num_key_value_heads") is None else number(values, "num_key_value_heads", int)
    return ModelConfig(
        family="llama",
        vocab_size=number(values, "vocab_size", int),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=shared,
        intermediate_size=number(values, "intermediate_size", int),
        context=number(values, "max_position_embeddings", int, 2048),
        norm_eps=number(values, "rms_norm_eps", float, 1e-6),
        attention_bias=flag(values, "attention_bias", False),
        mlp_bias=flag(values, "mlp_bias", False),
        tied_embeddings=flag(values, "tie_word_embeddings", False),
        rope_theta_global=_theta(values),
        attention_dropout=number(values, "attention_dropout", float, 0.0),
        pad_id=optional_id(values, "pad_token_id"),
        initializer_range=number(values, "initializer_range", float, 0.02),
        **{**_fixed(num_layers), "activation": activation(values, "hidden_act", "silu")},
    )


def _theta(values: Mapping[str, Any]) -> float:
    """The base of the rotary angles. Raises PalavraError for angles that are scaled."""
    nested = values.get("rope_parameters")
    scaling = values.get("rope_scaling") if nested is None else nested
    if scaling is not None:
        if not isinstance(scaling, dict):
            raise PalavraError("rope_parameters is not an object")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise PalavraError(f"rope_type {str(kind)[:40]!r} is not supported, only 'default'")
    return number(scaling if scaling and "rope_theta" in scaling else values, "rope_theta", float, THETA)


def write(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model of this family."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.shared_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.context,
        "hidden_act": ACTIVATION_WRITTEN[config.activation],
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tied_embeddings,
        # Both layouts: transformers 4 and most other programs read the second.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta_global},
        "rope_theta": config.rope_theta_global,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initializer_range,
    }


def keys(config: ModelConfig) -> dict[str, tuple[str, ...] | Stored]:
    """Our parameter names -> those of `LlamaForCausalLM`; its three projections are one of ours, and so are the
    two that open its feed-forward part."""
    names: dict[str, tuple[str, ...] | Stored] = {
        "transformer.embeddings.token.weight": ("model.embed_tokens.weight",),
        "transformer.final_norm.weight": ("model.norm.weight",),
        "head.weight": ("lm_head.weight",),
    }
    shared = config.shared_heads * config.head_width
    parts = {"attention.out": ("self_attn.o_proj",), "mlp.up": ("mlp.gate_proj", "mlp.up_proj")}
    parts |= {"mlp.down": ("mlp.down_proj",), "attention_norm": ("input_layernorm",)}
    parts |= {"mlp_norm": ("post_attention_layernorm",)}
    for i in range(config.num_layers):
        ours, theirs = f"transformer.layers.{i}", f"model.layers.{i}"
        for leaf in ("weight", "bias"):
            names |= {
                f"{ours}.{name}.{leaf}": tuple(f"{theirs}.{part}.{leaf}" for part in stored)
                for name, stored in parts.items()
            }
            names[f"{ours}.attention.qkv.{leaf}"] = Stored(
                tuple(f"{theirs}.self_attn.{part}_proj.{leaf}" for part in "qkv"), (config.hidden_size, shared, shared)
            )
    return names


def repeats(config: ModelConfig) -> dict[str, str]:
    """`LlamaForCausalLM` holds nothing twice."""
    del config
    return {}
