"""Divergence: stop a run whose loss explodes, and report the step and its documents."""

import math
from collections.abc import Callable

from palavra.errors import OptionNaming
from palavra.training.loop import StepReport

SMOOTHING = 0.95
# A smoothed loss this many times the first one is not a bad batch: an untrained model does better.
EXPLODED = 1.5
SHOWN_DOCUMENTS = 4


class Diverged(OptionNaming):
    """The loss is not finite, or far above that of an untrained model."""


class Monitor:
    """Smooths the loss with an exponential average, and raises Diverged when it explodes.

    Reads each report one step late, when the device has finished it, to avoid waiting. `name_document` returns the
    place of a document. A loss below 1.5 times `chance_loss` never counts as diverged.
    """

    def __init__(self, max_lr: float, name_document: Callable[[int], str] = str, chance_loss: float = 0.0):
        self.max_lr, self.name_document, self.chance_loss = max_lr, name_document, chance_loss
        self.smoothed: float | None = None
        self.first: float | None = None
        self._waiting: StepReport | None = None

    def watch(self, report: StepReport) -> None:
        """Accept a new report, and check the previous one. Raises Diverged."""
        self.settle()
        self._waiting = report

    def settle(self) -> None:
        """Check the last report, before a checkpoint and at the end. Raises Diverged."""
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
        if self.smoothed > EXPLODED * max(self.first, self.chance_loss):
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
