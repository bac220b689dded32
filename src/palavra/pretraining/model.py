"""The initial model of a run."""

from dataclasses import replace
from pathlib import Path

import torch

from palavra.model.config import ModelConfig
from palavra.model.directory import read_config
from palavra.model.families import family_named
from palavra.model.heads import VocabularyModel
from palavra.pretraining.objectives import pretraining_objective
from palavra.recipe import Recipe
from palavra.tokenizer import Tokenizer


def model_config(recipe: Recipe, vocab_size: int, pad_id: int | None = None) -> ModelConfig:
    """Return the configuration of the recipe's model: that of `init`, or a new one of the recipe's sizes."""
    config = read_config(Path(recipe.init)) if recipe.init else recipe.model.build(vocab_size, pad_id)
    return replace(config, mntp=recipe.mntp)


def has_relative_attention(recipe: Recipe) -> bool:
    """Return whether the scores of the recipe's model have a term for the distance of tokens; its sizes may be open."""
    if recipe.init:
        return read_config(Path(recipe.init)).relative is not None
    sizes = {"vocab_size": 1, "hidden_size": 64, "num_layers": 1, "num_heads": 1, "context": 64}
    return family_named(recipe.family, "model.family").new(**sizes).relative is not None


def shape_only(recipe: Recipe, vocab_size: int) -> VocabularyModel:
    """Return the recipe's model on the meta device: parameters have shapes but no memory."""
    with torch.device("meta"):
        model: VocabularyModel = pretraining_objective(recipe).new(model_config(recipe, vocab_size))
    return model


def new_model(recipe: Recipe, vocab_size: int, pad_id: int | None = None) -> VocabularyModel:
    """Return a model of the recipe's sizes with random weights from the recipe's seed."""
    torch.manual_seed(recipe.train.seed)
    model: VocabularyModel = pretraining_objective(recipe).new(model_config(recipe, vocab_size, pad_id))
    return model


def initial_model(recipe: Recipe, tokenizer: Tokenizer) -> VocabularyModel:
    """Return the model of `init`, or a new one. Raises PalavraError if the tokenizer does not fit it."""
    if not recipe.init:
        return new_model(recipe, tokenizer.vocab_size, tokenizer.pad_id if "pad" in tokenizer.roles else None)
    torch.manual_seed(recipe.train.seed)
    model: VocabularyModel = pretraining_objective(recipe).load(Path(recipe.init))
    tokenizer.check_fits(model.config.vocab_size, recipe.init)
    model.config = model.transformer.config = replace(model.config, mntp=recipe.mntp)
    return model
