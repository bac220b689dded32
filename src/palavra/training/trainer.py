"""The trainer of every run: steps, logging, validation, checkpoints, interruption. Pretraining and fine-tuning differ
only in their `TrainingJob`."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from palavra import distributed
from palavra.data.packing import Cursor, PackingTally
from palavra.errors import PalavraError
from palavra.log import LiveLine, Log
from palavra.run_records.training import MetricLine, TrainingSummary
from palavra.training.checkpoint import RunState, damage, load_checkpoint, load_weights, set_aside, steps_saved
from palavra.training.early_stopping import reason_to_stop
from palavra.training.interrupts import Interrupted, StopRequest, stop_on_signals
from palavra.training.job import TrainingJob, Validation
from palavra.training.loop import PreparedStep, StepReport, prefetch, prepare_steps, train
from palavra.training.monitor import Diverged, Monitor
from palavra.training.out_of_memory import explain_out_of_memory
from palavra.training.run_directory import Metrics, RunDirectory
from palavra.training.run_length import TimeBudget
from palavra.training.saving import CheckpointSaver
from palavra.training.tensorboard import TRAIN_SCALARS, WriteScalars, tensorboard, write_nothing
from palavra.training.throughput import ThroughputMeter


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of training: state, packing, speed, the reason for an early stop (None without one), and by how much the
    score of a validation at the last step was lower than all before (None without one)."""

    state: RunState
    packing: PackingTally
    tokens_per_second: float
    stopped: str | None
    last_gain: float | None = None

    @property
    def summary(self) -> TrainingSummary:
        """Return `training` of `run.json`."""
        return TrainingSummary(
            steps=self.state.step,
            tokens=self.state.tokens,
            seconds=self.state.seconds,
            tokens_per_second=self.tokens_per_second,
            best_step=self.state.best_step,
            final_loss=self.state.smoothed_loss,
            stopped=self.stopped,
        )


@dataclass(frozen=True, kw_only=True)
class UnsavedBest:
    """The best `weights`, kept in memory because their checkpoint could not be written, and the last `saved` state,
    whose best weights are on disk."""

    weights: Mapping[str, Tensor]
    saved: RunState


class Trainer:
    """One run of a job, from its start or a checkpoint to its last step."""

    def __init__(self, job: TrainingJob, run: RunDirectory, log: Log):
        self.job, self.run, self.log = job, run, log
        self.loop = job.loop
        self.metrics = Metrics(run.metrics, log)
        self.optimizers = job.optimizers()
        self.packing = PackingTally(budget=job.micro_batch_tokens or 0)
        self.state = RunState(step=0, cursor=Cursor())
        self.monitor = Monitor(job.optimizer.max_lr, job.name_document, job.chance_loss)
        self._saver = CheckpointSaver(
            run=run, model=job.model, optimizers=self.optimizers, keep_last=job.intervals.keep_last,
            metrics=self.metrics, log=log,
        )  # fmt: skip
        self._meter = ThroughputMeter()
        self._write_scalars: WriteScalars = write_nothing
        self._improved: Validation | None = None
        self._unsaved: UnsavedBest | None = None
        self._unsaved_step: int | None = None  # of the last checkpoint, if it could not be written
        self._stopped: str | None = None
        self._last_gain: float | None = None
        self._budget: TimeBudget | None = None
        self._began = self._elapsed_before = 0.0

    def resume(self, checkpoint: Path | None, skipped: Sequence[tuple[Path, str]]) -> None:
        """Restore the whole checkpoint, if any, and warn of the damaged ones that were skipped, both from
        `newest_whole`."""
        for folder, problem in skipped:
            kept = set_aside(folder)
            self.log.warn(f"checkpoint {folder.name} is damaged ({problem}): skipped, and kept as {kept.name}")
        if checkpoint is not None:
            self._load(checkpoint)
            self._saver.remove_old(self.state)  # of a run that was killed before or while it did so
        self.log.line(f"resuming at step {self.state.step} of {self.loop.steps}")
        # A run that was killed after its early stop, before saving its model, has nothing left to train.
        self._stop_early()
        self.metrics.rewind(self.state.step)

    def _load(self, checkpoint: Path) -> None:
        state = load_checkpoint(checkpoint, self.job.model, self.optimizers)
        wanted = self.job.optimizer
        if state.optimizer != wanted.name:
            raise PalavraError(
                f"{checkpoint} holds the state of {state.optimizer or 'another optimizer'}, the recipe says "
                f"{wanted.name}: resume with the optimizer the run began with"
            )
        self.state = state
        if state.length is not None and state.planned_steps == self.loop.steps:
            self.loop = replace(self.loop, length=state.length)
        self.packing = state.packing or self.packing
        self.monitor.smoothed, self.monitor.first = state.smoothed_loss, state.first_loss
        if (state.threads, state.torch) != (torch.get_num_threads(), torch.__version__):
            self.log.warn(
                f"this checkpoint was made with torch {state.torch} and {state.threads} threads; results "
                "will be as good, but not bit for bit the same"
            )

    def train(self) -> Outcome:
        """Train to the last step or an early stop. Raises Interrupted after a signal, Diverged if the loss diverges,
        OutOfMemory, and CheckpointError if the first checkpoint cannot be written."""
        job, first = self.job, self.state.step + 1
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals())
            live = stack.enter_context(self.log.live(job.title, self.loop.steps))
            stack.enter_context(explain_out_of_memory())
            stack.enter_context(self._name_last_checkpoint())
            folder, enabled = self.run.path / "tensorboard", job.intervals.tensorboard
            self._write_scalars = stack.enter_context(tensorboard(folder, self.state.step, enabled=enabled))
            self._meter.restart(self.state.since_line)
            self._began, self._elapsed_before = time.perf_counter(), self.state.elapsed
            if job.budget_seconds is not None:
                self._budget = TimeBudget(job.budget_seconds, self.state.step, self.state.seconds)
            for report in stack.enter_context(closing(self._reports())):
                self._count(report)
                if report.step == first:
                    self._saver.check_space()
                self._log_when_due(report, live)
                self._validate_when_due(report)
                self._plan_again_when_due(report)
                self._save_when_due(report, stop)
                if self._stopped:
                    break
        self._report_unsaved()
        return Outcome(
            state=replace(self.state, smoothed_loss=self.monitor.smoothed),
            packing=self.packing,
            tokens_per_second=self.state.tokens / max(self.state.seconds, 1e-9),
            stopped=self._stopped,
            last_gain=self._last_gain,
        )

    def keep_best(self) -> None:
        """Load the weights of the best validation, from memory or their checkpoint, unless they are the last ones or
        damaged."""
        best, last = self.state.best_step, self.state.step
        if best is None or best == last:
            return
        if self._unsaved is not None:
            self.log.line(f"validation was best at step {best} of {last}: those weights are kept as the model")
            self.job.model.load_state_dict(self._unsaved.weights)
            return
        checkpoint = self.run.checkpoints / f"step-{best}"
        problem = damage(checkpoint)
        if problem is None:
            self.log.line(f"validation was best at step {best} of {last}: those weights are kept as the model")
            load_weights(checkpoint, self.job.model)
        else:
            self.log.warn(f"the best checkpoint, {checkpoint.name}, is damaged ({problem}): the last weights are kept")

    def _reports(self) -> Generator[StepReport]:
        """Yield the report of every step, stage by stage."""
        *before, last = self.job.stages()
        for stage in (*before, last):
            while not self._stopped and self.state.step < (until := self.loop.steps if stage is last else stage.until):
                stage.begin()
                yield from self._reports_until(until)

    def _reports_until(self, until: int) -> Iterator[StepReport]:
        """Yield the reports of the steps up to `until`, or up to a change of the run's length."""
        job, loop = self.job, self.loop
        with closing(self._prepared_steps()) as prepared:
            part = islice(prepared, until - self.state.step)
            for report in train(job.model, job.objective, part, self.optimizers, loop, job.compute, self.state.step):
                yield report
                if self.loop is not loop:
                    return

    def _prepared_steps(self) -> Generator[PreparedStep]:
        """Return the prepared steps; on a GPU, a background thread prepares them ahead. On a CPU it would slow down
        computation."""
        job, state = self.job, self.state
        steps = prepare_steps(job.micro_batches(state.cursor), job.objective, self.loop, job.compute, state.step)
        return steps if job.compute.device.type == "cpu" else prefetch(steps)

    @contextmanager
    def _name_last_checkpoint(self) -> Iterator[None]:
        """Add a note to Diverged if a good checkpoint is kept."""
        try:
            yield
        except Diverged as error:
            if steps_saved(self.run.checkpoints):
                error.add_note("the last good checkpoint is kept")
            raise

    def _count(self, report: StepReport) -> None:
        self.monitor.watch(report)
        self._meter.add(report, self.job.flops(report))
        self.packing.batches += report.micro_batches
        self.packing.tokens += report.tokens
        self.state = replace(
            self.state,
            step=report.step,
            cursor=report.cursor,
            tokens=self.state.tokens + report.tokens * distributed.world_size(),
            documents=self.state.documents + len(report.documents) * distributed.world_size(),
        )

    def _log_when_due(self, report: StepReport, live: LiveLine) -> None:
        job = self.job
        if report.step % job.intervals.log_every == 0 or report.step == self.loop.steps:
            values = {
                **self._meter.close(report, job),
                "tokens": self.state.tokens,
                "learning_rate": job.optimizer.max_lr * report.lr_multiplier,
                **job.step_values(report),
                "seconds": round(self._settle_seconds(), 3),
            }
            if job.micro_batch_tokens:
                values["packing_efficiency"] = round(self.packing.efficiency, 5)
            self._meter.restart()
            self.metrics.write(MetricLine(kind="train", step=report.step, values=values))
            self._write_scalars("train", report.step, {name: values[name] for name in TRAIN_SCALARS})
        live.update(report.step, f"{report.step}/{self.loop.steps}  {self._meter.detail}", self.loop.steps)

    def _validate_when_due(self, report: StepReport) -> None:
        every, steps = self.job.intervals.eval_every, self.loop.steps
        if not every or (report.step % every and report.step != steps):
            return
        with self._meter.paused():
            self.monitor.settle()  # report divergence before it shows in the held-out loss
            found = self.job.validate()
        if found is None:
            return
        state = self.state
        if state.best_score is not None and report.step == steps:
            self._last_gain = state.best_score - found.score
        if state.best_score is None or (found.score, found.loss) < (state.best_score, state.best_loss):
            self._improved = found
        values = {**found.values, "tokens": state.tokens, "seconds": round(self._settle_seconds(), 3)}
        self.metrics.write(MetricLine(kind="valid", step=report.step, values=values))
        self._write_scalars("valid", report.step, found.values)
        self.log.line(f"step {report.step}/{steps}: {found.line}")
        self._stop_early()

    def _stop_early(self) -> None:
        if self._improved is not None or self.state.step == self.loop.steps:
            return
        self._stopped = reason_to_stop(self.state, self.job.patience, self.job.intervals.eval_every)
        if self._stopped:
            self.log.line(f"stopping early: {self._stopped}")

    def _plan_again_when_due(self, report: StepReport) -> None:
        """Change the run's length where its steps take another time than planned, if the length is a time."""
        if self._budget is None or report.step % self.job.intervals.log_every or report.step == self.loop.steps:
            return
        # The ranks must agree.
        own = torch.tensor([self._settle_seconds(), self._elapsed()], device=self.job.compute.device)
        trained, elapsed = (distributed.all_reduce_sum(own) / distributed.world_size()).tolist()
        length = self.loop.length
        steps = self._budget.look(length, report.step, trained, elapsed)
        if steps is None or steps == length.steps:
            return
        self.loop = replace(self.loop, length=length.changed(report.step, steps))
        assert self._budget.step_seconds
        message = (
            f"a step takes {self._budget.step_seconds * 1000:.0f} ms now: {steps:,} steps instead of {length.steps:,}, "
            f"so that the run keeps its {self._budget.seconds / 60:g} minutes"
        )
        self.log.line(message)
        self.metrics.write(MetricLine(kind="event", step=report.step, message=message))

    def _elapsed(self) -> float:
        """Return the seconds of training with validations and checkpoints so far, over all sessions of the run."""
        return self._elapsed_before + time.perf_counter() - self._began

    def _save_when_due(self, report: StepReport, stop: StopRequest) -> None:
        every, steps = self.job.intervals.save_every, self.loop.steps
        improved, self._improved = self._improved, None
        last = report.step == steps or self._stopped is not None
        if not (stop or last or improved is not None or (every and report.step % every == 0)):
            return
        self.monitor.settle()
        self._settle_seconds()
        before, written = self.state, self._as_saved(self.state)
        if improved is not None:
            self.state = replace(self.state, best_score=improved.score, best_loss=improved.loss, best_step=report.step)
            written = self.state
        with self._meter.paused():
            saved = self._saver.save(self._to_save(written), ending=bool(stop) or last)
        self._unsaved_step = None if saved else report.step
        if improved is not None:
            self._unsaved = None if saved else self._hold(before)
        if stop and not last:
            how = "which is saved" if saved else "which could not be saved"
            raise Interrupted(
                f"stopped after step {report.step} of {steps}, {how}: continue with --resume", stop.exit_code
            )

    def _hold(self, before: RunState) -> UnsavedBest:
        """Keep the present weights, the best ones, which no checkpoint has."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.job.model.state_dict().items()}
        return UnsavedBest(weights=weights, saved=self._as_saved(before))

    def _as_saved(self, state: RunState) -> RunState:
        """Return a state whose best weights are those on disk: a resumed run has no others."""
        if self._unsaved is None:
            return state
        saved = self._unsaved.saved
        return replace(state, best_score=saved.best_score, best_loss=saved.best_loss, best_step=saved.best_step)

    def _report_unsaved(self) -> None:
        """Record the last checkpoint and the best one among what was not written, if they were not."""
        for step in dict.fromkeys((self._unsaved_step, self.state.best_step if self._unsaved else None)):
            if step is not None:
                self.log.lost(self.run.checkpoints / f"step-{step}")

    def _to_save(self, state: RunState) -> RunState:
        return replace(
            state,
            packing=self.packing,
            since_line=self._meter.sums(),
            optimizer=self.job.optimizer.algorithm,
            smoothed_loss=self.monitor.smoothed,
            first_loss=self.monitor.first,
            elapsed=self._elapsed(),
            planned_steps=self.job.loop.steps,
            length=self.loop.length,
        )

    def _settle_seconds(self) -> float:
        """Return the seconds of training so far, over all sessions of the run; kept in the state."""
        self.state = replace(self.state, seconds=self.state.seconds + self._meter.take_seconds())
        return self.state.seconds
