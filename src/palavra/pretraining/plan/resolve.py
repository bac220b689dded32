"""Resolve a recipe: decide sizes, steps, threads, precision, compilation and micro-batches, for a run and a dry run
alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from palavra.log import Log
from palavra.model.compute import Compute
from palavra.model.cpu_threads import set_threads
from palavra.pretraining.corpus import vocabulary_size
from palavra.pretraining.plan.compute import compute_for, sizing_compute
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.length import stated_steps, steps_of_run, time_budget, with_steps
from palavra.pretraining.plan.memory import fit_micro_batch
from palavra.pretraining.plan.model_size import SizeCandidate, with_size
from palavra.pretraining.plan.timing import step_seconds
from palavra.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ResolvedRecipe:
    """A recipe with every open value filled in, its `compute`, and the `reasons` for the decisions, a line each. If the
    length is in minutes: the timed sizes (`candidates`) and the measured `step_seconds`."""

    recipe: Recipe
    compute: Compute
    reasons: tuple[str, ...] = ()
    candidates: tuple[SizeCandidate, ...] = ()
    step_seconds: float | None = None


StepTimer = Callable[[Recipe, CorpusStats, Compute], float]


def measured(recipe: Recipe, text: CorpusStats, compute: Compute) -> float:
    """Return the seconds of a step, measured for at most a tenth of the time budget."""
    return step_seconds(recipe, text, compute, steps=40, patience=0.1 * time_budget(recipe))


def resolve(recipe: Recipe, text: CorpusStats, log: Log, timer: StepTimer = measured) -> ResolvedRecipe:
    """Fill in everything that a recipe leaves open, and log each decision. Sets the number of threads of this process.

    `timer` measures a step if the length is in minutes. Raises OutOfMemory if not even a micro-batch fits, and
    PalavraError if the length is too short for a step.
    """
    reasons: list[str] = []

    def decided(*lines: str) -> None:
        reasons.extend(lines)
        for line in lines:
            log.line(line)

    asked = recipe.train.micro_batch_tokens
    if not recipe.init and not recipe.tokenizer_from:
        entries = vocabulary_size(recipe.data, recipe.tokenizer)
        recipe = replace(recipe, tokenizer=replace(recipe.tokenizer, vocab_size=entries))
    threads = set_threads(recipe.train.threads)
    decided(f"threads: {threads}")
    sizing = sizing_compute(recipe)
    recipe, lines, candidates = with_size(recipe, text, sizing)
    decided(*lines)
    recipe, lines = fit_micro_batch(recipe, asked, text.vocab_size, sizing)
    decided(*lines)
    compute = compute_for(recipe, text.epoch_tokens(recipe))
    decided(*compute.reasons)
    recipe = replace(
        recipe, train=replace(recipe.train, threads=threads, precision=compute.precision, compile=compute.compile)
    )
    each = None
    if stated_steps(recipe, text.epoch_tokens(recipe)) is None:
        with log.live("measuring the time of a step", None):
            each = timer(recipe, text, compute)
    steps, reason = steps_of_run(recipe, text, each, log)
    decided(reason)
    return ResolvedRecipe(
        recipe=with_steps(recipe, steps, None if each is None else time_budget(recipe) / 60),
        compute=compute,
        reasons=tuple(reasons),
        candidates=tuple(candidates),
        step_seconds=each,
    )


def restore(recipe: Recipe, log: Log) -> ResolvedRecipe:
    """Return the decisions of an already resolved recipe. Sets the number of threads of this process."""
    set_threads(recipe.train.threads)
    compute = compute_for(recipe, 0)
    for line in compute.reasons:
        log.line(line)
    return ResolvedRecipe(recipe=recipe, compute=compute, reasons=compute.reasons)
