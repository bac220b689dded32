"""Precision and compilation of a run."""

from palavra.model.compute import Compute, choose_compute, for_attention
from palavra.pretraining.model import has_relative_attention
from palavra.pretraining.plan.length import stated_steps, stated_tokens, time_budget
from palavra.recipe import Recipe

# In a shorter run, compiling takes longer than it saves. Narrow models gain less (10 to 22% of a step of nano) for half
# a minute of compiling: they need longer.
WORTH_COMPILING_SECONDS, WORTH_COMPILING_TOKENS = 100.0, 3e6
NARROW, NARROW_FACTOR = 128, 1.8


def sizing_compute(recipe: Recipe) -> Compute:
    """Return device, precision and attention for comparing sizes: uncompiled, because compiling each takes longer than
    measuring it."""
    return _for_model(recipe, choose_compute(recipe.train.device, recipe.train.precision, "off"))


def _for_model(recipe: Recipe, compute: Compute) -> Compute:
    return for_attention(compute, dropout=recipe.model.attention_dropout, relative=has_relative_attention(recipe))


def compute_for(recipe: Recipe, epoch_tokens: int) -> Compute:
    """Return device, precision, attention and compilation of a recipe with resolved sizes. "auto" compiles if the run
    is long enough to gain from it."""
    train = recipe.train
    factor = NARROW_FACTOR if (recipe.model.hidden_size or 0) <= NARROW else 1.0
    if train.minutes is not None or stated_steps(recipe, epoch_tokens) is None:
        worth = time_budget(recipe) >= factor * WORTH_COMPILING_SECONDS
    else:
        worth = stated_tokens(recipe, epoch_tokens) >= factor * WORTH_COMPILING_TOKENS
    return _for_model(recipe, choose_compute(train.device, train.precision, train.compile, worth))
