"""Save checkpoints, and handle a full disk."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from palavra import distributed
from palavra.files import reason
from palavra.log import Log
from palavra.run_records.training import MetricLine
from palavra.training.checkpoint import CheckpointError, RunState, checkpoint_bytes, prune, save_checkpoint, steps_saved
from palavra.training.optimizers import Optimizers
from palavra.training.run_directory import Metrics, RunDirectory


@contextmanager
def say_how_to_continue() -> Iterator[None]:
    """Add to an error of the disk, once a run is trained, that its checkpoints hold everything."""
    try:
        yield
    except OSError as error:
        error.add_note("free space on the disk, then continue with --resume")
        raise


@dataclass(frozen=True, kw_only=True)
class CheckpointSaver:
    """Writes the checkpoints of a run, keeping the last `keep_last` and the best one."""

    run: RunDirectory
    model: nn.Module
    optimizers: Optimizers
    keep_last: int
    metrics: Metrics
    log: Log

    def check_space(self) -> None:
        """Warn if the disk cannot hold the future checkpoints. Call after the first step, which creates optimizer
        state."""
        if not distributed.is_main() or not self.run.path.is_dir():
            return
        each = checkpoint_bytes(self.model, self.optimizers)
        # The last ones, the best one, and the one being written.
        missing = self.keep_last + 2 - len(steps_saved(self.run.checkpoints))
        free = shutil.disk_usage(self.run.path).free
        if free < each * missing:
            self.log.warn(
                f"checkpoints may need {each * missing / 1e9:.2f} GB more ({each / 1e9:.2f} GB each), and the disk of "
                f"{self.run.path} has {free / 1e9:.2f} GB free: make room, or lower train.keep_last ({self.keep_last})"
            )

    def save(self, state: RunState, *, ending: bool) -> bool:
        """Write a checkpoint, and return whether it is on disk.

        A full disk does not end a run that has an earlier checkpoint: the next save tries again. Raises CheckpointError
        if there is none and the run is not `ending`.
        """
        if not distributed.is_main():
            return True
        try:
            save_checkpoint(self.run.checkpoints, self.model, self.optimizers, state)
        except OSError as error:
            self._report_unsaved(state.step, error, ending=ending)
            return False
        self.remove_old(state)
        return True

    def remove_old(self, state: RunState) -> None:
        """Remove the checkpoints that are not to be kept at a state."""
        if distributed.is_main():
            prune(self.run.checkpoints, self.keep_last, state.best_step)

    def _report_unsaved(self, step: int, error: OSError, *, ending: bool) -> None:
        earlier = steps_saved(self.run.checkpoints)
        there = f"the last one there is of step {earlier[-1]}" if earlier else "there is no earlier one"
        message = f"checkpoint at step {step} was not written to {self.run.checkpoints} ({reason(error)}); {there}"
        self.metrics.write(MetricLine(kind="event", step=step, message=message))
        if not ending and not earlier:
            raise CheckpointError(
                f"{message}: make room on the disk of {self.run.path} (or lift its limit on the size of files), then "
                "--resume"
            )
        self.log.warn(message)
