"""The budget picks the model: a short measurement of this machine and a scaling rule.

The rule is the scaling law of Hoffmann et al. 2022 (arXiv:2203.15556, eq. 10), loss = E + A / N^a + B / D^b, in
N parameters outside the embeddings and D tokens seen, with constants fitted to the package's own runs
(docs/budget.md). Repeated text counts less and less (Muennighoff et al. 2023, arXiv:2305.16264,
eq. 5). It is used only to rank sizes against one another, never reported as a forecast.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from palavra.model.compute import Compute
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan.memory import fit_micro_batch
from palavra.pretraining.plan.scaling_law import SCALING_LAW, parameters_without_embeddings
from palavra.pretraining.plan.timing import TimingRun, step_seconds
from palavra.recipe import SIZES, Recipe, SizeName
from palavra.training.out_of_memory import OutOfMemory


@dataclass(frozen=True, kw_only=True)
class SizeCandidate:
    """A size that was looked at: its measured tokens/s, the tokens it could see in the time, and its rank."""

    size: SizeName
    parameters: int
    tokens_per_second: float
    tokens: float
    predicted_loss: float
    chosen: bool = False


# A schedule needs room: a model that could only make fewer steps than this is too large for the budget.
FEWEST_STEPS = 300


def choose_size(
    recipe: Recipe,
    seconds: float,
    unique_tokens: int,
    vocab_size: int,
    compute: Compute,
    timing_run_of: Callable[[Recipe], TimingRun],
) -> tuple[Recipe, list[SizeCandidate]]:
    """Try the sizes upwards, measure what each would see in `seconds`, and take the one the rule ranks first.

    Stops where a size no longer fits in memory, could not make `FEWEST_STEPS` steps, or two in a row rank worse.
    """
    found: list[SizeCandidate] = []
    pretraining = pretraining_objective(recipe)
    for name in SIZES:
        sized = recipe.of_size(name)
        config = sized.model.build(vocab_size, None)
        try:
            sized, _ = fit_micro_batch(sized, recipe.train.micro_batch_tokens, config, compute)
        except OutOfMemory:
            if not found:
                raise
            break
        assert sized.train.batch_tokens
        torch.manual_seed(sized.train.seed)
        model = pretraining.new(config).to(compute.device)
        timing_run = timing_run_of(sized)
        each = step_seconds(model, timing_run.objective, timing_run, compute, steps=4, patience=0.02 * seconds)
        if found and seconds / each < FEWEST_STEPS:
            break
        rate = sized.train.batch_tokens / each
        size = parameters_without_embeddings(model)
        tokens = rate * seconds
        loss = SCALING_LAW.loss(size, tokens, unique_tokens)
        found.append(
            SizeCandidate(size=name, parameters=size, tokens_per_second=rate, tokens=tokens, predicted_loss=loss)
        )
        if len(found) > 2 and found[-1].predicted_loss > found[-2].predicted_loss > found[-3].predicted_loss:
            break
    best = min(found, key=lambda candidate: candidate.predicted_loss)
    marked = [replace(candidate, chosen=candidate is best) for candidate in found]
    return recipe.of_size(best.size), marked
