"""What pretraining trains: a language model on packed text, everything resolved."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palavra import distributed
from palavra.data.loader import DocumentTokens, Packed, packed_batches
from palavra.data.packing import Cursor, Packer
from palavra.inference.evaluation import EvalSet, EvaluationResult
from palavra.losses import SoftmaxGradient
from palavra.model.compute import Compute
from palavra.model.heads import VocabularyModel
from palavra.model.transformer import matmul_flops
from palavra.pretraining.objectives import PretrainingObjective
from palavra.pretraining.objectives.masked import TextObjective
from palavra.recipe import Recipe, TrainConfig
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, ScheduleConfig
from palavra.training.job import Stage, Validation
from palavra.training.loop import LoopConfig, StepReport, in_steps
from palavra.training.optimizers import Optimizers, build_optimizers


@dataclass(frozen=True, kw_only=True)
class PretrainingJob:
    """The job of a pretraining run (see `job.Job`)."""

    recipe: Recipe
    pretraining: PretrainingObjective
    model: VocabularyModel
    kernel: SoftmaxGradient
    tokenizer: Tokenizer
    compute: Compute
    documents: DocumentTokens
    packer: Packer
    held_out: EvalSet | None
    where: Callable[[int], str]
    matmul_peak: float
    title: str = "pretraining"
    patience: int | None = None

    @cached_property
    def objective(self) -> TextObjective:
        """As the recipe has it, the number of steps included."""
        piece = int(self.documents.lengths.sum()) / self.packer.epoch_pieces
        return self.pretraining.objective(self.recipe, self.tokenizer.vocab_size, self.tokenizer, piece, self.kernel)

    @property
    def loop(self) -> LoopConfig:
        """What the loop needs of the recipe."""
        recipe = self.recipe
        assert recipe.train.steps and recipe.model.context
        return LoopConfig(
            steps=recipe.train.steps, clip=recipe.optimizer.clip, seed=recipe.train.seed,
            row_width=recipe.model.context,
        )  # fmt: skip

    @property
    def schedule(self) -> ScheduleConfig:
        """The recipe's."""
        return self.recipe.schedule

    @property
    def optimizer(self) -> OptimizerConfig:
        """The recipe's."""
        return self.recipe.optimizer

    @property
    def intervals(self) -> TrainConfig:
        """The recipe's."""
        return self.recipe.train

    @property
    def guessing(self) -> float:
        """The loss of a blind guess, in nats."""
        return math.log(self.tokenizer.vocab_size)

    @property
    def budget(self) -> int | None:
        """Tokens that a micro-batch may hold."""
        return self.recipe.train.micro_batch_tokens

    def optimizers(self) -> Optimizers:
        """New optimizers of the model's parameters."""
        return build_optimizers(self.model.named_parameters(), self.recipe.optimizer)

    def stages(self) -> Sequence[Stage]:
        """Everything moves from the first step to the last."""
        return (Stage(until=self.loop.steps),)

    def micro_batches(self, cursor: Cursor) -> Iterator[Sequence[Packed]]:
        """This rank's micro-batches of every step from `cursor` on."""
        ranks = distributed.world_size()
        cls_id, sep_id = self.tokenizer.cls_id, self.tokenizer.sep_id
        packed = packed_batches(
            self.documents, self.packer, cls_id, sep_id, cursor, rank=distributed.rank(), ranks=ranks,
            template=self.pretraining.template,
        )  # fmt: skip
        return in_steps(packed, self.recipe.train.micro_batches(ranks), self.packer.ends_at)

    def validate(self) -> Validation | None:
        """A look at part of the held-out text."""
        found = self.evaluate(self.recipe.train.eval_tokens)
        if found is None:
            return None
        return Validation(score=found.loss, loss=found.loss, values=found.values(), line=f"validation {found.brief()}")

    def evaluate(self, limit: int | None, counts: npt.NDArray[np.integer] | None = None) -> EvaluationResult | None:
        """Evaluate on `limit` tokens of the held-out text, drawn from all of it (None: on all), if there is any."""
        if self.held_out is None:
            return None
        text = self.held_out if limit is None else self.held_out.part(limit)
        return self.pretraining.evaluate(self.model, text, self.tokenizer, self.compute, limit=None, counts=counts)

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """What the objective has to say of the step."""
        return self.pretraining.step_values(self.recipe, (report.step - 1) / self.loop.steps)

    def flops(self, report: StepReport) -> float:
        """Floating-point operations of the step's matrix products."""
        assert self.recipe.model.context
        # Every piece is taken to be as long as the mean one.
        piece = max(1, self.packer.epoch_tokens // self.packer.epoch_pieces)
        sequence = min(self.recipe.model.context, piece)
        return matmul_flops(self.model.config, report.tokens, report.labelled, sequence)

    def name_document(self, number: int) -> str:
        """File and line of a document."""
        return self.where(number)
