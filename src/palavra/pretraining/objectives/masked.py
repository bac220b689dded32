"""Masked language modelling, alone or with an auxiliary objective."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from palavra.data.corpus import Corpus
from palavra.data.loader import MASKED_TEMPLATE
from palavra.errors import PalavraError
from palavra.inference.evaluation import EvalSet, EvaluationResult, JointEvaluation, ObjectiveResult, evaluate_masked
from palavra.inference.masked import MaskedModel, vocabulary_of
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import load_masked_model
from palavra.model.heads import MaskedLanguageModel
from palavra.objectives.masked import MaskedObjective, Vocabulary
from palavra.pretraining.objectives.base import Counts, PretrainingObjective, TextObjective
from palavra.pretraining.samples import filled_blanks
from palavra.recipe import Recipe
from palavra.run_records.pretraining import FilledText
from palavra.tokenizer import Tokenizer


class MaskedPretraining(PretrainingObjective[MaskedLanguageModel]):
    """Predict masked tokens."""

    template = MASKED_TEMPLATE
    roles = ("mask", "cls", "sep")

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a causal model."""
        if config.causal:
            raise PalavraError(
                f"{name} is a causal language model ({config.family}): add --objective=causal to continue it"
            )

    def new(self, config: ModelConfig) -> MaskedLanguageModel:
        """Return a masked language model with random weights."""
        return MaskedLanguageModel(config)

    def load(self, directory: Path) -> MaskedLanguageModel:
        """Return the masked language model of a directory."""
        return load_masked_model(directory).model

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Return the loss of masked tokens."""
        del piece
        return MaskedObjective(recipe.masking, masking_vocabulary(vocab_size, tokenizer), kernel)

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """Return the fraction of the tokens that was masked."""
        return {"mask_rate": recipe.masking.mask_rate_at(progress)}

    def evaluate(
        self, model: MaskedLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *,
        counts: Counts | None = None, sliding: bool = False,
    ) -> EvaluationResult:  # fmt: skip
        """Evaluate under the fixed corruption; `sliding` has no effect."""
        del sliding
        return evaluate_masked(model, held_out, vocabulary_of(tokenizer), compute, limit=None, counts=counts)

    def examples(
        self, model: MaskedLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[FilledText]:
        """Return sentences with a blank and its fills."""
        return filled_blanks(MaskedModel(model, tokenizer, compute), corpus)


class JointPretraining(MaskedPretraining):
    """Predict masked tokens, whose loss selects the best weights, and an auxiliary objective called `name`."""

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


def masking_vocabulary(vocab_size: int, tokenizer: Tokenizer | None) -> Vocabulary:
    """Return the vocabulary for masking; without a tokenizer, one of this size with five special tokens."""
    if tokenizer is not None:
        return vocabulary_of(tokenizer)
    return Vocabulary(vocab_size, 4, frozenset(range(5)), np.ones(vocab_size, dtype=bool))
