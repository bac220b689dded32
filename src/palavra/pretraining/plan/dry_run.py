"""What a pretraining run would do, without training."""

from dataclasses import dataclass
from pathlib import Path

from palavra.data.sources import source_bytes
from palavra.model.directory import read_config
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan.compute import _uncompiled, _with_vocabulary
from palavra.pretraining.plan.memory import memory_estimate, timing_recipe
from palavra.pretraining.plan.resolve import (
    RESERVE,
    CorpusStats,
    choose,
    seconds_of,
    settle_threads,
    steps_of_length,
    synthetic,
    with_steps,
)
from palavra.pretraining.plan.timing import step_seconds
from palavra.pretraining.validate import check_recipe
from palavra.recipe import UNKNOWN_BYTES, Recipe
from palavra.tokenizer import Tokenizer

PATIENCE_TO_PLAN = 10.0


@dataclass(frozen=True, kw_only=True)
class PretrainingPlan:
    """What a run would be: its resolved recipe, size in parameters, memory, steps and tokens."""

    recipe: Recipe
    parameters: int
    memory_bytes: float
    steps: int
    tokens: int
    seconds: float
    rule: tuple[str, ...]


def plan_pretraining(recipe: Recipe) -> PretrainingPlan:
    """What `run_pretraining` would do, without reading more of the text than its size."""
    check_recipe(recipe)
    recipe = _with_vocabulary(recipe)
    size = source_bytes(recipe.data) or UNKNOWN_BYTES
    given, pretraining = recipe.init or recipe.tokenizer_from, pretraining_objective(recipe)
    tokenizer = Tokenizer.load(given) if given else None
    if tokenizer is not None:
        pretraining.check(tokenizer)
    entries = tokenizer.vocab_size if tokenizer else recipe.tokenizer.entries
    text = CorpusStats(
        vocab_size=entries,
        tokenizer=tokenizer,
        unique_tokens=max(1, size // 4),
        epoch_tokens=lambda recipe: max(1, size // 4),
        packed=synthetic(entries),
    )
    compute = _uncompiled(recipe)
    recipe, _ = settle_threads(recipe, text, compute)
    choice = choose(recipe, text, compute)
    chosen = choice.recipe
    assert chosen.train.batch_tokens and chosen.train.micro_batch_tokens
    config = read_config(Path(chosen.init)) if chosen.init else chosen.model.build(entries, 0)
    model = pretraining.new(config).to(compute.device)
    timing_run = text.timing_run(timing_recipe(chosen))
    assert timing_run.recipe.train.batch_tokens
    each = step_seconds(model, timing_run.objective, timing_run, compute, steps=3, patience=PATIENCE_TO_PLAN)
    each *= chosen.train.batch_tokens / timing_run.recipe.train.batch_tokens
    steps = steps_of_length(chosen, text.epoch_tokens(chosen)) or max(1, int(seconds_of(chosen) * (1 - RESERVE) / each))
    return PretrainingPlan(
        recipe=with_steps(chosen, steps),
        parameters=sum(p.numel() for p in model.parameters()),
        memory_bytes=memory_estimate(model, chosen.train.micro_batch_tokens),
        steps=steps,
        tokens=steps * chosen.train.batch_tokens,
        seconds=steps * each,
        rule=choice.rule,
    )
