"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): RoPE, GeGLU, pre-norm, alternating local attention."""

from collections.abc import Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import LayerKind, ModelConfig
from palavra.model.families.reading import ACTIVATION_WRITTEN, activation, flag, number, optional_id

KIND_READ: dict[str, LayerKind] = {"full_attention": "global", "sliding_attention": "local"}
KIND_WRITTEN: dict[LayerKind, str] = {kind: name for name, kind in KIND_READ.items()}
GLOBAL_EVERY = 3
WINDOW = 64
THETA_SHORT = 10_000.0
THETA_LONG = 160_000.0


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
    """A fresh configuration. Every third layer is global, as published, where a sequence can outgrow the
    local window; in shorter contexts local attention would be the same thing slower, so all layers are global.
    """
    reaches_past_window = context > 2 * WINDOW
    kinds: list[LayerKind] = [
        "local" if reaches_past_window and i % GLOBAL_EVERY else "global" for i in range(num_layers)
    ]
    values: dict[str, Any] = {
        "layer_kinds": tuple(kinds),
        "window": WINDOW,
        "rope_theta_global": THETA_LONG if reaches_past_window else THETA_SHORT,
        "rope_theta_local": THETA_SHORT,
    }
    return ModelConfig(
        family="modernbert",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        context=context,
        # Two thirds of the usual 4 D: a gated part has three matrices where a plain one has two.
        intermediate_size=intermediate_size or -(-8 * hidden_size // 3 // 32) * 32,
        norm="pre",
        positions="rotary",
        gated=True,
        **{**values, **changes},
    )


def read(values: Mapping[str, Any]) -> ModelConfig:
    """The neutral configuration of a `config.json`, in the layout of transformers 4 or 5."""
    num_layers = number(values, "num_hidden_layers", int)
    return ModelConfig(
        family="modernbert",
        vocab_size=number(values, "vocab_size", int),
        hidden_size=number(values, "hidden_size", int),
        num_layers=num_layers,
        num_heads=number(values, "num_attention_heads", int),
        intermediate_size=number(values, "intermediate_size", int),
        context=number(values, "max_position_embeddings", int, 8192),
        norm="pre",
        positions="rotary",
        gated=True,
        layer_kinds=_layer_kinds(values, num_layers),
        window=number(values, "local_attention", int, 128) // 2,
        activation=activation(values, "hidden_activation"),
        head_activation=activation(values, "classifier_activation"),
        norm_eps=number(values, "norm_eps", float, 1e-5),
        norm_bias=flag(values, "norm_bias", False),
        attention_bias=flag(values, "attention_bias", False),
        mlp_bias=flag(values, "mlp_bias", False),
        head_bias=flag(values, "classifier_bias", False),
        decoder_bias=flag(values, "decoder_bias", True),
        tied_embeddings=flag(values, "tie_word_embeddings", True),
        rope_theta_global=_theta(values, "full_attention", "global_rope_theta", 160_000.0),
        rope_theta_local=_theta(values, "sliding_attention", "local_rope_theta", 10_000.0),
        dropout=number(values, "mlp_dropout", float, 0.0),
        attention_dropout=number(values, "attention_dropout", float, 0.0),
        pad_id=optional_id(values, "pad_token_id"),
        initializer_range=number(values, "initializer_range", float, 0.02),
    )


def _layer_kinds(values: Mapping[str, Any], num_layers: int) -> tuple[LayerKind, ...]:
    names = values.get("layer_types")
    if names is None:
        every = max(1, number(values, "global_attn_every_n_layers", int, GLOBAL_EVERY))
        return tuple("local" if i % every else "global" for i in range(min(num_layers, 2**10)))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PalavraError("layer_types is not a list of names")
    if unknown := sorted(set(names) - set(KIND_READ)):
        raise PalavraError(f"layer type {unknown[0][:40]!r} is not supported; known: {', '.join(KIND_READ)}")
    return tuple(KIND_READ[name] for name in names)


def _theta(values: Mapping[str, Any], layer_type: str, old_key: str, default: float) -> float:
    nested = values.get("rope_parameters")
    of_type = nested.get(layer_type) if isinstance(nested, dict) else None
    if not isinstance(of_type, dict):
        return number(values, old_key, float, default)
    if of_type.get("rope_type", "default") != "default":
        raise PalavraError(f"rope_type {of_type['rope_type']!r} is not supported, only 'default'")
    return number(of_type, "rope_theta", float, default)


def write(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model of this family."""
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.context,
        "layer_types": [KIND_WRITTEN[kind] for kind in config.layer_kinds],
        "local_attention": 2 * config.window,
        "hidden_activation": ACTIVATION_WRITTEN[config.activation],
        "classifier_activation": ACTIVATION_WRITTEN[config.head_activation],
        "norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "classifier_bias": config.head_bias,
        "decoder_bias": config.decoder_bias,
        "tie_word_embeddings": config.tied_embeddings,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": config.rope_theta_global},
            "sliding_attention": {"rope_type": "default", "rope_theta": config.rope_theta_local},
        },
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initializer_range,
    }


def keys(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter names -> those of `ModernBertForMaskedLM`."""
    names = {
        "transformer.embeddings.token.weight": "model.embeddings.tok_embeddings.weight",
        "transformer.embeddings.norm.weight": "model.embeddings.norm.weight",
        "transformer.embeddings.norm.bias": "model.embeddings.norm.bias",
        "transformer.final_norm.weight": "model.final_norm.weight",
        "transformer.final_norm.bias": "model.final_norm.bias",
        "head.dense.weight": "head.dense.weight",
        "head.dense.bias": "head.dense.bias",
        "head.norm.weight": "head.norm.weight",
        "head.norm.bias": "head.norm.bias",
        "head.bias": "decoder.bias",
        "head.weight": "decoder.weight",
    }
    parts = {
        "attention_norm": "attn_norm",
        "attention.qkv": "attn.Wqkv",
        "attention.out": "attn.Wo",
        "mlp_norm": "mlp_norm",
        "mlp.up": "mlp.Wi",
        "mlp.down": "mlp.Wo",
    }
    for i in range(config.num_layers):
        for ours, theirs in parts.items():
            for leaf in ("weight", "bias"):
                names[f"transformer.layers.{i}.{ours}.{leaf}"] = f"model.layers.{i}.{theirs}.{leaf}"
    return {ours: (theirs,) for ours, theirs in names.items()}


def repeats(config: ModelConfig) -> dict[str, str]:
    """`ModernBertForMaskedLM` holds nothing twice."""
    del config
    return {}
