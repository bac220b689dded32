"""Build a fine-tuning recipe from the options of `finetune`."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, Unpack, get_args

from palavra import config as configuration
from palavra.data.urls import is_url
from palavra.errors import PalavraError
from palavra.recipe.finetuning import FinetuneRecipe
from palavra.recipe.options import TASK, check_given, with_options
from palavra.recipe.typed_options import FinetuneOptions
from palavra.tasks.column_options import check_read
from palavra.tasks.spec import POOLED, KindName, TaskSpec, reads_separator, unread_fields

Kind = Literal[KindName, "multitask"]


def build_finetune_recipe(
    kind: Kind | None,
    train: str | Path | None,
    *,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    **options: Unpack[FinetuneOptions],
) -> FinetuneRecipe:
    """Return a recipe from a file (or the defaults), changed by the options, then by `set` ("key=value"; keys under
    `task.` change every task).

    `train` is a file of labelled examples, or a TOML file: one `TaskSpec`, or for "multitask" a table `[[tasks]]` of
    several (with paths relative to it). Without `kind` and `train` the tasks come from the `recipe`. Raises
    PalavraError for an unknown key, a wrong value, an option or field that does not apply, or a column or separator
    that no task reads.
    """
    base = configuration.from_toml(FinetuneRecipe, recipe) if recipe is not None else FinetuneRecipe()
    specs = _tasks(kind, train, base)
    made = override_recipe(with_options(replace(base, tasks=specs), options), set)
    if kind is not None:
        made = _with_trained_pooling(made)
    check_given(made, options)
    if options.get("valid_fraction") is not None and all(task.valid for task in made.tasks):
        raise PalavraError(
            "--valid-fraction would not be read, for there are validation examples: leave it or --valid out"
        )
    check_read([name for name, value in options.items() if value is not None], made.tasks)
    if options.get("separator") is not None:
        # It applies to those of the tasks that separate labels by it.
        own = zip(specs, made.tasks, strict=True)
        tasks = tuple(task if reads_separator(task) else replace(task, separator=spec.separator) for spec, task in own)
        made = replace(made, tasks=tasks)
    _check_fields(made.tasks, specs, _source(str(train), recipe))
    from palavra.recipe.saved_splits import with_saved_splits  # which imports Arrow: the help does without

    return replace(made, tasks=tuple(map(with_saved_splits, made.tasks)))


def _with_trained_pooling(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """Return the recipe with the pooling that its model was trained with, where heads of whole texts name none."""
    from palavra.model.sentence_modules import trained_pooling  # which imports torch: the help does without

    pooling = trained_pooling(Path(recipe.model)) if recipe.model and not recipe.from_scratch else None
    if pooling is None:
        return recipe

    def pooled(task: TaskSpec) -> TaskSpec:
        head = task.head
        if task.kind not in POOLED or head.pooling is not None:
            return task
        return replace(task, head=replace(head, pooling=pooling))

    return replace(recipe, tasks=tuple(map(pooled, recipe.tasks)))


def _check_fields(tasks: Sequence[TaskSpec], before: Sequence[TaskSpec], source: str) -> None:
    """Raise PalavraError for a field that does not apply to its task. The message names `source` for errors that
    precede the options."""
    for task, own in zip(tasks, before, strict=True):
        for problem in unread_fields(task):
            where = f"{source}: " if problem in set(unread_fields(own)) else ""
            raise PalavraError(f"{where}task {task.name}: {problem}")


def _tasks(kind: Kind | None, source: str | Path | None, base: FinetuneRecipe) -> tuple[TaskSpec, ...]:
    """Return the tasks of a training file, or of the recipe without one."""
    if kind is None or source is None:
        if kind or source or not base.tasks:
            raise PalavraError(
                "name a kind of task and a file of labelled examples, or data: only --resume or a --recipe has its own"
            )
        return base.tasks
    train = str(source)
    if kind not in get_args(Kind):
        raise PalavraError(f"{kind!r} is no kind of task: use {', '.join(get_args(Kind))}")
    if Path(train).suffix != ".toml":
        if kind == "multitask":
            raise PalavraError(f"{train}: several tasks are described in a TOML file with a table [[tasks]] for each")
        if len(base.tasks) > 1:
            raise PalavraError(
                f"{train}: one file of examples, but the recipe describes {len(base.tasks)} tasks: describe them in a "
                "TOML file, or leave their tables out"
            )
        known = base.tasks[0] if base.tasks else TaskSpec(kind=kind)
        return (replace(known, kind=kind, train=train),)
    if kind == "multitask":
        specs = _described(train, base)
    else:
        specs = (configuration.from_toml(TaskSpec, train),)
        if specs[0].kind != kind:
            raise PalavraError(f"{train} describes a task of kind {specs[0].kind}, not {kind}: change one of the two")
    return tuple(_beside(spec, Path(train).parent) for spec in specs)


def _described(train: str, base: FinetuneRecipe) -> tuple[TaskSpec, ...]:
    """Return the tasks of a TOML file of several tasks, whose other fields must repeat the recipe."""
    found = configuration.from_toml(FinetuneRecipe, train)
    plain = FinetuneRecipe()
    for field in fields(found):
        value = getattr(found, field.name)
        if field.name != "tasks" and value not in (getattr(plain, field.name), getattr(base, field.name)):
            raise PalavraError(
                f"{train}: {field.name} would not be read, only the tables [[tasks]]: give the file as --recipe "
                "too, or leave it out"
            )
    return found.tasks


def _source(train: str, recipe: str | Path | None) -> str:
    """Return the file that describes the tasks, if any."""
    return train if Path(train).suffix == ".toml" else str(recipe or "the recipe")


def _beside(spec: TaskSpec, folder: Path) -> TaskSpec:
    """Return the specification with paths relative to the folder of its file."""

    def found(name: str | None) -> str | None:
        return name if name is None or is_url(name) else str(folder / name)

    return replace(spec, train=found(spec.train) or "", valid=found(spec.valid), test=found(spec.test))


def override_recipe(recipe: FinetuneRecipe, assignments: Iterable[str]) -> FinetuneRecipe:
    """Return the recipe with `key=value` assignments applied; those that begin with `task.` apply to every task."""
    assignments = [assignments] if isinstance(assignments, str) else assignments
    of_tasks = [one.removeprefix(TASK) for one in assignments if one.startswith(TASK)]
    recipe = configuration.override(recipe, [one for one in assignments if not one.startswith(TASK)])
    return replace(recipe, tasks=tuple(configuration.override(task, of_tasks) for task in recipe.tasks))
