"""Checked reading of values from a foreign `config.json`: nothing in it is trusted."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from palavra.errors import PalavraError
from palavra.model.config import Activation

T = TypeVar("T", int, float)

# The names of `transformers`; the first one for each of ours is the one that is written.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu",
    "silu": "silu", "swish": "silu",
}  # fmt: skip
# Larger than any size or constant of a model, and still exact as a float and as an int64.
LARGEST_NUMBER = 2**53


def number(values: Mapping[str, Any], key: str, kind: type[T], default: T | None = None) -> T:
    """Return `values[key]` as an int or float. Raises PalavraError if it is missing, of another type or too large."""
    value = values.get(key, default)
    good = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if not good or abs(cast(T, value)) > LARGEST_NUMBER or value != value:
        raise PalavraError(f"{key} is {_shown(value)}, not {'an integer' if kind is int else 'a number'} in bounds")
    return kind(cast(T, value))


def flag(values: Mapping[str, Any], key: str, default: bool) -> bool:
    """Return `values[key]` as a bool. Raises PalavraError for any other type."""
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise PalavraError(f"{key} is {_shown(value)}, not true or false")
    return value


def token_id(values: Mapping[str, Any], key: str) -> int | None:
    """Return `values[key]` if it is a valid token id, else None."""
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def activation(values: Mapping[str, Any], key: str, default: str = "gelu") -> Activation:
    """Return the activation that `values[key]` names. Raises PalavraError for an unsupported one."""
    name = values.get(key, default)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise PalavraError(f"{key} {_shown(name)} is not supported; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def activation_name(activation: Activation) -> str:
    """Return the name that `transformers` uses for an activation."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


def _shown(value: object) -> str:
    """Return a foreign value in few enough characters for a one-line message."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
