"""The training part of every run: steps, logging, validation, checkpoints, interruption. What is trained is a
`TrainingJob`; pretraining and fine-tuning differ in theirs, never here."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from palavra import distributed
from palavra.data.packing import Cursor, PackingTally
from palavra.errors import PalavraError
from palavra.log import LiveLine, Log
from palavra.run_records import MetricLine, TrainingSummary
from palavra.training.checkpoint import (
    CheckpointError,
    RunState,
    checkpoint_bytes,
    damage,
    load_checkpoint,
    load_weights,
    prune,
    save_checkpoint,
    set_aside,
    steps_saved,
)
from palavra.training.interrupts import Interrupted, StopRequest, stop_on_signals
from palavra.training.job import TrainingJob, Validation
from palavra.training.loop import PreparedStep, StepReport, prefetch, prepare_steps, train
from palavra.training.monitor import Diverged, Monitor
from palavra.training.out_of_memory import memory_told
from palavra.training.run_directory import Metrics, RunDirectory
from palavra.training.throughput import ThroughputMeter


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How training went: where it stands, the packing it saw, why it stopped before its last step (None: it did
    not)."""

    state: RunState
    packing: PackingTally
    tokens_per_second: float
    stopped: str | None

    @property
    def summary(self) -> TrainingSummary:
        """Return what `run.json` says of it under `training`."""
        return TrainingSummary(
            steps=self.state.step,
            tokens=self.state.tokens,
            seconds=self.state.seconds,
            tokens_per_second=self.tokens_per_second,
            best_step=self.state.best_step,
            final_loss=self.state.smoothed_loss,
            stopped=self.stopped,
        )


class Trainer:
    """One run of a job, from its start or its newest whole checkpoint to its last step."""

    def __init__(self, job: TrainingJob, run: RunDirectory, log: Log):
        self.job, self.run, self.log = job, run, log
        self.metrics = Metrics(run.metrics, log)
        self.optimizers = job.optimizers()
        self.packing = PackingTally(budget=job.budget or 0)
        self.state = RunState(step=0, cursor=Cursor())
        self.monitor = Monitor(job.optimizer.max_lr, job.name_document, job.guessing)
        self._throughput = ThroughputMeter()
        self._improved: Validation | None = None
        self._stopped: str | None = None

    def resume(self, checkpoint: Path | None, skipped: Sequence[tuple[Path, str]]) -> None:
        """Go back to a whole checkpoint, if there is one, and say which damaged ones had to be skipped, both as
        `newest_whole` found them."""
        for folder, problem in skipped:
            kept = set_aside(folder)
            self.log.warn(f"checkpoint {folder.name} is damaged ({problem}): skipped, and kept as {kept.name}")
        if checkpoint is not None:
            state = load_checkpoint(checkpoint, self.job.model, self.optimizers)
            wanted = self.job.optimizer
            if state.optimizer != wanted.name:
                raise PalavraError(
                    f"{checkpoint} holds the state of {state.optimizer or 'another optimizer'}, the recipe says "
                    f"{wanted.name}: resume with the optimizer the run began with"
                )
            self.state = state
            self.packing = PackingTally(**state.packing) if state.packing else self.packing
            self.monitor.smoothed, self.monitor.first = state.smoothed_loss, state.first_loss
            if (state.threads, state.torch) != (torch.get_num_threads(), torch.__version__):
                self.log.warn(
                    f"this checkpoint was made with torch {state.torch} and {state.threads} threads; results "
                    "will be as good, but not bit for bit the same"
                )
        self.log.line(f"resuming at step {self.state.step} of {self.job.loop.steps}")
        # A run that was killed between its early end and its model has nothing left to train.
        self._lose_patience(self.state.step)
        self.metrics.rewind(self.state.step)

    def go(self) -> Outcome:
        """Train to the last step, or until patience ends. Raises Interrupted after a signal, Diverged when the loss is
        lost, NotSaved when the disk has taken no checkpoint yet and refuses one."""
        job, began = self.job, self.state.step
        steps = prepare_steps(
            job.micro_batches(self.state.cursor), job.objective, job.loop, job.compute, self.state.step
        )
        with ExitStack() as stack:
            # On a CPU, the cores that would prepare ahead are those that compute: a thread beside them holds them up.
            ahead = steps if job.compute.device.type == "cpu" else prefetch(steps)
            prepared = stack.enter_context(closing(ahead))
            stop = stack.enter_context(stop_on_signals())
            live = stack.enter_context(self.log.live(job.title, job.loop.steps))
            stack.enter_context(memory_told())
            stack.enter_context(self._checkpoint_told())
            tensorboard = stack.enter_context(_tensorboard(self)) if job.intervals.tensorboard else None
            self._throughput.restart()
            for report in self._reports(prepared):
                self._take(report)
                if report.step == began + 1:
                    self._check_space()
                self._log_when_due(report, live, tensorboard)
                self._validate_when_due(report, tensorboard)
                self._save_when_due(report, stop)
                if self._stopped:
                    break
        return Outcome(
            state=replace(self.state, smoothed_loss=self.monitor.smoothed),
            packing=self.packing,
            tokens_per_second=self.state.tokens / max(self.state.seconds, 1e-9),
            stopped=self._stopped,
        )

    @contextmanager
    def _checkpoint_told(self) -> Iterator[None]:
        """Where the loss is lost, note what is left."""
        try:
            yield
        except Diverged as error:
            if any(self.run.checkpoints.glob("step-*")):
                error.add_note("the last good checkpoint is kept")
            raise

    def keep_best(self) -> None:
        """Give the model the weights of the best validation, where these are not the last ones and are whole."""
        best, last = self.state.best_step, self.state.step
        if best is None or best == last:
            return
        checkpoint = self.run.checkpoints / f"step-{best}"
        problem = damage(checkpoint)
        if problem is None:
            self.log.line(f"validation was best at step {best} of {last}: those weights are kept as the model")
            load_weights(checkpoint, self.job.model)
        else:
            self.log.warn(f"the best checkpoint, {checkpoint.name}, is damaged ({problem}): the last weights are kept")

    def _reports(self, prepared: Iterator[PreparedStep]) -> Iterator[StepReport]:
        """The reports of all stages, one after the other."""
        job, step = self.job, self.state.step
        for stage in job.stages():
            if stage.until <= step or self._stopped:
                continue
            stage.begin()
            yield from train(
                job.model, job.objective, islice(prepared, stage.until - step), self.optimizers, job.schedule,
                job.loop, job.compute, step,
            )  # fmt: skip
            step = stage.until

    def _take(self, report: StepReport) -> None:
        self.monitor.watch(report)
        self._throughput.add(report, self.job.flops(report))
        self.packing.batches += report.micro_batches
        self.packing.tokens += report.tokens
        self.state = replace(
            self.state,
            step=report.step,
            cursor=report.cursor,
            tokens=self.state.tokens + report.tokens * distributed.world_size(),
            documents=self.state.documents + len(report.documents) * distributed.world_size(),
        )

    def _log_when_due(self, report: StepReport, live: LiveLine, tensorboard: Any) -> None:
        job = self.job
        if report.step % job.intervals.log_every and report.step != job.loop.steps:
            live.update(report.step, self._throughput.detail)
            return
        values = {
            **self._throughput.close(report, job),
            "tokens": self.state.tokens,
            "learning_rate": job.optimizer.max_lr * report.lr_multiplier,
            **job.step_values(report),
            "seconds": round(self._settle_seconds(), 3),
        }
        if job.budget:
            values["packing_efficiency"] = round(self.packing.efficiency, 5)
        self._throughput.restart()
        self.metrics.write(MetricLine(kind="train", step=report.step, values=values))
        if tensorboard is not None:
            for name in ("loss", "learning_rate", "tokens_per_second", "gradient_norm"):
                tensorboard.add_scalar(f"train/{name}", values[name], report.step)
        live.update(report.step, self._throughput.detail)

    def _validate_when_due(self, report: StepReport, tensorboard: Any) -> None:
        every, steps = self.job.intervals.eval_every, self.job.loop.steps
        if not every or (report.step % every and report.step != steps):
            return
        with self._throughput.paused():
            self.monitor.settle()  # a lost loss is said as such, not as that of the held-out text
            found = self.job.validate()
        if found is None:
            return
        state = self.state
        if state.best_score is None or (found.score, found.loss) < (state.best_score, state.best_loss):
            self._improved = found
        values = {**found.values, "tokens": self.state.tokens, "seconds": round(self._settle_seconds(), 3)}
        self.metrics.write(MetricLine(kind="valid", step=report.step, values=values))
        if tensorboard is not None:
            for name, value in found.values.items():
                tensorboard.add_scalar(f"valid/{name}", value, report.step)
        self.log.line(f"step {report.step}/{steps}: {found.line}")
        self._lose_patience(report.step)

    def _lose_patience(self, step: int) -> None:
        """Stop early (Prechelt 1998) when as many validations in a row as the job allows brought nothing new."""
        patience, best = self.job.patience, self.state.best_step
        if patience is None or self._improved is not None or best is None or step == self.job.loop.steps:
            return
        if step - best >= patience * (self.job.intervals.eval_every or math.inf):
            self._stopped = f"no better validation in {patience} looks since step {best}"
            self.log.line(f"stopping early: {self._stopped}")

    def _save_when_due(self, report: StepReport, stop: StopRequest) -> None:
        every = self.job.intervals.save_every
        improved, self._improved = self._improved, None
        last = report.step == self.job.loop.steps or self._stopped is not None
        if not (stop or last or improved is not None or (every and report.step % every == 0)):
            return
        self.monitor.settle()
        before = self.state
        if improved is not None:
            self.state = replace(self.state, best_score=improved.score, best_loss=improved.loss, best_step=report.step)
        with self._throughput.paused():
            saved = self._save(ending=bool(stop) or last)
        if not saved:
            # The best is what is on disk: an earlier best checkpoint stays until a better one is.
            self.state = replace(
                self.state, best_score=before.best_score, best_loss=before.best_loss, best_step=before.best_step
            )
        if stop and not last:
            how = "which is saved" if saved else "which could not be saved"
            raise Interrupted(
                f"stopped after step {report.step} of {self.job.loop.steps}, {how}: go on with --resume",
                stop.exit_code,
            )

    def _check_space(self) -> None:
        """Warn when the disk cannot hold the checkpoints to come. Asked after a first step, which makes the optimizer's
        state."""
        if not distributed.is_main() or not self.run.path.is_dir():
            return
        each = checkpoint_bytes(self.job.model, self.optimizers)
        # Those to keep, the best one, and the one that is being written.
        missing = self.job.intervals.keep_last + 2 - len(steps_saved(self.run.checkpoints))
        free = shutil.disk_usage(self.run.path).free
        if free < each * missing:
            self.log.warn(
                f"checkpoints may need {each * missing / 1e9:.2f} GB more ({each / 1e9:.2f} GB each), and the disk of "
                f"{self.run.path} has {free / 1e9:.2f} GB free: make room, or lower train.keep_last "
                f"({self.job.intervals.keep_last})"
            )

    def _save(self, *, ending: bool) -> bool:
        """Write a checkpoint, and say whether it is on disk. A full disk is no reason to lose a run that has an earlier
        one: the next that is due tries again. Raises NotSaved where there is none and the run would go on."""
        if not distributed.is_main():
            return True
        self._settle_seconds()
        tally = self.packing
        packing = {"budget": tally.budget, "batches": tally.batches, "tokens": tally.tokens}
        state = replace(
            self.state,
            packing=packing,
            optimizer=self.job.optimizer.name,
            smoothed_loss=self.monitor.smoothed,
            first_loss=self.monitor.first,
        )
        try:
            save_checkpoint(self.run.checkpoints, self.job.model, self.optimizers, state)
        except OSError as error:
            self._tell_unsaved(state.step, error, going_on=not ending)
            return False
        prune(self.run.checkpoints, self.job.intervals.keep_last, state.best_step)
        return True

    def _tell_unsaved(self, step: int, error: OSError, *, going_on: bool) -> None:
        """Say that a checkpoint is not on disk, and which is. Raises NotSaved where there is none to go back to."""
        earlier = steps_saved(self.run.checkpoints)
        there = f"the last one there is of step {earlier[-1]}" if earlier else "there is no earlier one"
        message = f"checkpoint at step {step} was not written ({error}); {there}"
        self.metrics.write(MetricLine(kind="event", step=step, message=message))
        if going_on and not earlier:
            raise CheckpointError(
                f"{message}: make room on the disk of {self.run.path} (or lift its limit on the size of files), then "
                "--resume"
            )
        self.log.warn(message)

    def _settle_seconds(self) -> float:
        """Seconds of training up to now, over all sessions of the run; kept in the state."""
        self.state = replace(self.state, seconds=self.state.seconds + self._throughput.take_seconds())
        return self.state.seconds


@contextmanager
def _tensorboard(training: Trainer) -> Iterator[Any]:
    """A TensorBoard writer for the run. Raises PalavraError where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PalavraError(
            "train.tensorboard needs the tensorboard package: pip install 'palavra[tensorboard]'"
        ) from None
    with SummaryWriter(str(training.run.path / "tensorboard"), purge_step=training.state.step) as writer:
        yield writer
