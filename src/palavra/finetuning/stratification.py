"""Stratified splits: divide examples so that every label is as frequent in each part as in the whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError
from palavra.tasks.task import Reader

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Keeps floating-point error from rounding a whole number down.
ROUNDING = 1e-9


def hold_out(reader: Reader[Any], examples: Sequence[Any], fraction: float, seed: int) -> BoolArray:
    """Return (E,) which examples to hold out: a fraction of each label's, but never the only example of a label.
    Groups, such as the questions on one passage, stay whole."""
    group = groups_of(reader, examples)
    if 1 < group.max() + 1 < len(examples):
        order = np.random.default_rng([seed, 11]).permutation(int(group.max()) + 1)
        grouped: BoolArray = np.isin(group, order[_spread(len(order), fraction)])
        return grouped
    strata = [reader.stratification_keys(example) for example in examples]
    only = _only_examples(strata)
    if all(len(of) == 1 for of in strata):
        held = np.zeros(len(examples), dtype=bool)
        held[_stratified_order([of[0] for of in strata], seed)[_spread(len(examples), fraction)]] = True
        return held & ~only
    held = np.equal(_iterative_parts(strata, [1 - fraction, fraction], seed, only), 1)
    if not held.any() and not only.all():
        held[np.flatnonzero(~only)[0]] = True
    return held


def fold_of(reader: Reader[Any], examples: Sequence[Any], folds: int, seed: int) -> Int64Array:
    """Return (E,) the validation fold of each example, stratified as in `hold_out`. No fold is empty. Raises
    PalavraError if there are fewer examples or groups than folds."""
    group = groups_of(reader, examples)
    groups = int(group.max()) + 1
    if len(examples) < folds:
        raise PalavraError(f"--folds is {folds}, but there are only {len(examples)} examples: lower it")
    if groups < folds:
        raise PalavraError(
            f"--folds is {folds}, but the {len(examples)} examples are on {groups} passage{'s' * (groups > 1)}, each "
            f"of which stays whole: {'lower it' if groups > 1 else 'leave it out'}"
        )
    if groups < len(examples):
        order = np.random.default_rng([seed, 11]).permutation(groups)
        number: Int64Array = (np.argsort(order) % folds)[group]
        return number
    strata = [reader.stratification_keys(example) for example in examples]
    if all(len(of) == 1 for of in strata):
        number = np.empty(len(examples), dtype=np.int64)
        number[_stratified_order([of[0] for of in strata], seed)] = np.arange(len(examples)) % folds
        return number
    return _iterative_parts(strata, [1 / folds] * folds, seed, np.zeros(len(examples), dtype=bool))


def groups_of(reader: Reader[Any], examples: Sequence[Any]) -> Int64Array:
    """Return (E,) the group number of each example. An example without a group gets its own."""
    names = [reader.group(example) for example in examples]
    keys = [i if name is None else name for i, name in enumerate(names)]
    # Not np.unique: a name may be a whole passage, and numpy pads every string to the longest one.
    ordered = sorted(set(keys), key=lambda key: (isinstance(key, str), str(key)))
    number = {key: place for place, key in enumerate(ordered)}
    return np.array([number[key] for key in keys], dtype=np.int64)


def _spread(count: int, fraction: float) -> BoolArray:
    """Return (count,) bool: an evenly spread fraction of positions, at least one and never all."""
    places = np.arange(count)
    chosen: BoolArray = np.floor((places + 1) * fraction) > np.floor(places * fraction)
    if not chosen.any() and count > 1:
        chosen[count // 2] = True
    return chosen


def _only_examples(strata: Sequence[Sequence[str]]) -> BoolArray:
    """Return (E,) whether an example is the only one of any of its strata."""
    last = {name: number for number, of in enumerate(strata) for name in of}
    first = {name: number for number, of in reversed(list(enumerate(strata))) for name in of}
    only = np.zeros(len(strata), dtype=bool)
    only[[number for name, number in last.items() if first[name] == number]] = True
    return only


def _stratified_order(strata: Sequence[str], seed: int) -> Int64Array:
    """Return the example indexes (E,) in random order, sorted by strata, so that every n-th keeps the proportions."""
    numbers = np.unique(strata, return_inverse=True)[1]
    order: Int64Array = np.lexsort((np.random.default_rng([seed, 11]).random(len(strata)), numbers))
    return order


def _iterative_parts(
    strata: Sequence[Sequence[str]], fractions: Sequence[float], seed: int, first: BoolArray
) -> Int64Array:
    """Return (E,) the part of each example, by iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011,
    algorithm 1). Each takes about its fraction of the whole and of every stratum. Examples marked in `first` (E,) go to
    the first part.

    The stratum with the fewest remaining examples is assigned next: each goes to the part with room that needs most of
    it. The needed counts are rounded at random, so that rare strata also get their fraction on average.
    """
    number = {name: place for place, name in enumerate(dict.fromkeys(name for of in strata for name in of))}
    own = [[number[name] for name in of] for of in strata]
    members: list[list[int]] = [[] for _ in number]
    random = np.random.default_rng([seed, 11])
    for example in random.permutation(len(own)).tolist():
        for stratum in own[example]:
            members[stratum].append(example)
    left = np.array([len(of) for of in members], dtype=np.float64)
    bounds = np.pad(left[:, None] * np.cumsum(fractions), ((0, 0), (1, 0)))
    lacking = np.diff(np.floor(bounds + random.random((len(left), 1)) + ROUNDING), axis=1)
    lacking_in_all = np.diff(np.floor(len(own) * np.cumsum([0.0, *fractions]) + ROUNDING))
    part = np.full(len(own), -1, dtype=np.int64)

    def assign(example: int, to: int) -> None:
        part[example] = to
        lacking_in_all[to] -= 1
        for stratum in own[example]:
            lacking[stratum, to] -= 1
            left[stratum] -= 1

    for example in np.flatnonzero(first).tolist():
        assign(example, 0)
    while (waiting := np.where(left > 0, left, np.inf)).min(initial=np.inf) < np.inf:
        stratum = int(waiting.argmin())
        for example in members[stratum]:
            if part[example] < 0:
                assign(example, int(np.lexsort((lacking_in_all, lacking[stratum], lacking_in_all > 0))[-1]))
    for example in random.permutation(np.flatnonzero(part < 0)).tolist():  # without a stratum
        assign(example, int(lacking_in_all.argmax()))
    return part
