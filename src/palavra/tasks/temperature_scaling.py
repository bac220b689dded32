"""Tasks whose probabilities can be brought to a temperature that is fitted on validation examples."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from palavra.metrics.calibration import FEWEST_IN_HALF, halves, how_fitted
from palavra.model.task_outputs.build import is_linear, rescaled
from palavra.tasks.features import EncodedExamples
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Example, ModelOutputs, Scores, Task

Doubles = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Tempered(Task[Example]):
    """`temperature` is what logits are divided by (Guo et al. 2017): 1 unless one was fitted, and where a saved output
    layer has the division in its weights."""

    def __init__(self, spec: TaskSpec, temperature: float = 1.0):
        super().__init__(spec)
        if not temperature > 0:
            raise ValueError(f"a temperature of {temperature}")
        self.temperature = temperature

    @property
    def fits_on_all(self) -> bool:
        """Where a temperature is asked for."""
        return self.spec.temperature

    @abstractmethod
    def at(self, temperature: float) -> Self:
        """The task at another temperature."""

    @abstractmethod
    def divided(self, features: EncodedExamples, inferred: ModelOutputs, temperatures: Doubles) -> ModelOutputs:
        """What the output layer says, its logits divided by the temperature of each example (E,)."""

    @abstractmethod
    def best_temperature(self, features: EncodedExamples, inferred: ModelOutputs, chosen: BoolArray) -> float:
        """The temperature under which the labels of the `chosen` examples (E,), at least one, are most probable, as
        `score` has their probabilities."""

    def tempered(self, features: EncodedExamples, inferred: ModelOutputs) -> ModelOutputs:
        """What the output layer says, at the task's own temperature."""
        if self.temperature == 1:
            return inferred
        return self.divided(features, inferred, np.full(features.examples, self.temperature))

    def calibrate(
        self, examples: Sequence[Example], features: EncodedExamples, inferred: ModelOutputs
    ) -> tuple[Self, Scores]:
        """The task with the temperature that fits these examples best, where that was asked for, and its scores, each
        half of the examples at the temperature that was fitted on the other."""
        if not self.spec.temperature:
            return self, self.score(examples, features, inferred)
        temperature = self.best_temperature(features, inferred, np.ones(len(examples), dtype=bool))
        second = halves(["\0".join(self.stratification_keys(example)) for example in examples])
        temperatures, own = np.full(len(examples), temperature), None
        if second.sum() >= FEWEST_IN_HALF:
            own = [self.best_temperature(features, inferred, half) for half in (~second, second)]
            temperatures = np.where(second, *own)
        scores = self.at(1.0).score(examples, features, self.divided(features, inferred, temperatures))
        how = how_fitted("temperature", temperature, own)
        return self.at(temperature), replace(scores, details={**scores.details, "fitted": how})

    def fold_scaling(self, output: nn.Module) -> tuple[Self, nn.Module]:
        """The temperature becomes part of a linear layer; others leave it to the task."""
        if self.temperature == 1 or not is_linear(output):
            return self, output
        return self.at(1.0), rescaled(output, torch.tensor(1 / self.temperature), torch.tensor(0.0))
