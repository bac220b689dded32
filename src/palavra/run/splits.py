"""The labelled examples of a run: read, checked, divided into training and validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palavra.errors import PalavraError
from palavra.run.directory import RunDirectory
from palavra.tasks.kinds import KINDS
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Task

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The examples of one task by what they are for."""

    task: Task[Any]
    train: Sequence[Any]
    valid: Sequence[Any]
    test: Sequence[Any]


def read_split(spec: TaskSpec, seed: int) -> Split:
    """Read the examples of a task; what has no validation file gives a share of its training examples."""
    kind = KINDS[spec.kind]
    train = kind.read(spec, spec.train)
    task = kind.fit(spec, train)
    valid = kind.read(task.spec, spec.valid) if spec.valid else []
    test = kind.read(task.spec, spec.test) if spec.test else []
    for examples in (valid, test):
        task.check(examples)
    if not spec.valid:
        order = stratified_order(task, train, seed)
        held = _spread(len(train), spec.valid_share)
        valid = [train[i] for i in order[held].tolist()]
        train = [train[i] for i in np.sort(order[~held]).tolist()]
    if not train:
        raise PalavraError(f"{spec.train} has too few examples to hold some out: give --valid a file of its own")
    return Split(task=task, train=train, valid=valid, test=test)


def stratified_order(task: Task[Any], examples: Sequence[Any], seed: int) -> Any:
    """The examples' numbers (E,), at random, but like labels together: every n-th of them has the shares of all."""
    strata = np.unique([task.stratum(example) for example in examples], return_inverse=True)[1]
    return np.lexsort((np.random.default_rng([seed, 11]).random(len(examples)), strata))


def _spread(count: int, share: float) -> Any:
    """(count,) bool: an evenly spread share of places, at least one, never all."""
    places = np.arange(count)
    chosen = np.floor((places + 1) * share) > np.floor(places * share)
    if not chosen.any() and count > 1:
        chosen[count // 2] = True
    return chosen


def examples_hash(splits: Sequence[Split]) -> str:
    """A digest of all examples: equal when a resumed run would learn from the same."""
    digest = hashlib.sha256()
    for split in splits:
        for name in SPLITS:
            for example in getattr(split, name):
                digest.update(repr(example).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def write_held_out(run: RunDirectory, splits: Sequence[Split]) -> None:
    """Which examples were held out, by file and line, so that anybody can look."""
    held = {s.task.spec.name: [e.where for e in s.valid] for s in splits if not s.task.spec.valid}
    if held:
        run.write_json("held_out.json", held)
