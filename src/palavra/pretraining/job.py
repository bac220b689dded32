"""The pretraining job: a language model on packed text, every value resolved."""

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
from palavra.model.compute import compile_layers, matmul_peak
from palavra.model.heads import VocabularyModel
from palavra.model.transformer import matmul_flops
from palavra.objectives.masked import softmax_kernel
from palavra.pretraining.corpus import PreparedText, packer_for
from palavra.pretraining.objectives import PretrainingObjective, TextObjective, pretraining_objective
from palavra.pretraining.plan.resolve import ResolvedRecipe
from palavra.recipe import Recipe
from palavra.tokenizer import Tokenizer
from palavra.training.job import TrainingJob, Validation
from palavra.training.loop import StepReport, in_steps


@dataclass(frozen=True, kw_only=True)
class PretrainingJob(TrainingJob):
    """A language model trained on packed text."""

    title = "pretraining"
    recipe: Recipe
    model: VocabularyModel
    tokenizer: Tokenizer
    corpus: Corpus

    @property
    def pretraining(self) -> PretrainingObjective[Any]:
        """The recipe's pretraining objective."""
        return pretraining_objective(self.recipe)

    @cached_property
    def packer(self) -> Packer:
        """The packer of the training text."""
        return packer_for(self.recipe, self.corpus.train)

    @cached_property
    def held_out(self) -> EvalSet | None:
        """The held-out text, if any."""
        valid, tokenizer = self.corpus.valid, self.tokenizer
        if not len(valid):
            return None
        return EvalSet(documents=valid, lengths=valid.lengths, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id)

    @cached_property
    def objective(self) -> TextObjective:
        """The recipe's objective: labels and loss."""
        piece = int(self.corpus.train.lengths.sum()) / self.packer.epoch_pieces
        return self.pretraining.objective(
            self.recipe, self.tokenizer.vocab_size, self.tokenizer, piece, softmax_kernel(self.compute)
        )

    @property
    def row_width(self) -> int:
        """The context."""
        assert self.recipe.model.context
        return self.recipe.model.context

    @property
    def chance_loss(self) -> float:
        """The chance loss, in nats."""
        return math.log(self.tokenizer.vocab_size)

    @property
    def patience(self) -> int | None:
        """The recipe's."""
        return self.recipe.train.patience

    @property
    def budget_seconds(self) -> float | None:
        """The recipe's minutes; a resolved recipe has none if its length was given in another unit."""
        minutes = self.recipe.train.minutes
        return None if minutes is None else 60 * minutes

    @property
    def micro_batch_tokens(self) -> int | None:
        """The token budget of a micro-batch."""
        return self.recipe.train.micro_batch_tokens

    def micro_batches(self, cursor: Cursor) -> Iterator[Sequence[Packed]]:
        """Yield this rank's micro-batches of every step from `cursor` on."""
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
        """Evaluate on `limit` tokens sampled from the held-out text (None: on all of it), if any."""
        if self.held_out is None:
            return None
        text = self.held_out if limit is None else self.held_out.part(limit)
        return self.pretraining.evaluate(self.model, text, self.tokenizer, self.compute, counts=counts)

    def step_values(self, report: StepReport) -> Mapping[str, float]:
        """Return the objective's values of the step."""
        return self.pretraining.step_values(self.recipe, report.progress)

    def flops(self, report: StepReport) -> float:
        """Return the floating-point operations of the step's matrix products."""
        # Assumes that every piece has the mean length.
        piece = max(1, self.packer.epoch_tokens // self.packer.epoch_pieces)
        return matmul_flops(self.model.config, report.tokens, report.labelled, min(self.row_width, piece))

    def name_document(self, number: int) -> str:
        """Return file and line of a document."""
        return self.corpus.train.where(number)


def build_job(resolved: ResolvedRecipe, model: VocabularyModel, text: PreparedText) -> PretrainingJob:
    """Return the job of a resolved recipe, with the compiled model on its device."""
    compute = resolved.compute
    model.to(compute.device)
    compile_layers(model.transformer.layers, compute)
    return PretrainingJob(
        recipe=resolved.recipe, model=model, tokenizer=text.tokenizer, compute=compute, corpus=text.corpus,
        matmul_peak=matmul_peak(compute),
    )  # fmt: skip
