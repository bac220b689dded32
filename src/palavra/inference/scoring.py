"""Log-likelihoods of texts, token by token."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from palavra.batch import Batch, Sample
from palavra.errors import PalavraError
from palavra.inference.batching import BATCH_TOKENS, SCORED_AT_ONCE, logit_parts, run_labelled
from palavra.model.compute import Compute
from palavra.model.finite import check_numbers
from palavra.model.heads import MaskedLanguageModel, VocabularyModel
from palavra.model.layouts import Layout
from palavra.tokenizer import Tokenizer

Masking = Literal["token", "word"]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenScore:
    """One token of a text: its `token` text, where it stands (`start`, `stop` in characters), and the natural
    logarithm of the probability it was given."""

    token: str
    start: int
    stop: int
    log_probability: float


@dataclass(frozen=True)
class Score:
    """The score of a text: `log_likelihood` in nats (a pseudo one for a masked model), over so many `tokens`, `words`
    (between blanks) and UTF-8 `bytes`; `per_token` if requested. A mean over nothing is NaN."""

    text: str
    log_likelihood: float
    tokens: int
    words: int
    bytes: int
    per_token: tuple[TokenScore, ...] = ()

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return the row of a table."""
        values = {key: value for key, value in vars(self).items() if key != "per_token"}
        yield {**values, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}

    @property
    def perplexity(self) -> float:
        """exp(-log-likelihood / tokens). Comparable between models of one tokenizer."""
        return perplexity(-self.log_likelihood, self.tokens)

    @property
    def perplexity_per_word(self) -> float:
        """exp(-log-likelihood / words). Comparable between tokenizers."""
        return perplexity(-self.log_likelihood, self.words)

    @property
    def bits_per_byte(self) -> float:
        """-log-likelihood / (bytes ln 2). Comparable between tokenizers and languages."""
        return bits_per_byte(-self.log_likelihood, self.bytes)


def shortened(text: str) -> str:
    """Return a text as an error shows it."""
    return text if len(text) <= 60 else text[:57] + "..."


def perplexity(nats: float, count: int) -> float:
    """exp(nats / count), without overflow; NaN for nothing."""
    return math.exp(min(nats / count, 700.0)) if count else math.nan


def bits_per_byte(nats: float, size: int) -> float:
    """nats / (size ln 2); NaN for nothing."""
    return nats / (size * math.log(2)) if size else math.nan


def score_of(
    text: str, log_probabilities: Float64Array, ids: Sequence[int], offsets: Sequence[tuple[int, int]],
    tokenizer: Tokenizer, per_token: bool,
) -> Score:  # fmt: skip
    """Return the score of a text from the log-probabilities (L,) of its tokens."""
    detail = [
        TokenScore(tokenizer.token(id), start, stop, value)
        for id, (start, stop), value in zip(ids, offsets, log_probabilities.tolist(), strict=True)
    ] if per_token else []  # fmt: skip
    total = float(log_probabilities.sum())
    return Score(text, total, len(ids), len(text.split()), len(text.encode(errors="replace")), tuple(detail))


def labelled_losses(
    model: VocabularyModel, samples: Sequence[Sample], compute: Compute, causal: bool | None = None
) -> list[Float64Array]:
    """Return -log P(label) of the labelled rows (M,) of each sample, in nats. No other row goes through the head."""

    def run(batch: Batch, layout: Layout) -> tuple[Tensor]:
        logits = logit_parts(model, model.head(model(batch, layout, batch.label_rows, causal)))
        labels = batch.labels.split(SCORED_AT_ONCE)
        parts = [F.cross_entropy(*part, reduction="none") for part in zip(logits, labels, strict=True)]
        losses = torch.cat(parts)
        check_numbers(losses)
        return (losses.double(),)

    return [losses.numpy() for (losses,) in run_labelled(samples, compute, run)]


def score_masked(
    model: MaskedLanguageModel, tokenizer: Tokenizer, compute: Compute, texts: Sequence[str], *,
    masking: Masking = "word", per_token: bool = False,
) -> list[Score]:  # fmt: skip
    """Pseudo-log-likelihood: the sum over a text's tokens of log P(token | the others), each masked in turn.

    `masking` "token" masks one token at a time (Salazar et al. 2020, arXiv:1910.14659); "word" also the rest of its
    word (Kauf and Ivanova 2023, arXiv:2305.10588), so that the end of a word does not give away its beginning. Raises
    PalavraError for a text longer than the context.
    """
    encoded = [tokenizer.encode_with_offsets(text) for text in texts]
    chunks = _masked_chunks(model, tokenizer, texts, [ids for ids, _ in encoded], masking)
    losses = [one for samples in chunks for one in labelled_losses(model, samples, compute)]
    flat = np.concatenate(losses) if losses else np.empty(0)
    ends = np.cumsum([len(ids) for ids, _ in encoded])
    return [
        score_of(text, -flat[end - len(ids) : end], ids, offsets, tokenizer, per_token)
        for text, (ids, offsets), end in zip(texts, encoded, ends, strict=True)
    ]


def _masked_chunks(
    model: MaskedLanguageModel, tokenizer: Tokenizer, texts: Sequence[str], encoded: Sequence[Sequence[int]],
    masking: Masking,
) -> Iterator[list[Sample]]:  # fmt: skip
    """The masked copies of all texts, some hundred batches at a time: a long text has as many as it has tokens."""
    held: list[Sample] = []
    tokens = 0
    for text, ids in zip(texts, encoded, strict=True):
        if len(ids) + 2 > model.config.context:
            raise PalavraError(
                f'"{shortened(text)}" has {len(ids) + 2} tokens, the model reads at most {model.config.context}: score '
                "its sentences one by one"
            )
        held += masked_copies(ids, tokenizer, masking, model.config.mntp)
        tokens += len(ids) * (len(ids) + 2)
        if tokens > 64 * BATCH_TOKENS:
            yield held
            held, tokens = [], 0
    yield held


def masked_copies(ids: Sequence[int], tokenizer: Tokenizer, masking: Masking, mntp: bool = False) -> list[Sample]:
    """[CLS] text [SEP] once for each of the text's tokens (L,), which is masked in it and the label of its own row, or
    of the one before it for a `mntp` model."""
    length = len(ids)
    whole = np.array([tokenizer.cls_id, *ids, tokenizer.sep_id], dtype=np.int64)
    place = np.arange(length)
    last = place
    if masking == "word" and length:
        starts = tokenizer.starts_word[whole[1:-1]]
        starts[0] = True
        ends = np.append(np.flatnonzero(starts)[1:], length) - 1
        last = ends[np.cumsum(starts) - 1]
    hidden = (place >= place[:, None]) & (place <= last[:, None])
    copies = np.tile(whole, (length, 1))
    copies[:, 1:-1][hidden] = tokenizer.mask_id
    return [
        Sample(input_ids=copy, label_rows=np.array([row - int(mntp)]), labels=whole[row : row + 1])
        for row, copy in enumerate(copies, start=1)
    ]
