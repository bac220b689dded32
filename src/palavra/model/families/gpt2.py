"""GPT-2 (Radford et al. 2019): learned positions, pre-norm, GELU, causal; its matrices are stored transposed."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import Family, Key, Values
from palavra.model.families.parsing import flag, number


def _read_rest(values: Values) -> dict[str, Any]:
    if values.get("add_cross_attention"):
        raise PalavraError("a GPT-2 with cross-attention is not supported; use a plain language model")
    if not flag(values, "scale_attn_weights", True) or flag(values, "scale_attn_by_inverse_layer_idx", False):
        raise PalavraError("only attention scaled by the square root of a head's width is supported for GPT-2")
    if values.get("n_inner") is None:
        return {"intermediate_size": 4 * number(values, "n_embd", int)}
    return {"intermediate_size": number(values, "n_inner", int)}


GPT2 = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    body="transformer",
    fixed={
        "norm": "pre", "positions": "learned", "gated": False, "causal": True, "embedding_norm": False,
        "activation": "gelu_tanh", "norm_bias": True, "attention_bias": True, "mlp_bias": True, "head_transform": False,
        "decoder_bias": False,
    },
    config={
        "hidden_size": Key("n_embd"),
        "num_layers": Key("n_layer"),
        "num_heads": Key("n_head"),
        "context": Key("n_positions", 1024),
        "activation": Key("activation_function", "gelu_new"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "tied_embeddings": Key("tie_word_embeddings", True),
        "dropout": Key("resid_pdrop", 0.1),
        "attention_dropout": Key("attn_pdrop", 0.1),
    },
    read_rest=_read_rest,
    write_rest=lambda config: {"n_inner": config.intermediate_size, "embd_pdrop": config.dropout},
    weights={
        "transformer.embeddings.token": "transformer.wte",
        "transformer.embeddings.position": "transformer.wpe",
        "transformer.final_norm": "transformer.ln_f",
        "head": "lm_head",
    },
    layers="transformer.h",
    layer_weights={
        "attention_norm": ("ln_1",),
        "attention.qkv": ("attn.c_attn",),
        "attention.out": ("attn.c_proj",),
        "mlp_norm": ("ln_2",),
        "mlp.up": ("mlp.c_fc",),
        "mlp.down": ("mlp.c_proj",),
    },
    transposed=("attention.qkv", "attention.out", "mlp.up", "mlp.down"),
    task_format=causal_task_format("GPT2", token_output="classifier", dropout="classifier_dropout"),
)  # fmt: skip
