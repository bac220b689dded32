"""A sweep: many fine-tunings of the same examples, in search of good settings. Optuna chooses, remembers and prunes;
each trial is an ordinary fine-tuning run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.experiments.repeat import take_model, values_of
from palavra.experiments.search_space import default_searches, read_space
from palavra.experiments.trials import Direction, SweepTrial, Trials, open_study, shown
from palavra.finetuning.job import selection_metric
from palavra.finetuning.plan import optimizer_of
from palavra.finetuning.run_info import scores_json, scores_line, with_mean_score
from palavra.finetuning.splits import Split, examples_hash, read_split, with_absolute_paths
from palavra.finetuning.validate import check_recipe
from palavra.inference.finetuned import FineTunedModel
from palavra.log import Log
from palavra.metrics.names import is_error
from palavra.model.directory import read_config
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A finished search: `directory` holds the `best` trial's model, `scores` its values by task and split
    ("task/valid", "task/test"), `importances` each setting's share in the differences between trials."""

    directory: Path
    report: Path
    direction: str
    metric: str
    trials: Sequence[SweepTrial]
    best: SweepTrial
    importances: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {
            "model": str(self.directory),
            "report": str(self.report),
            "metric": self.metric,
            "direction": self.direction,
            "best": asdict(self.best),
            "scores": {name: dict(values) for name, values in self.scores.items()},
            "importances": dict(self.importances),
            "trials": [asdict(trial) for trial in self.trials],
        }


def run_sweep(
    recipe: FinetuneRecipe,
    search: Sequence[str],
    trials: int,
    minutes: float | None,
    out: Path,
    resume: bool,
    log: Log,
) -> Sweep:
    """Search recipe fields for the best validation score and leave the best trial's model in `out`.

    `search` as in `search_space.read_space`, or nothing for learning rate, strategy and epochs around the recipe's.
    """
    if trials < 1:
        raise PalavraError(f"--trials is {trials}: it must be at least 1")
    if minutes is not None and not minutes > 0:
        raise PalavraError(f"--minutes is {minutes}: it must be above 0")
    _check_optuna()
    check_recipe(recipe)
    recipe, settled = _settled(recipe)
    run = RunDirectory(out)
    _check_place(run, resume)
    searches = search or default_searches(settled)
    space = read_space(recipe, searches)
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    for split in splits:
        if not split.valid:
            raise PalavraError(f"task {split.task.spec.name} has no validation examples to judge trials by: give some")
    metrics = [selection_metric(recipe.train.metric, split.task) for split in splits]
    direction: Direction = "minimize" if all(map(is_error, metrics)) else "maximize"
    metric = " and ".join(dict.fromkeys(metrics)) + (", mean over tasks" if len(splits) > 1 else "")
    with run.locked(), open_study(run, direction) as study:
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
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep's own log says what happens


def _settled(recipe: FinetuneRecipe) -> tuple[FinetuneRecipe, FinetuneRecipe]:
    """The recipe with the optimizer that suits its model, and the same with the learning rate that it would take."""
    pretrained = Path(recipe.model)
    settled = recipe.settled(read_config(pretrained).hidden_size, optimizer_of(pretrained))
    # The rate is left open, for the one that suits depends on the strategy, which may be searched.
    return replace(recipe, optimizer=replace(recipe.optimizer, name=settled.optimizer.name)), settled


def _check_place(run: RunDirectory, resume: bool) -> None:
    found = (run.path / "sweep.db").exists()
    if resume and not found:
        raise PalavraError(f"{run.path} holds no sweep to resume: leave --resume out to start one")
    if found and not resume:
        raise PalavraError(f"{run.path} already holds a sweep: add --resume to go on with it, or choose another --out")
    if not resume:
        run.check_free()


def _check_same(
    study: "Study", recipe: FinetuneRecipe, searches: Sequence[str], splits: Sequence[Split], run: RunDirectory
) -> None:
    """Remember what is searched on what, or raise PalavraError where a resumed sweep is not the same."""
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


def _finish(work: Trials) -> Sweep:
    """Make the best trial's model the sweep's own, look at the test examples, write the report."""
    run, log, trials, best = work.run, work.log, work.finished(), work.best()
    if best is None:
        failed = sum(trial.state == "failed" for trial in trials)
        raise PalavraError(
            f"{run.path}: none of {len(trials)} trials came to an end ({failed} failed): search lower learning rates"
        )
    folder = work.folder(best.number)
    take_model(folder, run)
    log.line(f"best of {len(trials)} trials: {best.number}, {work.metric} {best.value:.4f} ({shown(best.params)})")
    importances = work.importances()
    if importances:
        log.line("shares in the differences: " + ", ".join(f"{key} {of:.0%}" for key, of in importances.items()))
    evaluation = _evaluation(work, folder)
    run.write_json("evaluation.json", evaluation)
    described = run.read_json("run.json")
    for task, split in zip(described["tasks"], work.splits, strict=True):
        task["examples"]["test"] = len(split.test)
    run.write_json("run.json", described)
    run.write_json("sweep.json", work.summary())
    report = write_report(run.path)
    log.line(f"model: {run.path}   report: {report}")
    return Sweep(
        directory=run.path,
        report=report,
        direction=work.direction,
        metric=work.metric,
        trials=trials,
        best=best,
        importances=importances,
        scores=values_of(evaluation),
    )


def _evaluation(work: Trials, folder: Path) -> dict[str, Any]:
    """The best trial's scores, and those on the test examples, which no trial has seen."""
    evaluation = RunDirectory(folder).read_json("evaluation.json")
    if not any(split.test for split in work.splits):
        return evaluation
    model = FineTunedModel.load(work.run.path, device=work.recipe.train.device)
    for task in evaluation["tasks"]:
        split = next(split for split in work.splits if split.task.spec.name == task["name"])
        if split.test:
            scores = model.score(split.test, task=task["name"])
            task["splits"]["test"] = scores_json(scores)
            work.log.line(f"{task['name']}, test: {scores_line(scores)}")
    return with_mean_score(evaluation)
