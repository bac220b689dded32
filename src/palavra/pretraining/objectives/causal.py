"""Causal language modelling."""

from pathlib import Path
from typing import Any

from palavra.data.loader import CAUSAL_TEMPLATE
from palavra.data.shards import Corpus
from palavra.errors import PalavraError
from palavra.inference.causal import CausalEvaluation, CausalModel, evaluate_causal
from palavra.inference.evaluation import EvalSet
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import load_causal_model, save_model
from palavra.model.heads import CausalLanguageModel, VocabularyModel
from palavra.objectives.causal import CausalObjective
from palavra.pretraining import samples
from palavra.pretraining.objectives.masked import Counts, TextObjective
from palavra.recipe import Recipe
from palavra.run_records import ContinuedText
from palavra.tokenizer import Tokenizer


class CausalPretraining:
    """Each next token."""

    template = CAUSAL_TEMPLATE
    next_tokens = True

    def kinds_of_steps(self, recipe: Recipe) -> list[tuple[float, float]]:
        """All steps are of one kind."""
        del recipe
        return [(0.5, 1.0)]

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise PalavraError for a tokenizer without opening or closing token."""
        for role in (tokenizer.cls_id, tokenizer.sep_id):
            del role  # each raises a clear error when the tokenizer lacks it

    def new(self, config: ModelConfig) -> CausalLanguageModel:
        """A fresh model."""
        return CausalLanguageModel(config)

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a masked model."""
        if not config.causal:
            raise PalavraError(
                f"{name} is a masked language model ({config.family}): leave out --objective causal to continue it"
            )

    def load(self, directory: Path) -> CausalLanguageModel:
        """The causal language model of a directory."""
        return load_causal_model(directory).model

    def save(self, model: VocabularyModel, directory: Path, ids: dict[str, Any]) -> None:
        """Write weights and configuration."""
        save_model(model, directory, ids)

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Nothing of it depends on recipe or vocabulary."""
        del recipe, vocab_size, tokenizer, piece
        return CausalObjective(kernel)

    def evaluate(
        self, model: CausalLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None, sliding: bool = False,
    ) -> CausalEvaluation:  # fmt: skip
        """Long documents are cut as in training, or slid over."""
        del counts
        return evaluate_causal(model, held_out, compute, limit=limit, sliding=sliding, decode=tokenizer.decode)

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """Nothing."""
        del recipe, progress
        return {}

    def examples(
        self, model: CausalLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[ContinuedText]:
        """Beginnings that are continued."""
        return samples.continued(CausalModel(model, tokenizer, compute), corpus)
