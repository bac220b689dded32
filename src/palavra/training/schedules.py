"""Learning-rate schedules: the multiplier of the peak rate at each fraction of the run."""

import math
from collections.abc import Callable

from palavra.training.config import ScheduleConfig, ScheduleName


def _constant(done: float, config: ScheduleConfig) -> float:
    del done, config
    return 1.0


def _linear(done: float, config: ScheduleConfig) -> float:
    return 1 - (1 - config.floor) * (done - config.warmup) / max(1e-12, 1 - config.warmup)


def _cosine(done: float, config: ScheduleConfig) -> float:
    """Loshchilov and Hutter 2017, eq. 5, one period."""
    angle = math.pi * (done - config.warmup) / max(1e-12, 1 - config.warmup)
    return config.floor + (1 - config.floor) * (1 + math.cos(angle)) / 2


def _warmup_stable_decay(done: float, config: ScheduleConfig) -> float:
    begin = 1 - config.decay
    return 1.0 if done <= begin else 1 - (1 - config.floor) * (done - begin) / max(1e-12, config.decay)


def _inverse_square_root(done: float, config: ScheduleConfig) -> float:
    """Vaswani et al. 2017, section 5.3, relative to the peak at the end of the warmup."""
    return max(config.floor, math.sqrt(max(config.warmup, 1e-3) / max(done, 1e-12)))


SCHEDULES: dict[ScheduleName, Callable[[float, ScheduleConfig], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "warmup-stable-decay": _warmup_stable_decay,
    "inverse-square-root": _inverse_square_root,
}


def rate(step: float, steps: float, config: ScheduleConfig) -> float:
    """Return the multiplier of the peak rate at `step` (from 0) of `steps`: linear warmup, then the schedule."""
    warmup_steps = config.warmup * steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return min(1.0, SCHEDULES[config.name](step / max(1, steps), config))
