"""Scores of classes and label sets, as in the published scorers; `names` defines them.

All rates are between 0 and 1. A ratio with denominator 0 is 0, as with scikit-learn's zero_division=0, without a
warning; an undefined score is NaN in a statistic and None in a table.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import sparse

from palavra.errors import PalavraError
from palavra.metrics.resampled import BoolArray, Doubles, Floats, Integers, OfSums, Order, Sampled, counted, ratio
from palavra.metrics.top_k import MANY_CLASSES
from palavra.run_records.finetuning import ClassScores

# Largest gold matrix (elements) of which AUROC keeps the sort orders for resamples.
KEPT_ORDERS = 2**20


def class_rows(
    names: Sequence[str], correct: Integers, found: Integers, support: Integers, aurocs: Doubles | None = None
) -> tuple[ClassScores, ...]:
    """Return a row per class from the numbers of examples (K,) correctly predicted, predicted, and gold."""
    both, chosen, gold = (counts.astype(np.float64) for counts in (correct, found, support))
    areas = [None] * len(names) if aurocs is None else [None if np.isnan(a) else float(a) for a in aurocs]
    columns = ratio(both, chosen, 0.0), ratio(both, gold, 0.0), ratio(2 * both, chosen + gold, 0.0)
    rows = zip(names, *(column.tolist() for column in columns), support.tolist(), areas, strict=True)
    return tuple(ClassScores(name=n, precision=p, recall=r, f1=f, support=s, auroc=a) for n, p, r, f, s, a in rows)


def class_tables(gold: Integers, predicted: Integers, names: Sequence[str]) -> dict[str, Any]:
    """Return tables of classes (M,), as JSON: `per_class` and `confusion`, counts with gold classes as rows and
    predicted ones as columns. Above `MANY_CLASSES` only `per_class`, of the classes with support."""
    classes = len(names)
    correct, found, support = (np.bincount(of, minlength=classes) for of in (gold[gold == predicted], predicted, gold))
    rows = class_rows(names, correct, found, support)
    if classes > MANY_CLASSES:
        return {"per_class": [asdict(row) for row in rows if row.support]}
    cells = np.bincount(gold.astype(np.int64) * classes + predicted, minlength=classes**2)
    return {"per_class": [asdict(row) for row in rows], "confusion": cells.reshape(classes, classes).tolist()}


def label_set_table(gold: BoolArray, chosen: BoolArray, names: Sequence[str], auroc: "Auroc") -> list[dict[str, Any]]:
    """Return a row per label of label sets (E, K), as JSON."""
    areas = auroc.columns(np.ones((1, len(gold))))[0]
    counts = ((gold & chosen).sum(0), chosen.sum(0), gold.sum(0))
    return [asdict(row) for row in class_rows(names, *counts, areas)]


def class_statistics(
    gold: Integers, predicted: Integers, sizes: Integers | None = None, hit: Floats | None = None
) -> OfSums:
    """Return accuracy, macro and weighted F1 and Matthews correlation of classes (M,); `sizes` (E,): the number of them
    per example, if not one (the words of a sentence); `hit` (M,): what each counts for accuracy (see `top_k.chances`),
    if not 1 where the two are equal."""
    examples = len(gold) if sizes is None else len(sizes)
    owner = np.repeat(np.arange(examples), 1 if sizes is None else sizes)
    names, numbers = np.unique(np.concatenate([gold, predicted]), return_inverse=True)
    of_gold, of_found = np.split(numbers.reshape(-1), 2)
    right, classes = of_gold == of_found, len(names)
    rows = np.concatenate([owner, owner, owner[right]])
    columns = np.concatenate([of_gold, classes + of_found, 2 * classes + of_gold[right]])
    hits = np.bincount(owner, right if hit is None else hit, examples)

    def score(sums: Doubles) -> Sampled:
        support, found, both = np.split(sums[:, :-1], 3, axis=1)
        total, correct = support.sum(1), both.sum(1)
        each = ratio(2 * both, support + found, 0.0)
        covariance = correct * total - (support * found).sum(1)
        spread = (total**2 - (support**2).sum(1)) * (total**2 - (found**2).sum(1))
        return {
            "accuracy": ratio(sums[:, -1], total),
            "macro_f1": ratio(each.sum(1), (support + found > 0).sum(1).astype(np.float64)),
            "weighted_f1": ratio((each * support).sum(1), total),
            "matthews": ratio(covariance, np.sqrt(spread), 0.0),
        }

    counts = counted(rows, columns, (examples, 3 * classes))
    return OfSums(each=sparse.csr_array(sparse.hstack([counts, sparse.csr_array(hits[:, None])])), score=score)


def label_set_statistics(gold: BoolArray, chosen: BoolArray) -> OfSums:
    """Return micro, macro, weighted and samples F1 and subset accuracy of label sets (E, K)."""
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


class Auroc:
    """Area under the ROC curve, the mean over columns of gold (E, K) and scores (E, K). Undefined on a resample in
    which a column lacks positive or negative examples."""

    def __init__(self, gold: BoolArray, scores: Floats):
        self.gold, self.scores = gold, scores
        self._orders = [Order.of(column) for column in scores.T] if self.cost <= KEPT_ORDERS else None

    @property
    def cost(self) -> int:
        return self.gold.size

    def __call__(self, counts: Doubles) -> Sampled:
        return {"auroc": self.columns(counts).mean(1)}

    def columns(self, counts: Doubles) -> Doubles:
        """Return the area of each column (B, K), by pairs of examples (Mann and Whitney 1947)."""
        areas = np.empty((len(counts), self.gold.shape[1]))
        for number, order in enumerate(self._orders or map(Order.of, self.scores.T)):
            drawn = counts[:, order.order]
            positive = order.sums(drawn * self.gold[order.order, number])
            negative = order.sums(drawn) - positive
            # A pair of equal scores counts half.
            below = np.cumsum(negative, axis=1) - negative / 2
            areas[:, number] = ratio(np.einsum("bg,bg->b", positive, below), positive.sum(1) * negative.sum(1))
        return areas


def class_auroc(gold: Integers, probabilities: Floats) -> Auroc:
    """Return the AUROC of class 1 of two, or of each class against the rest: gold (E,), probabilities (E, K)."""
    classes = probabilities.shape[1]
    if classes == 2:
        return Auroc(gold[:, None] == 1, probabilities[:, 1:])
    return Auroc(gold[:, None] == np.arange(classes), probabilities)


def cross_entropies(right: Floats) -> Floats:
    """Return -log p (E,) in nats for the probabilities of the gold classes, clipped as in scikit-learn."""
    losses: Floats = -np.log(_clipped(right))
    return losses


def binary_cross_entropies(labels: BoolArray, probabilities: Floats) -> Floats:
    """Return -log p of each decision (E, K) in nats, clipped as in scikit-learn."""
    clipped = _clipped(probabilities)
    losses: Floats = -np.where(labels, np.log(clipped), np.log1p(-clipped))
    return losses


def _clipped(probabilities: Floats) -> Floats:
    epsilon = np.finfo(probabilities.dtype).eps
    return np.clip(probabilities, epsilon, 1 - epsilon)


def check_finite(outputs: Floats, what: str) -> None:
    """Raise PalavraError unless all outputs (n, ...) are finite; `what` names the n items, such as words."""
    wrong = int((~np.isfinite(outputs)).any(axis=tuple(range(1, outputs.ndim))).sum())
    if wrong:
        raise PalavraError(
            f"the model's outputs for {wrong} of {len(outputs)} {what} are not finite: it has diverged; "
            "train with a lower rate"
        )
