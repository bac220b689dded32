"""The length of a run, and planning it again when its steps take another time than planned."""

import math
from dataclasses import dataclass, replace

from palavra.typed_json import Count

# A new plan is made if the run would end this fraction of its time too early or too late. A change of the plan changes
# the learning rates of the steps to come, so the noise of a quiet machine must not cause one.
TOLERANCE = 0.08
# The fraction of the time between two looks at the clock.
LOOK = 0.03


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """The `steps` of a run, and the progress at each.

    A run whose steps turn out slower or faster gets another number of steps without a jump of its progress: what is
    left of the schedule is spread over the steps that are left. `shift` says how: step s stands at the place s + shift
    of steps + shift. It is 0 for a run that went as planned.
    """

    steps: Count
    shift: float = 0.0

    @property
    def places(self) -> float:
        """The number of places in the schedule: the steps of a run that had this pace from its start."""
        return self.steps + self.shift

    def place(self, step: int) -> float:
        """Return the place of a step in the schedule, both counted from 0."""
        return step + self.shift

    def progress(self, step: int) -> float:
        """Return the fraction of the schedule done before `step` (from 0)."""
        return self.place(step) / self.places

    def changed(self, step: int, steps: int) -> "RunLength":
        """Return the length with another number of `steps`, and the same progress at `step`, which is before both
        ends."""
        done = self.progress(step)
        return replace(self, steps=steps, shift=(done * steps - step) / (1 - done))


class TimeBudget:
    """Plans a run again that should take so many `seconds` of training and validation, where its steps take another
    time than planned. `step_seconds` is that of a step lately: a mean over several looks, for each is noisy."""

    def __init__(self, seconds: float, step: int, trained: float):
        self.seconds = seconds
        self.step_seconds: float | None = None
        self._step, self._trained = step, trained

    def look(self, length: RunLength, step: int, trained: float, elapsed: float) -> int | None:
        """Return the number of steps with which the run keeps its time; None if the planned one does, or the last look
        is not long ago.

        `trained` is the seconds of training so far, `elapsed` those with validations and checkpoints, which are taken
        to go on at their rate. At least one more step is planned.
        """
        if trained - self._trained < LOOK * self.seconds:
            return None
        each = (trained - self._trained) / (step - self._step)
        self._step, self._trained = step, trained
        self.step_seconds = each if self.step_seconds is None else (self.step_seconds + each) / 2
        whole = self.step_seconds + (elapsed - trained) / step
        if abs(elapsed + (length.steps - step) * whole - self.seconds) <= TOLERANCE * self.seconds:
            return None
        return step + max(1, math.floor((self.seconds - elapsed) / whole))
