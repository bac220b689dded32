"""Loss, speed and time between two log lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from palavra import distributed
from palavra.training.job import TrainingJob
from palavra.training.loop import StepReport
from palavra.typed_json import Count


@dataclass(frozen=True, kw_only=True)
class LineSums:
    """Sums over the `steps` since the last log line: `labelled` rows, their `loss` in nats, and the norms of the
    gradient. A checkpoint holds them, so that a resumed run writes the same next line."""

    steps: Count = 0
    labelled: Count = 0
    loss: float = 0.0
    gradient_norm: float = 0.0


class ThroughputMeter:
    """Loss, tokens and seconds since the last log line. Reads losses from the device only when asked for them."""

    def __init__(self) -> None:
        self.detail = ""
        self.restart()

    def restart(self, sums: LineSums = LineSums()) -> None:
        """Start a new window, whose loss and gradient norm include earlier `sums`."""
        self._began = time.perf_counter()
        self._lost = self._settled = self._flops = 0.0
        self._tokens, self._steps = 0, sums.steps
        # Losses are means over all ranks; counts are of this rank.
        self._labelled = sums.labelled if distributed.is_main() else 0
        self._loss = torch.tensor(sums.loss if distributed.is_main() else 0.0, dtype=torch.float64)
        self._norm = torch.tensor(sums.gradient_norm, dtype=torch.float64)

    def add(self, report: StepReport, flops: float) -> None:
        """Count one step."""
        self._steps += 1
        self._tokens += report.tokens
        self._labelled += report.labelled
        self._loss = self._loss.to(report.loss.device) + report.loss.double() * report.labelled
        self._norm = self._norm.to(report.loss.device) + report.gradient_norm.double()
        self._flops += flops

    def sums(self) -> LineSums:
        """Return the sums of this window over all ranks."""
        counts = torch.tensor(self._labelled, dtype=torch.float64, device=self._loss.device)
        labelled, loss = distributed.all_reduce_sum(counts), distributed.all_reduce_sum(self._loss)
        return LineSums(steps=self._steps, labelled=int(labelled), loss=float(loss), gradient_norm=float(self._norm))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent in the block."""
        at = time.perf_counter()
        try:
            yield
        finally:
            self._lost += time.perf_counter() - at

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began - self._lost

    def take_seconds(self) -> float:
        """Return the seconds since the window began, minus those that earlier calls returned."""
        elapsed = self._elapsed()
        taken, self._settled = elapsed - self._settled, elapsed
        return taken

    def close(self, report: StepReport, job: TrainingJob) -> dict[str, Any]:
        """Return the values of a log line."""
        job.compute.synchronize()
        elapsed = max(1e-9, self._elapsed())
        sums = self.sums()
        loss, norm = sums.loss / sums.labelled, sums.gradient_norm / sums.steps
        rate = self._tokens / elapsed
        peak = self._flops / elapsed / job.matmul_peak if job.matmul_peak else None
        self.detail = f"loss {loss:.3f}  {rate:,.0f} tokens/s" + (f"  {peak:.0%} of peak" if peak else "")
        return {
            "loss": loss,
            "gradient_norm": norm,
            "tokens_per_second": round(rate, 1),
            "peak_share": None if peak is None else round(peak, 4),
        }
