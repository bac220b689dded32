"""What pretraining trains: a language model on packed text, with every value resolved."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra import distributed
from palavra.data.corpus import Corpus
from palavra.data.loader import Packed, packed_batches
from palavra.data.packing import Cursor, Packer
from palavra.inference.evaluation import EvalSet, EvaluationResult
from palavra.model.compute import Compute, compile_layers, matmul_peak
from palavra.model.heads import VocabularyModel
from palavra.model.transformer import matmul_flops
from palavra.objectives.masked import softmax_kernel
from palavra.pretraining.corpus import PreparedText, packer_for
from palavra.pretraining.objectives import PretrainingObjective, TextObjective, pretraining_objective
from palavra.pretraining.plan.resolve import ResolvedRecipe
from palavra.recipe import Recipe, TrainConfig
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig
from palavra.training.job import Stage, Validation
from palavra.training.loop import LoopConfig, StepReport, in_steps
from palavra.training.optimizers import Optimizers, build_optimizers


@dataclass(frozen=True, kw_only=True)
class PretrainingJob:
    """The `TrainingJob` of a pretraining run."""

    recipe: Recipe
    pretraining: PretrainingObjective[Any]
    model: VocabularyModel
    tokenizer: Tokenizer
    compute: Compute
    corpus: Corpus
    packer: Packer
    held_out: EvalSet | None
    matmul_peak: float
    title: str = "pretraining"
    patience: int | None = None

    @cached_property
    def objective(self) -> TextObjective:
        """The recipe's objective."""
        piece = int(self.corpus.train.lengths.sum()) / self.packer.epoch_pieces
        return self.pretraining.objective(
            self.recipe, self.tokenizer.vocab_size, self.tokenizer, piece, softmax_kernel(self.compute)
        )

    @property
    def loop(self) -> LoopConfig:
        """Length, schedule, clipping and seed of the recipe; rows of attention as wide as the context."""
        recipe = self.recipe
        assert recipe.train.steps and recipe.model.context
        return LoopConfig(
            steps=recipe.train.steps, schedule=recipe.schedule, clip=recipe.optimizer.clip, seed=recipe.train.seed,
            row_width=recipe.model.context,
        )  # fmt: skip

    @property
    def optimizer(self) -> OptimizerConfig:
        """The recipe's optimizer."""
        return self.recipe.optimizer

    @property
    def intervals(self) -> TrainConfig:
        """The recipe's intervals."""
        return self.recipe.train

    @property
    def chance_loss(self) -> float:
        """The loss of a blind guess, in nats."""
        return math.log(self.tokenizer.vocab_size)

    @property
    def micro_batch_tokens(self) -> int | None:
        """Tokens that a micro-batch may hold."""
        return self.recipe.train.micro_batch_tokens

    def optimizers(self) -> Optimizers:
        """New optimizers of the model's parameters."""
        return build_optimizers(self.model.named_parameters(), self.recipe.optimizer)

    def stages(self) -> Sequence[Stage]:
        """One stage: every parameter is trained from the first step to the last."""
        return (Stage(until=self.loop.steps),)

    def micro_batches(self, cursor: Cursor) -> Iterator[Sequence[Packed]]:
        """This rank's micro-batches of every step from `cursor` on."""
        ranks = distributed.world_size()
        cls_id, sep_id = self.tokenizer.cls_id, self.tokenizer.sep_id
        packed = packed_batches(
            self.corpus.train, self.packer, cls_id, sep_id, cursor, rank=distributed.rank(), ranks=ranks,
            template=self.pretraining.template,
        )  # fmt: skip
        return in_steps(packed, self.recipe.train.micro_batches(ranks), self.packer.ends_at)

    def validate(self) -> Validation | None:
        """Evaluate on part of the held-out text."""
        found = self.evaluate(self.recipe.train.eval_tokens)
        if found is None:
            return None
        return Validation(score=found.loss, loss=found.loss, values=found.values(), line=f"validation {found.brief()}")

    def evaluate(self, limit: int | None, counts: npt.NDArray[np.integer] | None = None) -> EvaluationResult | None:
        """Evaluate on `limit` tokens drawn from all of the held-out text (None: on all of it), if there is any."""
        if self.held_out is None:
            return None
        text = self.held_out if limit is None else self.held_out.part(limit)
        return self.pretraining.evaluate(self.model, text, self.tokenizer, self.compute, counts=counts)

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """The objective's values of the step."""
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
        return self.corpus.train.where(number)


def build_job(resolved: ResolvedRecipe, model: VocabularyModel, text: PreparedText) -> PretrainingJob:
    """The job of a resolved recipe, with the model on its device, compiled."""
    recipe, compute, tokenizer, valid = resolved.recipe, resolved.compute, text.tokenizer, text.corpus.valid
    model.to(compute.device)
    compile_layers(model.transformer.layers, compute)
    held_out = None
    if len(valid):
        held_out = EvalSet(documents=valid, lengths=valid.lengths, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id)
    return PretrainingJob(
        recipe=recipe,
        pretraining=pretraining_objective(recipe),
        model=model,
        tokenizer=tokenizer,
        compute=compute,
        corpus=text.corpus,
        packer=packer_for(recipe, text.corpus.train),
        held_out=held_out,
        matmul_peak=matmul_peak(compute),
    )
