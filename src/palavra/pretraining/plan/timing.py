"""Time training steps."""

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from palavra.data.loader import Packed
from palavra.model.compute import Compute, compile_layers
from palavra.model.heads import VocabularyModel
from palavra.objectives.masked import softmax_kernel
from palavra.pretraining.model import new_model
from palavra.pretraining.objectives import TextObjective, pretraining_objective
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.memory import MAX_MICRO_BATCH_TOKENS
from palavra.recipe import Recipe
from palavra.training.job import loop_config
from palavra.training.loop import in_steps, prepare_steps, train
from palavra.training.optimizers import Optimizers, build_optimizers
from palavra.training.out_of_memory import explain_out_of_memory


def step_seconds(
    recipe: Recipe, text: CorpusStats, compute: Compute, *, steps: int = 8, patience: float = math.inf
) -> float:
    """Return the seconds of one optimizer step of a recipe with resolved sizes, measured with a temporary model.

    Takes the median of a few steps of each kind of the objective, after the first ones (which compile and allocate),
    and weights kinds by frequency. Stops measuring a kind after `patience` seconds. Raises OutOfMemory.
    """
    pretraining = pretraining_objective(recipe)
    model = new_model(recipe, text.vocab_size).to(compute.device)
    compile_layers(model.transformer.layers, compute)
    objective = pretraining.objective(
        recipe, text.vocab_size, text.tokenizer, float(recipe.model.context or 0), softmax_kernel(compute)
    )
    optimizers, batches = build_optimizers(model.named_parameters(), recipe.optimizer), text.batches(recipe)
    total = 0.0
    for progress, rate in pretraining.kinds_of_steps(recipe):
        times = _step_times(model, objective, progress, recipe, batches, optimizers, compute, steps + 2, patience)
        # The first half is warm-up too: compilation keeps the cores busy for a while.
        total += rate * statistics.median_high(times[max(2, len(times) // 2) :] or times[-1:])
    return total


def quick_step_seconds(recipe: Recipe, text: CorpusStats, compute: Compute, *, patience: float = 10.0) -> float:
    """Return a quick estimate of `step_seconds` from a few uncompiled micro-batches."""
    one = single_micro_batch(recipe)
    assert recipe.train.batch_tokens and one.train.batch_tokens
    each = step_seconds(one, text, replace(compute, compiled=False), steps=3, patience=patience)
    return each * recipe.train.batch_tokens / one.train.batch_tokens


def single_micro_batch(recipe: Recipe, max_tokens: int = MAX_MICRO_BATCH_TOKENS) -> Recipe:
    """Return the recipe with steps of one micro-batch of at most this many tokens, and at least a context."""
    train = recipe.train
    assert train.micro_batch_tokens and recipe.model.context
    tokens = min(train.micro_batch_tokens, max(max_tokens, recipe.model.context))
    return replace(recipe, train=replace(train, batch_tokens=tokens, micro_batch_tokens=tokens))


def _step_times(
    model: VocabularyModel, objective: TextObjective, progress: float, recipe: Recipe, batches: Iterator[Packed],
    optimizers: Optimizers, compute: Compute, steps: int, patience: float,
) -> list[float]:  # fmt: skip
    """Return the seconds of each of this many steps at one `progress` of training; after `patience` seconds, stops once
    three are measured."""
    assert recipe.model.context
    config = loop_config(recipe, recipe.model.context, steps)
    grouped = in_steps(batches, recipe.train.micro_batches())
    prepared = prepare_steps(grouped, objective, config, compute, 0, progress)
    times: list[float] = []
    begin = last = time.perf_counter()
    with explain_out_of_memory():
        for _ in train(model, objective, prepared, optimizers, config, compute):
            compute.synchronize()
            now = time.perf_counter()
            times.append(now - last)
            last = now
            if len(times) > 2 and now - begin > patience:
                break
    return times
