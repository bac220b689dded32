"""Llama (Touvron et al. 2023, arXiv:2302.13971): RoPE, RMSNorm, SwiGLU, grouped-query attention, causal."""

from typing import Any

from palavra.model.config import ModelConfig
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import SIZES, Family, Key, Values
from palavra.model.families.parsing import number
from palavra.model.families.rope import read_rope, write_rope

THETA = 10_000.0


def read_heads(values: Values, head_dim: int | None = None) -> dict[str, Any]:
    """Return the fields for grouped-query attention. `head_dim`: its value if the entry is absent (None: the width
    divided by the heads)."""
    width, num_heads = number(values, "hidden_size", int), number(values, "num_attention_heads", int)
    shared = num_heads if values.get("num_key_value_heads") is None else number(values, "num_key_value_heads", int)
    found: dict[str, Any] = {"num_kv_heads": shared}
    if "head_dim" in values and values["head_dim"] is not None:
        head_dim = number(values, "head_dim", int)
    if head_dim is not None and head_dim * num_heads != width:
        found["head_dim"] = head_dim
    return found


def write_heads(config: ModelConfig) -> dict[str, Any]:
    """Return the entries of `config.json`; undoes `read_heads`."""
    return {"num_key_value_heads": config.shared_heads, "head_dim": config.head_width}


def proportions(values: Values) -> dict[str, Any]:
    """Return groups of up to four query heads, at least two if the heads divide so, and tied embeddings, as in the
    small models of this family."""
    num_heads = values["num_heads"]
    groups = (num_heads // size for size in (4, 3, 2) if num_heads % size == 0 and num_heads // size > 1)
    return {"num_kv_heads": next(groups, num_heads), "tied_embeddings": True, "rope_theta_global": THETA}


LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    body="model",
    fixed={
        "norm": "pre", "norm_kind": "rms", "positions": "rotary", "gated": True, "causal": True,
        "embedding_norm": False, "activation": "silu", "head_transform": False, "decoder_bias": False,
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
    read_rest=lambda values: {**read_heads(values), **read_rope(values, THETA)},
    write_rest=lambda config: {**write_heads(config), **write_rope(config)},
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
    proportions=proportions,
    task_format=causal_task_format("Llama", question_answering_body="transformer"),
)  # fmt: skip
