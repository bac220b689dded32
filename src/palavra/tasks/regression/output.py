"""Output of regression: the layer, the squared error, and predictions in the units of the targets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.losses import Loss
from palavra.metrics.classification import check_finite
from palavra.metrics.resampled import Doubles
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.model.task_outputs.build import rescaled
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.labels import label_map
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import PLAIN, DecodeOptions, ModelOutputs, Output, Prediction, join_windows
from palavra.tasks.text_examples import TextExample


@dataclass(frozen=True, kw_only=True)
class TargetOutput(Output[TextExample, Doubles]):
    """`names` of the targets, `mean` and `deviation` (T,) of each in training.

    The layer learns standardized targets, so that scale and offset do not matter and all targets have equal weight. In
    a saved model, mean and deviation are folded into the layer, which then predicts targets in their own units
    (`in_units`), also in `transformers`.
    """

    spec: TaskSpec
    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    in_units: bool
    form: ClassVar[Form] = "SequenceClassification"
    level: ClassVar[Level] = "sequence"

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.mean) == len(self.deviation) or not min(self.deviation) > 0:
            raise ValueError(f"{len(self.names)} targets with means {self.mean} and deviations {self.deviation}")

    def build(self, width: int) -> nn.Module:
        return nn.Linear(width, len(self.names))

    def fold_scaling(self, layer: nn.Module) -> tuple[Self, nn.Module]:
        """Fold mean and deviation into the layer."""
        if self.in_units:
            return self, layer
        return replace(self, in_units=True), rescaled(layer, torch.tensor(self.deviation), torch.tensor(self.mean))

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Return the squared error of standardized targets, mean over the targets, summed over the examples."""
        difference = layer(x).float() - batch.labels
        return Loss(difference.square().mean(1).sum(), batch.labelled)

    def decode(
        self, examples: Sequence[TextExample], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> Doubles:  # fmt: skip
        """Return values (E, T) in the targets' own units, joined over the windows of an example."""
        found = join_windows(outputs[0], encoded, options.windows or self.spec.windows).astype(np.float64)
        check_finite(found, "examples")
        return found if self.in_units else found * np.array(self.deviation) + np.array(self.mean)

    def predictions(self, examples: Sequence[TextExample], decoded: Doubles) -> list[Prediction]:
        """Return `value`: a number, or numbers by target name."""
        del examples
        if len(self.names) == 1:
            return [{"value": row[0]} for row in decoded.tolist()]
        return [{"value": dict(zip(self.names, row, strict=True))} for row in decoded.tolist()]

    def config_values(self) -> dict[str, Any]:
        return {**label_map(self.names), "problem_type": "regression"}
