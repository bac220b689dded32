"""Masked and causal language modelling in one model."""

from palavra.inference.causal import evaluate_causal
from palavra.inference.evaluation import EvalSet, ObjectiveResult
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.heads import VocabularyModel
from palavra.objectives.causal import CausalObjective
from palavra.objectives.masked import MaskedObjective
from palavra.objectives.mixture import MixedObjective
from palavra.pretraining.objectives.joint import JointPretraining, _steps
from palavra.pretraining.objectives.masked import TextObjective, vocabulary_for_masking
from palavra.recipe import Recipe
from palavra.tokenizer import Tokenizer


class CausalMaskedPretraining(JointPretraining):
    """Next tokens and hidden ones; what comes out is a masked language model."""

    name = "causal"
    next_tokens = True

    def kinds_of_steps(self, recipe: Recipe) -> list[tuple[float, float]]:
        """Causal and masked ones, where they take turns."""
        return recipe.mixture.kinds_of_steps(_steps(recipe))

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Mixture and masking as the recipe has them."""
        del piece
        masked = MaskedObjective(recipe.masking, vocabulary_for_masking(vocab_size, tokenizer), kernel)
        return MixedObjective(CausalObjective(kernel), masked, recipe.mixture, _steps(recipe))

    def evaluate_beside(
        self, model: VocabularyModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        sliding: bool,
    ) -> ObjectiveResult:  # fmt: skip
        """Reading from left to right only."""
        return evaluate_causal(model, held_out, compute, limit=limit, sliding=sliding, decode=tokenizer.decode)

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """The share of the step's sequences that is causal, and that of its tokens that was masked."""
        share = recipe.mixture.causal_fraction_at(progress, _steps(recipe))
        masked = recipe.masking.mask_rate_at(recipe.mixture.masked_progress(progress))
        return {"causal": share, "mask_rate": (1 - share) * masked}
