"""Output of sequence classification, with one label or a set of labels per text: layer, loss, predictions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.losses import Loss
from palavra.metrics import calibration
from palavra.metrics.classification import binary_cross_entropies, check_finite, cross_entropies
from palavra.metrics.resampled import BoolArray, Integers
from palavra.metrics.top_k import LISTED, Ranking, best_classes
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.class_output import ClassOutput, LabelOutput
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.labels import label_map
from palavra.tasks.task import PLAIN, Decoded, DecodeOptions, ModelOutputs, Prediction, join_windows, marked
from palavra.tasks.text_examples import TextExample

# Labels with at least this probability are predicted.
THRESHOLD = 0.5
# Bound of the weight of a rare class, which would otherwise amplify noise.
LARGEST_RATIO = 100.0


@dataclass(frozen=True, kw_only=True)
class TextLabelOutput(LabelOutput[TextExample, Decoded]):
    """Labels of whole texts. `examples`: number of training examples."""

    examples: int
    form: ClassVar[Form] = "SequenceClassification"
    level: ClassVar[Level] = "sequence"
    problem: ClassVar[str]

    @property
    def outputs_per_sequence(self) -> int:
        """Return the number of labels."""
        return len(self.labels)

    def config_values(self) -> dict[str, Any]:
        return {**label_map(self.labels), "problem_type": self.problem}

    @abstractmethod
    def of_windows(
        self, encoded: EncodedExamples, outputs: ModelOutputs, options: DecodeOptions
    ) -> npt.NDArray[np.floating]:
        """Return the probability of each label in each window (S, K)."""

    def joined(
        self, values: npt.NDArray[np.floating], encoded: EncodedExamples, options: DecodeOptions
    ) -> npt.NDArray[np.float32]:
        """Join `of_windows` by example: (E, K). Raises PalavraError for a value that is not finite."""
        found = join_windows(values.astype(np.float32), encoded, options.windows or self.spec.windows)
        check_finite(found, "examples")
        return found

    def probabilities(
        self, encoded: EncodedExamples, outputs: ModelOutputs, options: DecodeOptions = PLAIN
    ) -> npt.NDArray[np.float32]:
        """Return the probability of each label (E, K), joined over the windows of an example."""
        return self.joined(self.of_windows(encoded, outputs, options), encoded, options)

    def named(self, ids: list[int], probabilities: list[float]) -> list[dict[str, Any]]:
        """Return labels by number with their probabilities, for a prediction."""
        return [{"label": self.labels[i], "probability": p} for i, p in zip(ids, probabilities, strict=True)]


@dataclass(frozen=True, kw_only=True)
class SingleLabelOutput(TextLabelOutput[Ranking], ClassOutput[TextExample, Ranking]):
    """A softmax over the classes. `rejection`: the probability of the best class below which to abstain."""

    rejection: float | None = None
    problem = "single_label_classification"

    def of_windows(
        self, encoded: EncodedExamples, outputs: ModelOutputs, options: DecodeOptions
    ) -> npt.NDArray[np.floating]:
        found: npt.NDArray[np.floating] = softmax(self.divided(outputs[0], encoded.example, options), axis=1)
        return found

    def joined(
        self, values: npt.NDArray[np.floating], encoded: EncodedExamples, options: DecodeOptions
    ) -> npt.NDArray[np.float32]:
        found = super().joined(values, encoded, options)
        # The maxima over windows do not sum to 1.
        return found / found.sum(1, keepdims=True) if (options.windows or self.spec.windows) == "max" else found

    def decode(
        self, examples: Sequence[TextExample], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> Ranking:  # fmt: skip
        """Return the most probable classes, and the probabilities of the gold ones if labelled."""
        del examples
        labels = encoded.labels[encoded.first_sequences].astype(np.int64) if encoded.label_counts.any() else None
        if labels is not None:
            # Examples out of scope have no class; the scorer leaves them out.
            labels = np.maximum(labels, 0)
        values = self.of_windows(encoded, outputs, options)
        joined = self.joined(values, encoded, options)
        found = Ranking.of(joined, labels, options.top_k or LISTED)
        if labels is not None:
            found = found._replace(loss=self.losses(joined, labels))
        differ, limit = windows_differ(values.argmax(1)[:, None], encoded), self.rejection
        return found._replace(differ=differ, abstained=found.confidence < (0.0 if limit is None else limit))

    def losses(self, probabilities: npt.NDArray[np.float32], labels: Integers) -> npt.NDArray[np.floating]:
        """Return the loss of each example (E,) from the joined probabilities (E, K) and the gold classes (E,)."""
        return cross_entropies(probabilities[np.arange(len(labels)), labels])

    def predictions(self, examples: Sequence[TextExample], decoded: Ranking) -> list[Prediction]:
        """Return `label`, its `probability`, and the `best` labels with theirs; `abstained` where it is rejected."""
        del examples
        rows = zip(decoded.best.tolist(), decoded.probabilities.tolist(), strict=True)
        found = [
            {"label": self.labels[ids[0]], "probability": values[0], "best": self.named(ids, values)}
            for ids, values in rows
        ]
        return marked(marked(found, "abstained", decoded.abstained), "windows_differ", decoded.differ)

    def best_temperature(self, encoded: EncodedExamples, outputs: ModelOutputs, chosen: BoolArray) -> float:
        """The temperature under which the labels of the `chosen` examples (E,) are most probable."""
        labels = encoded.labels[encoded.first_sequences][chosen].astype(np.int64)
        if encoded.sequences == encoded.examples:
            return calibration.fit_temperature(outputs[0][chosen], labels)

        def loss(temperature: float) -> float:
            found = self.probabilities(encoded, outputs, DecodeOptions(temperature=temperature))[chosen]
            return float(cross_entropies(found[np.arange(len(labels)), labels]).mean(dtype=np.float64))

        return calibration.best_temperature(loss, examples=len(labels))


class LabelSets(NamedTuple):
    """Probabilities (E, K) of each label, the numbers of the most probable ones (E, L), best first, and whether the
    windows of a text have different labels, `differ` (E,)."""

    probabilities: npt.NDArray[np.float32]
    best: npt.NDArray[np.int64]
    differ: BoolArray


class MultiLabelOutput(TextLabelOutput[LabelSets]):
    """A sigmoid for each of the `labels`; `counts` of the training `examples` had each."""

    problem = "multi_label_classification"

    def build(self, width: int) -> nn.Module:
        return nn.Linear(width, len(self.labels))

    @cached_property
    def _ratios(self) -> Tensor:
        """Return the clipped ratio of examples without each label to examples with it (K,)."""
        counts = torch.tensor(self.counts, dtype=torch.float32).clamp(min=1)
        return ((self.examples - counts) / counts).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Return the mean binary cross-entropy over the labels, summed over the examples."""
        present, smoothing = batch.labels, self.spec.label_smoothing
        weights = None
        if self.spec.class_weights == "balanced":
            # Weight each decision by its unsmoothed label: see `ClassifierOutput.total_loss`.
            weights = torch.where(present > 0, self._ratios.to(x.device, non_blocking=True), 1)
        targets = present * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(layer(x).float(), targets, weight=weights, reduction="sum")
        return Loss(each / len(self.labels), batch.labelled)

    def chance_loss(self, encoded: EncodedExamples) -> float:
        return super().chance_loss(encoded) * (
            float(self._ratios.max()) if self.spec.class_weights == "balanced" else 1
        )

    def of_windows(
        self, encoded: EncodedExamples, outputs: ModelOutputs, options: DecodeOptions
    ) -> npt.NDArray[np.floating]:
        logits = self.divided(outputs[0], encoded.example, options)
        found: npt.NDArray[np.floating] = expit(logits.astype(np.float64))
        return found

    def decode(
        self, examples: Sequence[TextExample], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> LabelSets:  # fmt: skip
        """Return the probabilities of the labels, and the most probable ones."""
        del examples
        values = self.of_windows(encoded, outputs, options)
        found = self.joined(values, encoded, options)
        best = best_classes(found, min(options.top_k or LISTED, len(self.labels)))
        return LabelSets(found, best, windows_differ(values >= THRESHOLD, encoded))

    def predictions(self, examples: Sequence[TextExample], decoded: LabelSets) -> list[Prediction]:
        """Return `label`, a list, the `probability` of each, and the `best` labels with theirs, predicted or not."""
        del examples
        found = []
        for row, best in zip(decoded.probabilities, decoded.best, strict=True):
            chosen = chosen_labels(row)
            found.append(
                {
                    "label": [self.labels[i] for i in chosen],
                    "probability": row[chosen].tolist(),
                    "best": self.named(best.tolist(), row[best].tolist()),
                }
            )
        return marked(found, "windows_differ", decoded.differ)

    def best_temperature(self, encoded: EncodedExamples, outputs: ModelOutputs, chosen: BoolArray) -> float:
        """The temperature under which the labels of the `chosen` examples (E,) are most probable."""
        labels = encoded.labels[encoded.first_sequences][chosen].astype(np.bool_)
        if encoded.sequences == encoded.examples:
            return calibration.fit_label_temperature(outputs[0][chosen], labels)

        def loss(temperature: float) -> float:
            found = self.probabilities(encoded, outputs, DecodeOptions(temperature=temperature))[chosen]
            return float(binary_cross_entropies(labels, found).mean(dtype=np.float64))

        return calibration.best_temperature(loss, examples=len(labels))


def chosen_labels(row: npt.NDArray[np.float32]) -> list[int]:
    """Return the predicted labels of an example from probabilities (K,), the most probable first."""
    return sorted(np.flatnonzero(row >= THRESHOLD).tolist(), key=lambda i: -row[i])


def windows_differ(decisions: npt.NDArray[np.generic], encoded: EncodedExamples) -> BoolArray:
    """Return whether the windows of an example (E,) differ in their decisions (S, n)."""
    odd = (decisions != decisions[encoded.first_sequences[encoded.example]]).any(1)
    found: BoolArray = np.bincount(encoded.example[odd], minlength=encoded.examples) > 0
    return found
