"""finetune(): from a pretrained model and labelled data to a model for a task. The wiring, from top to bottom."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.finetuning.job import FinetuningJob, Labelled
from palavra.finetuning.run_info import (
    describe,
    drops_a_head,
    evaluation_of,
    scores_line,
    summary_lines,
    trained_parameters,
)
from palavra.finetuning.splits import SPLITS, Split, examples_hash, read_split, with_absolute_paths, write_held_out
from palavra.inference.finetuned import body_vectors, context_of
from palavra.log import Log
from palavra.model.compute import Compute, choose_compute, compile_layers, for_dropout
from palavra.model.config import check_output
from palavra.model.directory import read_config
from palavra.model.partial_embedding import PartialEmbedding
from palavra.model.task_heads import TaskModel, check_head_name
from palavra.recipe import FinetuneRecipe
from palavra.recipe.finetuning_options import optimizer_of
from palavra.report import write_report
from palavra.run_records import FinetuningRun
from palavra.tasks.features import EncodedExamples
from palavra.tasks.saved_model import (
    build_task_model,
    check_head,
    describe_head,
    load_pretrained,
    parameters,
    save_task_model,
)
from palavra.tasks.spec import MixingConfig, check_fields
from palavra.tasks.task import Scores, Task
from palavra.tokenizer import Tokenizer
from palavra.training.checkpoint import newest_whole
from palavra.training.config import check_strategy
from palavra.training.run_directory import RunDirectory
from palavra.training.strategies import finish_model, prepare_model
from palavra.training.trainer import Outcome, Trainer

# A shorter run would not earn its compilation back.
WORTH_COMPILING_TOKENS = 6e6
# Vectors of a frozen body are kept for reuse up to so many bytes.
LARGEST_VECTORS = 2**31


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A finished fine-tuning run: where it is, `scores` by task and by "valid" and "test", what it took."""

    directory: Path
    report: Path
    scores: Mapping[str, Mapping[str, Scores]]
    steps: int
    seconds: float
    examples_per_second: float
    stopped: str | None

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {
            "model": str(self.directory),
            "report": str(self.report),
            "steps": self.steps,
            "seconds": self.seconds,
            "examples_per_second": self.examples_per_second,
            "stopped": self.stopped,
            "scores": {
                name: {kind: {"main": found.main, **found.values} for kind, found in of.items()}
                for name, of in self.scores.items()
            },
        }


def run_finetuning(recipe: FinetuneRecipe, out: Path, log: Log) -> FineTuned:
    """Fine-tune from the start."""
    check_recipe(recipe)
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    check_options(recipe, [split.task for split in splits])
    return finetune_splits(recipe, splits, out, log)


def finetune_splits(
    recipe: FinetuneRecipe,
    splits: Sequence[Split],
    out: Path,
    log: Log,
    as_job: Callable[[FinetuningJob], FinetuningJob] = lambda job: job,
) -> FineTuned:
    """Fine-tune on examples that are read already; `as_job` may put another job in the place of what is trained."""
    check_metric(recipe.train.metric, splits)
    run = RunDirectory(out)
    with run.locked():
        run.check_free()
        log.open_file(run.log)
        pretrained = Path(recipe.model)
        tokenizer = Tokenizer.load(pretrained)
        width = read_config(pretrained).hidden_size
        pretrained_with = optimizer_of(pretrained)
        recipe = recipe.settled(width, pretrained_with)
        job = _job(recipe, splits, tokenizer, log)
        recipe = replace(job.recipe, train=replace(job.recipe.train, steps=job.steps))
        job = as_job(replace(job, recipe=recipe))
        _describe(job, splits, log)
        run.write_json("run.json", describe(job, splits, pretrained_with))
        write_held_out(run, splits)
        # Last, for a folder with a recipe is a run that can be resumed.
        atomic_write_text(run.recipe, configuration.to_toml(with_absolute_paths(recipe)))
        return _train(Trainer(job, run, log), job, splits, tokenizer)


def resume_finetuning(
    out: Path, overrides: Sequence[str], log: Log, splits: Sequence[Split] | None = None
) -> FineTuned:
    """Go on with an interrupted run, exactly, with its own recipe (changed only by `overrides`), on the examples it
    began with: `splits` where it was given them, else read again."""
    run = RunDirectory(out)
    run.check_present()
    if run.weights.exists() and not run.checkpoints.exists():
        raise PalavraError(
            f"{out} is finished: nothing is left to resume (with --set train.keep_checkpoints=true a new run could be "
            "made longer later)"
        )
    with run.locked():
        log.open_file(run.log)
        recipe = configuration.override(configuration.from_toml(FinetuneRecipe, run.recipe), overrides)
        splits = splits or [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
        if run.read_json(FinetuningRun, "run.json").examples_hash != examples_hash(splits):
            raise PalavraError(f"{out}: the labelled files changed since the run began: start it anew in another --out")
        check_metric(recipe.train.metric, splits)
        tokenizer = Tokenizer.load(Path(recipe.model))
        job = _job(recipe, splits, tokenizer, log)
        whole, skipped = newest_whole(run.checkpoints)
        training = Trainer(job, run, log)
        training.resume(whole, skipped)
        return _train(training, job, splits, tokenizer)


def check_recipe(recipe: FinetuneRecipe) -> None:
    """Raise PalavraError for what no data could make right."""
    if not recipe.tasks:
        raise PalavraError("no task was given: name a kind and a file of labelled examples")
    if not recipe.model:
        raise PalavraError("--model is missing: name the folder of a pretrained model to fine-tune")
    for task in recipe.tasks:
        if not task.train:
            raise PalavraError(f"task {task.name} has no training file: set train to one")
        check_head_name(task.name)
        check_fields(task)


def check_options(recipe: FinetuneRecipe, tasks: Sequence[Task[Any]]) -> None:
    """Raise PalavraError for what was set and would change nothing. Not for a sweep: what one of its trials leaves
    aside, another may use."""
    check_strategy(recipe.strategy)
    if len(tasks) == 1 and recipe.mixing != MixingConfig():
        raise PalavraError("mixing means nothing for a single task: leave it out")
    config = read_config(Path(recipe.model))
    for task in tasks:
        check_output(task.spec.output, task.spec.name)
        check_head(config, task)
        if (task.spec.max_length or 0) > config.context:
            raise PalavraError(
                f"task {task.spec.name}: max_length is {task.spec.max_length}, but {recipe.model} "
                f"reads {config.context} "
                "tokens at most: lower it or leave it out"
            )


def check_metric(metric: str | None, splits: Sequence[Split]) -> None:
    """Raise PalavraError where the `metric` that is to decide is that of no task, or not defined on the validation
    examples of one that has it."""
    tasks = {split.task.spec.name: split.task for split in splits}
    known = dict.fromkeys(name for task in tasks.values() for name in task.metrics)
    if metric is not None and metric not in known:
        raise PalavraError(f"train.metric {metric!r} is none of {' or '.join(tasks)}: use one of {', '.join(known)}")
    for split in splits:
        if split.valid and metric in split.task.undefined(split.valid):
            raise PalavraError(
                f"train.metric {metric} is not defined on the validation examples of {split.task.spec.name} (a class "
                "or sort is absent, or values are all alike): choose another, or other validation examples"
            )


# The job


def _job(recipe: FinetuneRecipe, splits: Sequence[Split], tokenizer: Tokenizer, log: Log) -> FinetuningJob:
    """Model, features and arithmetic for a recipe whose optimizer is settled."""
    tasks = {split.task.spec.name: split.task for split in splits}
    torch.manual_seed(recipe.train.seed)
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    model = build_task_model(
        read_config(Path(recipe.model)), tasks, learned_weights=recipe.mixing.weighting == "uncertainty"
    )
    if not recipe.from_scratch:
        load_pretrained(model, Path(recipe.model))
    encoded = {name: _encode_split(model, split, tokenizer) for name, split in zip(tasks, splits, strict=True)}
    tokens = sum(int(found[0].lengths.sum()) for found in encoded.values()) * recipe.train.epochs
    compute = choose_compute(
        recipe.train.device, recipe.train.precision, recipe.train.compile, tokens >= WORTH_COMPILING_TOKENS
    )
    compute = for_dropout(compute, model.config.attention_dropout)
    for line in compute.reasons:
        log.line(line)
    model.to(compute.device)
    prepare_model(model, recipe.strategy, np.concatenate([found[0].input_ids for found in encoded.values()]))
    compile_layers(model.transformer.layers, compute)
    return FinetuningJob(
        recipe=_with_compute(recipe, compute),
        model=model,
        tasks=tasks,
        train={
            name: _labelled(model, name, split.train, encoded[name][0], compute)
            for name, split in zip(tasks, splits, strict=True)
        },
        valid={
            name: _labelled(model, name, split.valid, encoded[name][1], compute)
            for name, split in zip(tasks, splits, strict=True)
            if split.valid
        },
        compute=compute,
    )


def _encode_split(model: TaskModel, split: Split, tokenizer: Tokenizer) -> tuple[EncodedExamples, EncodedExamples]:
    """Training and validation examples as features; where long texts are split, the latter as they are predicted."""
    task = split.task
    context, segments = context_of(model, task), model.config.segments > 1
    train = task.encode(split.train, tokenizer, context, segments)
    return train, task.encode(split.valid, tokenizer, context, segments, split=task.spec.overflow == "window")


def _labelled(
    model: TaskModel, name: str, examples: Sequence[Any], features: EncodedExamples, compute: Compute
) -> Labelled:
    """Examples and features, with the body's vectors where the body never moves."""
    frozen = not any(parameter.requires_grad for parameter in model.transformer.parameters())
    size = 4 * int(features.row_counts.sum()) * model.config.hidden_size
    if not frozen or not examples or size > LARGEST_VECTORS:
        return Labelled(examples=examples, features=features)
    return Labelled(examples=examples, features=features, vectors=body_vectors(model, name, features, compute))


def _with_compute(recipe: FinetuneRecipe, compute: Compute) -> FinetuneRecipe:
    """The recipe with what was chosen for this machine, so that it computes the same when resumed or repeated."""
    train = replace(
        recipe.train,
        precision=compute.precision,
        compile=compute.compile,
        threads=torch.get_num_threads(),
    )
    return replace(recipe, train=train)


def _warn_of_cuts(
    features: EncodedExamples, name: str, kind: str, context: int, log: Log, *, split: bool = False
) -> None:
    """Say how many examples of the task `name` lost text; where texts are `split`, only pairs do."""
    how = "hold two texts that do not fit beside each other in" if split else "are longer than"
    if features.truncated:
        log.warn(
            f"{name}: {kind} examples that {how} the {context} tokens that are read, and were cut: "
            f"{features.truncated:,}"
        )


def _describe(job: FinetuningJob, splits: Sequence[Split], log: Log) -> None:
    """Say what will be trained on what."""
    if drops_a_head(job.recipe):
        log.line(
            f"{job.recipe.model} is fine-tuned already: its head is dropped, and the last layer of the new one begins "
            "at random"
        )
    for split in splits:
        task, name = split.task, split.task.spec.name
        sizes = ", ".join(f"{len(getattr(split, kind)):,} {kind}" for kind in SPLITS if getattr(split, kind))
        log.line(f"{name}: {task.spec.kind}, {sizes}")
        for line in summary_lines(task.summary(split.train)):
            log.line(f"{name}: {line}")
        for kind, labelled in (("training", job.train), ("validation", job.valid)):
            if name in labelled:
                in_windows = kind == "validation" and task.spec.overflow == "window"
                _warn_of_cuts(labelled[name].features, name, kind, context_of(job.model, task), log, split=in_windows)
        head = describe_head(job.model, name)
        log.line(f"{name}: head of {head['parameters']:,} parameters, {head['output_parameters']:,} in its last layer")
    trained, every = trained_parameters(job.model), parameters(job.model)
    log.line(f"strategy {job.recipe.strategy.name}: {trained:,} of {every:,} parameters are trained")
    token = job.model.transformer.embeddings.token
    if isinstance(token, PartialEmbedding):
        read, vocabulary = len(token.weight), job.model.config.vocab_size
        log.line(f"{read:,} of {vocabulary:,} tokens are in the training texts: the others' vectors stay as they are")
    log.line(
        f"{job.steps:,} step{'s' * (job.steps != 1)} of {job.recipe.train.batch_size} examples, "
        f"{job.optimizer.name} at {job.optimizer.max_lr:.3g}"
    )


# Training and what comes after


def _train(training: Trainer, job: FinetuningJob, splits: Sequence[Split], tokenizer: Tokenizer) -> FineTuned:
    began = time.perf_counter()
    outcome = training.go()
    took = time.perf_counter() - began
    training.log.line(f"trained in {took:.0f} s")
    return _finish(training, job, splits, tokenizer, outcome)


def _finish(
    training: Trainer, job: FinetuningJob, splits: Sequence[Split], tokenizer: Tokenizer, outcome: Outcome
) -> FineTuned:
    """Take the best weights, save them as an ordinary model directory, evaluate, write the report."""
    run, log, state = training.run, training.log, outcome.state
    training.keep_best()
    finish_model(job.model)
    settled = {name: job.calibrate(name, labelled) for name, labelled in job.valid.items()}
    job = replace(job, tasks={**job.tasks, **{name: task for name, (task, _) in settled.items()}})
    save_finished(job.model, job.tasks, tokenizer, run.path, log)
    scores: dict[str, dict[str, Scores]] = {split.task.spec.name: {} for split in splits}
    for name, (_, found) in settled.items():
        scores[name]["valid"] = found
    for split in splits:
        if split.test:
            scores[split.task.spec.name]["test"] = _test_scores(job, split, tokenizer, log)
    evaluation = evaluation_of(job.tasks, scores, job.recipe.train.metric)
    run.write_json("evaluation.json", evaluation)
    for name, of in scores.items():
        for kind, found in of.items():
            log.line(f"{name}, {kind}: {scores_line(found)}")
            for warning in found.details.get("warnings", ()):
                log.warn(f"{name}, {kind}: {warning}")
    for kind, mean in evaluation.mean_score.items():
        log.line(f"mean score, {kind}: {mean:.4f}, over the selection scores; errors count negative")
    rate = state.documents / max(state.seconds, 1e-9)
    training_summary = replace(outcome.summary, examples_per_second=rate)
    run.write_json("run.json", replace(run.read_json(FinetuningRun, "run.json"), training=training_summary))
    report = write_report(run.path)
    if not job.recipe.train.keep_checkpoints:
        run.drop_checkpoints()
    log.line(f"model: {run.path}   report: {report}")
    return FineTuned(
        directory=run.path,
        report=report,
        scores=scores,
        steps=state.step,
        seconds=state.seconds,
        examples_per_second=rate,
        stopped=outcome.stopped,
    )


def save_finished(
    model: TaskModel, tasks: Mapping[str, Task[Any]], tokenizer: Tokenizer, directory: Path, log: Log
) -> None:
    """An ordinary Hugging Face directory, as far as `transformers` has such a head; says so where it has not."""
    context = max(context_of(model, task) for task in tasks.values())
    tokenizer.save(directory, context=context, segments=bool(model.config.segments))
    if not save_task_model(model, tasks, directory, tokenizer.config_ids()):
        log.line(
            "transformers has no class with such a head: there AutoModel loads the body only; in Palavra everything "
            "works"
        )


def _test_scores(job: FinetuningJob, split: Split, tokenizer: Tokenizer, log: Log) -> Scores:
    """The scores on the test examples."""
    name, task = split.task.spec.name, job.tasks[split.task.spec.name]
    in_windows = task.spec.overflow == "window"
    context = context_of(job.model, task)
    features = task.encode(split.test, tokenizer, context, job.model.config.segments > 1, split=in_windows)
    _warn_of_cuts(features, name, "test", context, log, split=in_windows)
    return job.score(name, Labelled(examples=split.test, features=features))
