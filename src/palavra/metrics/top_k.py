"""What is kept of class probabilities: as much as predictions and scores need, so that an evaluation with very many
classes never holds a number for each example and class."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Beyond these many classes a K x K table cannot be read, and one sort for each class takes long.
MANY_CLASSES = 200
# The most probable classes that a prediction lists.
LISTED = 5
# Elements of the probabilities that are compared at once.
COMPARED_AT_ONCE = 2**22

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Ranking(NamedTuple):
    """What is known of E examples from the probabilities of their K classes.

    `best` (E, L): the L most probable classes, best first, of equal ones the lower number; `probabilities` (E, L) of
    these. `right` (E,): the probability of the gold class, `among` (E,) bool: whether fewer than five classes come
    before it; both empty without labels. `every` (E, K): all probabilities of few classes, (E, 0) of many.
    """

    best: Int64Array
    probabilities: Floats
    right: Floats
    among: BoolArray
    every: Floats

    @classmethod
    def of(cls, probabilities: Floats, labels: Integers | None = None, listed: int = LISTED) -> "Ranking":
        """From finite probabilities (E, K) and the right classes (E,), where they are known; the `listed` best ones are
        kept. Raises ValueError for labels that are not one class for each example, counted from 0."""
        examples, classes = probabilities.shape
        right, among = np.empty(0, probabilities.dtype), np.empty(0, np.bool_)
        if labels is not None:
            if labels.shape != (examples,) or not ((labels >= 0) & (labels < classes)).all():
                raise ValueError("labels are one class for each example, counted from 0")
            right, among = probabilities[np.arange(examples), labels], right_among(LISTED, labels, probabilities)
        best = best_classes(probabilities, min(listed, classes))
        return cls(
            best=best,
            probabilities=np.take_along_axis(probabilities, best, 1),
            right=right,
            among=among,
            # Not a view, which would keep all of them.
            every=probabilities if classes <= MANY_CLASSES else np.empty((examples, 0), probabilities.dtype),
        )

    @property
    def chosen(self) -> Int64Array:
        """(E,): the most probable class."""
        return self.best[:, 0]

    @property
    def confidence(self) -> Floats:
        """(E,): its probability."""
        return self.probabilities[:, 0]


def best_classes(probabilities: Floats, count: int) -> Int64Array:
    """The most probable classes (E, count), best first, of equal ones the lower numbers."""
    rows = max(1, COMPARED_AT_ONCE // probabilities.shape[1])
    parts = [_best_of(probabilities[start : start + rows], count) for start in range(0, len(probabilities), rows)]
    return np.concatenate(parts) if parts else np.empty((0, count), dtype=np.int64)


def _best_of(probabilities: Floats, count: int) -> Int64Array:
    """`best_classes` of a few rows: what is sorted is as large as they are."""
    part = np.sort(np.argpartition(-probabilities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(probabilities, part, 1), axis=1, kind="stable")
    best = np.take_along_axis(part, order, 1)
    # Where others are as probable as the last of them, those with lower numbers may not be among them.
    last = np.take_along_axis(probabilities, best[:, -1:], 1)
    tied = (probabilities >= last).sum(1) > count
    best[tied] = np.argsort(-probabilities[tied], axis=1, kind="stable")[:, :count]
    return best


def right_among(count: int, labels: Integers, probabilities: Floats) -> BoolArray:
    """Whether each example (E,) has fewer than `count` classes before the right one, by probability and then by index:
    what `ClassificationScores.accuracy_at_5` is the mean of."""
    rows = max(1, COMPARED_AT_ONCE // probabilities.shape[1])
    classes = np.arange(probabilities.shape[1])
    hits = np.empty(len(labels), dtype=bool)
    for start in range(0, len(labels), rows):
        part, label = probabilities[start : start + rows], labels[start : start + rows, None]
        right = np.take_along_axis(part, label, 1)
        before = (part > right) | ((part == right) & (classes < label))
        hits[start : start + rows] = before.sum(1) < count
    return hits
