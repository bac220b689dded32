"""GPT-NeoX (Black et al. 2022, arXiv:2204.06745) and Pythia: attention and feed-forward part side by side."""

from typing import Any

from palavra.model.config import ModelConfig
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import SIZES, Family, Key, Values
from palavra.model.families.parsing import flag, number
from palavra.model.families.rope import read_rope, write_rope

THETA, ROTATED = 10_000.0, 0.25


def _read_rest(values: Values) -> dict[str, Any]:
    nested = values.get("rope_parameters")
    share = nested if isinstance(nested, dict) and "partial_rotary_factor" in nested else values
    return {
        **read_rope(values, THETA),
        "rotary_fraction": number(share, "partial_rotary_factor", float, ROTATED),
        "norm": "parallel" if flag(values, "use_parallel_residual", True) else "pre",
    }


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    rope = write_rope(config)
    share = {"partial_rotary_factor": config.rotary_fraction}
    return {
        "rope_parameters": rope["rope_parameters"] | share,
        "rotary_emb_base": config.rope_theta_global,
        "rotary_pct": config.rotary_fraction,
        "use_parallel_residual": config.norm == "parallel",
    }


GPT_NEOX = Family(
    name="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    body="gpt_neox",
    fixed={
        "norm": "parallel", "positions": "rotary", "gated": False, "causal": True, "embedding_norm": False,
        "norm_bias": True, "attention_bias": True, "mlp_bias": True, "head_transform": False, "decoder_bias": False,
        "rotary_fraction": ROTATED, "rope_theta_global": THETA,
    },
    config={
        **SIZES,
        "context": Key("max_position_embeddings", 2048),
        "activation": Key("hidden_act", "gelu"),
        "norm_eps": Key("layer_norm_eps", 1e-5),
        "attention_bias": Key("attention_bias", True),
        "tied_embeddings": Key("tie_word_embeddings", False),
        "dropout": Key("hidden_dropout", 0.0),
        "attention_dropout": Key("attention_dropout", 0.0),
    },
    older_names={"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"},
    read_rest=_read_rest,
    write_rest=_write_rest,
    weights={
        "transformer.embeddings.token": "gpt_neox.embed_in",
        "transformer.final_norm": "gpt_neox.final_layer_norm",
        "head": "embed_out",
    },
    layers="gpt_neox.layers",
    layer_weights={
        "attention_norm": ("input_layernorm",),
        "attention.qkv": ("attention.query_key_value",),
        "attention.out": ("attention.dense",),
        "mlp_norm": ("post_attention_layernorm",),
        "mlp.up": ("mlp.dense_h_to_4h",),
        "mlp.down": ("mlp.dense_4h_to_h",),
    },
    interleaved=("attention.qkv",),
    task_format=causal_task_format("GPTNeoX", token_output="classifier", dropout="classifier_dropout"),
)  # fmt: skip
