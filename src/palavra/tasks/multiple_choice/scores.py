"""What probabilities of choices score, with the errors to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from palavra.metrics.calibration import Calibration
from palavra.metrics.resampled import means
from palavra.metrics.scores import Scores
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.multiple_choice.encoding import ChoiceEncoder
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.multiple_choice.output import DecodedChoices
from palavra.tasks.task import Scorer, surest_errors


@dataclass(frozen=True, kw_only=True)
class ChoiceScorer(Scorer[ChoiceExample, DecodedChoices]):
    """Of the choice with the highest score."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "calibration_error", "loss")

    def score(self, examples: Sequence[ChoiceExample], encoded: EncodedExamples, decoded: DecodedChoices) -> Scores:
        """The scores of examples."""
        gold = encoded.labels[:, 0].astype(np.int64)
        chosen = np.array([own.argmax() for own in decoded.probabilities])
        confidence = np.array([own.max() for own in decoded.probabilities])
        calibrated = Calibration.of(confidence, chosen == gold)
        errors = [
            {
                "where": examples[i].where,
                "text": examples[i].text[:300],
                "label": examples[i].choices[gold[i]],
                "predicted": examples[i].choices[chosen[i]],
                "probability": float(confidence[i]),
            }
            for i in surest_errors(chosen != gold, confidence)
        ]
        return Scores.of(
            self.metrics,
            [means({"accuracy": chosen == gold, "loss": -decoded.log_p[decoded.bounds[:-1] + gold]})],
            len(examples),
            others={"calibration_error": calibrated.error},
            details={**ChoiceEncoder().summary(examples), **calibrated.to_json(), "errors": errors},
        )
