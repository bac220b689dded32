"""Palavra: from raw text to a language model that works for you.

import palavra

palavra.pretrain("texts/", out="model", minutes=10)
model = palavra.load("model")
model.fill("O gato [MASK] correu.")
model.encode(["uma frase"])

run = palavra.finetune("classification", texts=texts, labels=labels, model="model")
run.model.predict("Um filme e tanto.")
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from palavra.api.compare_pairs import compare_pairs
    from palavra.api.evaluate import evaluate
    from palavra.api.finetune import finetune, plan_finetune
    from palavra.api.learning_curve import learning_curve
    from palavra.api.options import options
    from palavra.api.prepare import prepare
    from palavra.api.pretrain import plan, pretrain
    from palavra.api.sweep import sweep
    from palavra.api.tokenizer import tokenizer_train
    from palavra.errors import PalavraError
    from palavra.inference.loading import load
    from palavra.recipe.finetuning_options import build_finetune_recipe
    from palavra.recipe.pretraining_options import build_recipe
    from palavra.report import write_report

_HOMES = {
    "PalavraError": "palavra.errors",
    "build_finetune_recipe": "palavra.recipe.finetuning_options",
    "build_recipe": "palavra.recipe.pretraining_options",
    "compare_pairs": "palavra.api.compare_pairs",
    "evaluate": "palavra.api.evaluate",
    "finetune": "palavra.api.finetune",
    "learning_curve": "palavra.api.learning_curve",
    "load": "palavra.inference.loading",
    "options": "palavra.api.options",
    "plan": "palavra.api.pretrain",
    "plan_finetune": "palavra.api.finetune",
    "prepare": "palavra.api.prepare",
    "pretrain": "palavra.api.pretrain",
    "sweep": "palavra.api.sweep",
    "tokenizer_train": "palavra.api.tokenizer",
    "write_report": "palavra.report",
}

__all__ = [
    "PalavraError",
    "build_finetune_recipe",
    "build_recipe",
    "compare_pairs",
    "evaluate",
    "finetune",
    "learning_curve",
    "load",
    "options",
    "plan",
    "plan_finetune",
    "prepare",
    "pretrain",
    "sweep",
    "tokenizer_train",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `palavra --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'palavra' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
