"""Scores as vectorized functions of the number of times each example was drawn. The score of a test set is its
statistic with all counts 1 (`point`); its interval comes from the statistic of many resamples (`bootstrap`).

Legend: E examples, B resamples, S sums, K classes, T targets. `counts` (B, E) float64: how often each resample has each
example. A statistic returns scores by name, (B,) float64 each, NaN if undefined.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
Sampled = Mapping[str, Doubles]


class Statistic(Protocol):
    """Scores of resamples."""

    @property
    def cost(self) -> int:
        """Return the number of examples processed per resample, times the classes if each class is processed alone."""

    def __call__(self, counts: Doubles) -> Sampled:
        """Return the scores of each resample."""


def point(statistic: Statistic, examples: int) -> dict[str, float]:
    """Return the defined scores of the examples, each drawn once."""
    once = {name: float(values[0]) for name, values in statistic(np.ones((1, examples))).items()}
    return {name: value for name, value in once.items() if not np.isnan(value)}


@dataclass(frozen=True, kw_only=True, eq=False)
class OfSums:
    """Scores computed from sums over examples: `each` (E, S) is summed, `score` maps the sums (B, S) to scores."""

    each: Doubles | sparse.csr_array
    score: Callable[[Doubles], Sampled]

    @property
    def cost(self) -> int:
        examples: int = self.each.shape[0]
        return examples

    def __call__(self, counts: Doubles) -> Sampled:
        sums: Doubles = counts @ self.each
        return self.score(sums)


def ratio(numerator: Doubles, denominator: Doubles, empty: float = np.nan) -> Doubles:
    """Divide elementwise, with `empty` where the denominator is 0."""
    found = np.full(numerator.shape, empty)
    np.divide(numerator, denominator, out=found, where=denominator != 0)
    return found


def means(values: Mapping[str, npt.ArrayLike], of: npt.ArrayLike = 1.0) -> OfSums:
    """Return the mean of each score's values (E,), one per example; with `of` (E,), their sum over the sum of `of`: the
    number of parts of each example, or whether it counts."""
    columns = [np.asarray(value, dtype=np.float64) for value in values.values()]
    base = np.broadcast_to(np.asarray(of, dtype=np.float64), columns[0].shape)

    def score(sums: Doubles) -> Sampled:
        return {name: ratio(sums[:, number], sums[:, -1]) for number, name in enumerate(values)}

    return OfSums(each=np.stack([*columns, base], 1), score=score)


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """The ascending `order` (E,) of values (E,), and the offset of each of the G distinct values, `starts` (G,)."""

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> "Order":
        """Sort values."""
        order = np.argsort(values, kind="stable")
        ascending = values[order]
        return cls(order=order, starts=np.flatnonzero(np.append(True, ascending[1:] > ascending[:-1])))

    @cached_property
    def group(self) -> npt.NDArray[np.int64]:
        """Return the index of each example's value among the distinct values, (E,)."""
        sizes = np.diff(self.starts, append=len(self.order))
        group = np.empty(len(self.order), dtype=np.int64)
        group[self.order] = np.repeat(np.arange(len(sizes)), sizes)
        return group

    def sums(self, ascending: Doubles) -> Doubles:
        """Sum numbers (B, E), given in this order, over the examples with equal values: (B, G)."""
        if len(self.starts) == len(self.order):
            return ascending
        summed: Doubles = np.add.reduceat(ascending, self.starts, axis=1)
        return summed


def counted(rows: Integers, columns: Integers, shape: tuple[int, int]) -> sparse.csr_array:
    """Count how often each row has each column."""
    return sparse.csr_array(sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape))
