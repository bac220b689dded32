"""Masked language modelling."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.data.loader import MASKED_TEMPLATE, Packed
from palavra.data.shards import Corpus
from palavra.errors import PalavraError
from palavra.inference.evaluation import EvalSet, EvaluationResult, evaluate_masked
from palavra.inference.masked import MaskedModel, vocabulary_of
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import load_masked_model, save_model
from palavra.model.heads import MaskedLanguageModel, VocabularyModel
from palavra.objectives.masked import MaskedObjective, Vocabulary
from palavra.pretraining import samples
from palavra.recipe import Recipe
from palavra.run_records import FilledText
from palavra.tokenizer import Tokenizer
from palavra.training.loop import Objective

TextObjective = Objective[Any, Packed]


Counts = npt.NDArray[np.integer]


class MaskedPretraining:
    """Tokens that were hidden. What learns something beside them builds on it."""

    template = MASKED_TEMPLATE
    next_tokens = False

    def kinds_of_steps(self, recipe: Recipe) -> list[tuple[float, float]]:
        """All steps are of one kind."""
        del recipe
        return [(0.5, 1.0)]

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise PalavraError for a tokenizer without mask, opening or closing token."""
        for role in (tokenizer.mask_id, tokenizer.cls_id, tokenizer.sep_id):
            del role  # each raises a clear error when the tokenizer lacks it

    def new(self, config: ModelConfig) -> MaskedLanguageModel:
        """A fresh model."""
        return MaskedLanguageModel(config)

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a causal model."""
        if config.causal:
            raise PalavraError(
                f"{name} is a causal language model ({config.family}): add --objective causal to continue it"
            )

    def load(self, directory: Path) -> MaskedLanguageModel:
        """The masked language model of a directory."""
        return load_masked_model(directory).model

    def save(self, model: VocabularyModel, directory: Path, ids: dict[str, Any]) -> None:
        """Write weights and configuration."""
        save_model(model, directory, ids)

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Masking as the recipe has it."""
        del piece
        return MaskedObjective(recipe.masking, vocabulary_for_masking(vocab_size, tokenizer), kernel)

    def evaluate(
        self, model: MaskedLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None, sliding: bool = False,
    ) -> EvaluationResult:  # fmt: skip
        """Under the fixed corruption, which has no use for sliding windows."""
        del sliding
        return evaluate_masked(model, held_out, vocabulary_of(tokenizer), compute, limit=limit, counts=counts)

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """The share of tokens that was masked."""
        return {"mask_rate": recipe.masking.mask_rate_at(progress)}

    def examples(
        self, model: MaskedLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[FilledText]:
        """Blanks that are filled."""
        return samples.filled(MaskedModel(model, tokenizer, compute), corpus)


def vocabulary_for_masking(vocab_size: int, tokenizer: Tokenizer | None) -> Vocabulary:
    """What masking needs of a tokenizer; before there is one, of any with so many entries, five of them special."""
    if tokenizer is not None:
        return vocabulary_of(tokenizer)
    return Vocabulary(vocab_size, 4, frozenset(range(5)), np.ones(vocab_size, dtype=bool))
