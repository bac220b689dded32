"""The labelled examples of a run: read, checked, divided into training and validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from palavra.data.hub import PREFIX
from palavra.errors import PalavraError
from palavra.finetuning.stratification import fold_of, hold_out
from palavra.recipe import FinetuneRecipe
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask
from palavra.tasks.text_examples import settle_texts
from palavra.training.run_directory import RunDirectory

BoolArray = npt.NDArray[np.bool_]
SPLITS = ("train", "valid", "test")
Source = TypeVar("Source", str, str | None)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The examples of one task by their use."""

    task: AnyTask
    train: Sequence[Any]
    valid: Sequence[Any]
    test: Sequence[Any]

    def trained_on(self, train: Sequence[Any]) -> "Split":
        """The split with some of its examples to train on; the task has the labels of all, and counts these alone."""
        spec = self.task.spec
        return replace(self, task=KINDS[spec.kind].fit(spec, self.train, train), train=train)

    def holding_out(self, held: BoolArray) -> "Split":
        """The split that validates with those of its training examples that are `held` (E,) out."""
        train, valid = _divided(self.train, held)
        return replace(self.trained_on(train), valid=valid)

    def in_folds(self, folds: int, seed: int) -> list["Split"]:
        """For each fold of all examples, those held out before among them, the split that validates with it."""
        whole = replace(self, train=[*self.train, *self.valid])
        numbers = fold_of(self.task.reader, whole.train, folds, seed)
        return [whole.holding_out(numbers == fold) for fold in range(folds)]


def _divided(examples: Sequence[Any], held: BoolArray) -> tuple[list[Any], list[Any]]:
    """The examples that are not `held` (E,) out, and those that are."""
    return list(compress(examples, ~held)), list(compress(examples, held))


def read_split(spec: TaskSpec, seed: int) -> Split:
    """Read the examples of a task. Without a validation file a fraction of the training examples is held out."""
    kind = KINDS[spec.kind]
    named = [name for name, value in vars(spec.columns).items() if value is not None]
    spec = settle_texts(spec)
    reader = kind.reader(spec)
    reader.check_columns(named, [source for source in (spec.train, spec.valid, spec.test) if source])
    labelled = train = reader.read(spec.train)
    valid: list[Any] = []
    if not spec.valid:
        train, valid = _divided(train, hold_out(reader, train, spec.valid_fraction, seed))
    task = kind.fit(spec, labelled, train)
    if spec.valid:
        valid = task.reader.read(spec.valid)
        task.encoder.check(valid)
    elif not train or not valid:
        raise PalavraError(f"{spec.train} has too few examples to hold some out: give --valid a file of its own")
    test = task.reader.read(spec.test) if spec.test else []
    task.encoder.check(test)
    return Split(task=task, train=train, valid=valid, test=test)


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
