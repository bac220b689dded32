"""The interface of a pretraining objective."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from palavra.data.corpus import Corpus
from palavra.data.loader import Packed, SpecialTokenTemplate
from palavra.inference.evaluation import EvalSet, EvaluationResult
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import save_model
from palavra.model.heads import VocabularyModel
from palavra.recipe import Recipe
from palavra.run_records.pretraining import ContinuedText, FilledText
from palavra.tokenizer import Tokenizer
from palavra.training.loop import Objective

TextObjective = Objective[Any, Packed]
Counts = npt.NDArray[np.integer]
Model = TypeVar("Model", bound=VocabularyModel)


class PretrainingObjective(ABC, Generic[Model]):
    """A pretraining objective: its model, loss, evaluation and examples.

    `template` gives the special tokens around pieces of text, `roles` the special tokens that the tokenizer must have.
    `next_tokens`: whether the model learns to predict each token from those before it.
    """

    template: ClassVar[SpecialTokenTemplate]
    roles: ClassVar[tuple[str, ...]]
    next_tokens: ClassVar[bool] = False

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise PalavraError for a tokenizer without the required special tokens."""
        for role in self.roles:
            getattr(tokenizer, f"{role}_id")

    @abstractmethod
    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError if this objective cannot train the model in the directory `name`."""

    @abstractmethod
    def new(self, config: ModelConfig) -> Model:
        """Return a model with random weights."""

    @abstractmethod
    def load(self, directory: Path) -> Model:
        """Return the model of a directory, to continue."""

    def save(self, model: Model, directory: Path, ids: dict[str, Any]) -> None:
        """Write weights and configuration; `ids` of roles go to `config.json`."""
        save_model(model, directory, ids)

    @abstractmethod
    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Return the loss of a recipe with resolved sizes, for texts of `piece` tokens on average. Without a tokenizer,
        returns one of equal cost for the vocabulary size."""

    def kinds_of_steps(self, recipe: Recipe) -> list[tuple[float, float]]:
        """Return a typical step of each kind that differs in cost: the progress (0 to 1) at which it occurs, where
        linearly changing values are at their mean, and the fraction of the steps that are of its kind."""
        del recipe
        return [(0.5, 1.0)]

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """Return the values of a log line besides loss, rate and speed."""
        del recipe, progress
        return {}

    @abstractmethod
    def evaluate(
        self, model: Model, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, counts: Counts | None = None,
        sliding: bool = False,
    ) -> EvaluationResult:  # fmt: skip
        """Evaluate a model on held-out text; `counts` (V,) of the training text add results by frequency band.

        `sliding`: for next-token prediction, windows of documents longer than the context overlap by half.
        """

    @abstractmethod
    def examples(
        self, model: Model, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> Sequence[FilledText | ContinuedText]:
        """Return the model's output on a few texts, for the report."""
