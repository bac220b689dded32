"""Causal language modelling."""

from pathlib import Path

from palavra.data.corpus import Corpus
from palavra.data.loader import CAUSAL_TEMPLATE
from palavra.errors import PalavraError
from palavra.inference.causal import CausalEvaluation, CausalModel, evaluate_causal
from palavra.inference.evaluation import EvalSet
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import load_causal_model
from palavra.model.heads import CausalLanguageModel
from palavra.objectives.causal import CausalObjective
from palavra.pretraining.objectives.base import Counts, PretrainingObjective, TextObjective
from palavra.pretraining.samples import continued_openings
from palavra.recipe import Recipe
from palavra.run_records.pretraining import ContinuedText
from palavra.tokenizer import Tokenizer


class CausalPretraining(PretrainingObjective[CausalLanguageModel]):
    """Predict each next token."""

    template = CAUSAL_TEMPLATE
    roles = ("cls", "sep")
    next_tokens = True

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a masked model."""
        if not config.causal:
            raise PalavraError(
                f"{name} is a masked language model ({config.family}): leave out --objective=causal to continue it"
            )

    def new(self, config: ModelConfig) -> CausalLanguageModel:
        """Return a causal language model with random weights."""
        return CausalLanguageModel(config)

    def load(self, directory: Path) -> CausalLanguageModel:
        """Return the causal language model of a directory."""
        return load_causal_model(directory).model

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Return the next-token loss, which depends on neither recipe nor vocabulary."""
        del recipe, vocab_size, tokenizer, piece
        return CausalObjective(kernel)

    def evaluate(
        self, model: CausalLanguageModel, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *,
        counts: Counts | None = None, sliding: bool = False,
    ) -> CausalEvaluation:  # fmt: skip
        """Evaluate on documents cut as in training, or in `sliding` windows."""
        del counts
        return evaluate_causal(model, held_out, compute, limit=None, sliding=sliding, decode=tokenizer.decode)

    def examples(
        self, model: CausalLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[ContinuedText]:
        """Return openings of texts and their continuations."""
        return continued_openings(CausalModel(model, tokenizer, compute), corpus)
