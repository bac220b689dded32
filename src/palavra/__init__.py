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
    from palavra.api.evaluate import evaluate
    from palavra.api.finetune import finetune
    from palavra.api.options import options
    from palavra.api.pretrain import plan, prepare, pretrain, tokenizer_train
    from palavra.errors import PalavraError
    from palavra.experiments.sweep import sweep
    from palavra.inference.loading import load
    from palavra.recipe.finetuning_options import build_finetune_recipe
    from palavra.recipe.pretraining_options import build_recipe

_HOMES = {
    "PalavraError": "palavra.errors",
    "build_finetune_recipe": "palavra.recipe.finetuning_options",
    "build_recipe": "palavra.recipe.pretraining_options",
    "evaluate": "palavra.api.evaluate",
    "finetune": "palavra.api.finetune",
    "load": "palavra.inference.loading",
    "options": "palavra.api.options",
    "plan": "palavra.api.pretrain",
    "prepare": "palavra.api.pretrain",
    "pretrain": "palavra.api.pretrain",
    "sweep": "palavra.experiments.sweep",
    "tokenizer_train": "palavra.api.pretrain",
}

__all__ = [
    "PalavraError",
    "build_finetune_recipe",
    "build_recipe",
    "evaluate",
    "finetune",
    "load",
    "options",
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
