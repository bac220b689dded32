"""The options of the commands, derived from recipe fields, and their application to a recipe."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import TypeVar, get_args, get_origin

from palavra.config import changed
from palavra.errors import PalavraError, unexpected
from palavra.option import Command, Declared, declared, listed, members, unmet
from palavra.recipe.finetuning import FinetuneRecipe
from palavra.recipe.pretraining import Recipe
from palavra.tasks.spec import TaskSpec

R = TypeVar("R", Recipe, FinetuneRecipe)
C = TypeVar("C", Recipe, FinetuneRecipe, TaskSpec)

# The commands that make each recipe.
MADE_BY: Mapping[type[Recipe] | type[FinetuneRecipe], tuple[Command, ...]] = {
    Recipe: ("pretrain",),
    FinetuneRecipe: ("finetune", "sweep"),
}
# The commands that take options of each; of two the last.
_ABOUT: Mapping[type[Recipe] | type[FinetuneRecipe], tuple[Command, ...]] = {
    Recipe: ("tokenizer train", "prepare", "pretrain", "demo", "evaluate", "compare-pairs"),
    FinetuneRecipe: ("finetune", "sweep", "evaluate", "predict"),
}
TASK = "task."


def fields_of(recipe: type[Recipe] | type[FinetuneRecipe]) -> Iterator[Declared]:
    """Yield every field of a recipe by its key for `--set`; task fields begin with `task.`"""
    for each in declared(recipe):  # type: ignore[arg-type]
        if each.key != "tasks":
            yield each
            continue
        for field in declared(TaskSpec):
            when = {f"{TASK}{key}": values for key, values in field.when.items()}
            yield replace(field, key=f"{TASK}{field.key}", when=when)


def options_of(command: Command) -> Iterator[Declared]:
    """Yield the recipe fields that have a flag of a command. How text and how examples are read is said by the same
    flags, of which a command gets one: that of the recipe that it is about."""
    found = {
        each.option.flag: each
        for recipe, makers in MADE_BY.items()
        for each in fields_of(recipe)
        if each.option.flag and command in _ABOUT[recipe] and command in (each.option.commands or makers)
    }
    yield from found.values()


def with_options(recipe: R, given: Mapping[str, object]) -> R:
    """Return a recipe changed by options, given by Python name; None changes nothing. A task option changes every task
    that it applies to.

    Raises PalavraError for a wrong value, two options that replace each other, or one that applies to no task;
    TypeError for an unknown name.
    """
    options = _given(type(recipe), given)
    values: dict[str, object] = {}
    for each, value in options.items():
        table, dot, _ = each.key.rpartition(".")
        replaced = [f"{table}{dot}{name}" for name in each.option.replaces]
        rivals: list[str] = [other.name for other in options if other.key in replaced]
        if rivals:
            raise PalavraError(f"give one of {listed([each.name, *rivals])}: one replaces the other")
        set_too = [f"{table}{dot}{name}" for name in (each.option.sets or {}).get(str(value), ())]
        if both := sorted(other.key.removeprefix(TASK) for other in options if other.key in set_too):
            raise PalavraError(f"{each.name} ({value}) sets {both[0]} too: give one")
        values |= dict.fromkeys(replaced) | {each.key: _plain(value, each)}
    recipe = _changed(recipe, {key: value for key, value in values.items() if not key.startswith(TASK)}, options)
    if not isinstance(recipe, FinetuneRecipe):
        return recipe
    of_tasks = {key.removeprefix(TASK): value for key, value in values.items() if key.startswith(TASK)}
    fields = {each.key: each for each in declared(TaskSpec)}
    tasks = list(recipe.tasks)
    # What an option depends on has fewer conditions than itself, so it is set before.
    for key, value in sorted(of_tasks.items(), key=lambda item: len(fields[item[0]].when)):
        problems = [unmet(task, fields[key], name=fields[key].name) for task in tasks]
        if all(problems):
            raise PalavraError(problems[0] or "")
        tasks = [
            task if problem else _changed(task, {key: value}, options)
            for task, problem in zip(tasks, problems, strict=True)
        ]
    return replace(recipe, tasks=tuple(tasks))


def _changed(config: C, values: Mapping[str, object], options: Iterable[Declared]) -> C:
    """Return a copy of `config` with these values. A PalavraError names options, not their keys."""
    try:
        return changed(config, values)
    except PalavraError as error:
        message = str(error.args[0])
        for each in options:
            if message.startswith(f"{each.key.removeprefix(TASK)} "):
                message = f"{each.name}{message.removeprefix(each.key.removeprefix(TASK))}"
        raise PalavraError(message) from error


def check_given(recipe: Recipe | FinetuneRecipe, given: Mapping[str, object]) -> None:
    """Raise PalavraError for a given option that does not apply to the recipe."""
    for each in _given(type(recipe), given):
        if not each.key.startswith(TASK) and (problem := unmet(recipe, each, name=each.name)):
            raise PalavraError(problem)


def _given(recipe: type[Recipe] | type[FinetuneRecipe], given: Mapping[str, object]) -> dict[Declared, object]:
    """Yield the given options with their values."""
    named = {each.argument: each for each in fields_of(recipe) if each.option.flag}
    for name in given:
        if name not in named:
            raise unexpected(name, named)
    return {named[name]: value for name, value in given.items() if value is not None}


def _plain(value: object, each: Declared) -> object:
    """Return a value in recipe form: a path as text, a single text of a list field as a list."""
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, str) and type(value) is str and takes_several(each):
        return (value,)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def takes_several(each: Declared) -> bool:
    """Return whether an option may be given several times."""
    return any(get_origin(kind) is tuple and get_args(kind)[0] is str for kind in members(each.kind))
