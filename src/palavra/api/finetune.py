"""The Python functions of labelled tasks, with the names of the commands."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.experiments.repeat import RepeatedRuns, run_folds, run_seeds
from palavra.experiments.runs import Repetition
from palavra.finetuning.run import FineTuned, resume_finetuning, run_finetuning
from palavra.finetuning.splits import with_absolute_paths
from palavra.log import Log
from palavra.option import does_not_apply
from palavra.recipe import FinetuneRecipe
from palavra.recipe.finetuning_options import (
    Kind,
    _tasks,
    build_finetune_recipe,
)
from palavra.recipe.typed_options import FinetuneOptions
from palavra.training.run_directory import RunDirectory


def finetune(
    kind: Kind | None = None,
    train: str | Path | None = None,
    *,
    out: str | Path,
    seeds: int = 1,
    folds: int | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    log: Log | None = None,
    **options: Unpack[FinetuneOptions],
) -> FineTuned | RepeatedRuns:
    """Fine-tune a pretrained model to labelled examples and leave a finished model directory in `out`.

    `kind` and `train` as in `build_finetune_recipe`; `recipe` is a TOML file, which the options and then `set`
    ("key=value") change; `palavra.options("finetune")` lists both. With `seeds` above 1 the run is repeated with that
    many seeds, with `folds` the training examples are cross-validated; both report mean and interval, and `out` holds
    the best of the models. With `resume` an interrupted run resumes exactly, with its own recipe (only `set` changes
    it): `kind`, `train` and the options may be left out, and have to be the run's own where they are given.
    Raises PalavraError for wrong input, Interrupted after a signal, Diverged when the loss is lost.
    """
    log = log or Log(quiet=True)
    target = Path(out)
    if seeds < 1:
        raise PalavraError(f"--seeds is {seeds}: it must be at least 1")
    if folds is not None and options.get("valid_fraction") is not None:
        raise PalavraError("--valid-fraction would not be read, for --folds holds out by itself: leave one of them out")
    if seeds > 1 and folds is not None:
        raise PalavraError("give one of --seeds and --folds: each repeats the run in its own way")
    if resume and seeds == 1 and folds is None:
        _check_same(target, kind, train, recipe, options)
        return resume_finetuning(target, tuple(set), log)
    begun = target / "repeated.toml"
    given = any(value not in (None, ()) for value in (kind, train, recipe, set, *options.values()))
    if resume and begun.exists() and not given:
        made = configuration.from_toml(Repetition, begun).recipe
    else:
        made = build_finetune_recipe(kind, train, recipe=recipe, set=set, **options)
    if folds is not None:
        return run_folds(made, folds, target, resume, log)
    if seeds > 1:
        return run_seeds(made, seeds, target, resume, log)
    return run_finetuning(made, target, log)


def _check_same(
    out: Path, kind: Kind | None, train: str | Path | None, recipe: str | Path | None, options: FinetuneOptions
) -> None:
    """Raise PalavraError where what is given is not what the run in `out` was begun with."""
    run = RunDirectory(out)
    if (out / "repeated.toml").exists():
        raise PalavraError(f"{out} was begun with --seeds or --folds: resume it with the same")
    run.check_present()
    own = configuration.from_toml(FinetuneRecipe, run.recipe)
    differing = _other_tasks(own, kind, train)
    if recipe is not None:
        raise PalavraError(does_not_apply("--recipe", f"--resume, for {run.recipe} is the run's own"))
    if options.get("epochs") == own.train.epochs:
        options = {**options, "epochs": None}  # it holds as steps
    made = with_absolute_paths(build_finetune_recipe(None, None, recipe=run.recipe, **options))
    now = configuration.to_toml(made).splitlines()
    differing += [line for line in configuration.to_toml(own).splitlines() if line not in now]
    if differing or made != own:
        raise PalavraError(
            f"{out} was begun otherwise ({'; '.join(differing) or ', '.join(options)}): resume it without other "
            "options, or choose another --out"
        )


def _other_tasks(own: FinetuneRecipe, kind: Kind | None, train: str | Path | None) -> list[str]:
    """What the run's own tasks are, where others are given; a file that describes tasks may say less than options
    added to it."""
    kinds = {task.kind for task in own.tasks}
    if kind not in (None, "multitask", *kinds) or (kind != "multitask" and kind is not None and len(kinds) > 1):
        return [f"kind {' and '.join(sorted(kinds))}"]
    if train is None:
        return []
    toml = Path(train).suffix == ".toml"
    specs = _tasks(kind or own.tasks[0].kind, train, own) if toml else (replace(own.tasks[0], train=str(train)),)
    given = with_absolute_paths(replace(own, tasks=specs)).tasks
    sources = [task.train for task in own.tasks]
    return [] if [task.train for task in given] == sources else [f"examples of {', '.join(sources)}"]
