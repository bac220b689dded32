"""The same fine-tuning several times, over seeds or folds: how sure a score is."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.files import atomic_path, atomic_write_text
from palavra.finetuning.job import selection_score
from palavra.finetuning.run import finetune_splits, resume_finetuning
from palavra.finetuning.splits import Split, examples_hash, read_split, with_absolute_paths
from palavra.finetuning.stratification import Int64Array, fold_of
from palavra.finetuning.validate import check_options, check_recipe
from palavra.log import Log
from palavra.metrics.bootstrap import mean_interval
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.tasks.task import range_of
from palavra.training.interrupts import Interrupted, stop_on_signals
from palavra.training.run_directory import RunDirectory

# What a finished run leaves that makes up the model.
MODEL_FILES = ("model.safetensors", "config.json", "task.json", "tokenizer.json", "tokenizer_config.json",
               "palavra.toml", "run.json", "metrics.jsonl")  # fmt: skip
Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What is repeated, as `repeated.toml` keeps it: over what, how many `folds` (there may always be more seeds),
    the digest of all examples, and the recipe of the first run, found from any working directory."""

    over: Literal["seed", "fold"]
    folds: int | None = None
    examples_hash: str
    recipe: FinetuneRecipe

    @property
    def option(self) -> str:
        """As the command line asks for it."""
        return "--seeds" if self.folds is None else f"--folds={self.folds}"


@dataclass(frozen=True, kw_only=True)
class RepeatedRuns:
    """Finished runs: `directory` holds the best model, `rows` each run's values by task and split ("task/valid"),
    `summary` their mean, standard deviation (`std`) and interval (`low`, `high`)."""

    directory: Path
    report: Path
    rows: Mapping[str, Values]
    summary: Mapping[str, Mapping[str, Mapping[str, float | None]]]

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {
            "model": str(self.directory),
            "report": str(self.report),
            "runs": {name: dict(values) for name, values in self.rows.items()},
            "summary": {name: dict(of) for name, of in self.summary.items()},
        }


def run_seeds(recipe: FinetuneRecipe, seeds: int, out: Path, resume: bool, log: Log) -> RepeatedRuns:
    """Fine-tune with `seeds` seeds, the recipe's and those after it, on the same examples."""
    check_recipe(recipe)
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    check_options(recipe, [split.task for split in splits])

    def one(number: int, folder: Path) -> None:
        if (folder / "palavra.toml").exists():
            resume_finetuning(folder, (), log, splits)
        else:
            seeded = replace(recipe, train=replace(recipe.train, seed=recipe.train.seed + number))
            finetune_splits(seeded, splits, folder, log)

    what = Repetition(over="seed", examples_hash=examples_hash(splits), recipe=with_absolute_paths(recipe))
    return _run(one, seeds, what, out, resume, log)


def run_folds(recipe: FinetuneRecipe, folds: int, out: Path, resume: bool, log: Log) -> RepeatedRuns:
    """Cross-validate: train on all training examples but a fold, validate on the fold."""
    check_recipe(recipe)
    if folds < 2:
        raise PalavraError(f"--folds is {folds}: it must be at least 2")
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    check_options(recipe, [split.task for split in splits])
    for split in splits:
        if split.task.spec.valid:
            raise PalavraError("--folds makes its own validation examples: leave --valid out, or use --seeds")
    divided = [_folds(split, folds, recipe.train.seed) for split in splits]

    def one(number: int, folder: Path) -> None:
        parts = [_fold(split, of, number) for split, of in zip(splits, divided, strict=True)]
        if (folder / "palavra.toml").exists():
            resume_finetuning(folder, (), log, parts)
        else:
            finetune_splits(recipe, parts, folder, log)

    what = Repetition(over="fold", folds=folds, examples_hash=examples_hash(splits), recipe=with_absolute_paths(recipe))
    return _run(one, folds, what, out, resume, log)


def _folds(split: Split, folds: int, seed: int) -> Int64Array:
    """The fold of each example, those that would have been held out among them."""
    examples = [*split.train, *split.valid]
    return fold_of(split.task, examples, folds, seed)


def _fold(split: Split, folds: Int64Array, number: int) -> Split:
    """The split whose validation examples are the `number`-th of the `folds`."""
    return replace(split, train=[*split.train, *split.valid]).holding_out(folds == number)


def _run(
    one: Callable[[int, Path], None], count: int, what: Repetition, out: Path, resume: bool, log: Log
) -> RepeatedRuns:
    """Run each, go on with it, or take what an interrupted start finished, and sum up."""
    run = RunDirectory(out)
    with run.locked():
        folders = _run_each(one, count, what, run, resume, log)
        return _sum_up(folders, what, run, log)


def _run_each(
    one: Callable[[int, Path], None], count: int, what: Repetition, run: RunDirectory, resume: bool, log: Log
) -> list[Path]:
    """The folders of the finished runs."""
    over, out = what.over, run.path
    first = what.recipe.train.seed if over == "seed" else 0
    began = out / "repeated.toml"
    if resume and began.exists():
        _check_same(began, what)
    if not resume:
        run.check_free()
        if any(out.glob(f"{over}-*")):
            raise PalavraError(f"{out} already holds runs: add --resume to go on with them, or choose another --out")
    atomic_write_text(began, configuration.to_toml(what))
    folders = [out / f"{over}-{first + number}" for number in range(count)]
    with stop_on_signals() as stop:
        for number, folder in enumerate(folders):
            log.line(f"{over} {first + number} ({number + 1} of {count})")
            if (folder / "evaluation.json").exists():
                log.line(f"{folder} is finished already")
                continue
            one(number, folder)
            if stop:  # in the last step of the run, or behind it
                raise Interrupted(
                    f"stopped after {over} {first + number}, which is finished: continue with --resume", stop.exit_code
                )
    return folders


def _check_same(began: Path, what: Repetition) -> None:
    """Raise PalavraError where the runs that are to go on were begun as others."""
    before = configuration.from_toml(Repetition, began)
    if before.option != what.option:
        raise PalavraError(
            f"{began.parent} was begun with {before.option}, not {what.option}: resume with that, or choose another "
            "--out"
        )
    if before.recipe != what.recipe:
        raise PalavraError(f"{began} has another recipe: resume with the options the runs began with")
    if before.examples_hash != what.examples_hash:
        raise PalavraError(f"{began.parent}: the labelled files changed since the runs began: choose another --out")


def _sum_up(folders: Sequence[Path], what: Repetition, run: RunDirectory, log: Log) -> RepeatedRuns:
    """The mean of the runs, and the best of them as the model in `run`."""
    evaluations = [RunDirectory(folder).read_json("evaluation.json") for folder in folders]
    rows = {folder.name: values_of(found) for folder, found in zip(folders, evaluations, strict=True)}
    summary = {split: _summary([row[split] for row in rows.values()]) for split in next(iter(rows.values()))}
    reached = [_selection_score(found) for found in evaluations]
    best = folders[reached.index(max(reached))]
    take_model(best, run)
    content = {
        **RunDirectory(best).read_json("evaluation.json"),
        "runs": {
            "over": f"{what.over}s",
            "best": best.name,
            "rows": [{"name": name, "directory": name, "values": values} for name, values in rows.items()],
            "summary": summary,
        },
    }
    run.write_json("evaluation.json", content)
    for split, metrics in summary.items():
        said = ", ".join(f"{name} {of['mean']:.4f}{_spread(of)}" for name, of in metrics.items())
        log.line(f"{split}, {len(folders)} {what.over}s, mean ± standard deviation [95% interval]: {said}")
    report = write_report(run.path)
    log.line(f"best: {best.name}   model: {run.path}   report: {report}")
    return RepeatedRuns(directory=run.path, report=report, rows=rows, summary=summary)


def take_model(folder: Path, run: RunDirectory) -> None:
    """Make the finished model of a folder that of `run`."""
    for name in MODEL_FILES:
        if (folder / name).exists():
            with atomic_path(run.path / name) as temporary:
                shutil.copyfile(folder / name, temporary)


def values_of(evaluation: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The plain numbers of an evaluation, by "task/split"."""
    values = {
        f"{task['name']}/{split}": dict(found["values"])
        for task in evaluation["tasks"]
        for split, found in task["splits"].items()
    }
    return values | {f"mean_score/{split}": {"mean": mean} for split, mean in evaluation.get("mean_score", {}).items()}


def _summary(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Each score's mean over the runs that have it: where a class is absent, some are not defined."""
    names = dict.fromkeys(name for values in runs for name in values)
    return {name: _mean(name, [values[name] for values in runs if name in values]) for name in names}


def _mean(name: str, values: Sequence[float]) -> dict[str, float | None]:
    # The mean of several tasks adds up scores and errors, whose signs are turned.
    bounds = (-math.inf, math.inf) if name == "mean" else range_of(name)
    mean, std, interval = mean_interval(values, bounds=bounds)
    return {
        "mean": mean, "sd": std, "low": interval.low if interval else None, "high": interval.high if interval else None,
        "runs": len(values),
    }  # fmt: skip


def _spread(of: Mapping[str, float | None]) -> str:
    if of["sd"] is None:
        return ""
    return f" ± {of['sd']:.4f}" + ("" if of["low"] is None else f" [{of['low']:.4f}, {of['high']:.4f}]")


def _selection_score(evaluation: Mapping[str, Any]) -> tuple[float, float]:
    """What decided on each run's best weights, of the finished run: the mean over the tasks of the deciding metric on
    validation examples, and of equal ones that of the loss, its sign turned."""
    of_tasks = []
    for task in evaluation["tasks"]:
        found = task["splits"].get("valid") or next(iter(task["splits"].values()))
        of_tasks.append((task.get("selection_metric", found["main"]), found["values"]))
    reached = [selection_score(metric, values) for metric, values in of_tasks]
    losses = [selection_score("loss", values) for _, values in of_tasks]
    return float(np.mean(reached)), float(np.mean(losses))
