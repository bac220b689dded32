"""Output of multiple choice: a layer that scores each choice, the softmax over choices, and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.losses import Loss
from palavra.metrics import calibration
from palavra.metrics.classification import check_finite
from palavra.metrics.resampled import BoolArray, Doubles
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.grouped_softmax import group_log_softmax
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.task import PLAIN, DecodeOptions, ModelOutputs, Prediction
from palavra.tasks.temperature_scaling import Tempered


@dataclass(frozen=True)
class DecodedChoices:
    """Log-probabilities (S,) of all choices, and the offsets of each example's choices, `bounds` (E + 1,)."""

    log_p: Doubles
    bounds: Int64Array

    @property
    def probabilities(self) -> list[Doubles]:
        """Return the probabilities of each example's choices."""
        return np.split(np.exp(self.log_p), self.bounds[1:-1])


@dataclass(frozen=True, kw_only=True)
class ChoiceOutput(Tempered[ChoiceExample, DecodedChoices]):
    """Score each choice, a sequence with the text before it, with a softmax over the choices of each example."""

    form: ClassVar[Form] = "MultipleChoice"
    level: ClassVar[Level] = "sequence"

    def build(self, width: int) -> nn.Module:
        return nn.Linear(width, 1)

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Return the cross-entropy over the consecutive choices of each example, summed over the examples."""
        return Loss(choice_losses(layer(x)[:, 0], batch.labels).sum(), batch.labelled)

    def decode(
        self, examples: Sequence[ChoiceExample], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> DecodedChoices:  # fmt: skip
        """Return the log-probability of each choice."""
        check_finite(outputs[0], "choices")
        scores = self.divided(outputs[0], encoded.example, options)[:, 0].astype(np.float64)
        found = group_log_softmax(torch.from_numpy(scores), torch.from_numpy(encoded.example), len(examples))
        return DecodedChoices(found.numpy(), encoded.units)

    def predictions(self, examples: Sequence[ChoiceExample], decoded: DecodedChoices) -> list[Prediction]:
        """Return `label`, the number of the choice, the text of the `choice`, and probabilities."""
        found = []
        for example, each in zip(examples, decoded.probabilities if examples else (), strict=True):
            label, p = int(each.argmax()), each.tolist()
            chosen = {"label": label, "choice": example.choices[label], "probability": p[label]}
            found.append({**chosen, "probabilities": p})
        return found

    def best_temperature(self, encoded: EncodedExamples, outputs: ModelOutputs, chosen: BoolArray) -> float:
        """Return the temperature with the lowest loss on the `chosen` examples (E,)."""
        scores = torch.from_numpy(outputs[0][chosen[encoded.example], 0].astype(np.float64))
        labels = torch.from_numpy(encoded.labels[chosen])
        return calibration.best_temperature(
            lambda at: float(choice_losses(scores / at, labels).mean()), examples=len(labels)
        )


def choice_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Return -log softmax(scores of an example's choices)[gold choice], (E,) in nats. scores (S,) of all choices, those
    of each example together; labels (E, 2) from `ChoiceEncoder.encode`."""
    gold, sizes = labels.unbind(1)
    # The known output size avoids waiting for a GPU.
    example = torch.arange(len(labels), device=labels.device).repeat_interleave(sizes, output_size=len(scores))
    first = sizes.cumsum(0) - sizes
    return -group_log_softmax(scores, example, len(labels)).index_select(0, first + gold)
