"""Scores of regression; `names` defines them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from palavra.metrics.resampled import Doubles, OfSums, Order, Sampled, point, ratio

# A variance below this fraction of the test set's is rounding error: the resample has only one value.
CONSTANT = 1e-12


def target_table(targets: Doubles, values: Doubles, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the scores of each target of values (E, T), as JSON; None if undefined."""
    rows = []
    for name, *columns in zip(names, targets.T[:, :, None], values.T[:, :, None], strict=True):
        found = point(regression_statistics(*columns), len(targets)) | point(Spearman(*columns), len(targets))
        order = ("mse", "rmse", "mae", "r2", "pearson", "spearman")
        rows.append({"name": name, **{key: found.get(key) for key in order}})
    return rows


def regression_statistics(targets: Doubles, values: Doubles) -> OfSums:
    """Return mean squared, root mean squared and mean absolute error, R² and Pearson's r of values (E, T), each the
    mean over targets. R² and r are undefined for constant targets, r also for constant values."""
    error = values - targets
    # Standardize, so that squares do not lose precision to a large mean.
    (x, spread), (y, _) = _standardized(targets), _standardized(values)
    each = np.concatenate([x, y, x * x, y * y, x * y, error**2, np.abs(error), np.ones((len(x), 1))], 1)
    count = targets.shape[1]

    def score(sums: Doubles) -> Sampled:
        of_x, of_y, xx, yy, xy, squared, absolute = np.split(sums[:, :-1] / sums[:, -1:], 7, axis=1)
        of_target, of_value = _variance(xx, of_x), _variance(yy, of_y)
        covariance = xy - of_x * of_y
        return {
            "mse": squared.sum(1) / count,
            "rmse": np.sqrt(squared).sum(1) / count,
            "mae": absolute.sum(1) / count,
            "r2": (1 - ratio(squared, of_target * spread**2)).sum(1) / count,
            "pearson": np.clip(ratio(covariance, np.sqrt(of_target * of_value)), -1, 1).sum(1) / count,
        }

    return OfSums(each=each, score=score)


def _standardized(values: Doubles) -> tuple[Doubles, Doubles]:
    """Return values (E, T) minus their mean, over their standard deviation, and that deviation (T,), 1 instead of 0."""
    centred = values - values.mean(0)
    spread = np.sqrt((centred**2).mean(0))
    spread = np.where(spread > 0, spread, 1.0)
    return centred / spread, spread


def _variance(square: Doubles, mean: Doubles) -> Doubles:
    """Return the variance, or NaN where it is only rounding error."""
    variance = square - mean**2
    return np.where(variance > CONSTANT, variance, np.nan)


class Spearman:
    """Mean over targets of Spearman's rank correlation of values (E, T), ranked in the resample; ties share a rank."""

    def __init__(self, targets: Doubles, values: Doubles):
        self.orders = [(Order.of(t), Order.of(v)) for t, v in zip(targets.T, values.T, strict=True)]

    @property
    def cost(self) -> int:
        return 2 * len(self.orders) * len(self.orders[0][0].order)

    def __call__(self, counts: Doubles) -> Sampled:
        total = np.zeros(len(counts))
        for target, value in self.orders:
            (x, of_x), (y, of_y) = self._ranks(target, counts), self._ranks(value, counts)
            x *= counts
            total += ratio(np.einsum("be,be->b", x, y), np.sqrt(of_x * of_y))
        return {"spearman": total / len(self.orders)}

    @staticmethod
    def _ranks(order: Order, counts: Doubles) -> tuple[Doubles, Doubles]:
        """Return each example's rank minus the mean rank (B, E), and the sum of its squares over the resample (B,)."""
        drawn = order.sums(counts[:, order.order])
        middle = (drawn.sum(1, keepdims=True) + 1) / 2
        ranks = np.cumsum(drawn, axis=1) - drawn / 2 + (0.5 - middle)
        return ranks[:, order.group], np.einsum("bg,bg,bg->b", drawn, ranks, ranks)
