"""Name, meaning, direction and range of every score."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The meaning of a score. Lower is better for an `error`. Values lie between `low` and `high`."""

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
    "accuracy": Metric("Rate of correct predictions. It is high for a model that always predicts a frequent class."),
    "accuracy_at_5": Metric("Rate of examples with the gold class among the five most probable."),
    "macro_f1": Metric("Mean F1 of the classes that occur or were predicted (of label sets: of all labels). Rare "
                       "classes weigh as much as frequent ones, so a few examples can change it much."),
    "micro_f1": Metric("F1 of all decisions pooled. Frequent labels dominate it."),
    "weighted_f1": Metric("Mean F1 weighted by support. It hides rare classes and may lie outside precision and "
                          "recall."),
    "samples_f1": Metric("Mean F1 of the examples' label sets. An example without labels counts 0, even if predicted "
                         "so."),
    "subset_accuracy": Metric("Rate of label sets predicted exactly."),
    "matthews": _correlation("Correlation of labels and predictions, 0 for chance or a constant (Gorodkin 2004)."),
    "auroc": Metric("Probability that an example of the class scores higher than another: of class 1 of two, else the "
                    "mean of each class against the rest. It depends on order only and is optimistic for rare "
                    "positives. Undefined if a class is absent."),
    "calibration_error": Metric("Expected calibration error: the distance of confidence and accuracy (Guo et al. "
                                "2017, equation 3).", error=True),
    "loss": _error("Mean loss: cross-entropy in nats, with probabilities clipped at their dtype's epsilon; for "
                   "regression the squared error in units of the training deviation."),
    "coverage": Metric("Rate of examples that get a label, and no abstention."),
    "selective_accuracy": Metric("accuracy of the examples that get a label. It rises as coverage falls."),
    "out_of_scope_auroc": Metric("Probability that an example out of scope has a lower highest probability than one "
                                 "with a label."),
    "out_of_scope_abstained": Metric("Rate of abstentions on the examples out of scope."),
    # Spans and answers
    "precision": Metric("Rate of predicted spans that are gold, with exactly their boundaries and label."),
    "recall": Metric("Rate of gold spans that were predicted, with exactly their boundaries and label."),
    "f1": Metric("Harmonic mean of precision and recall of all spans; of answers, the mean word overlap with the "
                 "nearest gold answer. A span that lacks a word counts as one false and one missing."),
    "token_accuracy": Metric("Rate of words with the gold tag. It is high because most words are outside of spans."),
    "exact": Metric("Rate of answers that equal a gold answer."),
    "has_answer_f1": Metric("f1 of the questions with an answer in the text."),
    "has_answer_exact": Metric("exact of the questions with an answer in the text."),
    "no_answer_f1": Metric("Rate of abstentions on the questions without an answer."),
    "no_answer_exact": Metric("Rate of abstentions on the questions without an answer."),
    "best_f1": Metric("f1 with the best no-answer threshold, chosen with the gold answers: an upper bound."),
    "best_exact": Metric("exact with the best no-answer threshold, chosen with the gold answers: an upper bound."),
    # Regression; with several targets, the mean of each score over them
    "pearson": _correlation("Correlation of values, independent of offset and scale. Undefined for constants."),
    "spearman": _correlation("Correlation of ranks. Undefined for constants."),
    "mse": _error("Mean squared error, in squared units of the target. One large error dominates it."),
    "rmse": _error("Root of the mean squared error, in units of the target."),
    "mae": _error("Mean absolute error, in units of the target."),
    "r2": Metric("Explained fraction of the target's variance: negative if worse than the mean. Undefined for "
                 "constant targets.", low=-math.inf),
}  # fmt: skip


def is_error(metric: str) -> bool:
    """Return whether a lower value of a metric is better."""
    return METRICS[metric].error


def range_of(metric: str) -> tuple[float, float]:
    """Return the lowest and the highest possible value of a metric."""
    return METRICS[metric].low, METRICS[metric].high
