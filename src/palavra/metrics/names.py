"""What each score is called, what it means, and whether less of it is better: the one table of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What a score means. Less of an `error` is better. Values lie between `low` and `high`."""

    meaning: str
    error: bool = False
    low: float = 0.0
    high: float = 1.0


def _error(meaning: str) -> Metric:
    return Metric(meaning, error=True, high=math.inf)


def _correlation(meaning: str) -> Metric:
    return Metric(meaning, low=-1.0)


METRICS: Mapping[str, Metric] = {
    # Classes, label sets and words
    "accuracy": Metric("Rate of right answers. It flatters a model that always gives the most frequent class."),
    "accuracy_at_5": Metric("Rate of examples with the right class among the five most probable."),
    "macro_f1": Metric("Mean F1 of the classes that occur or were predicted (of label sets: of all labels). Rare "
                       "classes weigh as much as frequent ones, so a few examples can change it much."),
    "micro_f1": Metric("F1 of all decisions together. Frequent labels dominate it."),
    "weighted_f1": Metric("Mean F1 by support. It hides rare classes and may lie outside precision and recall."),
    "samples_f1": Metric("Mean F1 of the examples' label sets. An example without labels counts 0, even if rightly "
                         "left without."),
    "subset_accuracy": Metric("Rate of label sets that are right as a whole."),
    "matthews": _correlation("Correlation of labels and predictions, 0 for chance (Gorodkin 2004), and 0 where one of "
                             "the two is constant."),
    "auroc": Metric("Probability that an example of the class scores higher than another: of class 1 of two, else the "
                    "mean of each class against the rest. It depends on order only and flatters where positives are "
                    "rare. Not defined where a class is absent."),
    "calibration_error": Metric("Expected calibration error: the distance of confidence and accuracy (Guo et al. "
                                "2017, equation 3).", error=True),
    "loss": _error("Mean loss: cross-entropy in nats, with probabilities clipped at their dtype's epsilon; of numbers, "
                   "the squared error in units of their training deviation."),
    # Spans and answers
    "precision": Metric("Rate of the spans found that are gold, with exactly their boundaries and label."),
    "recall": Metric("Rate of the gold spans that were found, with exactly their boundaries and label."),
    "f1": Metric("Harmonic mean of precision and recall of all spans; of answers, the mean overlap in words with the "
                 "nearest gold answer. A span that misses a word counts as one false and one missing."),
    "token_accuracy": Metric("Rate of words with the right tag. It flatters, for most words are outside of spans."),
    "exact": Metric("Rate of answers that equal a gold answer."),
    "has_answer_f1": Metric("f1 of the questions with an answer in the text."),
    "has_answer_exact": Metric("exact of the questions with an answer in the text."),
    "no_answer_f1": Metric("Rate of the questions without an answer to which none was given."),
    "no_answer_exact": Metric("Rate of the questions without an answer to which none was given."),
    "best_f1": Metric("f1 with the best threshold of no answer, chosen with the gold answers at hand: an upper bound."),
    "best_exact": Metric("exact with the best threshold of no answer, chosen with the gold answers: an upper bound."),
    # Numbers; of several targets the mean of each score over them
    "pearson": _correlation("Correlation of values, blind to offset and scale. Not defined for constants."),
    "spearman": _correlation("Correlation of ranks. Not defined for constants."),
    "mse": _error("Mean squared error, in squared units of the target. One large error dominates it."),
    "rmse": _error("Root of the mean squared error, in units of the target."),
    "mae": _error("Mean absolute error, in units of the target."),
    "r2": Metric("Explained fraction of the target's variance: negative where the mean would do better. Not defined "
                 "for constant targets.", low=-math.inf),
}  # fmt: skip


def is_error(metric: str) -> bool:
    """Whether less of a metric is better."""
    return METRICS[metric].error


def range_of(metric: str) -> tuple[float, float]:
    """The lowest and the highest value that a metric can have."""
    return METRICS[metric].low, METRICS[metric].high
