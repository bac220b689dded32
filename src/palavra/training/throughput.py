"""Loss, speed and time between two log lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from palavra import distributed
from palavra.training.job import TrainingJob
from palavra.training.loop import StepReport


class ThroughputMeter:
    """Loss, tokens and seconds since the last log line. Reads losses from the device only when closed."""

    def __init__(self) -> None:
        self.detail = ""
        self.restart()

    def restart(self) -> None:
        """Start a new window."""
        self._began = time.perf_counter()
        self._lost = self._settled = 0.0
        self._reports: list[StepReport] = []
        self._flops = 0.0

    def add(self, report: StepReport, flops: float) -> None:
        """Count one step."""
        self._reports.append(report)
        self._flops += flops

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
        losses = torch.stack([one.loss for one in self._reports])
        # Losses are means over all ranks; counts are of this rank.
        labelled = [one.labelled for one in self._reports]
        counts = distributed.all_reduce_sum(torch.tensor(labelled, dtype=losses.dtype, device=losses.device))
        loss = float((losses * counts).sum() / counts.sum())
        norm = float(torch.stack([one.gradient_norm for one in self._reports]).mean())
        rate = sum(one.tokens for one in self._reports) / elapsed
        peak = self._flops / elapsed / job.matmul_peak if job.matmul_peak else None
        self.detail = f"loss {loss:.3f}  {rate:,.0f} tokens/s" + (f"  {peak:.0%} of peak" if peak else "")
        return {
            "loss": loss,
            "gradient_norm": norm,
            "tokens_per_second": round(rate, 1),
            "peak_share": None if peak is None else round(peak, 4),
        }
