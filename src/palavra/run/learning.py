"""What an objective brings to a pretraining run: its model, its loss, its look at held-out text, its examples."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from palavra.data.loader import Packed
from palavra.data.shards import Corpus
from palavra.errors import PalavraError
from palavra.inference.causal import CausalEvaluation, CausalModel, evaluate_causal
from palavra.inference.evaluation import Evaluation, HeldOut, evaluate_masked
from palavra.inference.model import LanguageModel, vocabulary_of
from palavra.inference.next_sentence import NextSentenceEvaluation, evaluate_next_sentence
from palavra.losses import SoftmaxGradient, softmax_gradient
from palavra.model.compute import Compute
from palavra.model.config import ModelConfig
from palavra.model.directory import load_causal_model, load_model, save_model
from palavra.model.heads import CausalLanguageModel, MaskedLanguageModel, VocabularyModel
from palavra.model.next_sentence import NextSentenceModel, load_next_sentence_model, save_next_sentence_model
from palavra.objectives.causal import CausalObjective
from palavra.objectives.masked import MaskedObjective, MaskingConfig, Vocabulary
from palavra.objectives.next_sentence import NextSentenceObjective, Sentences, plain_sentences
from palavra.recipe import ObjectiveName, Recipe
from palavra.run import examples
from palavra.run.training import Validation
from palavra.tokenizer import Tokenizer
from palavra.training.loop import Objective

TextObjective = Objective[Any, Packed]
Counts = npt.NDArray[np.integer]


class Findings(Protocol):
    """What an evaluation on held-out text found."""

    @property
    def loss(self) -> float:
        """Nats a predicted token."""

    @property
    def perplexity(self) -> float:
        """exp(loss)."""

    def lines(self) -> list[str]:
        """As people read it."""

    def to_json(self) -> dict[str, Any]:
        """As written to `evaluation.json`."""


class Learning(Protocol):
    """One objective's part in a run. `special` tokens are added to every piece of text."""

    special: int

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
        self, model: Any, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *, limit: int | None,
        counts: Counts | None,
    ) -> Findings:  # fmt: skip
        """How good the model is on about `limit` held-out tokens (None: all); `counts` (V,) of the training text."""

    def validation(self, found: Any) -> Validation:
        """What a look at held-out text during training says."""

    def summary(self, found: Any) -> str:
        """The last look in one line."""

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """What a log line says beside loss, rate and speed."""

    def examples(self, model: Any, tokenizer: Tokenizer, compute: Compute, corpus: Corpus) -> list[dict[str, Any]]:
        """What the model makes of a few texts, for the report."""


class MaskedLearning:
    """Tokens that were hidden."""

    special = 2

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
        return load_model(directory).model

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
        self, model: MaskedLanguageModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None,
    ) -> Evaluation:  # fmt: skip
        """Under the fixed corruption."""
        return evaluate_masked(model, held_out, vocabulary_of(tokenizer), compute, limit=limit, counts=counts)

    def validation(self, found: Evaluation) -> Validation:
        """Loss and accuracy."""
        values = {"loss": found.loss, "perplexity": found.perplexity, "accuracy": found.accuracy,
                  "accuracy_at_5": found.accuracy_at_5}  # fmt: skip
        line = f"validation loss {found.loss:.4f}, masked accuracy {found.accuracy:.1%}"
        return Validation(score=found.loss, values=values, line=line)

    def summary(self, found: Evaluation) -> str:
        """Loss, perplexity and accuracy."""
        return (
            f"held-out text: loss {found.loss:.4f}, perplexity {found.perplexity:.2f}, masked accuracy "
            f"{found.accuracy:.1%} (first five guesses {found.accuracy_at_5:.1%})"
        )

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """The share of tokens that was masked."""
        return {"masked_share": recipe.masking.share_at(progress)}

    def examples(
        self, model: MaskedLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[dict[str, Any]]:
        """Blanks that are filled."""
        return examples.filled(LanguageModel(model, tokenizer, compute), corpus)


class CausalLearning:
    """Each next token."""

    special = 2

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
        self, model: CausalLanguageModel, held_out: HeldOut, tokenizer: Tokenizer, compute: Compute, *,
        limit: int | None, counts: Counts | None,
    ) -> CausalEvaluation:  # fmt: skip
        """Long documents are cut as in training."""
        del counts
        return evaluate_causal(model, held_out, compute, limit=limit, decode=tokenizer.decode)

    def validation(self, found: CausalEvaluation) -> Validation:
        """Loss, and bits per byte."""
        values = {"loss": found.loss, "perplexity": found.perplexity}
        line = f"validation loss {found.loss:.4f}, perplexity {found.perplexity:.2f}"
        if found.bits_per_byte is not None:
            values["bits_per_byte"] = found.bits_per_byte
            line += f", {found.bits_per_byte:.3f} bits per byte"
        return Validation(score=found.loss, values=values, line=line)

    def summary(self, found: CausalEvaluation) -> str:
        """Loss, perplexity and bits per byte."""
        return self.validation(found).line.replace("validation", "held-out text:", 1)

    def step_values(self, recipe: Recipe, progress: float) -> dict[str, float]:
        """Nothing."""
        del recipe, progress
        return {}

    def examples(
        self, model: CausalLanguageModel, tokenizer: Tokenizer, compute: Compute, corpus: Corpus
    ) -> list[dict[str, Any]]:
        """Beginnings that are continued."""
        return examples.continued(CausalModel(model, tokenizer, compute), corpus)


class NextSentenceLearning:
    """Tokens that were hidden, and whether the second part of a text follows the first."""

    special = 3
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


LEARNINGS: dict[ObjectiveName, Learning] = {
    "masked": MaskedLearning(),
    "causal": CausalLearning(),
    "masked+nsp": NextSentenceLearning(),
}


def learning_of(recipe: Recipe) -> Learning:
    """The part of the recipe's objective."""
    return LEARNINGS[recipe.objective]


def vocabulary_for_masking(vocab_size: int, tokenizer: Tokenizer | None) -> Vocabulary:
    """What masking needs of a tokenizer; before there is one, of any with so many entries, five of them special."""
    if tokenizer is not None:
        return vocabulary_of(tokenizer)
    return Vocabulary(vocab_size, 4, frozenset(range(5)), np.ones(vocab_size, dtype=bool))
