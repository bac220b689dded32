"""Qwen3 (Yang et al. 2025, arXiv:2505.09388): Llama with normalized queries and keys."""

from dataclasses import replace

from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.llama import LLAMA
from palavra.model.families.qwen2 import QWEN2, read_rest, write_rest

HEAD_DIM = 128  # where none is given

QWEN3 = replace(
    QWEN2,
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    fixed={**LLAMA.fixed, "qk_norm": True},
    config={**QWEN2.config, "attention_bias": LLAMA.config["attention_bias"]},
    read_rest=lambda values: read_rest(values, HEAD_DIM),
    write_rest=write_rest,
    layer_weights={
        **LLAMA.layer_weights,
        "attention.q_norm": ("self_attn.q_norm",),
        "attention.k_norm": ("self_attn.k_norm",),
    },
    task_format=causal_task_format("Qwen3", question_answering_body="transformer"),
)
