"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): RoPE, GeGLU, pre-norm, alternating local attention."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import HeadConfig, LayerKind, ModelConfig
from palavra.model.families.family import SIZES, Family, Form, Key, TaskFormat, Values
from palavra.model.families.parsing import number
from palavra.model.families.windows import LAYER_TYPES, every, layer_types, layers_of, read_layer_kinds

GLOBAL_EVERY = 3
WINDOW = 64
THETA_SHORT = 10_000.0
THETA_LONG = 160_000.0


def _read_rest(values: Values) -> dict[str, Any]:
    return {
        "layer_kinds": _read_kinds(values),
        "window": number(values, "local_attention", int, 2 * WINDOW) // 2,
        "rope_theta_global": _read_theta(values, "full_attention", "global_rope_theta", THETA_LONG),
        "rope_theta_local": _read_theta(values, "sliding_attention", "local_rope_theta", THETA_SHORT),
    }


def _read_kinds(values: Values) -> tuple[LayerKind, ...]:
    """Return the kinds of layers; without `layer_types`, every third one is global."""
    step = max(1, number(values, "global_attn_every_n_layers", int, GLOBAL_EVERY))
    return read_layer_kinds(values, every(step, layers_of(values)))


def _read_theta(values: Values, layer_type: str, old_key: str, default: float) -> float:
    """Return the base of the rotary angles of one kind of layer, in the layout of transformers 4 or 5."""
    nested = values.get("rope_parameters")
    of_type = nested.get(layer_type) if isinstance(nested, dict) else None
    if not isinstance(of_type, dict):
        return number(values, old_key, float, default)
    if of_type.get("rope_type", "default") != "default":
        raise PalavraError(f"rope_type {of_type['rope_type']!r} is not supported, only 'default'")
    return number(of_type, "rope_theta", float, default)


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    thetas = {"global": config.rope_theta_global, "local": config.local_theta}
    return {
        "layer_types": layer_types(config),
        "local_attention": 2 * config.window,
        "rope_parameters": {
            name: {"rope_type": "default", "rope_theta": thetas[kind]} for kind, name in LAYER_TYPES.items()
        },
        "embedding_dropout": config.dropout,
    }


def _proportions(values: Values) -> dict[str, Any]:
    """Return global layers at every third place, as published, if a sequence can be longer than the local window. In
    shorter contexts all layers are global: local attention would compute the same more slowly."""
    long = values["context"] > 2 * WINDOW
    return {
        "layer_kinds": every(GLOBAL_EVERY if long else 1, values["num_layers"]),
        "window": WINDOW,
        "rope_theta_global": THETA_LONG if long else THETA_SHORT,
        "rope_theta_local": THETA_SHORT,
    }


def _own_head(config: ModelConfig, form: Form) -> HeadConfig:
    width, act = (config.hidden_size,), config.head_activation
    return HeadConfig(pooling="mean", hidden_sizes=width, activation=act, norm="layer", bias=config.head_bias)


def _read_head(values: Values) -> HeadConfig:
    pooling, dropout = values.get("classifier_pooling"), number(values, "classifier_dropout", float, 0.0)
    return HeadConfig(pooling=pooling if pooling in ("cls", "mean") else None, dropout=dropout)


MODERNBERT = Family(
    name="modernbert",
    architecture="ModernBertForMaskedLM",
    body="model",
    fixed={"norm": "pre", "positions": "rotary", "gated": True},
    config={
        **SIZES,
        "context": Key("max_position_embeddings", 8192),
        "activation": Key("hidden_activation", "gelu"),
        "head_activation": Key("classifier_activation", "gelu"),
        "norm_eps": Key("norm_eps", 1e-5),
        "norm_bias": Key("norm_bias", False),
        "attention_bias": Key("attention_bias", False),
        "mlp_bias": Key("mlp_bias", False),
        "head_bias": Key("classifier_bias", False),
        "decoder_bias": Key("decoder_bias", True),
        "tied_embeddings": Key("tie_word_embeddings", True),
        "dropout": Key("mlp_dropout", 0.0),
        "attention_dropout": Key("attention_dropout", 0.0),
    },
    read_rest=_read_rest,
    write_rest=_write_rest,
    weights={
        "transformer.embeddings.token": "model.embeddings.tok_embeddings",
        "transformer.embeddings.norm": "model.embeddings.norm",
        "transformer.final_norm": "model.final_norm",
        "head.dense": "head.dense",
        "head.norm": "head.norm",
        "head": "decoder",
    },
    layers="model.layers",
    layer_weights={
        "attention_norm": ("attn_norm",),
        "attention.qkv": ("attn.Wqkv",),
        "attention.out": ("attn.Wo",),
        "mlp_norm": ("mlp_norm",),
        "mlp.up": ("mlp.Wi",),
        "mlp.down": ("mlp.Wo",),
    },
    proportions=_proportions,
    task_format=TaskFormat(
        prefix="ModernBert",
        own=_own_head,
        poolings=("cls", "mean"),
        keys=lambda form: {"layers.0.dense": "head.dense", "layers.0.layer_norm": "head.norm", "output": "classifier"},
        config=lambda head: {"classifier_dropout": head.dropout, "classifier_pooling": head.pooling},
        read=_read_head,
    ),
)
