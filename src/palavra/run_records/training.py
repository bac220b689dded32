"""What pretraining and fine-tuning record alike: lines of `metrics.jsonl`, and the outcome of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from palavra.typed_json import Count, other_keys

Scalar = str | bool | int | float | None


@dataclass(frozen=True, kw_only=True)
class MetricLine:
    """A line of `metrics.jsonl`: the `values` of a logged or validated step, or the `message` of an event."""

    kind: Literal["train", "valid", "event"]
    step: Count
    message: str = ""
    values: Mapping[str, float | None] = other_keys()


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
