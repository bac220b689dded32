"""Confidence intervals of scores, over the examples of one test set and over several runs."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from palavra.metrics.resampled import Doubles, Statistic
from palavra.run_records.finetuning import Interval

# Indices and resamples drawn at once: more take memory and are no faster.
DRAWN_AT_ONCE = 2**18
RESAMPLES_AT_ONCE = 256
# Most examples that all resamples of a statistic may process (one or two seconds), and the fewest resamples for an
# interval: a statistic that cannot afford them has none.
MOST_WORK = 10**8
FEWEST_SAMPLES = 100
# An interval narrower than this fraction of its ends is rounding error: all resamples are equal.
CONSTANT = 1e-9

IntArray = npt.NDArray[np.int64]


class Mean(NamedTuple):
    """The mean of several runs, their sample standard deviation (n - 1), and the confidence interval of the mean.

    The last two are None for a single run.
    """

    mean: float
    std: float | None
    interval: Interval | None


def resamples(examples: int, samples: int, seed: int, *, held: int = 1) -> Iterator[IntArray]:
    """Draw `samples` times `examples` indices with replacement, and yield them in arrays (n, examples) int64. `held`:
    numbers that the caller holds per resample, which limit n if more than `examples`."""
    random = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES_AT_ONCE, DRAWN_AT_ONCE // max(examples, held)))
    for start in range(0, samples, rows):
        yield random.integers(examples, size=(min(rows, samples - start), examples))


def bootstrap_intervals(
    statistics: Sequence[Statistic], examples: int, *, groups: IntArray | None = None, level: float = 0.95,
    samples: int = 1000, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Return the percentile bootstrap intervals of scores (Efron 1979): their range on other test sets of this size.

    `groups` (E,) gives the group of each example, from 0; the examples of a group are dependent and are drawn together.
    An interval covers the sampling of the test examples, not the training seed, and is too narrow below about 30
    examples or groups. A score that is equal on all resamples, or undefined on more than half of them (AUROC with one
    class), has no interval; `Interval.samples` excludes undefined resamples. A statistic that costs more than
    `MOST_WORK` gets fewer resamples, or none below `FEWEST_SAMPLES`. A seed always gives the same resamples, so two
    models are comparable. Raises ValueError without examples or samples, and for a level outside (0, 1).
    """
    _check(examples, level, samples)
    affordable = [MOST_WORK // max(1, one.cost) for one in statistics]
    wanted = [min(samples, most) if most >= FEWEST_SAMPLES else 0 for most in affordable]
    drawn: dict[str, list[Doubles]] = {}
    done = 0
    units = examples if groups is None else int(groups.max()) + 1
    for chunk in resamples(units, max(wanted, default=0), seed, held=examples):
        counts = _counts(chunk, units) if groups is None else _counts(chunk, units)[:, groups]
        for statistic, most in zip(statistics, wanted, strict=True):
            if done < most:
                for name, values in statistic(counts[: most - done]).items():
                    drawn.setdefault(name, []).append(values)
        done += len(chunk)
    intervals = {name: _percentiles(np.concatenate(parts), level) for name, parts in drawn.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def _counts(chunk: IntArray, examples: int) -> Doubles:
    """Count how often each resample of indices (B, E) has each example, (B, E)."""
    places = chunk + examples * np.arange(len(chunk))[:, None]
    return np.bincount(places.ravel(), minlength=len(chunk) * examples).reshape(-1, examples).astype(np.float64)


def mean_interval(
    values: Sequence[float], *, bounds: tuple[float, float] = (-math.inf, math.inf), level: float = 0.95
) -> Mean:
    """Return mean, standard deviation, and Student's t interval of the mean of scores over seeds or folds.

    The interval assumes independent, roughly normal scores and does not cover the sampling of the test examples. Over
    folds it is too narrow, because they share training examples (Nadeau and Bengio 2003). It is clipped to the `bounds`
    of the score; equal scores have none. Raises ValueError without values and for a level outside (0, 1).
    """
    count = len(values)
    _check(count, level, 1)
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if count == 1:
        return Mean(mean, None, None)
    std = float(array.std(ddof=1))
    if np.ptp(array) <= CONSTANT * abs(mean):
        return Mean(mean, std, None)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * std / math.sqrt(count)
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Mean(mean, std, Interval(low=low, high=high, level=level, samples=count))


def _check(examples: int, level: float, samples: int) -> None:
    if examples < 1 or samples < 1:
        raise ValueError("an interval needs examples and samples")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")


def _percentiles(drawn: Doubles, level: float) -> Interval | None:
    """Return the interval, or None if the score is constant or undefined on more than half of the resamples."""
    defined = drawn[~np.isnan(drawn)]
    if 2 * len(defined) < len(drawn):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    if math.isclose(low, high, rel_tol=CONSTANT):
        return None
    return Interval(low=float(low), high=float(high), level=level, samples=len(defined))
