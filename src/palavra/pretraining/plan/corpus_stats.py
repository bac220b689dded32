"""Statistics of the training text for planning."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from palavra.data.loader import DocumentTokens, Packed, packed_batches
from palavra.data.packing import Cursor, Pieces
from palavra.data.sources import source_bytes
from palavra.pretraining.corpus import InMemory, PreparedText, packer_for, vocabulary_size
from palavra.pretraining.objectives import pretraining_objective
from palavra.recipe import UNKNOWN_BYTES, Recipe
from palavra.tokenizer import Tokenizer

BYTES_A_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    """The training text: its number of `tokens`, the `tokenizer` and its `vocab_size`, and the tokenized `documents`.
    Before the text is read, `documents` is None, and so is an untrained tokenizer."""

    tokens: int
    vocab_size: int
    tokenizer: Tokenizer | None = None
    documents: DocumentTokens | None = None

    @classmethod
    def of(cls, text: PreparedText) -> "CorpusStats":
        """Return the statistics of a run's tokenized text."""
        documents, tokenizer = text.corpus.train, text.tokenizer
        tokens = int(documents.lengths.sum())
        return cls(tokens=tokens, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer, documents=documents)

    @classmethod
    def estimated(cls, recipe: Recipe) -> "CorpusStats":
        """Estimate the statistics of a recipe's text from its size in bytes."""
        given = recipe.init or recipe.tokenizer_from
        tokenizer = Tokenizer.load(given) if given else None
        return cls(
            tokens=max(1, (source_bytes(recipe.data) or UNKNOWN_BYTES) // BYTES_A_TOKEN),
            vocab_size=tokenizer.vocab_size if tokenizer else vocabulary_size(recipe.data, recipe.tokenizer),
            tokenizer=tokenizer,
        )

    def epoch_tokens(self, recipe: Recipe) -> int:
        """Return the tokens of one pass over the text, with special tokens once the text is read."""
        return self.tokens if self.documents is None else packer_for(recipe, self.documents).epoch_tokens

    def batches(self, recipe: Recipe) -> Iterator[Packed]:
        """Yield endless micro-batches of the recipe: of the text or, before it is read, random ones of equal cost."""
        if self.documents is None or self.tokenizer is None:
            return _random_batches(recipe, self.vocab_size)
        template = pretraining_objective(recipe).template
        packer = packer_for(recipe, self.documents)
        return packed_batches(self.documents, packer, self.tokenizer.cls_id, self.tokenizer.sep_id, template=template)


def _random_batches(recipe: Recipe, vocab_size: int) -> Iterator[Packed]:
    """Yield random documents that fill their contexts, always the same batch."""
    context, budget = recipe.model.context, recipe.train.micro_batch_tokens
    assert context and budget
    template = pretraining_objective(recipe).template
    length = context - template.special - template.opening
    ids = np.random.default_rng(0).integers(vocab_size, size=(max(2, budget // context), length))
    text = InMemory(ids.tolist())
    every = np.arange(max(1, budget // context))
    pieces = Pieces(document=every, start=np.zeros_like(every), stop=template.framed(text.lengths)[every])
    while True:
        yield template.assemble(text, pieces, 0, 1, Cursor())
