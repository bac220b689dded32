"""Check a fine-tuning recipe before training."""

from collections.abc import Sequence
from pathlib import Path

from palavra.config import to_toml
from palavra.errors import PalavraError
from palavra.finetuning.splits import Split
from palavra.model.directory import check_weights, read_config
from palavra.model.task_heads import check_head_name
from palavra.option import does_not_apply, misapplied
from palavra.recipe import FinetuneRecipe
from palavra.tasks.question_answering.encoding import largest_stride
from palavra.tasks.saved_model import check_head
from palavra.tasks.spec import MixingConfig, TaskSpec, check_fields
from palavra.tasks.task import AnyTask


def check_recipe(recipe: FinetuneRecipe) -> None:
    """Raise PalavraError for a recipe that is invalid whatever the data."""
    if not recipe.tasks:
        raise PalavraError("no task was given: name a kind and a file of labelled examples")
    if not recipe.model:
        raise PalavraError("--model is missing: name the folder of a pretrained model to fine-tune")
    for task in recipe.tasks:
        if not task.train:
            raise PalavraError(f"task {task.name} has no training file: set train to one")
        check_head_name(task.name)
        check_fields(task)
    to_toml(recipe)  # what cannot be written is refused now
    if not recipe.from_scratch:
        check_weights(Path(recipe.model))


def check_options(recipe: FinetuneRecipe, tasks: Sequence[AnyTask]) -> None:
    """Raise PalavraError for settings without effect. Not for a sweep, where a setting may apply to some trials
    only."""
    for problem in misapplied(recipe, FinetuneRecipe()):
        raise PalavraError(problem)
    if len(tasks) == 1 and recipe.mixing != MixingConfig():
        raise PalavraError(does_not_apply("mixing", "a single task", ["several"]))
    config = read_config(Path(recipe.model))
    for task in tasks:
        for problem in misapplied(task.spec, TaskSpec(kind=task.spec.kind)):
            raise PalavraError(f"task {task.spec.name}: {problem}")
        check_head(config, task)
        if (task.spec.max_length or 0) > config.context:
            raise PalavraError(
                f"task {task.spec.name}: max_length is {task.spec.max_length}, but {recipe.model} "
                f"reads {config.context} "
                "tokens at most: lower it or leave it out"
            )
        context = min(config.context, task.spec.max_length or config.context)
        stride, most = task.spec.question_answering.stride, largest_stride(context)
        if stride is not None and stride > most:
            raise PalavraError(
                f"task {task.spec.name}: question_answering.stride is {stride}, but windows of {context} tokens, with "
                f"a question in each, can share {most} at most: lower it or leave it out"
            )


def check_metric(metric: str | None, splits: Sequence[Split]) -> None:
    """Raise PalavraError if no task has the selection `metric`, or if it is undefined on a task's validation
    examples."""
    tasks = {split.task.spec.name: split.task for split in splits}
    known = dict.fromkeys(name for task in tasks.values() for name in task.scorer.metrics)
    if metric is not None and metric not in known:
        raise PalavraError(f"--metric is {metric!r}, no score of {' or '.join(tasks)}: use one of {', '.join(known)}")
    for split in splits:
        if split.valid and metric in split.task.scorer.undefined(split.valid):
            raise PalavraError(
                f"--metric {metric} is not defined on the validation examples of {split.task.spec.name} (a class "
                "or sort is absent, or values are all alike): choose another, or other validation examples"
            )
