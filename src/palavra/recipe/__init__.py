"""Recipes: everything that decides what a run computes, in one short TOML file."""

from palavra.recipe.finetuning import FinetuneConfig, FinetuneRecipe
from palavra.recipe.pretraining import (
    FAMILIES_OF,
    SHAPE,
    DataConfig,
    FamilyName,
    ModelRecipe,
    ObjectiveName,
    Recipe,
    TrainConfig,
)
from palavra.recipe.sizes import SIZES, UNKNOWN_BYTES, Size, SizeName, vocabulary_for

__all__ = [
    "FAMILIES_OF",
    "SHAPE",
    "SIZES",
    "UNKNOWN_BYTES",
    "DataConfig",
    "FamilyName",
    "FinetuneConfig",
    "FinetuneRecipe",
    "ModelRecipe",
    "ObjectiveName",
    "Recipe",
    "Size",
    "SizeName",
    "TrainConfig",
    "vocabulary_for",
]
