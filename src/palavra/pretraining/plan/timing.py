"""The measured time of a training step."""

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.losses import Loss
from palavra.model.compute import Compute
from palavra.model.heads import VocabularyModel
from palavra.model.layouts import Layout
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.objectives.masked import TextObjective
from palavra.recipe import Recipe
from palavra.training.loop import LoopConfig, Prepared, in_steps, prepare_steps, train
from palavra.training.optimizers import Optimizers, build_optimizers
from palavra.training.out_of_memory import memory_told


@dataclass(frozen=True, kw_only=True)
class TimingRun:
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
    model: VocabularyModel, objective: TextObjective, timing_run: TimingRun, compute: Compute, *, steps: int = 8,
    patience: float = math.inf,
) -> float:  # fmt: skip
    """Seconds of one optimizer step of this recipe: of each kind of step that an objective has, the median of a few
    after the first ones (which compile and allocate), taken together by their shares. Gives up on more of a kind after
    `patience` seconds. The model's weights are restored."""
    recipe = timing_run.recipe
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    optimizers = build_optimizers(model.named_parameters(), recipe.optimizer)
    total = 0.0
    for progress, share in pretraining_objective(recipe).kinds_of_steps(recipe):
        times = _step_times(model, _At(objective, progress), timing_run, optimizers, compute, steps + 2, patience)
        # The first half is warm-up too: what compiled keeps the cores busy for a while.
        total += share * statistics.median_high(times[max(2, len(times) // 2) :] or times[-1:])
    optimizers.zero_grad()
    model.load_state_dict(before)
    return total


def _step_times(
    model: VocabularyModel, objective: TextObjective, timing_run: TimingRun, optimizers: Optimizers, compute: Compute,
    steps: int, patience: float,
) -> list[float]:  # fmt: skip
    """The seconds of so many steps, or of those that there was `patience` for, at least three."""
    recipe, train_config = timing_run.recipe, timing_run.recipe.train
    assert recipe.model.context
    config = LoopConfig(steps=steps, clip=recipe.optimizer.clip, seed=train_config.seed, row_width=recipe.model.context)
    prepared = prepare_steps(in_steps(timing_run.packed, train_config.micro_batches()), objective, config, compute, 0)
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
