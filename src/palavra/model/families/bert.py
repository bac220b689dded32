"""BERT (Devlin et al. 2019, arXiv:1810.04805): learned positions, segments, post-norm, GELU."""

from collections.abc import Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import LayerKind, ModelConfig
from palavra.model.families.reading import ACTIVATION_WRITTEN, activation, flag, number, optional_id


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
    """A fresh configuration with the published proportions."""
    values: dict[str, Any] = {"segments": 2, "norm_eps": 1e-12}
    return ModelConfig(
        family="bert",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        context=context,
        intermediate_size=intermediate_size or 4 * hidden_size,
        norm="post",
        positions="learned",
        gated=False,
        layer_kinds=_all_global(num_layers),
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        head_bias=True,
        **{**values, **changes},
    )


def _all_global(num_layers: int) -> tuple[LayerKind, ...]:
    kinds: list[LayerKind] = ["global"] * num_layers
    return tuple(kinds)


def read(values: Mapping[str, Any]) -> ModelConfig:
    """The neutral configuration of a `config.json`."""
    if values.get("is_decoder") or values.get("add_cross_attention"):
        raise PalavraError("a BERT decoder is not supported; use an encoder")
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise PalavraError("only absolute position embeddings are supported for BERT")
    num_layers = number(values, "num_hidden_layers", int)
    act = activation(values, "hidden_act")
    return ModelConfig(
        family="bert",
        vocab_size=number(values, "vocab_size", int),
        hidden_size=number(values, "hidden_size", int),
        num_layers=num_layers,
        num_heads=number(values, "num_attention_heads", int),
        intermediate_size=number(values, "intermediate_size", int),
        context=number(values, "max_position_embeddings", int, 512),
        norm="post",
        positions="learned",
        gated=False,
        layer_kinds=_all_global(min(num_layers, 2**10)),
        segments=number(values, "type_vocab_size", int, 2),
        activation=act,
        head_activation=act,
        norm_eps=number(values, "layer_norm_eps", float, 1e-12),
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        head_bias=True,
        decoder_bias=True,
        tied_embeddings=flag(values, "tie_word_embeddings", True),
        dropout=number(values, "hidden_dropout_prob", float, 0.1),
        attention_dropout=number(values, "attention_probs_dropout_prob", float, 0.1),
        pad_id=optional_id(values, "pad_token_id"),
        initializer_range=number(values, "initializer_range", float, 0.02),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model of this family."""
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.context,
        "type_vocab_size": config.segments,
        "hidden_act": ACTIVATION_WRITTEN[config.activation],
        "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.initializer_range,
    }


def keys(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter names -> those of `BertForMaskedLM`; its three projections are one of ours."""
    names: dict[str, tuple[str, ...]] = {
        "transformer.embeddings.token.weight": ("bert.embeddings.word_embeddings.weight",),
        "transformer.embeddings.position.weight": ("bert.embeddings.position_embeddings.weight",),
        "transformer.embeddings.segment.weight": ("bert.embeddings.token_type_embeddings.weight",),
        # Of the two biases that it writes where embeddings are untied, transformers adds the decoder's.
        "head.bias": ("cls.predictions.bias" if config.tied_embeddings else "cls.predictions.decoder.bias",),
        "head.weight": ("cls.predictions.decoder.weight",),
    }
    for leaf in ("weight", "bias"):
        names[f"transformer.embeddings.norm.{leaf}"] = (f"bert.embeddings.LayerNorm.{leaf}",)
        names[f"head.dense.{leaf}"] = (f"cls.predictions.transform.dense.{leaf}",)
        names[f"head.norm.{leaf}"] = (f"cls.predictions.transform.LayerNorm.{leaf}",)
    parts = {
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "mlp.up": ("intermediate.dense",),
        "mlp.down": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    }
    for i in range(config.num_layers):
        for ours, theirs in parts.items():
            for leaf in ("weight", "bias"):
                names[f"transformer.layers.{i}.{ours}.{leaf}"] = tuple(
                    f"bert.encoder.layer.{i}.{name}.{leaf}" for name in theirs
                )
    return names


def repeats(config: ModelConfig) -> dict[str, str]:
    """Names under which `BertForMaskedLM` holds a second copy of a parameter, and the first one's name."""
    return {} if config.tied_embeddings else {"cls.predictions.bias": "cls.predictions.decoder.bias"}
