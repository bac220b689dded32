"""The length of a run: steps, tokens, epochs or minutes converted to optimizer steps."""

import math
from dataclasses import replace

from palavra.errors import PalavraError
from palavra.log import Log
from palavra.pretraining.corpus import packer_for
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.recipe import Recipe

DEFAULT_MINUTES = 10.0
VALIDATIONS = 10
# Fraction of a time budget reserved for validation, checkpoints and timing noise.
RESERVE = 0.04


def time_budget(recipe: Recipe) -> float:
    """Return the time budget in seconds: the one given, or the default."""
    return 60 * (recipe.train.minutes or DEFAULT_MINUTES)


def stated_steps(recipe: Recipe, epoch_tokens: int) -> int | None:
    """Return the steps of a length in steps, tokens or epochs (assuming full batches); None for a length in minutes."""
    train = recipe.train
    assert train.batch_tokens
    if train.steps is not None:
        return train.steps
    if train.tokens is not None:
        return max(1, round(train.tokens / train.batch_tokens))
    return None if train.epochs is None else max(1, math.ceil(train.epochs * epoch_tokens / train.batch_tokens))


def stated_tokens(recipe: Recipe, epoch_tokens: int) -> float:
    """Return the tokens that a run will see if its length is not in minutes."""
    assert recipe.train.batch_tokens
    return float((stated_steps(recipe, epoch_tokens) or 0) * recipe.train.batch_tokens)


def steps_of_run(recipe: Recipe, text: CorpusStats, seconds_a_step: float | None, log: Log) -> tuple[int, str]:
    """Return the number of steps of a run, and the reason.

    Epochs are counted in the batches that the packer plans. Minutes include training and validation and are divided by
    the measured `seconds_a_step`. Raises PalavraError if they are too few for one step.
    """
    train = recipe.train
    unit = f"steps of {train.batch_tokens:,} tokens"
    if seconds_a_step is not None:
        budget = time_budget(recipe)
        training = budget * (1 - RESERVE)
        steps = int(training / seconds_a_step)
        if steps < 1:
            raise PalavraError(
                f"{budget / 60:g} minutes are too few for one step of this model ({seconds_a_step:.1f} s): give more "
                "--minutes or a smaller --size"
            )
        return steps, (
            f"length: {steps:,} {unit} ({seconds_a_step * 1000:.1f} ms a step measured; {training:.0f} of "
            f"{budget:.0f} s, the rest for validation)"
        )
    if train.epochs is not None and train.steps is None and train.tokens is None and text.documents is not None:
        packer = packer_for(recipe, text.documents)
        with log.live("planning the batches of all epochs", 1.0) as live:
            batches = packer.run_batches(live.update)
        steps = max(1, math.ceil(batches / (train.micro_batches(packer.ranks) * packer.ranks)))
        return steps, f"length: {steps:,} {unit} ({train.epochs:g} epochs)"
    stated = stated_steps(recipe, text.epoch_tokens(recipe))
    assert stated is not None
    return stated, f"length: {stated:,} {unit}"


def with_steps(recipe: Recipe, steps: int, minutes: float | None) -> Recipe:
    """Return the recipe with its length in steps, that of a run in minutes also in `minutes`, and unset validation and
    checkpoint intervals spread over them."""
    train = recipe.train
    every = -(-steps // VALIDATIONS)  # rounded up, so that the last validation is at the last step
    validate, save = train.eval_every or every, train.save_every or every
    return replace(recipe, train=replace(train, steps=steps, minutes=minutes, eval_every=validate, save_every=save))
