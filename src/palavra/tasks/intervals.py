"""How far a score can be trusted: intervals over the examples of one test, and over several runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

# Indices drawn at once: more do not go faster, and take memory.
DRAWN_AT_ONCE = 2**18

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """From `low` to `high`. `samples` is on how many resamples or values it stands."""

    low: float
    high: float
    level: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """As written to a run's files."""
        return asdict(self)


class Mean(NamedTuple):
    """The mean of several runs, their standard deviation (of n - 1), and the interval of the mean.

    The last two are None for a single run, which says nothing about others.
    """

    mean: float
    sd: float | None
    interval: Interval | None


def resamples(examples: int, samples: int, seed: int) -> Iterator[IntArray]:
    """`samples` draws of `examples` indices with replacement, as arrays (some, examples) int64."""
    random = np.random.default_rng(seed)
    rows = max(1, DRAWN_AT_ONCE // examples)
    for start in range(0, samples, rows):
        yield random.integers(examples, size=(min(rows, samples - start), examples))


def bootstrap_interval(
    score: Callable[[IntArray], float | None],
    examples: int,
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap of a score (Efron 1979): what it might have been on another test of the same size.

    `score` is given indices (examples,) int64 with repetitions, and returns the score of those examples. Where it
    is undefined on a resample (None or NaN, as the AUROC of one class alone), the resample is left out and not
    counted in `Interval.samples`. The interval covers the choice of the test's examples, not of the training's
    seed, and is too narrow below some 30 examples or where examples depend on each other. The same seed gives
    the same resamples, so scores of two models can be compared on them.

    Raises:
        ValueError: no examples, a level outside (0, 1), or a score that is defined on no resample.
    """
    _check(examples, level, samples)
    drawn = (score(indices) for chunk in resamples(examples, samples, seed) for indices in chunk)
    return _percentiles(np.array([math.nan if value is None else value for value in drawn], dtype=np.float64), level)


def bootstrap_mean_interval(
    values: npt.ArrayLike, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> Interval:
    """`bootstrap_interval` of the mean of values (E,), one an example: accuracy, exact match, a loss. Much quicker.

    Raises:
        ValueError: no values, or a level outside (0, 1).
    """
    array = np.asarray(values, dtype=np.float64)
    _check(len(array), level, samples)
    means = [array[chunk].mean(1) for chunk in resamples(len(array), samples, seed)]
    return _percentiles(np.concatenate(means), level)


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Mean:
    """Mean, standard deviation, and Student's t interval of the mean of scores over seeds or folds.

    The interval takes the scores to be independent and about normal. Folds share training examples, so theirs is
    too narrow (Nadeau and Bengio 2003); and it says nothing about the choice of the test's examples.

    Raises:
        ValueError: no values, or a level outside (0, 1).
    """
    count = len(values)
    _check(count, level, 1)
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if count == 1:
        return Mean(mean, None, None)
    sd = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * sd / math.sqrt(count)
    return Mean(mean, sd, Interval(low=mean - half, high=mean + half, level=level, samples=count))


def _check(examples: int, level: float, samples: int) -> None:
    if examples < 1 or samples < 1:
        raise ValueError("an interval needs examples and samples")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")


def _percentiles(drawn: npt.NDArray[np.float64], level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0:
        raise ValueError("the score is defined on no resample")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, samples=len(drawn))
