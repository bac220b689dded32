"""finetune(): from a pretrained model and labelled data to a model for a task, from top to bottom."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palavra import config as configuration
from palavra.data.packing import Cursor
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.finetuning.baselines import log_baselines, with_baselines
from palavra.finetuning.job import FinetuningJob, Labelled
from palavra.finetuning.long_answers import of_long_answers
from palavra.finetuning.plan import ResolvedFinetuning, encode, optimizer_of, resolve_finetuning
from palavra.finetuning.run_info import (
    describe,
    drops_a_head,
    evaluation_of,
    much_gained,
    scores_line,
    summary_lines,
    trained_parameters,
)
from palavra.finetuning.splits import SPLITS, Split, examples_hash, read_split, with_absolute_paths, write_held_out
from palavra.finetuning.validate import check_metric, check_options, check_recipe
from palavra.inference.finetuned import body_vectors, context_of
from palavra.log import Log
from palavra.metrics.scores import Scores
from palavra.model.compute import Compute, compile_layers
from palavra.model.directory import read_config
from palavra.model.partial_embedding import PartialEmbedding
from palavra.model.sentence_modules import modules_to_keep, write_sentence_modules
from palavra.model.task_heads import TaskModel
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.run_records.finetuning import FinetuningRun
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.saved_model import build_task_model, describe_head, load_pretrained, parameters, save_task_model
from palavra.tasks.task import AnyTask
from palavra.tokenizer import Tokenizer
from palavra.training.checkpoint import newest_whole
from palavra.training.job import Validation
from palavra.training.run_directory import RunDirectory
from palavra.training.saving import say_how_to_continue
from palavra.training.strategies import finish_model, prepare_model
from palavra.training.trainer import Outcome, Trainer

# The vectors of a frozen body are cached up to this many bytes.
LARGEST_VECTORS = 2**31


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A finished fine-tuning run: its directory and report, `scores` by task and by "valid" and "test", steps and
    time, and files besides the model that could not be written."""

    directory: Path
    report: Path
    scores: Mapping[str, Mapping[str, Scores]]
    steps: int
    seconds: float
    examples_per_second: float
    stopped: str | None
    unwritten: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the text that the command line prints."""
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
    on_validation: Callable[[FinetuningJob, Validation], None] | None = None,
) -> FineTuned:
    """Fine-tune on examples in memory; `on_validation` as in `FinetuningJob`."""
    check_metric(recipe.train.metric, splits)
    run = RunDirectory(out)
    with run.locked():
        run.check_free()
        log.open_file(run.log)
        pretrained = Path(recipe.model)
        tokenizer = Tokenizer.load(pretrained)
        pretrained_with = optimizer_of(pretrained)
        resolved = resolve_finetuning(recipe, splits, tokenizer, pretrained_with)
        job = replace(build_job(resolved, splits), on_validation=on_validation)
        _describe(job, splits, log)
        for line in resolved.reasons:
            log.line(line)
        run.write_json("run.json", describe(job, splits, pretrained_with))
        write_held_out(run, splits)
        # Written last: a folder with a recipe counts as a run to resume.
        atomic_write_text(run.recipe, configuration.to_toml(with_absolute_paths(job.recipe)))
        return _train(Trainer(job, run, log), job, splits, tokenizer)


def resume_finetuning(
    out: Path, overrides: Sequence[str], log: Log, splits: Sequence[Split] | None = None
) -> FineTuned:
    """Resume an interrupted run exactly, with its own recipe (changed only by `overrides`) and its examples: `splits`,
    or those of its files."""
    run = RunDirectory(out)
    run.check_present()
    with run.locked():
        if run.weights.exists() and not run.has_checkpoints:
            raise PalavraError(
                f"{out} is finished: nothing is left to resume (with --set train.keep_checkpoints=true a new run could "
                "be made longer later)"
            )
        log.open_file(run.log)
        recipe = configuration.override(configuration.from_toml(FinetuneRecipe, run.recipe), overrides)
        splits = splits or [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
        if run.read_json(FinetuningRun, "run.json").examples_hash != examples_hash(splits):
            raise PalavraError(f"{out}: the labelled files changed since the run began: start it anew in another --out")
        check_metric(recipe.train.metric, splits)
        tokenizer = Tokenizer.load(Path(recipe.model))
        resolved = resolve_finetuning(recipe, splits, tokenizer)
        for line in resolved.reasons:
            log.line(line)
        job = build_job(resolved, splits)
        whole, skipped = newest_whole(run.checkpoints, lambda state: state.cursor == Cursor(batch=state.step))
        training = Trainer(job, run, log)
        training.resume(whole, skipped)
        return _train(training, job, splits, tokenizer)


def is_finished(folder: Path, *, keep_checkpoints: bool) -> bool:
    """Return whether a run came to its end. The last that it does is to remove its checkpoints or, with
    `keep_checkpoints`, to write its report."""
    run = RunDirectory(folder)
    last = (run.path / "report.html").exists() if keep_checkpoints else not run.has_checkpoints
    return last and run.weights.exists() and (run.path / "evaluation.json").exists()


# The job


def build_job(resolved: ResolvedFinetuning, splits: Sequence[Split]) -> FinetuningJob:
    """Return the job of a resolved recipe: examples, model and heads on their device, prepared for the strategy."""
    recipe, compute = resolved.recipe, resolved.compute
    tasks = {split.task.spec.name: split.task for split in splits}
    torch.manual_seed(recipe.train.seed)
    config = recipe.body.applied_to(read_config(Path(recipe.model)))
    model = build_task_model(config, tasks, learned_weights=recipe.mixing.weighting == "uncertainty")
    pretrained = frozenset[str]() if recipe.from_scratch else load_pretrained(model, Path(recipe.model))
    model.to(compute.device)
    read = [encoded["train"].input_ids for encoded in resolved.encoded.values()]
    prepare_model(model, recipe.strategy, np.concatenate(read))
    compile_layers(model.transformer.layers, compute)
    train, valid = {}, {}
    for split in splits:
        name, encoded = split.task.spec.name, resolved.encoded[split.task.spec.name]
        train[name] = _labelled(model, name, split.train, encoded["train"], compute)
        if split.valid:
            valid[name] = _labelled(model, name, split.valid, encoded["valid"], compute)
    return FinetuningJob(
        recipe=recipe, model=model, tasks=tasks, train=train, valid=valid, pretrained=pretrained, compute=compute
    )


def _labelled(
    model: TaskModel, name: str, examples: Sequence[Any], encoded: EncodedExamples, compute: Compute
) -> Labelled:
    """Return encoded examples, with the body's vectors if the body is never trained."""
    frozen = not any(parameter.requires_grad for parameter in model.transformer.parameters())
    size = 4 * int(encoded.row_counts.sum()) * model.config.hidden_size
    if not frozen or not examples or size > LARGEST_VECTORS or model.head(name).pools_late:
        return Labelled(examples=examples, encoded=encoded)
    return Labelled(examples=examples, encoded=encoded, vectors=body_vectors(model, name, encoded, compute))


def _warn_of_cuts(task: AnyTask, kind: str, encoded: EncodedExamples, context: int, log: Log) -> None:
    """Warn of truncated examples. Where long texts become windows, only pairs are truncated."""
    windowed = task.spec.overflow == "window"
    beside = f"hold two texts that do not fit beside each other in the {context} tokens that are read"
    why = beside if windowed else encoded.why_cut(context)
    if encoded.truncated:
        log.warn(f"{task.spec.name}: {kind} examples that {why}, and were cut: {encoded.truncated:,}")
    for line in of_long_answers(task, kind, encoded, context):
        log.warn(line)


def _describe(job: FinetuningJob, splits: Sequence[Split], log: Log) -> None:
    """Log the examples, heads and trained parameters."""
    if drops_a_head(job.recipe):
        log.line(
            f"{job.recipe.model} is fine-tuned already: its head is dropped, and the last layer of the new one starts "
            "with random weights"
        )
    for split in splits:
        task, name = split.task, split.task.spec.name
        sizes = ", ".join(f"{len(getattr(split, kind)):,} {kind}" for kind in SPLITS if getattr(split, kind))
        log.line(f"{name}: {task.spec.kind}, {sizes}")
        for line in split.skipped:
            log.warn(f"{name}: {line}")
        for line in summary_lines(task.encoder.summary(split.train)):
            log.line(f"{name}: {line}")
        for kind, labelled in (("training", job.train), ("validation", job.valid)):
            if name in labelled:
                _warn_of_cuts(task, kind, labelled[name].encoded, context_of(job.model.config, task), log)
        head = describe_head(job.model, name)
        log.line(f"{name}: head of {head['parameters']:,} parameters, {head['output_parameters']:,} in its last layer")
    trained, every = trained_parameters(job.model), parameters(job.model)
    log.line(f"strategy {job.recipe.strategy.name}: {trained:,} of {every:,} parameters are trained")
    token = job.model.transformer.embeddings.token
    if isinstance(token, PartialEmbedding):
        read, vocabulary = len(token.weight), job.model.config.vocab_size
        log.line(f"{read:,} of {vocabulary:,} tokens are in the training texts: the others' vectors stay unchanged")


# Training and what comes after


def _train(training: Trainer, job: FinetuningJob, splits: Sequence[Split], tokenizer: Tokenizer) -> FineTuned:
    """Train, then finish the run; on a full disk its checkpoints remain."""
    log, began = training.log, time.perf_counter() - training.state.seconds
    outcome = training.train()
    seconds = outcome.state.seconds
    around = time.perf_counter() - began - seconds
    log.line(f"trained in {seconds:.0f} s; validation and checkpoints took {around:.0f} s besides")
    with say_how_to_continue():
        return _finish(training, job, splits, tokenizer, outcome)


def _finish(
    training: Trainer, job: FinetuningJob, splits: Sequence[Split], tokenizer: Tokenizer, outcome: Outcome
) -> FineTuned:
    """Save the best weights as a model directory, evaluate them, and write the report."""
    run, log = training.run, training.log
    training.keep_best()
    finish_model(job.model)
    settled = {name: job.calibrate(name, labelled) for name, labelled in job.valid.items()}
    job = replace(job, tasks={**job.tasks, **{name: task for name, (task, _) in settled.items()}})
    save_finished(job.model, job.tasks, tokenizer, run.path, log)
    recipe, config = job.recipe, job.model.config
    origin = None if recipe.from_scratch else Path(recipe.model)
    write_sentence_modules(modules_to_keep(origin, config.causal, log.warn), run.path, config)
    scores: dict[str, dict[str, Scores]] = {split.task.spec.name: {} for split in splits}
    for name, (_, found) in settled.items():
        scores[name]["valid"] = found
    for split in splits:
        if split.test:
            scores[split.task.spec.name]["test"] = _test_scores(job, split, tokenizer, log)
    evaluation = with_baselines(evaluation_of(job.tasks, scores, job.recipe.train.metric), splits)
    if job.valid:
        validations = math.ceil(outcome.state.step / (job.intervals.eval_every or job.loop.steps))
        rising = much_gained(outcome.last_gain, evaluation)
        evaluation = replace(evaluation, chosen_among={"validations": validations}, rising=rising)
    run.write_json("evaluation.json", evaluation)
    for name, of in scores.items():
        for kind, found in of.items():
            log.line(f"{name}, {kind}: {scores_line(found)}")
            for warning in found.details.get("warnings", ()):
                log.warn(f"{name}, {kind}: {warning}")
    log_baselines(evaluation, log)
    for warning in evaluation.warnings:
        log.warn(warning)
    for kind, mean in evaluation.mean_score.items():
        log.line(f"mean score, {kind}: {mean:.4f}, over the selection metrics, errors negative")
    state = outcome.state
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
        unwritten=tuple(log.unwritten),
    )


def save_finished(
    model: TaskModel, tasks: Mapping[str, AnyTask], tokenizer: Tokenizer, directory: Path, log: Log
) -> None:
    """Write a Hugging Face directory, and log if `transformers` has no such head."""
    context = max(context_of(model.config, task) for task in tasks.values())
    tokenizer.save(directory, context=context, segments=bool(model.config.segments))
    if not save_task_model(model, tasks, directory, tokenizer.config_ids()):
        log.line(
            "transformers has no class with such a head: there AutoModel loads the body only; in Palavra everything "
            "works"
        )


def _test_scores(job: FinetuningJob, split: Split, tokenizer: Tokenizer, log: Log) -> Scores:
    """Return the scores on the test examples."""
    task, config = job.tasks[split.task.spec.name], job.model.config
    encoded = encode(task, split.test, tokenizer, config)
    _warn_of_cuts(task, "test", encoded, context_of(config, task), log)
    return job.score(task.spec.name, Labelled(examples=split.test, encoded=encoded))
