"""Temperature scaling: one temperature, fitted on validation examples (Guo et al. 2017), folded into saved layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from palavra.metrics.calibration import FEWEST_IN_HALF, at_a_bound, cross_fit, halves, not_fitted
from palavra.metrics.resampled import BoolArray
from palavra.model.task_outputs.build import is_linear, rescaled
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.task import (
    Calibrate,
    Calibrated,
    Decoded,
    DecodeOptions,
    ExampleIn,
    ModelOutputs,
    Output,
    Reader,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tempered(Output[ExampleIn, Decoded]):
    """Base of outputs that divide logits by a temperature: 1 unless one was fitted, and 1 if a saved layer includes the
    division in its weights."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"a temperature of {self.temperature}")

    def divided(self, logits: npt.NDArray[np.float32], example: Int64Array, options: DecodeOptions) -> Any:
        """Divide logits (R, K) by the temperature of each row's `example` (R,)."""
        temperature = np.asarray(self.temperature if options.temperature is None else options.temperature)
        if temperature.ndim:
            temperature = temperature[example][:, None]
        return logits if (temperature == 1).all() else logits / temperature.astype(np.float32)

    def fold_scaling(self, layer: nn.Module) -> tuple[Self, nn.Module]:
        """Fold the temperature into a linear layer; for other layers the output keeps it."""
        if self.temperature == 1 or not is_linear(layer):
            return self, layer
        return replace(self, temperature=1.0), rescaled(layer, torch.tensor(1 / self.temperature), torch.tensor(0.0))


def temperature_fit(reader: Reader[Any]) -> Calibrate | None:
    """Return `Task.calibrate` of a task whose specification asks for a temperature; its halves are stratified."""
    if not reader.spec.temperature:
        return None

    def calibrate(output: Any, examples: Sequence[Any], encoded: EncodedExamples, outputs: ModelOutputs) -> Calibrated:
        def fit(chosen: BoolArray) -> float:
            return float(output.best_temperature(encoded, outputs, chosen))

        second = halves(["\0".join(reader.stratification_keys(example)) for example in examples])
        enough = bool(second.sum() >= FEWEST_IN_HALF)
        fitted = cross_fit("temperature", fit, second) if enough else None
        if fitted is None or at_a_bound(fitted.value):
            why = (
                f"{len(examples)} examples are too few to fit one, {2 * FEWEST_IN_HALF} are needed"
                if fitted is None
                else f"the best one is {fitted.value:.3g} or beyond, at which the logits are no probabilities; train "
                "longer, or at another rate"
            )
            kept = not_fitted("temperature", output.temperature, f"the temperature stays {output.temperature:g}: {why}")
            return Calibrated(output, output.decode(examples, encoded, outputs), (kept,))
        decoded = output.decode(examples, encoded, outputs, DecodeOptions(temperature=fitted.values))
        return Calibrated(replace(output, temperature=fitted.value), decoded, (fitted.details,))

    return calibrate
