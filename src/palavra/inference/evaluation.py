"""Evaluate a masked model under a fixed corruption, so that runs can be compared."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.batch import Batch
from palavra.data.loader import DocumentTokens, assemble
from palavra.data.packing import Cursor, Int64Array, Pieces, mix, one_pass
from palavra.errors import PalavraError
from palavra.inference.batching import BATCH_TOKENS, SCORED_AT_ONCE, evaluating, logit_parts, placed
from palavra.inference.corruption import CORRUPTION, CORRUPTION_SEED, SMALL_TEXT, FixedCorruption
from palavra.metrics.top_k import chances
from palavra.model.compute import Compute
from palavra.model.heads import MaskedLanguageModel
from palavra.model.layouts import Layout
from palavra.objectives.masked import Vocabulary
from palavra.run_records.pretraining import Corruption, FrequencyBand, MaskedResult

# Ranks by frequency in the training text, 1 the most frequent.
BANDS = (1, 100, 1000, 4000, 16_000, 64_000)


class ObjectiveResult(Protocol):
    """The result of one objective on held-out text."""

    _recorded: ClassVar[tuple[str, ...]] = ()

    def values(self) -> dict[str, float]:
        """Return the values that each evaluation during training records, as far as they are known."""
        return {name: value for name in self._recorded if (value := getattr(self, name)) is not None}

    def brief(self) -> str:
        """Return the main values in a few words."""

    def summary(self) -> str:
        """Return the result of a finished run in one line."""
        return self.brief()

    def lines(self) -> list[str]:
        """Return the lines that the command line prints."""

    def to_json(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds."""
        return asdict(cast(Any, self))


class EvaluationResult(ObjectiveResult, Protocol):
    """The result of a whole model on held-out text."""

    @property
    def loss(self) -> float:
        """Return the loss in nats a predicted token, by which the best weights are chosen."""

    @property
    def perplexity(self) -> float:
        """exp(loss)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(MaskedResult, ObjectiveResult):
    """Results at masked tokens, as commands print them."""

    _recorded: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy", "accuracy_at_5")

    def brief(self) -> str:
        """Return loss and accuracy in a few words."""
        return f"loss {self.loss:.4f}, masked accuracy {self.accuracy:.1%}"

    def summary(self) -> str:
        """Return loss, perplexity and accuracy in one line."""
        first = f"loss {self.loss:.4f}, perplexity {self.perplexity:.2f}, masked accuracy {self.accuracy:.1%}"
        return f"{first} (first five guesses {self.accuracy_at_5:.1%})"

    def lines(self) -> list[str]:
        """Return the lines that the command line prints."""
        return [
            f"masked tokens     {self.tokens:,}",
            f"loss              {self.loss:.4f} nats a token",
            f"perplexity        {self.perplexity:.2f}",
            f"accuracy          {self.accuracy:.1%}",
            f"accuracy at 5     {self.accuracy_at_5:.1%}",
            *(
                f"  rank {band.band:<13} {band.accuracy:6.1%}   at 5 {band.accuracy_at_5:6.1%}   "
                f"({band.tokens:,} tokens)"
                for band in self.bands
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds."""
        named = {each.name for each in fields(Corruption)}
        values = {name: value for name, value in asdict(CORRUPTION).items() if name in named}
        corruption = Corruption(**values, seed=CORRUPTION_SEED, drawn="document")
        return asdict(replace(self, corruption=corruption))


@dataclass(frozen=True, kw_only=True)
class JointEvaluation(ObjectiveResult):
    """One model's results at masked tokens, and for each auxiliary objective in `beside`, by name."""

    masked: EvaluationResult
    beside: Mapping[str, ObjectiveResult]

    @property
    def loss(self) -> float:
        """Return that of the masked tokens."""
        return self.masked.loss

    @property
    def perplexity(self) -> float:
        """Return that of the masked tokens."""
        return self.masked.perplexity

    def values(self) -> dict[str, float]:
        """Return the values at masked tokens, and the others with their objective's name as a prefix."""
        others = {f"{name}_{key}": value for name, part in self.beside.items() for key, value in part.values().items()}
        return {**self.masked.values(), **others}

    def brief(self) -> str:
        """Return all parts, one after the other."""
        return "; ".join([self.masked.brief(), *self._others()])

    def summary(self) -> str:
        """Return all parts, the masked tokens at more length."""
        return "; ".join([self.masked.summary(), *self._others()])

    def _others(self) -> list[str]:
        return [f"{_words(name)} {part.brief()}" for name, part in self.beside.items()]

    def lines(self) -> list[str]:
        """Return the lines that the command line prints: each part under its name."""
        parts = {"masked": self.masked, **self.beside}
        return [line for name, part in parts.items() for line in (_words(name), *(f"  {x}" for x in part.lines()))]

    def to_json(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds: each part under its name."""
        return {"masked": self.masked.to_json(), **{name: part.to_json() for name, part in self.beside.items()}}


def _words(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class SampledDocuments:
    """Some of other documents, `numbers` (n,) of them in this order, cut to `lengths` (n,)."""

    documents: DocumentTokens
    numbers: Int64Array
    lengths: Int64Array

    def gather(self, indices: Int64Array, starts: Int64Array, stops: Int64Array) -> npt.NDArray[np.integer]:
        """Return the tokens of many pieces, end to end."""
        return self.documents.gather(self.numbers[indices], starts, stops)


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Validation text: `documents` with `lengths` (documents,), and the [CLS] and [SEP] ids to put around."""

    documents: DocumentTokens
    lengths: Int64Array
    cls_id: int
    sep_id: int

    def part(self, tokens: int) -> "EvalSet":
        """Return a sample of so many tokens (at least 1,000, if there are), the same for every context: documents in
        the order of a hash, since neighbours may be of one source; the last one is cut."""
        numbers = np.argsort(mix(np.arange(len(self.lengths), dtype=np.uint64)), kind="stable")
        ends = np.cumsum(self.lengths[numbers])
        wanted = max(tokens, SMALL_TEXT)
        numbers = numbers[: int(np.searchsorted(ends, wanted)) + 1]
        lengths = self.lengths[numbers]
        lengths[-1:] -= np.maximum(0, ends[len(numbers) - 1 : len(numbers)] - wanted)
        drawn = SampledDocuments(documents=self.documents, numbers=numbers, lengths=lengths)
        return replace(self, documents=drawn, lengths=lengths)

    def batches(self, vocabulary: Vocabulary, context: int, limit: int | None) -> Iterator[Batch]:
        """Yield packed batches under the fixed corruption, about `limit` tokens or all, always the same. What is masked
        in a document does not depend on `context`; which documents make up `limit` tokens does."""
        corruption = FixedCorruption(self.documents, self.lengths, vocabulary)
        seen = labelled = 0
        for pieces in self._pieces(context, limit):
            batch = corruption.apply(assemble(self.documents, pieces, self.cls_id, self.sep_id, Cursor()))
            yield batch
            seen, labelled = seen + batch.tokens, labelled + batch.labelled
            if limit is not None and seen >= limit and labelled:
                return

    def _pieces(self, context: int, limit: int | None) -> Iterator[Pieces]:
        return one_pass(self.lengths, context, max(context, min(BATCH_TOKENS, limit or BATCH_TOKENS)))


def evaluate_masked(
    model: MaskedLanguageModel, held_out: EvalSet, vocabulary: Vocabulary, compute: Compute, *,
    limit: int | None = None, counts: npt.NDArray[np.integer] | None = None,
) -> Evaluation:  # fmt: skip
    """Loss, perplexity and accuracy on held-out text; by frequency band where `counts` (V,) of the training
    text are given. Raises PalavraError when there is nothing to predict, or a score is not a finite number."""
    with evaluating(model, compute):
        held_out_batches = held_out.batches(vocabulary, model.config.context, limit)
        parts = [_score(model, *placed(batch, compute)) for batch in held_out_batches]
    table = torch.cat(parts).cpu().numpy() if parts else np.empty((0, 4))
    if not len(table) and held_out.lengths.sum():
        raise PalavraError(
            "there is nothing to predict in this text: all its tokens are unknown to the model's tokenizer; pass text "
            "of the kind that it was trained on"
        )
    if not len(table):
        raise PalavraError("there is no text to evaluate on: the validation split is empty; pass a held-out file")
    labels, losses = table[:, 0].astype(np.int64), table[:, 1]
    if not np.isfinite(losses).all():
        raise PalavraError(
            "the model's loss on held-out text is not a finite number: its weights are damaged or diverged; "
            "take those of an earlier checkpoint, or train with a lower optimizer.learning_rate"
        )
    hits = {count: chances(count, table[:, 2], table[:, 3]) for count in (1, 5)}
    bands = () if counts is None else tuple(_bands(labels, losses, hits, counts))
    loss = float(losses.mean())
    return Evaluation(
        tokens=len(labels),
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        accuracy=float(hits[1].mean()),
        accuracy_at_5=float(hits[5].mean()),
        bands=bands,
    )


def _score(model: MaskedLanguageModel, batch: Batch, layout: Layout) -> Tensor:
    """(M, 4) float64: label, loss, and how many entries of the vocabulary score higher than the label and as high, as
    `gold_ranks` counts them."""
    hidden = model.head(model(batch, layout).index_select(0, batch.label_rows - int(model.config.mntp)))
    out = []
    for logits, labels in zip(logit_parts(model, hidden), batch.labels.split(SCORED_AT_ONCE), strict=True):
        own = logits.gather(1, labels[:, None])
        above = (logits > own).sum(1)
        tied = (logits >= own).sum(1) - above
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        out.append(torch.stack([labels.double(), loss.double(), above.double(), tied.double()], dim=1))
    return torch.cat(out)


def _bands(
    labels: Int64Array, losses: npt.NDArray[Any], hits: Mapping[int, npt.NDArray[Any]], counts: npt.NDArray[np.integer]
) -> Iterator[FrequencyBand]:
    frequency_rank = np.empty(len(counts), dtype=np.int64)
    frequency_rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    place = frequency_rank[labels]
    edges = [edge for edge in BANDS if edge <= len(counts)] + [len(counts) + 1]
    for low, high in pairwise(edges):
        inside = (place >= low) & (place < high)
        if inside.any():
            yield FrequencyBand(
                band=f"{low:,}-{high - 1:,}",
                tokens=int(inside.sum()),
                loss=float(losses[inside].mean()),
                accuracy=float(hits[1][inside].mean()),
                accuracy_at_5=float(hits[5][inside].mean()),
            )
