"""Masked language modelling with next-sentence prediction."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from palavra.data.loader import MASKED_TEMPLATE
from palavra.errors import PalavraError
from palavra.inference.evaluation import EvalSet, ObjectiveResult
from palavra.inference.masked import vocabulary_of
from palavra.inference.next_sentence import evaluate_next_sentence
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.heads import MaskedLanguageModel
from palavra.model.next_sentence import NextSentenceModel, load_next_sentence_model, save_next_sentence_model
from palavra.objectives.config import MaskingConfig
from palavra.objectives.next_sentence import NextSentenceObjective, Sentences, plain_sentences
from palavra.pretraining.objectives.base import TextObjective
from palavra.pretraining.objectives.masked import JointPretraining, masking_vocabulary
from palavra.recipe import Recipe
from palavra.tokenizer import Tokenizer


class NextSentencePretraining(JointPretraining):
    """Predict masked tokens, and whether the second part of a text follows the first."""

    name = "next_sentence"
    template = replace(MASKED_TEMPLATE, special=3)

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a family without segments."""
        super().check_config(config, name)
        if config.family != "bert":
            raise PalavraError(f"{name} is of family {config.family}: next-sentence prediction is for bert alone")

    def new(self, config: ModelConfig) -> NextSentenceModel:
        """Return a model with both heads and random weights."""
        return NextSentenceModel(config)

    def load(self, directory: Path) -> NextSentenceModel:
        """Return the masked language model of a directory, with a new pair head if it has none."""
        return load_next_sentence_model(directory)

    def save(self, model: MaskedLanguageModel, directory: Path, ids: dict[str, Any]) -> None:
        """Write a directory with both heads."""
        assert isinstance(model, NextSentenceModel)
        save_next_sentence_model(model, directory, ids)

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Return the sum of the losses of masked tokens and of pairs."""
        assert recipe.model.context
        sentences = plain_sentences(vocab_size) if tokenizer is None else Sentences.of(tokenizer)
        vocabulary = masking_vocabulary(vocab_size, tokenizer)
        return NextSentenceObjective(
            recipe.masking, vocabulary, sentences, context=recipe.model.context, tokens=piece, kernel=kernel
        )

    def evaluate_auxiliary(
        self, model: MaskedLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, sliding: bool
    ) -> ObjectiveResult:
        """Evaluate the pair head."""
        del sliding
        assert isinstance(model, NextSentenceModel)
        objective = NextSentenceObjective(
            MaskingConfig(), vocabulary_of(tokenizer), Sentences.of(tokenizer), context=model.config.context, tokens=0.0
        )
        return evaluate_next_sentence(model, held_out, objective, compute, limit=None)
