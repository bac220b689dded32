"""Watching a run: stop it when the loss is lost, and say when and on what."""

import math
from collections.abc import Callable

from palavra.training.loop import StepReport

SMOOTHING = 0.95
# A loss this far above the first one is not a bad batch: an untrained model does better by guessing.
EXPLODED = 1.5
SHOWN_DOCUMENTS = 4


class Diverged(Exception):
    """The loss is not a number, or left where an untrained model stands."""


class Monitor:
    """Follows the loss with an exponential average. Reads each report one step late, when the device has long
    finished with it, so that looking costs no waiting. `name_document` says where a document comes from;
    `guessing` is the loss of a blind guess: below half as much again no loss of a good start is lost."""

    def __init__(self, max_lr: float, name_document: Callable[[int], str] = str, guessing: float = 0.0):
        self.max_lr, self.name_document, self.guessing = max_lr, name_document, guessing
        self.smoothed: float | None = None
        self.first: float | None = None
        self._waiting: StepReport | None = None

    def watch(self, report: StepReport) -> None:
        """Take a new report in, judge the one before. Raises Diverged."""
        waiting, self._waiting = self._waiting, report
        if waiting is not None:
            self._judge(waiting)

    def settle(self) -> None:
        """Judge what is still waiting: before a checkpoint is written, and at the end. Raises Diverged."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._judge(waiting)

    def _judge(self, report: StepReport) -> None:
        loss, norm = float(report.loss), float(report.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(self._describe(report, f"the loss became {loss} (gradient norm {norm})"))
        before = loss if self.smoothed is None else self.smoothed
        self.smoothed = SMOOTHING * before + (1 - SMOOTHING) * loss
        self.first = loss if self.first is None else self.first
        if self.smoothed > EXPLODED * max(self.first, self.guessing):
            raise Diverged(self._describe(report, f"the loss rose to {self.smoothed:.2f} from {self.first:.2f}"))

    def _describe(self, report: StepReport, what: str) -> str:
        rate = self.max_lr * report.lr_multiplier
        shown = ", ".join(self.name_document(int(number)) for number in report.documents[:SHOWN_DOCUMENTS])
        rest = len(report.documents) - SHOWN_DOCUMENTS
        more = f" and {rest} more" if rest > 0 else ""
        return (
            f"{what} at step {report.step}, learning rate {rate:.3g}, documents {shown}{more}: lower "
            "optimizer.learning_rate"
        )
