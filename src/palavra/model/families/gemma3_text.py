"""Gemma 3 (Gemma Team 2025, arXiv:2503.19786), its text models: norms on both sides of each part, local layers."""

from dataclasses import replace
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import ModelConfig
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import Values
from palavra.model.families.llama import LLAMA, proportions, read_heads, write_heads
from palavra.model.families.parsing import flag, number
from palavra.model.families.rope import read_scaling, rope_entry
from palavra.model.families.windows import every, layer_types, layers_of, read_layer_kinds

HEAD_DIM, WINDOW, GLOBAL_EVERY = 256, 4096, 6
THETA_LONG, THETA_SHORT = 1_000_000.0, 10_000.0
NEW_WINDOW = 512


def _read_rest(values: Values) -> dict[str, Any]:
    for name in ("final_logit_softcapping", "attn_logit_softcapping"):
        if values.get(name) is not None:
            raise PalavraError(f"{name} is not supported")
    step = max(1, number(values, "sliding_window_pattern", int, GLOBAL_EVERY))
    scalar = number(values, "query_pre_attn_scalar", float, 256.0)
    if scalar <= 0:
        raise PalavraError(f"query_pre_attn_scalar is {scalar}: it must be above 0")
    both_ways, size = flag(values, "use_bidirectional_attention", False), number(values, "sliding_window", int, WINDOW)
    return {
        **read_heads(values, HEAD_DIM),
        **_read_angles(values),
        "layer_kinds": read_layer_kinds(values, every(step, layers_of(values), offset=step - 1)),
        "causal": not both_ways,
        "window": size // 2 if both_ways else max(0, size - 1),
        "attention_scale": scalar**-0.5,
    }


def _read_angles(values: Values) -> dict[str, Any]:
    """Return the fields for rotary positions: one entry for each kind of layer, or the older names."""
    nested = values.get("rope_parameters")
    entries = nested if isinstance(nested, dict) else {}
    long, short = (entries.get(name) or {} for name in ("full_attention", "sliding_attention"))
    older = values.get("rope_scaling") or {}
    if not all(isinstance(entry, dict) for entry in (long, short, older)):
        raise PalavraError("rope_parameters does not have an object for each kind of layer")
    if short.get("rope_type", "default") != "default":
        raise PalavraError("scaled rotary positions are not supported in local layers")
    return {
        "rope_theta_global": number({**values, **long}, "rope_theta", float, THETA_LONG),
        "rope_theta_local": number({"rope_theta": values.get("rope_local_base_freq", THETA_SHORT), **short},
                                   "rope_theta", float),
        "rope_scaling": read_scaling(long or older, values),
    }  # fmt: skip


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    scale = config.head_width**-0.5 if config.attention_scale is None else config.attention_scale
    return {
        **write_heads(config),
        "rope_parameters": {
            "full_attention": rope_entry(config.rope_theta_global, config.rope_scaling),
            "sliding_attention": rope_entry(config.local_theta, None),
        },
        "layer_types": layer_types(config),
        "use_bidirectional_attention": not config.causal,
        "sliding_window": config.window + 1 if config.causal else 2 * config.window,
        "query_pre_attn_scalar": round(scale**-2),
    }


def _proportions(values: Values) -> dict[str, Any]:
    """Return Llama's proportions; five layers of six are local if a sequence can be longer than their window."""
    layers, units = values["num_layers"], values["hidden_size"] // values["num_heads"]
    local = values["context"] > NEW_WINDOW
    kinds = every(GLOBAL_EVERY, layers, offset=GLOBAL_EVERY - 1) if local else ("global",) * layers
    return {
        **proportions(values), "layer_kinds": kinds, "window": NEW_WINDOW - 1, "attention_scale": units**-0.5,
        "rope_theta_global": THETA_LONG if local else THETA_SHORT, "rope_theta_local": THETA_SHORT,
    }  # fmt: skip


GEMMA3_TEXT = replace(
    LLAMA,
    name="gemma3_text",
    architecture="Gemma3ForCausalLM",
    fixed={
        **LLAMA.fixed, "norm": "sandwich", "norm_kind": "rms_plus_one", "qk_norm": True, "scaled_embeddings": True,
        "activation": "gelu_tanh",
    },
    config={
        **{name: key for name, key in LLAMA.config.items() if name != "mlp_bias"},
        "context": LLAMA.config["context"]._replace(default=131072),
        "activation": LLAMA.config["activation"]._replace(name="hidden_activation", default="gelu_pytorch_tanh"),
        "tied_embeddings": LLAMA.config["tied_embeddings"]._replace(default=True),
    },
    read_rest=_read_rest,
    write_rest=_write_rest,
    layer_weights={
        **LLAMA.layer_weights,
        "attention.q_norm": ("self_attn.q_norm",),
        "attention.k_norm": ("self_attn.k_norm",),
        "attention_out_norm": ("post_attention_layernorm",),
        "mlp_norm": ("pre_feedforward_layernorm",),
        "mlp_out_norm": ("post_feedforward_layernorm",),
    },
    proportions=_proportions,
    task_format=causal_task_format("Gemma3Text", forms=("SequenceClassification",)),
)  # fmt: skip
