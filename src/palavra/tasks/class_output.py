"""Outputs with labels, and the output that assigns one class to each row, a text or a word."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.losses import Loss
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import ClassifierOutput
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.labels import Labels, label_map
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Decoded, ExampleIn
from palavra.tasks.temperature_scaling import Tempered


@dataclass(frozen=True, kw_only=True)
class LabelOutput(Tempered[ExampleIn, Decoded]):
    """An output with `labels`, the classes in order, and `counts`, their training frequencies."""

    spec: TaskSpec
    labels: Labels
    counts: tuple[int, ...]

    def config_values(self) -> dict[str, Any]:
        return label_map(self.labels)


class ClassOutput(LabelOutput[ExampleIn, Decoded]):
    """A softmax over the classes of each row."""

    def build(self, width: int) -> nn.Module:
        return build_output(self.spec.output, width, np.array(self.counts), self.labels)

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Return the cross-entropy of the rows."""
        assert isinstance(layer, ClassifierOutput)
        weights = layer.inverse_frequencies if self.spec.class_weights == "balanced" else None
        return Loss(layer.total_loss(x, batch.labels, weights, self.spec.label_smoothing), batch.labelled)

    def chance_loss(self, encoded: EncodedExamples) -> float:
        """Return the logarithm of the number of classes, times the weight of the rarest if classes are weighted."""
        return super().chance_loss(encoded) * (heaviest(self.counts) if self.spec.class_weights == "balanced" else 1)

    def infer(self, layer: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return log-probabilities (R, K) of the classes, at temperature 1."""
        assert isinstance(layer, ClassifierOutput)
        return (layer.log_probabilities(x).float(),)


def heaviest(counts: Iterable[int]) -> float:
    """Return the weight of the rarest class if all classes have the same total weight and the mean over rows is 1."""
    present = [count for count in counts if count]
    return sum(present) / (len(present) * min(present))
