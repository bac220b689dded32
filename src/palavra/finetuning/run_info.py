"""The description of a fine-tuning run: lines for the log, JSON for the report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palavra.finetuning.job import FinetuningJob, selection_metric, selection_score
from palavra.finetuning.splits import SPLITS, Split, examples_hash
from palavra.metrics.bootstrap import Interval
from palavra.model.task_heads import TaskModel
from palavra.recipe import FinetuneRecipe
from palavra.tasks.labels import alike_labels
from palavra.tasks.saved_model import describe_head, is_task_directory, parameters
from palavra.tasks.task import Scores, Task
from palavra.training.config import OptimizerName
from palavra.training.environment import environment


def summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The counts of labels, spans or targets of the training examples, in lines of the log."""
    labels = summary.get("labels")
    if isinstance(labels, dict):
        shown = ", ".join(f"{label} {count:,}" for label, count in list(labels.items())[:12])
        more = f" and {len(labels) - 12:,} more labels" if len(labels) > 12 else ""
        yield f"labels: {shown}{more}"
        for alike in alike_labels(labels):
            yield (
                f"labels {' and '.join(map(repr, alike))} differ only in how they are written: fix the data if they "
                "mean the same"
            )
    if "scheme" in summary:
        spans = ", ".join(f"{label} {count:,}" for label, count in list(summary["spans"].items())[:12])
        yield f"spans, written as {summary['scheme']}: {spans}"
    for name, of in dict(summary.get("targets", {})).items():
        yield f"{name}: from {of['lowest']:g} to {of['highest']:g}, mean {of['mean']:.4g}"


def moving_parameters(model: TaskModel) -> int:
    """The number of parameters that the strategy trains at some point."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def drops_a_head(recipe: FinetuneRecipe) -> bool:
    """Whether the initial model is fine-tuned already; its head is then dropped."""
    return not recipe.from_scratch and is_task_directory(Path(recipe.model))


def describe(job: FinetuningJob, splits: Sequence[Split], pretrained_with: OptimizerName | None) -> dict[str, Any]:
    """The content of `run.json` before training."""
    config = job.model.config
    return {
        "run": "fine-tuning",
        "environment": environment(job.compute, 0.0),
        "model": {
            "pretrained": job.recipe.model,
            "pretrained_with": pretrained_with,
            **({"former_head": "dropped"} if drops_a_head(job.recipe) else {}),
            "family": config.family,
            "num_layers": config.num_layers,
            "hidden_size": config.hidden_size,
            "num_heads": config.num_heads,
            "context": config.context,
            "vocab_size": config.vocab_size,
            "parameters": parameters(job.model),
        },
        "tasks": [
            {
                "name": split.task.spec.name,
                "kind": split.task.spec.kind,
                "examples": {kind: len(getattr(split, kind)) for kind in SPLITS},
                "data": split.task.summary(split.train),
                "truncated": job.train[split.task.spec.name].features.truncated,
                "head": describe_head(job.model, split.task.spec.name),
            }
            for split in splits
        ],
        "strategy": {**asdict(job.recipe.strategy), "moving": moving_parameters(job.model)},
        "examples_hash": examples_hash(splits),
    }


def interval_of(scores: Scores) -> Interval | None:
    """The bootstrap interval of the main number, where it has one."""
    return scores.intervals.get(scores.main)


def scores_line(scores: Scores) -> str:
    """The main number with its interval, then the others, in one line."""
    interval = interval_of(scores)
    between = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    others = ", ".join(f"{key} {value:.4f}" for key, value in scores.values.items() if key != scores.main)
    reached = f"{scores.values[scores.main]:.4f}" if scores.main in scores.values else "not defined"
    return f"{scores.main} {reached}{between}, {others}"


def evaluation_json(
    tasks: Mapping[str, Task[Any]], scores: Mapping[str, Mapping[str, Scores]], metric: str | None
) -> dict[str, Any]:
    """As written to `evaluation.json`, with the score of each task that decides (`metric` as in the recipe), and of
    several tasks the mean of these."""
    selection_metrics = {name: selection_metric(metric, tasks[name]) for name in scores}
    entries = [
        {
            "name": name,
            "kind": tasks[name].spec.kind,
            "selection_metric": selection_metrics[name],
            "splits": {kind: scores_json(found) for kind, found in of.items()},
        }
        for name, of in scores.items()
    ]
    return with_mean_score({"tasks": entries})


def with_mean_score(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation; of several tasks with the mean of their deciding scores, in which errors are negative."""
    entries = evaluation["tasks"]
    mean_score: dict[str, float] = {}
    for kind in SPLITS if len(entries) > 1 else ():
        found = [
            (entry["selection_metric"], entry["splits"][kind]["values"]) for entry in entries if kind in entry["splits"]
        ]
        reached = [selection_score(metric, values) for metric, values in found]
        if len(reached) == len(entries) and math.isfinite(sum(reached)):
            mean_score[kind] = sum(reached) / len(reached)
    return {**evaluation, **({"mean_score": mean_score} if mean_score else {})}


def scores_json(scores: Scores) -> dict[str, Any]:
    """Scores as JSON."""
    interval = interval_of(scores)
    return {
        "main": scores.main,
        "values": dict(scores.values),
        "interval": None if interval is None else interval.to_json(),
        "intervals": {name: one.to_json() for name, one in scores.intervals.items()},
        "details": dict(scores.details),
    }
