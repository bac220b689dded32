"""Learning curves: how good a model gets with few labels and with many, pretrained and from scratch (C-L5)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from palavra.finetuning.run import finetune_splits
from palavra.finetuning.run_info import interval_of
from palavra.finetuning.splits import Split
from palavra.log import Log
from palavra.recipe import FinetuneConfig, FinetuneRecipe
from palavra.training.run_directory import RunDirectory

# Few examples need more than the usual passes: a run makes at least so many steps.
FEWEST_STEPS = 150


@dataclass(frozen=True, kw_only=True)
class Point:
    """The test score of a model trained on so many examples, and its bootstrap interval where there is one."""

    examples: int
    score: float
    low: float | None
    high: float | None


def learning_curve(
    recipe: FinetuneRecipe, split: Split, sizes: Sequence[int], out: Path, log: Log
) -> Mapping[str, list[Point]]:
    """Fine-tune the recipe's model, and one of the same sizes from scratch, on growing parts of the training examples;
    the larger parts hold the smaller ones. Runs go to folders in `out`, the curves to `learning_curve.json` there."""
    order = np.random.default_rng([recipe.train.seed, 12]).permutation(len(split.train))
    curves: dict[str, list[Point]] = {"pretrained": [], "from scratch": []}
    metric = split.task.scorer.metrics[0]
    for size in sizes:
        part = split.trained_on([split.train[i] for i in np.sort(order[:size]).tolist()])
        for name, points in curves.items():
            sized = replace(recipe, from_scratch=name == "from scratch", train=_long_enough(recipe, len(part.train)))
            folder = out / f"{name.replace(' ', '-')}-{len(part.train)}"
            scores = finetune_splits(sized, [part], folder, Log(quiet=True)).scores[split.task.spec.name]["test"]
            interval = interval_of(scores)
            points.append(
                Point(
                    examples=len(part.train),
                    score=scores.values.get(metric, math.nan),
                    low=interval.low if interval else None,
                    high=interval.high if interval else None,
                )
            )
            log.line(f"{len(part.train):>6,} labels, {name:<12}  {metric} {points[-1].score:.1%}")
    _write(curves, metric, out)
    return curves


def _long_enough(recipe: FinetuneRecipe, examples: int) -> FinetuneConfig:
    """The recipe's epochs, or as many more as make the fewest steps; five validations."""
    steps_an_epoch = max(1, -(-examples // recipe.train.batch_size))
    epochs = max(recipe.train.epochs, FEWEST_STEPS / steps_an_epoch)
    return replace(recipe.train, epochs=epochs, eval_every=max(1, round(epochs * steps_an_epoch / 5)))


def _write(curves: Mapping[str, Sequence[Point]], metric: str, out: Path) -> None:
    series = [{"name": name, "points": [vars(point) for point in points]} for name, points in curves.items()]
    RunDirectory(out).write_json("learning_curve.json", {"metric": metric, "series": series})
