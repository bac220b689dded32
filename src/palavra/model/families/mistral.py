"""Mistral (Jiang et al. 2023, arXiv:2310.06825): Llama whose layers may all see a window only."""

from dataclasses import replace
from typing import Any

from palavra.model.config import ModelConfig
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import Values
from palavra.model.families.llama import LLAMA, THETA, read_heads, write_heads
from palavra.model.families.parsing import number
from palavra.model.families.rope import read_rope, write_rope
from palavra.model.families.windows import layers_of

WINDOW = 4096


def _read_rest(values: Values) -> dict[str, Any]:
    size = number(values, "sliding_window", int, WINDOW) if values.get("sliding_window", WINDOW) is not None else None
    kind = "global" if size is None else "local"
    found = {"layer_kinds": (kind,) * layers_of(values), "window": 0 if size is None else size - 1}
    return {**read_heads(values), **read_rope(values, THETA), **found}


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    size = config.window + 1 if "local" in config.layer_kinds else None
    return {**write_heads(config), **write_rope(config), "sliding_window": size}


MISTRAL = replace(
    LLAMA,
    name="mistral",
    architecture="MistralForCausalLM",
    config={name: key for name, key in LLAMA.config.items() if name not in ("attention_bias", "mlp_bias")},
    read_rest=_read_rest,
    write_rest=_write_rest,
    task_format=causal_task_format("Mistral"),
)
