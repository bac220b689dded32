"""The interface between the trainer and what it trains: pretraining and fine-tuning each have a job."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from palavra.data.packing import Cursor
from palavra.model.compute import Compute
from palavra.training.config import OptimizerConfig
from palavra.training.loop import LoopConfig, Objective, StepReport
from palavra.training.optimizers import Optimizers


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One evaluation on held-out data: the lowest `score` marks the best weights, and of equal ones the lowest `loss`;
    an undefined score is infinite. `values` go to `metrics.jsonl`, `line` to the log."""

    score: float
    loss: float
    values: Mapping[str, float]
    line: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run that ends after step `until`; `begin` selects the parameters it trains."""

    until: int
    begin: Callable[[], None] = lambda: None


class Intervals(Protocol):
    """Steps between log lines, evaluations and checkpoints; see `TrainConfig`."""

    @property
    def log_every(self) -> int: ...
    @property
    def eval_every(self) -> int | None: ...
    @property
    def save_every(self) -> int | None: ...
    @property
    def keep_last(self) -> int: ...
    @property
    def tensorboard(self) -> bool: ...


class TrainingJob(Protocol):
    """What a run trains, with every value resolved."""

    @property
    def title(self) -> str:
        """The name of the progress line."""

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""

    @property
    def objective(self) -> Objective[Any, Any]:
        """Labels and loss."""

    @property
    def compute(self) -> Compute:
        """Device, precision and attention."""

    @property
    def loop(self) -> LoopConfig:
        """Length, schedule, clipping and seed."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """The configuration of `optimizers`."""

    @property
    def intervals(self) -> Intervals:
        """When to log, validate and save."""

    @property
    def patience(self) -> int | None:
        """Evaluations in a row without improvement that end the run; None: no early stopping."""

    @property
    def chance_loss(self) -> float:
        """The loss of a blind guess, in nats."""

    @property
    def micro_batch_tokens(self) -> int | None:
        """Tokens that a micro-batch may hold; None where batches are not packed to a budget."""

    @property
    def matmul_peak(self) -> float:
        """The machine's rate of matrix products, in operations a second; 0: not measured."""

    def optimizers(self) -> Optimizers:
        """New optimizers of the model's parameters."""

    def stages(self) -> Sequence[Stage]:
        """The parts of the run, in order; the last ends with the run."""

    def micro_batches(self, cursor: Cursor) -> Iterator[Sequence[Any]]:
        """The micro-batches of every step from `cursor` on, as the objective takes them."""

    def validate(self) -> Validation | None:
        """Evaluate on held-out data, if there are any."""

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """The values of a log line besides loss, rate and speed."""

    def flops(self, report: StepReport) -> float:
        """Floating-point operations of the step's matrix products."""

    def name_document(self, number: int) -> str:
        """The place of a document or example, for error messages."""
