"""Reading a foreign `config.json` without trusting it: every value is checked for its type."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from palavra.errors import PalavraError
from palavra.model.config import Activation

T = TypeVar("T", int, float)

ACTIVATION_NAMES: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
ACTIVATION_WRITTEN: dict[Activation, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "silu": "silu",
}


# Beyond any size or constant of a model, and still exact as a float and as an int64.
LARGEST_NUMBER = 2**53


def number(values: Mapping[str, Any], key: str, kind: type[T], default: T | None = None) -> T:
    """`values[key]` as an int or float. Raises PalavraError when it is missing or something else."""
    value = values.get(key, default)
    good = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if not good or abs(cast(T, value)) > LARGEST_NUMBER or value != value:
        raise PalavraError(f"{key} is {_shown(value)}, not {'an integer' if kind is int else 'a number'} in bounds")
    return kind(cast(T, value))


def flag(values: Mapping[str, Any], key: str, default: bool) -> bool:
    """`values[key]` as a bool. Raises PalavraError when it is something else."""
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise PalavraError(f"{key} is {_shown(value)}, not true or false")
    return value


def optional_id(values: Mapping[str, Any], key: str) -> int | None:
    """`values[key]` as a token id, or None where there is none."""
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def activation(values: Mapping[str, Any], key: str, default: str = "gelu") -> Activation:
    """The activation that `values[key]` names. Raises PalavraError for one that is not supported."""
    name = values.get(key, default)
    if not isinstance(name, str) or name not in ACTIVATION_NAMES:
        raise PalavraError(f"{key} {_shown(name)} is not supported; known: {', '.join(ACTIVATION_NAMES)}")
    return ACTIVATION_NAMES[name]


def _shown(value: object) -> str:
    """A foreign value in few enough characters for a message of one line."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
