"""The files of experiments: `sweep.json` and `learning_curve.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from palavra.typed_json import Count


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """One trial: `value` is its best validation score (if pruned, its last), `params` the searched values,
    `evaluations` the score at each validation."""

    number: Count
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    params: Mapping[str, object]
    seconds: float
    evaluations: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """`sweep.json`: the trials, the number of the best, and the importance of each setting."""

    direction: Literal["minimize", "maximize"]
    metric: str
    trials: tuple[SweepTrial, ...]
    best: int | None
    importances: Mapping[str, float]

    @property
    def best_trial(self) -> SweepTrial | None:
        """Return the best trial, or None if none finished."""
        return next((trial for trial in self.trials if trial.number == self.best), None)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The test score of a model trained on this many examples, and its bootstrap interval if any."""

    examples: Count
    score: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class CurveSeries:
    """The points of one curve."""

    name: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """`learning_curve.json`: a score by number of labelled examples, for each curve."""

    metric: str
    series: tuple[CurveSeries, ...]
