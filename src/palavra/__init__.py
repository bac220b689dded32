"""Palavra: from raw text to a language model that works for you.

import palavra

palavra.pretrain("texts/", out="model", minutes=10)
model = palavra.load("model")
model.fill("O gato [MASK] correu.")
model.embed(["uma frase"])

palavra.finetune("classification", "reviews.csv", model="model", out="classifier")
classifier = palavra.load("classifier")
classifier.predict(["Um filme e tanto."])
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from palavra.errors import PalavraError
    from palavra.inference.loading import load
    from palavra.run.api import build_recipe, evaluate, plan, prepare, pretrain, tokenizer_train
    from palavra.run.sweep import sweep
    from palavra.run.task_api import build_finetune_recipe, finetune

_HOMES = {
    "PalavraError": "palavra.errors",
    "build_finetune_recipe": "palavra.run.task_api",
    "build_recipe": "palavra.run.api",
    "evaluate": "palavra.run.api",
    "finetune": "palavra.run.task_api",
    "load": "palavra.inference.loading",
    "plan": "palavra.run.api",
    "prepare": "palavra.run.api",
    "pretrain": "palavra.run.api",
    "sweep": "palavra.run.sweep",
    "tokenizer_train": "palavra.run.api",
}

__all__ = [
    "PalavraError",
    "build_finetune_recipe",
    "build_recipe",
    "evaluate",
    "finetune",
    "load",
    "plan",
    "prepare",
    "pretrain",
    "sweep",
    "tokenizer_train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `palavra --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'palavra' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
