"""SmolLM3 (Hugging Face 2025): Llama with layers that have no positions (Kazemnejad et al. 2023, arXiv:2305.19466)."""

from dataclasses import replace
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import LayerKind, ModelConfig
from palavra.model.families.causal_heads import causal_task_format
from palavra.model.families.family import Values
from palavra.model.families.llama import LLAMA, proportions, read_heads, write_heads
from palavra.model.families.parsing import flag, number
from palavra.model.families.rope import read_rope, write_rope
from palavra.model.families.windows import layers_of, read_layer_kinds

THETA = 2_000_000.0
INTERVAL = 4


def _read_rest(values: Values) -> dict[str, Any]:
    layers = layers_of(values)
    windowed = flag(values, "use_sliding_window", False) and values.get("sliding_window") is not None
    if windowed or "local" in read_layer_kinds(values, ()):
        raise PalavraError("a sliding window is not supported for SmolLM3")
    return {**read_heads(values), **read_rope(values, THETA), "layer_kinds": _read_kinds(values, layers)}


def _read_kinds(values: Values, layers: int) -> tuple[LayerKind, ...]:
    """Return which layers have rotary positions: by a list of 1 and 0, or all but every fourth."""
    rotated = values.get("no_rope_layers")
    if rotated is None:
        step = max(1, number(values, "no_rope_layer_interval", int, INTERVAL))
        rotated = [int((layer + 1) % step != 0) for layer in range(layers)]
    if not isinstance(rotated, list) or not all(one in (0, 1) for one in rotated):
        raise PalavraError("no_rope_layers is not a list of 1 and 0")
    return tuple("global" if one else "nope" for one in rotated)


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    rotated = [int(kind == "global") for kind in config.layer_kinds]
    return {**write_heads(config), **write_rope(config), "no_rope_layers": rotated}


def _proportions(values: Values) -> dict[str, Any]:
    """Return Llama's proportions; every fourth layer has no positions."""
    kinds = _read_kinds({}, values["num_layers"])
    return {**proportions(values), "layer_kinds": kinds, "rope_theta_global": THETA}


SMOLLM3 = replace(
    LLAMA,
    name="smollm3",
    architecture="SmolLM3ForCausalLM",
    config={
        **LLAMA.config,
        "context": LLAMA.config["context"]._replace(default=32768),
        "tied_embeddings": LLAMA.config["tied_embeddings"]._replace(default=True),
    },
    read_rest=_read_rest,
    write_rest=_write_rest,
    proportions=_proportions,
    task_format=causal_task_format("SmolLM3", question_answering_body="transformer"),
)
