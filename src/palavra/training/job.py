"""The interface of training jobs, implemented by pretraining and fine-tuning."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import nn

from palavra.data.packing import Cursor
from palavra.model.compute import Compute
from palavra.training.config import OptimizerConfig, RunConfig, ScheduleConfig
from palavra.training.loop import LoopConfig, Objective, StepReport
from palavra.training.optimizers import Optimizers, build_optimizers
from palavra.training.run_length import RunLength


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One evaluation on held-out data: the lowest `score` marks the best weights, ties go to the lowest `loss`, and an
    undefined score is infinite. `values` go to `metrics.jsonl`, `line` to the log."""

    score: float
    loss: float
    values: Mapping[str, float]
    line: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run that ends after step `until`; `begin` selects the parameters it trains."""

    until: int
    begin: Callable[[], None] = lambda: None


class TrainedRecipe(Protocol):
    """The part of a recipe that training reads."""

    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def train(self) -> RunConfig: ...


@dataclass(frozen=True, kw_only=True)
class TrainingJob(ABC):
    """A training job: a resolved recipe, and the model on its device.

    `title` names the progress line. `matmul_peak` is the machine's rate of matrix products, in operations a second (0:
    not measured).
    """

    title: ClassVar[str]
    recipe: TrainedRecipe
    model: nn.Module
    compute: Compute
    matmul_peak: float = 0.0

    @property
    @abstractmethod
    def objective(self) -> Objective[Any, Any]:
        """Labels and loss."""

    @property
    @abstractmethod
    def chance_loss(self) -> float:
        """The chance loss, in nats."""

    @abstractmethod
    def micro_batches(self, cursor: Cursor) -> Iterator[Sequence[Any]]:
        """Yield this rank's micro-batches of every step from `cursor` on, for the objective."""

    @abstractmethod
    def validate(self) -> Validation | None:
        """Evaluate on held-out data, if any."""

    @abstractmethod
    def name_document(self, number: int) -> str:
        """Return the place of a document or example, for error messages."""

    @property
    def row_width(self) -> int:
        """Slots of an attention row, as in `LoopConfig`."""
        return 0

    @property
    def loop(self) -> LoopConfig:
        """Length, schedule, clipping and seed of the recipe."""
        return loop_config(self.recipe, self.row_width)

    @property
    def optimizer(self) -> OptimizerConfig:
        """The configuration of `optimizers`."""
        return self.recipe.optimizer

    @property
    def intervals(self) -> RunConfig:
        """When to log, validate and save."""
        return self.recipe.train

    @property
    def patience(self) -> int | None:
        """Evaluations in a row without improvement that end the run; None: no early stopping."""
        return None

    @property
    def budget_seconds(self) -> float | None:
        """The seconds that training and its validations should take, if the length of the run is a time."""
        return None

    @property
    def micro_batch_tokens(self) -> int | None:
        """The token budget of a micro-batch; None if batches are not packed to one."""
        return None

    def optimizers(self) -> Optimizers:
        """Return new optimizers of the model's parameters."""
        return build_optimizers(self.model.named_parameters(), self.optimizer)

    def stages(self) -> Sequence[Stage]:
        """Return the parts of the run in order; the last ends with the run."""
        return (Stage(until=self.loop.steps),)

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """Return the values of a log line besides loss, rate and speed."""
        del report
        return {}

    def flops(self, report: StepReport) -> float:
        """Return the floating-point operations of the step's matrix products; 0: not counted."""
        del report
        return 0.0


def loop_config(recipe: TrainedRecipe, row_width: int, steps: int | None = None) -> LoopConfig:
    """Return the loop settings of a resolved recipe; `steps` replaces its length."""
    steps = steps or recipe.train.steps
    assert steps
    return LoopConfig(
        length=RunLength(steps=steps), schedule=recipe.schedule, clip=recipe.optimizer.clip, seed=recipe.train.seed,
        row_width=row_width,
    )  # fmt: skip
