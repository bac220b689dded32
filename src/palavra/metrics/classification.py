"""Scores of labels, label sets and spans, as the published scorers count them; of numbers, `regression_metrics`.

All shares are between 0 and 1. A ratio without anything in its denominator is 0, as with scikit-learn's
zero_division=0, and never a warning; a score that is not defined at all is None, never NaN.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from palavra.errors import PalavraError
from palavra.metrics.tag_schemes import Span
from palavra.metrics.top_k import COMPARED_AT_ONCE, LISTED, MANY_CLASSES, Ranking
from palavra.run_records import ClassScores

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """How well one class of several was chosen.

    accuracy: share of right answers; flatters whoever always says the most frequent class.
    accuracy_at_5: share with the right class among the five most probable (ties: the first classes); None up to
        five classes.
    macro_f1: mean F1 of the classes that occur or were predicted; rare classes weigh as much as frequent ones,
        so a few examples can move it far.
    weighted_f1: mean F1 by support; hides bad rare classes, and may lie outside precision and recall.
    matthews: correlation of labels and predictions, -1 to 1, 0 for chance (Gorodkin 2004); 0 also where one of
        the two is constant, which is not defined.
    auroc: probability that an example of the class gets a higher score than another; of class 1 where there are
        two, else the mean of each class against the rest. It looks at order only, flatters where positives are
        rare, and is None where a class is absent and above 200 classes.
    loss: mean cross-entropy in nats, probabilities clipped at their dtype's epsilon as scikit-learn does; one
        confident mistake can outweigh many right answers.
    per_class: all classes, above 200 only those with support. confusion: counts, rows labels and columns
        predictions; None above 200 classes.
    """

    examples: int
    accuracy: float
    accuracy_at_5: float | None
    macro_f1: float
    weighted_f1: float
    matthews: float
    auroc: float | None
    loss: float
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...] | None

    def to_json(self) -> dict[str, Any]:
        """As written to a run's files."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class MultilabelScores:
    """How well sets of labels were chosen, each label by its own probability against a threshold.

    micro_f1: F1 over all decisions together; frequent labels rule it. macro_f1: mean F1 of all labels, a label
    that never occurs counting 0. weighted_f1: mean by support. samples_f1: mean F1 of the examples' sets, where an
    example without labels counts 0 even if rightly left without. subset_accuracy: share of sets that are right as
    a whole, which punishes one mistake as much as many. auroc: mean over labels, None where one never or always
    occurs (see the rows). loss: mean binary cross-entropy of all decisions in nats, low where most labels are rare.
    """

    examples: int
    micro_f1: float
    macro_f1: float
    weighted_f1: float
    samples_f1: float
    subset_accuracy: float
    auroc: float | None
    loss: float
    per_class: tuple[ClassScores, ...]

    def to_json(self) -> dict[str, Any]:
        """As written to a run's files."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SpanScores:
    """How many spans were found with exactly their boundaries and type, over all sentences together, as conlleval
    counts. A span that misses one word is one false and one missing span, so near misses cost twice.

    per_class: the types that occur or were found; macro_f1 is the mean over them. token_accuracy is the share of words
    with the right tag, as handed in; it flatters, for most words are outside of spans. `gold`, `found` and `correct`
    count spans.
    """

    precision: float
    recall: float
    f1: float
    macro_f1: float
    gold: int
    found: int
    correct: int
    token_accuracy: float | None
    per_class: tuple[ClassScores, ...]

    def to_json(self) -> dict[str, Any]:
        """As written to a run's files."""
        return asdict(self)


def classification_scores(labels: Integers, ranking: Ranking, names: Sequence[str]) -> ClassificationScores:
    """Scores of single labels (E,), which `ranking` was made with, of the classes `names` (K,); no K x K for many
    classes.

    Raises:
        ValueError: no examples, or another number of them or of classes.
    """
    few = len(names) <= MANY_CLASSES
    if len(labels) == 0 or ranking.every.shape != (len(labels), len(names) if few else 0):
        raise ValueError(f"{len(labels)} labels and {len(names)} names do not fit a ranking of {len(ranking.best)}")
    classes, examples, predicted = np.arange(len(names)), len(labels), ranking.chosen
    found = np.bincount(predicted, minlength=len(names))
    columns = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    rows, f1, support = _rows(names, *columns), columns[2], columns[3]
    confusion = confusion_matrix(labels, predicted, labels=classes) if few else None
    return ClassificationScores(
        examples=examples,
        accuracy=float(accuracy_score(labels, predicted)),
        accuracy_at_5=float(ranking.among.mean()) if len(names) > LISTED else None,
        macro_f1=float(f1[support + found > 0].mean()),
        weighted_f1=float(f1 @ support) / examples,
        matthews=_matthews(int((labels == predicted).sum()), found, support),
        auroc=_class_auroc(labels, ranking.every) if few else None,
        loss=float(cross_entropies(ranking.right).mean(dtype=np.float64)),
        per_class=tuple(row for row in rows if few or row.support),
        confusion=None if confusion is None else tuple(tuple(line) for line in confusion.tolist()),
    )


def multilabel_scores(
    labels: BoolArray, probabilities: Floats, names: Sequence[str], threshold: float = 0.5
) -> MultilabelScores:
    """Scores of label sets (E, K) bool by a probability (E, K) for each label; those of `threshold` or more are chosen.

    Raises:
        PalavraError: a probability is not a finite number.
        ValueError: no examples, or shapes that differ.
    """
    check_outputs(len(labels), probabilities, len(names))
    if labels.shape != probabilities.shape:
        raise ValueError("label sets are (E, K), as their probabilities")
    gold, chosen = labels.astype(bool), probabilities >= threshold
    # By hand: scikit-learn takes one column of decisions for two classes.
    support, found, both = gold.sum(0), chosen.sum(0), (gold & chosen).sum(0)
    precision, recall, f1 = _ratio(both, found), _ratio(both, support), _ratio(2 * both, found + support)
    aurocs = _aurocs(gold, probabilities)
    return MultilabelScores(
        examples=len(labels),
        micro_f1=_f1(int(both.sum()), int(found.sum()), int(support.sum())),
        macro_f1=float(f1.mean()),
        weighted_f1=float(f1 @ support) / max(1, int(support.sum())),
        samples_f1=float(_ratio(2 * (gold & chosen).sum(1), gold.sum(1) + chosen.sum(1)).mean()),
        subset_accuracy=float((gold == chosen).all(1).mean()),
        auroc=mean_of_defined(aurocs),
        loss=float(binary_cross_entropies(gold, probabilities).mean(dtype=np.float64)),
        per_class=_rows(names, precision, recall, f1, support, aurocs),
    )


def span_scores(
    gold: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]], *, token_accuracy: float | None = None
) -> SpanScores:
    """Scores of the spans found in each sentence against the gold ones, in the order of sentences.

    Raises:
        ValueError: another number of sentences.
    """
    if len(gold) != len(found):
        raise ValueError(f"spans of {len(found)} sentences were found, and {len(gold)} have gold ones")
    of_gold, of_found, of_both = Counter[str](), Counter[str](), Counter[str]()
    for expected, given in zip(map(set, gold), map(set, found), strict=True):
        of_gold.update(span.label for span in expected)
        of_found.update(span.label for span in given)
        of_both.update(span.label for span in expected & given)
    types = sorted(of_gold | of_found)
    correct, given_count, support = (np.array([one[t] for t in types], int) for one in (of_both, of_found, of_gold))
    columns = (_ratio(correct, given_count), _ratio(correct, support), _ratio(2 * correct, given_count + support))
    rows = _rows(types, *columns, support)
    total, found_total, gold_total = of_both.total(), of_found.total(), of_gold.total()
    return SpanScores(
        precision=total / found_total if found_total else 0.0,
        recall=total / gold_total if gold_total else 0.0,
        f1=_f1(total, found_total, gold_total),
        macro_f1=sum(row.f1 for row in rows) / len(rows) if rows else 0.0,
        gold=gold_total,
        found=found_total,
        correct=total,
        token_accuracy=token_accuracy,
        per_class=rows,
    )


def cross_entropies(right: Floats) -> Floats:
    """-log p (E,) in nats of the probability of each example's class, as `ClassificationScores.loss` has it."""
    losses: Floats = -np.log(_clipped(right))
    return losses


def binary_cross_entropies(labels: BoolArray, probabilities: Floats) -> Floats:
    """-log p of each decision (E, K) in nats, as `MultilabelScores.loss` has it."""
    clipped = _clipped(probabilities)
    losses: Floats = -np.where(labels, np.log(clipped), np.log1p(-clipped))
    return losses


def check_outputs(examples: int, outputs: Floats, names: int) -> None:
    """Raise ValueError unless outputs are (examples, names), and PalavraError where one of them is not finite."""
    if examples == 0 or outputs.shape != (examples, names):
        raise ValueError(f"{examples} examples and {names} names do not fit outputs of shape {outputs.shape}")
    check_finite(outputs, "examples")


def check_finite(outputs: Floats, what: str) -> None:
    """Raise PalavraError where the outputs (n, ...) for so many examples, words or the like are not all numbers."""
    wrong = int((~np.isfinite(outputs.reshape(len(outputs), -1))).any(1).sum())
    if wrong:
        raise PalavraError(
            f"the model's outputs for {wrong} of {len(outputs)} {what} are not finite: it has diverged; "
            "train with a lower rate"
        )


def _ratio(numerator: Integers, denominator: Integers) -> Doubles:
    """Elementwise; 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def _f1(correct: int, found: int, support: int) -> float:
    return 2 * correct / (found + support) if found + support else 0.0


def _rows(
    names: Sequence[str],
    precision: Doubles,
    recall: Doubles,
    f1: Doubles,
    support: Integers,
    aurocs: Sequence[float | None] | None = None,
) -> tuple[ClassScores, ...]:
    columns = zip(
        names, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), aurocs or [None] * len(names),
        strict=True,
    )  # fmt: skip
    return tuple(
        ClassScores(name=n, precision=p, recall=r, f1=f, support=int(c), auroc=a) for n, p, r, f, c, a in columns
    )


def mean_of_defined(scores: Sequence[float | None]) -> float | None:
    """The mean of scores; None where one of them is."""
    defined = [score for score in scores if score is not None]
    return sum(defined) / len(defined) if len(defined) == len(scores) else None


def _clipped(probabilities: Floats) -> Floats:
    epsilon = np.finfo(probabilities.dtype).eps
    return np.clip(probabilities, epsilon, 1 - epsilon)


def _matthews(correct: int, found: Integers, support: Integers) -> float:
    """R_K of Gorodkin 2004 from the margins of the confusion matrix, in whole numbers that cannot overflow."""
    given, gold = found.tolist(), support.tolist()
    examples = sum(gold)
    covariance = correct * examples - sum(g * f for g, f in zip(gold, given, strict=True))
    variances = (examples**2 - sum(f * f for f in given)) * (examples**2 - sum(g * g for g in gold))
    return covariance / math.sqrt(variances) if variances else 0.0


def _aurocs(gold: BoolArray, scores: Floats) -> list[float | None]:
    """The area under the ROC curve of each column (E, K); None without both kinds of examples. By the ranks of all
    columns at once (Mann and Whitney 1947): a function of one column costs some milliseconds for each."""
    positive, examples = gold.sum(0), len(gold)
    others = examples - positive
    columns = max(1, COMPARED_AT_ONCE // examples)
    sums = np.concatenate(
        [
            (rankdata(scores[:, first : first + columns], axis=0) * gold[:, first : first + columns]).sum(0)
            for first in range(0, scores.shape[1], columns)
        ]
    )
    areas = (sums - positive * (positive + 1) / 2) / np.maximum(positive * others, 1)
    return [float(area) if both else None for area, both in zip(areas, (positive > 0) & (others > 0), strict=True)]


def _class_auroc(labels: Integers, probabilities: Floats) -> float | None:
    if probabilities.shape[1] == 2:
        return _aurocs((labels == 1)[:, None], probabilities[:, 1:])[0]
    return mean_of_defined(_aurocs(labels[:, None] == np.arange(probabilities.shape[1]), probabilities))
