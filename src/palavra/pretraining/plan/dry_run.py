"""Dry run: plan a pretraining run without reading its text or training."""

from dataclasses import dataclass

from palavra.log import Log
from palavra.pretraining.model import shape_only
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.memory import memory_estimate
from palavra.pretraining.plan.resolve import resolve
from palavra.pretraining.plan.timing import quick_step_seconds
from palavra.pretraining.validate import check_recipe
from palavra.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PretrainingPlan:
    """The resolved recipe of a run with the `reasons` of its values; its number of parameters, memory, steps, tokens
    and estimated time."""

    recipe: Recipe
    parameters: int
    memory_bytes: float
    steps: int
    tokens: int
    seconds: float
    reasons: tuple[str, ...]


def plan_pretraining(recipe: Recipe) -> PretrainingPlan:
    """Resolve a recipe as `run_pretraining` does, for a text of known size in bytes only."""
    check_recipe(recipe)
    text = CorpusStats.estimated(recipe)
    if text.tokenizer is not None:
        pretraining_objective(recipe).check_tokenizer(text.tokenizer)
    resolved = resolve(recipe, text, Log(quiet=True), quick_step_seconds)
    train = resolved.recipe.train
    assert train.steps and train.batch_tokens and train.micro_batch_tokens
    each = resolved.step_seconds or quick_step_seconds(resolved.recipe, text, resolved.compute)
    model = shape_only(resolved.recipe, text.vocab_size)
    return PretrainingPlan(
        recipe=resolved.recipe,
        parameters=sum(p.numel() for p in model.parameters()),
        memory_bytes=memory_estimate(model, train.micro_batch_tokens),
        steps=train.steps,
        tokens=train.steps * train.batch_tokens,
        seconds=train.steps * each,
        reasons=resolved.reasons,
    )
