"""pretrain(): from text to a model directory. The wiring, to be read from top to bottom."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from palavra import config as configuration
from palavra import distributed
from palavra.data.loader import Packed, load
from palavra.data.packing import Packer
from palavra.data.shards import Corpus, Manifest
from palavra.data.sources import source_bytes, source_stamp
from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.inference.evaluation import Findings, HeldOut
from palavra.log import Log
from palavra.model.compute import Compute, choose_compute, compile_layers, for_dropout, matmul_peak
from palavra.model.directory import OBJECTIVE_KEY, read_config, write_config
from palavra.model.heads import VocabularyModel
from palavra.objectives.masked import softmax_kernel
from palavra.recipe import UNKNOWN_BYTES, Recipe, vocabulary_for
from palavra.report import write_report
from palavra.run.budget import step_seconds
from palavra.run.checks import check_documents, check_recipe
from palavra.run.corpus import prepare_shards, train_tokenizer
from palavra.run.describe import describe_run
from palavra.run.directory import RunDirectory
from palavra.run.learning import learning_of
from palavra.run.memory import brief, memory_estimate
from palavra.run.pretraining import Pretraining
from palavra.run.sizing import (
    RESERVE,
    Text,
    choose,
    fix_steps,
    run_tokens,
    seconds_of,
    settle_threads,
    steps_of_length,
    synthetic,
    with_steps,
)
from palavra.run.training import Outcome, Training
from palavra.tokenizer import Tokenizer
from palavra.training.checkpoint import newest_whole

# A shorter run would not earn its compilation back.
WORTH_COMPILING_SECONDS = 100.0
WORTH_COMPILING_TOKENS = 3e6
# Narrow models gain less (10 to 22% of a step of nano) for half a minute of compiling: they need longer.
NARROW, WORTH_COMPILING_NARROW = 128, 1.8
PATIENCE_TO_PLAN = 10.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run: where it is, how good, what it took."""

    directory: Path
    report: Path
    evaluation: Findings | None
    steps: int
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would be: its resolved recipe, size in parameters, memory, steps and tokens."""

    recipe: Recipe
    parameters: int
    memory_bytes: float
    steps: int
    tokens: int
    seconds: float
    rule: tuple[str, ...]


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
        text = _text_of(ready)
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
        return _train(Training(job, run, log), job, ready)


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
        if began.shifted != recipe.shifted:
            raise PalavraError(
                f"{run.path} did not begin with mixture.shifted={str(recipe.shifted).lower()}: resume without changing "
                "it, or start a new run with --init"
            )
        whole, skipped = newest_whole(run.checkpoints)
        # A checkpoint's weights replace the model's: then what the run began with need not be there any more.
        learning = learning_of(recipe)
        model = learning.new(began) if whole else _new_model(recipe, ready.tokenizer)
        job = _job(recipe, model, ready, compute)
        training = Training(job, run, log)
        training.resume(whole, skipped)
        return _train(training, job, ready)


def plan_pretraining(recipe: Recipe) -> Plan:
    """What `run_pretraining` would do, without reading more of the text than its size."""
    check_recipe(recipe)
    recipe = _with_vocabulary(recipe)
    size = source_bytes(recipe.data) or UNKNOWN_BYTES
    given, learning = recipe.init or recipe.tokenizer_from, learning_of(recipe)
    tokenizer = Tokenizer.load(given) if given else None
    if tokenizer is not None:
        learning.check(tokenizer)
    entries = tokenizer.vocab_size if tokenizer else recipe.tokenizer.entries
    text = Text(
        vocab_size=entries,
        tokenizer=tokenizer,
        unique_tokens=max(1, size // 4),
        epoch_tokens=lambda recipe: max(1, size // 4),
        packed=synthetic(entries),
    )
    compute = _uncompiled(recipe)
    recipe, _ = settle_threads(recipe, text, compute)
    choice = choose(recipe, text, compute)
    chosen = choice.recipe
    assert chosen.train.batch_tokens and chosen.train.micro_batch_tokens
    config = read_config(Path(chosen.init)) if chosen.init else chosen.model.build(entries, 0)
    model = learning.new(config).to(compute.device)
    trial = text.trial(brief(chosen))
    assert trial.recipe.train.batch_tokens
    each = step_seconds(model, trial.objective, trial, compute, steps=3, patience=PATIENCE_TO_PLAN)
    each *= chosen.train.batch_tokens / trial.recipe.train.batch_tokens
    steps = steps_of_length(chosen, text.epoch_tokens(chosen)) or max(1, int(seconds_of(chosen) * (1 - RESERVE) / each))
    return Plan(
        recipe=with_steps(chosen, steps),
        parameters=sum(p.numel() for p in model.parameters()),
        memory_bytes=memory_estimate(model, chosen.train.micro_batch_tokens),
        steps=steps,
        tokens=steps * chosen.train.batch_tokens,
        seconds=steps * each,
        rule=choice.rule,
    )


def _uncompiled(recipe: Recipe) -> Compute:
    """The arithmetic that sizes are compared with: compiling each would take longer than measuring it."""
    return choose_compute(recipe.train.device, recipe.train.precision, "off")


def _compute(recipe: Recipe, epoch_tokens: int) -> Compute:
    """The arithmetic of a run whose size is settled."""
    train = recipe.train
    times = WORTH_COMPILING_NARROW if (recipe.model.width or 0) <= NARROW else 1.0
    if recipe.train.minutes is not None or steps_of_length(recipe, epoch_tokens) is None:
        worth = seconds_of(recipe) >= times * WORTH_COMPILING_SECONDS
    else:
        worth = run_tokens(recipe, epoch_tokens) >= times * WORTH_COMPILING_TOKENS
    return choose_compute(train.device, train.precision, train.compile, worth)


def _with_vocabulary(recipe: Recipe) -> Recipe:
    """The recipe with the size of a vocabulary that suits the text, where one is to be made and is left open."""
    if recipe.init or recipe.tokenizer_from or recipe.tokenizer.vocab_size is not None:
        return recipe
    entries = vocabulary_for(source_bytes(recipe.data) or UNKNOWN_BYTES)
    return replace(recipe, tokenizer=replace(recipe.tokenizer, vocab_size=entries))


def _with_compute(recipe: Recipe, compute: Compute) -> Recipe:
    """The recipe with what was chosen for this machine, so that it computes the same when resumed or repeated."""
    return replace(recipe, train=replace(recipe.train, precision=compute.precision, compile=compute.compile))


def _prepare(recipe: Recipe, run: RunDirectory, log: Log) -> Ready:
    """A tokenizer and shards in the run directory: made now, or found from before."""
    given = recipe.init or recipe.tokenizer_from
    if given:
        tokenizer = Tokenizer.load(given)
        tokenizer.save(run.path)  # the run stands on its own: its tokenizer is needed to go on with it
    else:
        tokenizer = _own_tokenizer(recipe, run, log)
    learning_of(recipe).check(tokenizer)
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


def _text_of(ready: Ready) -> Text:
    """The prepared training text, for measuring."""
    documents, tokenizer = ready.corpus.train, ready.tokenizer

    def packed(recipe: Recipe) -> Iterator[Packed]:
        framing = learning_of(recipe).framing
        return load(documents, _packer(recipe, ready), tokenizer.cls_id, tokenizer.sep_id, framing=framing)

    return Text(
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer,
        unique_tokens=_tokens(ready),
        epoch_tokens=lambda recipe: _packer(recipe, ready).epoch_tokens,
        packed=packed,
    )


def _packer(recipe: Recipe, ready: Ready) -> Packer:
    assert recipe.model.context and recipe.train.micro_batch_tokens
    framing = learning_of(recipe).framing
    return Packer(
        lengths=framing.framed(ready.corpus.train.lengths),
        context=recipe.model.context,
        batch_tokens=recipe.train.micro_batch_tokens,
        seed=recipe.train.seed,
        special=framing.special,
        epochs=recipe.train.epochs,
        ranks=distributed.world_size(),
    )


def _new_model(recipe: Recipe, tokenizer: Tokenizer) -> VocabularyModel:
    """The model to begin with: the one of `init`, or a fresh one of the recipe's size."""
    torch.manual_seed(recipe.train.seed)
    learning = learning_of(recipe)
    if not recipe.init:
        pad_id = tokenizer.pad_id if "pad" in tokenizer.roles else None
        config = recipe.model.build(tokenizer.vocab_size, pad_id)
        fresh: VocabularyModel = learning.new(replace(config, shifted=recipe.shifted))
        return fresh
    model: VocabularyModel = learning.load(Path(recipe.init))
    tokenizer.check_fits(model.config.vocab_size, recipe.init)
    model.config = model.transformer.config = replace(model.config, shifted=recipe.shifted)
    return model


def _job(recipe: Recipe, model: VocabularyModel, ready: Ready, compute: Compute) -> Pretraining:
    """Objective and data for a model and a recipe whose sizes are resolved."""
    tokenizer = ready.tokenizer
    model.to(compute.device)
    compute = for_dropout(compute, model.config.attention_dropout)
    compile_layers(model.transformer.layers, compute)
    learning = learning_of(recipe)
    held_out = None
    if len(ready.corpus.valid):
        held_out = HeldOut(
            documents=ready.corpus.valid,
            lengths=ready.corpus.valid.lengths,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
        )
    return Pretraining(
        recipe=recipe,
        learning=learning,
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


def _train(training: Training, job: Pretraining, ready: Ready) -> Finished:
    log = training.log
    if job.held_out is None:
        log.warn(
            "no text is held out, so nothing validates this run: give more documents, or split a .txt by "
            "--documents line"
        )
    outcome = training.go()
    return _finish(training, job, ready, outcome)


def _finish(training: Training, job: Pretraining, ready: Ready, outcome: Outcome) -> Finished:
    """Save the best weights as an ordinary model directory, evaluate them, write the report."""
    run, log = training.run, training.log
    state = outcome.state
    training.keep_best()
    save_finished(job, run.path)
    if job.model.config.shifted:
        log.warn(
            "this model predicts a hidden token from the vector before it, which config.json says and only Palavra "
            "knows: as a masked language model of transformers, read the logits one token before each mask"
        )
    evaluation = job.evaluate(None, ready.corpus.train.token_counts(job.tokenizer.vocab_size))
    if evaluation is not None:
        run.write_json("evaluation.json", evaluation.to_json())
        log.line(f"held-out text: {evaluation.summary()}")
    run.write_json("examples.json", job.learning.examples(job.model.eval(), ready.tokenizer, job.compute, ready.corpus))
    described = run.read_json("run.json")
    described["packing"] = {
        "efficiency": outcome.packing.efficiency,
        "pieces": job.packer.epoch_pieces,
        "cut_documents": job.packer.cut_documents,
        "context": job.packer.context,
        "batch_tokens": job.recipe.train.batch_tokens,
    }
    described["training"] = outcome.to_json()
    run.write_json("run.json", described)
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


def save_finished(job: Pretraining, directory: Path) -> None:
    """An ordinary Hugging Face directory: weights, configuration with the roles' ids, tokenizer."""
    config, tokenizer = job.model.config, job.tokenizer
    tokenizer.save(directory, context=config.context, segments=bool(config.segments), continues=config.causal)
    known = {**tokenizer.config_ids(), OBJECTIVE_KEY: job.recipe.objective}
    job.learning.save(job.model, directory, known)
