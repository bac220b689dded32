"""The files of a fine-tuning run: `run.json` and `evaluation.json`, whose details the report reads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from palavra.run_records.training import Scalar, TrainingSummary
from palavra.typed_json import Count, other_keys


@dataclass(frozen=True, kw_only=True)
class FinetunedModel:
    """The pretrained model of a fine-tuning run; `parameters` include the new heads."""

    pretrained: str
    pretrained_with: str | None
    former_head: str | None = None
    family: str
    num_layers: Count
    hidden_size: Count
    num_heads: Count
    context: Count
    vocab_size: Count
    parameters: Count


@dataclass(frozen=True, kw_only=True)
class FinetunedTask:
    """A task of a fine-tuning run: `examples` by split, what the kind counts in `data`, the `head`'s configuration,
    and what was left out of the sources, `skipped`."""

    name: str
    kind: str
    examples: Mapping[str, Count]
    data: Mapping[str, object]
    truncated: Count
    head: Mapping[str, object]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinetuningRun:
    """`run.json` of a fine-tuning run; `training` is added at the end."""

    run: Literal["fine-tuning"]
    environment: Mapping[str, Scalar]
    model: FinetunedModel
    tasks: tuple[FinetunedTask, ...]
    strategy: Mapping[str, Scalar]
    examples_hash: str
    training: TrainingSummary | None = None


@dataclass(frozen=True, kw_only=True)
class TargetRange:
    """The training values of a regression target."""

    lowest: float
    mean: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """`FinetunedTask.data`: how often each label, span or number of choices occurs, target ranges, other counts."""

    labels: Mapping[str, Count] = field(default_factory=dict)
    spans: Mapping[str, Count] = field(default_factory=dict)
    choices: Mapping[str, Count] = field(default_factory=dict)
    targets: Mapping[str, TargetRange] = field(default_factory=dict)
    others: Mapping[str, object] = other_keys()


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval from `low` to `high`, from `samples` resamples or values."""

    low: float
    high: float
    level: float
    samples: Count


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """The scores of a task on a split: `main` names the kind's own score, whose `interval` is one of `intervals`."""

    main: str
    values: Mapping[str, float]
    interval: Interval | None
    intervals: Mapping[str, Interval]
    details: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The scores of a prediction without a language model."""

    name: str
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """The scores of a task by split; `selection_metric` is the one that chose its weights. `baselines`: what
    predictions without a language model reach, on the last split that the run was scored on."""

    name: str
    kind: str
    selection_metric: str
    splits: Mapping[str, SplitScores]
    baselines: Mapping[str, tuple[Baseline, ...]] = field(default_factory=dict)

    def better_baseline(self, split: str) -> Baseline | None:
        """Return the best of the baselines that the model is below on a split, by the main score; None if there is
        none. The main score of every kind is higher for better predictions; an undefined one is below all others."""
        main = self.splits[split].main
        reached = self.splits[split].values.get(main, -math.inf)
        better = [one for one in self.baselines.get(split, ()) if one.values.get(main, -math.inf) > reached]
        return max(better, key=lambda one: one.values[main], default=None)


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """A score over several runs: mean, standard deviation `std`, interval of the mean, and how many runs have it."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    runs: Count


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """The scores of one of several runs, by "task/split" and name."""

    name: str
    directory: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class RunsSummary:
    """Several runs `over` seeds or folds: each run's scores in `rows`, and their summary."""

    over: str
    best: str
    rows: tuple[RunScores, ...]
    summary: Mapping[str, Mapping[str, ScoreSummary]]


@dataclass(frozen=True, kw_only=True)
class FinetuningEvaluation:
    """`evaluation.json` of a fine-tuning run: `mean_score` by split of several tasks, `runs` if there are several.

    `chosen_among`: the numbers of "validations", "seeds", "folds" and "trials" among which the validation examples
    chose these weights. `rising`: by how much the last validation was better than all before, if that is much.
    """

    tasks: tuple[TaskScores, ...]
    mean_score: Mapping[str, float] = field(default_factory=dict)
    runs: RunsSummary | None = None
    chosen_among: Mapping[str, Count] = field(default_factory=dict)
    rising: float | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what to know before the scores are read, a sentence each."""
        among = [f"{number:,} {what}" for what, number in self.chosen_among.items() if number > 1]
        found = []
        if among and any("valid" in task.splits and "test" not in task.splits for task in self.tasks):
            found.append(
                f"The validation scores are optimistic: the same examples chose these weights among "
                f"{' and '.join(among)}. Scores of a test set (--test) are not."
            )
        if self.rising is not None:
            found.append(
                f"Validation was still improving at the end, by {self.rising:.4f} at last: longer training (--epochs) "
                "may give a better model."
            )
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The predictions with confidence in (low, high]; the means are None without any."""

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    count: Count


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """One class or type: `precision` of its predictions, `recall` over the `support` examples that have it, their
    harmonic mean `f1`. Rows with low support are mostly noise. `auroc` only of classes of label sets."""

    name: str
    precision: float
    recall: float
    f1: float
    support: Count
    auroc: float | None = None


@dataclass(frozen=True, kw_only=True)
class FittedValue:
    """A value that was fitted on the examples it is scored on: "cross-fitted" on the other half, or "fitted-on"; or a
    value that was kept, "not-fitted"."""

    name: str
    value: float | None
    scored: str


@dataclass(frozen=True, kw_only=True)
class ScoreDetails:
    """The part of `SplitScores.details` that the report shows; each kind of task writes some of it."""

    per_class: tuple[ClassScores, ...] = ()
    per_target: tuple[Mapping[str, Scalar], ...] = ()
    confusion: tuple[tuple[Count, ...], ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    points: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    errors: tuple[Mapping[str, object], ...] = ()
    warnings: tuple[str, ...] = ()
    fitted: tuple[FittedValue, ...] = ()
    articles: str | None = None
