"""Several fine-tuning runs in folders of one directory: start or resume them, and copy out the best model."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.files import atomic_path, atomic_write_text
from palavra.finetuning.run import finetune_splits, is_finished, resume_finetuning
from palavra.finetuning.splits import Split, examples_hash, read_split, with_absolute_paths
from palavra.finetuning.validate import check_options, check_recipe
from palavra.log import Log
from palavra.model.sentence_modules import sentence_files
from palavra.output import check
from palavra.recipe import FinetuneRecipe
from palavra.run_records.finetuning import FinetuningEvaluation
from palavra.training.interrupts import Interrupted, stop_on_signals
from palavra.training.run_directory import RunDirectory

# The files of a finished run that make up its model, besides those of `sentence_files`.
_MODEL_FILES = ("model.safetensors", "config.json", "task.json", "tokenizer.json", "tokenizer_config.json",
               "palavra.toml", "run.json", "metrics.jsonl")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """The content of `repeated.toml`: what the runs vary, the number of `folds` (seeds may be added later), the digest
    of all examples, and the recipe of the first run, with absolute paths."""

    over: Literal["seed", "fold", "size"]
    folds: int | None = None
    examples_hash: str
    recipe: FinetuneRecipe

    @property
    def option(self) -> str:
        """Return its name on the command line."""
        names = {"seed": "--seeds", "fold": f"--folds={self.folds}", "size": "numbers of labelled examples"}
        return names[self.over]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One of several runs, with the `name` of its folder."""

    name: str
    recipe: FinetuneRecipe
    splits: Sequence[Split]


def read_splits(recipe: FinetuneRecipe) -> list[Split]:
    """Return the examples of a recipe's tasks. Raises PalavraError for an invalid recipe."""
    check_recipe(recipe)
    splits = [read_split(spec, recipe.train.seed) for spec in recipe.tasks]
    check_options(recipe, [split.task for split in splits])
    return splits


def repetition(
    over: Literal["seed", "fold", "size"], recipe: FinetuneRecipe, splits: Sequence[Split], folds: int | None = None
) -> Repetition:
    """Return the record that identifies these runs when they are resumed."""
    return Repetition(over=over, folds=folds, examples_hash=examples_hash(splits), recipe=with_absolute_paths(recipe))


def run_all(
    what: Repetition, planned: Sequence[PlannedRun], run: RunDirectory, resume: bool, log: Log
) -> Iterator[tuple[PlannedRun, Path]]:
    """Start, resume or keep each run in its folder of `run`, and yield it with its folder.

    Raises PalavraError if `run` already holds others, Interrupted after a signal.
    """
    _begin(what, [run.path / one.name for one in planned], run, resume)
    with stop_on_signals() as stop:
        for number, one in enumerate(planned, start=1):
            folder, name = run.path / one.name, one.name.replace("-", " ")
            log.line(f"{name} ({number} of {len(planned)})")
            if is_finished(folder, keep_checkpoints=one.recipe.train.keep_checkpoints):
                with RunDirectory(folder).locked():  # which removes what a kill left
                    log.line(f"{folder} is finished already")
            elif (folder / "palavra.toml").exists():
                resume_finetuning(folder, (), log, one.splits)
            else:
                finetune_splits(one.recipe, one.splits, folder, log)
            yield one, folder
            if stop:  # in the last step of the run, or after it
                raise Interrupted(f"stopped after {name}, which is finished: continue with --resume", stop.exit_code)


def _begin(what: Repetition, folders: Sequence[Path], run: RunDirectory, resume: bool) -> None:
    """Write `repeated.toml`. Raises PalavraError if the directory holds other runs, or any without `resume`."""
    began = run.repetition
    if resume and began.exists():
        _check_same(began, what)
    for folder in folders:
        check(folder, "run")
    if not resume:
        run.check_free()
        if any(folder.exists() for folder in folders):
            raise PalavraError(f"{run.path} already holds runs: add --resume to continue them, or choose another --out")
    atomic_write_text(began, configuration.to_toml(what))


def _check_same(began: Path, what: Repetition) -> None:
    """Raise PalavraError if the runs to resume were started differently."""
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


def evaluation_in(folder: Path) -> FinetuningEvaluation:
    """Return the evaluation of a finished run."""
    return RunDirectory(folder).read_json(FinetuningEvaluation, "evaluation.json")


def model_files(folder: Path) -> list[str]:
    """Return the names in a folder of the files that make up its model."""
    return [name for name in (*_MODEL_FILES, *sentence_files(folder)) if (folder / name).is_file()]


def take_model(folder: Path, run: RunDirectory) -> None:
    """Copy the finished model of a folder to `run`."""
    for name in model_files(folder):
        (run.path / name).parent.mkdir(exist_ok=True)
        with atomic_path(run.path / name) as temporary:
            shutil.copyfile(folder / name, temporary)


def values_of(evaluation: FinetuningEvaluation) -> dict[str, dict[str, float]]:
    """Return the scores of an evaluation by "task/split", and mean scores by "mean_score/split"."""
    values = {
        f"{task.name}/{split}": dict(scores.values)
        for task in evaluation.tasks
        for split, scores in task.splits.items()
    }
    return values | {f"mean_score/{split}": {"mean": mean} for split, mean in evaluation.mean_score.items()}
