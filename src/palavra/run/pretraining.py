"""What pretraining trains: a masked language model on packed text, everything resolved."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palavra import distributed
from palavra.data.loader import Documents, Packed, load
from palavra.data.packing import Cursor, Packer
from palavra.inference.evaluation import Evaluation, HeldOut, evaluate_masked
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel
from palavra.model.transformer import matmul_flops
from palavra.objectives.masked import MaskedObjective, Vocabulary
from palavra.recipe import Recipe, TrainConfig
from palavra.run.training import Stage, Validation
from palavra.training.loop import LoopConfig, StepReport, in_steps
from palavra.training.optimizers import OptimizerConfig, Optimizers, build_optimizers
from palavra.training.schedules import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """The job of a pretraining run (see `training.Job`)."""

    recipe: Recipe
    model: MaskedLanguageModel
    objective: MaskedObjective
    vocabulary: Vocabulary
    compute: Compute
    documents: Documents
    packer: Packer
    cls_id: int
    sep_id: int
    held_out: HeldOut | None
    where: Callable[[int], str]
    matmul_peak: float
    title: str = "pretraining"
    patience: int | None = None

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
    def pace(self) -> TrainConfig:
        """The recipe's."""
        return self.recipe.train

    @property
    def guessing(self) -> float:
        """The loss of a blind guess, in nats."""
        return math.log(self.vocabulary.size)

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
        packed = load(
            self.documents, self.packer, self.cls_id, self.sep_id, cursor, rank=distributed.rank(), ranks=ranks
        )
        return in_steps(packed, self.recipe.train.micro_batches(ranks))

    def validate(self) -> Validation | None:
        """Part of the held-out text, under the fixed corruption."""
        found = self.evaluate(self.recipe.train.eval_tokens)
        if found is None:
            return None
        values = {"loss": found.loss, "perplexity": found.perplexity, "accuracy": found.accuracy,
                  "accuracy_at_5": found.accuracy_at_5}  # fmt: skip
        line = f"validation loss {found.loss:.4f}, masked accuracy {found.accuracy:.1%}"
        return Validation(score=found.loss, values=values, line=line)

    def evaluate(self, limit: int | None, counts: npt.NDArray[np.integer] | None = None) -> Evaluation | None:
        """Evaluate on about `limit` tokens of the held-out text (None: on all), if there is any."""
        if self.held_out is None:
            return None
        return evaluate_masked(self.model, self.held_out, self.vocabulary, self.compute, limit=limit, counts=counts)

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """The share of tokens that was masked."""
        return {"masked_share": self.recipe.masking.share_at((report.step - 1) / self.loop.steps)}

    def flops(self, report: StepReport) -> float:
        """Floating-point operations of the step's matrix products."""
        assert self.recipe.model.context
        # A token of a global layer attends to the piece it is in, whose length is taken as the mean one.
        piece = max(1, self.packer.epoch_tokens // self.packer.epoch_pieces)
        return matmul_flops(self.model.config, report.tokens, report.labelled, min(self.recipe.model.context, piece))

    def name_document(self, number: int) -> str:
        """File and line of a document."""
        return self.where(number)
