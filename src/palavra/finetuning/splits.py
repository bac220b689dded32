"""The labelled examples of a run: read, checked, divided into training and validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from palavra.data.hub import PREFIX
from palavra.errors import PalavraError
from palavra.finetuning.stratification import hold_out
from palavra.recipe import FinetuneRecipe
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Task
from palavra.training.run_directory import RunDirectory

BoolArray = npt.NDArray[np.bool_]
SPLITS = ("train", "valid", "test")
Source = TypeVar("Source", str, str | None)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The examples of one task by what they are for."""

    task: Task[Any]
    train: Sequence[Any]
    valid: Sequence[Any]
    test: Sequence[Any]

    def trained_on(self, train: Sequence[Any]) -> "Split":
        """The split with other examples to train on; the task counts these alone."""
        return replace(self, task=self.task.with_label_counts(train), train=train)

    def holding_out(self, held: BoolArray) -> "Split":
        """The split with those of its training examples to validate with that are `held` (E,) out."""
        train, valid = ([one for one, out in zip(self.train, held, strict=True) if out == so] for so in (False, True))
        return replace(self.trained_on(train), valid=valid)


def read_split(spec: TaskSpec, seed: int) -> Split:
    """Read the examples of a task; what has no validation file gives a share of its training examples."""
    kind = KINDS[spec.kind]
    named = [name for name, value in vars(spec.columns).items() if value is not None]
    kind.check_columns(spec, named, [source for source in (spec.train, spec.valid, spec.test) if source])
    train = kind.read(spec, spec.train)
    task = kind.fit(spec, train)
    valid = kind.read(task.spec, spec.valid) if spec.valid else []
    test = kind.read(task.spec, spec.test) if spec.test else []
    for examples in (valid, test):
        task.check(examples)
    split = Split(task=task, train=train, valid=valid, test=test)
    if spec.valid:
        return split
    held = hold_out(task, train, spec.valid_fraction, seed)
    if held.all() or not held.any():
        raise PalavraError(f"{spec.train} has too few examples to hold some out: give --valid a file of its own")
    return split.holding_out(held)


def examples_hash(splits: Sequence[Split]) -> str:
    """A digest of what all examples say, wherever they were read: equal when a resumed run would learn from the
    same."""
    digest = hashlib.sha256()
    for split in splits:
        for name in SPLITS:
            examples = getattr(split, name)
            digest.update(f"{name} {len(examples)}".encode())
            said = [field.name for field in fields(examples[0]) if field.name != "where"] if examples else []
            for example in examples:
                values = [getattr(example, each) for each in said]
                digest.update(repr(values).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def with_absolute_paths(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """The recipe with its model and files named so that they are found from any working directory."""
    tasks = tuple(
        replace(task, train=_absolute(task.train), valid=_absolute(task.valid), test=_absolute(task.test))
        for task in recipe.tasks
    )
    return replace(recipe, model=str(Path(recipe.model).resolve()), tasks=tasks)


def _absolute(source: Source) -> Source:
    if not source or source.startswith(PREFIX):
        return source
    path = Path(source).expanduser()
    # A link keeps its name, which says what kind of file it is.
    return str(path.parent.resolve() / path.name)


def write_held_out(run: RunDirectory, splits: Sequence[Split]) -> None:
    """Which examples were held out, by file and line, so that anybody can look."""
    held = {s.task.spec.name: [e.where for e in s.valid] for s in splits if not s.task.spec.valid}
    if held:
        run.write_json("held_out.json", held)
