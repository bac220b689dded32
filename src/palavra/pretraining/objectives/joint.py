"""Masked language modelling with an auxiliary objective."""

from abc import abstractmethod
from typing import Any, ClassVar

from palavra.inference.evaluation import EvalSet, JointEvaluation, ObjectiveResult
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel
from palavra.pretraining.objectives.base import Counts
from palavra.pretraining.objectives.masked import MaskedPretraining
from palavra.tokenizer import Tokenizer


class JointPretraining(MaskedPretraining):
    """Predict hidden tokens, which decide the best weights, and an auxiliary objective called `name`."""

    name: ClassVar[str]

    @abstractmethod
    def evaluate_auxiliary(
        self, model: Any, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, sliding: bool
    ) -> ObjectiveResult:
        """Evaluate the auxiliary objective on held-out text; `sliding` as in `evaluate`."""

    def evaluate(
        self, model: MaskedLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *,
        counts: Counts | None = None, sliding: bool = False,
    ) -> JointEvaluation:  # fmt: skip
        """Evaluate both objectives."""
        masked = super().evaluate(model, held_out, tokenizer, compute, counts=counts)
        auxiliary = self.evaluate_auxiliary(model, held_out, tokenizer, compute, sliding=sliding)
        return JointEvaluation(masked=masked, beside={self.name: auxiliary})
