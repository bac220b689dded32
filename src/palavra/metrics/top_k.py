"""The part of class probabilities that predictions and scores need, so that an evaluation with very many classes never
holds a number for each example and class."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Above this number of classes, a K x K table is unreadable and one sort per class is slow.
MANY_CLASSES = 200
# Number of most probable classes to list for an example.
LISTED = 5
# Elements of the probabilities to compare at once.
COMPARED_AT_ONCE = 2**22

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Int64Array = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Ranking(NamedTuple):
    """A summary of the probabilities of K classes for E examples.

    `best` (E, L): the L most probable classes, best first, ties by lower number; `probabilities` (E, L) of these.
    `right` (E,): the probability of the gold class; `loss` (E,): that of the model's
    output; `hit` and `among` (E,): the `chances` that it is the best class,
    and one of the five best; all empty without labels. `every` (E, K): all probabilities, or (E, 0) for many classes.
    `differ` (E,): whether the windows of a text have different best classes. `abstained` (E,): whether the best class
    is too improbable to be given.
    """

    best: Int64Array
    probabilities: Floats
    right: Floats
    loss: Floats
    hit: Doubles
    among: Doubles
    every: Floats
    differ: BoolArray
    abstained: BoolArray

    @classmethod
    def of(cls, probabilities: Floats, labels: Integers | None = None, listed: int = LISTED) -> "Ranking":
        """Summarize finite probabilities (E, K), with gold classes (E,) if known, keeping the `listed` best classes.
        Raises ValueError for labels that are not one class for each example, counted from 0."""
        examples, classes = probabilities.shape
        right, hit, among = np.empty(0, probabilities.dtype), np.empty(0), np.empty(0)
        if labels is not None:
            if labels.shape != (examples,) or not ((labels >= 0) & (labels < classes)).all():
                raise ValueError("labels are one class for each example, counted from 0")
            right = probabilities[np.arange(examples), labels]
            above, tied = gold_ranks(labels, probabilities)
            hit, among = chances(1, above, tied), chances(LISTED, above, tied)
        best = best_classes(probabilities, min(listed, classes))
        return cls(
            best=best,
            probabilities=np.take_along_axis(probabilities, best, 1),
            right=right,
            loss=right[:0],
            hit=hit,
            among=among,
            # A view would keep all probabilities in memory.
            every=probabilities if classes <= MANY_CLASSES else np.empty((examples, 0), probabilities.dtype),
            differ=np.zeros(examples, dtype=np.bool_),
            abstained=np.zeros(examples, dtype=np.bool_),
        )

    @property
    def chosen(self) -> Int64Array:
        """Return the most probable classes (E,)."""
        return self.best[:, 0]

    @property
    def confidence(self) -> Floats:
        """Return the probabilities (E,) of the most probable classes."""
        return self.probabilities[:, 0]


def best_classes(probabilities: Floats, count: int) -> Int64Array:
    """Return the most probable classes (E, count), best first, ties by lower number."""
    rows = max(1, COMPARED_AT_ONCE // probabilities.shape[1])
    parts = [_best_of(probabilities[start : start + rows], count) for start in range(0, len(probabilities), rows)]
    return np.concatenate(parts) if parts else np.empty((0, count), dtype=np.int64)


def _best_of(probabilities: Floats, count: int) -> Int64Array:
    """Return `best_classes` of a few rows, which bound the memory of the sort."""
    part = np.sort(np.argpartition(-probabilities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(probabilities, part, 1), axis=1, kind="stable")
    best = np.take_along_axis(part, order, 1)
    # If other classes tie with the last one, argpartition may have missed those with lower numbers.
    last = np.take_along_axis(probabilities, best[:, -1:], 1)
    tied = (probabilities >= last).sum(1) > count
    best[tied] = np.argsort(-probabilities[tied], axis=1, kind="stable")[:, :count]
    return best


def gold_ranks(labels: Integers, scores: Floats) -> tuple[Int64Array, Int64Array]:
    """Return how many classes score above the gold one of each example (E,), and how many as high, itself included."""
    rows = max(1, COMPARED_AT_ONCE // scores.shape[1])
    above, tied = np.empty((2, len(labels)), dtype=np.int64)
    for start in range(0, len(labels), rows):
        part = scores[start : start + rows]
        gold = np.take_along_axis(part, labels[start : start + rows, None], 1)
        above[start : start + rows], tied[start : start + rows] = (part > gold).sum(1), (part == gold).sum(1)
    return above, tied


def chances(count: int, above: Integers | Floats, tied: Integers | Floats) -> Doubles:
    """Return the chance that the gold class is among the `count` best if equal scores are put in random order, from
    `gold_ranks`. It is 0 or 1 without ties; the mean is the expected accuracy, which no order of the classes helps."""
    found: Doubles = np.clip((count - above) / tied, 0.0, 1.0)
    return found
