"""pretrain(): from text to a model directory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.inference.evaluation import EvaluationResult
from palavra.log import Log
from palavra.model.directory import OBJECTIVE_KEY, read_config, write_config
from palavra.model.sentence_modules import modules_to_keep, write_sentence_modules
from palavra.pretraining.corpus import open_text, packer_for, prepare_text
from palavra.pretraining.job import PretrainingJob, build_job
from palavra.pretraining.model import initial_model
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.resolve import resolve, restore
from palavra.pretraining.run_info import describe_packing, describe_run
from palavra.pretraining.validate import check_recipe
from palavra.recipe import Recipe
from palavra.report import write_report
from palavra.run_records.pretraining import PretrainingRun
from palavra.training.checkpoint import newest_whole
from palavra.training.run_directory import RunDirectory
from palavra.training.saving import say_how_to_continue
from palavra.training.trainer import Outcome, Trainer


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run: its directory and report, the evaluation, the steps, tokens and seconds of training, and files
    besides the model that could not be written."""

    directory: Path
    report: Path
    evaluation: EvaluationResult | None
    steps: int
    tokens: int
    seconds: float
    unwritten: tuple[str, ...] = ()


def run_pretraining(recipe: Recipe, out: Path, log: Log) -> Finished:
    """Pretrain from the start: prepare the text, resolve the recipe, train, evaluate, report."""
    run = RunDirectory(out)
    with run.locked():
        run.check_free()
        check_recipe(recipe)
        log.open_file(run.log)
        text = prepare_text(recipe, run, log)
        resolved = resolve(recipe, CorpusStats.of(text), log)
        job = build_job(resolved, initial_model(resolved.recipe, text.tokenizer), text)
        run.write_json("run.json", describe_run(job, text.corpus.manifest, resolved))
        config, init = job.model.config, resolved.recipe.init
        write_config(config, run.path)
        modules = modules_to_keep(Path(init) if init else None, config.causal, log.warn)
        write_sentence_modules(modules, run.path, config)
        # Written last: a folder with a recipe counts as a run to resume.
        atomic_write_text(run.recipe, configuration.to_toml(job.recipe))
        return _train(Trainer(job, run, log), job)


def resume_pretraining(out: Path, overrides: Sequence[str], log: Log) -> Finished:
    """Resume an interrupted run exactly, with its own recipe (changed only by `overrides`)."""
    run = RunDirectory(out)
    run.check_present()
    with run.locked():
        log.open_file(run.log)
        recipe = configuration.override(configuration.from_toml(Recipe, run.recipe), overrides)
        if recipe.train.steps is None:
            raise PalavraError(f"{run.recipe} has no train.steps: it is not a resolved recipe; start the run anew")
        text = open_text(run)
        began_with = run.read_json(PretrainingRun, "run.json").data.shards
        if began_with not in ("", text.corpus.manifest.digest):
            raise PalavraError(f"{run.data} holds another text than the run began with: start it anew in another --out")
        resolved = restore(recipe, log)
        config = read_config(run.path)
        if config.mntp != recipe.mntp:
            raise PalavraError(
                f"{run.path} did not begin with mixture.mntp={str(recipe.mntp).lower()}: resume without changing "
                "it, or start a new run with --init"
            )
        packer = packer_for(recipe, text.corpus.train)
        checkpoint, skipped = newest_whole(run.checkpoints, lambda state: packer.holds(state.cursor))
        # A checkpoint's weights replace the initial ones, so the model of `init` is no longer needed.
        model = pretraining_objective(recipe).new(config) if checkpoint else initial_model(recipe, text.tokenizer)
        job = build_job(resolved, model, text)
        trainer = Trainer(job, run, log)
        trainer.resume(checkpoint, skipped)
        return _train(trainer, job)


def _train(trainer: Trainer, job: PretrainingJob) -> Finished:
    """Train, then finish the run; on a full disk its checkpoints remain."""
    if job.held_out is None:
        trainer.log.warn(
            "no text is held out, so nothing validates this run: give more documents, or split a .txt by "
            "--documents=line"
        )
    outcome = trainer.train()
    with say_how_to_continue():
        return _finish(trainer, job, outcome)


def _finish(trainer: Trainer, job: PretrainingJob, outcome: Outcome) -> Finished:
    """Save the best weights as a model directory, evaluate them, and write the report."""
    run, log = trainer.run, trainer.log
    trainer.keep_best()
    save_finished(job, run.path)
    if job.model.config.mntp:
        log.warn(
            "this model predicts a masked token from the vector before it, which config.json says and only Palavra "
            "knows: as a masked language model of transformers, read the logits one token before each mask"
        )
    evaluation = job.evaluate(None, job.corpus.train.token_counts(job.tokenizer.vocab_size))
    if evaluation is not None:
        run.write_json("evaluation.json", evaluation.to_json())
        log.line(f"held-out text: {evaluation.summary()}")
    examples = job.pretraining.examples(job.model.eval(), job.tokenizer, job.compute, job.corpus)
    run.write_json("examples.json", examples)
    return _report(trainer, job, outcome, evaluation)


def _report(trainer: Trainer, job: PretrainingJob, outcome: Outcome, evaluation: EvaluationResult | None) -> Finished:
    run, state = trainer.run, outcome.state
    described = run.read_json(PretrainingRun, "run.json")
    run.write_json("run.json", replace(described, packing=describe_packing(job, outcome), training=outcome.summary))
    report = write_report(run.path)
    trainer.log.line(f"model: {run.path}   report: {report}")
    return Finished(
        directory=run.path,
        report=report,
        evaluation=evaluation,
        steps=state.step,
        tokens=state.tokens,
        seconds=state.seconds,
        unwritten=tuple(trainer.log.unwritten),
    )


def save_finished(job: PretrainingJob, directory: Path) -> None:
    """Write a Hugging Face directory: weights, configuration with the ids of the roles, tokenizer."""
    config, tokenizer = job.model.config, job.tokenizer
    tokenizer.save(directory, context=config.context, segments=bool(config.segments), continues=config.causal)
    known = {**tokenizer.config_ids(), OBJECTIVE_KEY: job.recipe.objective}
    job.pretraining.save(job.model, directory, known)
