"""Which layers attend to a window only, in the `config.json` of `transformers`."""

from collections.abc import Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import LARGEST, LayerKind, ModelConfig
from palavra.model.families.parsing import number

LAYER_TYPES: dict[LayerKind, str] = {"global": "full_attention", "local": "sliding_attention"}
MOST_LAYERS = LARGEST["num_layers"]


def read_layer_kinds(values: Mapping[str, Any], otherwise: tuple[LayerKind, ...]) -> tuple[LayerKind, ...]:
    """Return the kinds of layers that `layer_types` names, or `otherwise` if it is absent."""
    names = values.get("layer_types")
    if names is None:
        return otherwise
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PalavraError("layer_types is not a list of names")
    kinds = {name: kind for kind, name in LAYER_TYPES.items()}
    if unknown := sorted(set(names) - set(kinds)):
        raise PalavraError(f"layer type {unknown[0][:40]!r} is not supported; known: {', '.join(kinds)}")
    return tuple(kinds[name] for name in names)


def layer_types(config: ModelConfig) -> list[str]:
    """Return `layer_types`; undoes `read_layer_kinds`."""
    return [LAYER_TYPES[kind] for kind in config.layer_kinds]


def every(step: int, num_layers: int, offset: int = 0) -> tuple[LayerKind, ...]:
    """Return the kinds of layers of which every `step`-th is global, the first of them number `offset`."""
    return tuple("local" if (i - offset) % step else "global" for i in range(num_layers))


def layers_of(values: Mapping[str, Any]) -> int:
    """Return the number of layers, at most as many as a model may have: what is longer is refused later."""
    return min(number(values, "num_hidden_layers", int), MOST_LAYERS)


def read_sliding_window(values: Mapping[str, Any], used: bool) -> dict[str, Any]:
    """Return the fields of a causal family whose layers from `max_window_layers` on see `sliding_window` tokens, the
    token itself included, if the window is `used` (Qwen2, Qwen3)."""
    layers = layers_of(values)
    size = number(values, "sliding_window", int, 4096) if used and values.get("sliding_window", 0) is not None else None
    first = min(number(values, "max_window_layers", int, 28), layers) if size is not None else layers
    otherwise: tuple[LayerKind, ...] = tuple("global" if i < first else "local" for i in range(layers))
    kinds = read_layer_kinds(values, otherwise)
    if size is None and "local" in kinds:
        raise PalavraError("layer_types has sliding_attention, but there is no sliding_window")
    return {"layer_kinds": kinds, "window": 0 if size is None or "local" not in kinds else size - 1}


def write_sliding_window(config: ModelConfig) -> dict[str, Any]:
    """Return the entries of `config.json`; undoes `read_sliding_window`."""
    used = "local" in config.layer_kinds
    return {
        "layer_types": layer_types(config),
        "use_sliding_window": used,
        "sliding_window": config.window + 1 if used else None,
    }
