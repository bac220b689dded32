"""The budget picks the model: a short measurement of this machine and a scaling rule.

The rule is the scaling law of Hoffmann et al. 2022 (arXiv:2203.15556, eq. 10), loss = E + A / N^a + B / D^b, in
N parameters outside the embeddings and D tokens seen, with constants fitted to the package's own runs
(docs/budget.md). Repeated text counts less and less (Muennighoff et al. 2023, arXiv:2305.16264,
eq. 5). It is used only to rank sizes against one another, never reported as a forecast.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.losses import Loss
from palavra.model.compute import Compute
from palavra.model.heads import VocabularyModel
from palavra.model.layouts import Layout
from palavra.recipe import SIZES, Recipe, SizeName
from palavra.run.learning import learning_of
from palavra.run.memory import OutOfMemory, fitted, memory_told
from palavra.run.single_objectives import TextObjective
from palavra.training.loop import LoopConfig, Prepared, in_steps, prepare_steps, train
from palavra.training.optimizers import Optimizers, build_optimizers


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A size that was looked at: its measured tokens/s, the tokens it could see in the time, and its rank."""

    size: SizeName
    parameters: int
    tokens_per_second: float
    tokens: float
    predicted_loss: float
    chosen: bool = False


REPEAT_HALF_LIFE = 15.4
# A schedule needs room: a model that could only make fewer steps than this is too large for the budget.
FEWEST_STEPS = 300
TOKENS_A_PARAMETER = 20


@dataclass(frozen=True, kw_only=True)
class Law:
    """loss = floor + size / N^size_power + tokens / D^tokens_power, in nats (Hoffmann et al. 2022, eq. 10)."""

    floor: float
    size: float
    size_power: float
    tokens: float
    tokens_power: float

    def loss(self, parameters: float, tokens: float, unique_tokens: float) -> float:
        """The loss of a model of N `parameters` after D `tokens` of a corpus of so many different ones."""
        fresh = worth(tokens, unique_tokens)
        return float(self.floor + self.size / parameters**self.size_power + self.tokens / fresh**self.tokens_power)


# Fitted by benchmarks/budget.py to the runs in docs/budget.md.
LAW = Law(floor=1.61, size=114.0, size_power=0.408, tokens=5023.0, tokens_power=0.531)


def worth(tokens: float, unique_tokens: float) -> float:
    """The fresh tokens that `tokens` of a repeated corpus are worth (Muennighoff et al. 2023, eq. 5)."""
    repeats = max(0.0, tokens / unique_tokens - 1)
    return min(tokens, unique_tokens * (1 + REPEAT_HALF_LIFE * (1 - math.exp(-repeats / REPEAT_HALF_LIFE))))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a measurement needs besides a model: the recipe, packed text and the objective (uncompiled)."""

    recipe: Recipe
    packed: Iterator[Packed]
    objective: TextObjective


class _At:
    """An objective as it is at one point of the training, whatever the step."""

    def __init__(self, objective: TextObjective, progress: float):
        self.objective, self.progress = objective, progress

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float) -> Prepared:
        """A batch as of that point."""
        del progress
        return self.objective.prepare(packed, random, self.progress)

    def loss(self, model: VocabularyModel, batch: Batch, layout: Layout) -> Loss:
        """The loss of such a batch."""
        return self.objective.loss(model, batch, layout)


def step_seconds(
    model: VocabularyModel, objective: TextObjective, trial: Trial, compute: Compute, *, steps: int = 8,
    patience: float = math.inf,
) -> float:  # fmt: skip
    """Seconds of one optimizer step of this recipe: of each kind of step that an objective has, the median of a few
    after the first ones (which compile and allocate), taken together by their shares. Gives up on more of a kind after
    `patience` seconds. The model's weights are restored."""
    recipe = trial.recipe
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    optimizers = build_optimizers(model.named_parameters(), recipe.optimizer)
    total = 0.0
    for progress, share in learning_of(recipe).kinds_of_steps(recipe):
        times = _step_times(model, _At(objective, progress), trial, optimizers, compute, steps + 2, patience)
        # The first half is warm-up too: what compiled keeps the cores busy for a while.
        total += share * statistics.median_high(times[max(2, len(times) // 2) :] or times[-1:])
    optimizers.zero_grad()
    model.load_state_dict(before)
    return total


def _step_times(
    model: VocabularyModel, objective: TextObjective, trial: Trial, optimizers: Optimizers, compute: Compute,
    steps: int, patience: float,
) -> list[float]:  # fmt: skip
    """The seconds of so many steps, or of those that there was `patience` for, at least three."""
    recipe, train_config = trial.recipe, trial.recipe.train
    assert recipe.model.context
    config = LoopConfig(steps=steps, clip=recipe.optimizer.clip, seed=train_config.seed, row_width=recipe.model.context)
    prepared = prepare_steps(in_steps(trial.packed, train_config.micro_batches()), objective, config, compute, 0)
    times: list[float] = []
    begin = last = time.perf_counter()
    with memory_told():
        for _ in train(model, objective, prepared, optimizers, recipe.schedule, config, compute):
            compute.synchronize()
            now = time.perf_counter()
            times.append(now - last)
            last = now
            if len(times) > 2 and now - begin > patience:
                break
    return times


def parameters_without_embeddings(model: VocabularyModel) -> int:
    """N of the rule: every parameter but the vocabulary's and the positions' vectors."""
    skipped = ("embeddings.token", "embeddings.position", "head.bias", "head.weight")
    return sum(p.numel() for name, p in model.named_parameters() if not any(s in name for s in skipped))


def choose_size(
    recipe: Recipe,
    seconds: float,
    unique_tokens: int,
    vocab_size: int,
    compute: Compute,
    trial_of: Callable[[Recipe], Trial],
) -> tuple[Recipe, list[Candidate]]:
    """Try the sizes upwards, measure what each would see in `seconds`, and take the one the rule ranks first.

    Stops where a size no longer fits in memory, could not make `FEWEST_STEPS` steps, or two in a row rank worse.
    """
    found: list[Candidate] = []
    learning = learning_of(recipe)
    for name in SIZES:
        sized = recipe.of_size(name)
        config = sized.model.build(vocab_size, None)
        try:
            sized, _ = fitted(sized, recipe.train.micro_batch_tokens, config, compute)
        except OutOfMemory:
            if not found:
                raise
            break
        assert sized.train.batch_tokens
        torch.manual_seed(sized.train.seed)
        model = learning.new(config).to(compute.device)
        trial = trial_of(sized)
        each = step_seconds(model, trial.objective, trial, compute, steps=4, patience=0.02 * seconds)
        if found and seconds / each < FEWEST_STEPS:
            break
        rate = sized.train.batch_tokens / each
        size = parameters_without_embeddings(model)
        tokens = rate * seconds
        loss = LAW.loss(size, tokens, unique_tokens)
        found.append(Candidate(size=name, parameters=size, tokens_per_second=rate, tokens=tokens, predicted_loss=loss))
        if len(found) > 2 and found[-1].predicted_loss > found[-2].predicted_loss > found[-3].predicted_loss:
            break
    best = min(found, key=lambda candidate: candidate.predicted_loss)
    marked = [replace(candidate, chosen=candidate is best) for candidate in found]
    return recipe.of_size(best.size), marked


def size_for_tokens(tokens_of: Callable[[SizeName], float], unique_tokens: int) -> SizeName:
    """The size to train when the length is in tokens or steps, not in time: the largest that sees at least
    `TOKENS_A_PARAMETER` for each of its parameters (Hoffmann et al. 2022), repeated text counted at its worth.

    `tokens_of` gives the tokens that a size would see, which depends on its batch where the length is in steps.
    """
    fitting: list[SizeName] = ["nano"]
    for name, size in SIZES.items():
        parameters = 12.0 * size.layers * size.width**2
        if worth(tokens_of(name), unique_tokens) >= TOKENS_A_PARAMETER * parameters:
            fitting.append(name)
    return fitting[-1]
