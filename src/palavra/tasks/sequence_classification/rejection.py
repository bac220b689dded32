"""Abstention: a threshold of the highest probability, fitted on validation examples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from palavra.metrics.calibration import FEWEST_IN_HALF, cross_fit, halves, not_fitted
from palavra.metrics.resampled import BoolArray, Floats
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.task import Calibrate, Calibrated, ModelOutputs


def rejection_threshold(confidence: Floats, coverage: float) -> float | None:
    """Return the threshold of the highest probability below which to abstain, from those of examples that were not
    trained on (E,); None if they are too few.

    Of other examples of the same kind at least the fraction `coverage` reaches it on average, whatever the model
    (split conformal prediction: Papadopoulos et al. 2002, doi:10.1007/3-540-36755-1_29).
    """
    rejected = int((len(confidence) + 1) * (1 - coverage) + 1e-9)
    return float(np.sort(confidence)[rejected - 1]) if rejected else None


def rejection_fit(coverage: float, before: Calibrate | None) -> Calibrate:
    """Return `Task.calibrate` that fits a rejection threshold, after what `before` fits."""

    def calibrate(output: Any, examples: Sequence[Any], encoded: EncodedExamples, outputs: ModelOutputs) -> Calibrated:
        found = Calibrated(output, output.decode(examples, encoded, outputs))
        if before is not None:
            found = before(output, examples, encoded, outputs)
        final = found.output.decode(examples, encoded, outputs).confidence
        value = rejection_threshold(final, coverage)
        if value is None:
            needed = int(np.ceil(1 / (1 - coverage) - 1e-9)) - 1
            why = (
                f"no rejection threshold is fitted: {len(examples)} examples are too few for a coverage of "
                f"{coverage:g}, {needed} are needed"
            )
            return found._replace(fitted=(*found.fitted, not_fitted("rejection", None, why)))

        def fit(chosen: BoolArray) -> float:
            half = rejection_threshold(found.decoded.confidence[chosen], coverage)
            return value if half is None else half

        second = halves([""] * len(examples))
        smaller = int(second.sum())
        enough = smaller >= FEWEST_IN_HALF and rejection_threshold(final[:smaller], coverage) is not None
        fitted = cross_fit("rejection", fit, second, enough=enough)
        decoded = found.decoded._replace(abstained=found.decoded.confidence < fitted.values)
        details = {**fitted.details, "value": value}
        return Calibrated(replace(cast(Any, found.output), rejection=value), decoded, (*found.fitted, details))

    return calibrate
