"""Regression: predict one or several numbers from one text or a pair, by least squares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palavra.errors import PalavraError
from palavra.metrics.resampled import Doubles
from palavra.tasks.regression.encoding import TargetEncoder, targets_of
from palavra.tasks.regression.examples import reader, target_names
from palavra.tasks.regression.output import TargetOutput
from palavra.tasks.regression.scores import TargetScorer
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask, Kind, Task
from palavra.tasks.text_examples import TextExample

# Fraction of the mean below which a deviation is lost in float32 rounding.
LEAST_DEVIATION = 1e-5


def fit(spec: TaskSpec, examples: Sequence[TextExample], trained: Sequence[TextExample]) -> AnyTask:
    """Build the task with the mean and deviation of the training targets."""
    del examples
    targets = targets_of(trained)
    for name, values in zip(target_names(spec), targets.T, strict=True):
        _check_spread(name, values, spec.source)
    return _task(spec, target_names(spec), targets.mean(0).tolist(), targets.std(0).tolist(), in_units=False)


def from_json(spec: TaskSpec, values: Mapping[str, Any]) -> AnyTask:
    """Rebuild the task from the values of `to_json`. Raises ValueError for inconsistent values."""
    deviation = values.get("deviation") or [1.0] * len(values["names"])
    return _task(spec, values["names"], values["mean"], deviation, in_units=bool(values.get("in_units", True)))


def _task(
    spec: TaskSpec, names: Sequence[str], mean: Sequence[float], deviation: Sequence[float], *, in_units: bool
) -> AnyTask:
    output = TargetOutput(
        spec=spec, names=tuple(names), mean=tuple(mean), deviation=tuple(deviation), in_units=in_units
    )
    # Mean and deviation of a layer that predicts targets in their own units.
    plain = (0.0,) * len(names), (1.0,) * len(names)
    learned_mean, learned_deviation = plain if in_units else (output.mean, output.deviation)
    return Task(
        spec=spec,
        reader=reader(spec),
        encoder=TargetEncoder(names=output.names, mean=learned_mean, deviation=learned_deviation),
        output=output,
        scorer=TargetScorer(names=output.names, deviation=output.deviation),
    )


def _check_spread(name: str, values: Doubles, where: str) -> None:
    """Raise PalavraError for a target with equal values (E,), or with differences below the model's precision."""
    if np.ptp(values) == 0:
        raise PalavraError(
            f"{where}: {name} is {values[0]:g} everywhere, so there is nothing to learn: check the column"
        )
    if values.std() < LEAST_DEVIATION * abs(values.mean()):
        raise PalavraError(
            f"{where}: {name} is {values.mean():.8g} with a deviation of only {values.std():.3g}, too little for "
            "single precision: subtract what all have in common"
        )


KIND = Kind(reader=reader, fit=fit, from_json=from_json)
