"""GPT-2 (Radford et al. 2019): learned positions, pre-norm, GELU, causal; its matrices are stored transposed."""

from collections.abc import Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import LayerKind, ModelConfig
from palavra.model.families.reading import ACTIVATION_WRITTEN, activation, flag, number, optional_id
from palavra.model.families.storage import Stored


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
    return ModelConfig(
        family="gpt2",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        context=context,
        intermediate_size=intermediate_size or 4 * hidden_size,
        **{**_fixed(num_layers), **changes},
    )


def _fixed(num_layers: int) -> dict[str, Any]:
    """What every model of this family has in common."""
    kinds: list[LayerKind] = ["global"] * min(num_layers, 2**10)
    return {
        "norm": "pre", "positions": "learned", "gated": False, "causal": True, "embedding_norm": False,
        "layer_kinds": tuple(kinds), "activation": "gelu_tanh", "norm_bias": True, "attention_bias": True,
        "mlp_bias": True, "decoder_bias": False,
    }  # fmt: skip


def read(values: Mapping[str, Any]) -> ModelConfig:
    """The neutral configuration of a `config.json`."""
    if values.get("add_cross_attention"):
        raise PalavraError("a GPT-2 with cross-attention is not supported; use a plain language model")
    if not flag(values, "scale_attn_weights", True) or flag(values, "scale_attn_by_inverse_layer_idx", False):
        raise PalavraError("only attention scaled by the square root of a head's width is supported for GPT-2")
    num_layers, hidden_size = number(values, "n_layer", int), number(values, "n_embd", int)
    inner = 4 * hidden_size if values.get("n_inner") is None else number(values, "n_inner", int)
    return ModelConfig(
        family="gpt2",
        vocab_size=number(values, "vocab_size", int),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=number(values, "n_head", int),
        intermediate_size=inner,
        context=number(values, "n_positions", int, 1024),
        norm_eps=number(values, "layer_norm_epsilon", float, 1e-5),
        tied_embeddings=flag(values, "tie_word_embeddings", True),
        dropout=number(values, "resid_pdrop", float, 0.1),
        attention_dropout=number(values, "attn_pdrop", float, 0.1),
        pad_id=optional_id(values, "pad_token_id"),
        initializer_range=number(values, "initializer_range", float, 0.02),
        **{**_fixed(num_layers), "activation": activation(values, "activation_function", "gelu_new")},
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model of this family."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.intermediate_size,
        "n_positions": config.context,
        "activation_function": ACTIVATION_WRITTEN[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": config.initializer_range,
    }


def keys(config: ModelConfig) -> dict[str, Stored]:
    """Our parameter names -> those of `GPT2LMHeadModel`, whose layers hold their matrices as (in, out)."""
    names = {
        "transformer.embeddings.token.weight": Stored(("transformer.wte.weight",)),
        "transformer.embeddings.position.weight": Stored(("transformer.wpe.weight",)),
        "head.weight": Stored(("lm_head.weight",)),
    }
    for leaf in ("weight", "bias"):
        names[f"transformer.final_norm.{leaf}"] = Stored((f"transformer.ln_f.{leaf}",))
    norms = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
    maps = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"}
    maps |= {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    for i in range(config.num_layers):
        for leaf in ("weight", "bias"):
            for ours, theirs in {**norms, **maps}.items():
                names[f"transformer.layers.{i}.{ours}.{leaf}"] = Stored(
                    (f"transformer.h.{i}.{theirs}.{leaf}",), transposed=leaf == "weight" and ours in maps
                )
    return names


def repeats(config: ModelConfig) -> dict[str, str]:
    """`GPT2LMHeadModel` holds nothing twice."""
    del config
    return {}
