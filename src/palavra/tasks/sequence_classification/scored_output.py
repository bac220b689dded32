"""Output of sequence classification with a score for each class that is no probability (negative sampling)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palavra.metrics.classification import binary_cross_entropies, cross_entropies
from palavra.metrics.resampled import Integers
from palavra.metrics.top_k import Ranking
from palavra.tasks.class_output import heaviest
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.sequence_classification.output import SingleLabelOutput, TextLabelOutput
from palavra.tasks.task import DecodeOptions, ModelOutputs, Prediction
from palavra.tasks.text_examples import TextExample


@dataclass(frozen=True, kw_only=True)
class ScoredClassOutput(SingleLabelOutput):
    """A score between 0 and 1 for each class; the scores of an example do not sum to 1. `rejection` is the score of the
    best class below which to abstain."""

    @property
    def negatives(self) -> int:
        """Return the wrong classes of a training example."""
        return min(self.spec.output.negatives, len(self.labels) - 1)

    def chance_loss(self, encoded: EncodedExamples) -> float:
        """Return the loss where every score is one half, times the weight of the rarest class if they are weighted."""
        del encoded
        return (
            (1 + self.negatives) * math.log(2) * (heaviest(self.counts) if self.spec.class_weights == "balanced" else 1)
        )

    def of_windows(
        self, encoded: EncodedExamples, outputs: ModelOutputs, options: DecodeOptions
    ) -> npt.NDArray[np.floating]:
        """Return the score of each label in each window (S, K)."""
        del encoded, options
        found: npt.NDArray[np.floating] = np.exp(outputs[0].astype(np.float64))
        return found

    def joined(
        self, values: npt.NDArray[np.floating], encoded: EncodedExamples, options: DecodeOptions
    ) -> npt.NDArray[np.float32]:
        """Join `of_windows` by example: (E, K), not scaled to any sum."""
        return TextLabelOutput.joined(self, values, encoded, options)

    def losses(self, probabilities: npt.NDArray[np.float32], labels: Integers) -> npt.NDArray[np.floating]:
        """Return the expected loss of training, from scores (E, K)."""
        gold = np.arange(len(labels)), labels
        each = binary_cross_entropies(np.zeros(probabilities.shape, dtype=np.bool_), probabilities)
        wrong = (each.sum(1, dtype=np.float64) - each[gold]) * self.negatives / (len(self.labels) - 1)
        found: npt.NDArray[np.floating] = cross_entropies(probabilities[gold]) + wrong
        return found

    def predictions(self, examples: Sequence[TextExample], decoded: Ranking) -> list[Prediction]:
        """Return `label`, its `score`, and the `best` labels with theirs; `abstained` where it is rejected."""
        found = super().predictions(examples, decoded)
        for one in found:
            one["score"] = one.pop("probability")
            one["best"] = [{"label": each["label"], "score": each["probability"]} for each in one["best"]]
        return found
