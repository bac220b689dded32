"""The files of a run as dataclasses, used both to write them and to read them in the report.

Field names are the JSON keys (docs/files.md). Fields that only some runs have, or only later, have a default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from palavra.typed_json import Count, Rate, other_keys

Scalar = str | bool | int | float | None


# --- metrics.jsonl ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MetricLine:
    """A line of `metrics.jsonl`: the `values` of a logged or validated step, or the `message` of an event."""

    kind: Literal["train", "valid", "event"]
    step: Count
    message: str = ""
    values: Mapping[str, float | None] = other_keys()


# --- run.json -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """The outcome of training: `final_loss` is smoothed; `stopped` is the reason for an early stop, or None."""

    steps: Count
    tokens: Count
    seconds: float
    tokens_per_second: float
    best_step: int | None
    final_loss: float | None
    stopped: str | None
    examples_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The model of a pretraining run."""

    family: str
    objective: str
    num_layers: Count
    hidden_size: Count
    num_heads: Count
    intermediate_size: Count
    vocab_size: Count
    context: Count
    parameters: Count
    parameters_without_embeddings: Count


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """The text of a pretraining run, in documents, tokens and bytes."""

    sources: tuple[str, ...]
    documents: Count
    tokens: Count
    bytes: Count
    duplicates: Count
    empty: Count
    train_documents: Count
    train_tokens: Count
    valid_documents: Count
    valid_tokens: Count
    warnings: tuple[str, ...]
    longest_document: Count
    mean_tokens: float


@dataclass(frozen=True, kw_only=True)
class BudgetCandidate:
    """A model size that was timed: the steps and `tokens` it could see, and the loss by which sizes are ranked."""

    size: str
    parameters: Count
    tokens_per_second: float
    tokens: float
    predicted_loss: float
    chosen: bool
    steps: Count


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How size and length were chosen: `rule` holds the reasons, one line each."""

    minutes: float | None
    rule: tuple[str, ...]
    candidates: tuple[BudgetCandidate, ...]


@dataclass(frozen=True, kw_only=True)
class PackingSummary:
    """How the text filled the batches; `efficiency` is the fraction of the token budget that was filled."""

    efficiency: float
    pieces: Count
    cut_documents: Count
    context: Count
    batch_tokens: Count | None


@dataclass(frozen=True, kw_only=True)
class PretrainingRun:
    """`run.json` of a pretraining run; `packing` and `training` are added at the end."""

    palavra: str
    environment: Mapping[str, Scalar]
    model: PretrainedModel
    data: CorpusSummary
    budget: Budget
    packing: PackingSummary | None = None
    training: TrainingSummary | None = None


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
    """A task of a fine-tuning run: `examples` by split, what the kind counts in `data`, the `head`'s configuration."""

    name: str
    kind: str
    examples: Mapping[str, Count]
    data: Mapping[str, object]
    truncated: Count
    head: Mapping[str, object]


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


# --- evaluation.json and examples.json of pretraining -------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FrequencyBand:
    """Results over the labelled tokens whose frequency rank lies in a band. `loss` in nats a token."""

    band: str
    tokens: Count
    loss: float
    accuracy: Rate
    accuracy_at_5: Rate


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """The corruption of every evaluation: the fields of `MaskingConfig`, its `seed`, and by what it is `drawn`."""

    mask_rate: Rate
    final_mask_rate: float | None
    mask: Rate
    random: Rate
    unit: str
    span_words: float
    seed: int
    drawn: str


@dataclass(frozen=True, kw_only=True)
class MaskedResult:
    """Results over `tokens` masked tokens: `loss` in nats a token, accuracy of the first guess and the first five."""

    corruption: Corruption | None = None
    tokens: Count
    loss: float
    perplexity: float
    accuracy: Rate
    accuracy_at_5: Rate
    bands: tuple[FrequencyBand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CausalResult:
    """Results over `tokens` predicted tokens, including the end of each document: `loss` in nats a token, per word and
    in bits per byte if the text is known. `sliding`: how texts longer than the context were read."""

    tokens: Count
    loss: float
    perplexity: float
    perplexity_per_word: float | None
    bits_per_byte: float | None
    sliding: bool


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Results over `pairs`: `exchanged`, the fraction whose second part is from another document; `loss` in nats a
    pair; `accuracy`; and `baseline`, the accuracy of the more frequent answer. All None without pairs."""

    pairs: Count
    exchanged: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    baseline: float | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingEvaluation:
    """`evaluation.json` of a pretraining run: one part for each objective."""

    masked: MaskedResult | None = None
    causal: CausalResult | None = None
    next_sentence: PairResult | None = None


@dataclass(frozen=True)
class Fill:
    """One proposal: the `token`'s text and its `probability`."""

    token: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class FilledText:
    """A `text` with masks, and the fills of each, best first."""

    text: str
    fills: tuple[tuple[Fill, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ContinuedText:
    """A `prompt`, its continuation `text`, and the `reason` that it ended."""

    prompt: str
    text: str
    reason: str


# --- evaluation.json of fine-tuning -------------------------------------------------------------------------


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
class TaskScores:
    """The scores of a task by split; `selection_metric` is the one that chose its weights."""

    name: str
    kind: str
    selection_metric: str
    splits: Mapping[str, SplitScores]


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
    """`evaluation.json` of a fine-tuning run: `mean_score` by split of several tasks, `runs` if there are several."""

    tasks: tuple[TaskScores, ...]
    mean_score: Mapping[str, float] = field(default_factory=dict)
    runs: RunsSummary | None = None


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
    """A value that was fitted on the examples it is scored on: "cross-fitted" on the other half, or "fitted-on"."""

    name: str
    value: float
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
    fitted: FittedValue | None = None
    articles: str | None = None


# --- sweep.json and learning_curve.json ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """One trial: `value` is its best validation score (if pruned, its last), `params` the searched values,
    `evaluations` the score at each validation."""

    number: Count
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    params: Mapping[str, object]
    seconds: float
    evaluations: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """`sweep.json`: the trials, the number of the best, and the importance of each setting."""

    direction: Literal["minimize", "maximize"]
    metric: str
    trials: tuple[SweepTrial, ...]
    best: int | None
    importances: Mapping[str, float]

    @property
    def best_trial(self) -> SweepTrial | None:
        """Return the best trial, or None if none finished."""
        return next((trial for trial in self.trials if trial.number == self.best), None)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The test score of a model trained on this many examples, and its bootstrap interval if any."""

    examples: Count
    score: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class CurveSeries:
    """The points of one curve."""

    name: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """`learning_curve.json`: a score by number of labelled examples, for each curve."""

    metric: str
    series: tuple[CurveSeries, ...]
