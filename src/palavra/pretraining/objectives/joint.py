"""What objectives that add one to hidden tokens have in common."""

from abc import ABC, abstractmethod
from typing import ClassVar

from palavra.inference.evaluation import EvalSet, JointEvaluation, ObjectiveResult
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel, VocabularyModel
from palavra.pretraining.objectives.masked import Counts, MaskedPretraining
from palavra.recipe import Recipe
from palavra.tokenizer import Tokenizer

# Of a run whose length is still to be measured.
NOMINAL_STEPS = 1000


def _steps(recipe: Recipe) -> int:
    return recipe.train.steps or NOMINAL_STEPS


class JointPretraining(MaskedPretraining, ABC):
    """Hidden tokens, which decide what is best, and something beside them that is called `name`."""

    name: ClassVar[str]

    @abstractmethod
    def evaluate_beside(
        self, model: VocabularyModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        sliding: bool,
    ) -> ObjectiveResult:  # fmt: skip
        """How good the model is at what it learned beside hidden tokens, on about `limit` held-out ones (None: all);
        `sliding` as in `pretraining.PretrainingObjective.evaluate`."""

    def evaluate(
        self, model: MaskedLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None, sliding: bool = False,
    ) -> JointEvaluation:  # fmt: skip
        """Both."""
        masked = super().evaluate(model, held_out, tokenizer, compute, limit=limit, counts=counts)
        beside = self.evaluate_beside(model, held_out, tokenizer, compute, limit=limit, sliding=sliding)
        return JointEvaluation(masked=masked, beside={self.name: beside})
