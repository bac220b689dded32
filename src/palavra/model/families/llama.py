"""Llama (Touvron et al. 2023, arXiv:2302.13971): RoPE, RMSNorm, SwiGLU, grouped-query attention, causal."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import ModelConfig
from palavra.model.families.family import SIZES, Family, Key, Values
from palavra.model.families.parsing import number

THETA = 10_000.0


def _read_rest(values: Values) -> dict[str, Any]:
    num_heads, units = number(values, "num_attention_heads", int), values.get("head_dim")
    if units is not None and (not isinstance(units, int) or units * num_heads != number(values, "hidden_size", int)):
        raise PalavraError("head_dim times num_attention_heads is not hidden_size: such a model is not supported")
    shared = num_heads if values.get("num_key_value_heads") is None else number(values, "num_key_value_heads", int)
    return {"num_kv_heads": shared, "rope_theta_global": _read_theta(values)}


def _read_theta(values: Values) -> float:
    """Return the base of the rotary angles, in the layout of transformers 4 or 5. Raises PalavraError if the angles
    are scaled."""
    nested = values.get("rope_parameters")
    scaling = values.get("rope_scaling") if nested is None else nested
    if scaling is not None:
        if not isinstance(scaling, dict):
            raise PalavraError("rope_parameters is not an object")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise PalavraError(f"rope_type {str(kind)[:40]!r} is not supported, only 'default'")
    return number(scaling if scaling and "rope_theta" in scaling else values, "rope_theta", float, THETA)


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    return {
        "num_key_value_heads": config.shared_heads,
        "head_dim": config.head_width,
        # Both layouts: transformers 4 and most other programs read the second.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta_global},
        "rope_theta": config.rope_theta_global,
    }


def _proportions(num_layers: int, num_heads: int, context: int) -> dict[str, Any]:
    """Return groups of up to four query heads, at least two if the heads divide so, and tied embeddings, as in the
    small models of this family."""
    groups = (num_heads // size for size in (4, 3, 2) if num_heads % size == 0 and num_heads // size > 1)
    return {"num_kv_heads": next(groups, num_heads), "tied_embeddings": True, "rope_theta_global": THETA}


LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    fixed={
        "norm": "pre", "norm_kind": "rms", "positions": "rotary", "gated": True, "causal": True,
        "embedding_norm": False, "activation": "silu", "decoder_bias": False,
    },
    config={
        **SIZES,
        "context": Key("max_position_embeddings", 2048),
        "activation": Key("hidden_act", "silu"),
        "norm_eps": Key("rms_norm_eps", 1e-6),
        "attention_bias": Key("attention_bias", False),
        "mlp_bias": Key("mlp_bias", False),
        "tied_embeddings": Key("tie_word_embeddings", False),
        "attention_dropout": Key("attention_dropout", 0.0),
    },
    read_rest=_read_rest,
    write_rest=_write_rest,
    weights={
        "transformer.embeddings.token": "model.embed_tokens",
        "transformer.final_norm": "model.norm",
        "head": "lm_head",
    },
    layers="model.layers",
    layer_weights={
        "attention_norm": ("input_layernorm",),
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.out": ("self_attn.o_proj",),
        "mlp_norm": ("post_attention_layernorm",),
        "mlp.up": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down": ("mlp.down_proj",),
    },
    proportions=_proportions,
)  # fmt: skip
