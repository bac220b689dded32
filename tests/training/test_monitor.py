"""Losing the loss: what is no number, and what explodes."""

import math

import numpy as np
import pytest
import torch

from palavra.data.packing import Cursor
from palavra.training.loop import StepReport
from palavra.training.monitor import Diverged, Monitor


def report_of(step: int, loss: float, norm: float = 1.0) -> StepReport:
    return StepReport(
        step=step,
        progress=0.0,
        loss=torch.tensor(loss),
        gradient_norm=torch.tensor(norm),
        lr_multiplier=0.5,
        labelled=1,
        tokens=1,
        micro_batches=1,
        cursor=Cursor(),
        documents=np.arange(step, step + 20),
    )


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_a_lost_loss_is_told_one_step_later_with_all_that_is_known(loss: float, norm: float) -> None:
    monitor = Monitor(max_lr=0.004)
    monitor.watch(report_of(1, 5.0))
    monitor.watch(report_of(2, loss, norm))
    with pytest.raises(Diverged, match=r"step 2, learning rate 0\.002, documents 2, 3, .* more: ") as caught:
        monitor.watch(report_of(3, 4.0))
    assert "\n" not in str(caught.value)
    assert str(loss if not math.isfinite(loss) else norm) in str(caught.value)


def test_settling_judges_the_last_report() -> None:
    """Before a checkpoint is written, and at the end."""
    monitor = Monitor(max_lr=0.004)
    monitor.watch(report_of(1, math.nan))
    with pytest.raises(Diverged, match="step 1"):
        monitor.settle()
    monitor.settle()


def test_a_bad_batch_is_no_explosion_and_an_explosion_is() -> None:
    monitor = Monitor(max_lr=1.0)
    for step in range(1, 30):
        monitor.watch(report_of(step, 30.0 if step == 10 else 6.0))

    def explode() -> None:
        for step in range(30, 100):
            monitor.watch(report_of(step, 30.0))

    with pytest.raises(Diverged, match="rose"):
        explode()


def test_a_resumed_monitor_goes_on() -> None:
    first, second = Monitor(max_lr=1.0), Monitor(max_lr=1.0)
    for step in range(1, 10):
        first.watch(report_of(step, 7.0 - step / 3))
    first.settle()
    second.smoothed, second.first = first.smoothed, first.first
    for step in range(10, 20):
        first.watch(report_of(step, 2.0))
        second.watch(report_of(step, 2.0))
    assert (second.smoothed, second.first) == (first.smoothed, first.first)
    assert second.first == pytest.approx(7.0 - 1 / 3)
