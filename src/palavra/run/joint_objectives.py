"""What two objectives in one run bring to it; see `learning.Learning`. Both build on hidden tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palavra.data.shards import Corpus
from palavra.errors import PalavraError
from palavra.inference.causal import CausalEvaluation, evaluate_causal
from palavra.inference.evaluation import Evaluation, HeldOut
from palavra.inference.model import vocabulary_of
from palavra.inference.next_sentence import NextSentenceEvaluation, evaluate_next_sentence
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import save_model
from palavra.model.heads import MaskedLanguageModel, VocabularyModel
from palavra.model.next_sentence import NextSentenceModel, load_next_sentence_model, save_next_sentence_model
from palavra.objectives.causal import CausalObjective
from palavra.objectives.masked import MaskedObjective, MaskingConfig
from palavra.objectives.mixture import MixedObjective
from palavra.objectives.next_sentence import NextSentenceObjective, Sentences, plain_sentences
from palavra.recipe import Recipe
from palavra.run.single_objectives import Counts, MaskedLearning, TextObjective, vocabulary_for_masking
from palavra.run.training import Validation
from palavra.tokenizer import Tokenizer


class NextSentenceLearning:
    """Tokens that were hidden, and whether the second part of a text follows the first."""

    special = 3
    steps_differ = False
    _masked = MaskedLearning()

    def check(self, tokenizer: Tokenizer) -> None:
        """As for masking alone."""
        self._masked.check(tokenizer)

    def new(self, config: ModelConfig) -> NextSentenceModel:
        """A fresh model."""
        return NextSentenceModel(config)

    def load(self, directory: Path) -> NextSentenceModel:
        """The masked language model of a directory, with a new second head where it has none."""
        return load_next_sentence_model(directory)

    def check_config(self, config: ModelConfig, name: str) -> None:
        """Raise PalavraError for a family without segments."""
        self._masked.check_config(config, name)
        if config.family != "bert":
            raise PalavraError(f"{name} is of family {config.family}: next-sentence prediction is for bert alone")

    def save(self, model: NextSentenceModel, directory: Path, ids: dict[str, Any]) -> None:
        """Write a directory with both heads."""
        save_next_sentence_model(model, directory, ids)

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> NextSentenceObjective:  # fmt: skip
        """Masking as the recipe has it, and pairs."""
        assert recipe.model.context
        sentences = plain_sentences(vocab_size) if tokenizer is None else Sentences.of(tokenizer)
        vocabulary = vocabulary_for_masking(vocab_size, tokenizer)
        return NextSentenceObjective(
            recipe.masking, vocabulary, sentences, context=recipe.model.context, tokens=piece, kernel=kernel
        )

    def evaluate(
        self, model: NextSentenceModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None,
    ) -> NextSentenceEvaluation:  # fmt: skip
        """Both heads."""
        vocabulary, context = vocabulary_of(tokenizer), model.config.context
        objective = NextSentenceObjective(
            MaskingConfig(), vocabulary, Sentences.of(tokenizer), context=context, tokens=0.0
        )
        return evaluate_next_sentence(model, held_out, vocabulary, objective, compute, limit=limit, counts=counts)

    def validation(self, found: NextSentenceEvaluation) -> Validation:
        """As without pairs, and the share of pairs told rightly."""
        known, accuracy = self._masked.validation(found.masked), found.next_sentence.accuracy
        if accuracy is None:
            return known
        values = {**known.values, "next_sentence_accuracy": accuracy}
        return Validation(score=known.score, values=values, line=f"{known.line}, next sentence {accuracy:.1%}")

    def summary(self, found: NextSentenceEvaluation) -> str:
        """As without pairs, and the share of pairs told rightly."""
        accuracy = found.next_sentence.accuracy
        return self._masked.summary(found.masked) + ("" if accuracy is None else f", next sentence {accuracy:.1%}")

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """As for masking alone."""
        return self._masked.step_values(recipe, progress)

    def examples(
        self, model: NextSentenceModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[dict[str, Any]]:
        """Blanks that are filled."""
        return self._masked.examples(model, tokenizer, compute, corpus)


@dataclass(frozen=True, kw_only=True)
class MixedEvaluation:
    """One model's results at hidden tokens, and at next ones when it reads from left to right only."""

    masked: Evaluation
    causal: CausalEvaluation

    @property
    def loss(self) -> float:
        """That of the masked tokens."""
        return self.masked.loss

    @property
    def perplexity(self) -> float:
        """That of the masked tokens."""
        return self.masked.perplexity

    def lines(self) -> list[str]:
        """As people read it."""
        return [*self.masked.lines(), "from left to right", *(f"  {line}" for line in self.causal.lines())]

    def to_json(self) -> dict[str, Any]:
        """As written to `evaluation.json`."""
        return {**self.masked.to_json(), "causal": self.causal.to_json()}


class MixedLearning:
    """Next tokens and hidden ones in turn; what comes out is a masked language model."""

    special = 2
    steps_differ = True
    _masked = MaskedLearning()

    def check(self, tokenizer: Tokenizer) -> None:
        """As for masking."""
        self._masked.check(tokenizer)

    def new(self, config: ModelConfig) -> MaskedLanguageModel:
        """A fresh model."""
        return self._masked.new(config)

    def check_config(self, config: ModelConfig, name: str) -> None:
        """As for masking."""
        self._masked.check_config(config, name)

    def load(self, directory: Path) -> MaskedLanguageModel:
        """The masked language model of a directory."""
        return self._masked.load(directory)

    def save(self, model: VocabularyModel, directory: Path, ids: dict[str, Any]) -> None:
        """Write weights and configuration."""
        save_model(model, directory, ids)

    def objective(
        self, recipe: Recipe, vocab_size: int, tokenizer: Tokenizer | None, piece: float,
        kernel: SoftmaxGradient = softmax_gradient,
    ) -> TextObjective:  # fmt: skip
        """Mixture and masking as the recipe has them."""
        del piece
        masked = MaskedObjective(recipe.masking, vocabulary_for_masking(vocab_size, tokenizer), kernel)
        return MixedObjective(CausalObjective(kernel), masked, recipe.mixture)

    def evaluate(
        self, model: MaskedLanguageModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None,
    ) -> MixedEvaluation:  # fmt: skip
        """Both ways."""
        masked = self._masked.evaluate(model, held_out, tokenizer, compute, limit=limit, counts=counts)
        causal = evaluate_causal(model, held_out, compute, limit=limit, decode=tokenizer.decode)
        return MixedEvaluation(masked=masked, causal=causal)

    def validation(self, found: MixedEvaluation) -> Validation:
        """As for masking, which decides what is best, and the causal loss."""
        known, loss = self._masked.validation(found.masked), found.causal.loss
        line = f"{known.line}, causal loss {loss:.4f}"
        return Validation(score=known.score, values={**known.values, "causal_loss": loss}, line=line)

    def summary(self, found: MixedEvaluation) -> str:
        """As for masking, and the causal loss."""
        return f"{self._masked.summary(found.masked)}, causal loss {found.causal.loss:.4f}"

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """Whether the step is causal (1 or 0), and the share of its tokens that was masked."""
        if recipe.mixture.is_causal(progress):
            return {"causal": 1.0, "masked_share": 0.0}
        return {"causal": 0.0, **self._masked.step_values(recipe, progress)}

    def examples(
        self, model: MaskedLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[dict[str, Any]]:
        """Blanks that are filled."""
        return self._masked.examples(model, tokenizer, compute, corpus)
