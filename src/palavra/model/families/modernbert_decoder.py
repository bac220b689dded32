"""The causal sibling of ModernBERT (Ettin, Weller et al. 2025, arXiv:2507.11412)."""

from dataclasses import replace
from typing import Any

from palavra.model.config import HeadConfig, ModelConfig
from palavra.model.families.family import Form, TaskFormat, Values
from palavra.model.families.modernbert import MODERNBERT, WINDOW
from palavra.model.families.parsing import number


def _read_rest(values: Values) -> dict[str, Any]:
    # Half of `local_attention` tokens, the token itself included.
    window = max(0, number(values, "local_attention", int, 2 * WINDOW) // 2 - 1)
    return {**MODERNBERT.read_rest(values), "window": window}


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    return {**MODERNBERT.write_rest(config), "local_attention": 2 * (config.window + 1)}


def _own_head(config: ModelConfig, form: Form) -> HeadConfig:
    width, act = (config.hidden_size,), config.head_activation
    return HeadConfig(pooling="lasttoken", hidden_sizes=width, activation=act, norm="layer", bias=config.head_bias)


MODERNBERT_DECODER = replace(
    MODERNBERT,
    name="modernbert-decoder",
    architecture="ModernBertDecoderForCausalLM",
    fixed={**MODERNBERT.fixed, "causal": True},
    read_rest=_read_rest,
    write_rest=_write_rest,
    weights={**MODERNBERT.weights, "head.dense": "lm_head.dense", "head.norm": "lm_head.norm"},
    layer_weights={**MODERNBERT.layer_weights, "attention.qkv": ("attn.q_proj", "attn.k_proj", "attn.v_proj")},
    proportions=lambda values: {**MODERNBERT.proportions(values), "pad_id": values["pad_id"] or 0},
    task_format=TaskFormat(
        prefix="ModernBertDecoder",
        own=_own_head,
        poolings=("lasttoken",),
        keys=lambda form: {"layers.0.dense": "head.dense", "layers.0.layer_norm": "head.norm", "output": "classifier"},
        config=lambda head: {"classifier_dropout": head.dropout},
        read=lambda values: HeadConfig(dropout=number(values, "classifier_dropout", float, 0.0)),
        forms=("SequenceClassification",),
        unbiased=("SequenceClassification",),
    ),
)
