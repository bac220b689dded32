"""What a run trains. Pretraining and fine-tuning each have a job; `training` runs any."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from palavra.data.packing import Cursor
from palavra.model.compute import Compute
from palavra.training.config import OptimizerConfig, ScheduleConfig
from palavra.training.loop import LoopConfig, Objective, StepReport
from palavra.training.optimizers import Optimizers


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One look at held-out data: `score` decides which weights are best, the lower the better, and of equal ones the
    `loss`; what is not defined is infinite. `values` go to `metrics.jsonl`, `line` to the log."""

    score: float
    loss: float
    values: Mapping[str, float]
    line: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run that ends after step `until`; `begin` says which parameters it moves."""

    until: int
    begin: Callable[[], None] = lambda: None


class Intervals(Protocol):
    """How often things happen, in steps; see `TrainConfig`."""

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
    """What a run trains, everything resolved."""

    @property
    def title(self) -> str:
        """What the progress line calls it."""

    @property
    def model(self) -> nn.Module:
        """What is trained, on its device."""

    @property
    def objective(self) -> Objective[Any, Any]:
        """What is learned."""

    @property
    def compute(self) -> Compute:
        """Where and how the arithmetic is done."""

    @property
    def loop(self) -> LoopConfig:
        """Length, clipping and seed."""

    @property
    def schedule(self) -> ScheduleConfig:
        """The learning rate over time."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """What `optimizers` are made of."""

    @property
    def intervals(self) -> Intervals:
        """When to log, validate and save."""

    @property
    def guessing(self) -> float:
        """The loss of a blind guess."""

    @property
    def budget(self) -> int | None:
        """Tokens that a micro-batch may hold; None where batches are not filled to a budget."""

    @property
    def patience(self) -> int | None:
        """How many validations in a row may bring nothing new; None: any number."""

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
        """Look at held-out data, if there are any."""

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """What a log line says beside loss, rate and speed."""

    def flops(self, report: StepReport) -> float:
        """Floating-point operations of the step's matrix products."""

    def name_document(self, number: int) -> str:
        """Where a document comes from."""
