"""Repeated runs: one fine-tuning over several seeds or folds, with the spread of its scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palavra.errors import PalavraError
from palavra.experiments.runs import (
    PlannedRun,
    Repetition,
    evaluation_in,
    read_splits,
    repetition,
    run_all,
    take_model,
    values_of,
)
from palavra.finetuning.job import selection_score
from palavra.log import Log
from palavra.metrics.bootstrap import mean_interval
from palavra.metrics.names import range_of
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.run_records.finetuning import FinetuningEvaluation, RunScores, RunsSummary, ScoreSummary
from palavra.training.run_directory import RunDirectory
from palavra.typed_json import to_json


@dataclass(frozen=True, kw_only=True)
class RepeatedRuns:
    """Finished runs: `directory` holds the best model, `rows` each run's scores by "task/split", `summary` their mean,
    standard deviation and interval, `unwritten` the files besides the models that could not be written."""

    directory: Path
    report: Path
    rows: Mapping[str, Mapping[str, Mapping[str, float]]]
    summary: Mapping[str, Mapping[str, ScoreSummary]]
    unwritten: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the text that the command line prints."""
        found = {"model": str(self.directory), "report": str(self.report), "runs": self.rows, "summary": self.summary}
        return {name: to_json(value) for name, value in found.items()}


def run_seeds(recipe: FinetuneRecipe, seeds: int, out: Path, resume: bool, log: Log) -> RepeatedRuns:
    """Fine-tune on the same examples with `seeds` consecutive seeds, from the recipe's on."""
    splits, first = read_splits(recipe), recipe.train.seed
    planned = [
        PlannedRun(name=f"seed-{seed}", recipe=replace(recipe, train=replace(recipe.train, seed=seed)), splits=splits)
        for seed in range(first, first + seeds)
    ]
    return _repeat(repetition("seed", recipe, splits), planned, out, resume, log)


def run_folds(recipe: FinetuneRecipe, folds: int, out: Path, resume: bool, log: Log) -> RepeatedRuns:
    """Cross-validate: train on all training examples except a fold, and validate on the fold."""
    if folds < 2:
        raise PalavraError(f"--folds is {folds}: it must be at least 2")
    splits = read_splits(recipe)
    if any(split.task.spec.valid for split in splits):
        raise PalavraError("--folds makes its own validation examples: leave --valid out, or use --seeds")
    divided = [split.in_folds(folds, recipe.train.seed) for split in splits]
    planned = [
        PlannedRun(name=f"fold-{fold}", recipe=recipe, splits=[of[fold] for of in divided]) for fold in range(folds)
    ]
    return _repeat(repetition("fold", recipe, splits, folds), planned, out, resume, log)


def _repeat(what: Repetition, planned: Sequence[PlannedRun], out: Path, resume: bool, log: Log) -> RepeatedRuns:
    """Run all, summarize them, and copy the best model to `out`."""
    run = RunDirectory(out)
    with run.locked():
        evaluations = {one.name: evaluation_in(folder) for one, folder in run_all(what, planned, run, resume, log)}
        rows = {name: values_of(found) for name, found in evaluations.items()}
        summary = {place: _summary([row[place] for row in rows.values()]) for place in next(iter(rows.values()))}
        best = max(evaluations, key=lambda name: _selection_score(evaluations[name]))
        take_model(out / best, run)
        runs = RunsSummary(
            over=f"{what.over}s",
            best=best,
            rows=tuple(RunScores(name=name, directory=name, values=values) for name, values in rows.items()),
            summary=summary,
        )
        among = {**evaluations[best].chosen_among, f"{what.over}s": len(rows)}
        evaluation = replace(evaluations[best], runs=runs, chosen_among=among)
        run.write_json("evaluation.json", evaluation)
        for warning in evaluation.warnings:
            log.warn(warning)
        for place, metrics in summary.items():
            said = ", ".join(f"{name} {of.mean:.4f}{_spread(of)}" for name, of in metrics.items())
            log.line(f"{place}, {len(rows)} {what.over}s, mean ± standard deviation [95% interval]: {said}")
        report = write_report(out)
        log.line(f"best: {best}   model: {out}   report: {report}")
        return RepeatedRuns(directory=out, report=report, rows=rows, summary=summary, unwritten=tuple(log.unwritten))


def _summary(runs: Sequence[Mapping[str, float]]) -> dict[str, ScoreSummary]:
    """Return each score's mean over the runs in which it is defined (a class may be absent)."""
    names = dict.fromkeys(name for values in runs for name in values)
    return {name: _mean(name, [values[name] for values in runs if name in values]) for name in names}


def _mean(name: str, values: Sequence[float]) -> ScoreSummary:
    # The mean of several tasks sums scores and negated errors.
    bounds = (-math.inf, math.inf) if name == "mean" else range_of(name)
    mean, std, interval = mean_interval(values, bounds=bounds)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return ScoreSummary(mean=mean, std=std, low=low, high=high, runs=len(values))


def _spread(of: ScoreSummary) -> str:
    if of.std is None:
        return ""
    return f" ± {of.std:.4f}" + ("" if of.low is None else f" [{of.low:.4f}, {of.high:.4f}]")


def _selection_score(evaluation: FinetuningEvaluation) -> tuple[float, float]:
    """Return the values that selected a finished run's weights: the mean over tasks of the selection score on
    validation examples, and the negated mean loss for ties."""
    splits = [(task.selection_metric, task.splits) for task in evaluation.tasks]
    validated = [(metric, of.get("valid") or next(iter(of.values()))) for metric, of in splits]
    reached = [selection_score(metric, scores.values) for metric, scores in validated]
    losses = [selection_score("loss", scores.values) for _, scores in validated]
    return float(np.mean(reached)), float(np.mean(losses))
