"""The training part of `pretrain`: steps, logging, validation, checkpoints, interruption."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from palavra import distributed
from palavra.data.loader import Documents, load
from palavra.data.packing import Cursor, Packer, PackingTally
from palavra.errors import PalavraError
from palavra.inference.evaluation import Evaluation, HeldOut, evaluate_masked
from palavra.log import LiveLine, Log
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel
from palavra.model.transformer import matmul_flops
from palavra.objectives.masked import MaskedObjective, Vocabulary
from palavra.recipe import Recipe
from palavra.run.directory import Metrics, RunDirectory
from palavra.training.checkpoint import RunState, load_checkpoint, prune, save_checkpoint, set_aside
from palavra.training.interrupts import Interrupted, StopRequest, stop_on_signals
from palavra.training.loop import LoopConfig, StepReport, prefetch, prepare_steps, train
from palavra.training.monitor import Monitor
from palavra.training.optimizers import Optimizers, build_optimizers


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything a pretraining run works with, resolved."""

    recipe: Recipe
    model: MaskedLanguageModel
    objective: MaskedObjective
    vocabulary: Vocabulary
    compute: Compute
    documents: Documents
    packer: Packer
    cls_id: int
    sep_id: int
    held_out: HeldOut | None
    name_document: Callable[[int], str]
    matmul_peak: float

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        assert self.recipe.train.steps
        return self.recipe.train.steps

    def loop_config(self) -> LoopConfig:
        """What the loop needs of the recipe."""
        recipe = self.recipe
        assert recipe.model.context
        assert recipe.train.batch_tokens and recipe.train.micro_batch_tokens
        each = recipe.train.micro_batch_tokens * distributed.world_size()
        return LoopConfig(
            steps=self.steps,
            accumulate=max(1, recipe.train.batch_tokens // each),
            clip=recipe.optimizer.clip,
            seed=recipe.train.seed,
            row_width=recipe.model.context,
        )

    def validate(self, limit: int | None, counts: npt.NDArray[np.integer] | None = None) -> Evaluation | None:
        """Evaluate on the held-out text, if there is any."""
        if self.held_out is None:
            return None
        return evaluate_masked(self.model, self.held_out, self.vocabulary, self.compute, limit=limit, counts=counts)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How training went: where it stands, and the packing it saw."""

    state: RunState
    packing: PackingTally
    tokens_per_second: float


class Training:
    """One pretraining run, from its start or its newest whole checkpoint to its last step."""

    def __init__(self, task: Task, run: RunDirectory, log: Log):
        self.task, self.run, self.log = task, run, log
        self.metrics = Metrics(run.metrics, log)
        assert task.recipe.train.batch_tokens
        self.optimizers: Optimizers = build_optimizers(task.model.named_parameters(), task.recipe.optimizer)
        budget = task.recipe.train.micro_batch_tokens or task.recipe.train.batch_tokens
        self.packing = PackingTally(budget=budget)
        self.state = RunState(step=0, cursor=Cursor())
        self.monitor = Monitor(task.recipe.optimizer.peak_rate, task.name_document, math.log(task.vocabulary.size))
        self._window = _Window()
        self._improved: float | None = None

    def resume(self, checkpoint: Path | None, skipped: Sequence[tuple[Path, str]]) -> None:
        """Go back to a whole checkpoint, if there is one, and say which damaged ones had to be skipped, both as
        `newest_whole` found them."""
        for folder, problem in skipped:
            kept = set_aside(folder)
            self.log.warn(f"checkpoint {folder.name} is damaged ({problem}): skipped, and kept as {kept.name}")
        if checkpoint is not None:
            state = load_checkpoint(checkpoint, self.task.model, self.optimizers)
            wanted = self.task.recipe.optimizer
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
        self.log.line(f"resuming at step {self.state.step} of {self.task.steps}")
        self.metrics.rewind(self.state.step)

    def go(self) -> Outcome:
        """Train to the last step. Raises Interrupted after a signal, Diverged when the loss is lost."""
        task, config = self.task, self.task.loop_config()
        packed = load(
            task.documents, task.packer, task.cls_id, task.sep_id, self.state.cursor,
            rank=distributed.rank(), ranks=distributed.world_size(),
        )  # fmt: skip
        prepared = prefetch(prepare_steps(packed, task.objective, config, task.compute, self.state.step))
        reports = train(
            task.model, task.objective, prepared, self.optimizers, task.recipe.schedule, config, task.compute,
            self.state.step,
        )  # fmt: skip
        with ExitStack() as stack:
            stack.callback(prepared.close)  # type: ignore[attr-defined]
            stop = stack.enter_context(stop_on_signals())
            live = stack.enter_context(self.log.live("pretraining", task.steps))
            tensorboard = stack.enter_context(_tensorboard(self)) if task.recipe.train.tensorboard else None
            self._window.restart()
            for report in reports:
                self._take(report)
                self._log_when_due(report, live, tensorboard)
                self._validate_when_due(report, tensorboard)
                self._save_when_due(report, stop)
        final = replace(self.state, smoothed_loss=self.monitor.smoothed)
        return Outcome(state=final, packing=self.packing, tokens_per_second=self._overall_rate())

    def _take(self, report: StepReport) -> None:
        self.monitor.watch(report)
        self._window.add(report, self.task)
        self.packing.batches += self.task.loop_config().accumulate
        self.packing.tokens += report.tokens
        self.state = replace(
            self.state,
            step=report.step,
            cursor=report.cursor,
            tokens=self.state.tokens + report.tokens * distributed.world_size(),
        )

    def _log_when_due(self, report: StepReport, live: LiveLine, tensorboard: Any) -> None:
        train_config = self.task.recipe.train
        if report.step % train_config.log_every and report.step != self.task.steps:
            live.update(report.step, self._window.detail)
            return
        values = self._window.close(report, self.task, self.state)
        values = {
            **values,
            "learning_rate": self.task.recipe.optimizer.peak_rate * report.learning_rate_share,
            "masked_share": self.task.recipe.masking.share_at((report.step - 1) / self.task.steps),
            "packing_efficiency": round(self.packing.efficiency, 5),
            "seconds": round(self._settle_seconds(), 3),
        }
        self._window.restart()
        self.metrics.write("train", report.step, values)
        if tensorboard is not None:
            for name in ("loss", "learning_rate", "tokens_per_second", "gradient_norm"):
                tensorboard.add_scalar(f"train/{name}", values[name], report.step)
        live.update(report.step, self._window.detail)

    def _validate_when_due(self, report: StepReport, tensorboard: Any) -> None:
        every = self.task.recipe.train.eval_every
        if self.task.held_out is None or not every or (report.step % every and report.step != self.task.steps):
            return
        with self._window.paused():
            found = self.task.validate(self.task.recipe.train.eval_tokens)
        assert found is not None
        if self.state.best_loss is None or found.loss < self.state.best_loss:
            self._improved = found.loss
        self.metrics.write(
            "valid", report.step,
            {"loss": found.loss, "perplexity": found.perplexity, "accuracy": found.accuracy,
             "accuracy_at_5": found.accuracy_at_5, "tokens": self.state.tokens,
             "seconds": round(self._settle_seconds(), 3)},
        )  # fmt: skip
        if tensorboard is not None:
            tensorboard.add_scalar("valid/loss", found.loss, report.step)
            tensorboard.add_scalar("valid/accuracy", found.accuracy, report.step)
        self.log.line(
            f"step {report.step}/{self.task.steps}: validation loss {found.loss:.4f}, "
            f"masked accuracy {found.accuracy:.1%}"
        )

    def _save_when_due(self, report: StepReport, stop: StopRequest) -> None:
        every = self.task.recipe.train.save_every
        improved, self._improved = self._improved, None
        last = report.step == self.task.steps
        if not (stop or last or improved is not None or (every and report.step % every == 0)):
            return
        self.monitor.settle()
        before = self.state
        if improved is not None:
            self.state = replace(self.state, best_loss=improved, best_step=report.step)
        with self._window.paused():
            saved = self._save()
        if not saved:
            # The best is what is on disk: an earlier best checkpoint stays until a better one is.
            self.state = replace(self.state, best_loss=before.best_loss, best_step=before.best_step)
        if stop and not last:
            how = "which is saved" if saved else "which could not be saved"
            raise Interrupted(
                f"stopped after step {report.step} of {self.task.steps}, {how}: go on with --resume", stop.exit_code
            )

    def _save(self) -> bool:
        """Write a checkpoint, and say whether it is on disk. A full disk is no reason to lose the run: the next
        one that is due tries again."""
        if not distributed.is_main():
            return True
        self._settle_seconds()
        tally = self.packing
        packing = {"budget": tally.budget, "batches": tally.batches, "tokens": tally.tokens}
        state = replace(
            self.state,
            packing=packing,
            optimizer=self.task.recipe.optimizer.name,
            smoothed_loss=self.monitor.smoothed,
            first_loss=self.monitor.first,
        )
        try:
            save_checkpoint(self.run.checkpoints, self.task.model, self.optimizers, state)
        except OSError as error:
            message = f"checkpoint at step {state.step} was not written ({error}); earlier ones are whole"
            self.log.warn(message)
            self.metrics.write("event", state.step, {"message": message})
            return False
        prune(self.run.checkpoints, self.task.recipe.train.keep, state.best_step)
        return True

    def _settle_seconds(self) -> float:
        """Seconds of training up to now, over all sessions of the run; kept in the state."""
        self.state = replace(self.state, seconds=self.state.seconds + self._window.take_seconds())
        return self.state.seconds

    def _overall_rate(self) -> float:
        return self.state.tokens / max(self.state.seconds, 1e-9)


class _Window:
    """What happened since the last log line. Reads losses from the device only when closed."""

    def __init__(self) -> None:
        self.detail = ""
        self.restart()

    def restart(self) -> None:
        """Begin anew, now."""
        self._began = time.perf_counter()
        self._lost = self._settled = 0.0
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._labelled = self._tokens = 0
        self._flops = 0.0

    def add(self, report: StepReport, task: Task) -> None:
        """Count one step."""
        self._losses.append(report.loss)
        self._norms.append(report.gradient_norm)
        self._tokens += report.tokens
        self._labelled += report.labelled
        assert task.recipe.model.context
        self._flops += matmul_flops(
            task.model.config,
            report.tokens,
            report.labelled,
            min(task.recipe.model.context, _mean_length(task)),
        )

    def paused(self) -> "_Pause":
        """Time spent in the block is not training time."""
        return _Pause(self)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began - self._lost

    def take_seconds(self) -> float:
        """Seconds since the window began, less those taken before."""
        elapsed = self._elapsed()
        taken, self._settled = elapsed - self._settled, elapsed
        return taken

    def close(self, report: StepReport, task: Task, state: RunState) -> dict[str, Any]:
        """The values of a log line."""
        task.compute.synchronize()
        elapsed = max(1e-9, self._elapsed())
        loss = float(torch.stack(self._losses).mean())
        norm = float(torch.stack(self._norms).mean())
        rate = self._tokens / elapsed
        peak = self._flops / elapsed / task.matmul_peak if task.matmul_peak else None
        self.detail = f"{report.step}/{task.steps}  loss {loss:.3f}  {rate:,.0f} tokens/s" + (
            f"  {peak:.0%} of peak" if peak else ""
        )
        return {
            "loss": loss,
            "gradient_norm": norm,
            "tokens": state.tokens,
            "tokens_per_second": round(rate, 1),
            "peak_share": None if peak is None else round(peak, 4),
        }


class _Pause:
    def __init__(self, window: _Window):
        self._window = window

    def __enter__(self) -> None:
        self._at = time.perf_counter()

    def __exit__(self, *unused: object) -> None:
        self._window._lost += time.perf_counter() - self._at


def _mean_length(task: Task) -> int:
    """Tokens of a typical piece, which is what a token of a global layer attends to."""
    return max(1, task.packer.epoch_tokens // task.packer.epoch_pieces)


@contextmanager
def _tensorboard(training: Training) -> Iterator[Any]:
    """A TensorBoard writer for the run. Raises PalavraError where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PalavraError(
            "train.tensorboard needs the tensorboard package: pip install 'palavra[tensorboard]'"
        ) from None
    with SummaryWriter(str(training.run.path / "tensorboard"), purge_step=training.state.step) as writer:
        yield writer
