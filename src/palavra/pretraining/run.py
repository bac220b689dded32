"""pretrain(): from text to a model directory. The wiring, to be read from top to bottom."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from palavra import config as configuration
from palavra import distributed
from palavra.data.loader import Packed, packed_batches
from palavra.data.packing import Packer
from palavra.data.shards import Corpus, Manifest
from palavra.data.sources import source_stamp
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.inference.evaluation import EvalSet, EvaluationResult
from palavra.log import Log
from palavra.model.compute import Compute, compile_layers, for_dropout, matmul_peak
from palavra.model.directory import OBJECTIVE_KEY, read_config, write_config
from palavra.model.heads import VocabularyModel
from palavra.objectives.masked import softmax_kernel
from palavra.pretraining.corpus import prepare_shards, train_tokenizer
from palavra.pretraining.job import PretrainingJob
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan.compute import (
    _compute,
    _uncompiled,
    _with_compute,
    _with_vocabulary,
)
from palavra.pretraining.plan.resolve import (
    CorpusStats,
    choose,
    fix_steps,
    settle_threads,
    with_steps,
)
from palavra.pretraining.run_info import describe_run
from palavra.pretraining.validate import check_documents, check_recipe
from palavra.recipe import Recipe
from palavra.report import write_report
from palavra.run_records import PackingSummary, PretrainingRun
from palavra.tokenizer import Tokenizer
from palavra.training.checkpoint import newest_whole
from palavra.training.run_directory import RunDirectory
from palavra.training.trainer import Outcome, Trainer


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run: where it is, how good, what it took."""

    directory: Path
    report: Path
    evaluation: EvaluationResult | None
    steps: int
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Text and tokenizer, on disk and open."""

    tokenizer: Tokenizer
    manifest: Manifest
    corpus: Corpus


def run_pretraining(recipe: Recipe, out: Path, log: Log) -> Finished:
    """Pretrain from the start: tokenizer, text, size, steps, training, evaluation, report."""
    run = RunDirectory(out)
    with run.locked():
        run.check_free()
        check_recipe(recipe)
        log.open_file(run.log)
        recipe = _with_vocabulary(recipe)
        ready = _prepare(recipe, run, log)
        text = _corpus_stats(ready)
        recipe, threads = settle_threads(recipe, text, _uncompiled(recipe))
        choice = choose(recipe, text, _uncompiled(recipe))
        compute = _compute(choice.recipe, text.epoch_tokens(choice.recipe))
        for line in (*choice.rule, *compute.reasons, threads):
            log.line(line)
        recipe = _with_compute(choice.recipe, compute)
        job = _job(recipe, _new_model(recipe, ready.tokenizer), ready, compute)
        steps, line = fix_steps(job.recipe, job.model, job.objective, text, job.packer, compute, log)
        log.line(line)
        job = replace(job, recipe=with_steps(job.recipe, steps))
        rule = (*choice.rule, line)
        run.write_json("run.json", describe_run(job, ready.manifest, rule, choice.candidates))
        write_config(job.model.config, run.path)
        # Last, for a folder with a recipe is a run that can be resumed.
        atomic_write_text(run.recipe, configuration.to_toml(job.recipe))
        return _train(Trainer(job, run, log), job, ready)


def resume_pretraining(out: Path, overrides: Sequence[str], log: Log) -> Finished:
    """Go on with an interrupted run, exactly, with its own recipe (changed only by `overrides`)."""
    run = RunDirectory(out)
    run.check_present()
    with run.locked():
        log.open_file(run.log)
        recipe = configuration.override(configuration.from_toml(Recipe, run.recipe), overrides)
        if recipe.train.steps is None:
            raise PalavraError(f"{run.recipe} has no train.steps: it is not a resolved recipe; start the run anew")
        ready = _prepared(run)
        if recipe.train.threads is not None:
            torch.set_num_threads(recipe.train.threads)
        compute = _compute(recipe, 0)
        for line in compute.reasons:
            log.line(line)
        began = read_config(run.path)
        if began.mntp != recipe.mntp:
            raise PalavraError(
                f"{run.path} did not begin with mixture.mntp={str(recipe.mntp).lower()}: resume without changing "
                "it, or start a new run with --init"
            )
        whole, skipped = newest_whole(run.checkpoints)
        # A checkpoint's weights replace the model's: then what the run began with need not be there any more.
        pretraining = pretraining_objective(recipe)
        model = pretraining.new(began) if whole else _new_model(recipe, ready.tokenizer)
        job = _job(recipe, model, ready, compute)
        training = Trainer(job, run, log)
        training.resume(whole, skipped)
        return _train(training, job, ready)


def _prepare(recipe: Recipe, run: RunDirectory, log: Log) -> Ready:
    """A tokenizer and shards in the run directory: made now, or found from before."""
    given = recipe.init or recipe.tokenizer_from
    if given:
        tokenizer = Tokenizer.load(given)
        tokenizer.save(run.path)  # the run stands on its own: its tokenizer is needed to go on with it
    else:
        tokenizer = _own_tokenizer(recipe, run, log)
    pretraining_objective(recipe).check(tokenizer)
    manifest = prepare_shards(recipe.data, tokenizer, run.data, log)
    check_documents(recipe, manifest.train.documents)
    return Ready(tokenizer=tokenizer, manifest=manifest, corpus=Corpus.open(run.data, tokenizer.fingerprint))


def _own_tokenizer(recipe: Recipe, run: RunDirectory, log: Log) -> Tokenizer:
    """The tokenizer of this text and configuration: the one that a killed start left, if it is the same."""
    stamp = hashlib.sha256(f"{source_stamp(recipe.data)} {recipe.data} {recipe.tokenizer}".encode()).hexdigest()
    if run.tokenizer_stamp.exists() and run.tokenizer_stamp.read_text(encoding="utf-8") == stamp:
        return Tokenizer.load(run.path)
    tokenizer = train_tokenizer(recipe.data, recipe.tokenizer, run.path, log)
    atomic_write_text(run.tokenizer_stamp, stamp)
    return tokenizer


def _prepared(run: RunDirectory) -> Ready:
    """The tokenizer and shards that a run began with, whatever became of its sources since."""
    tokenizer = Tokenizer.load(run.path)
    corpus = Corpus.open(run.data, tokenizer.fingerprint)
    return Ready(tokenizer=tokenizer, manifest=corpus.manifest, corpus=corpus)


def _tokens(ready: Ready) -> int:
    return int(ready.corpus.train.lengths.sum())


def _corpus_stats(ready: Ready) -> CorpusStats:
    """The prepared training text, for measuring."""
    documents, tokenizer = ready.corpus.train, ready.tokenizer

    def packed(recipe: Recipe) -> Iterator[Packed]:
        template = pretraining_objective(recipe).template
        return packed_batches(documents, _packer(recipe, ready), tokenizer.cls_id, tokenizer.sep_id, template=template)

    return CorpusStats(
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer,
        unique_tokens=_tokens(ready),
        epoch_tokens=lambda recipe: _packer(recipe, ready).epoch_tokens,
        packed=packed,
    )


def _packer(recipe: Recipe, ready: Ready) -> Packer:
    assert recipe.model.context and recipe.train.micro_batch_tokens
    template = pretraining_objective(recipe).template
    return Packer(
        lengths=template.framed(ready.corpus.train.lengths),
        context=recipe.model.context,
        batch_tokens=recipe.train.micro_batch_tokens,
        seed=recipe.train.seed,
        special=template.special,
        epochs=recipe.train.epochs,
        ranks=distributed.world_size(),
    )


def _new_model(recipe: Recipe, tokenizer: Tokenizer) -> VocabularyModel:
    """The model to begin with: the one of `init`, or a fresh one of the recipe's size."""
    torch.manual_seed(recipe.train.seed)
    pretraining = pretraining_objective(recipe)
    if not recipe.init:
        pad_id = tokenizer.pad_id if "pad" in tokenizer.roles else None
        config = recipe.model.build(tokenizer.vocab_size, pad_id)
        fresh: VocabularyModel = pretraining.new(replace(config, mntp=recipe.mntp))
        return fresh
    model: VocabularyModel = pretraining.load(Path(recipe.init))
    tokenizer.check_fits(model.config.vocab_size, recipe.init)
    model.config = model.transformer.config = replace(model.config, mntp=recipe.mntp)
    return model


def _job(recipe: Recipe, model: VocabularyModel, ready: Ready, compute: Compute) -> PretrainingJob:
    """Objective and data for a model and a recipe whose sizes are resolved."""
    tokenizer = ready.tokenizer
    model.to(compute.device)
    compute = for_dropout(compute, model.config.attention_dropout)
    compile_layers(model.transformer.layers, compute)
    pretraining = pretraining_objective(recipe)
    held_out = None
    if len(ready.corpus.valid):
        held_out = EvalSet(
            documents=ready.corpus.valid,
            lengths=ready.corpus.valid.lengths,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
        )
    return PretrainingJob(
        recipe=recipe,
        pretraining=pretraining,
        model=model,
        kernel=softmax_kernel(compute),
        tokenizer=tokenizer,
        compute=compute,
        documents=ready.corpus.train,
        packer=_packer(recipe, ready),
        held_out=held_out,
        where=ready.corpus.train.where,
        matmul_peak=matmul_peak(compute),
    )


# Training and what comes after


def _train(training: Trainer, job: PretrainingJob, ready: Ready) -> Finished:
    log = training.log
    if job.held_out is None:
        log.warn(
            "no text is held out, so nothing validates this run: give more documents, or split a .txt by "
            "--documents line"
        )
    outcome = training.go()
    return _finish(training, job, ready, outcome)


def _finish(training: Trainer, job: PretrainingJob, ready: Ready, outcome: Outcome) -> Finished:
    """Save the best weights as an ordinary model directory, evaluate them, write the report."""
    run, log = training.run, training.log
    state = outcome.state
    training.keep_best()
    save_finished(job, run.path)
    if job.model.config.mntp:
        log.warn(
            "this model predicts a hidden token from the vector before it, which config.json says and only Palavra "
            "knows: as a masked language model of transformers, read the logits one token before each mask"
        )
    evaluation = job.evaluate(None, ready.corpus.train.token_counts(job.tokenizer.vocab_size))
    if evaluation is not None:
        run.write_json("evaluation.json", evaluation.to_json())
        log.line(f"held-out text: {evaluation.summary()}")
    run.write_json(
        "examples.json", job.pretraining.examples(job.model.eval(), ready.tokenizer, job.compute, ready.corpus)
    )
    packing = PackingSummary(
        efficiency=outcome.packing.efficiency,
        pieces=job.packer.epoch_pieces,
        cut_documents=job.packer.cut_documents,
        context=job.packer.context,
        batch_tokens=job.recipe.train.batch_tokens,
    )
    described = run.read_json(PretrainingRun, "run.json")
    run.write_json("run.json", replace(described, packing=packing, training=outcome.summary))
    report = write_report(run.path)
    log.line(f"model: {run.path}   report: {report}")
    return Finished(
        directory=run.path,
        report=report,
        evaluation=evaluation,
        steps=state.step,
        tokens=state.tokens,
        seconds=state.seconds,
    )


def save_finished(job: PretrainingJob, directory: Path) -> None:
    """An ordinary Hugging Face directory: weights, configuration with the roles' ids, tokenizer."""
    config, tokenizer = job.model.config, job.tokenizer
    tokenizer.save(directory, context=config.context, segments=bool(config.segments), continues=config.causal)
    known = {**tokenizer.config_ids(), OBJECTIVE_KEY: job.recipe.objective}
    job.pretraining.save(job.model, directory, known)
