"""What two objectives in one run bring to it; see `learning.Learning`. Both build on hidden tokens."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from palavra.data.loader import ENCLOSED
from palavra.errors import PalavraError
from palavra.inference.causal import evaluate_causal
from palavra.inference.evaluation import HeldOut, JointEvaluation, Part
from palavra.inference.model import vocabulary_of
from palavra.inference.next_sentence import evaluate_next_sentence
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.heads import MaskedLanguageModel, VocabularyModel
from palavra.model.next_sentence import NextSentenceModel, load_next_sentence_model, save_next_sentence_model
from palavra.objectives.causal import CausalObjective
from palavra.objectives.masked import MaskedObjective, MaskingConfig
from palavra.objectives.mixture import MixedObjective
from palavra.objectives.next_sentence import NextSentenceObjective, Sentences, plain_sentences
from palavra.recipe import Recipe
from palavra.run.single_objectives import Counts, MaskedLearning, TextObjective, vocabulary_for_masking
from palavra.tokenizer import Tokenizer

# Of a run whose length is still to be measured.
NOMINAL_STEPS = 1000


def _steps(recipe: Recipe) -> int:
    return recipe.train.steps or NOMINAL_STEPS


class JointLearning(MaskedLearning, ABC):
    """Hidden tokens, which decide what is best, and something beside them that is called `name`."""

    name: ClassVar[str]

    @abstractmethod
    def evaluate_beside(
        self, model: VocabularyModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        sliding: bool,
    ) -> Part:  # fmt: skip
        """How good the model is at what it learned beside hidden tokens, on about `limit` held-out ones (None: all);
        `sliding` as in `learning.Learning.evaluate`."""

    def evaluate(
        self, model: MaskedLanguageModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None, sliding: bool = False,
    ) -> JointEvaluation:  # fmt: skip
        """Both."""
        masked = super().evaluate(model, held_out, tokenizer, compute, limit=limit, counts=counts)
        beside = self.evaluate_beside(model, held_out, tokenizer, compute, limit=limit, sliding=sliding)
        return JointEvaluation(masked=masked, beside={self.name: beside})


class NextSentenceLearning(JointLearning):
    """Tokens that were hidden, and whether the second part of a text follows the first."""

    name = "next_sentence"
    framing = replace(ENCLOSED, special=3)

    def new(self, config: ModelConfig) -> NextSentenceModel:
        """A fresh model."""
        return NextSentenceModel(config)

    def load(self, directory: Path) -> NextSentenceModel:
        """The masked language model of a directory, with a new second head where it has none."""
        return load_next_sentence_model(directory)

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a family without segments."""
        super().check_config(config, name)
        if config.family != "bert":
            raise PalavraError(f"{name} is of family {config.family}: next-sentence prediction is for bert alone")

    def save(self, model: VocabularyModel, directory: Path, ids: dict[str, Any]) -> None:
        """Write a directory with both heads."""
        assert isinstance(model, NextSentenceModel)
        save_next_sentence_model(model, directory, ids)

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Masking as the recipe has it, and pairs."""
        assert recipe.model.context
        sentences = plain_sentences(vocab_size) if tokenizer is None else Sentences.of(tokenizer)
        vocabulary = vocabulary_for_masking(vocab_size, tokenizer)
        return NextSentenceObjective(
            recipe.masking, vocabulary, sentences, context=recipe.model.context, tokens=piece, kernel=kernel
        )

    def evaluate_beside(
        self, model: VocabularyModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        sliding: bool,
    ) -> Part:  # fmt: skip
        """The second head."""
        del sliding
        assert isinstance(model, NextSentenceModel)
        objective = NextSentenceObjective(
            MaskingConfig(), vocabulary_of(tokenizer), Sentences.of(tokenizer), context=model.config.context, tokens=0.0
        )
        return evaluate_next_sentence(model, held_out, objective, compute, limit=limit)


class MixedLearning(JointLearning):
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
        self, model: VocabularyModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        sliding: bool,
    ) -> Part:  # fmt: skip
        """Reading from left to right only."""
        return evaluate_causal(model, held_out, compute, limit=limit, sliding=sliding, decode=tokenizer.decode)

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """The share of the step's sequences that is causal, and that of its tokens that was masked."""
        share = recipe.mixture.causal_share_at(progress, _steps(recipe))
        masked = recipe.masking.share_at(recipe.mixture.masked_progress(progress))
        return {"causal": share, "masked_share": (1 - share) * masked}
