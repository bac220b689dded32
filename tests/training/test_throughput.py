"""What a log line says of the steps since the last one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders.models import CPU

from palavra.data.packing import Cursor
from palavra.training.loop import StepReport
from palavra.training.throughput import ThroughputMeter


def report(step: int, loss: float, labelled: int) -> StepReport:
    return StepReport(
        step=step, progress=0.0, loss=torch.tensor(loss), gradient_norm=torch.tensor(1.0), lr_multiplier=1.0,
        labelled=labelled, tokens=4 * labelled, micro_batches=1, cursor=Cursor(), documents=np.arange(1),
    )  # fmt: skip


def test_the_loss_is_the_mean_of_labelled_tokens_not_of_steps() -> None:
    job: Any = SimpleNamespace(compute=CPU, matmul_peak=0.0, loop=SimpleNamespace(steps=9))
    window = ThroughputMeter()
    steps = [report(1, 2.0, 100), report(2, 5.0, 1), report(3, 3.0, 299)]
    for each in steps:
        window.add(each, 0.0)
    assert window.close(steps[-1], job)["loss"] == pytest.approx((2 * 100 + 5 + 3 * 299) / 400, rel=1e-6)
    window.restart()
    window.add(report(4, 7.0, 3), 0.0)
    assert window.close(steps[-1], job)["loss"] == pytest.approx(7.0)
