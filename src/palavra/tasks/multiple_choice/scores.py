"""Score probabilities of choices, and list the most confident errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from palavra.metrics.resampled import means
from palavra.metrics.scores import Scores
from palavra.metrics.top_k import chances, gold_ranks
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.multiple_choice.encoding import ChoiceEncoder
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.multiple_choice.output import DecodedChoices
from palavra.tasks.task import Scorer, surest_errors


@dataclass(frozen=True, kw_only=True)
class ChoiceScorer(Scorer[ChoiceExample, DecodedChoices]):
    """Score the most probable choice."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "calibration_error", "loss")

    def score(self, examples: Sequence[ChoiceExample], encoded: EncodedExamples, decoded: DecodedChoices) -> Scores:
        """Return the scores of examples."""
        gold = encoded.labels[:, 0].astype(np.int64)
        chosen = np.array([each.argmax() for each in decoded.probabilities])
        confidence = np.array([each.max() for each in decoded.probabilities])
        ranks = [gold_ranks(gold[i : i + 1], each[None]) for i, each in enumerate(decoded.probabilities)]
        hit = chances(1, *np.concatenate(ranks, 1)) if ranks else np.empty(0)

        def about(i: int) -> dict[str, Any]:
            one = examples[i]
            labels = {"label": one.choices[gold[i]], "predicted": one.choices[chosen[i]]}
            return {"where": one.where, "text": one.text[:300], **labels}

        errors = surest_errors(chosen != gold, confidence, about)
        return Scores.of(
            self.metrics,
            [means({"accuracy": hit, "loss": -decoded.log_p[decoded.bounds[:-1] + gold]})],
            len(examples),
            calibrated=(confidence, hit),
            details={**ChoiceEncoder().summary(examples), "errors": errors},
        )
