"""The model size: the named one, that of `init`, or the best for the length of the run.

For a length in minutes, a few steps of each size are timed on this machine and a scaling law (`scaling_law`) ranks the
sizes by predicted loss. The prediction only ranks sizes and is never reported as a forecast.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from palavra.model.compute import Compute
from palavra.model.directory import read_config
from palavra.pretraining.model import shape_only
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.length import RESERVE, stated_tokens, time_budget
from palavra.pretraining.plan.memory import fit_micro_batch
from palavra.pretraining.plan.scaling_law import SCALING_LAW, parameters_without_embeddings, size_for_tokens
from palavra.pretraining.plan.timing import step_seconds
from palavra.recipe import SHAPE, SIZES, FamilyName, Recipe, SizeName
from palavra.recipe.learning_rates import pretraining_rate
from palavra.training.out_of_memory import OutOfMemory

# A schedule needs enough steps: a model that could make fewer than this is too large for the budget.
FEWEST_STEPS = 300


@dataclass(frozen=True, kw_only=True)
class SizeCandidate:
    """A timed size: its tokens/s, the tokens it would see in the time, and the predicted loss that ranks it."""

    size: SizeName
    parameters: int
    tokens_per_second: float
    tokens: float
    predicted_loss: float
    chosen: bool = False


def with_size(recipe: Recipe, text: CorpusStats, compute: Compute) -> tuple[Recipe, list[str], list[SizeCandidate]]:
    """Return the recipe with every size filled in, the reasons, and the sizes that were timed."""
    if recipe.init:
        sized, nearest = _with_size_of_init(recipe, recipe.init)
        return sized, [f"size: that of {recipe.init}; batch and learning rate as for {nearest}"], []
    size, train = recipe.model.size, recipe.train
    if size != "auto":
        return recipe.of_size(size), [f"size: {size} (requested)"], []
    if train.steps or train.tokens or train.epochs:

        def tokens_of(name: SizeName) -> float:
            sized = recipe.of_size(name)
            return stated_tokens(sized, text.epoch_tokens(sized))

        name = size_for_tokens(tokens_of, text.tokens)
        return recipe.of_size(name), [f"size: {name} (for {tokens_of(name):,.0f} tokens)"], []
    candidates = _timed_sizes(recipe, text, compute)
    (chosen,) = (candidate.size for candidate in candidates if candidate.chosen)
    unstated = " (no length was given)" if train.minutes is None else ""
    reasons = [f"budget: {time_budget(recipe) / 60:g} minutes, {text.tokens:,} tokens of text{unstated}"]
    reasons += [
        f"size {c.size}: {c.tokens_per_second:,.0f} tokens/s measured uncompiled, {c.tokens:,.0f} tokens in the time, "
        f"predicted loss {c.predicted_loss:.3f}{'  <- chosen' if c.chosen else ''}"
        for c in candidates
    ]
    return recipe.of_size(chosen), reasons, candidates


def _timed_sizes(recipe: Recipe, text: CorpusStats, compute: Compute) -> list[SizeCandidate]:
    """Time the sizes in ascending order, and mark the one with the lowest predicted loss as chosen.

    Stops if a size does not fit in memory or could not make `FEWEST_STEPS` steps, or if two in a row rank worse.
    """
    seconds = time_budget(recipe) * (1 - RESERVE)
    found: list[SizeCandidate] = []
    for name in SIZES:
        sized = recipe.of_size(name)
        try:
            sized, _ = fit_micro_batch(sized, recipe.train.micro_batch_tokens, text.vocab_size, compute)
        except OutOfMemory:
            if not found:
                raise
            break
        each = step_seconds(sized, text, compute, steps=4, patience=0.02 * seconds)
        if found and seconds / each < FEWEST_STEPS:
            break
        assert sized.train.batch_tokens
        speed = sized.train.batch_tokens / each
        parameters = parameters_without_embeddings(shape_only(sized, text.vocab_size))
        loss = SCALING_LAW.loss(parameters, speed * seconds, text.tokens)
        found.append(
            SizeCandidate(
                size=name, parameters=parameters, tokens_per_second=speed, tokens=speed * seconds, predicted_loss=loss
            )
        )
        if len(found) > 2 and found[-1].predicted_loss > found[-2].predicted_loss > found[-3].predicted_loss:
            break
    best = min(found, key=lambda candidate: candidate.predicted_loss)
    return [replace(candidate, chosen=candidate is best) for candidate in found]


def _with_size_of_init(recipe: Recipe, init: str) -> tuple[Recipe, SizeName]:
    """Return the recipe with the architecture of `init` and the context, batch and learning rate of the nearest size,
    and that size."""
    config = read_config(Path(init))

    def distance(name: SizeName) -> int:
        return abs(SIZES[name].hidden_size - config.hidden_size) + abs(SIZES[name].num_layers - config.num_layers)

    nearest = min(SIZES, key=distance)
    sized = recipe.of_size(nearest)
    context = min(recipe.model.context or SIZES[nearest].context, config.context)
    own = {name: getattr(config, name) for name in SHAPE}
    model = replace(sized.model, size="auto", context=context, **own)
    if config.family in get_args(FamilyName):
        model = replace(model, family=config.family)  # type: ignore[arg-type]
    optimizer = sized.optimizer
    if recipe.optimizer.learning_rate is None:
        optimizer = replace(optimizer, learning_rate=pretraining_rate(optimizer.algorithm, nearest, continued=True))
    return replace(sized, model=model, optimizer=optimizer), nearest
