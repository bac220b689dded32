"""Masked and causal language modelling in one model."""

from palavra.inference.causal import evaluate_causal
from palavra.inference.evaluation import EvalSet, ObjectiveResult
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel
from palavra.objectives.causal import CausalObjective
from palavra.objectives.masked import MaskedObjective
from palavra.objectives.mixture import MixedObjective
from palavra.pretraining.objectives.base import TextObjective
from palavra.pretraining.objectives.masked import JointPretraining, masking_vocabulary
from palavra.recipe import Recipe
from palavra.tokenizer import Tokenizer

# Assumed steps of a run whose length is not yet known.
NOMINAL_STEPS = 1000


class CausalMaskedPretraining(JointPretraining):
    """Predict next and masked tokens; the result is a masked language model."""

    name = "causal"
    next_tokens = True

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Return the mixed loss of next and masked tokens."""
        del piece
        masked = MaskedObjective(recipe.masking, masking_vocabulary(vocab_size, tokenizer), kernel)
        return MixedObjective(CausalObjective(kernel), masked, recipe.mixture, _steps(recipe))

    def kinds_of_steps(self, recipe: Recipe) -> list[tuple[float, float]]:
        """Return causal and masked steps, if they alternate."""
        return recipe.mixture.kinds_of_steps(_steps(recipe))

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """Return the fractions of causal sequences and of masked tokens in the step."""
        causal = recipe.mixture.causal_fraction_at(progress, _steps(recipe))
        masked = recipe.masking.mask_rate_at(recipe.mixture.masked_progress(progress))
        return {"causal": causal, "mask_rate": (1 - causal) * masked}

    def evaluate_auxiliary(
        self, model: MaskedLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, sliding: bool
    ) -> ObjectiveResult:
        """Evaluate next-token prediction with causal attention."""
        return evaluate_causal(model, held_out, compute, limit=None, sliding=sliding, decode=tokenizer.decode)


def _steps(recipe: Recipe) -> int:
    return recipe.train.steps or NOMINAL_STEPS
