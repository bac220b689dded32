"""Calibration error, and the temperature that reduces it.

Guo, Pleiss, Sun and Weinberger 2017, On Calibration of Modern Neural Networks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from palavra.run_records.finetuning import ReliabilityBin

Floats = npt.NDArray[np.floating]

# Search range of the temperature. The optimum is 0 for perfectly separated logits, infinity for random ones.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
# Standard deviation of the prior of log T: twice that is a factor of 2. Without it, T of separable logits is 0.
PRIOR_DEVIATION = math.log(2) / 2
# A value fitted on fewer examples (of each type needed) does not carry over to others.
FEWEST_IN_HALF = 5


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Return mean confidence and accuracy in bins of equal width, for a reliability diagram.

    confidence (E,) in [0, 1], the probability of the predicted class; correct (E,) bool, whether it is correct. Bins
    are open below and closed above as in the paper, except that the first includes 0. Raises ValueError for shapes that
    differ, no predictions, and a confidence outside [0, 1].
    """
    probability, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if probability.shape != hit.shape or probability.ndim != 1 or len(probability) == 0 or bins < 1:
        raise ValueError("calibration needs bins, predictions, and as many confidences as outcomes")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a confidence lies between 0 and 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.searchsorted(edges[1:-1], probability, side="left")
    counts = np.bincount(where, minlength=bins).tolist()
    sums = np.bincount(where, probability, bins).tolist()
    hits = np.bincount(where, hit, bins).tolist()
    return tuple(
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            confidence=sums[i] / counts[i] if counts[i] else None,
            accuracy=hits[i] / counts[i] if counts[i] else None,
            count=counts[i],
        )
        for i in range(bins)
    )


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Return the mean distance of confidence and accuracy over predictions, between 0 and 1 (equation 3).

    It does not measure quality: predicting the most frequent class with its frequency as confidence gives 0. It depends
    on the bins, and is noisy for bins with few predictions. Arguments and errors as in `reliability`.
    """
    found = reliability(confidence, correct, bins)
    total = sum(one.count for one in found)
    return sum(
        one.count / total * abs(one.accuracy - one.confidence)
        for one in found
        if one.accuracy is not None and one.confidence is not None
    )


def negative_log_likelihood(logits: Floats, labels: npt.NDArray[np.integer], temperature: float = 1.0) -> float:
    """Return the mean of -log softmax(logits / temperature)[label] in nats; logits (E, K), labels (E,)."""
    log_p = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -float(log_p[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Floats, labels: npt.NDArray[np.integer]) -> float:
    """Return the temperature T that fits softmax(logits / T) (section 4.2), as `best_temperature` does.

    logits (E, K) and labels (E,) of examples that were not trained on. Raises ValueError without examples, or with
    logits that are not finite.
    """
    if len(labels) == 0 or logits.ndim != 2 or len(logits) != len(labels) or not np.isfinite(logits).all():
        raise ValueError("a temperature needs finite logits (E, K) and as many labels, at least one")
    return best_temperature(
        lambda temperature: negative_log_likelihood(logits, labels, temperature), examples=len(labels)
    )


def fit_label_temperature(logits: Floats, labels: npt.NDArray[np.bool_]) -> float:
    """Fit a temperature as `fit_temperature` does, for label sets: logits (E, K), labels (E, K) bool, each decision
    with probability sigmoid(logit / T). Also raises ValueError for shapes that differ."""
    if len(labels) == 0 or logits.shape != labels.shape or not np.isfinite(logits).all():
        raise ValueError("a temperature needs finite logits (E, K) and as many labels, of at least one example")
    # -log sigmoid(z) if the label is present, else -log sigmoid(-z).
    against = np.where(labels, -logits.astype(np.float64), logits.astype(np.float64))
    return best_temperature(
        lambda temperature: float(np.logaddexp(0.0, against / temperature).mean()), examples=len(labels)
    )


def best_temperature(of: Callable[[float], float], *, examples: int) -> float:
    """Return the most probable temperature, between 0.01 and 100, or 1 if none is better; `of` gives the mean loss of
    so many examples in nats.

    Examples without a single error have no best temperature: the smaller, the more probable their labels. A weakly
    informative prior (Gelman et al. 2008, doi:10.1214/08-AOAS191), normal in log T around T = 1, answers this: it
    weighs as much as a few errors, and next to nothing among many examples. The decisions of one example (its labels,
    its words) depend on each other, so they count as one.
    """

    def loss(log_temperature: float) -> float:
        return examples * of(math.exp(log_temperature)) + (log_temperature / PRIOR_DEVIATION) ** 2 / 2

    bounds = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return math.exp(float(found.x)) if found.fun < loss(0.0) else 1.0


def halves(strata: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which examples (E,) are in the second of two halves, for cross-fitting. The sizes of the halves differ by
    at most one example, in total and per stratum. The seed is fixed."""
    _, numbers = np.unique(np.array(strata, dtype=object).astype(str), return_inverse=True)
    order = np.lexsort((np.random.default_rng(0).permutation(len(strata)), numbers))
    second = np.zeros(len(strata), dtype=bool)
    second[order[1::2]] = True
    return second


def at_a_bound(temperature: float) -> bool:
    """Return whether a fitted temperature is at an end of the search range."""
    return not 1.01 * LOWEST_TEMPERATURE < temperature < HIGHEST_TEMPERATURE / 1.01


class CrossFitted(NamedTuple):
    """The `value` fitted on all examples, the `values` (E,) to score each example with, and `details` for reports."""

    value: float
    values: npt.NDArray[np.float64]
    details: dict[str, Any]


def not_fitted(name: str, value: float | None, why: str) -> dict[str, Any]:
    """Return the details, for reports, of a value that was not fitted."""
    return {"name": name, "value": value, "scored": "not-fitted", "halves": [], "why": why}


def cross_fit(
    name: str, fit: Callable[[npt.NDArray[np.bool_]], float], second: npt.NDArray[np.bool_], *, enough: bool = True
) -> CrossFitted:
    """Fit a value on all examples, and one on each half to score the other half with. If the halves are not large
    `enough`, all are scored with the value fitted on them, an optimistic estimate. `fit` takes a mask (E,)."""
    value = fit(np.ones(len(second), dtype=bool))
    by_half = [fit(~second), fit(second)] if enough else []
    values = np.where(second, *by_half) if by_half else np.full(len(second), value)
    scored = "cross-fitted" if by_half else "fitted-on"
    return CrossFitted(value, values, {"name": name, "value": value, "scored": scored, "halves": by_half})
