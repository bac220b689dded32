"""A causal model ready for use: generate, score, evaluate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Unpack, overload

import numpy as np
import numpy.typing as npt

from palavra.batch import Sample
from palavra.errors import PalavraError
from palavra.inference.base import AnyModel, load_parts, model_folder, sentence_modules_of
from palavra.inference.batching import evaluating
from palavra.inference.embeds_text import EmbedsText
from palavra.inference.evaluation import EvalSet, ObjectiveResult
from palavra.inference.generation import (
    Continuation,
    GenerationConfig,
    GenerationOptions,
    Stream,
    continuations,
    generation_config,
    stream,
)
from palavra.inference.inputs import Texts, one_or_more
from palavra.inference.results import Results
from palavra.inference.scoring import Float64Array, Score, bits_per_byte, labelled_losses, perplexity, score_of
from palavra.model.cache import StepModel
from palavra.model.compute import Compute
from palavra.model.config import CompileMode, Precision
from palavra.model.directory import load_causal_model
from palavra.model.heads import VocabularyModel
from palavra.model.sentence_modules import SentenceModules
from palavra.run_records.pretraining import CausalResult
from palavra.tokenizer import Tokenizer

# Rows that are generated side by side.
ROWS_AT_ONCE = 32
# Tokens of held-out documents that are scored between two checks of the limit.
TOKENS_AT_ONCE = 65_536


class GeneratesText(AnyModel):
    """The base of models that predict next tokens: `generate` and `stream`."""

    @property
    def causal(self) -> "CausalModel":
        """Return the model as one that reads from left to right only."""
        raise NotImplementedError

    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompts: str, *, samples: None = None, **options: Unpack[GenerationOptions]
    ) -> Continuation: ...

    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompts: str, *, samples: int, **options: Unpack[GenerationOptions]
    ) -> Results[Continuation]: ...

    @overload
    def generate(
        self, prompts: Texts, *, samples: None = None, **options: Unpack[GenerationOptions]
    ) -> Results[Continuation]: ...

    @overload
    def generate(
        self, prompts: Texts, *, samples: int, **options: Unpack[GenerationOptions]
    ) -> Results[Results[Continuation]]: ...

    def generate(
        self, prompts: str | Texts, *, samples: int | None = None, **options: Unpack[GenerationOptions]
    ) -> Continuation | Results[Continuation] | Results[Results[Continuation]]:
        """Return the continuation of a prompt, or a list of so many `samples`; for several prompts a list of these.

        `options` are those of `GenerationConfig` and `SamplingConfig`; temperature 0 is greedy. Each result is
        the one its prompt has alone: different prompts draw independently, equal ones the same (ask for `samples`). An
        empty prompt gives a text from its beginning. Raises PalavraError for options out of bounds, or a prompt
        without room in the context.
        """
        given, single = one_or_more(prompts)
        found = self.causal.continued(given, generation_config(1 if samples is None else samples, options))
        each = Results(of[0] for of in found) if samples is None else Results(map(Results, found))
        return each[0] if single else each

    def stream(self, prompt: str, **options: Unpack[GenerationOptions]) -> Stream:
        """Return the pieces of one continuation as they come; together they are the text that `generate` gives."""
        return self.causal.streamed(prompt, generation_config(1, options))


@dataclass(frozen=True)
class CausalModel(GeneratesText, EmbedsText):
    """A pretrained causal language model, or one that has learned to be read as one. `missing` and `sentence` are those
    of `MaskedModel`."""

    kind: ClassVar[str] = "a causal language model"
    offers: ClassVar[tuple[str, ...]] = ("generate", "embed", "encode", "score", "evaluate")
    left_to_right: ClassVar[bool] = True

    model: VocabularyModel = field(repr=False)
    tokenizer: Tokenizer
    compute: Compute
    missing: tuple[str, ...] = ()
    sentence: SentenceModules | PalavraError | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str = "auto", precision: Precision = "float32",
        compile: CompileMode = "off",
    ) -> "CausalModel":  # fmt: skip
        """Load a directory written by Palavra or `transformers`. Raises PalavraError when it cannot."""
        path = model_folder(directory)
        parts = load_parts(path, load_causal_model, device, precision, compile)
        return cls(*parts, sentence=sentence_modules_of(path))

    def check_head(self) -> None:
        """Raise PalavraError for a bare body, which cannot predict tokens."""
        if self.missing:
            raise PalavraError(
                "this model is a bare body without its vocabulary head: it can embed, not predict; use a whole model"
            )

    @property
    def causal(self) -> "CausalModel":
        """Return the model itself."""
        return self

    @cached_property
    def _steps(self) -> StepModel:
        return StepModel(self.model, self.compute)

    @cached_property
    def _banned(self) -> list[int]:
        """The ids that no text has: special tokens but the closing and the unknown one, and ids without a token."""
        tokenizer, beyond = self.tokenizer, range(self.tokenizer.vocab_size, self.model.config.vocab_size)
        allowed = {tokenizer.sep_id} | ({tokenizer.unk_id} if "unk" in tokenizer.roles else set())
        return [*sorted(tokenizer.special_ids - allowed), *beyond]

    def continued(self, prompts: Sequence[str], config: GenerationConfig) -> list[list[Continuation]]:
        """Return the samples of each prompt."""
        self.check_head()
        encoded = [self._prompt(prompt) for prompt in prompts]
        together = max(1, ROWS_AT_ONCE // config.samples)
        found: list[list[Continuation]] = [[] for _ in encoded]
        for start in range(0, len(encoded), together):
            for first in range(0, config.samples, ROWS_AT_ONCE):
                part = replace(config, samples=min(ROWS_AT_ONCE, config.samples - first))
                some = continuations(
                    self._steps, self.tokenizer, encoded[start : start + together], part,
                    end_id=self.tokenizer.sep_id, banned=self._banned, first=first,
                )  # fmt: skip
                for own, more in zip(found[start:], some, strict=False):
                    own += more
        return found

    def streamed(self, prompt: str, config: GenerationConfig) -> Stream:
        """Return the pieces of one continuation."""
        self.check_head()
        ids = self._prompt(prompt)
        return stream(self._steps, self.tokenizer, ids, config, end_id=self.tokenizer.sep_id, banned=self._banned)

    def _prompt(self, text: str) -> list[int]:
        return [self.tokenizer.cls_id, *self.tokenizer.encode(text)]

    @overload
    def score(self, texts: str, per_token: bool = False) -> Score: ...  # type: ignore[overload-overlap]

    @overload
    def score(self, texts: Texts, per_token: bool = False) -> Results[Score]: ...

    def score(self, texts: str | Texts, per_token: bool = False) -> Score | Results[Score]:
        """Return the log-likelihood of a text or of several: the sum of log P(token | those before it), without the end
        of the text. In a text longer than the context, at least half a context precedes each token."""
        self.check_head()
        given, single = one_or_more(texts)
        encoded = [self.tokenizer.encode_with_offsets(text) for text in given]
        documents = [np.array(ids, dtype=np.int64) for ids, _ in encoded]
        losses = next_token_losses(self.model, documents, self.compute, self.tokenizer.cls_id, sliding=True)
        scores = Results(
            score_of(text, -own, ids, offsets, self.tokenizer, per_token)
            for text, own, (ids, offsets) in zip(given, losses, encoded, strict=True)
        )
        return scores[0] if single else scores

    def evaluate(self, texts: Sequence[str], *, sliding: bool = True) -> "CausalEvaluation":
        """Evaluate the model on whole documents, their ends included; see `evaluate_causal`."""
        self.check_head()
        documents = [np.array([*ids, self.tokenizer.sep_id]) for ids in self.tokenizer.encode_many(texts)]
        losses = next_token_losses(self.model, documents, self.compute, self.tokenizer.cls_id, sliding=sliding)
        return _evaluation(losses, np.array([_size_of(text) for text in texts]), sliding)


def _size_of(text: str) -> tuple[int, int]:
    """Return the number of words between blanks, and of UTF-8 bytes."""
    return len(text.split()), len(text.encode(errors="replace"))


@dataclass(frozen=True, kw_only=True)
class CausalEvaluation(CausalResult, ObjectiveResult):
    """Results at next tokens, as commands print them."""

    _recorded: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "bits_per_byte")

    def brief(self) -> str:
        """Return loss, perplexity and bits per byte in a few words."""
        known = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.3f} bits per byte"
        return f"loss {self.loss:.4f}, perplexity {self.perplexity:.2f}{known}"

    def lines(self) -> list[str]:
        """Return the lines that the command line prints."""
        found = [
            f"tokens            {self.tokens:,}",
            f"loss              {self.loss:.4f} nats a token",
            f"perplexity        {self.perplexity:.2f}",
        ]
        if self.perplexity_per_word is not None:
            found.append(f"  per word        {self.perplexity_per_word:.2f}")
        if self.bits_per_byte is not None:
            found.append(f"bits per byte     {self.bits_per_byte:.4f}")
        return found


def evaluate_causal(
    model: VocabularyModel, held_out: EvalSet, compute: Compute, *, limit: int | None = None, sliding: bool = False,
    decode: Callable[[Sequence[int]], str] | None = None,
) -> CausalEvaluation:  # fmt: skip
    """Evaluate a model on the next tokens of held-out documents, about `limit` of them, or all.

    Texts longer than the context are cut into pieces, as in training; if `sliding`, pieces overlap by half, so that
    each token is predicted from at least half a context, at twice the cost. Words and bytes are counted in the text
    that `decode` returns. Raises PalavraError if there is nothing to predict.
    """
    losses: list[Float64Array] = []
    sizes = []
    seen = 0
    with evaluating(model, compute):
        for documents in _documents(held_out):
            losses += next_token_losses(model, documents, compute, held_out.cls_id, sliding=sliding)
            if decode is not None:
                sizes += [_size_of(decode(ids[:-1].tolist())) for ids in documents]
            seen += sum(map(len, documents))
            if limit is not None and seen >= limit:
                break
    return _evaluation(losses, None if decode is None else np.array(sizes), sliding)


def _documents(held_out: EvalSet) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Yield some whole documents at a time, the closing token behind each."""
    ends = np.cumsum(held_out.lengths)
    bounds = np.searchsorted(ends, np.arange(0, int(ends[-1]) if len(ends) else 0, TOKENS_AT_ONCE), side="right")
    for start, stop in pairwise([*np.unique(bounds).tolist(), len(ends)]):
        lengths = held_out.lengths[start:stop]
        if len(lengths):
            flat = held_out.documents.gather(np.arange(start, stop), np.zeros_like(lengths), lengths)
            parts = np.split(flat.astype(np.int64), np.cumsum(lengths)[:-1])
            yield [np.append(part, held_out.sep_id) for part in parts]


def _evaluation(losses: Sequence[Float64Array], sizes: npt.NDArray[np.int64] | None, sliding: bool) -> CausalEvaluation:
    """`sizes` (documents, 2) are numbers of words and bytes."""
    tokens, nats = sum(map(len, losses)), float(sum(own.sum() for own in losses))
    if not tokens:
        raise PalavraError("there is no text to evaluate on: the validation split is empty; pass a held-out file")
    words, size = (None, None) if sizes is None else sizes.sum(0).tolist()
    return CausalEvaluation(
        tokens=tokens,
        loss=nats / tokens,
        perplexity=perplexity(nats, tokens),
        perplexity_per_word=None if words is None else perplexity(nats, words),
        bits_per_byte=None if size is None else bits_per_byte(nats, size),
        sliding=sliding,
    )


def next_token_losses(
    model: VocabularyModel, documents: Sequence[npt.NDArray[np.int64]], compute: Compute, opening_id: int, *,
    sliding: bool,
) -> list[Float64Array]:  # fmt: skip
    """-log P(token | those before it), in nats, for every token (L,) of each document, before which `opening_id`
    stands; a later window of a document longer than the context begins with the token before it, as in training."""
    pieces: list[Sample] = []
    counts = []
    for ids in documents:
        own = context_windows(len(ids), model.config.context, sliding)
        counts.append(len(own))
        whole = np.concatenate([[opening_id], ids]).astype(np.int64)
        for start, scored, stop in own:
            rows = np.arange(scored - start, stop - start)
            pieces.append(Sample(input_ids=whole[start:stop], label_rows=rows, labels=ids[scored:stop]))
    losses = labelled_losses(model, pieces, compute, causal=True)
    ends = np.cumsum(counts)
    return [np.concatenate([np.empty(0), *losses[end - count : end]]) for count, end in zip(counts, ends, strict=True)]


def context_windows(length: int, context: int, sliding: bool) -> list[tuple[int, int, int]]:
    """Return (start, first predicted, end) of the windows in which a text of `length` tokens is read. A window reads
    from the token before its start to the one before its end, and predicts at most `context` tokens; each token is
    predicted once. The windows that do not slide are those of training."""
    if not sliding or length <= context:
        return [(start, start, min(start + context, length)) for start in range(0, length, context)]
    stride = max(1, context // 2)
    later = range(context, length, stride)
    return [(0, 0, context), *((min(at + stride, length) - context, at, min(at + stride, length)) for at in later)]
