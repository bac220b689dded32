"""The labelled examples of a run: read, checked, and split into training and validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from palavra.data.record_files import check_applies
from palavra.data.urls import is_url
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
    """The examples of one task by split."""

    task: AnyTask
    train: Sequence[Any]
    valid: Sequence[Any]
    test: Sequence[Any]
    skipped: tuple[str, ...] = ()  # what was left out of the sources, a line for each

    def trained_on(self, train: Sequence[Any]) -> "Split":
        """Return the split with these training examples. The task keeps the labels of all and counts only these."""
        spec = self.task.spec
        return replace(self, task=KINDS[spec.kind].fit(spec, self.train, train), train=train)

    def holding_out(self, held: BoolArray) -> "Split":
        """Return the split that validates on the training examples marked in `held` (E,)."""
        train, valid = _divided(self.train, held)
        return replace(self.trained_on(train), valid=valid)

    def in_folds(self, folds: int, seed: int) -> list["Split"]:
        """Return a split for each fold of all training and validation examples, which validates on that fold."""
        whole = replace(self, train=[*self.train, *self.valid])
        numbers = fold_of(self.task.reader, whole.train, folds, seed)
        return [whole.holding_out(numbers == fold) for fold in range(folds)]


def _divided(examples: Sequence[Any], held: BoolArray) -> tuple[list[Any], list[Any]]:
    """Return the examples not marked in `held` (E,), and those marked."""
    return list(compress(examples, ~held)), list(compress(examples, held))


def read_split(spec: TaskSpec, seed: int) -> Split:
    """Read the examples of a task. Without a validation file a fraction of the training examples is held out."""
    kind = KINDS[spec.kind]
    named = [name for name, value in vars(spec.columns).items() if value is not None]
    spec = settle_texts(spec)
    reader = kind.reader(spec)
    sources = [source for source in (spec.train, spec.valid, spec.test) if source]
    check_applies(spec, sources)
    reader.check_columns(named, sources)
    labelled = train = reader.read(spec.train)
    valid: list[Any] = []
    if not spec.valid:
        train, valid = _divided(train, hold_out(reader, train, spec.valid_fraction, seed))
    task = kind.fit(spec, labelled, train)
    if spec.valid:
        valid = task.reader.read(spec.valid)
        task.encoder.check(valid)
    elif not train or not valid:
        raise PalavraError(f"{spec.train} has too few examples to hold some out: give --valid a separate file")
    test = task.reader.read_test(spec.test) if spec.test else []
    task.check_test(test)
    skipped = (*reader.skipped, *task.reader.skipped)
    return Split(task=task, train=train, valid=valid, test=test, skipped=skipped)


def examples_hash(splits: Sequence[Split]) -> str:
    """Return a digest of the content of all examples, independent of their files. A resumed run must match it."""
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
    """Return the recipe with absolute paths of its model and files."""
    tasks = tuple(
        replace(task, train=_absolute(task.train), valid=_absolute(task.valid), test=_absolute(task.test))
        for task in recipe.tasks
    )
    return replace(recipe, model=str(Path(recipe.model).resolve()), tasks=tasks)


def _absolute(source: Source) -> Source:
    if not source or is_url(source):
        return source
    path = Path(source).expanduser()
    # A link keeps its name, whose suffix gives the file format.
    return str(path.parent.resolve() / path.name)


def write_held_out(run: RunDirectory, splits: Sequence[Split]) -> None:
    """Return the held-out examples by file and line."""
    held = {s.task.spec.name: [e.where for e in s.valid] for s in splits if not s.task.spec.valid}
    if held:
        run.write_json("held_out.json", held)
