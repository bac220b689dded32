"""Score predicted numbers, and list the largest errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from palavra.metrics.regression import Spearman, regression_statistics, target_table
from palavra.metrics.resampled import Doubles, means
from palavra.metrics.scores import Scores
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.regression.encoding import targets_of
from palavra.tasks.task import SHOWN_ERRORS
from palavra.tasks.text_examples import TextExample, excerpt

SHOWN_POINTS = 2000
# Fraction of the gold values' deviation below which predictions count as nearly constant.
LEAST_SPREAD = 0.01


@dataclass(frozen=True, kw_only=True)
class TargetScorer:
    """Score the targets `names` in their own units; `loss` is in units of their `deviation` (T,), as in training."""

    names: tuple[str, ...]
    deviation: tuple[float, ...]

    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "mse", "rmse", "mae", "r2", "loss")

    def undefined(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Return correlations and explained variance if a target is constant."""
        constant = (np.ptp([example.label for example in examples], axis=0) == 0).any()
        return ("pearson", "spearman", "r2") if constant else ()

    def score(self, examples: Sequence[TextExample], encoded: EncodedExamples, decoded: Doubles) -> Scores:
        """Return the scores of values (E, T)."""
        targets = targets_of(examples)
        losses = (((decoded - targets) / np.array(self.deviation)) ** 2).mean(1)
        errors = [
            {
                **excerpt(examples[i]),
                "label": ", ".join(f"{value:g}" for value in targets[i]),
                "predicted": ", ".join(f"{value:.3g}" for value in decoded[i]),
            }
            for i in np.argsort(-np.abs(decoded - targets).mean(1))[:SHOWN_ERRORS].tolist()
        ]
        ranks, loss = Spearman(targets, decoded), means({"loss": losses})
        details = {
            "per_target": target_table(targets, decoded, self.names),
            "warnings": self._warnings(targets, decoded),
            "points": self._points(targets, decoded),
            "errors": errors,
        }
        return Scores.of(
            self.metrics, [regression_statistics(targets, decoded), ranks, loss], len(examples), details=details
        )

    def _warnings(self, targets: Doubles, values: Doubles) -> list[str]:
        """Return warnings of near-constant predictions."""
        spread, wanted = values.std(0), targets.std(0)
        return [
            f"the predictions of {self.names[t]} hardly differ (deviation {spread[t]:.3g}, that of the gold values is "
            f"{wanted[t]:.3g}): little was learned; train longer, at another rate, or on more examples"
            for t in np.flatnonzero(spread < LEAST_SPREAD * wanted).tolist()
        ]

    def _points(self, targets: Doubles, values: Doubles) -> dict[str, list[list[float]]]:
        """Return gold and predicted values of each target for a plot, at most `SHOWN_POINTS` evenly spaced examples."""
        chosen = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), SHOWN_POINTS)).astype(int))
        pairs = np.stack([targets[chosen], values[chosen]], 2)
        return {name: pairs[:, number].tolist() for number, name in enumerate(self.names)}
