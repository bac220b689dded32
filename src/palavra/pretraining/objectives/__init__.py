"""What an objective brings to a pretraining run: its model, its loss, its look at held-out text, its examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from palavra.data.loader import SpecialTokenTemplate
from palavra.data.shards import Corpus
from palavra.inference.evaluation import EvalSet, EvaluationResult
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import learned_both, read_config
from palavra.model.next_sentence import holds_next_sentence_head
from palavra.pretraining.objectives.causal import CausalPretraining
from palavra.pretraining.objectives.causal_masked import CausalMaskedPretraining
from palavra.pretraining.objectives.masked import Counts, MaskedPretraining, TextObjective
from palavra.pretraining.objectives.next_sentence import NextSentencePretraining
from palavra.recipe import ObjectiveName, Recipe
from palavra.run_records import ContinuedText, FilledText
from palavra.tokenizer import Tokenizer


class PretrainingObjective(Protocol):
    """One objective's part in a run. `template` says what stands around pieces of text; `next_tokens` whether it
    learns to predict each from those before it."""

    template: SpecialTokenTemplate
    next_tokens: bool

    def kinds_of_steps(self, recipe: Recipe) -> list[tuple[float, float]]:
        """A typical step of each kind that differs in cost: the progress (0 to 1) at which it is made, and the share
        of the steps that are such. What changes evenly over training is then at its mean."""

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise PalavraError for a tokenizer without the special tokens that are needed, before hours of work."""

    def new(self, config: ModelConfig) -> Any:
        """A fresh model (a `VocabularyModel`)."""

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError where the model of the directory `name` is of a kind that this does not train."""

    def load(self, directory: Path) -> Any:
        """The model of a directory, to go on with."""

    def save(self, model: Any, directory: Path, ids: dict[str, Any]) -> None:
        """Write weights and configuration; `ids` of roles go to `config.json`."""

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """The loss, with sizes resolved, for texts of `piece` tokens on average; without a tokenizer, for a vocabulary
        of so many entries: as expensive."""

    def evaluate(
        self, model: Any, held_out: EvalSet, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        counts: Counts | None, sliding: bool = False,
    ) -> EvaluationResult:  # fmt: skip
        """How good the model is on about `limit` held-out tokens (None: all); `counts` (V,) of the training text.

        `sliding`: where next tokens are predicted, the windows of documents longer than the context overlap by half.
        """

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """What a log line says beside loss, rate and speed."""

    def examples(
        self, model: Any, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> Sequence[FilledText | ContinuedText]:
        """What the model makes of a few texts, for the report."""


PRETRAINING_OBJECTIVES: dict[ObjectiveName, PretrainingObjective] = {
    "masked": MaskedPretraining(),
    "causal": CausalPretraining(),
    "masked+nsp": NextSentencePretraining(),
    "causal+masked": CausalMaskedPretraining(),
}


def pretraining_objective(recipe: Recipe) -> PretrainingObjective:
    """The part of the recipe's objective."""
    return PRETRAINING_OBJECTIVES[recipe.objective]


def pretraining_objective_in(directory: Path) -> PretrainingObjective:
    """The part of what the model of a directory has learned, as far as its configuration and weights tell."""
    config = read_config(directory)
    if config.causal:
        return PRETRAINING_OBJECTIVES["causal"]
    if config.family == "bert" and holds_next_sentence_head(directory, config):
        return PRETRAINING_OBJECTIVES["masked+nsp"]
    return PRETRAINING_OBJECTIVES["causal+masked" if learned_both(directory) else "masked"]
