"""Precision and compilation of a run."""

from dataclasses import replace

from palavra.data.sources import source_bytes
from palavra.model.compute import Compute, choose_compute
from palavra.pretraining.plan.resolve import run_tokens, seconds_of, steps_of_length
from palavra.recipe import UNKNOWN_BYTES, Recipe, vocabulary_for

# A shorter run would not earn its compilation back.
WORTH_COMPILING_SECONDS = 100.0


WORTH_COMPILING_TOKENS = 3e6


# Narrow models gain less (10 to 22% of a step of nano) for half a minute of compiling: they need longer.
NARROW, WORTH_COMPILING_NARROW = 128, 1.8


def _uncompiled(recipe: Recipe) -> Compute:
    """The arithmetic that sizes are compared with: compiling each would take longer than measuring it."""
    return choose_compute(recipe.train.device, recipe.train.precision, "off")


def _compute(recipe: Recipe, epoch_tokens: int) -> Compute:
    """The arithmetic of a run whose size is settled."""
    train = recipe.train
    times = WORTH_COMPILING_NARROW if (recipe.model.hidden_size or 0) <= NARROW else 1.0
    if recipe.train.minutes is not None or steps_of_length(recipe, epoch_tokens) is None:
        worth = seconds_of(recipe) >= times * WORTH_COMPILING_SECONDS
    else:
        worth = run_tokens(recipe, epoch_tokens) >= times * WORTH_COMPILING_TOKENS
    return choose_compute(train.device, train.precision, train.compile, worth)


def _with_vocabulary(recipe: Recipe) -> Recipe:
    """The recipe with the size of a vocabulary that suits the text, where one is to be made and is left open."""
    if recipe.init or recipe.tokenizer_from or recipe.tokenizer.vocab_size is not None:
        return recipe
    entries = vocabulary_for(source_bytes(recipe.data) or UNKNOWN_BYTES)
    return replace(recipe, tokenizer=replace(recipe.tokenizer, vocab_size=entries))


def _with_compute(recipe: Recipe, compute: Compute) -> Recipe:
    """The recipe with what was chosen for this machine, so that it computes the same when resumed or repeated."""
    return replace(recipe, train=replace(recipe.train, precision=compute.precision, compile=compute.compile))
