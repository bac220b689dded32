"""Score class probabilities, for one label per example and for label sets, and list the most confident errors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from palavra.metrics import classification as metrics
from palavra.metrics.resampled import BoolArray, Floats, Statistic, means, point
from palavra.metrics.scores import Scores
from palavra.metrics.top_k import LISTED, MANY_CLASSES, Ranking
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.labels import Labels
from palavra.tasks.sequence_classification.output import THRESHOLD, LabelSets, chosen_labels
from palavra.tasks.task import DecodedIn, Scorer, surest_errors
from palavra.tasks.text_examples import TextExample, excerpt

# What log and report say of an output without probabilities.
UNCALIBRATED = (
    "scores of output negative-sampling rank the classes, but are no probabilities, so there is no calibration"
)


@dataclass(frozen=True, kw_only=True)
class LabelScorer(Scorer[TextExample, DecodedIn]):
    """Score texts with `labels`."""

    labels: Labels

    def undefined(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Return `auroc` if no example or every example has some label."""
        counts = Counter(label for example in examples for label in example.label)
        return ("auroc",) if any(counts[label] in (0, len(examples)) for label in self.labels) else ()


@dataclass(frozen=True, kw_only=True)
class SingleLabelScorer(LabelScorer[Ranking]):
    """Score one label per example; `rejects`: some predictions abstain; `out_of_scope`: some examples may have none of
    the labels. Such examples count only for how well they are told from the others. `calibrated`: whether the model's
    outputs are probabilities, whose calibration can be measured."""

    calibrated: bool = True
    rejects: bool = False
    out_of_scope: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the scores; `accuracy_at_5` for more than five classes, `auroc` for few."""
        return (
            "accuracy", *["accuracy_at_5"] * (len(self.labels) > LISTED), "macro_f1", "weighted_f1", "matthews",
            *["auroc"] * (len(self.labels) <= MANY_CLASSES), "loss", *["calibration_error"] * self.calibrated,
            *["coverage", "selective_accuracy"] * self.rejects, *["out_of_scope_auroc"] * self.out_of_scope,
            *["out_of_scope_abstained"] * (self.rejects and self.out_of_scope),
        )  # fmt: skip

    def undefined(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Return `auroc` as for label sets, and the scores of examples out of scope if there are none."""
        outside = any(example.label[0] not in self.labels for example in examples)
        named = tuple(name for name in self.metrics if name.startswith("out_of_scope"))
        return (*super().undefined(examples), *(() if outside else named))

    def score(self, examples: Sequence[TextExample], encoded: EncodedExamples, decoded: Ranking) -> Scores:
        """Return the scores, with tables of classes, and a confusion matrix for few classes."""
        labels = encoded.labels[encoded.first_sequences].astype(np.int64)
        inside = np.flatnonzero(labels >= 0)
        others = self._out_of_scope(labels < 0, decoded)
        gold, decoded = labels[inside], Ranking._make(part[inside] for part in decoded)
        chosen, confidence, answered = decoded.chosen, decoded.confidence, ~decoded.abstained
        statistics: list[Statistic] = [
            metrics.class_statistics(gold, chosen, hit=decoded.hit),
            means({"loss": decoded.loss, "accuracy_at_5": decoded.among}),
            means({"coverage": answered}),
            means({"selective_accuracy": decoded.hit * answered}, answered),
        ]
        if len(self.labels) <= MANY_CLASSES:
            statistics.append(metrics.class_auroc(gold, decoded.every))

        def about(i: int) -> dict[str, Any]:
            return {**excerpt(examples[inside[i]]), "label": self.labels[gold[i]], "predicted": self.labels[chosen[i]]}

        errors = surest_errors(chosen != gold, confidence, about)
        details: dict[str, Any] = {**metrics.class_tables(gold, chosen, self.labels), "errors": errors}
        calibrated = (confidence, decoded.hit) if self.calibrated else None
        if not self.calibrated:
            details["errors"] = [{"score": error.pop("probability"), **error} for error in errors]
            details["warnings"] = [UNCALIBRATED]
        return Scores.of(
            self.metrics, statistics, len(inside), calibrated=calibrated, others=others, details=details
        )  # fmt: skip

    def _out_of_scope(self, outside: BoolArray, decoded: Ranking) -> dict[str, float]:
        """Return how well the highest probability tells the examples `outside` (E,) from the others."""
        if not outside.any():
            return {}
        auroc = metrics.Auroc(outside[:, None], -decoded.confidence[:, None])
        return {
            "out_of_scope_auroc": point(auroc, len(outside))["auroc"],
            "out_of_scope_abstained": float(decoded.abstained[outside].mean()),
        }


class MultiLabelScorer(LabelScorer[LabelSets]):
    """Score label sets, each label decided by its own probability."""

    metrics: ClassVar[tuple[str, ...]] = (
        "micro_f1", "macro_f1", "weighted_f1", "samples_f1", "subset_accuracy", "auroc", "loss", "calibration_error"
    )  # fmt: skip

    def score(self, examples: Sequence[TextExample], encoded: EncodedExamples, decoded: LabelSets) -> Scores:
        """Return the scores; calibration covers all decisions, for a label or against it."""
        gold = encoded.labels[encoded.first_sequences].astype(np.bool_)
        probabilities = decoded.probabilities
        chosen = probabilities >= THRESHOLD
        auroc = metrics.Auroc(gold, probabilities)
        losses = metrics.binary_cross_entropies(gold, probabilities).mean(1, dtype=np.float64)
        confidence, correct = np.where(chosen, probabilities, 1 - probabilities), chosen == gold
        table = metrics.label_set_table(gold, chosen, self.labels, auroc)
        errors = self._errors(examples, probabilities, np.where(correct, 0, confidence))
        return Scores.of(
            self.metrics, [metrics.label_set_statistics(gold, chosen), means({"loss": losses}), auroc], len(examples),
            calibrated=(confidence.reshape(-1), correct.reshape(-1)), details={"per_class": table, "errors": errors},
        )  # fmt: skip

    def _errors(self, examples: Sequence[TextExample], probabilities: Floats, sure: Floats) -> list[dict[str, Any]]:
        """Return the label sets with the most confident wrong decisions; `sure` (E, K) is 0 for correct ones."""
        surest, labels = sure.argmax(1), self.labels

        def about(i: int) -> dict[str, Any]:
            return {
                **excerpt(examples[i]),
                "label": ", ".join(examples[i].label) or "none",
                "predicted": ", ".join(labels[k] for k in chosen_labels(probabilities[i])) or "none",
                "decision": f"{'' if probabilities[i, surest[i]] >= THRESHOLD else 'not '}{labels[surest[i]]}",
            }

        return surest_errors(sure.max(1) > 0, sure.max(1), about)
