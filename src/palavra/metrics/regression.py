"""Scores of predicted numbers. A score that is not defined is None, never NaN."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from palavra.metrics.classification import Doubles, Floats, check_outputs, mean_of_defined


@dataclass(frozen=True, kw_only=True)
class TargetScores:
    """How close predicted numbers are to one target.

    mse, rmse, mae: mean squared error, its root, and mean absolute error, in the target's units (squared for mse);
    one far miss rules the first two. r2: share of the target's variance that is explained, 1 at best and negative
    where its mean would do better; it depends on how much the test varies. pearson and spearman: correlation of
    values and of ranks, blind to offset and scale. None where the target is constant, and for the correlations
    also where the predictions are.
    """

    name: str
    mse: float
    rmse: float
    mae: float
    r2: float | None
    pearson: float | None
    spearman: float | None


@dataclass(frozen=True, kw_only=True)
class RegressionScores:
    """`per_target`, and `mean`, the plain mean of each score over targets: it adds up units where they differ,
    and is None where one of the targets' is."""

    examples: int
    mean: TargetScores
    per_target: tuple[TargetScores, ...]

    def to_json(self) -> dict[str, Any]:
        """As written to a run's files."""
        return asdict(self)


def regression_scores(targets: Floats, values: Floats, names: Sequence[str]) -> RegressionScores:
    """Scores of predicted values (E, T) for targets (E, T) called `names` (T,).

    Raises:
        PalavraError: a value is not a finite number.
        ValueError: no examples, or shapes that differ.
    """
    check_outputs(len(targets), values, len(names))
    if targets.shape != values.shape:
        raise ValueError("targets are (E, T), as the values")
    columns = zip(names, targets.astype(np.float64).T, values.astype(np.float64).T, strict=True)
    per_target = tuple(_target_scores(*column) for column in columns)
    return RegressionScores(examples=len(targets), mean=_mean_target(per_target), per_target=per_target)


def _target_scores(name: str, target: Doubles, value: Doubles) -> TargetScores:
    mse = float(mean_squared_error(target, value))
    return TargetScores(
        name=name,
        mse=mse,
        rmse=math.sqrt(mse),
        mae=float(mean_absolute_error(target, value)),
        r2=None if _is_constant(target) else float(r2_score(target, value)),
        pearson=_correlation(target, value),
        spearman=_correlation(rankdata(target), rankdata(value)),
    )


def _mean_target(rows: Sequence[TargetScores]) -> TargetScores:
    return TargetScores(
        name="mean",
        mse=sum(row.mse for row in rows) / len(rows),
        rmse=sum(row.rmse for row in rows) / len(rows),
        mae=sum(row.mae for row in rows) / len(rows),
        r2=mean_of_defined([row.r2 for row in rows]),
        pearson=mean_of_defined([row.pearson for row in rows]),
        spearman=mean_of_defined([row.spearman for row in rows]),
    )


def _is_constant(values: Doubles) -> bool:
    """Whether values are all alike, if only within what a square can tell from 0."""
    # Equality first: the mean of equal numbers may differ from them in the last bit.
    deviation = values - values.mean()
    return bool((values == values[0]).all() or deviation @ deviation == 0)


def _correlation(one: Doubles, other: Doubles) -> float | None:
    """Pearson's r; None where one of the two is constant."""
    if _is_constant(one) or _is_constant(other):
        return None
    return float(np.clip(np.corrcoef(one, other)[0, 1], -1, 1))
