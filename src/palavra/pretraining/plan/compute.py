"""Threads, precision and compilation of a run."""

from dataclasses import replace

import torch

from palavra.model.compute import Compute, choose_compute, for_dropout
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.length import stated_steps, stated_tokens, time_budget
from palavra.pretraining.plan.timing import single_micro_batch, step_seconds
from palavra.recipe import Recipe

# One thread is chosen only if it is clearly faster, since the load of other programs varies.
SINGLE_THREAD_GAIN = 1.25
TOKENS_TO_TIME_THREADS = 8192

# In a shorter run, compiling takes longer than it saves. Narrow models gain less (10 to 22% of a step of nano) for half
# a minute of compiling: they need longer.
WORTH_COMPILING_SECONDS, WORTH_COMPILING_TOKENS = 100.0, 3e6
NARROW, NARROW_FACTOR = 128, 1.8


def set_threads(recipe: Recipe, text: CorpusStats, compute: Compute) -> tuple[int, str]:
    """Set the number of threads of this process, and return it with the reason: the recipe's, or the faster of all and
    one.

    If another program keeps a core busy, every step waits for it, and one thread can be several times as fast as two.
    Bit-for-bit results depend on the number, so it becomes part of the recipe.
    """
    available = torch.get_num_threads()
    threads, why = recipe.train.threads, "as the recipe says"
    if threads is None and (compute.device.type != "cpu" or available == 1):
        threads, why = available, "all"
    elif threads is None:
        seconds = {count: _seconds_with(count, recipe, text, compute) for count in (available, 1)}
        threads = 1 if seconds[1] * SINGLE_THREAD_GAIN < seconds[available] else available
        why = ", ".join(f"{each * 1000:.0f} ms a step with {count}" for count, each in seconds.items())
        if threads != available:
            why += "; the other cores are busy"
    torch.set_num_threads(threads)
    return threads, f"threads: {threads} ({why})"


def _seconds_with(threads: int, recipe: Recipe, text: CorpusStats, compute: Compute) -> float:
    """Return the seconds of a step of the smallest size with this many threads."""
    torch.set_num_threads(threads)
    smallest = single_micro_batch(replace(recipe, init=None).of_size("nano"), TOKENS_TO_TIME_THREADS)
    return step_seconds(smallest, text, compute, steps=5, patience=5.0)


def compute_for(recipe: Recipe, epoch_tokens: int) -> Compute:
    """Return device, precision, attention and compilation of a recipe with resolved sizes. "auto" compiles if the run
    is long enough to gain from it."""
    train = recipe.train
    factor = NARROW_FACTOR if (recipe.model.hidden_size or 0) <= NARROW else 1.0
    if train.minutes is not None or stated_steps(recipe, epoch_tokens) is None:
        worth = time_budget(recipe) >= factor * WORTH_COMPILING_SECONDS
    else:
        worth = stated_tokens(recipe, epoch_tokens) >= factor * WORTH_COMPILING_TOKENS
    compute = choose_compute(train.device, train.precision, train.compile, worth)
    return for_dropout(compute, recipe.model.attention_dropout)
