"""EuroBERT (Boizard et al. 2025, arXiv:2503.05500): Llama's layers as an encoder."""

from dataclasses import replace
from typing import Any

from palavra.model.config import HeadConfig, ModelConfig, Pooling
from palavra.model.families.family import Form, TaskFormat, Values
from palavra.model.families.llama import LLAMA, THETA, read_heads, write_heads
from palavra.model.families.parsing import flag
from palavra.model.families.rope import read_rope, write_rope

# Names of `classifier_pooling`; "late" is the mean of the tokens' hidden vectors, not the hidden vector of their mean.
POOLINGS: dict[str, Pooling] = {"bos": "cls", "mean": "mean", "late": "late"}


def _read_rest(values: Values) -> dict[str, Any]:
    # The vocabulary has a bias if the feed-forward parts have one.
    return {**read_heads(values), **read_rope(values, THETA), "decoder_bias": flag(values, "mlp_bias", False)}


def _own_head(config: ModelConfig, form: Form) -> HeadConfig:
    hidden_sizes = (config.hidden_size,) if form == "SequenceClassification" else ()
    return HeadConfig(pooling="late", hidden_sizes=hidden_sizes, activation="gelu", norm="off", bias=True)


def _read_head(values: Values) -> HeadConfig:
    return HeadConfig(pooling=POOLINGS.get(str(values.get("classifier_pooling", "late"))), dropout=0.0)


EUROBERT = replace(
    LLAMA,
    name="eurobert",
    architecture="EuroBertForMaskedLM",
    fixed={**LLAMA.fixed, "causal": False},
    config={
        **LLAMA.config,
        "context": LLAMA.config["context"]._replace(default=8192),
        "norm_eps": LLAMA.config["norm_eps"]._replace(default=1e-5),
    },
    read_rest=_read_rest,
    write_rest=lambda config: {**write_heads(config), **write_rope(config)},
    task_format=TaskFormat(
        prefix="EuroBert",
        own=_own_head,
        poolings=tuple(POOLINGS.values()),
        keys=lambda form: {"layers.0.dense": "dense", "output": "classifier"},
        config=lambda head: {
            "classifier_pooling": next((name for name, ours in POOLINGS.items() if ours == head.pooling), "late")
        },
        read=_read_head,
        forms=("SequenceClassification", "TokenClassification"),
    ),
)
