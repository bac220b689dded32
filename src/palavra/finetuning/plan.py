"""Resolve a fine-tuning recipe: decide optimizer, learning rate, threads, precision, compilation and steps, for a run
and a dry run alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.finetuning.splits import SPLITS, Split, read_split
from palavra.finetuning.validate import check_metric, check_options, check_recipe
from palavra.inference.finetuned import context_of
from palavra.model.compute import Compute, choose_compute, for_attention
from palavra.model.config import ModelConfig
from palavra.model.cpu_threads import set_threads
from palavra.model.directory import read_config
from palavra.recipe import FinetuneRecipe, Recipe
from palavra.run_records.finetuning import FinetuningRun
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.sampling import BatchSampler
from palavra.tasks.saved_model import is_task_directory
from palavra.tasks.task import AnyTask
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, OptimizerName
from palavra.typed_json import read_json

# In a shorter run, compiling takes longer than it saves.
WORTH_COMPILING_TOKENS = 6e6


@dataclass(frozen=True, kw_only=True)
class ResolvedFinetuning:
    """A recipe with every open value filled in, the `compute` it runs with, the `encoded` training and
    validation examples of each task ("train", "valid"), and the `reasons` of the decisions, a line each."""

    recipe: FinetuneRecipe
    compute: Compute
    encoded: Mapping[str, Mapping[str, EncodedExamples]]
    reasons: tuple[str, ...]


def resolve_finetuning(
    recipe: FinetuneRecipe, splits: Sequence[Split], tokenizer: Tokenizer, pretrained_with: OptimizerName | None = None
) -> ResolvedFinetuning:
    """Fill in everything that a recipe leaves open; a resolved recipe is unchanged. Sets this process's thread
    count."""
    config = recipe.body.applied_to(read_config(Path(recipe.model)))
    recipe = recipe.settled(config.hidden_size, pretrained_with)
    optimizer, train = recipe.optimizer, recipe.train
    threads = set_threads(train.threads)
    encoded = {
        split.task.spec.name: {
            "train": _encode_training(split, tokenizer, config),
            "valid": encode(split.task, split.valid, tokenizer, config),
        }
        for split in splits
    }
    read = {name: of["train"] for name, of in encoded.items()}
    epoch_steps = batch_sampler(recipe, read).epoch_steps
    passes = train.passes(epoch_steps)
    tokens = sum(int(one.lengths.sum()) for one in read.values()) * passes
    compute = choose_compute(train.device, train.precision, train.compile, tokens >= WORTH_COMPILING_TOKENS)
    compute = for_attention(compute, dropout=config.attention_dropout, relative=config.relative is not None)
    steps = train.steps or max(1, math.ceil(passes * epoch_steps))
    train = replace(train, steps=steps, precision=compute.precision, compile=compute.compile, threads=threads)
    length = (
        f"{steps:,} step{'s' * (steps != 1)} of {train.batch_size} examples, {optimizer.name} at {optimizer.max_lr:.3g}"
    )
    return ResolvedFinetuning(
        recipe=replace(recipe, train=train), compute=compute, encoded=encoded, reasons=(*compute.reasons, length)
    )


def _encode_training(split: Split, tokenizer: Tokenizer, config: ModelConfig) -> EncodedExamples:
    """Encode the training examples. Raises PalavraError if no window holds a whole answer."""
    found = encode(split.task, split.train, tokenizer, config).taught()
    if split.train and not found.sequences:
        raise PalavraError(
            f"{split.task.spec.source}: no window of {context_of(config, split.task)} tokens holds a whole answer: "
            "take shorter answers, or a model with a longer context"
        )
    return found


def encode(task: AnyTask, examples: Sequence[Any], tokenizer: Tokenizer, config: ModelConfig) -> EncodedExamples:
    """Encode examples as predictions do."""
    overflow = task.spec.overflow
    return task.encoder.encode(examples, tokenizer, context_of(config, task), config.segments > 1, overflow=overflow)


def batch_sampler(recipe: FinetuneRecipe, encoded: Mapping[str, EncodedExamples]) -> BatchSampler:
    """Return the batch sampler of the recipe over the training examples of each task."""
    train = recipe.train
    return BatchSampler(
        encoded=encoded,
        batch_size=train.batch_size,
        micro_batch_tokens=train.micro_batch_tokens,
        seed=train.seed,
        mixing=recipe.mixing,
    )


@dataclass(frozen=True, kw_only=True)
class FinetuningPlan:
    """The resolved recipe of a run with the `reasons` of its values, its number of `steps`, and for each task the
    examples by split and the training examples that are cut to the context."""

    recipe: FinetuneRecipe
    steps: int
    examples: Mapping[str, Mapping[str, int]]
    truncated: Mapping[str, int]
    reasons: tuple[str, ...]


def plan_finetuning(recipe: FinetuneRecipe) -> FinetuningPlan:
    """Resolve a recipe as `run_finetuning` does, without training. Raises PalavraError for what would end the run."""
    check_recipe(recipe)
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    check_options(recipe, [split.task for split in splits])
    check_metric(recipe.train.metric, splits)
    model = Path(recipe.model)
    resolved = resolve_finetuning(recipe, splits, Tokenizer.load(model), optimizer_of(model))
    assert resolved.recipe.train.steps
    return FinetuningPlan(
        recipe=resolved.recipe,
        steps=resolved.recipe.train.steps,
        examples={split.task.spec.name: {kind: len(getattr(split, kind)) for kind in SPLITS} for split in splits},
        truncated={name: of["train"].truncated for name, of in resolved.encoded.items()},
        reasons=resolved.reasons,
    )


def optimizer_of(pretrained: Path) -> OptimizerName | None:
    """Return the optimizer that pretrained a Palavra model, even if it was fine-tuned since; None for other models.
    Raises PalavraError for a damaged recipe."""
    recipe, run = pretrained / "palavra.toml", pretrained / "run.json"
    if is_task_directory(pretrained):
        try:
            known = read_json(FinetuningRun, run).model.pretrained_with if run.is_file() else None
        except PalavraError:  # other programs write a run.json too
            known = None
        return next((name for name in get_args(OptimizerName) if name == known), None)
    if not recipe.is_file():
        return None
    # Only the optimizer's name matters: the other keys may be those of another version.
    table = configuration.read_toml(recipe).get("optimizer", {})
    name = table.get("name", Recipe().optimizer.name) if isinstance(table, dict) else table
    return configuration.from_mapping(OptimizerConfig, {"name": name}, str(recipe)).name
