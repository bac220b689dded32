"""The pretraining objectives by their names in a recipe."""

from pathlib import Path
from typing import Any

from palavra.model.directory import learned_both, read_config
from palavra.model.next_sentence import holds_next_sentence_head
from palavra.pretraining.objectives.base import PretrainingObjective, TextObjective
from palavra.pretraining.objectives.causal import CausalPretraining
from palavra.pretraining.objectives.causal_masked import CausalMaskedPretraining
from palavra.pretraining.objectives.masked import MaskedPretraining
from palavra.pretraining.objectives.next_sentence import NextSentencePretraining
from palavra.recipe import ObjectiveName, Recipe

__all__ = [
    "PRETRAINING_OBJECTIVES",
    "PretrainingObjective",
    "TextObjective",
    "pretraining_objective",
    "pretraining_objective_in",
]

PRETRAINING_OBJECTIVES: dict[ObjectiveName, PretrainingObjective[Any]] = {
    "masked": MaskedPretraining(),
    "causal": CausalPretraining(),
    "masked+nsp": NextSentencePretraining(),
    "causal+masked": CausalMaskedPretraining(),
}


def pretraining_objective(recipe: Recipe) -> PretrainingObjective[Any]:
    """Return the recipe's objective."""
    return PRETRAINING_OBJECTIVES[recipe.objective]


def pretraining_objective_in(directory: Path) -> PretrainingObjective[Any]:
    """Return the objective that trained the model of a directory, inferred from its configuration and weights."""
    config = read_config(directory)
    if config.causal:
        return PRETRAINING_OBJECTIVES["causal"]
    if config.family == "bert" and holds_next_sentence_head(directory, config):
        return PRETRAINING_OBJECTIVES["masked+nsp"]
    return PRETRAINING_OBJECTIVES["causal+masked" if learned_both(directory) else "masked"]
