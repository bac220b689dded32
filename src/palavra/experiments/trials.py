"""The trials of a sweep: Optuna samples, stores and prunes them; each is a fine-tuning run in its own folder."""

import errno
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from palavra.errors import PalavraError
from palavra.experiments.search_space import Space, apply, combinations, effective, own_values, typed
from palavra.files import own_copy
from palavra.finetuning.job import FinetuningJob
from palavra.finetuning.run import finetune_splits
from palavra.finetuning.splits import Split, read_split
from palavra.log import Log
from palavra.output import check, discard
from palavra.recipe import FinetuneRecipe
from palavra.run_records.experiments import SweepSummary, SweepTrial
from palavra.training.interrupts import Interrupted, stop_on_signals
from palavra.training.job import Validation
from palavra.training.monitor import Diverged
from palavra.training.out_of_memory import OutOfMemory
from palavra.training.run_directory import RunDirectory

STATES: Mapping[str, Literal["complete", "pruned", "failed"]] = {
    "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"
}  # fmt: skip

# Pruning starts after this many finished trials, and never at a trial's first evaluation, because some settings (few
# layers, LoRA) start slowly.
TRIALS_BEFORE_PRUNING, EVALUATIONS_BEFORE_PRUNING = 5, 1
# Random trials before the sampler's model starts.
RANDOM_TRIALS = 8
# With fewer finished trials, parameter importances are noise.
FEWEST_FOR_IMPORTANCES = 5
# Attempts to draw an untried combination.
ATTEMPTS = 50


@contextmanager
def open_study(run: RunDirectory, errors: bool) -> Iterator[Study]:
    """Open Optuna's storage of the sweep: SQLite, whose transactions survive a kill."""
    path = run.study
    own_copy(path)
    storage = None
    try:
        storage = optuna.storages.RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())
        study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="minimize" if errors else "maximize",
            pruner=optuna.pruners.MedianPruner(TRIALS_BEFORE_PRUNING, n_warmup_steps=EVALUATIONS_BEFORE_PRUNING + 1),
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        problem = " ".join(str(error).split())[:200]
        raise PalavraError(f"{path} cannot be used ({problem}): start anew in another --out") from None
    try:
        yield study
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        problem = " ".join(str(error).split())[:200]
        raise OSError(errno.EIO, f"{problem}: free space on the disk, then --resume", str(path)) from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


class TrialEvaluations:
    """The evaluations of a trial. `sign` converts a score (lower is better) to the metric's value."""

    def __init__(self, trial: Trial, sign: float, say: Callable[[str], None]):
        self._trial, self._sign, self._say = trial, sign, say
        self.scores: list[float] = []

    @property
    def best(self) -> float:
        """Return the best value; nan if no score was defined."""
        numbers = [score for score in self.scores if math.isfinite(score)]
        return self._sign * min(numbers) if numbers else math.nan

    def add(self, job: FinetuningJob, found: Validation) -> None:
        """Report a validation to the trial. Raises TrialPruned if other trials were better at the same point."""
        expected = math.ceil(job.loop.steps / (job.intervals.eval_every or job.loop.steps))
        self.scores.append(found.score)
        # Optuna treats nan as missing, but would calculate with an infinite score.
        self._trial.report(self._sign * found.score if math.isfinite(found.score) else math.nan, len(self.scores))
        self._say(f"{len(self.scores)} of {expected}: {found.line}")
        # A finished trial is not pruned.
        if len(self.scores) < expected and self._trial.should_prune():
            raise optuna.TrialPruned


class Trials:
    """The finished and future trials of a sweep. `settled` is the recipe with its default learning rate; `metric` names
    the optimized score."""

    def __init__(
        self,
        recipe: FinetuneRecipe,
        settled: FinetuneRecipe,
        space: Space,
        splits: Sequence[Split],
        study: Study,
        metric: str,
        run: RunDirectory,
        log: Log,
    ):
        self.recipe, self.space, self.splits = recipe, space, splits
        self.study, self.run, self.log, self.metric = study, run, log, metric
        self._own = own_values(settled, space)
        self._sign = 1.0 if study.direction.name == "MINIMIZE" else -1.0

    def go(self, trials: int, minutes: float | None) -> None:
        """Run trials until there are as many as requested, time is up, or every combination was tried."""
        self._forget_unfinished()
        began, done = time.monotonic(), len(self._done())
        for number in range(trials):
            check(self.folder(number), "run")
        if done:
            self.log.line(f"{done} trials are finished already")
            self._tidy()
        discard(self.folder(done), "run")
        with stop_on_signals() as stop, self.log.live("sweep", trials) as live:
            for number in range(done, trials):
                if minutes is not None and number > done and time.monotonic() - began > 60 * minutes:
                    self.log.line(f"{minutes:g} minutes are over after {number} of {trials} trials")
                    break
                trial = self._ask(number)
                if trial is None:
                    self.log.line(f"nothing new is left to try after {number} trials")
                    break
                self._try(trial, number)
                self._tidy()
                live.update(number + 1)
                if stop:  # in the last step of the trial, or after it
                    raise Interrupted(
                        f"stopped after trial {number}; {number + 1} trials are finished: continue with --resume",
                        stop.exit_code,
                    )

    def finished(self) -> list[SweepTrial]:
        """Return the finished trials, numbered without gaps even after interruptions."""
        return [
            SweepTrial(
                number=number,
                state=STATES[trial.state.name],
                value=_finite(trial.value) if trial.state.name != "FAIL" else None,
                params=typed(self.recipe, dict(trial.params)),
                seconds=round(trial.duration.total_seconds(), 3) if trial.duration else 0.0,
                evaluations=tuple(
                    _finite(trial.intermediate_values[step]) for step in sorted(trial.intermediate_values)
                ),
            )
            for number, trial in enumerate(self._done())
        ]

    def _done(self) -> list[FrozenTrial]:
        """Return the trials that need not be run again; interrupted trials are failures without a reason."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.name in ("COMPLETE", "PRUNED") or (trial.state.name == "FAIL" and "why" in trial.user_attrs)
        ]

    def _forget_unfinished(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name == "RUNNING":
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self, number: int) -> Trial | None:
        """Return a trial with untried values; None if repeated draws find no new combination.

        The sampler is reseeded for each trial, so that a resumed sweep draws the same values as an uninterrupted one.
        """
        tried = [trial.params for trial in self._done()]
        if len(tried) >= combinations(self.space):
            return None
        for attempt in range(ATTEMPTS):
            seed = (self.recipe.train.seed * 1_000_003 + number * ATTEMPTS + attempt) % 2**32
            if attempt == 0:
                self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
            else:
                self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
            if number == attempt == 0 and not any(trial.state.name == "WAITING" for trial in self.study.trials):
                self.study.enqueue_trial(self._own)
            trial = self.study.ask(dict(self.space))
            if trial.params not in tried:
                return trial
            self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _try(self, trial: Trial, number: int) -> None:
        """Run a trial in its own folder, and store its result."""
        folder, values, quiet = self.folder(number), dict(trial.params), Log(quiet=True)
        discard(folder, "run")
        self.log.line(f"trial {number}: {self.shown(typed(self.recipe, values))}")
        evaluations = TrialEvaluations(trial, self._sign, lambda said: self.log.line(f"trial {number}, {said}"))
        try:
            recipe = effective(apply(self.recipe, values))
            finetune_splits(recipe, self._splits(recipe), folder, quiet, evaluations.add)
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            self.log.line(f"trial {number} is pruned: others were better after as many evaluations")
        except (Diverged, OutOfMemory, torch.OutOfMemoryError) as error:
            self._fail(trial, number, str(error))
        except (Interrupted, KeyboardInterrupt) as stopped:
            raise Interrupted(
                f"stopped in trial {number}; {number} trials are finished: continue with --resume",
                getattr(stopped, "exit_code", 128 + signal.SIGINT),
            ) from None
        except PalavraError as error:
            raise PalavraError(f"trial {number} ({self.shown(typed(self.recipe, values))}): {error}") from error
        else:
            if math.isnan(evaluations.best):
                self._fail(trial, number, "no validation score is a number")
            else:
                self.study.tell(trial, evaluations.best)
        for path in quiet.unwritten:
            self.log.warn(f"trial {number}: {path} could not be written")
            self.log.lost(Path(path))

    @staticmethod
    def shown(params: Mapping[str, Any]) -> str:
        """Return settings in a line."""
        return ", ".join(f"{key} {of:.3g}" if isinstance(of, float) else f"{key} {of}" for key, of in params.items())

    def _fail(self, trial: Trial, number: int, why: str) -> None:
        trial.set_user_attr("why", why)
        self.study.tell(trial, state=TrialState.FAIL)
        self.log.warn(f"trial {number} failed: {why}")

    def _splits(self, recipe: FinetuneRecipe) -> list[Split]:
        """Return a trial's examples without test examples; tasks with searched fields are read again."""
        found = []
        for spec, before, split in zip(recipe.tasks, self.recipe.tasks, self.splits, strict=True):
            own = split if spec == before else read_split(spec, self.recipe.train.seed)
            found.append(replace(own, test=[]))
        return found

    def folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.run.path / f"trial-{number}"

    def _tidy(self) -> None:
        """Delete checkpoints and all weights but the best trial's, and write sweep.json."""
        summary = self.summary()
        for trial in summary.trials:
            folder = self.folder(trial.number)
            RunDirectory(folder).drop_checkpoints()
            if trial.number != summary.best:
                (folder / "model.safetensors").unlink(missing_ok=True)
        self.run.write_json("sweep.json", summary)

    def summary(self) -> SweepSummary:
        """Return the content of `sweep.json`."""
        trials = self.finished()
        complete = [
            (self._sign * one.value, one.number) for one in trials if one.state == "complete" and one.value is not None
        ]
        return SweepSummary(
            direction="minimize" if self._sign > 0 else "maximize",
            metric=self.metric,
            trials=tuple(trials),
            best=min(complete)[1] if complete else None,
            importances=self.importances(),
        )

    def importances(self) -> Mapping[str, float]:
        """Return the fraction of the variance between trials that each setting explains (PED-ANOVA, Watanabe et al.
        2023, arXiv:2304.10255, as Optuna computes it); empty if trials are too few or all alike."""
        values = [trial.value for trial in self.finished() if trial.state == "complete"]
        if len(values) < FEWEST_FOR_IMPORTANCES or len(set(values)) < 2:
            return {}
        found = optuna.importance.get_param_importances(self.study)
        return {key: float(of) for key, of in found.items()} if all(map(math.isfinite, found.values())) else {}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
