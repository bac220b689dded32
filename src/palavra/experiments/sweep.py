"""A sweep: fine-tuning runs on the same examples in search of the best settings. Optuna samples, stores and prunes
trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.experiments.runs import evaluation_in, take_model, values_of
from palavra.finetuning.baselines import log_baselines, with_baselines
from palavra.finetuning.job import selection_metric
from palavra.finetuning.plan import optimizer_of
from palavra.finetuning.run_info import scores_line, split_scores, with_mean_score
from palavra.finetuning.splits import Split, examples_hash, read_split, with_absolute_paths
from palavra.finetuning.validate import check_recipe
from palavra.inference.finetuned import FineTunedModel
from palavra.log import Log
from palavra.metrics.names import is_error
from palavra.model.directory import read_config
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.run_records.experiments import SweepTrial
from palavra.run_records.finetuning import FinetuningEvaluation, FinetuningRun
from palavra.training.run_directory import RunDirectory
from palavra.typed_json import to_json

if TYPE_CHECKING:
    from optuna import Study

    from palavra.experiments.trials import Trials


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A finished search: `directory` holds the `best` trial's model, `scores` its values by task and split
    ("task/valid", "task/test"), `importances` the fraction of the variance between trials that each setting
    explains."""

    directory: Path
    report: Path
    direction: str
    metric: str
    trials: Sequence[SweepTrial]
    best: SweepTrial
    importances: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    unwritten: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the text that the command line prints."""
        found: dict[str, Any] = to_json(self)
        return {"model": str(found.pop("directory")), **found, "report": str(self.report)}


def run_sweep(
    recipe: FinetuneRecipe, search: Sequence[str], trials: int, minutes: float | None, out: Path, resume: bool, log: Log
) -> Sweep:
    """Search recipe fields for the best validation score and leave the best trial's model in `out`.

    `search` as in `search_space.read_space`; empty for learning rate, strategy and epochs around the recipe's.
    """
    if trials < 1:
        raise PalavraError(f"--trials is {trials}: it must be at least 1")
    if minutes is not None and not minutes > 0:
        raise PalavraError(f"--minutes is {minutes}: it must be above 0")
    _check_optuna()
    from palavra.experiments.search_space import default_searches, read_space
    from palavra.experiments.trials import Trials, open_study

    check_recipe(recipe)
    run = RunDirectory(out)
    _check_place(run, resume)
    if search:
        read_space(recipe, search)  # a mistake is said before the examples are read
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    recipe, settled = _with_optimizer(_with_epochs(recipe, splits))
    searches = search or default_searches(settled)
    space = read_space(recipe, searches)
    for split in splits:
        if not split.valid:
            raise PalavraError(f"task {split.task.spec.name} has no validation examples to score trials on: give some")
    metrics = [selection_metric(recipe.train.metric, split.task) for split in splits]
    metric = " and ".join(dict.fromkeys(metrics)) + (", mean over tasks" if len(splits) > 1 else "")
    with run.locked(), open_study(run, all(map(is_error, metrics))) as study:
        log.open_file(run.log)
        _check_same(study, recipe, searches, splits, run)
        work = Trials(recipe, settled, space, splits, study, metric, run, log)
        work.go(trials, minutes)
        return _finish(work)


def _check_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise PalavraError("palavra sweep needs the optuna package: pip install 'palavra[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep has its own log


def _with_optimizer(recipe: FinetuneRecipe) -> tuple[FinetuneRecipe, FinetuneRecipe]:
    """Return the recipe with its model's optimizer, and the same with the default learning rate."""
    pretrained = Path(recipe.model)
    settled = recipe.settled(read_config(pretrained).hidden_size, optimizer_of(pretrained))
    # The rate is left open: its default depends on the strategy, which may be searched.
    return replace(recipe, optimizer=replace(recipe.optimizer, name=settled.optimizer.name)), settled


def _with_epochs(recipe: FinetuneRecipe, splits: Sequence[Split]) -> FinetuneRecipe:
    """Return the recipe with its default length in whole epochs, unless it has a length."""
    train = recipe.train
    if train.steps is not None or train.epochs is not None:
        return recipe
    epoch_steps = sum(math.ceil(len(split.train) / train.batch_size) for split in splits)
    return replace(recipe, train=replace(train, epochs=math.ceil(train.passes(epoch_steps))))


def _check_place(run: RunDirectory, resume: bool) -> None:
    found = run.study.exists()
    if resume and not found:
        raise PalavraError(f"{run.path} holds no sweep to resume: leave --resume out to start one")
    if found and not resume:
        raise PalavraError(f"{run.path} already holds a sweep: add --resume to continue it, or choose another --out")
    if not resume:
        run.check_free()


def _check_same(
    study: "Study", recipe: FinetuneRecipe, searches: Sequence[str], splits: Sequence[Split], run: RunDirectory
) -> None:
    """Store the search space and a digest of the examples. Raises PalavraError if a resumed sweep differs."""
    asked = {
        "recipe": configuration.to_toml(with_absolute_paths(recipe)).splitlines(),
        "search": sorted(searches),
        "examples": [examples_hash(splits)],
    }
    for name, now in asked.items():
        began = study.user_attrs.get(name, now)
        if name not in study.user_attrs:
            study.set_user_attr(name, now)
        if began != now and name == "examples":
            raise PalavraError(f"{run.path}: the labelled files changed since the sweep began: choose another --out")
        if began != now:
            differing = [line for line in began if line not in now] or [line for line in now if line not in began]
            raise PalavraError(
                f"{run.path} was begun otherwise ({'; '.join(differing)}): repeat its options, or choose another --out"
            )


def _finish(work: "Trials") -> Sweep:
    """Copy the best trial's model to the sweep, score it on the test examples, and write the report."""
    run, log, summary = work.run, work.log, work.summary()
    best = summary.best_trial
    if best is None:
        failed = sum(trial.state == "failed" for trial in summary.trials)
        raise PalavraError(
            f"{run.path}: none of {len(summary.trials)} trials came to an end ({failed} failed): search lower learning "
            "rates"
        )
    folder = work.folder(best.number)
    take_model(folder, run)
    log.line(
        f"best of {len(summary.trials)} trials: {best.number}, {work.metric} {best.value:.4f} "
        f"({work.shown(best.params)})"
    )
    if summary.importances:
        log.line("importances: " + ", ".join(f"{key} {of:.0%}" for key, of in summary.importances.items()))
    evaluation = _with_test_scores(work, evaluation_in(folder))
    among = {**evaluation.chosen_among, "trials": len(summary.trials)}
    evaluation = replace(evaluation, chosen_among=among)
    log_baselines(evaluation, log)
    run.write_json("evaluation.json", evaluation)
    for warning in evaluation.warnings:
        log.warn(warning)
    described = run.read_json(FinetuningRun, "run.json")
    tests = {split.task.spec.name: {"test": len(split.test)} for split in work.splits}
    tasks = [replace(task, examples={**task.examples, **tests[task.name]}) for task in described.tasks]
    run.write_json("run.json", replace(described, tasks=tuple(tasks)))
    run.write_json("sweep.json", summary)
    report = write_report(run.path)
    log.line(f"model: {run.path}   report: {report}")
    return Sweep(
        directory=run.path,
        report=report,
        direction=summary.direction,
        metric=summary.metric,
        trials=summary.trials,
        best=best,
        importances=summary.importances,
        scores=values_of(evaluation),
        unwritten=tuple(log.unwritten),
    )


def _with_test_scores(work: "Trials", evaluation: FinetuningEvaluation) -> FinetuningEvaluation:
    """Return the best trial's scores, including those on the test examples, which no trial has seen."""
    splits = {split.task.spec.name: split for split in work.splits}
    if not any(split.test for split in work.splits):
        return evaluation
    model = FineTunedModel.load(work.run.path, device=work.recipe.train.device)
    tasks = []
    for task in evaluation.tasks:
        if splits[task.name].test:
            scores = model.score(splits[task.name].test, task=task.name)
            work.log.line(f"{task.name}, test: {scores_line(scores)}")
            task = replace(task, splits={**task.splits, "test": split_scores(scores)})
        tasks.append(task)
    found = with_baselines(with_mean_score(tasks), work.splits)
    return replace(found, chosen_among=evaluation.chosen_among, rising=evaluation.rising)
