"""Qwen2 and 2.5 (Yang et al. 2024, arXiv:2407.10671): Llama with biases for queries, keys and values."""

from dataclasses import replace
from typing import Any

from palavra.model.config import ModelConfig
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import Values
from palavra.model.families.llama import LLAMA, THETA, read_heads, write_heads
from palavra.model.families.parsing import flag
from palavra.model.families.rope import read_rope, write_rope
from palavra.model.families.windows import read_sliding_window, write_sliding_window


def read_rest(values: Values, head_dim: int | None = None) -> dict[str, Any]:
    """Return the fields for heads, rotary positions and windows."""
    window = read_sliding_window(values, flag(values, "use_sliding_window", False))
    return {**read_heads(values, head_dim), **read_rope(values, THETA), **window}


def write_rest(config: ModelConfig) -> dict[str, Any]:
    """Return the entries of `config.json`; undoes `read_rest`."""
    return {**write_heads(config), **write_rope(config), **write_sliding_window(config)}


QWEN2 = replace(
    LLAMA,
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    fixed={**LLAMA.fixed, "attention_bias": True, "attention_out_bias": False},
    config={
        **{name: key for name, key in LLAMA.config.items() if name not in ("attention_bias", "mlp_bias")},
        "context": LLAMA.config["context"]._replace(default=32768),
    },
    read_rest=read_rest,
    write_rest=write_rest,
    task_format=causal_task_format("Qwen2", question_answering_body="transformer"),
)
