"""Describe a fine-tuning run: lines for the log, records for the report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palavra.finetuning.job import FinetuningJob, selection_metric, selection_score
from palavra.finetuning.splits import SPLITS, Split, examples_hash
from palavra.metrics.scores import Scores
from palavra.model.task_heads import TaskModel
from palavra.recipe import FinetuneRecipe
from palavra.run_records.finetuning import (
    FinetunedModel,
    FinetunedTask,
    FinetuningEvaluation,
    FinetuningRun,
    LabelledData,
    SplitScores,
    TaskScores,
)
from palavra.tasks.labels import alike_labels
from palavra.tasks.saved_model import describe_head, is_task_directory, parameters
from palavra.tasks.task import AnyTask
from palavra.training.config import OptimizerName
from palavra.training.environment import environment, shape_of
from palavra.typed_json import from_json

SHOWN_LABELS = 12


def summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Return a line or two with the counts of labels or other properties of the data."""
    data = from_json(LabelledData, dict(summary), "data")
    if data.labels:
        more = f" and {len(data.labels) - SHOWN_LABELS:,} more labels" if len(data.labels) > SHOWN_LABELS else ""
        yield f"labels: {_counts(data.labels)}{more}"
        for alike in alike_labels(data.labels):
            yield (
                f"labels {' and '.join(map(repr, alike))} differ only in how they are written: correct the data if "
                "they mean the same"
            )
    if "scheme" in data.others:
        yield f"spans, written as {data.others['scheme']}: {_counts(data.spans)}"
    for name, of in data.targets.items():
        yield f"{name}: from {of.lowest:g} to {of.highest:g}, mean {of.mean:.4g}"


def _counts(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{label} {count:,}" for label, count in list(labels.items())[:SHOWN_LABELS])


def trained_parameters(model: TaskModel) -> int:
    """Return the number of parameters that the strategy trains in any stage."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def drops_a_head(recipe: FinetuneRecipe) -> bool:
    """Return whether the initial model is already fine-tuned. Its output layer is replaced."""
    return not recipe.from_scratch and is_task_directory(Path(recipe.model))


def describe(job: FinetuningJob, splits: Sequence[Split], pretrained_with: OptimizerName | None) -> FinetuningRun:
    """Return the content of `run.json` before training."""
    return FinetuningRun(
        run="fine-tuning",
        environment=environment(job.compute, 0.0),
        model=FinetunedModel(
            pretrained=job.recipe.model,
            pretrained_with=pretrained_with,
            former_head="dropped" if drops_a_head(job.recipe) else None,
            **shape_of(job.model.config),
            parameters=parameters(job.model),
        ),
        tasks=tuple(
            FinetunedTask(
                name=split.task.spec.name,
                kind=split.task.spec.kind,
                examples={kind: len(getattr(split, kind)) for kind in SPLITS},
                data=split.task.encoder.summary(split.train),
                truncated=job.train[split.task.spec.name].encoded.truncated,
                head=describe_head(job.model, split.task.spec.name),
                skipped=split.skipped,
            )
            for split in splits
        ),
        strategy={**asdict(job.recipe.strategy), "trained_parameters": trained_parameters(job.model)},
        examples_hash=examples_hash(splits),
    )


def scores_line(scores: Scores) -> str:
    """Return the main score with its interval, then the others, in one line."""
    interval = scores.intervals.get(scores.main)
    between = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    others = ", ".join(f"{key} {value:.4f}" for key, value in scores.values.items() if key != scores.main)
    reached = f"{scores.values[scores.main]:.4f}" if scores.main in scores.values else "not defined"
    return f"{scores.main} {reached}{between}, {others}"


def evaluation_of(
    tasks: Mapping[str, AnyTask], scores: Mapping[str, Mapping[str, Scores]], metric: str | None
) -> FinetuningEvaluation:
    """Return the content of `evaluation.json`: scores and selection metric of each task (`metric` as in the recipe),
    and the mean score of several tasks."""
    return with_mean_score(
        [
            TaskScores(
                name=name,
                kind=tasks[name].spec.kind,
                selection_metric=selection_metric(metric, tasks[name]),
                splits={kind: split_scores(found) for kind, found in of.items()},
            )
            for name, of in scores.items()
        ]
    )


def much_gained(gain: float | None, evaluation: FinetuningEvaluation) -> float | None:
    """Return the gain of a run's last validation if it is more than a standard error of the score, by the interval of a
    single task's score; None otherwise."""
    if gain is None or not math.isfinite(gain) or len(evaluation.tasks) != 1:
        return None
    (task,) = evaluation.tasks
    interval = task.splits["valid"].intervals.get(task.selection_metric)
    # A 95% interval is about four standard errors wide.
    return gain if interval is not None and gain > (interval.high - interval.low) / 4 else None


def with_mean_score(tasks: Sequence[TaskScores]) -> FinetuningEvaluation:
    """Return the evaluation of these tasks. Several tasks get a mean selection score, in which errors are negative."""
    mean_score: dict[str, float] = {}
    for kind in SPLITS if len(tasks) > 1 else ():
        reached = [
            selection_score(task.selection_metric, task.splits[kind].values) for task in tasks if kind in task.splits
        ]
        if len(reached) == len(tasks) and math.isfinite(sum(reached)):
            mean_score[kind] = sum(reached) / len(reached)
    return FinetuningEvaluation(tasks=tuple(tasks), mean_score=mean_score)


def split_scores(scores: Scores) -> SplitScores:
    """Return scores in the form of `evaluation.json`."""
    return SplitScores(
        main=scores.main,
        values=scores.values,
        interval=scores.intervals.get(scores.main),
        intervals=scores.intervals,
        details=scores.details,
    )
