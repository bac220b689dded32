"""Fine-tune a pretrained model on labelled examples."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal, Unpack, cast, overload

from palavra import config as configuration
from palavra.api.data import Source, example_sources, examples_of, kept_in
from palavra.api.results import FineTunedRun, FineTunedRuns, Folder
from palavra.data.memory import MemorySource
from palavra.errors import PalavraError
from palavra.experiments.repeat import run_folds, run_seeds
from palavra.experiments.runs import Repetition
from palavra.finetuning.plan import FinetuningPlan, plan_finetuning
from palavra.finetuning.run import resume_finetuning, run_finetuning
from palavra.finetuning.splits import with_absolute_paths
from palavra.log import Log
from palavra.option import does_not_apply
from palavra.recipe.finetuning import FinetuneRecipe
from palavra.recipe.finetuning_options import Kind, _tasks, build_finetune_recipe
from palavra.recipe.saved_splits import with_saved_splits
from palavra.recipe.typed_options import FinetuneOptions
from palavra.training.run_directory import RunDirectory


@overload
def finetune(
    kind: Kind | None = None,
    train: Source | None = None,
    *,
    texts: Iterable[str | Sequence[str]] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    out: str | PathLike[str] | None = None,
    seeds: Literal[1] = 1,
    folds: None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **options: Unpack[FinetuneOptions],
) -> FineTunedRun: ...


@overload
def finetune(
    kind: Kind | None = None,
    train: Source | None = None,
    *,
    texts: Iterable[str | Sequence[str]] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    out: str | PathLike[str] | None = None,
    seeds: int = 1,
    folds: int | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **options: Unpack[FinetuneOptions],
) -> FineTunedRun | FineTunedRuns: ...


def finetune(
    kind: Kind | None = None,
    train: Source | None = None,
    *,
    texts: Iterable[str | Sequence[str]] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    out: str | PathLike[str] | None = None,
    seeds: int = 1,
    folds: int | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **options: Unpack[FinetuneOptions],
) -> FineTunedRun | FineTunedRuns:
    """Fine-tune a pretrained model on labelled examples and return the finished run in the folder `out`.

    `train`, and the options `valid` and `test`, are files of labelled examples, "hf://dataset[/config]:split", or data
    in memory: dicts, data frames, Arrow tables, data sets; instead of `train`, `texts` or `text_pairs` may be given
    with their `labels`. The text and label columns of data in memory are detected if unambiguous; `text` and `label`
    name others. The run keeps such data in its folder `data`. Without `out` the run is in a temporary folder, which
    `save` keeps.

    `recipe` is a TOML file, which the options and then `set` ("key=value") change; `palavra.options("finetune")` lists
    both. With `seeds` above 1 the run is repeated with as many seeds, with `folds` the training examples are
    cross-validated; both report mean and interval, and `out` holds the best of the models. With `resume` an interrupted
    run resumes exactly, with its own recipe (only `set` changes it): `kind`, `train` and the options may be omitted,
    and must match the run if given. `quiet` suppresses progress output. Raises PalavraError for wrong input,
    Interrupted after a signal, Diverged if the loss diverges.
    """
    _check_repetition(seeds, folds, options.get("valid_fraction") is not None)
    log = Log(quiet=quiet)
    examples = examples_of(train, texts, labels, text_pairs, kind)
    with Folder(out, resume=resume) as folder:
        path = folder.path
        given = GivenExamples(kind, examples, options, path)
        if resume and seeds == 1 and folds is None:
            kept = given.kept(resume=True)
            began_with = kept.pop("train", None)
            _check_same(path, kind, began_with, recipe, cast(FinetuneOptions, {**given.options, **kept}))
            return folder.result(FineTunedRun, resume_finetuning(path, tuple(set), log))
        begun = RunDirectory(path).repetition
        if resume and begun.exists() and not (kind or examples or recipe or set or given.options):
            made = configuration.from_toml(Repetition, begun).recipe
        else:
            made = given.recipe(recipe, set, resume=resume)
        if folds is not None:
            return folder.result(FineTunedRuns, run_folds(made, folds, path, resume, log))
        if seeds > 1:
            return folder.result(FineTunedRuns, run_seeds(made, seeds, path, resume, log))
        return folder.result(FineTunedRun, run_finetuning(made, path, log))


def plan_finetune(
    kind: Kind, train: str | Path, *, recipe: str | Path | None = None, set: Sequence[str] = (),
    **options: Unpack[FinetuneOptions],
) -> FinetuningPlan:  # fmt: skip
    """Return the plan of `finetune` with the same arguments and files: a dry run."""
    return plan_finetuning(build_finetune_recipe(kind, train, recipe=recipe, set=set, **options))


def _check_repetition(seeds: int, folds: int | None, valid_fraction: bool) -> None:
    """Raise PalavraError for seeds and folds that contradict each other or other options."""
    if seeds < 1:
        raise PalavraError(f"--seeds is {seeds}: it must be at least 1")
    if folds is not None and valid_fraction:
        raise PalavraError("--valid-fraction would not be read, for --folds holds out by itself: leave one of them out")
    if seeds > 1 and folds is not None:
        raise PalavraError("give one of --seeds and --folds: each repeats the run in its own way")


class GivenExamples:
    """The examples given to a fine-tuning function, and the options with their detected columns."""

    def __init__(self, kind: Kind | None, train: Source | None, options: FinetuneOptions, folder: Path):
        self._kind, self._folder = kind, folder
        self.options: FinetuneOptions = cast(
            FinetuneOptions, {name: value for name, value in options.items() if value is not None}
        )
        sources: dict[str, Source | None] = {
            "train": train, "valid": self.options.pop("valid", None), "test": self.options.pop("test", None)
        }  # fmt: skip
        spill = None if all(isinstance(source, str | PathLike | None) for source in sources.values()) else folder
        if spill is not None:
            spill.mkdir(parents=True, exist_ok=True)  # a run to resume may be missing
        self._sources, columns = example_sources(sources, kind, dict(self.options), spill)
        self.options = cast(FinetuneOptions, {**self.options, **columns})

    def kept(self, *, resume: bool) -> dict[str, str]:
        """Return the sources by name, with those in memory saved in the run. Raises PalavraError if they would replace
        those of another run, or if the run to resume started with others."""
        return kept_in(self._folder, self._sources, resume=resume)

    def recipe(self, recipe: str | Path | None, set: Sequence[str], *, resume: bool = False) -> FinetuneRecipe:
        """Return the recipe of a run on the examples."""
        named = {name: str(source) for name, source in self._sources.items()}
        train = named.pop("train", None)
        options = cast(FinetuneOptions, {**self.options, **named})
        made = build_finetune_recipe(self._kind, train, recipe=recipe, set=set, **options)
        if not any(isinstance(source, MemorySource) for source in self._sources.values()):
            return made
        kept = self.kept(resume=resume)
        (task,) = made.tasks
        valid, test = (kept.get(name, getattr(task, name)) for name in ("valid", "test"))
        return replace(made, tasks=(replace(task, train=kept.get("train", task.train), valid=valid, test=test),))


def _check_same(
    out: Path, kind: Kind | None, train: str | None, recipe: str | Path | None, options: FinetuneOptions
) -> None:
    """Raise PalavraError if the arguments differ from those that started the run in `out`."""
    run = RunDirectory(out)
    if run.repetition.exists():
        raise PalavraError(f"{out} was begun with --seeds or --folds: resume it with the same")
    run.check_present()
    own = configuration.from_toml(FinetuneRecipe, run.recipe)
    differing = _other_tasks(own, kind, train)
    if recipe is not None:
        raise PalavraError(does_not_apply("--recipe", f"--resume, for {run.recipe} is the run's own"))
    if options.get("epochs") == own.train.epochs:
        options = {**options, "epochs": None}  # the run holds it as steps
    made = with_absolute_paths(build_finetune_recipe(None, None, recipe=run.recipe, **options))
    now = configuration.to_toml(made).splitlines()
    differing += [line for line in configuration.to_toml(own).splitlines() if line not in now]
    if differing or made != own:
        raise PalavraError(
            f"{out} was begun otherwise ({'; '.join(differing) or ', '.join(options)}): resume it without other "
            "options, or choose another --out"
        )


def _other_tasks(own: FinetuneRecipe, kind: Kind | None, train: str | Path | None) -> list[str]:
    """Return how the run's tasks differ from the given ones; a file of tasks may omit what options added."""
    kinds = {task.kind for task in own.tasks}
    if kind not in (None, "multitask", *kinds) or (kind != "multitask" and kind is not None and len(kinds) > 1):
        return [f"kind {' and '.join(sorted(kinds))}"]
    if train is None:
        return []
    toml = Path(train).suffix == ".toml"
    specs = _tasks(kind or own.tasks[0].kind, train, own) if toml else (replace(own.tasks[0], train=str(train)),)
    given = with_absolute_paths(replace(own, tasks=tuple(map(with_saved_splits, specs)))).tasks
    sources = [task.train for task in own.tasks]
    return [] if [task.train for task in given] == sources else [f"examples of {', '.join(sources)}"]
