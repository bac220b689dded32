"""Learning curves: scores by the number of labelled examples, pretrained and from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palavra.errors import PalavraError
from palavra.experiments.runs import PlannedRun, evaluation_in, read_splits, repetition, run_all, take_model
from palavra.finetuning.splits import Split
from palavra.log import Log
from palavra.recipe import FinetuneRecipe
from palavra.report import write_report
from palavra.run_records.experiments import CurvePoint, CurveSeries, LearningCurve
from palavra.training.run_directory import RunDirectory
from palavra.typed_json import to_json

# Few examples need more epochs: a run makes at least this many steps.
FEWEST_STEPS = 150
SERIES = ("pretrained", "from scratch")


@dataclass(frozen=True, kw_only=True)
class LearningCurveRuns:
    """A finished learning curve. `directory` holds the model of `best`, the folder of the run that fine-tuned the
    pretrained model on the most examples."""

    directory: Path
    best: Path
    report: Path
    curve: LearningCurve
    unwritten: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the text that the command line prints."""
        return {"model": str(self.directory), "report": str(self.report), **to_json(self.curve)}


def run_learning_curve(
    recipe: FinetuneRecipe, sizes: Sequence[int], out: Path, log: Log, *, resume: bool = False
) -> LearningCurveRuns:
    """Fine-tune the recipe's model, and one of the same size from scratch, on growing parts of the training examples,
    and score each on the test examples.

    `sizes` are numbers of training examples, capped at all of them (default: 100, 1,000, ... and all). Larger parts
    contain the smaller ones. Runs go to folders of `out`, the curves to `learning_curve.json` there. Raises
    PalavraError for several tasks, no test examples, or a size below 1.
    """
    if len(recipe.tasks) > 1:
        raise PalavraError("a learning curve needs exactly one task: give one")
    (split,) = splits = read_splits(recipe)
    if not split.test:
        raise PalavraError("a learning curve needs test examples: add --test FILE")
    if any(size < 1 for size in sizes):
        raise PalavraError(f"a learning curve on {min(sizes)} examples: sizes must be at least 1")
    every = len(split.train)
    powers_of_ten = (10**power for power in range(2, len(str(every))) if 10**power < every)
    sizes = sorted({min(size, every) for size in sizes or (*powers_of_ten, every)})
    order = np.random.default_rng([recipe.train.seed, 12]).permutation(every)
    parts = [split.trained_on([split.train[i] for i in np.sort(order[:size]).tolist()]) for size in sizes]
    planned = [_planned(recipe, part, name) for part in parts for name in SERIES]
    run, metric, quiet = RunDirectory(out), split.task.scorer.metrics[0], Log(quiet=True)
    points: dict[str, list[CurvePoint]] = {name: [] for name in SERIES}
    with run.locked():
        for one, folder in run_all(repetition("size", recipe, splits), planned, run, resume, quiet):
            name, point = SERIES[one.recipe.from_scratch], _point(one.splits[0], folder)
            points[name].append(point)
            score = "not defined" if point.score is None else f"{point.score:.1%}"
            log.line(f"{point.examples:>6,} labels, {name:<12}  {metric} {score}")
        curve = LearningCurve(
            metric=metric, series=tuple(CurveSeries(name=name, points=tuple(of)) for name, of in points.items())
        )
        run.write_json("learning_curve.json", curve)
        best = out / planned[-2].name
        take_model(best, run)
        run.write_json("evaluation.json", evaluation_in(best))
        unwritten = tuple(quiet.unwritten)
        return LearningCurveRuns(directory=out, best=best, report=write_report(out), curve=curve, unwritten=unwritten)


def _planned(recipe: FinetuneRecipe, part: Split, name: str) -> PlannedRun:
    """Return the run on a part: the recipe's epochs, or more to reach the fewest steps; five validations."""
    steps_an_epoch = max(1, -(-len(part.train) // recipe.train.batch_size))
    epochs = max(recipe.train.passes(steps_an_epoch), FEWEST_STEPS / steps_an_epoch)
    train = replace(recipe.train, epochs=epochs, eval_every=max(1, round(epochs * steps_an_epoch / 5)))
    sized = replace(recipe, from_scratch=name == SERIES[1], train=train)
    return PlannedRun(name=f"{name.replace(' ', '-')}-{len(part.train)}", recipe=sized, splits=[part])


def _point(part: Split, folder: Path) -> CurvePoint:
    scores = evaluation_in(folder).tasks[0].splits["test"]
    low, high = (scores.interval.low, scores.interval.high) if scores.interval else (None, None)
    return CurvePoint(examples=len(part.train), score=scores.values.get(scores.main), low=low, high=high)
