"""A masked model ready for use: fill, embed, encode, score."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import ClassVar, overload

import torch
from torch import Tensor

from palavra.batch import Batch, Sample
from palavra.errors import PalavraError
from palavra.inference.base import load_parts, model_folder, sentence_modules_of
from palavra.inference.batching import run_labelled
from palavra.inference.embeds_text import EmbedsText
from palavra.inference.filling import Blank, blanks_of, likeliest
from palavra.inference.infilling import Filling, Order, Read, filling_of, proposals_of, samples_of, search
from palavra.inference.inputs import Texts, one_or_more
from palavra.inference.results import Results
from palavra.inference.scoring import Masking, Score, score_masked
from palavra.inference.sentence_pairs import SentencePair, judged
from palavra.model.compute import Compute
from palavra.model.config import CompileMode, Precision
from palavra.model.finite import check_numbers
from palavra.model.heads import MaskedLanguageModel
from palavra.model.layouts import Layout
from palavra.model.next_sentence import NextSentenceModel, load_with_heads
from palavra.model.sentence_modules import SentenceModules
from palavra.objectives.masked import Vocabulary
from palavra.option import does_not_apply
from palavra.tokenizer import Tokenizer


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """Return what masking needs of a tokenizer. Raises PalavraError if it has no mask token."""
    return Vocabulary(tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids, tokenizer.starts_word)


@dataclass(frozen=True)
class MaskedModel(EmbedsText):
    """A pretrained masked language model.

    `missing` names parameters that the directory did not have, such as the head of a bare encoder. `sentence`: how it
    makes vectors of texts, if its directory says so, or why Palavra cannot.
    """

    kind: ClassVar[str] = "a masked language model"
    offers: ClassVar[tuple[str, ...]] = ("fill", "embed", "encode", "score", "evaluate")

    model: MaskedLanguageModel = field(repr=False)
    tokenizer: Tokenizer
    compute: Compute
    missing: tuple[str, ...] = ()
    sentence: SentenceModules | PalavraError | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str = "auto", precision: Precision = "float32",
        compile: CompileMode = "off",
    ) -> "MaskedModel":  # fmt: skip
        """Load a directory written by Palavra or `transformers`. Raises PalavraError when it cannot."""
        path = model_folder(directory)
        parts = load_parts(path, load_with_heads, device, precision, compile)
        return cls(*parts, sentence=sentence_modules_of(path))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return what masking needs of the tokenizer."""
        return vocabulary_of(self.tokenizer)

    @overload
    def fill(self, texts: str, top: int = 5, order: Order = "parallel") -> Results[Blank]: ...  # type: ignore[overload-overlap]

    @overload
    def fill(self, texts: Texts, top: int = 5, order: Order = "parallel") -> Results[Results[Blank]]: ...

    def fill(
        self, texts: str | Texts, top: int = 5, order: Order = "parallel"
    ) -> Results[Blank] | Results[Results[Blank]]:
        """Return the `top` most probable tokens for every mask in a text, best first.

        One text gives a list of blanks, in order; several give a list for each. "parallel": every mask is predicted
        with all the others of its text left masked. "iterative": the surest mask is filled with its best token, the
        text is read again, and so on: a mask's proposals are those it had when it was filled, and the first of them
        stands in the text from then on. Raises PalavraError for a text without a mask, one longer than the context, or
        a model without a masked-language-model head.
        """
        self._check_count("top", top)
        given, single = one_or_more(texts)
        self.check_head()
        found = search([sample for one in given for sample in self.masked(one)], self._reader(top), order, 1)
        filled = Results(Results(proposals_of(best, self.tokenizer, top)) for (best,) in found)
        return filled[0] if single else filled

    @overload
    def fillings(  # type: ignore[overload-overlap]
        self, texts: str, n_best: int = 5, *, order: Order = "iterative", beam: int | None = None,
        lengths: tuple[int, int] | None = None,
    ) -> Results[Filling]: ...  # fmt: skip

    @overload
    def fillings(
        self, texts: Texts, n_best: int = 5, *, order: Order = "iterative", beam: int | None = None,
        lengths: tuple[int, int] | None = None,
    ) -> Results[Results[Filling]]: ...  # fmt: skip

    def fillings(
        self, texts: str | Texts, n_best: int = 5, *, order: Order = "iterative", beam: int | None = None,
        lengths: tuple[int, int] | None = None,
    ) -> Results[Filling] | Results[Results[Filling]]:  # fmt: skip
        """Return the `n_best` most probable ways to fill all blanks of a text, best first; masks side by side are one
        blank.

        "iterative": a beam search that fills the surest mask first, `beam` hypotheses wide (None: `n_best`),
        with as many passes as there are masks; exact where the beam is wide enough to hold all there is. "parallel":
        the masks are taken as independent, which needs one pass and no beam.

        `lengths` (fewest, most tokens) leaves the length of a text's only blank open: write it as one mask. Each
        length is searched, and since longer fillings are less probable merely because they are longer, all are ranked
        by `Filling.probability_per_token`; `probability` stays that given the length.

        Raises PalavraError as `fill`, and for numbers or lengths out of bounds.
        """
        self._check_count("n_best", n_best)
        if beam is not None and order == "parallel":
            raise PalavraError(does_not_apply("--beam", "--order=parallel, whose best fillings are exact"))
        if beam is not None and beam < n_best:
            raise PalavraError(f"beam is {beam}: it must be at least n_best, which is {n_best}")
        given, single = one_or_more(texts)
        self.check_head()
        samples = [self.masked(one, lengths) for one in given]
        width = beam or n_best
        found = search([sample for own in samples for sample in own], self._reader(width), order, width)
        filled: Results[Results[Filling]] = Results()
        for own in samples:
            whole = [filling_of(best, self.tokenizer) for held in islice(found, len(own)) for best in held]
            filled.append(Results(sorted(whole, key=lambda filling: -filling.probability_per_token)[:n_best]))
        return filled[0] if single else filled

    def _check_count(self, name: str, value: int) -> None:
        most = self.tokenizer.vocab_size
        if not 0 < value <= most:
            raise PalavraError(f"{name} is {value}: it must be 1 to {most}, the size of the vocabulary")

    def masked(self, text: str, lengths: tuple[int, int] | None = None) -> list[Sample]:
        """A text as `fillings` reads it: once, or once for each length of its blank. Raises PalavraError as it does."""
        return samples_of(text, self.tokenizer, self.model.config.context, lengths)

    def _reader(self, most: int) -> Read:
        """What finds the `most` likeliest tokens of masks."""
        return lambda samples: likeliest(self.model, self.tokenizer, self.compute, samples, most)

    def check_head(self) -> None:
        """Raise PalavraError for a bare encoder, which cannot predict words."""
        lacking = [name for name in self.missing if name.startswith("head.")]
        if lacking and len(lacking) < len(self.model.head.state_dict()):
            raise PalavraError(f"this model's masked-language-model head is not whole: its weights lack {lacking[0]}")
        if lacking:
            raise PalavraError(
                "this model has no masked-language-model head (it is a bare encoder): it can embed, not predict "
                "words; pretrain it with --init first"
            )

    @overload
    def distribution(self, texts: str) -> Tensor: ...  # type: ignore[overload-overlap]

    @overload
    def distribution(self, texts: Texts) -> list[Tensor]: ...

    def distribution(self, texts: str | Texts) -> Tensor | list[Tensor]:
        """Return the probability of every vocabulary entry for each mask of a text: (masks, V) float32, whose rows sum
        to 1."""
        self.check_head()
        given, single = one_or_more(texts)
        samples = [blanks_of(text, self.tokenizer, self.model.config.context) for text in given]

        def run(batch: Batch, layout: Layout) -> tuple[Tensor]:
            vectors = self.model(batch, layout).index_select(0, batch.label_rows - int(self.model.config.mntp))
            logits = self.model.logits(vectors).float()
            check_numbers(logits)
            return (torch.softmax(logits, -1),)

        found = [probabilities for (probabilities,) in run_labelled(samples, self.compute, run)]
        return found[0] if single else found

    @overload
    def score(  # type: ignore[overload-overlap]
        self, texts: str, per_token: bool = False, masking: Masking = "word"
    ) -> Score: ...

    @overload
    def score(self, texts: Texts, per_token: bool = False, masking: Masking = "word") -> Results[Score]: ...

    def score(
        self, texts: str | Texts, per_token: bool = False, masking: Masking = "word"
    ) -> Score | Results[Score]:  # fmt: skip
        """Return the pseudo-log-likelihood of a text or of several, its tokens masked one after the other; see
        `score_masked`.

        Raises PalavraError for a text longer than the context, or a model without a masked-language-model head.
        """
        self.check_head()
        if masking not in ("token", "word"):
            raise PalavraError(f"masking is {masking!r}: it must be token or word")
        given, single = one_or_more(texts)
        found = score_masked(self.model, self.tokenizer, self.compute, given, masking=masking, per_token=per_token)
        return found[0] if single else Results(found)

    @overload
    def follows(self, first: str, second: str) -> SentencePair: ...  # type: ignore[overload-overlap]

    @overload
    def follows(self, first: Texts, second: Texts) -> Results[SentencePair]: ...

    def follows(self, first: str | Texts, second: str | Texts) -> SentencePair | Results[SentencePair]:
        """Return whether the `second` text follows the `first` one, by the head that learned it (`masked+nsp`, BERT):
        a text and a text, or as many of each.

        Of a pair longer than the context, the longer text is cut first. Raises PalavraError for a model without that
        head, and for lists of different lengths.
        """
        if not isinstance(self.model, NextSentenceModel):
            raise PalavraError(
                "this model has no head for next sentences: use one that was pretrained with --objective=masked+nsp, "
                "or a BERT that has it"
            )
        (firsts, single), (seconds, other) = one_or_more(first), one_or_more(second)
        if single != other or len(firsts) != len(seconds):
            raise PalavraError("follows takes two texts, or two lists of equally many")
        found = judged(self.model, self.tokenizer, self.compute, list(zip(firsts, seconds, strict=True)))
        return found[0] if single else found
