"""Scores as functions of how often each example was drawn: what the bootstrap needs, without a loop over examples.

Legend: E examples, B resamples, S sums, K classes, T targets. `counts` (B, E) float64 says how often each resample
holds each example; a statistic gives scores by name, (B,) float64 each, NaN where one is not defined.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from palavra.metrics.tag_schemes import Span

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
Sampled = Mapping[str, Doubles]

# A variance below this share of the whole test's is rounding: the resample holds one value only.
CONSTANT = 1e-12


class Statistic(Protocol):
    """Scores of resamples."""

    @property
    def cost(self) -> int:
        """How many examples a resample looks at, those of each class apart where classes are looked at apart."""

    def __call__(self, counts: Doubles) -> Sampled:
        """The scores of each resample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfSums:
    """Scores that follow from sums over examples: `score` makes them of (B, S), `each` (E, S) is summed."""

    each: Doubles | sparse.csr_array
    score: Callable[[Doubles], Sampled]

    @property
    def cost(self) -> int:
        """As `Statistic` has it."""
        examples: int = self.each.shape[0]
        return examples

    def __call__(self, counts: Doubles) -> Sampled:
        """As `Statistic` has it."""
        sums: Doubles = counts @ self.each
        return self.score(sums)


def ratio(numerator: Doubles, denominator: Doubles, empty: float = np.nan) -> Doubles:
    """Elementwise; `empty` where the denominator is 0."""
    found = np.full(numerator.shape, empty)
    np.divide(numerator, denominator, out=found, where=denominator != 0)
    return found


def means(values: Mapping[str, npt.ArrayLike], of: npt.ArrayLike = 1.0) -> OfSums:
    """The mean of each score's values (E,), one an example; or, with `of` (E,), their sum over that of `of`: how many
    parts an example has, or whether it counts at all."""
    columns = [np.asarray(value, dtype=np.float64) for value in values.values()]
    base = np.broadcast_to(np.asarray(of, dtype=np.float64), columns[0].shape)

    def score(sums: Doubles) -> Sampled:
        return {name: ratio(sums[:, number], sums[:, -1]) for number, name in enumerate(values)}

    return OfSums(each=np.stack([*columns, base], 1), score=score)


def class_statistics(gold: Integers, predicted: Integers, sizes: Integers | None = None) -> OfSums:
    """Accuracy, macro and weighted F1 and Matthews correlation of classes (M,), as `metrics.classification_scores` has
    them; `sizes` (E,) says how many of them each example has, where that is not one (the words of a sentence)."""
    examples = len(gold) if sizes is None else len(sizes)
    owner = np.repeat(np.arange(examples), 1 if sizes is None else sizes)
    names, numbers = np.unique(np.concatenate([gold, predicted]), return_inverse=True)
    of_gold, of_found = np.split(numbers.reshape(-1), 2)
    right, classes = of_gold == of_found, len(names)
    rows = np.concatenate([owner, owner, owner[right]])
    columns = np.concatenate([of_gold, classes + of_found, 2 * classes + of_gold[right]])

    def score(sums: Doubles) -> Sampled:
        support, found, both = np.split(sums, 3, axis=1)
        total, correct = support.sum(1), both.sum(1)
        each = ratio(2 * both, support + found, 0.0)
        covariance = correct * total - (support * found).sum(1)
        spread = (total**2 - (support**2).sum(1)) * (total**2 - (found**2).sum(1))
        return {
            "accuracy": ratio(correct, total),
            "macro_f1": ratio(each.sum(1), (support + found > 0).sum(1).astype(np.float64)),
            "weighted_f1": ratio((each * support).sum(1), total),
            "matthews": ratio(covariance, np.sqrt(spread), 0.0),
        }

    return OfSums(each=_counted(rows, columns, (examples, 3 * classes)), score=score)


def label_set_statistics(gold: BoolArray, chosen: BoolArray) -> OfSums:
    """Micro, macro, weighted and samples F1 and subset accuracy of label sets (E, K), as `metrics.multilabel_scores`
    has them."""
    sets = ratio(2.0 * (gold & chosen).sum(1), (gold.sum(1) + chosen.sum(1)).astype(np.float64), 0.0)
    whole = (gold == chosen).all(1).astype(np.float64)
    parts = [sparse.csr_array(np.asarray(part, dtype=np.float64)) for part in (gold & chosen, gold, chosen)]
    columns = sparse.csr_array(np.stack([sets, whole, np.ones(len(gold))], 1))
    labels = gold.shape[1]

    def score(sums: Doubles) -> Sampled:
        both, support, found = np.split(sums[:, : 3 * labels], 3, axis=1)
        each = ratio(2 * both, support + found, 0.0)
        of_sets, of_whole, total = sums[:, 3 * labels :].T
        return {
            "micro_f1": ratio(2 * both.sum(1), (support + found).sum(1), 0.0),
            "macro_f1": each.mean(1),
            "weighted_f1": ratio((each * support).sum(1), support.sum(1), 0.0),
            "samples_f1": ratio(of_sets, total),
            "subset_accuracy": ratio(of_whole, total),
        }

    return OfSums(each=sparse.csr_array(sparse.hstack([*parts, columns])), score=score)


def span_statistics(gold: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]]) -> OfSums:
    """Precision, recall, F1 and macro F1 of the spans of sentences, as `metrics.span_scores` has them; an example is a
    sentence, for its spans depend on each other."""
    names: dict[str, int] = {}
    places: tuple[list[tuple[int, int]], ...] = ([], [], [])
    for number, (expected, given) in enumerate(zip(map(set, gold), map(set, found), strict=True)):
        for part, spans in zip(places, (expected, given, expected & given), strict=True):
            part.extend((number, names.setdefault(span.label, len(names))) for span in spans)
    types = len(names)
    rows, columns = np.array(list(chain.from_iterable(places)), dtype=np.int64).reshape(-1, 2).T
    columns = columns + types * np.repeat(np.arange(3), [len(part) for part in places])

    def score(sums: Doubles) -> Sampled:
        support, given, both = np.split(sums, 3, axis=1)
        each = ratio(2 * both, support + given, 0.0)
        total, given_total, right = support.sum(1), given.sum(1), both.sum(1)
        return {
            "precision": ratio(right, given_total, 0.0),
            "recall": ratio(right, total, 0.0),
            "f1": ratio(2 * right, total + given_total, 0.0),
            "macro_f1": ratio(each.sum(1), (support + given > 0).sum(1).astype(np.float64), 0.0),
        }

    return OfSums(each=_counted(rows, columns, (len(gold), 3 * types)), score=score)


def regression_statistics(targets: Doubles, values: Doubles) -> OfSums:
    """Mean squared, root mean squared and mean absolute error, R² and Pearson's r of values (E, T), each the mean over
    targets as `regression_metrics.regression_scores` has it."""
    error = values - targets
    # Centred and in units of their spread, squares lose nothing to a large mean.
    (x, spread), (y, _) = _standardized(targets), _standardized(values)
    each = np.concatenate([x, y, x * x, y * y, x * y, error**2, np.abs(error), np.ones((len(x), 1))], 1)
    count = targets.shape[1]

    def score(sums: Doubles) -> Sampled:
        of_x, of_y, xx, yy, xy, squared, absolute = np.split(sums[:, :-1] / sums[:, -1:], 7, axis=1)
        of_target, of_value = _variance(xx, of_x), _variance(yy, of_y)
        covariance = xy - of_x * of_y
        return {
            "mse": squared.sum(1) / count,
            "rmse": np.sqrt(squared).sum(1) / count,
            "mae": absolute.sum(1) / count,
            "r2": (1 - ratio(squared, of_target * spread**2)).sum(1) / count,
            "pearson": np.clip(ratio(covariance, np.sqrt(of_target * of_value)), -1, 1).sum(1) / count,
        }

    return OfSums(each=each, score=score)


def _standardized(values: Doubles) -> tuple[Doubles, Doubles]:
    """Values (E, T) less their mean, over their standard deviation (T,), which is 1 where it would be 0."""
    centred = values - values.mean(0)
    spread = np.sqrt((centred**2).mean(0))
    spread = np.where(spread > 0, spread, 1.0)
    return centred / spread, spread


def _variance(square: Doubles, mean: Doubles) -> Doubles:
    """NaN where it is only rounding."""
    variance = square - mean**2
    return np.where(variance > CONSTANT, variance, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Values (E,) in ascending order: `order` (E,), and where each of their G different values begins in it, `starts`
    (G,)."""

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> "Order":
        """The order of values."""
        order = np.argsort(values, kind="stable")
        ascending = values[order]
        return cls(order=order, starts=np.flatnonzero(np.append(True, ascending[1:] > ascending[:-1])))

    @cached_property
    def group(self) -> npt.NDArray[np.int64]:
        """Which of the different values each example has, (E,)."""
        sizes = np.diff(self.starts, append=len(self.order))
        group = np.empty(len(self.order), dtype=np.int64)
        group[self.order] = np.repeat(np.arange(len(sizes)), sizes)
        return group

    def sums(self, ascending: Doubles) -> Doubles:
        """Sums (B, G) over the examples of each value of numbers (B, E) that are in this order."""
        if len(self.starts) == len(self.order):
            return ascending
        summed: Doubles = np.add.reduceat(ascending, self.starts, axis=1)
        return summed


class Auroc:
    """Area under the ROC curve, the mean over columns of gold (E, K) by scores (E, K); not defined on a resample that
    lacks examples of either sort in one of them."""

    def __init__(self, gold: BoolArray, scores: Floats):
        self.orders = [Order.of(column) for column in scores.T]
        self.gold = [own[order.order].astype(np.float64) for own, order in zip(gold.T, self.orders, strict=True)]

    @property
    def cost(self) -> int:
        """As `Statistic` has it."""
        return len(self.gold) * len(self.gold[0])

    def __call__(self, counts: Doubles) -> Sampled:
        """As `Statistic` has it."""
        total = np.zeros(len(counts))
        for order, gold in zip(self.orders, self.gold, strict=True):
            drawn = counts[:, order.order]
            positive = order.sums(drawn * gold)
            negative = order.sums(drawn) - positive
            # A pair of equal scores is half won (Mann and Whitney 1947).
            below = np.cumsum(negative, axis=1) - negative / 2
            total += ratio(np.einsum("bg,bg->b", positive, below), positive.sum(1) * negative.sum(1))
        return {"auroc": total / len(self.orders)}


class Spearman:
    """Spearman's rank correlation, the mean over targets of values (E, T); ranks are those of the resample, equal
    values sharing theirs."""

    def __init__(self, targets: Doubles, values: Doubles):
        self.orders = [(Order.of(t), Order.of(v)) for t, v in zip(targets.T, values.T, strict=True)]

    @property
    def cost(self) -> int:
        """As `Statistic` has it."""
        return 2 * len(self.orders) * len(self.orders[0][0].order)

    def __call__(self, counts: Doubles) -> Sampled:
        """As `Statistic` has it."""
        total = np.zeros(len(counts))
        for target, value in self.orders:
            (x, of_x), (y, of_y) = self._ranks(target, counts), self._ranks(value, counts)
            x *= counts
            total += ratio(np.einsum("be,be->b", x, y), np.sqrt(of_x * of_y))
        return {"spearman": total / len(self.orders)}

    @staticmethod
    def _ranks(order: Order, counts: Doubles) -> tuple[Doubles, Doubles]:
        """The rank of each example less the mean rank (B, E), and the sum of its square over what was drawn (B,)."""
        drawn = order.sums(counts[:, order.order])
        middle = (drawn.sum(1, keepdims=True) + 1) / 2
        ranks = np.cumsum(drawn, axis=1) - drawn / 2 + (0.5 - middle)
        return ranks[:, order.group], np.einsum("bg,bg,bg->b", drawn, ranks, ranks)


def _counted(rows: Integers, columns: Integers, shape: tuple[int, int]) -> sparse.csr_array:
    """How often each row has each column."""
    return sparse.csr_array(sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape))
