"""Recipes: everything that decides what a run computes, in one short TOML file."""

from palavra.recipe.finetuning import FinetuneConfig, FinetuneRecipe
from palavra.recipe.pretraining import (
    SIZES,
    UNKNOWN_BYTES,
    DataConfig,
    FamilyName,
    ModelRecipe,
    Recipe,
    Size,
    SizeName,
    TrainConfig,
    vocabulary_for,
)

__all__ = [
    "SIZES",
    "UNKNOWN_BYTES",
    "DataConfig",
    "FamilyName",
    "FinetuneConfig",
    "FinetuneRecipe",
    "ModelRecipe",
    "Recipe",
    "Size",
    "SizeName",
    "TrainConfig",
    "vocabulary_for",
]
