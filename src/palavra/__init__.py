"""Palavra: from raw text to a language model that works for you.

import palavra

palavra.pretrain("texts/", out="model", minutes=10)
model = palavra.load("model")
model.fill("O gato [MASK] correu.")
model.embed(["uma frase"])
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from palavra.errors import PalavraError
    from palavra.inference.model import load
    from palavra.run.api import build_recipe, evaluate, plan, prepare, pretrain, tokenizer_train

_HOMES = {
    "PalavraError": "palavra.errors",
    "build_recipe": "palavra.run.api",
    "evaluate": "palavra.run.api",
    "load": "palavra.inference.model",
    "plan": "palavra.run.api",
    "prepare": "palavra.run.api",
    "pretrain": "palavra.run.api",
    "tokenizer_train": "palavra.run.api",
}

__all__ = [
    "PalavraError",
    "build_recipe",
    "evaluate",
    "load",
    "plan",
    "prepare",
    "pretrain",
    "tokenizer_train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `palavra --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'palavra' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
