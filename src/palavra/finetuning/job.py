"""The fine-tuning job: a model with a head for each task, every value resolved."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from palavra.data.packing import Cursor
from palavra.finetuning.plan import batch_sampler
from palavra.inference.finetuned import Vectors, decode, infer
from palavra.metrics.names import is_error
from palavra.metrics.scores import Scores
from palavra.model.task_heads import TaskModel
from palavra.recipe import FinetuneRecipe
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.objective import TaskObjective
from palavra.tasks.sampling import BatchSampler, MicroBatch
from palavra.tasks.task import AnyTask, calibrated
from palavra.training.config import RunConfig
from palavra.training.job import Stage, TrainingJob, Validation
from palavra.training.optimizers import Optimizers, build_optimizers
from palavra.training.strategies import lr_ratio_of, stages_of

# An epoch of few examples is a step or two: validations after each, with their checkpoints, would take longer than the
# training.
MOST_VALIDATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled examples of one task and their encoding; `vectors` as in `TaskObjective`."""

    examples: Sequence[Any]
    encoded: EncodedExamples
    vectors: Vectors | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuningJob(TrainingJob):
    """A model with a head for each task. `train` and `valid` hold the examples of each task; `pretrained` names the
    parameters of heads that have pretrained weights; `on_validation` is called after each validation, and may raise to
    end the run."""

    title = "fine-tuning"
    recipe: FinetuneRecipe
    model: TaskModel
    tasks: Mapping[str, AnyTask]
    train: Mapping[str, Labelled]
    valid: Mapping[str, Labelled]
    pretrained: frozenset[str] = frozenset()
    on_validation: "Callable[[FinetuningJob, Validation], None] | None" = None

    @cached_property
    def sampler(self) -> BatchSampler:
        """The sampler of the recipe's batches."""
        return batch_sampler(self.recipe, {name: labelled.encoded for name, labelled in self.train.items()})

    @property
    def objective(self) -> TaskObjective:
        """The tasks' losses."""
        vectors = {name: one.vectors for name, one in self.train.items() if one.vectors is not None}
        return TaskObjective(self.tasks, {name: one.encoded for name, one in self.train.items()}, vectors)

    @property
    def intervals(self) -> RunConfig:
        """The recipe's intervals; by default validation follows each epoch, or each tenth of a run of more epochs than
        were asked for."""
        train = self.recipe.train
        tenth = math.ceil((train.steps or 1) / MOST_VALIDATIONS) if train.epochs is None else 1
        return replace(train, eval_every=train.eval_every or max(self.sampler.epoch_steps, tenth))

    @property
    def patience(self) -> int | None:
        """The recipe's."""
        return self.recipe.train.patience

    @property
    def chance_loss(self) -> float:
        """The highest chance loss of any task."""
        return max(
            task.spec.weight * task.output.chance_loss(self.train[name].encoded) for name, task in self.tasks.items()
        )

    def optimizers(self) -> Optimizers:
        """Return new optimizers of the parameters trained in any stage."""
        ratio_of = lr_ratio_of(self.recipe.strategy, self.model.config.num_layers, self.pretrained)
        return build_optimizers(self.model.named_parameters(), self.optimizer, ratio_of)

    def stages(self) -> Sequence[Stage]:
        """Return the stages of the strategy."""
        return stages_of(self.model, self.recipe.strategy, self.loop.steps)

    def micro_batches(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """Yield the sampler's micro-batches."""
        return self.sampler.micro_batches(cursor)

    def validate(self) -> Validation | None:
        """Score every task on its validation examples. The mean selection score marks the best weights; ties go to the
        lower mean loss."""
        if not self.valid:
            return None
        found = {name: self.score(name, labelled) for name, labelled in self.valid.items()}
        metrics = {name: selection_metric(self.recipe.train.metric, self.tasks[name]) for name in found}
        reached = [selection_score(metrics[name], scores.values) for name, scores in found.items()]
        values = {f"{name}/{key}": value for name, scores in found.items() for key, value in scores.values.items()}
        mean_score = float(np.mean(reached))
        if len(found) == 1:
            values = dict(next(iter(found.values())).values)
        elif math.isfinite(mean_score):
            values["mean_score"] = mean_score
        line = ", ".join(
            f"{name if len(found) > 1 else 'validation'} {_brief(metrics[name], reach, scores.values)}"
            for (name, scores), reach in zip(found.items(), reached, strict=True)
        )
        if len(found) > 1:
            line += f", mean score {mean_score:.4f}" if math.isfinite(mean_score) else ", mean score not defined"
        loss = float(np.mean([scores.values["loss"] for scores in found.values()]))
        validation = Validation(score=-mean_score, loss=loss, values=values, line=line)
        if self.on_validation is not None:
            self.on_validation(self, validation)
        return validation

    def score(self, name: str, labelled: Labelled) -> Scores:
        """Return the scores of the model on labelled examples of a task."""
        task, examples, encoded = self.tasks[name], labelled.examples, labelled.encoded
        decoded = decode(self.model, name, task, examples, encoded, self.compute, labelled.vectors)
        return task.scorer.score(examples, encoded, decoded)

    def calibrate(self, name: str, labelled: Labelled) -> tuple[AnyTask, Scores]:
        """Return a task with the values fitted on its validation examples, and its scores on them."""
        task = self.tasks[name]
        if task.calibrate is None:
            return task, self.score(name, labelled)
        outputs = infer(self.model, name, task, labelled.encoded, self.compute, labelled.vectors)
        return calibrated(task, labelled.examples, labelled.encoded, outputs)

    def name_document(self, number: int) -> str:
        """Return file and line of an example, from the first task that has this index."""
        for labelled in self.train.values():
            if number < len(labelled.examples):
                return str(labelled.examples[number].where)
        return str(number)


def selection_metric(asked: str | None, task: AnyTask) -> str:
    """Return the metric that selects weights, trials and repetitions: `train.metric` if that is set (`asked`) and the
    task has it, else the task's main one."""
    metrics = task.scorer.metrics
    return asked if asked in metrics else metrics[0]


def selection_score(metric: str, values: Mapping[str, float]) -> float:
    """Return the selection score of a task, higher is better: its metric on validation examples, with errors negated.
    An undefined score, such as the correlation of constant predictions, is -inf."""
    value = values.get(metric, math.nan)
    if math.isnan(value):
        return -math.inf
    return -value if is_error(metric) else value


def _brief(metric: str, reached: float, values: Mapping[str, float]) -> str:
    decided = "not defined" if math.isinf(reached) else f"{values[metric]:.4f}"
    return f"{metric} {decided}, loss {values['loss']:.4f}"
