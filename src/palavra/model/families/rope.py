"""Rotary positions in the `config.json` of `transformers`: the base of the angles, and their scaling."""

import math
from collections.abc import Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import ModelConfig, RopeScaling
from palavra.model.families.parsing import flag, number


def read_rope(values: Mapping[str, Any], theta: float) -> dict[str, Any]:
    """Return the fields of `ModelConfig` for one base of rotary angles (`theta` if absent), in the layout of
    transformers 4 or 5. Raises PalavraError for a kind of scaling that is not supported."""
    nested = values.get("rope_parameters")
    entry = values.get("rope_scaling") if nested is None else nested
    if entry is None:
        entry = {}
    if not isinstance(entry, dict):
        raise PalavraError("rope_parameters is not an object")
    base = number(entry if "rope_theta" in entry else values, "rope_theta", float, theta)
    return {"rope_theta_global": base, "rope_scaling": read_scaling(entry, values)}


def read_scaling(entry: Mapping[str, Any], values: Mapping[str, Any]) -> RopeScaling | None:
    """Return the scaling that an entry of `rope_parameters` describes, None for none. `values`: the whole file."""
    kind = entry.get("rope_type", entry.get("type", "default"))
    if kind == "default":
        return None
    factor = number(entry, "factor", float)
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    length = number(values, "max_position_embeddings", int, 1)
    original = number(entry, "original_max_position_embeddings", int, length)
    if kind == "llama3":
        return RopeScaling(
            kind="llama3", factor=factor, original_context=original,
            low=number(entry, "low_freq_factor", float), high=number(entry, "high_freq_factor", float),
        )  # fmt: skip
    if kind == "yarn":
        given = {name: entry[name] for name in ("beta_fast", "beta_slow") if entry.get(name)}
        return RopeScaling(
            kind="yarn", factor=factor, original_context=original, low=number(given, "beta_slow", float, 1.0),
            high=number(given, "beta_fast", float, 32.0), attention_factor=_attention_factor(entry, factor),
            rounded=flag(entry, "truncate", True),
        )  # fmt: skip
    raise PalavraError(f"rope_type {str(kind)[:40]!r} is not supported, only default, linear, llama3 and yarn")


def _attention_factor(entry: Mapping[str, Any], factor: float) -> float:
    """Return what YaRN multiplies cosines and sines by (Peng et al. 2023, eq. 22, and its variant in DeepSeek)."""

    def temperature(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    if entry.get("attention_factor") is not None:
        return number(entry, "attention_factor", float)
    if entry.get("mscale") and entry.get("mscale_all_dim"):
        return temperature(number(entry, "mscale", float)) / temperature(number(entry, "mscale_all_dim", float))
    return temperature(1.0)


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """Return the entries of `config.json`; undoes `read_rope`."""
    entry = rope_entry(config.rope_theta_global, config.rope_scaling)
    # Both layouts: transformers 4 and most other programs read the second.
    older = {"rope_theta": config.rope_theta_global}
    if config.rope_scaling is not None:
        older |= {"rope_scaling": entry}  # type: ignore[dict-item]
    return {"rope_parameters": entry, **older}


def rope_entry(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Return an entry of `rope_parameters`."""
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    entry: dict[str, Any] = {"rope_type": scaling.kind, "rope_theta": theta, "factor": scaling.factor}
    if scaling.kind != "linear":
        entry["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        entry |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    if scaling.kind == "yarn":
        entry |= {"beta_slow": scaling.low, "beta_fast": scaling.high, "attention_factor": scaling.attention_factor}
        entry |= {"truncate": scaling.rounded}
    return entry
